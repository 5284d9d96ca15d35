//! For Autobahn's suite of the WebSocket protocol, which needs somebody who sends back what comes:
//! the settings of real sockets, their verdicts on errors and their goodbye, around another loop.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::goodbye::{Ended, finish};
use super::link::{Socket, config};

/// Answers a handshake and sends back every message until the socket ends.
pub async fn echo(stream: TcpStream) {
    if let Ok(mut socket) = accept_async_with_config(stream, Some(config())).await {
        let ended = send_back(&mut socket).await;
        finish(socket, ended).await;
    }
}

async fn send_back(socket: &mut Socket) -> Ended {
    loop {
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Ended::of_error(&error),
            None => return Ended::Peer(None),
        };
        match message {
            WsMessage::Close(frame) => return Ended::Peer(frame.map(|frame| frame.code.into())),
            WsMessage::Text(_) | WsMessage::Binary(_) => {
                if let Err(error) = socket.send(message).await {
                    return Ended::of_error(&error);
                }
            }
            _ => {}
        }
    }
}
