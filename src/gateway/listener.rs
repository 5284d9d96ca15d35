//! The public port: accepts connections and speaks HTTP/1.1 on them until they become sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use crate::lifecycle::Tasks;
use crate::metrics::Level;

/// A reconnect storm queues in the kernel instead of being refused (mio's default is 128).
const BACKLOG: u32 = 4_096;
/// A client that sends its headers slower than this is let go (slowloris).
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request; tokens and proxies' headers fit four times.
const HEADER_BYTES: usize = 16 * 1024;
/// What the kernel holds for a reader that does not read; it takes twice as much. By default that
/// grows to megabytes, which a slow reader would cost beside its outbox, and which would hide it.
const SEND_BUFFER: u32 = 256 * 1024;
/// How long nothing is accepted when the process has no descriptor left.
const BREATH: Duration = Duration::from_millis(50);

/// A connection's place among those that its port may have. Each request carries it; a connection
/// that becomes a socket keeps it, since it goes on to be an open file.
#[derive(Clone, Debug)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The places of a port's connections. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    count: usize,
}

impl Places {
    /// So many connections may be open at once, those that became sockets included.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let free = Arc::new(Semaphore::new(count));
        Self { free, count }
    }

    #[must_use]
    pub fn level(&self) -> Level {
        Level {
            used: self.count - self.free.available_permits(),
            capacity: self.count,
        }
    }
}

/// Takes an address. Nobody can connect to it before [`listen`].
///
/// # Errors
/// The address is in use or not this machine's.
pub fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lets many connect to a reserved address.
///
/// # Errors
/// Somebody else listens there who reserved it at the same time.
pub fn listen(socket: TcpSocket) -> std::io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// One port and what answers on it.
pub struct Listener {
    listener: TcpListener,
    router: Router,
    places: Places,
}

impl Listener {
    #[must_use]
    pub fn new(listener: TcpListener, router: Router, places: Places) -> Self {
        Self {
            listener,
            router,
            places,
        }
    }

    /// Connections that are accepted end when their answers are not read for so long: the kernel sees
    /// to it. Not for connections that become sockets, whose readers may rest.
    ///
    /// # Errors
    /// The system does not know such a limit.
    pub fn unread_at_most(self, limit: Duration) -> std::io::Result<Self> {
        // Accepted connections inherit it.
        SockRef::from(&self.listener).set_tcp_user_timeout(Some(limit))?;
        Ok(self)
    }

    /// Accepts until the node stops; then requests under way are finished.
    pub async fn run(self, tasks: Tasks) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = tasks.stopping().cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.serve(stream, peer, &tasks),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Most likely out of descriptors. The connection stays in the queue, so asking
                    // again at once would only fail again.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, tasks: &Tasks) {
        // Dropped at once when there are too many: a descriptor must always be left.
        let Ok(permit) = Arc::clone(&self.places.free).try_acquire_owned() else {
            return;
        };
        let place = Place {
            _permit: Arc::new(permit),
        };
        let carried = place.clone();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
        let router = self
            .router
            .clone()
            .map_request(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                request.extensions_mut().insert(carried.clone());
                request.map(axum::body::Body::new)
            });
        let stopping = tasks.stopping().clone();
        tasks.spawn("http", async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES)
                .pipeline_flush(true);
            let service = TowerToHyperService::new(router);
            let connection = http
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::trace!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}
