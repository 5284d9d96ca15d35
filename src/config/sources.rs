//! Where values come from: a key's default, the TOML file, the environment; the later wins.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use super::environment::{Environment, WORKER_THREADS};
use super::file::{flatten, text_of};
use super::key::Key;
use super::keys;

/// One thing that is wrong with the configuration, as a sentence that says what to set.
pub(super) type Problem = String;
pub(super) type Result<T> = std::result::Result<T, Problem>;

/// Where the text of a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    Default,
    /// The TOML file.
    File,
    Environment,
    /// The file that `<VARIABLE>_FILE` names.
    SecretFile(&'a str),
}

/// Everything that was set, before it is understood.
pub(super) struct Sources<'a> {
    /// By path, `section.name`. Lists are joined by commas, as in the environment.
    file: HashMap<String, String>,
    env: &'a Environment,
}

impl<'a> Sources<'a> {
    pub(super) fn read(file: Option<&Path>, env: &'a Environment) -> Result<Self> {
        let file = match file {
            None => HashMap::new(),
            Some(path) => {
                let text = text_of(path)
                    .map_err(|why| format!("the file {} cannot be read: {why}", path.display()))?;
                flatten(&text).map_err(|why| format!("{}: {why}", path.display()))?
            }
        };
        Ok(Self { file, env })
    }

    /// The text of a key from the strongest source that has one, else its default.
    pub(super) fn text(&self, key: &Key) -> Result<Option<String>> {
        let variable = key.variable();
        match self.origin(key) {
            Origin::SecretFile(path) if self.env.get(&variable).is_some() => Err(format!(
                "{variable} and {variable}_FILE ({path}) are both set; unset one of them"
            )),
            Origin::SecretFile(path) => text_of(Path::new(path))
                .map(|text| Some(text.trim_end_matches(['\r', '\n']).to_owned()))
                .map_err(|why| format!("{variable}_FILE: {path} cannot be read: {why}")),
            Origin::Environment => Ok(self.env.get(&variable).map(str::to_owned)),
            Origin::File => Ok(self.file.get(key.path).cloned()),
            Origin::Default => Ok(key.default.map(str::to_owned)),
        }
    }

    /// Where the text of a key comes from.
    pub(super) fn origin(&self, key: &Key) -> Origin<'_> {
        let variable = key.variable();
        let secret_file = key.secret.then(|| format!("{variable}_FILE"));
        if let Some(path) = secret_file.and_then(|name| self.env.get(&name)) {
            Origin::SecretFile(path)
        } else if self.env.get(&variable).is_some() {
            Origin::Environment
        } else if self.file.contains_key(key.path) {
            Origin::File
        } else {
            Origin::Default
        }
    }

    /// The value of a key that may be left unset.
    pub(super) fn optional<T>(
        &self,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let parsed = match text.trim() {
            "" => Err("there is nothing where it is set; leave it out, or fill it in".to_owned()),
            text => parse(text),
        };
        parsed
            .map(Some)
            .map_err(|why| format!("{}: {why}", key.variable()))
    }

    /// The value of a key that has a default.
    pub(super) fn value<T>(&self, key: &Key, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        self.optional(key, parse)?
            .ok_or_else(|| format!("{} is not set and has no default", key.variable()))
    }

    /// The value of a list: comma-separated, empty unless set.
    pub(super) fn list<T>(&self, key: &Key, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
        let text = self.text(key)?.unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| parse(item).map_err(|why| format!("{}: {why}", key.variable())))
            .collect()
    }

    /// Everything that is set and that this version does not know, each with the nearest it does.
    pub(super) fn unknown(&self) -> Vec<Problem> {
        let mut paths: Vec<&str> = self.file.keys().map(String::as_str).collect();
        paths.sort_unstable();
        let in_file = paths.into_iter().filter_map(unknown_path);
        let in_env = self.env.names().filter_map(unknown_variable);
        let unreadable = self.env.unreadable().filter(|name| is_ours(name));
        let unreadable = unreadable.map(|name| format!("{name}: the value is not UTF-8"));
        in_file.chain(in_env).chain(unreadable).collect()
    }
}

