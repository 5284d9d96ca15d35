//! The rows of a peer: those of `loadtest/peers/schema.sql`.

use std::fmt::Write;
use std::time::Instant;

use anyhow::Context;
use jsonwebtoken::{EncodingKey, Header};
use rookery_protocol::{ConversationId, UserId};
use serde_json::json;
use uuid::Uuid;

use super::{Bulk, Person, TOKEN_SECONDS, Tables, now_millis};

/// Where conversations have no ids of their own, they are named after the second of their members, to
/// whom the first one writes.
pub(super) fn recipients(groups: &[Vec<&Person>]) -> Vec<ConversationId> {
    let name = |group: &Vec<&Person>| Some(*group.get(1)?.user_id.as_uuid());
    let ids = groups.iter().filter_map(name);
    ids.map(ConversationId::from_uuid).collect()
}

impl Bulk {
    pub(super) async fn peer_users(&self, names: Vec<String>) -> anyhow::Result<Vec<Person>> {
        let key = EncodingKey::from_secret(self.jwt_secret.as_bytes());
        let now = now_millis()? / 1_000;
        let mut users = String::from("copy users (user_id, username) from stdin;\n");
        let mut people = Vec::with_capacity(names.len());
        for name in names {
            let user = Uuid::now_v7();
            writeln!(users, "{user}\t{name}")?;
            let claims = json!({
                "sub": user, "username": name, "iat": now, "exp": now + TOKEN_SECONDS,
                // As ejabberd wants it.
                "jid": format!("{user}@localhost"),
            });
            let token = jsonwebtoken::encode(&Header::default(), &claims, &key);
            people.push(Person {
                user_id: UserId::from_uuid(user),
                token: token.context("signing a token")?,
                refresh_token: None,
                since: Instant::now(),
            });
        }
        if self.tables == Tables::Peer {
            self.run(&format!("{users}\\.\nanalyze users;\n")).await?;
        }
        Ok(people)
    }

    pub(super) async fn peer_conversations(
        &self,
        groups: &[Vec<&Person>],
    ) -> anyhow::Result<Vec<ConversationId>> {
        let mut ids = Vec::with_capacity(groups.len());
        let mut conversations = String::from("copy conversations (conversation_id) from stdin;\n");
        let mut members = String::from("copy members (conversation_id, user_id) from stdin;\n");
        for group in groups {
            let id = Uuid::now_v7();
            ids.push(ConversationId::from_uuid(id));
            writeln!(conversations, "{id}")?;
            for person in group {
                writeln!(members, "{id}\t{}", person.user_id)?;
            }
        }
        let analyze = "analyze conversations, members;";
        self.run(&format!("{conversations}\\.\n{members}\\.\n{analyze}\n"))
            .await?;
        Ok(ids)
    }
}
