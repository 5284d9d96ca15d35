//! The other end of a socket, without a kernel between: takes what is written at once, says nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Counts what reaches the clients of a node. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Writes that are awaited, less those that have come.
    missing: AtomicIsize,
    none_missing: Notify,
}

impl Arrivals {
    /// Waits until so many writes have come since the last call.
    pub async fn wait_for(&self, writes: usize) {
        let writes = writes.cast_signed();
        if self.0.missing.fetch_add(writes, Ordering::Relaxed) + writes > 0 {
            self.0.none_missing.notified().await;
        }
    }

    fn written(&self) {
        if self.0.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none_missing.notify_one();
        }
    }
}

/// One client. It never reads wrong, is never slow, and never goes away.
#[derive(Debug)]
pub struct SilentClient(Arrivals);

impl SilentClient {
    #[must_use]
    pub fn new(arrivals: Arrivals) -> Self {
        Self(arrivals)
    }
}

impl AsyncWrite for SilentClient {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.written();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for SilentClient {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}
