//! `/conversations`: making, listing, reading and changing them.

use std::fmt;
use std::str::FromStr;

use axum::extract::State;
use rookery_protocol::conversation::Conversation;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::{CreateConversation, Page, UpdateConversation, UpdateMembership};
use rookery_protocol::{ConversationId, Timestamp};

use super::RestState;
use super::envelope::{Answer, done, made, ok};
use super::extract::{Body, Caller, Cursor, Ids, Params, one_more, page};
use crate::chat::conversations::GroupRequest;
use crate::error::AppError;
use crate::store::ConversationFilter;

pub(super) async fn create(
    State(state): State<RestState>,
    Caller(access): Caller,
    Body(request): Body<CreateConversation>,
) -> Answer<Conversation> {
    let result = match request {
        CreateConversation::Direct { user_id } => {
            state.conversations.direct(&access, user_id).await?
        }
        CreateConversation::Group {
            conversation_id,
            title,
            description,
            history_visible,
            member_ids,
        } => {
            let history_visible = history_visible.unwrap_or(true);
            let request = GroupRequest {
                conversation_id,
                title,
                description,
                history_visible,
                member_ids,
            };
            state.conversations.create_group(&access, request).await?
        }
    };
    made(&state.clock, result.created, result.conversation)
}

/// Newest activity first. A conversation that becomes active while one pages moves to the front:
/// it may be seen twice, and none that was quiet is missed.
pub(super) async fn list(
    State(state): State<RestState>,
    Caller(access): Caller,
    params: Params,
) -> Answer<Page<Conversation>> {
    let limit = params.limit()?;
    let before: Option<Place> = params.cursor(Cursor::Conversations)?;
    let filter = ConversationFilter {
        query: params
            .text("query")
            .filter(|query| !query.is_empty())
            .map(str::to_owned),
        changed_since: params.text("changed_since").map(time).transpose()?,
        before: before.map(|Place(at, id)| (at, id)),
        limit: one_more(limit),
    };
    let found = state.conversations.list(&access, &filter).await?;
    let page = page(found, limit, |last| {
        Cursor::Conversations.write(Place(last.last_at, last.conversation.conversation_id))
    });
    let items = page
        .items
        .into_iter()
        .map(|listed| listed.conversation)
        .collect();
    ok(
        &state.clock,
        Page {
            items,
            next_cursor: page.next_cursor,
        },
    )
}

pub(super) async fn get(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
) -> Answer<Conversation> {
    ok(&state.clock, state.conversations.get(&access, id).await?)
}

pub(super) async fn update(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
    Body(request): Body<UpdateConversation>,
) -> Answer<Conversation> {
    ok(
        &state.clock,
        state.conversations.update(&access, id, request).await?,
    )
}

pub(super) async fn delete(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
) -> Answer<()> {
    state.conversations.delete(&access, id).await?;
    done(&state.clock)
}

pub(super) async fn update_own(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
    Body(request): Body<UpdateMembership>,
) -> Answer<Conversation> {
    ok(
        &state.clock,
        state.conversations.update_own(&access, id, request).await?,
    )
}

fn time(text: &str) -> Result<Timestamp, AppError> {
    let allowed = "an RFC 3339 time such as 2026-01-31T09:30:00.000Z";
    serde_json::from_value(text.into())
        .map_err(|_| ErrorDetail::new("changed_since", "is not a time", allowed).into())
}

/// A place in the list of conversations: `<milliseconds>.<id>`.
struct Place(Timestamp, ConversationId);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.as_millis(), self.1)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, id) = text.split_once('.').ok_or(())?;
        let at = at.parse().map(Timestamp::from_millis).map_err(drop)?;
        Ok(Self(at, id.parse().map_err(drop)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_text() {
        let id: ConversationId = "00000000-0000-7000-8000-000000000001".parse().unwrap();
        let place = Place(Timestamp::from_millis(1_790_000_000_123), id);
        let back: Place = place.to_string().parse().unwrap();
        assert_eq!((back.0, back.1), (place.0, place.1));
        for bad in [
            "",
            ".",
            "1",
            "x.00000000-0000-7000-8000-000000000001",
            "1.x",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_or_refused_by_name() {
        assert!(time("2026-01-31T09:30:00Z").is_ok());
        assert_eq!(
            time("yesterday").unwrap_err().details[0].field,
            "changed_since"
        );
    }
}
