//! People by the thousand, past the server: rows straight into PostgreSQL, and tokens signed with
//! the nodes' secret. Only for nodes that the load test started itself.

mod log;
mod peer;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use jsonwebtoken::{EncodingKey, Header};
use rookery_client::Api;
use rookery_protocol::{ConversationId, UserId};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use uuid::Uuid;

use super::Person;
pub(crate) use log::has_room;

/// How long made tokens live: longer than any run.
const TOKEN_SECONDS: i64 = 24 * 3_600;

/// Whose tables they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tables {
    Rookery,
    /// Those of `loadtest/peers/schema.sql`.
    Peer,
    /// Whoever has a token exists, and who writes to whom is nobody's business.
    Nobody,
}

/// Where to write, and how to sign.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    pub psql: PathBuf,
    pub database_url: String,
    /// PostgreSQL's own folder, on the disk that has to have room.
    pub data: PathBuf,
    pub jwt_secret: String,
    pub tables: Tables,
}

impl Bulk {
    /// People of these names.
    pub(super) async fn people(
        &self,
        names: Vec<String>,
        api: &Api,
    ) -> anyhow::Result<Vec<Person>> {
        match self.tables {
            Tables::Rookery => self.users(names, api).await,
            Tables::Peer | Tables::Nobody => self.peer_users(names).await,
        }
    }

    /// Groups with these members, without an entry in their logs.
    pub(super) async fn groups(
        &self,
        groups: &[Vec<&Person>],
    ) -> anyhow::Result<Vec<ConversationId>> {
        match self.tables {
            Tables::Rookery => self.conversations(groups).await,
            Tables::Peer => self.peer_conversations(groups).await,
            Tables::Nobody => Ok(peer::recipients(groups)),
        }
    }

    async fn users(&self, names: Vec<String>, api: &Api) -> anyhow::Result<Vec<Person>> {
        let model = self.model(&format!("{}-model", names[0]), api).await?;
        let now = now_millis()?;
        let mut users = String::from(
            "copy users (user_id, username, email, password_hash, role, created_at) from stdin;\n",
        );
        let mut sessions = String::from(
            "copy sessions (session_id, user_id, token_hash, created_at, last_used_at, expires_at) \
             from stdin;\n",
        );
        let mut people = Vec::with_capacity(names.len());
        for name in names {
            let (user, session) = (Uuid::now_v7(), Uuid::now_v7());
            writeln!(users, "{user}\t{name}\t{name}@example.org\t!\tuser\t{now}")?;
            let expires = now + TOKEN_SECONDS * 1_000;
            let hash = session.simple();
            writeln!(
                sessions,
                "{session}\t{user}\t\\\\x{hash}\t{now}\t{now}\t{expires}"
            )?;
            people.push(Person {
                user_id: UserId::from_uuid(user),
                token: model.token(user, session, &name)?,
                refresh_token: None,
                since: Instant::now(),
            });
        }
        self.run(&format!(
            "{users}\\.\n{sessions}\\.\nanalyze users, sessions;\n"
        ))
        .await?;
        Ok(people)
    }

    /// One more, whose token a node makes: it shows what a token of these nodes looks like. Traded for
    /// a refresh token, not for a password: that would leave the node with 19 MiB for some ten
    /// seconds, and whoever measured its memory then would take them for the node's own.
    async fn model(&self, name: &str, api: &Api) -> anyhow::Result<Model> {
        let (user, session) = (Uuid::now_v7(), Uuid::now_v7());
        let (id, now) = (session.simple(), now_millis()?);
        let expires = now + TOKEN_SECONDS * 1_000;
        // A node keeps SHA-256 of both parts of a refresh token: the session's id and 32 secret
        // bytes, all of them 0 here.
        let hash = format!("sha256('\\x{id}{}')", "00".repeat(32));
        self.run(&format!(
            "insert into users (user_id, username, email, password_hash, role, created_at) \
             values ('{user}', '{name}', '{name}@example.org', '!', 'user', {now});\n\
             insert into sessions (session_id, user_id, token_hash, created_at, last_used_at, \
             expires_at) values ('{session}', '{user}', {hash}, {now}, {now}, {expires});\n"
        ))
        .await?;
        let secret = "A".repeat(43);
        let tokens = api.refresh(&format!("{id}.{secret}")).await;
        let tokens = tokens.context("asking a node for a token")?;
        Model::read(&tokens.access_token, &self.jwt_secret)
    }

