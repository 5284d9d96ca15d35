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

/// What examples have where a secret belongs, `.env.example` among them. In small letters, and too
/// long to stand in a random text.
const PLACEHOLDERS: [&str; 8] = [
    "change_me",
    "change-me",
    "changeme",
    "placeholder",
    "replace_me",
    "replace-me",
    "your-secret",
    "openssl rand",
];

/// Whether a text is what an example has in the place of a secret.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|word| text.contains(word))
}

/// Whether the password of a URL is an example's.
pub(super) fn has_placeholder(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        let hidden = url.query_pairs().filter(|(name, _)| is_password(name));
        let passwords = hidden.map(|(_, value)| value.into_owned());
        let first = url.password().map(str::to_owned);
        first
            .into_iter()
            .chain(passwords)
            .any(|text| is_placeholder(&text))
    })
}

fn is_password(parameter: &str) -> bool {
    parameter.to_ascii_lowercase().contains("pass")
}

/// Whether a password was cut in two, because a `/`, `?` or `#` in it is written as it is: its rest,
/// up to the `@` in front of the host, then stands where a path, a query or a fragment would.
pub(super) fn is_cut(url: &url::Url) -> bool {
    let has_password = url.password().is_some() || !url.username().is_empty();
    let query = url.query().unwrap_or_default();
    url.fragment().is_some()
        || url.path().contains('@')
        || (!has_password && query.contains('@'))
        || url.query_pairs().any(|(name, _)| name.contains('@'))
}

/// What is to be done about [`is_cut`].
pub(super) const ENCODE: &str =
    "in a password write %2F for /, %3F for ?, %23 for #, %40 for @ and %25 for %";

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
                let hide = is_password(&name);
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
