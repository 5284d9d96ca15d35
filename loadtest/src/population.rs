//! The people of a load test, and their conversations.
//!
//! Against any server, people are registered over REST, a few at a time: 14 ms of CPU each, for
//! their passwords. On nodes that the load test started itself, they are written to the database in
//! bulk, and their tokens are made with the nodes' own secret (`bulk`).

pub(crate) mod bulk;
mod library;
mod write;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_client::{Api, ApiError};
use rookery_protocol::rest::{Login, Register};
use rookery_protocol::{ConversationId, ErrorCode, UserId};

use crate::progress::Line;
pub(crate) use bulk::has_room;
use bulk::{Bulk, Tables};
pub(crate) use library::Library;
use library::Shelf;

/// Calls under way at once: enough for two cores of hashing, too few to trouble a server.
const CALLS: usize = 8;
/// How often a server that is too busy to register somebody is asked again, and when.
const ATTEMPTS: u32 = 60;
const LATER: Duration = Duration::from_secs(1);
/// A token older than this is refreshed before a run; it lives for 15 minutes.
const FRESH: Duration = Duration::from_secs(4 * 60);
/// Longest run on one registered token.
pub(crate) const LONGEST_RUN: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub user_id: UserId,
    pub token: String,
    /// Registered people only.
    refresh_token: Option<String>,
    since: Instant,
}

/// Two people with a direct conversation.
#[derive(Clone, Debug)]
pub(crate) struct Couple {
    pub conversation: ConversationId,
    /// Entries that its log has already.
    pub base: i64,
    pub people: [Person; 2],
}

impl Couple {
    fn of(circle: Circle) -> anyhow::Result<Self> {
        let people = circle.people.try_into();
        Ok(Self {
            conversation: circle.conversation,
            base: circle.base,
            people: people.map_err(|_| anyhow::anyhow!("two people are a couple"))?,
        })
    }
}

/// Members of a group.
#[derive(Clone, Debug)]
pub(crate) struct Circle {
    pub conversation: ConversationId,
    /// Entries that its log has already.
    pub base: i64,
    pub people: Vec<Person>,
}

pub(crate) struct Population {
    apis: Vec<Api>,
    bulk: Option<Bulk>,
    /// Begins all usernames of this run.
    prefix: String,
    people: Vec<Person>,
    shelf: Option<Shelf>,
}

impl Population {
    pub(crate) fn new(targets: &[String], bulk: Option<Bulk>) -> anyhow::Result<Self> {
        let millis = std::time::UNIX_EPOCH.elapsed()?.as_millis();
        Ok(Self {
            apis: targets.iter().map(|target| Api::new(target)).collect(),
            bulk,
            prefix: format!("load-{millis:x}"),
            people: Vec::new(),
            shelf: None,
        })
    }

    /// This many people, made if there are fewer, with fresh tokens.
    ///
    /// # Errors
    /// The server refuses to register somebody.
    pub(crate) async fn people(&mut self, count: usize) -> anyhow::Result<&[Person]> {
        let known = self.people.len();
        if known < count {
            let names = (known..count)
                .map(|number| format!("{}-{number}", self.prefix))
                .collect();
            let made = match &self.bulk {
                Some(bulk) => bulk.people(names, &self.apis[0]).await?,
                None => self.register(names).await?,
            };
            self.people.extend(made);
        }
        self.refresh().await?;
        Ok(&self.people[..count])
    }

