//! A node without a network, the people in it, and what they are answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use rookery::auth::passwords::PasswordCost;
use rookery::auth::rate_limit::RateOptions;
use rookery::auth::{Auth, AuthOptions};
use rookery::bus::{Bus, BusDown, BusEvent, Channel, Envelope};
use rookery::chat::accounts::Accounts;
use rookery::chat::conversations::Conversations;
use rookery::chat::fanout::Fanout;
use rookery::chat::messages::Messages;
use rookery::chat::presence::Appearances;
use rookery::chat::receipts::Receipts;
use rookery::clock::{Clock, new_id};
use rookery::lifecycle::Tasks;
use rookery::presence::{Directory, MemoryPresence, Roster};
use rookery::rest::{RestState, router};
use rookery::store::{self, Store, StoreOptions};
use rookery_protocol::{Timestamp, UserId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tower::ServiceExt;

use rookery_test_support::servers::Postgres;

pub const PASSWORD: &str = "correct horse";
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Messages are published behind the answer; this long only if they are not at all.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// What the bus was given, in order.
#[derive(Default)]
struct Recorder {
    published: Mutex<Vec<(Channel, BusEvent)>>,
    more: Notify,
}

impl Recorder {
    fn take(&self) -> Vec<(Channel, BusEvent)> {
        std::mem::take(&mut *self.published.lock().unwrap())
    }
}

#[async_trait]
impl Bus for Recorder {
    fn publish(&self, channel: Channel, payload: Bytes) {
        let envelope = Envelope::decode(&payload).expect("an envelope of this version");
        self.published
            .lock()
            .unwrap()
            .push((channel, envelope.event));
        self.more.notify_one();
    }

    fn unpublished(&self, count: usize) {
        panic!("{count} entries were not told: their members could not be read");
    }

    async fn subscribe(&self, _channels: &[Channel]) -> Result<(), BusDown> {
        Ok(())
    }

    async fn unsubscribe(&self, _channels: &[Channel]) {}

    fn is_up(&self) -> bool {
        true
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn subscription_count(&self) -> usize {
        0
    }
}

/// Cloning shares it.
#[derive(Clone)]
pub struct World {
    router: Router,
    bus: Arc<Recorder>,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub receipts: Arc<Receipts>,
    pub database_url: String,
    /// Stops what runs in the background when the last clone is gone.
    _tasks: Arc<Tasks>,
    _folder: Option<Arc<TempDir>>,
}

impl World {
    pub async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}/rookery.db", folder.path().display());
        Self::on(
            url,
            Some(folder),
            RateOptions {
                enabled: false,
                ..RateOptions::default()
            },
        )
        .await
    }

    pub async fn postgres() -> Self {
        let url = Postgres::shared().await.fresh_database().await;
        Self::on(
            url,
            None,
            RateOptions {
                enabled: false,
                ..RateOptions::default()
            },
        )
        .await
    }

    /// On SQLite, with the default limits.
    pub async fn with_rates() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}/rookery.db", folder.path().display());
        Self::on(url, Some(folder), RateOptions::default()).await
    }

    async fn on(url: String, folder: Option<TempDir>, rates: RateOptions) -> Self {
        let database_url = url.clone();
        let options = StoreOptions {
            url,
            replica_url: None,
            pool_max: 4,
            statement_cache: 100,
            application_name: "rookery-tests".into(),
        };
        store::migrate(&options).await.unwrap();
        let store = store::connect(&options).await.unwrap();
        let clock = Clock::manual(START);
        let tasks = Tasks::new();
        let bus = Arc::new(Recorder::default());
        let auth = AuthOptions {
            password_cost: PasswordCost {
                memory_kib: 64,
                passes: 1,
            },
            rates,
            ..AuthOptions::new(vec![("test".into(), vec![7; 32])])
        };
        let auth = Arc::new(Auth::new(auth, store.clone(), clock.clone(), &tasks).unwrap());
        let fanout = Fanout::new("node", store.clone(), bus.clone(), clock.clone());
        let fanout = Arc::new(fanout);
        let accounts = Accounts::new(store.clone(), auth.clone(), fanout.clone(), clock.clone());
        let conversations = Conversations::new(store.clone(), fanout.clone(), clock.clone(), 16);
        let messages = Messages::start(store.clone(), fanout.clone(), clock.clone(), &tasks);
        let receipts = Receipts::start(store.clone(), fanout.clone(), clock.clone(), 50, &tasks);
        let receipts = Arc::new(receipts);
        let roster = Arc::new(Roster::default());
        let directory = Directory::new(roster.clone(), Arc::new(MemoryPresence));
        let directory = Arc::new(directory);
        let appearances = Appearances::new(store.clone(), directory, roster, fanout, clock.clone());
        let router = router(RestState {
            accounts: Arc::new(accounts),
            conversations: Arc::new(conversations),
            messages: Arc::new(messages),
            receipts: receipts.clone(),
            appearances: Arc::new(appearances),
            auth,
            clock: clock.clone(),
            trusted_proxies: Arc::new(["127.0.0.0/8".parse().unwrap()]),
            allowed_origins: Arc::new(["https://chat.example".to_owned()]),
        });
        let tasks = Arc::new(tasks);
        Self {
            router,
            bus,
            clock,
            store,
            receipts,
            database_url,
            _tasks: tasks,
            _folder: folder.map(Arc::new),
        }
    }

    /// Sends a request as it is. Each takes a millisecond.
    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        self.clock.advance_millis(1);
        request.extensions_mut().insert(ConnectInfo(PEER));
        let what = format!("{} {}", request.method(), request.uri());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer {
            what,
            status,
            headers,
            bytes,
        }
    }

    /// A page beside the interface.
    pub async fn call_root(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    /// Sends JSON to `/api/v1…`, with a token if there is one.
    pub async fn call(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(None, Method::POST, path, Some(body)).await
    }

    pub async fn register(&self, username: &str) -> Person {
        let email = format!("{username}@example.org");
        let body = json!({"username": username, "email": email, "password": PASSWORD});
        let answer = self.post("/auth/register", body).await.is(201);
        Person::from_tokens(self.clone(), &answer.data())
    }

    pub async fn people<const N: usize>(&self, names: [&str; N]) -> [Person; N] {
        let mut people = Vec::with_capacity(N);
        for name in names {
            people.push(self.register(name).await);
        }
        people
            .try_into()
            .unwrap_or_else(|_| unreachable!("as many as were named"))
    }

    /// What was published since the last look.
    pub fn published(&self) -> Vec<(Channel, BusEvent)> {
        self.bus.take()
    }

    /// Waits until so many things were published since the last look.
    pub async fn published_until(&self, count: usize) -> Vec<(Channel, BusEvent)> {
        let mut published = Vec::new();
        let told = async {
            loop {
                published.extend(self.published());
                if published.len() >= count {
                    break;
                }
                self.bus.more.notified().await;
            }
        };
        let told = tokio::time::timeout(TOLD_WITHIN, told).await;
        assert!(told.is_ok(), "only this was published: {published:?}");
        published
    }

    /// Waits until somebody is told of an entry with this content; returns who was. What was
    /// published before it is forgotten.
    pub async fn told_of(&self, content: &str) -> Vec<UserId> {
        let told = async {
            loop {
                let mut users: Vec<UserId> = self
                    .published()
                    .into_iter()
                    .filter_map(|published| told_user(published, content))
                    .collect();
                if !users.is_empty() {
                    users.sort_unstable();
                    return users;
                }
                self.bus.more.notified().await;
            }
        };
        let told = tokio::time::timeout(TOLD_WITHIN, told).await;
        told.unwrap_or_else(|_| panic!("nobody is told of {content:?}"))
    }
}

