//! The addresses a node listens on.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::exit::{Exit, Failure};
use crate::gateway;

/// An address that nobody else can have, and that nobody can connect to yet: clients of a node that
/// waits for its database are better off elsewhere.
pub(super) struct Address {
    address: SocketAddr,
    setting: &'static str,
    socket: TcpSocket,
}

impl Address {
    /// # Errors
    /// It is in use, or cannot be had at all.
    pub(super) fn reserve(address: SocketAddr, setting: &'static str) -> Result<Self, Failure> {
        match gateway::reserve(address) {
            Ok(socket) => Ok(Self {
                address,
                setting,
                socket,
            }),
            Err(error) => Err(cannot_listen(address, setting, &error)),
        }
    }

    /// Lets clients in.
    ///
    /// # Errors
    /// Another process came first.
    pub(super) fn listen(self) -> Result<TcpListener, Failure> {
        let Self {
            address, setting, ..
        } = self;
        let listener = gateway::listen(self.socket);
        listener.map_err(|error| cannot_listen(address, setting, &error))
    }
}

fn cannot_listen(address: SocketAddr, setting: &str, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::AddrInUse => Exit::Taken,
        // Not this machine's, or a port for which this user has no right.
        _ => Exit::Refused,
    };
    let why = format!("{setting}: cannot listen on {address}: {error}; set another address");
    Failure::new(exit, why)
}
