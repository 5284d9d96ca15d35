//! Connections: where they come from, and until they are ready.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use rookery_client::{Connect, Socket};
use rookery_protocol::Format;

/// Small: events of a chat are short, and tungstenite zero-fills this before every read.
const READ_BUFFER_BYTES: usize = 1_024;
/// Connections from one address: Linux has 28,232 ports for them by default.
const PER_ADDRESS: usize = 20_000;

/// `--source`, for all connections of this process: set once, before the first of them.
static CHOSEN: OnceLock<Vec<IpAddr>> = OnceLock::new();

/// Connections come from these addresses in turns.
///
/// # Errors
/// One of them is no address of this machine.
pub(crate) fn choose(addresses: &[IpAddr]) -> anyhow::Result<()> {
    for address in addresses {
        let here = !address.is_unspecified() && UdpSocket::bind((*address, 0)).is_ok();
        ensure!(here, "--source {address}: no address of this machine");
    }
    if !addresses.is_empty() {
        let chosen = CHOSEN.set(addresses.to_vec());
        ensure!(chosen.is_ok(), "source addresses are chosen once");
    }
    Ok(())
}

/// How the connection of this number is made.
pub(crate) fn connect(url: &str, index: usize, token: &str, format: Format) -> Connect {
    Connect {
        format,
        source: of(url, index),
        read_buffer_bytes: READ_BUFFER_BYTES,
        ..Connect::with_token(token)
    }
}

/// A socket that is ready.
pub(crate) async fn open(url: &str, how: &Connect) -> anyhow::Result<Socket> {
    let connecting = || format!("connecting to {url}");
    let mut socket = Socket::connect(url, how).await.with_context(connecting)?;
    let waiting = || format!("waiting for ready from {url}");
    socket.ready().await.with_context(waiting)?;
    Ok(socket)
}

/// The source address of a connection: of those chosen, in turns; else as [`address`] has it.
pub(crate) fn of(url: &str, index: usize) -> Option<IpAddr> {
    match CHOSEN.get() {
        Some(chosen) => chosen.get(index % chosen.len()).copied(),
        None => address(url, index),
    }
}

/// The source address of a connection without a choice: the usual one for the first 20,000, then 127.0.0.2 and on.
/// Only the loopback network has so many addresses by itself.
fn address(url: &str, index: usize) -> Option<IpAddr> {
    let number = u8::try_from(index / PER_ADDRESS).ok()?;
    let loopback = ["://127.", "://localhost"]
        .iter()
        .any(|host| url.contains(host));
    (number > 0 && loopback && number < 254)
        .then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 0, number + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_change_before_ports_run_out() {
        let url = "http://127.0.0.1:80";
        assert_eq!(address(url, 19_999), None);
        assert_eq!(
            address(url, 20_000),
            Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))
        );
        assert_eq!(
            address(url, 40_000),
            Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)))
        );
        assert_eq!(address("http://[::1]:80", 40_000), None);
    }
}
