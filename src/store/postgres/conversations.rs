//! Conversations and memberships in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::conversations::views::seats;
use crate::store::sql::conversations::{
    conversation_of, conversation_store, conversations_of, ends_of, member, member_list,
    members_named, membership,
};
use crate::store::sql::messages::reactions_of;

// dialect: searching in bytes. The parameter is a uuid; its bytes are what mentions hold.
// And `lateral`: with the place of the last entry looked up first, the log would be looked at twice.
macro_rules! here {
    ($listed:ident) => {
        $listed!(
            "position(uuid_send($1) in x.mentions) > 0",
            "lateral (select x.*",
            ") l on true"
        )
    };
}
const CONVERSATIONS_OF: &str = here!(conversations_of);
const CONVERSATION_OF: &str = here!(conversation_of);
// dialect: lists.
const MEMBERSHIPS_OF: &str = concat!(membership!(), "where m.user_id = any($1)");
const ENDS_OF: &str = ends_of!("= any($1)");
const MEMBERSHIPS_IN: &str = concat!(
    membership!(),
    "where m.conversation_id = $1 and m.user_id = any($2)"
);
// dialect: pairs from two lists. `offset 0` keeps it at one look-up a member.
const MEMBERSHIPS_AT: &str = membership!(
    "unnest($1::uuid[], $2::uuid[]) as w (conversation_id, user_id) \
     cross join lateral ( \
        select * from members m \
        where m.conversation_id = w.conversation_id and m.user_id = w.user_id \
        offset 0) m"
);
const MEMBERS_BY_ID: &str = concat!(member!(), "and m.user_id = any($2)");
const SEATS: &str = seats!("= any($2)");
const MEMBER_LISTS: &str = concat!(member_list!(), "= any($1) order by h.conversation_id");
const MEMBERS_NAMED: &str = members_named!("= any($2)");
// dialect: pairs from two lists. `offset 0` keeps it at one look-up a message.
const REACTIONS_OF: &str = reactions_of!(
    "unnest($1::uuid[], $2::bigint[]) as p (conversation_id, seq)
                cross join lateral (
                    select * from reactions x
                    where x.conversation_id = p.conversation_id and x.seq = p.seq
                    offset 0) r"
);

conversation_store!(PostgresStore);
