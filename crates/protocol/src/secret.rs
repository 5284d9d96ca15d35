//! How types that hold secrets are shown: with everything but those, so that a log or a panic that
//! prints one gives nothing away.

use std::fmt::{Debug, Formatter, Result};

use crate::command::Auth;
use crate::rest::{Login, Refresh, Register, Tokens};

/// Stands where a password or a token is.
struct Hidden;

impl Debug for Hidden {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("<hidden>")
    }
}

impl Debug for Auth {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Auth")
            .field("reference", &self.reference)
            .field("token", &Hidden)
            .field("resume", &self.resume)
            .finish()
    }
}

impl Debug for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Register")
            .field("username", &self.username)
            .field("email", &self.email)
            .field("password", &Hidden)
            .field("full_name", &self.full_name)
            .field("device_name", &self.device_name)
            .finish()
    }
}

impl Debug for Login {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Login")
            .field("login", &self.login)
            .field("password", &Hidden)
            .field("device_name", &self.device_name)
            .finish()
    }
}

impl Debug for Refresh {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Refresh")
            .field("refresh_token", &Hidden)
            .finish()
    }
}

impl Debug for Tokens {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Tokens")
            .field("user", &self.user)
            .field("access_token", &Hidden)
            .field("refresh_token", &Hidden)
            .field("token_type", &self.token_type)
            .field("expires_in", &self.expires_in)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ClientCommand;

    #[test]
    fn no_secret_is_shown() {
        let register = Register {
            username: "ann".into(),
            email: "ann@example.org".into(),
            password: "hunter1".into(),
            full_name: None,
            device_name: None,
        };
        let login = Login {
            login: "ann".into(),
            password: "hunter2".into(),
            device_name: None,
        };
        let refresh = Refresh {
            refresh_token: "hunter3".into(),
        };
        let auth = ClientCommand::Auth(Auth {
            reference: None,
            token: "hunter4".into(),
            resume: true,
        });
        let tokens: Tokens = serde_json::from_value(serde_json::json!({
            "user": {"user_id": "00000000-0000-0000-0000-000000000001", "username": "ann",
                "full_name": null, "avatar_url": null, "role": "user",
                "created_at": "2026-01-01T00:00:00.000Z", "last_seen_at": null},
            "access_token": "hunter5", "refresh_token": "hunter6",
            "token_type": "Bearer", "expires_in": 900
        }))
        .unwrap();
        let shown = format!("{register:?} {login:?} {refresh:?} {auth:?} {tokens:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("ann@example.org"), "{shown}");
    }
}
