//! A node alone, the people on it, and what they share.

use rookery_protocol::{ConversationId, ErrorCode};
use rookery_test_support::wire::{Handshake, Wire};
use rookery_test_support::{Builder, Person, TestCluster, new_message_id};
use serde_json::{Value, json};

/// Ann misbehaves; bob is a bystander with a socket of his own; eve shares nothing with ann.
pub(crate) struct Stage {
    pub(crate) cluster: TestCluster,
    pub(crate) ann: Person,
    pub(crate) bob: Person,
    pub(crate) eve: Person,
    /// Of ann, bob and, once, eve; its log ends with its 1st entry and eve's two notices.
    pub(crate) group: ConversationId,
    /// Of bob and eve.
    pub(crate) foreign: ConversationId,
    bystander: Wire,
}

pub(crate) fn builder() -> Builder {
    let builder = TestCluster::builder(env!("CARGO_BIN_EXE_rookery")).alone();
    // Cases open a socket each, and some are let go only after a while.
    builder.set("ROOKERY_LIMITS_SOCKETS_PER_USER", "200")
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::on(builder().start().await).await
    }

    pub(crate) async fn on(cluster: TestCluster) -> Self {
        let [ann, bob, eve] = cluster.register_all(["ann", "bob", "eve"]).await;
        let group = ann.group("group", &[&bob, &eve]).await;
        ann.remove_member(group, eve.id()).await.unwrap();
        let foreign = bob.group("foreign", &[&eve]).await;
        let bystander = open(&cluster, &bob).await;
        Self {
            cluster,
            ann,
            bob,
            eve,
            group,
            foreign,
            bystander,
        }
    }

    pub(crate) async fn open(&self, person: &Person) -> Wire {
        open(&self.cluster, person).await
    }

    /// Sends a frame of ann's on a fresh socket; the answer must be an error with this code, about
    /// this field, which carries the frame's `ref` and leaves the socket open.
    pub(crate) async fn refused(
        &mut self,
        what: &str,
        frame: &str,
        code: &str,
        field: &str,
    ) -> Value {
        let mut socket = self.open(&self.ann.clone()).await;
        socket.text(frame).await;
        let error = socket.event().await;
        is_error(&error, what);
        assert_eq!(error["code"], code, "{what}: {error}");
        if !field.is_empty() {
            assert_eq!(error["details"][0]["field"], field, "{what}: {error}");
        }
        self.still_works(&mut socket, what).await;
        error
    }

    pub(crate) async fn still_works(&mut self, socket: &mut Wire, what: &str) {
        ping(socket, what).await;
        self.all_is_well(what).await;
    }

    pub(crate) async fn all_is_well(&mut self, what: &str) {
        ping(&mut self.bystander, what).await;
    }
}

async fn open(cluster: &TestCluster, person: &Person) -> Wire {
    let handshake = Handshake::to(&cluster.url()).token(&person.tokens.access_token);
    let mut socket = handshake.open().await;
    socket.expect("ready").await;
    socket
}

/// The socket answers; news may come first, errors may not.
pub(crate) async fn ping(socket: &mut Wire, label: &str) {
    socket.json(&json!({"type": "ping", "ref": "well"})).await;
    let pong = socket.expect("pong").await;
    assert_eq!(pong["ref"], "well", "{label}");
}

/// An error as the protocol describes it, with a code from the table; its code.
pub(crate) fn is_error(event: &Value, what: &str) -> ErrorCode {
    assert_eq!(event["type"], "error", "{what}: {event}");
    let code: ErrorCode = serde_json::from_value(event["code"].clone())
        .unwrap_or_else(|_| panic!("{what}: not in the table: {event}"));
    assert_eq!(event["retryable"], code.is_retryable(), "{what}: {event}");
    assert!(
        event["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{what}: {event}"
    );
    assert!(event["details"].is_array(), "{what}: {event}");
    assert_ne!(code, ErrorCode::Internal, "{what}: {event}");
    code
}

/// A `message.send` to a conversation that should be accepted.
pub(crate) fn send_to(conversation: ConversationId, content: &str) -> Value {
    json!({
        "type": "message.send",
        "ref": "r",
        "message_id": new_message_id(),
        "conversation_id": conversation,
        "content": content,
    })
}

/// The same with one field changed; `null` leaves it out.
pub(crate) fn with(mut frame: Value, field: &str, value: Value) -> Value {
    frame[field] = value;
    if frame[field].is_null() {
        frame.as_object_mut().unwrap().remove(field);
    }
    frame
}
