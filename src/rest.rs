//! Stage 2, by HTTP: the router as a table, a file per noun.
//!
//! In: requests. Out: the same commands to `chat` as from a socket, and their results in an
//! envelope. Handlers hold no rules: extractors decode and check shape, `chat` decides.
//!
//! Every answer is the envelope of [`envelope`], also for unknown routes (404 `NOT_FOUND`) and
//! known routes with another method (405 `INVALID`, field `method`, with an `Allow` header).

mod auth;
mod blocks;
pub mod client_ip;
mod conversations;
mod cors;
mod docs;
pub mod envelope;
mod extract;
mod members;
mod messages;
mod presence;
mod receipts;
pub mod request_id;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::auth::Auth;
use crate::chat::accounts::Accounts;
use crate::chat::conversations::Conversations;
use crate::chat::messages::Messages;
use crate::chat::presence::Appearances;
use crate::chat::receipts::Receipts;
use crate::clock::Clock;

/// What handlers reach; cloned for each request.
#[derive(Clone)]
pub struct RestState {
    pub accounts: Arc<Accounts>,
    pub conversations: Arc<Conversations>,
    pub messages: Arc<Messages>,
    pub appearances: Arc<Appearances>,
    pub receipts: Arc<Receipts>,
    pub auth: Arc<Auth>,
    pub clock: Clock,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[ipnet::IpNet]>,
    /// Web pages of other origins that may call; empty: those on loopback.
    pub allowed_origins: Arc<[String]>,
}

/// Largest request body: ten times the largest message, or 1,000 member ids with room to spare.
const BODY_BYTES_MAX: usize = 256 * 1024;
const PREFIX: &str = "/api/v1";

/// All routes under [`PREFIX`].
fn table() -> Vec<Route> {
    vec![
        post("/auth/register", auth::register),
        post("/auth/login", auth::login),
        post("/auth/refresh", auth::refresh),
        post("/auth/logout", auth::logout),
        post("/auth/logout-all", auth::logout_all),
        get("/auth/sessions", auth::sessions),
        delete("/auth/sessions/{id}", auth::end_session),
        get("/users", users::list),
        get("/users/me", users::me),
        patch("/users/me", users::update_me),
        get("/users/{id}", users::get),
        get("/users/{id}/presence", presence::of_one),
        get("/presence", presence::list),
        get("/presence/online", presence::online),
        get("/users/blocks", blocks::list),
        put("/users/{id}/block", blocks::block),
        delete("/users/{id}/block", blocks::unblock),
        post("/conversations", conversations::create),
        get("/conversations", conversations::list),
        get("/conversations/{id}", conversations::get),
        patch("/conversations/{id}", conversations::update),
        delete("/conversations/{id}", conversations::delete),
        patch("/conversations/{id}/me", conversations::update_own),
        post("/conversations/{id}/read", receipts::read_one),
        post("/receipts/read", receipts::read),
        post("/receipts/delivered", receipts::delivered),
        get("/conversations/{id}/members", members::list),
        post("/conversations/{id}/members", members::add),
        patch(
            "/conversations/{id}/members/{user_id}",
            members::change_role,
        ),
        delete("/conversations/{id}/members/{user_id}", members::remove),
        get("/conversations/{id}/messages", messages::history),
        post("/conversations/{id}/messages", messages::send),
        get(
            "/conversations/{id}/messages/{seq}/receipts",
            receipts::of_message,
        ),
        patch("/conversations/{id}/messages/{seq}", messages::edit),
        delete("/conversations/{id}/messages/{seq}", messages::delete),
        put(
            "/conversations/{id}/messages/{seq}/reactions/{emoji}",
            messages::react,
        ),
        delete(
            "/conversations/{id}/messages/{seq}/reactions/{emoji}",
            messages::unreact,
        ),
    ]
}

/// The whole REST interface, `/openapi.json` and `/docs`. The peer's address is expected in the
/// request's extensions, as `ConnectInfo<SocketAddr>`.
pub fn router(state: RestState) -> Router {
    let mut routes = Router::new();
    for route in table() {
        routes = routes.route(route.path, route.handler);
    }
    Router::new()
        .nest(PREFIX, routes)
        .merge(docs::routes())
        .fallback(envelope::unknown_route)
        .method_not_allowed_fallback(envelope::wrong_method)
        // A request passes these from the last to the first, an answer from the first to the last.
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(envelope::catch_panic))
        .layer(from_fn_with_state(state.clone(), envelope::seal))
        .layer(from_fn(envelope::harden))
        .layer(from_fn_with_state(state.clone(), cors::answer))
        .with_state(state)
}

/// One line of the table.
struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "compared with openapi.json by a test")
    )]
    method: Method,
    path: &'static str,
    handler: MethodRouter<RestState>,
}

fn route<H, T>(method: Method, filter: MethodFilter, path: &'static str, handler: H) -> Route
where
    H: Handler<T, RestState>,
    T: 'static,
{
    Route {
        method,
        path,
        handler: on(filter, handler),
    }
}

fn get<H: Handler<T, RestState>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::GET, MethodFilter::GET, path, handler)
}

fn post<H: Handler<T, RestState>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::POST, MethodFilter::POST, path, handler)
}

fn put<H: Handler<T, RestState>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::PUT, MethodFilter::PUT, path, handler)
}

fn patch<H: Handler<T, RestState>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::PATCH, MethodFilter::PATCH, path, handler)
}

fn delete<H: Handler<T, RestState>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::DELETE, MethodFilter::DELETE, path, handler)
}
