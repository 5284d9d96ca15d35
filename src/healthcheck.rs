//! Asks a node whether it works; for containers, which have no other tool to ask with.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use url::Url;

/// For connecting and for each read; a node that needs longer to say "ok" does not work.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    #[error("not an http:// URL")]
    Url,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("answered {0}")]
    Status(String),
}

/// The probe of a node whose operations port is bound to `address` on this machine.
#[must_use]
pub fn url_of(mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}/healthz")
}

/// One GET; well if the answer is 2xx.
///
/// # Errors
/// Anything else.
pub fn ask(url: &str) -> Result<(), HealthcheckError> {
    let url = Url::parse(url).map_err(|_| HealthcheckError::Url)?;
    if url.scheme() != "http" {
        return Err(HealthcheckError::Url);
    }
    let addresses = url.socket_addrs(|| None)?;
    let mut stream = connect(&addresses)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    // In one write: servers may answer what they have read of a request so far.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match line.split(' ').nth(1) {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(()),
        _ => Err(HealthcheckError::Status(line.trim_end().to_owned())),
    }
}

/// The first address that answers: `localhost` may be two.
fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// A server that reads one request and gives this answer.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).unwrap();
            assert!(buffer[..read].starts_with(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn two_hundreds_are_well_and_all_else_is_not() {
        assert!(ask(&url_of(server("HTTP/1.1 200 OK\r\n\r\nok"))).is_ok());
        assert!(ask(&url_of(server("HTTP/1.1 503 Service Unavailable\r\n\r\n"))).is_err());
        assert!(ask(&url_of(server("gibberish"))).is_err());
        assert!(ask("https://127.0.0.1/").is_err());
        assert!(ask("http://127.0.0.1:1/").is_err());
    }

    #[test]
    fn a_port_bound_to_every_address_is_asked_here() {
        assert_eq!(
            url_of("0.0.0.0:9090".parse().unwrap()),
            "http://127.0.0.1:9090/healthz"
        );
        assert_eq!(
            url_of("[::]:9090".parse().unwrap()),
            "http://[::1]:9090/healthz"
        );
    }
}
