//! Why a connection ended, and what that means for the next one.

use std::time::Duration;

use rookery_protocol::{CloseCode, ErrorCode};

use crate::rest::ApiError;
use crate::socket::{ABNORMAL, ConnectError, SocketError};

/// Least wait after 1013, and after a refusal because of load that names none.
const LATER: Duration = Duration::from_secs(1);

/// How a connection, or the attempt at one, ended.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    /// The close code, or [`ABNORMAL`].
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) next: Next,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing more: it would end the same way again.
    Stop,
    /// Come back, after a random wait.
    Again,
    /// Come back, to this node not before this has passed.
    After(Duration),
    /// Get new tokens first.
    Refresh,
}

impl End {
    pub(super) fn again(reason: impl ToString) -> Self {
        Self {
            code: ABNORMAL,
            reason: reason.to_string(),
            next: Next::Again,
        }
    }

    /// The credentials are worth nothing.
    pub(super) fn refused(reason: impl ToString) -> Self {
        Self {
            code: CloseCode::Unauthenticated.code(),
            reason: reason.to_string(),
            next: Next::Stop,
        }
    }

    fn with(next: Next, reason: impl ToString) -> Self {
        Self {
            next,
            ..Self::again(reason)
        }
    }
}

/// By the code's range, so that codes of later versions are obeyed, too.
fn after_close(code: u16) -> Next {
    if code == CloseCode::TokenExpired.code() {
        Next::Refresh
    } else if code == CloseCode::TryLater.code() {
        Next::After(LATER)
    } else if CloseCode::reconnects(code) {
        Next::Again
    } else {
        Next::Stop
    }
}

impl From<SocketError> for End {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed { code, reason } => Self {
                code,
                reason,
                next: after_close(code),
            },
            error => Self::again(error),
        }
    }
}

impl From<ConnectError> for End {
    fn from(error: ConnectError) -> Self {
        let next = match &error {
            ConnectError::Refused { status: 401, .. } => Next::Refresh,
            ConnectError::Refused {
                status: 429 | 503,
                retry_after,
                ..
            } => Next::After(retry_after.unwrap_or(LATER)),
            ConnectError::Refused {
                status: 400 | 403, ..
            }
            | ConnectError::Url(_) => Next::Stop,
            _ => Next::Again,
        };
        Self::with(next, &error)
    }
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        let next = match (error.code, error.retry_after) {
            (ErrorCode::Unauthenticated, _) => Next::Refresh,
            (_, Some(wait)) => Next::After(wait),
            _ => Next::Again,
        };
        Self::with(next, &error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_range_of_a_close_code_says_what_to_do() {
        let closed = |code| {
            let reason = String::new();
            End::from(SocketError::Closed { code, reason }).next
        };
        for code in [4000, 4001, 4003, 4008, 4009, 4099, 1000, 1002, 1009] {
            assert_eq!(closed(code), Next::Stop, "{code}");
        }
        for code in [4100, 4101, 4102, 4199, 1001, 1006, 1012, 1011] {
            assert_eq!(closed(code), Next::Again, "{code}");
        }
        assert_eq!(closed(4103), Next::Refresh);
        assert_eq!(closed(1013), Next::After(LATER));
    }

    #[test]
    fn the_guide_says_the_same() {
        let guide = include_str!("../../GUIDE.md");
        let rows = guide.lines().filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?.parse().ok()?, cells.next()?))
        });
        let rows: HashMap<u16, &str> = rows.collect();
        for code in CloseCode::ALL
            .map(CloseCode::code)
            .into_iter()
            .chain([1006])
        {
            let expected = match after_close(code) {
                Next::Stop => "stop",
                Next::Again => "come back",
                Next::After(_) => "come back later",
                Next::Refresh => "refresh first",
            };
            assert_eq!(rows.get(&code), Some(&expected), "{code}");
        }
    }

    #[test]
    fn a_refused_upgrade_is_obeyed() {
        let refused = |status, seconds: Option<u64>| {
            End::from(ConnectError::Refused {
                status,
                retry_after: seconds.map(Duration::from_secs),
                body: String::new(),
            })
            .next
        };
        assert_eq!(refused(401, None), Next::Refresh);
        assert_eq!(refused(403, None), Next::Stop);
        assert_eq!(refused(502, None), Next::Again);
        assert_eq!(refused(503, None), Next::After(LATER));
        assert_eq!(
            refused(503, Some(7)),
            Next::After(Duration::from_secs(7)),
            "as the server asks"
        );
    }
}
