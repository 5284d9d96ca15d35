//! How to reach the other nodes.

use serde_json::{Value, json};

use super::key::Key;
use super::secret::{ENCODE, Secret, has_placeholder, is_cut, redact_url};
use super::sources::{Result, Sources};

pub(super) const URL: Key = Key::new("redis.url").variable_name("REDIS_URL").secret();

pub(super) const KEYS: [Key; 1] = [URL];

#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `REDIS_URL`: `redis://` of one server or `redis-sentinel://` of its sentinels, with TLS
    /// `rediss://` and `rediss-sentinel://`. Default: none, a single node.
    pub url: Option<Secret>,
}

impl RedisConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            url: sources.optional(&URL, redis_url)?,
        })
    }

    /// The servers that the URL names, `host:port`, without anything secret.
    #[must_use]
    pub fn address(&self) -> String {
        let url = self.url.as_ref().map(Secret::expose).unwrap_or_default();
        let Ok(url) = url::Url::parse(url) else {
            return String::new();
        };
        let port = if url.scheme().ends_with("-sentinel") {
            SENTINEL_PORT
        } else {
            PORT
        };
        let first = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port().unwrap_or(port)
        );
        let others = url.query_pairs().filter(|(name, _)| name == "node");
        others.fold(first, |all, (_, node)| format!("{all}, {node}"))
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 1] {
        [json!(self.url.as_ref().map(|url| redact_url(url.expose())))]
    }
}

/// Where a server, and where a sentinel, is found unless its URL says otherwise.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

const SCHEMES: [&str; 4] = ["redis", "rediss", "redis-sentinel", "rediss-sentinel"];

fn redis_url(text: &str) -> Result<Secret> {
    if has_placeholder(text) {
        return Err("its password is an example's; set redis://:password@host:6379".to_owned());
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.starts_with("redis") && scheme.contains("cluster") {
        return Err(format!(
            "{scheme}:// is not yet supported; set redis:// or rediss:// and the address of one \
             server, or redis-sentinel:// and those of its sentinels"
        ));
    }
    if !SCHEMES.contains(&scheme) {
        return Err(
            "neither a redis:// nor a rediss:// URL, and no redis-sentinel:// or \
             rediss-sentinel:// either"
                .to_owned(),
        );
    }
    let url = url::Url::parse(text)
        .map_err(|e| format!("not a URL ({e}); set redis://:password@host:6379; {ENCODE}"))?;
    if is_cut(&url) {
        return Err(format!("not a URL of a Redis; {ENCODE}"));
    }
    if !url.username().is_empty() && url.password().is_none() {
        return Err(
            "a user without a password; set redis://:password@host:6379, or \
             redis://user:password@host:6379"
                .to_owned(),
        );
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the host is missing; set redis://host:6379".to_owned());
    }
    let database = url.path().trim_matches('/');
    if !database.is_empty() && database.parse::<u8>().is_err() {
        return Err(
            "what follows the host is no database number; set redis://host:6379/0".to_owned(),
        );
    }
    if scheme.ends_with("-sentinel") {
        check_sentinels(&url)?;
    } else if url.query().is_some() {
        return Err("there are no parameters; set redis://:password@host:6379/0".to_owned());
    }
    Ok(Secret::new(text))
}

/// The first sentinel is the URL's host; the others, and what they call the master, are its query.
fn check_sentinels(url: &url::Url) -> Result<()> {
    let mut is_named = false;
    for (name, value) in url.query_pairs() {
        match &*name {
            "sentinelServiceName" => is_named = !value.is_empty(),
            "node" => {
                let port = value.split_once(':').map(|(_, port)| port.parse::<u16>());
                if !matches!(port, Some(Ok(_))) {
                    return Err(format!("node={value} is no host:port of a sentinel"));
                }
            }
            "sentinelUsername" | "sentinelPassword" => {}
            other => return Err(format!("there is no parameter {other}")),
        }
    }
    if !is_named {
        return Err("the sentinels' name for the master is missing; set \
             redis-sentinel://host:26379?node=host2:26379&sentinelServiceName=mymaster"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, shown) in [
            ("redis://:hush@r", "r:6379"),
            ("rediss://a:hush@r:1/2", "r:1"),
            (
                "redis-sentinel://:hush@s1?node=s2:2&sentinelServiceName=m&sentinelPassword=hush",
                "s1:26379, s2:2",
            ),
        ] {
            let config = RedisConfig {
                url: Some(Secret::new(url)),
            };
            assert_eq!(config.address(), shown);
        }
    }
}
