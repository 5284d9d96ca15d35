//! A conversation whose log somebody holds: what a slow transaction, or an operator at the database,
//! does to those who write to it.

use rookery_protocol::ConversationId;
use rookery_test_support::{TestCluster, eventually};

/// Holds a conversation's log for so long; returns when it is held.
pub(super) async fn hold(
    cluster: &TestCluster,
    room: ConversationId,
    seconds: u32,
) -> impl Future<Output = ()> {
    let holds = "select count(*) from pg_stat_activity where datname = current_database() \
                 and state = 'active' and query like '%pg_sleep(%' and query not like '%count(*)%'";
    let statement = format!(
        "select last_seq from conversation_heads where conversation_id = '{room}' for update; \
         select pg_sleep({seconds})"
    );
    let mut held = Box::pin(async move {
        cluster.sql(&statement).await;
    });
    let is_held = eventually("the conversation is held", async || {
        cluster.sql(holds).await.trim() == "1"
    });
    tokio::select! {
        () = &mut held => panic!("it was let go at once"),
        () = is_held => {}
    }
    held
}

/// Somebody waits for a lock in the cluster's database.
pub(super) async fn somebody_waits(cluster: &TestCluster) {
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                   and wait_event_type = 'Lock'";
    eventually("somebody waits for it", async || {
        cluster.sql(waiting).await.trim() != "0"
    })
    .await;
}
