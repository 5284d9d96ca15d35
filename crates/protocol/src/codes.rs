//! The two tables that face the world: what went wrong with one request ([`ErrorCode`]) and why a
//! socket was closed ([`CloseCode`]).

use serde::{Deserialize, Serialize};

/// Why one request was refused; the same on the socket and over REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// Not a frame of the agreed subprotocol, or not an object with a `type`.
    BadFrame,
    /// A field is missing, of the wrong type or outside what is allowed; `details` names it.
    Invalid,
    /// A `type` this server does not know.
    UnknownType,
    Unauthenticated,
    Forbidden,
    /// Does not exist, or is not yours to see: the two look the same.
    NotFound,
    /// Contradicts what is stored: a taken name, or a used `message_id` with other content.
    Conflict,
    TooLarge,
    RateLimited,
    Internal,
    Unavailable,
}

impl ErrorCode {
    pub const ALL: [Self; 11] = [
        Self::BadFrame,
        Self::Invalid,
        Self::UnknownType,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
    ];

    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadFrame | Self::Invalid | Self::UnknownType => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// Whether the same request, with the same `message_id`, may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "BAD_FRAME",
            Self::Invalid => "INVALID",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::TooLarge => "TOO_LARGE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// Why the server closed a socket. The range is the client's rule: 4000 to 4099 stop, 4100 to 4199
/// come back and resume; of the standard codes 1001, 1012 and 1013 mean "come back later".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    GoingAway,
    ProtocolError,
    UnsupportedData,
    InvalidUtf8,
    FrameTooLarge,
    ServiceRestart,
    TryLater,
    /// Credentials refused or revoked.
    Unauthenticated,
    /// Origin or account not allowed.
    Forbidden,
    /// The user opened more sockets than allowed; the longest silent one goes.
    TooManySockets,
    /// More than 20 bad frames in 10 s.
    Abuse,
    /// The reader did not keep up with what it was sent.
    TooSlow,
    /// The server lost track of what this socket has; resume with cursors.
    Resynchronise,
    /// The access token ran out; refresh, then resume.
    TokenExpired,
}

impl CloseCode {
    pub const ALL: [Self; 14] = [
        Self::GoingAway,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidUtf8,
        Self::FrameTooLarge,
        Self::ServiceRestart,
        Self::TryLater,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::TooManySockets,
        Self::Abuse,
        Self::TooSlow,
        Self::Resynchronise,
        Self::TokenExpired,
    ];

    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidUtf8 => 1007,
            Self::FrameTooLarge => 1009,
            Self::ServiceRestart => 1012,
            Self::TryLater => 1013,
            Self::Unauthenticated => 4001,
            Self::Forbidden => 4003,
            Self::TooManySockets => 4008,
            Self::Abuse => 4009,
            Self::TooSlow => 4101,
            Self::Resynchronise => 4102,
            Self::TokenExpired => 4103,
        }
    }

    /// The close frame's reason text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "going away",
            Self::ProtocolError => "protocol error",
            Self::UnsupportedData => "unsupported data",
            Self::InvalidUtf8 => "text is not valid UTF-8",
            Self::FrameTooLarge => "frame too large",
            Self::ServiceRestart => "the server restarts; come back and resume",
            Self::TryLater => "try again later",
            Self::Unauthenticated => "credentials refused or revoked",
            Self::Forbidden => "origin or account not allowed",
            Self::TooManySockets => "more sockets than this user may have",
            Self::Abuse => "too many bad frames",
            Self::TooSlow => "too slow; come back and resume",
            Self::Resynchronise => "resynchronise: come back and resume",
            Self::TokenExpired => "token expired; refresh, then resume",
        }
    }

    /// Whether a client should come back by itself after this code (as sent by any server: codes
    /// this version does not know are judged by their range).
    #[must_use]
    pub const fn reconnects(code: u16) -> bool {
        !matches!(code, 1000 | 1002 | 1003 | 1007 | 1008 | 1009 | 4000..=4099)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_close_code_tells_whether_to_come_back() {
        for code in CloseCode::ALL {
            match code.code() {
                4000..=4099 => assert!(!CloseCode::reconnects(code.code()), "{code:?}"),
                4100..=4199 | 1001 | 1012 | 1013 => {
                    assert!(CloseCode::reconnects(code.code()), "{code:?}");
                }
                _ => {}
            }
        }
        assert!(CloseCode::reconnects(1006), "a cut connection is resumed");
    }

    #[test]
    fn error_codes_are_written_as_they_are_named() {
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(&code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.as_str()));
        }
    }
}
