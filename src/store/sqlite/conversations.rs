//! Conversations and memberships in SQLite.

use super::SqliteStore;
use crate::store::sql::conversations::views::seats;
use crate::store::sql::conversations::{
    conversation_of, conversation_store, conversations_of, ends_of, member, member_list,
    members_named, membership,
};
use crate::store::sql::messages::reactions_of;

// dialect: searching in bytes; and there is no `lateral`.
macro_rules! here {
    ($listed:ident) => {
        $listed!(
            "instr(x.mentions, $1) > 0",
            "messages l on l.conversation_id = page.conversation_id and l.seq = (select x.seq",
            ")"
        )
    };
}
const CONVERSATIONS_OF: &str = here!(conversations_of);
const CONVERSATION_OF: &str = here!(conversation_of);
// dialect: lists.
const MEMBERSHIPS_OF: &str = concat!(
    membership!(),
    "where m.user_id in (select unhex(value) from json_each($1))"
);
const ENDS_OF: &str = ends_of!("in (select unhex(value) from json_each($1))");
const MEMBERSHIPS_IN: &str = concat!(
    membership!(),
    "where m.conversation_id = $1 and m.user_id in (select unhex(value) from json_each($2))"
);
// dialect: pairs from two lists; `cross join` keeps them in front.
const MEMBERSHIPS_AT: &str = membership!(
    "json_each($1) id join json_each($2) who on who.key = id.key \
     cross join members m \
        on m.conversation_id = unhex(id.value) and m.user_id = unhex(who.value)"
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
const MEMBERS_NAMED: &str = members_named!("in (select value from json_each($2))");
// dialect: pairs from two lists; `cross join` keeps them in front.
const REACTIONS_OF: &str = reactions_of!(
    "json_each($1) id join json_each($2) place on place.key = id.key
                cross join reactions r
                where r.conversation_id = unhex(id.value) and r.seq = place.value"
);

conversation_store!(SqliteStore);
