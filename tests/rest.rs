//! The REST interface against real stores: every test runs on SQLite and on PostgreSQL.
//!
//! Requests go through the whole router, without a network. The clock is set by hand, passwords
//! are hashed cheaply, rates are off unless a test is about them, and the bus writes down what was
//! published.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub mod rest_cases {
    pub mod world;

    mod auth;
    mod blocks;
    mod changes;
    mod conversations;
    mod edges;
    mod groups;
    mod matrix;
    mod messages;
    mod receipts;
    mod users;
}

/// Runs each named test, an async function that takes a `World`, on both databases.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::rest_cases::world::World::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::rest_cases::world::World::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both;
