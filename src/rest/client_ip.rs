//! Which address a request really comes from.
//!
//! `X-Forwarded-For` is written by whoever sends the request; only the part that our own proxies
//! appended can be believed. So: from the right, skip the hops that are trusted proxies; the first
//! that is not is the client. From a peer that is no trusted proxy the header counts for nothing.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address. Where the header cannot be read, the last hop that could be.
#[must_use]
pub fn client_ip(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    let mut client = peer.ip().to_canonical();
    // Several headers are one list, in order.
    for value in headers.get_all(FORWARDED_FOR).iter().rev() {
        let Ok(value) = value.to_str() else {
            return client;
        };
        for hop in value.rsplit(',') {
            if !is_trusted(&client) {
                return client;
            }
            let Some(hop) = address(hop.trim()) else {
                return client;
            };
            client = hop;
        }
    }
    client
}

/// An address as proxies write it: bare, with a port, IPv6 in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bracketed = || {
        hop.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<IpAddr>()
            .ok()
    };
    let bare = hop.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.or_else(with_port)
        .or_else(bracketed)
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The client's address, seen by a node behind proxies in 10.0.0.0/8 and fd00::/8.
    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(
                FORWARDED_FOR,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        client_ip(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        assert_eq!(seen("203.0.113.9:1", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9:1", &["10.0.0.1"]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9:1", &[]), "203.0.113.9");
    }

    #[test]
    fn the_right_most_hop_that_is_no_proxy_counts() {
        assert_eq!(seen("10.0.0.1:1", &["198.51.100.1"]), "198.51.100.1");
        let spoofed = "1.2.3.4, 198.51.100.1";
        assert_eq!(
            seen("10.0.0.1:1", &[spoofed]),
            "198.51.100.1",
            "the client wrote 1.2.3.4"
        );
        assert_eq!(
            seen("10.0.0.1:1", &["1.2.3.4, 198.51.100.1,10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            seen("10.0.0.1:1", &["1.2.3.4", "198.51.100.1", "10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            seen("10.0.0.1:1", &["10.1.1.1, 10.0.0.2"]),
            "10.1.1.1",
            "inside the house"
        );
        assert_eq!(seen("10.0.0.1:1", &[]), "10.0.0.1");
    }

    #[test]
    fn ports_and_ipv6_are_read() {
        assert_eq!(seen("10.0.0.1:1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(seen("10.0.0.1:1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1:1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1:1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(
            seen("[fd00::7]:1", &["2001:db8::1, fd00::8"]),
            "2001:db8::1"
        );
        assert_eq!(
            seen("[::ffff:10.0.0.1]:1", &["198.51.100.1"]),
            "198.51.100.1",
            "mapped"
        );
        assert_eq!(seen("10.0.0.1:1", &["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn garbage_leads_no_further_than_the_last_known_hop() {
        for garbage in [
            "",
            " ",
            ",",
            "unknown",
            "evil.example",
            "1.2.3.4.5",
            "1.2.3.4, x",
            "é",
        ] {
            assert_eq!(seen("10.0.0.1:1", &[garbage]), "10.0.0.1", "{garbage:?}");
        }
        assert_eq!(seen("10.0.0.1:1", &["1.2.3.4, x, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(seen("10.0.0.1:1", &["x, 198.51.100.1"]), "198.51.100.1");
    }
}
