//! A disk that is full.

use rookery_protocol::user::UserRole;
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::{SqliteStore, file_options};
use crate::store::{
    ConversationStore, MessageStore, NewMessage, NewUser, Outcome, StoreError, StoreOptions,
    UserStore, Wait, migrate,
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// Room for a few of the messages sent here.
const PAGES_LEFT: i64 = 40;

fn user(number: u128) -> NewUser {
    NewUser {
        user_id: UserId::from_uuid(Uuid::from_u128(number)),
        username: format!("user-{number}"),
        email: format!("{number}@example.org"),
        password_hash: String::new(),
        full_name: None,
        role: UserRole::User,
        created_at: NOW,
    }
}

async fn send(store: &SqliteStore, message: &NewMessage) -> Result<(Seq, bool), StoreError> {
    let outcomes = store.append(std::slice::from_ref(message), Wait::No, NOW);
    match &outcomes.await?[0] {
        Outcome::Stored(stored) => Ok((stored.seq, stored.duplicate)),
        other => panic!("not stored: {other:?}"),
    }
}

fn message(id: ConversationId, sender_id: UserId, number: u128) -> NewMessage {
    NewMessage {
        conversation_id: id,
        message_id: MessageId::from_uuid(Uuid::from_u128(number)),
        sender_id,
        content: "x".repeat(16_000),
        metadata: None,
        reply_to: None,
        mentions: vec![],
        request_hash: [7; 16],
    }
}

/// Whoever is not acked may repeat, and what was acked is there.
#[tokio::test]
async fn a_full_disk_takes_nothing_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("rookery.db").display());
    let options = StoreOptions {
        url,
        replica_url: None,
        pool_max: 2,
        statement_cache: 100,
        application_name: "rookery-test".to_owned(),
    };
    migrate(&options).await.unwrap();
    let roomy = SqliteStore::connect(&options).await.unwrap();
    let (ann, bob) = (user(1), user(2));
    for user in [&ann, &bob] {
        roomy.insert_user(user).await.unwrap().unwrap();
    }
    let direct = roomy.ensure_direct(ann.user_id, bob.user_id, NOW).await;
    let id = direct.unwrap().unwrap().conversation_id;

    let pages = sqlx::query_scalar::<_, i64>("pragma page_count");
    let pages = pages.fetch_one(roomy.writer()).await.unwrap();
    let file = file_options(&options.url).unwrap();
    let file = file.pragma("max_page_count", (pages + PAGES_LEFT).to_string());
    let full = SqliteStore::open(file, 2).await.unwrap();
    let mut acked = 0;
    let (unacked, error) = loop {
        let message = message(id, ann.user_id, acked as u128 + 1);
        match send(&full, &message).await {
            Ok((seq, _)) => {
                acked += 1;
                assert_eq!(seq, Seq(acked));
            }
            Err(error) => break (message, error),
        }
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!((1..PAGES_LEFT).contains(&acked), "{acked}");
    let log = full
        .entries(id, Seq(0), Seq(i64::MAX), 1_000)
        .await
        .unwrap();
    assert_eq!(log.len() as i64, acked);
    assert!(send(&full, &unacked).await.is_err(), "it is still full");

    assert_eq!(
        send(&roomy, &unacked).await.unwrap(),
        (Seq(acked + 1), false)
    );
    assert_eq!(send(&full, &unacked).await.unwrap(), (Seq(acked + 1), true));
}