    async fn conversations(&self, groups: &[Vec<&Person>]) -> anyhow::Result<Vec<ConversationId>> {
        let mut ids = Vec::with_capacity(groups.len());
        let now = now_millis()?;
        let mut conversations = String::from(
            "copy conversations (conversation_id, kind, title, created_by, created_at) from stdin;\n",
        );
        let mut heads = String::from(
            "copy conversation_heads (conversation_id, last_at, member_count) from stdin;\n",
        );
        let mut members = String::from(
            "copy members (conversation_id, user_id, role, joined_at, joined_seq, delivered_seq, \
             read_seq) from stdin;\n",
        );
        for group in groups {
            let id = Uuid::now_v7();
            ids.push(ConversationId::from_uuid(id));
            let owner = group[0].user_id;
            writeln!(conversations, "{id}\tgroup\tload test\t{owner}\t{now}")?;
            writeln!(heads, "{id}\t{now}\t{}", group.len())?;
            for (index, person) in group.iter().enumerate() {
                let role = if index == 0 { "owner" } else { "member" };
                writeln!(members, "{id}\t{}\t{role}\t{now}\t0\t0\t0", person.user_id)?;
            }
        }
        let analyze = "analyze conversations, conversation_heads, members;";
        self.run(&format!(
            "{conversations}\\.\n{heads}\\.\n{members}\\.\n{analyze}\n"
        ))
        .await?;
        Ok(ids)
    }

    /// Has the pages written that earlier runs left to the kernel, which would write them half a minute
    /// later, in bursts for which each commit waited 80 to 180 ms.
    ///
    /// # Errors
    /// What sync says.
    pub(crate) async fn rest(&self) -> anyhow::Result<()> {
        let mut sync = Command::new("sync");
        let synced = sync.arg("-f").arg(&self.data).status().await;
        let synced = synced.context("starting sync")?;
        ensure!(synced.success(), "sync: {synced}");
        Ok(())
    }

    /// Runs statements.
    ///
    /// # Errors
    /// What psql says.
    pub(crate) async fn run(&self, script: &str) -> anyhow::Result<()> {
        let mut psql = Command::new(&self.psql)
            .args([
                "--no-psqlrc",
                "--quiet",
                "--set",
                "ON_ERROR_STOP=1",
                "--dbname",
            ])
            .arg(&self.database_url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.psql.display()))?;
        let mut stdin = psql.stdin.take().context("psql has no stdin")?;
        let write = async {
            // When psql gives up early, its own words say more than this failure.
            let _ = stdin.write_all(script.as_bytes()).await;
            drop(stdin);
        };
        let (output, ()) = tokio::join!(psql.wait_with_output(), write);
        let output = output?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {words}");
        Ok(())
    }
}

/// A token as these nodes make them: header and claims, to be filled in for others.
struct Model {
    header: Header,
    claims: Value,
    key: EncodingKey,
}

impl Model {
    fn read(token: &str, secret: &str) -> anyhow::Result<Self> {
        let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token)
            .context("reading an access token")?;
        let key = EncodingKey::from_secret(secret.as_bytes());
        Ok(Self {
            header: data.header,
            claims: data.claims,
            key,
        })
    }

    fn token(&self, user: Uuid, session: Uuid, name: &str) -> anyhow::Result<String> {
        let mut claims = self.claims.clone();
        let expires = claims["iat"].as_i64().context("a token without iat")? + TOKEN_SECONDS;
        claims["sub"] = json!(user);
        claims["sid"] = json!(session);
        claims["username"] = json!(name);
        claims["av"] = json!(1);
        claims["exp"] = json!(expires);
        jsonwebtoken::encode(&self.header, &claims, &self.key).context("signing a token")
    }
}

fn now_millis() -> anyhow::Result<i64> {
    Ok(i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?)
}
