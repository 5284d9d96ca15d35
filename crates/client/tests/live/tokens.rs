//! Tokens are renewed in time, once, and none is lost on the way.

use rookery_client::{ClientCommand, Live};
use rookery_protocol::event::{AuthOk, Ready, ServerEvent};

use super::scripted::*;

/// With a token that is to be renewed within a second.
fn soon(node: &str) -> Ready {
    Ready {
        token_expires_at: START.plus_millis(500),
        ..ready(node)
    }
}

async fn hear_auth(peer: &mut Peer) -> String {
    match peer.hear().await {
        ClientCommand::Auth(auth) => auth.token,
        other => panic!("an auth was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn tokens_are_renewed_when_they_ran_out_and_before_they_do() {
    let (listener, mut live) = start_with(Some("first")).await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    peer.close(4103).await;
    let asked = refresh_request(&listener, "first").await;
    answer_refresh(asked, "second").await;
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "disconnected 4103",
        "refreshed second"
    );

    let mut peer = Peer::accept_with(&listener, "access-second", soon("b")).await;
    let asked = refresh_request(&listener, "second").await;
    answer_refresh(asked, "third").await;
    assert_eq!(hear_auth(&mut peer).await, "access-third");
    expect_next!(&mut live, "connected b", "refreshed third");
}

#[tokio::test]
async fn a_refused_token_without_another_ends_it() {
    let (listener, mut live) = start().await;
    turn_away(&listener, "401 Unauthorized").await;
    expect_next!(&mut live, "disconnected 1006", "stopped 4001", "end");
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_then_it_is_over() {
    let (listener, mut live) = start_with(Some("first")).await;
    turn_away(&listener, "401 Unauthorized").await;
    let asked = refresh_request(&listener, "first").await;
    answer_refresh(asked, "second").await;
    turn_away(&listener, "401 Unauthorized").await;
    expect_next!(
        &mut live,
        "disconnected 1006",
        "refreshed second",
        "stopped 4001",
        "end"
    );
    let kept = live.close().await.credentials;
    assert_eq!(kept.refresh_token.as_deref(), Some("second"));
}

/// Tokens may live for seconds only: one that ran out is no reason to stop, however young it was.
#[tokio::test]
async fn a_token_that_was_taken_and_ran_out_is_renewed_again() {
    let (listener, mut live) = start_with(Some("1")).await;
    turn_away(&listener, "401 Unauthorized").await;
    let mut expected = vec!["disconnected 1006".to_owned()];
    for number in [2, 3] {
        let asked = refresh_request(&listener, &(number - 1).to_string()).await;
        answer_refresh(asked, &number.to_string()).await;
        let token = format!("access-{number}");
        let peer = Peer::accept_with(&listener, &token, ready("a")).await;
        peer.close(4103).await;
        expected.push(format!("refreshed {number}"));
        expected.push("connected a".to_owned());
        expected.push("disconnected 4103".to_owned());
    }
    for expected in expected {
        assert_eq!(next(&mut live).await, expected);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_at_once() {
    let (listener, mut live) = start_with(Some("first")).await;
    turn_away(&listener, "401 Unauthorized").await;
    drop(refresh_request(&listener, "first").await);
    let asked = refresh_request(&listener, "first").await;
    answer_refresh(asked, "second").await;
    Peer::accept_with(&listener, "access-second", ready("a")).await;
    expect_next!(
        &mut live,
        "disconnected 1006",
        "refreshed second",
        "connected a"
    );
}

#[tokio::test]
async fn a_renewal_outlives_the_connection_it_began_on() {
    let (listener, mut live) = start_with(Some("first")).await;
    let mut peer = Peer::accept_with(&listener, "token", soon("a")).await;
    peer.synced().await;
    let asked = refresh_request(&listener, "first").await;
    drop(peer);
    let mut peer = Peer::accept_with(&listener, "token", soon("b")).await;
    peer.synced().await;
    answer_refresh(asked, "second").await;
    assert_eq!(hear_auth(&mut peer).await, "access-second");
    let renewed = AuthOk {
        reference: Some("auth".into()),
        token_expires_at: START.plus_millis(900_000),
    };
    peer.say(ServerEvent::AuthOk(renewed)).await;
    peer.say(news(theirs(5))).await;
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "disconnected 1006",
        "connected b",
        "synced",
        "refreshed second",
        "message 5"
    );
}

#[tokio::test]
async fn tokens_on_their_way_are_waited_for_at_the_end() {
    let (listener, live) = start_with(Some("first")).await;
    let mut peer = Peer::accept_with(&listener, "token", soon("a")).await;
    peer.synced().await;
    let asked = refresh_request(&listener, "first").await;
    let closing = tokio::spawn(Live::close(live));
    answer_refresh(asked, "second").await;
    let kept = within(closing).await.unwrap().credentials;
    assert_eq!(kept.refresh_token.as_deref(), Some("second"));
}
