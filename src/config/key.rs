//! The name of one setting.

/// One setting: where it stands in the file, what its variable is called, what it is by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `section.name`, as in the TOML file.
    pub path: &'static str,
    /// The variable's name where it is not `ROOKERY_<SECTION>_<NAME>`.
    named: Option<&'static str>,
    /// The value when nothing is set, as it would be written; `None`: unset, or worked out.
    pub default: Option<&'static str>,
    /// Also read from the file that `<VARIABLE>_FILE` names; printed only redacted.
    pub secret: bool,
    /// Changes in a running node, too; see [`crate::reload`].
    pub live: bool,
}

impl Key {
    pub(super) const fn new(path: &'static str) -> Self {
        Self {
            path,
            named: None,
            default: None,
            secret: false,
            live: false,
        }
    }

    pub(super) const fn variable_name(self, name: &'static str) -> Self {
        Self {
            named: Some(name),
            ..self
        }
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    pub(super) const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }

    pub(super) const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        self.named
            .map_or_else(|| self.long_variable(), str::to_owned)
    }

    /// `ROOKERY_<SECTION>_<NAME>`, whether or not the key has a shorter name.
    pub(super) fn long_variable(&self) -> String {
        format!(
            "ROOKERY_{}",
            self.path.replace('.', "_").to_ascii_uppercase()
        )
    }

    pub(super) fn section(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(_, name)| name)
    }
}
