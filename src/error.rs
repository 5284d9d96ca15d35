//! One error at the border: what every failed request becomes, on the socket and over REST.
//!
//! An error is logged once, here, where it becomes a reply. Clients see a code, a sentence and the
//! fields concerned, never a database's words.

use rookery_protocol::event::{ErrorDetail, ErrorEvent};
use rookery_protocol::{ErrorCode, MessageId};

use crate::store::{Refusal, StoreError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct AppError {
    pub code: ErrorCode,
    pub message: String,
    pub details: Vec<ErrorDetail>,
    pub retry_after_ms: Option<u64>,
}

/// What clients are told to wait before they repeat after an outage.
const RETRY_AFTER_OUTAGE_MS: u64 = 1_000;

impl AppError {
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            retry_after_ms: None,
        }
    }

    #[must_use]
    pub fn invalid(detail: ErrorDetail) -> Self {
        let message = format!("{} {}", detail.field, detail.reason);
        Self {
            details: vec![detail],
            ..Self::new(ErrorCode::Invalid, message)
        }
    }

    #[must_use]
    pub fn not_found() -> Self {
        Self::new(
            ErrorCode::NotFound,
            "there is no such thing, or it is not yours to see",
        )
    }

    #[must_use]
    pub fn forbidden(message: &str) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    #[must_use]
    pub fn unauthenticated(message: &str) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    #[must_use]
    pub fn unavailable() -> Self {
        Self {
            retry_after_ms: Some(RETRY_AFTER_OUTAGE_MS),
            ..Self::new(ErrorCode::Unavailable, "not possible right now; try again")
        }
    }

    #[must_use]
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Self {
            retry_after_ms: Some(retry_after_ms),
            ..Self::new(
                ErrorCode::RateLimited,
                "too many requests; wait and try again",
            )
        }
    }

    #[must_use]
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "something went wrong on our side")
    }

    /// This error as the answer to a frame.
    #[must_use]
    pub fn into_event(
        self,
        reference: Option<String>,
        message_id: Option<MessageId>,
    ) -> ErrorEvent {
        ErrorEvent {
            reference,
            code: self.code,
            message: self.message,
            retryable: self.code.is_retryable(),
            retry_after_ms: self.retry_after_ms,
            details: self.details,
            message_id,
        }
    }
}

impl From<ErrorDetail> for AppError {
    fn from(detail: ErrorDetail) -> Self {
        Self::invalid(detail)
    }
}

impl From<Refusal> for AppError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::not_found(),
            Refusal::Forbidden(why) => Self::forbidden(why),
            Refusal::Conflict(why) => Self::new(ErrorCode::Conflict, why),
            Refusal::Invalid {
                field,
                reason,
                allowed,
            } => Self::invalid(ErrorDetail::new(field, reason, allowed)),
        }
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => {
                tracing::warn!(%why, "the database is not available");
                Self::unavailable()
            }
            // It may be granted at any time, and nothing was stored.
            error @ StoreError::Denied(_) => {
                tracing::error!("{error}");
                Self::unavailable()
            }
            StoreError::Collided(why) => {
                tracing::warn!(why, "the database chose to end a statement");
                Self::unavailable()
            }
            error => {
                tracing::error!(%error, "a store operation failed");
                Self::internal()
            }
        }
    }
}