    /// Pairs of people and their direct conversations.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn couples(&mut self, count: usize) -> anyhow::Result<Vec<Couple>> {
        if self.is_of_a_peer() {
            let circles = self.circles(count, 2).await?.into_iter();
            return circles.map(Couple::of).collect();
        }
        let people = self.people(count * 2).await?.to_vec();
        let apis = &self.apis;
        let mut line = Line::new("conversations", count as u64);
        let mut couples = stream::iter(people.chunks_exact(2).enumerate())
            .map(async |(index, pair)| -> anyhow::Result<Couple> {
                let people = [pair[0].clone(), pair[1].clone()];
                let api = apis[index % apis.len()].with_token(&people[0].token);
                let made = api.create_direct(people[1].user_id).await;
                let made = made.context("making a direct conversation")?;
                Ok(Couple {
                    conversation: made.conversation_id,
                    base: made.last_seq.0,
                    people,
                })
            })
            .buffered(CALLS);
        let mut all = Vec::with_capacity(count);
        while let Some(couple) = couples.try_next().await? {
            all.push(couple);
            line.show(all.len() as u64);
        }
        line.end();
        Ok(all)
    }

    /// People with `each` new conversations: groups of `each`, each of them in as many groups.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn sociable(
        &mut self,
        count: usize,
        each: usize,
    ) -> anyhow::Result<Vec<Person>> {
        let people = self.people(count).await?.to_vec();
        ensure!(
            each <= count,
            "{each} conversations each need at least {each} people"
        );
        if each > 0 {
            let circle = |start: usize| (0..each).map(move |step| (start + step) % count);
            let groups: Vec<Vec<&Person>> = (0..count)
                .map(|start| circle(start).map(|index| &people[index]).collect())
                .collect();
            self.groups(&groups).await?;
        }
        Ok(people)
    }

    /// New groups of so many members each, nobody in two of them.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn circles(
        &mut self,
        count: usize,
        members: usize,
    ) -> anyhow::Result<Vec<Circle>> {
        self.circles_after(0, count, members).await
    }

    /// The same, of people after the first so many, who have something else to do.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn circles_after(
        &mut self,
        others: usize,
        count: usize,
        members: usize,
    ) -> anyhow::Result<Vec<Circle>> {
        let people = self.people(others + count * members).await?[others..].to_vec();
        let groups: Vec<Vec<&Person>> = people
            .chunks(members)
            .map(|group| group.iter().collect())
            .collect();
        let ids = self.groups(&groups).await?.into_iter();
        let circle = |(conversation, people): (ConversationId, &[Person])| Circle {
            conversation,
            base: 0,
            people: people.to_vec(),
        };
        Ok(ids.zip(people.chunks(members)).map(circle).collect())
    }

    /// The same, made by the server where it has calls for that, so that it decides how large groups
    /// are told.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn assemblies(
        &mut self,
        count: usize,
        members: usize,
    ) -> anyhow::Result<Vec<Circle>> {
        if self.is_of_a_peer() {
            return self.circles(count, members).await;
        }
        let people = self.people(count * members).await?.to_vec();
        let mut circles = Vec::with_capacity(count);
        for people in people.chunks_exact(members) {
            circles.push(write::assembly(&self.apis[0], people).await?);
        }
        Ok(circles)
    }

    fn is_of_a_peer(&self) -> bool {
        let bulk = self.bulk.as_ref();
        bulk.is_some_and(|bulk| bulk.tables != Tables::Rookery)
    }

    /// People who can log in with a password, which costs the server its time for each.
    ///
    /// # Errors
    /// As [`Population::people`].
    pub(crate) async fn accounts(&mut self, count: usize) -> anyhow::Result<Vec<Login>> {
        let millis = std::time::UNIX_EPOCH.elapsed()?.as_millis();
        let names = (0..count).map(|number| format!("login-{millis:x}-{number}"));
        let names: Vec<String> = names.collect();
        self.register(names.clone()).await?;
        let login = |name: String| Login {
            password: password(&name),
            login: name,
            device_name: None,
        };
        Ok(names.into_iter().map(login).collect())
    }

    async fn groups(&self, groups: &[Vec<&Person>]) -> anyhow::Result<Vec<ConversationId>> {
        match &self.bulk {
            Some(bulk) => bulk.groups(groups).await,
            None => self.found(groups).await,
        }
    }

    async fn register(&self, names: Vec<String>) -> anyhow::Result<Vec<Person>> {
        let mut line = Line::new("registering", names.len() as u64);
        let mut people = Vec::with_capacity(names.len());
        let mut made = stream::iter(names.into_iter().enumerate())
            .map(|(index, name)| register(&self.apis[index % self.apis.len()], name))
            .buffered(CALLS);
        while let Some(person) = made.try_next().await? {
            people.push(person);
            line.show(people.len() as u64);
        }
        line.end();
        Ok(people)
    }

    /// Trades tokens that have become old.
    async fn refresh(&mut self) -> anyhow::Result<()> {
        let apis = &self.apis;
        let old = self
            .people
            .iter_mut()
            .filter(|person| person.since.elapsed() > FRESH);
        let old = old.filter(|person| person.refresh_token.is_some());
        stream::iter(old.enumerate())
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(CALLS, async |(index, person)| {
                let Some(token) = &person.refresh_token else {
                    return Ok(());
                };
                let tokens = apis[index % apis.len()].refresh(token).await;
                let tokens = tokens.context("refreshing a token")?;
                person.token = tokens.access_token;
                person.refresh_token = Some(tokens.refresh_token);
                person.since = Instant::now();
                Ok(())
            })
            .await
    }

    async fn found(&self, groups: &[Vec<&Person>]) -> anyhow::Result<Vec<ConversationId>> {
        let mut line = Line::new("groups", groups.len() as u64);
        let mut made = stream::iter(groups.iter().enumerate())
            .map(async |(index, group)| {
                let others: Vec<UserId> = group[1..].iter().map(|person| person.user_id).collect();
                let api = self.apis[index % self.apis.len()].with_token(&group[0].token);
                let group = api.create_group("load test", &others).await;
                Ok::<_, anyhow::Error>(group.context("making a group")?.conversation_id)
            })
            .buffered(CALLS);
        let mut ids = Vec::with_capacity(groups.len());
        while let Some(id) = made.try_next().await? {
            ids.push(id);
            line.show(ids.len() as u64);
        }
        line.end();
        Ok(ids)
    }
}

async fn register(api: &Api, username: String) -> anyhow::Result<Person> {
    let register = Register {
        email: format!("{username}@example.org"),
        password: password(&username),
        username,
        full_name: None,
        device_name: None,
    };
    let mut attempts = 0;
    let tokens = loop {
        match api.register(&register).await {
            Ok(tokens) => break tokens,
            // The hashing of passwords is bounded: a busy server asks to come again.
            Err(error) if error.status == 503 && attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(error.retry_after.unwrap_or(LATER)).await;
            }
            Err(error) => return Err(explain(error, api.base())),
        }
    };
    Ok(Person {
        user_id: tokens.user.user_id,
        token: tokens.access_token,
        refresh_token: Some(tokens.refresh_token),
        since: Instant::now(),
    })
}

fn password(username: &str) -> String {
    format!("{username} is not a person")
}

fn explain(error: ApiError, target: &str) -> anyhow::Error {
    let hint = match error.code {
        _ if error.status == 0 && target.starts_with("https") => {
            "no connection: is it running, and does it speak TLS?"
        }
        _ if error.status == 0 => "no answer: is it running?",
        ErrorCode::RateLimited => "start the nodes with ROOKERY_RATES_ENABLED=false",
        _ => "registering a user failed",
    };
    anyhow::Error::new(error).context(format!("{target}: {hint}"))
}