/// Who is told, if it is of an entry with this content.
fn told_user((channel, event): (Channel, BusEvent), content: &str) -> Option<UserId> {
    match (channel, event) {
        (Channel::User(user), BusEvent::Entry { message }) if message.content == content => {
            Some(user)
        }
        _ => None,
    }
}

/// Somebody with an account, logged in.
#[derive(Clone)]
pub struct Person {
    world: World,
    pub id: UserId,
    pub access: String,
    pub refresh: String,
}

impl Person {
    pub fn from_tokens(world: World, tokens: &Value) -> Self {
        Self {
            world,
            id: tokens["user"]["user_id"].as_str().unwrap().parse().unwrap(),
            access: tokens["access_token"].as_str().unwrap().to_owned(),
            refresh: tokens["refresh_token"].as_str().unwrap().to_owned(),
        }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.world
            .call(Some(&self.access), method, path, body)
            .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// A group with these members; returns its path.
    pub async fn group(&self, members: &[&Person]) -> String {
        let ids: Vec<UserId> = members.iter().map(|member| member.id).collect();
        let body = json!({"kind": "group", "title": "Team", "member_ids": ids});
        let group = self.post("/conversations", body).await.is(201).data();
        format!(
            "/conversations/{}",
            group["conversation_id"].as_str().unwrap()
        )
    }

    /// A message; returns it.
    pub async fn say(&self, conversation: &str, content: &str) -> Value {
        let body = json!({"message_id": new_id(), "content": content});
        self.post(&format!("{conversation}/messages"), body)
            .await
            .is(201)
            .data()
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    what: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        let text = || format!("{}: {}", self.what, String::from_utf8_lossy(&self.bytes));
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", text()))
    }

    /// Asserts the status, and that the envelope is the one for it.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        let body = self.json();
        assert_eq!(self.status.as_u16(), status, "{}: {body}", self.what);
        assert_eq!(self.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(self.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(body["success"], json!(status < 400), "{body}");
        serde_json::from_value::<Timestamp>(body["timestamp"].clone()).unwrap();
        let expected: &[&str] = if status < 400 {
            &["data", "message", "success", "timestamp"]
        } else {
            &["error", "success", "timestamp"]
        };
        assert!(body.as_object().unwrap().keys().eq(expected), "{body}");
        self
    }

    /// Asserts a refusal by its code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.error()["code"], code, "{}", answer.what);
        answer
    }

    /// Asserts `INVALID` for this field.
    #[track_caller]
    pub fn invalid(self, field: &str) -> Self {
        let answer = self.refused(400, "INVALID");
        let error = answer.error();
        assert_eq!(
            error["details"][0]["field"], field,
            "{}: {error}",
            answer.what
        );
        answer
    }

    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }

    pub fn error(&self) -> Value {
        self.json()["error"].clone()
    }

    pub fn items(&self) -> Vec<Value> {
        self.data()["items"].as_array().unwrap().clone()
    }

    /// One field of each item.
    pub fn each(&self, field: &str) -> Vec<String> {
        let items = self.items();
        items
            .iter()
            .map(|item| item[field].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}
