//! A single node: there is nobody else to list anybody.

use std::collections::HashMap;

use async_trait::async_trait;
use rookery_protocol::UserId;

use super::{Elsewhere, Listing, Notice, Presence};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryPresence;

#[async_trait]
impl Presence for MemoryPresence {
    async fn write(&self, _changes: &[(UserId, Option<Listing>)]) {}

    async fn elsewhere(&self, _users: &[UserId]) -> Elsewhere {
        Elsewhere {
            complete: true,
            ..Elsewhere::default()
        }
    }

    async fn sockets_elsewhere(&self, _users: &[UserId]) -> HashMap<UserId, usize> {
        HashMap::new()
    }

    fn is_reachable(&self) -> bool {
        true
    }

    async fn notice(&self) -> Notice {
        std::future::pending().await
    }

    async fn bury(&self, _node: &str) {}
}
