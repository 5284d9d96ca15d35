//! Line charts as inline SVG. Colours are classes, so that the page decides between light and dark.

use std::fmt::Write;

use super::table::number;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
/// Room for the numbers of the axes.
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 12.0;
/// Lines across the chart.
const STEPS: u32 = 4;
/// Classes of colours in the page's style.
const COLOURS: usize = 6;

/// How one axis grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// By factors; for what spans several powers of ten. Values must be positive.
    Log,
}

/// Several lines over the same axis.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub title: String,
    pub x_name: String,
    pub y_name: String,
    pub x_scale: Scale,
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Maps values to places within the chart.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone, from_zero: bool) -> Self {
        let map = |value: f64| match scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
        };
        let lowest = values.clone().map(map).fold(f64::INFINITY, f64::min);
        let highest = values.map(map).fold(f64::NEG_INFINITY, f64::max);
        let from = if from_zero { 0.0 } else { lowest };
        let to = if highest > from { highest } else { from + 1.0 };
        Self { scale, from, to }
    }

    /// 0 at the start, 1 at the end.
    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
        };
        (value - self.from) / (self.to - self.from)
    }

    fn value(&self, place: f64) -> f64 {
        let value = self.from + place * (self.to - self.from);
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.exp(),
        }
    }
}

/// The time of a run, which all its charts over time have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time {
    pub end: f64,
    /// What was measured; before it there are preparations and the warm-up, after it the drain.
    pub measured: Option<(f64, f64)>,
}

/// The chart as a figure; nothing if there is nothing to draw.
pub(super) fn svg(chart: &Chart) -> String {
    draw(chart, None)
}

/// The same over all of a run, with what was not measured in grey.
pub(super) fn svg_over_time(chart: &Chart, time: Time) -> String {
    draw(chart, Some(time))
}

fn draw(chart: &Chart, time: Option<Time>) -> String {
    let points = || chart.lines.iter().flat_map(|(_, points)| points.iter());
    if points().next().is_none() {
        return String::new();
    }
    let ends = time.map_or(Vec::new(), |time| vec![0.0, time.end]);
    let x = points().map(|point| point.0).chain(ends);
    let x = Axis::of(chart.x_scale, x, false);
    let y = Axis::of(Scale::Linear, points().map(|point| point.1), true);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"<figure><figcaption>{}<span>{}</span></figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        escape(&chart.title),
        escape(&chart.y_name),
        escape(&chart.title),
    );
    if let Some((from, to)) = time.and_then(|time| time.measured) {
        for (from, to) in [(0.0, x.place(from)), (x.place(to), 1.0)] {
            shade(&mut out, from, to);
        }
    }
    axes(&mut out, &x, &y);
    for (index, (_, points)) in chart.lines.iter().enumerate() {
        let colour = index % COLOURS;
        let places: Vec<String> = points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", left(x.place(*at)), top(y.place(*value))))
            .collect();
        let _ = write!(
            out,
            r#"<polyline class="l{colour}" points="{}"/>"#,
            places.join(" ")
        );
        // Few points are marked: a single one makes no line.
        if places.len() <= 16 {
            for (cx, cy) in places.iter().filter_map(|place| place.split_once(',')) {
                let _ = write!(
                    out,
                    r#"<circle class="f{colour}" cx="{cx}" cy="{cy}" r="2.5"/>"#
                );
            }
        }
    }
    let _ = write!(
        out,
        r#"<text x="{}" y="{}" text-anchor="middle">{}</text></svg><ul>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0,
        escape(&chart.x_name)
    );
    for (index, (name, _)) in chart.lines.iter().enumerate() {
        let _ = write!(
            out,
            r#"<li class="k{}">{}</li>"#,
            index % COLOURS,
            escape(name)
        );
    }
    out.push_str("</ul></figure>\n");
    out
}

fn left(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn top(place: f64) -> f64 {
    TOP + (1.0 - place) * (HEIGHT - TOP - BOTTOM)
}

/// A part of the chart, from one place to another.
fn shade(out: &mut String, from: f64, to: f64) {
    let (from, to) = (from.clamp(0.0, 1.0), to.clamp(0.0, 1.0));
    if to > from {
        let _ = write!(
            out,
            r#"<rect class="rest" x="{:.1}" y="{TOP}" width="{:.1}" height="{}"/>"#,
            left(from),
            left(to) - left(from),
            HEIGHT - TOP - BOTTOM,
        );
    }
}

fn axes(out: &mut String, x: &Axis, y: &Axis) {
    for step in 0..=STEPS {
        let place = f64::from(step) / f64::from(STEPS);
        let (across, down) = (top(place), left(place));
        // The last number would not fit otherwise.
        let anchor = if step == STEPS { "end" } else { "middle" };
        let _ = write!(
            out,
            r#"<line x1="{LEFT}" y1="{across:.1}" x2="{}" y2="{across:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{}</text><text x="{down:.1}" y="{}" text-anchor="{anchor}">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            across + 5.0,
            number(y.value(place)),
            HEIGHT - BOTTOM + 16.0,
            number(x.value(place)),
        );
    }
}

/// Text as it may stand in HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fill_the_chart() {
        let mut chart = Chart {
            title: "a < b".into(),
            x_name: "s".into(),
            y_name: "ms".into(),
            x_scale: Scale::Log,
            lines: vec![(
                "p99".into(),
                vec![(10.0, 0.0), (100.0, 5.0), (1_000.0, 10.0)],
            )],
        };
        let svg = svg(&chart);
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        let (x_middle, y_middle) = (left(0.5), top(0.5));
        let wanted = format!("{:.1},{:.1} ", left(0.0), top(0.0));
        assert!(svg.contains(&wanted), "it begins at {wanted} in\n{svg}");
        let wanted = format!("{x_middle:.1},{y_middle:.1} ");
        assert!(
            svg.contains(&wanted),
            "100 is half-way to 1,000 at {wanted} in\n{svg}"
        );
        chart.lines.clear();
        assert_eq!(super::svg(&chart), "");
    }

    #[test]
    fn charts_of_a_run_have_one_axis_and_grey_is_what_was_not_measured() {
        let chart = Chart {
            title: String::new(),
            x_name: String::new(),
            y_name: String::new(),
            x_scale: Scale::Linear,
            lines: vec![("late".into(), vec![(5.0, 1.0), (10.0, 1.0)])],
        };
        let time = Time {
            end: 20.0,
            measured: Some((5.0, 15.0)),
        };
        let svg = svg_over_time(&chart, time);
        let wanted = format!("points=\"{:.1},", left(0.25));
        assert!(svg.contains(&wanted), "5 s are a quarter of 20 in\n{svg}");
        for x in [left(0.0), left(0.75)] {
            let wanted = format!(r#"<rect class="rest" x="{x:.1}""#);
            assert!(svg.contains(&wanted), "{wanted} is missing in\n{svg}");
        }
    }

    #[test]
    fn a_single_value_is_drawn_too() {
        let chart = Chart {
            title: String::new(),
            x_name: String::new(),
            y_name: String::new(),
            x_scale: Scale::Linear,
            lines: vec![("one".into(), vec![(0.0, 0.0)])],
        };
        let svg = svg(&chart);
        assert!(svg.contains("<circle") && !svg.contains("NaN"), "{svg}");
    }
}
