//! How to reach the other nodes.

use serde_json::{Value, json};

use super::key::Key;
use super::secret::{Secret, redact_url};
use super::sources::{Result, Sources};

const URL: Key = Key::new("redis.url").variable_name("REDIS_URL").secret();

pub(super) const KEYS: [Key; 1] = [URL];

#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `REDIS_URL`: `redis://` or, with TLS, `rediss://`. Default: none, a single node.
    pub url: Option<Secret>,
}

impl RedisConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            url: sources.optional(&URL, redis_url)?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 1] {
        [json!(self.url.as_ref().map(|url| redact_url(url.expose())))]
    }
}

fn redis_url(text: &str) -> Result<Secret> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.starts_with("redis") && (scheme.contains("sentinel") || scheme.contains("cluster")) {
        return Err(format!(
            "{scheme}:// is not yet supported; set redis:// or rediss:// and the address of one \
             server"
        ));
    }
    if scheme != "redis" && scheme != "rediss" {
        return Err("neither a redis:// nor a rediss:// URL".to_owned());
    }
    let url = url::Url::parse(text)
        .map_err(|e| format!("not a URL ({e}); set redis://:password@host:6379"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the host is missing; set redis://host:6379".to_owned());
    }
    let database = url.path().trim_matches('/');
    if !database.is_empty() && database.parse::<u8>().is_err() {
        return Err(
            "what follows the host is no database number; set redis://host:6379/0".to_owned(),
        );
    }
    Ok(Secret::new(text))
}
