//! Where values come from: a key's default, the TOML file, the environment; the later wins.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use super::key::Key;
use super::keys;

/// One thing that is wrong with the configuration, as a sentence that says what to set.
pub(super) type Problem = String;
pub(super) type Result<T> = std::result::Result<T, Problem>;

/// The environment variables of a process, or those of a test.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    texts: BTreeMap<String, String>,
    /// Names of those whose values are not UTF-8.
    unreadable: Vec<String>,
}

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::of(std::env::vars_os())
    }

    /// Names that are not UTF-8 are none of ours and left out.
    pub(super) fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(environment.texts.insert(name, value)),
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    /// The value of a variable. An empty one, or one of spaces, counts as not set, because compose
    /// files and manifests pass on unset variables as empty ones.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.texts
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.trim().is_empty())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.texts
            .keys()
            .map(String::as_str)
            .filter(|name| self.get(name).is_some())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self {
            texts: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            unreadable: Vec::new(),
        }
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Environment {
    fn from(variables: [(N, V); COUNT]) -> Self {
        variables.into_iter().collect()
    }
}

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
        let unreadable = self.env.unreadable.iter().filter(|name| is_ours(name));
        let unreadable = unreadable.map(|name| format!("{name}: the value is not UTF-8"));
        in_file.chain(in_env).chain(unreadable).collect()
    }
}

/// Far larger than a configuration or a secret: whoever names such a file has mistyped.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a plain file says. Of pipes and devices nothing is read: they may have no end, and what is
/// read from them is gone when the configuration is read again.
fn text_of(path: &Path) -> Result<String> {
    let read = || {
        if !fs::metadata(path)?.is_file() {
            return Ok(Err("it is no plain file".to_owned()));
        }
        let mut text = String::new();
        let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Ok(Err("it is larger than 1 MiB".to_owned()));
        }
        Ok(Ok(text))
    };
    read().map_err(|error: std::io::Error| error.to_string())?
}

/// Which the runtime reads, too, and panics on what it cannot use, even on nothing.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

impl Environment {
    /// Threads that run tasks: `TOKIO_WORKER_THREADS`, by default as many as cores.
    pub(super) fn worker_threads(&self) -> Result<usize> {
        let Some(text) = self.get(WORKER_THREADS) else {
            return Ok(std::thread::available_parallelism().map_or(1, usize::from));
        };
        whole(1..=1_024)(text.trim()).map_err(|why| format!("{WORKER_THREADS}: {why}"))
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

fn flatten(text: &str) -> Result<HashMap<String, String>> {
    let table: toml::Table = text.parse().map_err(|error| not_toml(text, &error))?;
    let mut values = HashMap::new();
    for (section, value) in table {
        let toml::Value::Table(entries) = value else {
            return Err(format!(
                "\"{section}\" stands outside a section such as [http]"
            ));
        };
        for (name, value) in entries {
            let path = format!("{section}.{name}");
            let text = plain(&value).ok_or_else(|| {
                format!("{path} is not a text, a number, true, false, or a list of texts")
            })?;
            values.insert(path, text);
        }
    }
    Ok(values)
}

/// Where the file is no TOML, and why; not what stands there, which may be a secret.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let place = error.span().map_or(0, |span| span.start);
    let before = text.get(..place).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    let why = error.message();
    format!("it is no TOML at line {line}, column {column}: {why}")
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        _ => None,
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

    #[test]
    fn numbers_lists_and_truths_mean_the_same_in_the_file_as_in_the_environment() {
        let values = flatten(
            "[limits]\nsockets = 10\n[rates]\nenabled = false\n[http]\nallowed_origins = ['a', 'b']",
        )
        .unwrap();
        assert_eq!(values["limits.sockets"], "10");
        assert_eq!(values["rates.enabled"], "false");
        assert_eq!(values["http.allowed_origins"], "a,b");
        assert!(
            flatten("sockets = 1")
                .unwrap_err()
                .contains("outside a section")
        );
        assert_eq!(
            flatten("[traces]\nratio = 0.25").unwrap()["traces.ratio"],
            "0.25"
        );
        assert!(
            flatten("[limits]\nsockets = 2020-01-01")
                .unwrap_err()
                .contains("limits.sockets")
        );
    }
}