/// Reads a whole number in this range.
pub(super) fn whole<T>(allowed: RangeInclusive<T>) -> impl Fn(&str) -> Result<T>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| match text.parse::<T>() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(format!(
            "\"{text}\" is not a whole number from {} to {}",
            allowed.start(),
            allowed.end()
        )),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

/// Keys that later versions will have.
const RESERVED: [(&str, &str); 3] = [
    ("mail.url", "MAIL_URL"),
    ("mail.from", "MAIL_FROM"),
    ("content.keys", "CONTENT_KEYS"),
];

fn not_yet(name: &str) -> Problem {
    format!("{name} belongs to a later version of Rookery and does nothing in this one; unset it")
}

fn unknown_path(path: &str) -> Option<Problem> {
    if keys().any(|key| key.path == path) {
        return None;
    }
    if RESERVED.iter().any(|(reserved, _)| *reserved == path) {
        return Some(not_yet(path));
    }
    let nearest = nearest(path, keys().map(|key| key.path.to_owned()));
    Some(format!("there is no {path} in the configuration{nearest}"))
}

/// Variables of the scripts and examples, which a shell may well have set for them.
const OF_OUR_TOOLS: &[&str] = &["ROOKERY_BIN", "ROOKERY_CLUSTER_DIR", "ROOKERY_PASSWORD"];

/// Whether a variable is one of this program, or would be if there were such a setting.
fn is_ours(name: &str) -> bool {
    let is_setting = |key: &Key| {
        let variable = key.variable();
        name == variable || (key.secret && name.strip_suffix("_FILE") == Some(&variable))
    };
    unknown_variable(name).is_some() || name == WORKER_THREADS || keys().any(is_setting)
}

fn unknown_variable(name: &str) -> Option<Problem> {
    let without_file = name.strip_suffix("_FILE").unwrap_or(name);
    if RESERVED
        .iter()
        .any(|(_, reserved)| *reserved == without_file)
    {
        return Some(not_yet(name));
    }
    if !name.starts_with("ROOKERY_") || OF_OUR_TOOLS.contains(&name) || is_service_link(name) {
        return None;
    }
    if keys().any(|key| key.variable() == name) {
        return None;
    }
    // A key that has a name of its own has only that one.
    if let Some(key) = keys().find(|key| key.long_variable() == name) {
        return Some(format!(
            "there is no variable {name}; it is called {}",
            key.variable()
        ));
    }
    let nearest = nearest(name, keys().map(Key::variable));
    Some(format!("there is no variable {name}{nearest}"))
}

/// The end of a sentence: the known name that `name` was perhaps meant to be.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .min()
        .map_or_else(String::new, |(_, candidate)| {
            format!("; did you mean {candidate}?")
        })
}

/// Whether Kubernetes (or Docker's old links) made this variable for a Service called `rookery` or
/// `rookery-something`: `ROOKERY_SERVICE_HOST`, `ROOKERY_PORT_8080_TCP_ADDR` and the like.
fn is_service_link(name: &str) -> bool {
    let is_port = |rest: &str| {
        let mut parts = rest.split('_');
        parts
            .next()
            .is_some_and(|number| number.parse::<u16>().is_ok())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| is_port(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_made_by_kubernetes_are_not_ours() {
        for name in [
            "ROOKERY_SERVICE_HOST",
            "ROOKERY_SERVICE_PORT",
            "ROOKERY_SERVICE_PORT_HTTP",
            "ROOKERY_PORT",
            "ROOKERY_PORT_8080_TCP",
            "ROOKERY_PORT_8080_TCP_ADDR",
            "ROOKERY_HEADLESS_PORT_9090_TCP_PROTO",
        ] {
            assert_eq!(unknown_variable(name), None, "{name}");
        }
    }

    #[test]
    fn no_key_of_ours_looks_like_one_of_kubernetes() {
        for key in keys() {
            assert!(!is_service_link(&key.variable()), "{}", key.path);
        }
    }
}
