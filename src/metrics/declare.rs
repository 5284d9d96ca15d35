//! The macro behind the declarations, and what is known of a metric without running it.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};

use super::recorder::recorder;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric as it is documented.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// The values of its one label, where the declaration names them.
    pub values: &'static [&'static str],
    /// The lines of its doc comment.
    pub(super) doc: &'static [&'static str],
    /// Registers what can be registered before it is first used, so that it shows as 0.
    pub(super) touch: fn(),
}

impl Metric {
    /// What it counts, in one line.
    #[must_use]
    pub fn help(&self) -> String {
        self.doc
            .iter()
            .map(|line| line.trim())
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(super) fn describe(&self) {
        let (name, help) = (KeyName::from_const_str(self.name), self.help().into());
        match self.kind {
            Kind::Counter => recorder().describe_counter(name, None, help),
            Kind::Gauge => recorder().describe_gauge(name, None, help),
            Kind::Histogram => recorder().describe_histogram(name, None, help),
        }
    }
}

/// A handle to one time series, got from its name and labels.
pub(super) trait Series: Clone {
    fn register(name: &'static str, labels: Vec<Label>) -> Self;
}

const METADATA: Metadata<'static> = Metadata::new("rookery", Level::INFO, None);

impl Series for Counter {
    fn register(name: &'static str, labels: Vec<Label>) -> Self {
        recorder().register_counter(&Key::from_parts(name, labels), &METADATA)
    }
}

impl Series for Gauge {
    fn register(name: &'static str, labels: Vec<Label>) -> Self {
        recorder().register_gauge(&Key::from_parts(name, labels), &METADATA)
    }
}

impl Series for Histogram {
    fn register(name: &'static str, labels: Vec<Label>) -> Self {
        recorder().register_histogram(&Key::from_parts(name, labels), &METADATA)
    }
}

/// Declares metrics. The doc comment is the help text, the identifier (with the prefix) the name;
/// each becomes a function that returns a handle:
///
/// - `gauge sockets;` is `sockets() -> &'static Gauge`;
/// - `counter fills_total { result: filled | failed };` is a struct with a handle for each value
///   of the label: `fills_total().filled.increment(1)`. No value outside the declaration exists;
/// - `counter closes_total(code);` is `closes_total("1012") -> Counter`, looked up at each call:
///   for labels with many values, all from a table of ours, off the hot path.
macro_rules! declare_metrics {
    (prefix $prefix:literal; $($(#[doc = $doc:literal])+ $kind:ident $name:ident $shape:tt)+) => {
        /// Every metric declared here.
        pub(super) const DECLARED: &[Metric] = &[$(
            Metric {
                name: concat!($prefix, stringify!($name)),
                kind: declare_metrics!(@kind $kind),
                labels: declare_metrics!(@labels $shape),
                values: declare_metrics!(@values $shape),
                doc: &[$($doc),+],
                touch: declare_metrics!(@touch $name $shape),
            }
        ),+];
        $(declare_metrics!(@accessor $prefix, [$($doc),+], $kind, $name, $shape);)+
    };

    (@kind counter) => { Kind::Counter };
    (@kind gauge) => { Kind::Gauge };
    (@kind histogram) => { Kind::Histogram };

    (@type counter) => { metrics::Counter };
    (@type gauge) => { metrics::Gauge };
    (@type histogram) => { metrics::Histogram };

    (@labels []) => { &[] };
    (@labels { $label:ident: $($value:ident)|+ }) => { &[stringify!($label)] };
    (@labels ($($label:ident),+)) => { &[$(stringify!($label)),+] };

    (@values { $label:ident: $($value:ident)|+ }) => { &[$(stringify!($value)),+] };
    (@values $shape:tt) => { &[] };

    (@touch $name:ident []) => { || { $name(); } };
    (@touch $name:ident { $($values:tt)+ }) => { || { $name(); } };
    (@touch $name:ident ($($label:ident),+)) => { || () };

    (@accessor $prefix:literal, [$($doc:literal),+], $kind:ident, $name:ident, []) => {
        $(#[doc = $doc])+
        pub fn $name() -> &'static declare_metrics!(@type $kind) {
            static HANDLE: std::sync::LazyLock<declare_metrics!(@type $kind)> =
                std::sync::LazyLock::new(|| {
                    Series::register(concat!($prefix, stringify!($name)), Vec::new())
                });
            &HANDLE
        }
    };
    (@accessor $prefix:literal, [$($doc:literal),+], $kind:ident, $name:ident,
     { $label:ident: $($value:ident)|+ }) => {
        $(#[doc = $doc])+
        pub mod $name {
            /// A handle for each value of the label.
            #[derive(Debug)]
            pub struct Handles<H> {
                $(pub $value: H),+
            }
        }
        $(#[doc = $doc])+
        pub fn $name() -> &'static $name::Handles<declare_metrics!(@type $kind)> {
            static HANDLES: std::sync::LazyLock<$name::Handles<declare_metrics!(@type $kind)>> =
                std::sync::LazyLock::new(|| $name::Handles {
                    $($value: Series::register(
                        concat!($prefix, stringify!($name)),
                        vec![metrics::Label::from_static_parts(
                            stringify!($label),
                            stringify!($value),
                        )],
                    )),+
                });
            &HANDLES
        }
    };
    (@accessor $prefix:literal, [$($doc:literal),+], $kind:ident, $name:ident,
     ($($label:ident),+)) => {
        $(#[doc = $doc])+
        pub fn $name(
            $($label: impl Into<metrics::SharedString>),+
        ) -> declare_metrics!(@type $kind) {
            Series::register(
                concat!($prefix, stringify!($name)),
                vec![$(metrics::Label::new(stringify!($label), $label)),+],
            )
        }
    };
}

pub(super) use declare_metrics;
