//! Ports that stay reserved for as long as a test needs them, also while their server is down.
//!
//! Asking the kernel for port 0 gives a port that any outgoing connection may take while a server
//! restarts. These come from below Linux's range for outgoing connections (32768 and up) instead,
//! and a locked file keeps other test processes off; the kernel drops the lock with the process.

use std::fs::{DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on 127.0.0.1 that no other test process uses until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Reserves a port on which nothing listens.
pub fn reserve() -> Result<Port> {
    // Neighbouring processes start far apart, so that they seldom meet.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(211);
    // One folder per user: nobody can open the lock files of another.
    let folder = std::env::temp_dir().join(format!("rookery-test-ports-{}", super::user_id()?));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;

    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = start.wrapping_add(step) % u32::from(COUNT);
        let number = FIRST + u16::try_from(offset)?;
        let lock = File::create(folder.join(number.to_string()))
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        let unclaimed = lock.try_lock().is_ok();
        let port = Port {
            number,
            _lock: lock,
        };
        if unclaimed && nobody_listens(port.address()).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Binds without listening: a child process that is being started at this moment holds a copy of
/// the socket for a while, and a copy that listened would keep the port from whom it is meant for.
fn nobody_listens(address: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}
