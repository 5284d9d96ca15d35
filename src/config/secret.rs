//! Texts that must not be seen.

use std::fmt;

/// A password, key or URL with a password in it: shown by no `Debug` and no log, read only where
/// [`Secret::expose`] is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What stands in for a secret where configuration is printed.
pub(super) const REDACTED: &str = "[redacted]";

/// A URL for people to read: its password gone, in the authority and in the query alike. Text that
/// is no URL is hidden whole.
pub(super) fn redact_url(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return REDACTED.to_owned();
    };
    if url.password().is_some() && url.set_password(Some("redacted")).is_err() {
        return REDACTED.to_owned();
    }
    if url.query().is_some() {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let hide = name.to_ascii_lowercase().contains("password");
                (
                    name.into_owned(),
                    if hide {
                        "redacted".to_owned()
                    } else {
                        value.into_owned()
                    },
                )
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::new("hush");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "[redacted] Some([redacted])"
        );
    }

    #[test]
    fn urls_lose_their_passwords_and_keep_the_rest() {
        for (text, shown) in [
            ("sqlite://data/rookery.db", "sqlite://data/rookery.db"),
            (
                "postgres://chat:hush@db:5432/chat",
                "postgres://chat:redacted@db:5432/chat",
            ),
            (
                "postgres://db/chat?user=a&password=hush",
                "postgres://db/chat?user=a&password=redacted",
            ),
            (
                "postgres:///chat?host=/run/pg",
                "postgres:///chat?host=%2Frun%2Fpg",
            ),
            ("redis://:hush@r:6379/1", "redis://:redacted@r:6379/1"),
            ("hush", "[redacted]"),
        ] {
            assert_eq!(redact_url(text), shown, "{text}");
        }
    }
}
