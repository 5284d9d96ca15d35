//! One raw connection, against a scripted server.

use futures_util::{SinkExt, StreamExt};
use rookery_client::{Connect, Socket};
use rookery_protocol::Format;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

#[tokio::test]
async fn a_close_code_survives_a_caller_that_did_not_wait_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let how = Connect::default();
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let upgrade = |_: &Request, mut response: Response| {
        let name = HeaderValue::from_static(Format::Json.subprotocol());
        response
            .headers_mut()
            .insert("sec-websocket-protocol", name);
        Ok::<_, ErrorResponse>(response)
    };
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        accept_hdr_async(tcp, upgrade).await.unwrap()
    };
    let (mut server, socket) = tokio::join!(accept, Socket::connect(&url, &how));
    let mut socket = socket.unwrap();

    let frame = CloseFrame {
        code: 4001.into(),
        reason: "revoked".into(),
    };
    server.send(Frame::Close(Some(frame))).await.unwrap();
    // The server keeps the connection open: whoever waits for its end is interrupted.
    let answer = tokio::select! {
        received = socket.recv() => panic!("the connection is open: {received:?}"),
        answer = server.next() => answer.unwrap().unwrap(),
    };
    assert!(answer.is_close(), "the close is answered");
    drop(server);
    for _ in 0..2 {
        assert_eq!(socket.recv().await.unwrap_err().close_code(), Some(4001));
    }
}
