//! Conversations and memberships in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::conversations::views::seats;
use crate::store::sql::conversations::{
    conversation_of, conversation_store, conversations_of, member, member_list, membership,
};

// dialect: searching in bytes. The parameter is a uuid; its bytes are what mentions hold.
const CONVERSATIONS_OF: &str = conversations_of!("position(uuid_send($1) in x.mentions) > 0");
const CONVERSATION_OF: &str = conversation_of!("position(uuid_send($1) in x.mentions) > 0");
// dialect: lists.
const MEMBERSHIPS_OF: &str = concat!(membership!(), "where m.user_id = any($1)");
const PRESENT_MEMBERSHIPS_OF: &str = concat!(
    membership!(),
    "where m.user_id = any($1) and m.left_seq is null"
);
const MEMBERSHIPS_IN: &str = concat!(
    membership!(),
    "where m.conversation_id = $1 and m.user_id = any($2)"
);
const MEMBERS_BY_ID: &str = concat!(member!(), "and m.user_id = any($2)");
const SEATS: &str = seats!("= any($2)");
const MEMBER_LISTS: &str = concat!(member_list!(), "= any($1) order by h.conversation_id");

conversation_store!(PostgresStore);
