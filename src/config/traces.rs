//! Where traces go, if anywhere.

use serde_json::{Value, json};
use url::Url;

use super::key::Key;
use super::sources::{Result, Sources};

const ENDPOINT: Key = Key::new("traces.endpoint").variable_name("OTEL_EXPORTER_OTLP_ENDPOINT");
const RATIO: Key = Key::new("traces.ratio").or("0.01");

pub(super) const KEYS: [Key; 2] = [ENDPOINT, RATIO];

#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: a collector of OpenTelemetry, such as `http://127.0.0.1:4318`.
    /// Default: none, nothing is traced.
    pub endpoint: Option<Url>,
    /// `ROOKERY_TRACES_RATIO`: the part of messages and requests that is traced, 0 to 1.
    /// Default: 0.01.
    pub ratio: f64,
}

impl TracesConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            endpoint: sources.optional(&ENDPOINT, endpoint)?,
            ratio: sources.value(&RATIO, ratio)?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 2] {
        [
            json!(self.endpoint.as_ref().map(Url::as_str)),
            json!(self.ratio),
        ]
    }
}

fn endpoint(text: &str) -> Result<Url> {
    let refusal = |why: &str| {
        Err(format!(
            "{why}; set the http:// address of a collector, such as http://127.0.0.1:4318"
        ))
    };
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" => {
            refusal("https is for a collector beside the node to speak")
        }
        Ok(url) if url.scheme() != "http" || !url.has_host() => refusal("is no http:// address"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            refusal("names a user, which nobody would be told of")
        }
        Ok(url) => Ok(url),
        Err(_) => refusal("is no http:// address"),
    }
}

fn ratio(text: &str) -> Result<f64> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("\"{text}\" is not a number from 0 to 1")),
    }
}
