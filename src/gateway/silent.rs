//! For benchmarks, which count what a socket costs without a kernel's part in it: the loop that writes
//! what an outbox holds, over any stream, to a client that never says anything.

use rookery_protocol::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::link::{Link, config};
use super::session::Session;

/// Writes to the client until the stream ends, or the session is closed.
pub async fn serve_silent<S: AsyncRead + AsyncWrite + Unpin>(stream: S, session: &Session) {
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
    let mut link = Link::new(socket);
    while link.read(session).await.is_ok() {}
    session.close(CloseCode::Resynchronise);
}
