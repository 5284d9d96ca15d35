//! The two ports, and whom to trust on them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Value, json};
use url::Url;

use super::key::Key;
use super::sources::{Result, Sources};

const LISTEN_ADDR: Key = Key::new("http.listen_addr")
    .variable_name("LISTEN_ADDR")
    .or("127.0.0.1:8080");
const OPS_ADDR: Key = Key::new("http.ops_addr")
    .variable_name("OPS_ADDR")
    .or("127.0.0.1:9090");
const ALLOWED_ORIGINS: Key = Key::new("http.allowed_origins").variable_name("ALLOWED_ORIGINS");
const TRUSTED_PROXIES: Key = Key::new("http.trusted_proxies").variable_name("TRUSTED_PROXIES");
const PUBLIC_URL: Key = Key::new("http.public_url").variable_name("PUBLIC_URL");

pub(super) const KEYS: [Key; 5] = [
    LISTEN_ADDR,
    OPS_ADDR,
    ALLOWED_ORIGINS,
    TRUSTED_PROXIES,
    PUBLIC_URL,
];

#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `LISTEN_ADDR`: where clients connect. Default: `127.0.0.1:8080`, this machine only.
    pub listen_addr: SocketAddr,
    /// `OPS_ADDR`: metrics and probes; never public. Default: `127.0.0.1:9090`.
    pub ops_addr: SocketAddr,
    /// `ALLOWED_ORIGINS`: web pages that may connect, `https://chat.example.com, …`, in the form in
    /// which browsers send them. Default: none, which allows the same host and loopback.
    pub allowed_origins: Vec<String>,
    /// `TRUSTED_PROXIES`: addresses or networks whose `X-Forwarded-For` is believed. Default: none,
    /// the peer's address is the client's.
    pub trusted_proxies: Vec<IpNet>,
    /// `PUBLIC_URL`: how clients reach this service, without a slash at the end. Default: none.
    pub public_url: Option<String>,
}

impl HttpConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        let config = Self {
            listen_addr: sources.value(&LISTEN_ADDR, address)?,
            ops_addr: sources.value(&OPS_ADDR, address)?,
            allowed_origins: sources.list(&ALLOWED_ORIGINS, origin)?,
            trusted_proxies: sources.list(&TRUSTED_PROXIES, network)?,
            public_url: sources.optional(&PUBLIC_URL, public_url)?,
        };
        if overlap(config.listen_addr, config.ops_addr) {
            return Err(format!(
                "LISTEN_ADDR and OPS_ADDR want the same port, {} and {}; set different ports, so \
                 that metrics are not public",
                config.listen_addr, config.ops_addr
            ));
        }
        Ok(config)
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 5] {
        let networks: Vec<String> = self.trusted_proxies.iter().map(IpNet::to_string).collect();
        [
            json!(self.listen_addr.to_string()),
            json!(self.ops_addr.to_string()),
            json!(self.allowed_origins),
            json!(networks),
            json!(self.public_url),
        ]
    }
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an IP address with a port, such as 0.0.0.0:8080 or [::]:8080")
    })
}

/// Whether only one of two listeners could have its address. `[::]` takes IPv4 as well.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    let (a, b) = (one.ip(), other.ip());
    let same_place = a == b || takes(a, b) || takes(b, a);
    same_place && one.port() == other.port() && one.port() != 0
}

fn network(text: &str) -> Result<IpNet> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("\"{text}\" is neither an address nor a network such as 10.0.0.0/8"))
}

/// An origin as browsers and web views write it: scheme, host, and the port unless it is the
/// scheme's own.
fn origin(text: &str) -> Result<String> {
    let refused =
        || format!("\"{text}\" is not an origin; name each one, such as https://chat.example.com");
    let url = Url::parse(text).map_err(|_| refused())?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(refused)?;
    let only_origin = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !only_origin || host.contains('*') {
        return Err(refused());
    }
    let host = host.to_ascii_lowercase();
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("{}://{host}{port}", url.scheme()))
}

fn public_url(text: &str) -> Result<String> {
    let refused = || format!("\"{text}\" is not a URL such as https://chat.example.com");
    let url = Url::parse(text).map_err(|_| refused())?;
    let usable = matches!(url.scheme(), "http" | "https")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    if usable {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_when_one_takes_what_the_other_wants() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("0.0.0.0:1", "[::]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:1", "[::1]:1", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "0.0.0.0:2", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            let address = |text: &str| text.parse().unwrap();
            let (one, other) = (address(one), address(other));
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for (text, expected) in [
            ("https://Chat.Example.com", "https://chat.example.com"),
            ("https://chat.example.com:443/", "https://chat.example.com"),
            ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text).unwrap(), expected);
        }
        for text in [
            "*",
            "chat.example.com",
            "https://a.example/path",
            "https://*.example.com",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
