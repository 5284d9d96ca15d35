//! Conversations and memberships in SQLite.

use super::SqliteStore;
use crate::store::MarkKind;
use crate::store::sql::conversations::views::seats;
use crate::store::sql::conversations::{
    conversation_of, conversation_store, conversations_of, member, member_list, membership,
};

// dialect: searching in bytes.
const CONVERSATIONS_OF: &str = conversations_of!("instr(x.mentions, $1) > 0");
const CONVERSATION_OF: &str = conversation_of!("instr(x.mentions, $1) > 0");
// dialect: lists.
const MEMBERSHIPS_OF: &str = concat!(
    membership!(),
    "where m.user_id in (select unhex(value) from json_each($1))"
);
const PRESENT_MEMBERSHIPS_OF: &str = concat!(
    membership!(),
    "where m.user_id in (select unhex(value) from json_each($1)) and m.left_seq is null"
);
const MEMBERSHIPS_IN: &str = concat!(
    membership!(),
    "where m.conversation_id = $1 and m.user_id in (select unhex(value) from json_each($2))"
);
const MEMBERS_BY_ID: &str = concat!(
    member!(),
    "and m.user_id in (select unhex(value) from json_each($2))"
);
const SEATS: &str = seats!("in (select unhex(value) from json_each($2))");
const MEMBER_LISTS: &str = concat!(
    member_list!(),
    "in (select unhex(value) from json_each($1)) order by h.conversation_id"
);
// dialect: a mark at a time; nobody else writes meanwhile.
const RAISE_MARK: &str = "update members set
        delivered_seq = max(delivered_seq, $3),
        read_seq = case when $4 then max(read_seq, $3) else read_seq end,
        read_at = case when $4 and $3 > read_seq then $5 else read_at end
    where conversation_id = $1 and user_id = $2
      and ($3 > delivered_seq or ($4 and $3 > read_seq))
      and $3 <= coalesce(left_seq, (
            select h.last_seq from conversation_heads h where h.conversation_id = $1))";

async fn raise_marks(store: &SqliteStore, marks: &[MarkRaise], at: Timestamp) -> Result<()> {
    let (store, marks) = (store.clone(), marks.to_vec());
    detached(async move {
        let mut tx = store.begin().await?;
        for mark in &marks {
            sqlx::query(RAISE_MARK)
                .bind(mark.conversation_id)
                .bind(mark.user_id)
                .bind(mark.seq)
                .bind(mark.kind == MarkKind::Read)
                .bind(at)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

conversation_store!(SqliteStore);
