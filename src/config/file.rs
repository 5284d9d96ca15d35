//! Files that settings and secrets are read from.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::sources::Result;

/// Far larger than a configuration or a secret: whoever names such a file has mistyped.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a plain file says. Of pipes and devices nothing is read: they may have no end, and what is
/// read from them is gone when the configuration is read again.
pub(super) fn text_of(path: &Path) -> Result<String> {
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

/// The values of a TOML file by path, `section.name`; lists are joined by commas, as in the
/// environment.
pub(super) fn flatten(text: &str) -> Result<HashMap<String, String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
