//! Sessions: one a log-in, a family of refresh tokens that replace each other.
//!
//! A refresh token is `<session id>.<32 secret bytes, base64url>`; the store keeps SHA-256 hashes.
//! The secret of a successor is derived from the one it replaces (`docs/decisions/0003`), so that
//! asking twice, because the first answer was lost or two tabs asked at once, yields the same
//! token twice. What may be asked twice, and what ends the family, the store decides, atomically
//! across nodes: see `SessionStore::rotate_session`.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore;
use rookery_protocol::{SessionId, UserId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::revocations::Revocations;
use super::tokens::AccessTokens;
use crate::clock::{Clock, new_id};
use crate::error::AppError;
use crate::store::{NewSession, RotateSession, Rotation, Store, TokenHash, UserRow};

/// How long the immediate predecessor of an unused token may be repeated.
const GRACE_MS: i64 = 20_000;
/// Keeps this use of the signing secret apart from all others. Changing it ends all sessions'
/// repeatability, nothing else.
const SUCCESSOR_LABEL: &[u8] = b"rookery/refresh-token-successor/v1";

/// Where a log-in comes from; shown to its user in the list of sessions.
#[derive(Clone, Debug, Default)]
pub struct Device {
    pub name: Option<String>,
    pub ip: Option<IpAddr>,
    pub user_agent: Option<String>,
}

/// What a client gets to hold.
#[derive(Clone, Debug)]
pub struct Issued {
    pub session_id: SessionId,
    pub access_token: String,
    pub refresh_token: String,
    /// Seconds that the access token lives.
    pub expires_in: i64,
}

/// What became of a presented refresh token.
#[derive(Clone, Debug)]
pub enum Renewal {
    Renewed(Box<UserRow>, Issued),
    Refused,
    /// Somebody else has a copy: the session was ended.
    Reused(UserId, SessionId),
}

/// Opens, renews and ends sessions.
pub struct Sessions {
    successor_key: RwLock<SuccessorKey>,
    life_ms: i64,
    tokens: Arc<AccessTokens>,
    revocations: Arc<Revocations>,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl Sessions {
    pub(super) fn new(
        successor_key: SuccessorKey,
        life_ms: i64,
        tokens: Arc<AccessTokens>,
        revocations: Arc<Revocations>,
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> Self {
        Self {
            successor_key: RwLock::new(successor_key),
            life_ms,
            tokens,
            revocations,
            store,
            clock,
        }
    }

    /// Derives successors with this key from now on.
    pub(super) fn replace_key(&self, key: SuccessorKey) {
        let place = self.successor_key.write();
        *place.unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// A new session of a user who has just proved who they are.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(&self, user: &UserRow, device: Device) -> Result<Issued, AppError> {
        let token = RefreshToken::random(SessionId::from_uuid(new_id()));
        let now = self.clock.now();
        let session = NewSession {
            session_id: token.session_id,
            user_id: user.user_id,
            token_hash: token.hash(),
            device_name: device.name,
            ip: device.ip.map(|ip| ip.to_string()),
            user_agent: device.user_agent,
            created_at: now,
            expires_at: now.plus_millis(self.life_ms),
        };
        self.store.open_session(&session).await?;
        self.issue(user, &token)
    }

    /// Exchanges a refresh token for its successor and a new access token.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn renew(&self, presented: &str) -> Result<Renewal, AppError> {
        let Some(presented) = RefreshToken::parse(presented) else {
            return Ok(Renewal::Refused);
        };
        let key = self.successor_key.read();
        let successor = key
            .unwrap_or_else(PoisonError::into_inner)
            .successor(&presented);
        let now = self.clock.now();
        let request = RotateSession {
            session_id: presented.session_id,
            presented: presented.hash(),
            successor: successor.hash(),
            now,
            expires_at: now.plus_millis(self.life_ms),
            grace_ms: GRACE_MS,
        };
        match self.store.rotate_session(&request).await? {
            Rotation::Rotated(user) => {
                let issued = self.issue(&user, &successor)?;
                Ok(Renewal::Renewed(Box::new(user), issued))
            }
            Rotation::Refused => Ok(Renewal::Refused),
            Rotation::Reused(user_id) => {
                tracing::warn!(%user_id, "a replaced refresh token came back; its session is ended");
                self.revocations.add(&[presented.session_id]);
                Ok(Renewal::Reused(user_id, presented.session_id))
            }
        }
    }

    /// Ends one session; false when there was none to end.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn end(&self, user: UserId, session_id: SessionId) -> Result<bool, AppError> {
        let ended = self
            .store
            .revoke_session(user, session_id, self.clock.now())
            .await?;
        if ended {
            self.revocations.add(&[session_id]);
        }
        Ok(ended)
    }

    /// Ends all sessions of a user; returns those ended.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn end_all(&self, user: UserId) -> Result<Vec<SessionId>, AppError> {
        let ended = self
            .store
            .revoke_sessions_of(user, self.clock.now())
            .await?;
        self.revocations.add(&ended);
        Ok(ended)
    }

    fn issue(&self, user: &UserRow, token: &RefreshToken) -> Result<Issued, AppError> {
        Ok(Issued {
            session_id: token.session_id,
            access_token: self.tokens.issue(user, token.session_id)?,
            refresh_token: token.to_text(),
            expires_in: self.tokens.life_seconds(),
        })
    }
}

/// Derives successors; made from the signing secret.
pub(super) struct SuccessorKey(Hmac<Sha256>);

impl SuccessorKey {
    pub(super) fn derive(signing_secret: &[u8]) -> Self {
        let mut subkey = keyed(signing_secret);
        subkey.update(SUCCESSOR_LABEL);
        Self(keyed(&subkey.finalize().into_bytes()))
    }

    fn successor(&self, presented: &RefreshToken) -> RefreshToken {
        let mut mac = self.0.clone();
        mac.update(presented.session_id.as_bytes());
        mac.update(&presented.secret);
        let secret = mac.finalize().into_bytes().into();
        RefreshToken {
            session_id: presented.session_id,
            secret,
        }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

struct RefreshToken {
    session_id: SessionId,
    secret: [u8; 32],
}

impl RefreshToken {
    fn random(session_id: SessionId) -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Self { session_id, secret }
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        // Exact lengths first: nothing larger is decoded.
        if id.len() != uuid::fmt::Simple::LENGTH || secret.len() != 43 {
            return None;
        }
        let session_id = SessionId::from_uuid(Uuid::try_parse(id).ok()?);
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        Some(Self { session_id, secret })
    }

    fn to_text(&self) -> String {
        let secret = URL_SAFE_NO_PAD.encode(self.secret);
        format!("{}.{secret}", self.session_id.as_uuid().simple())
    }

    /// What the store keeps: without the secret it leads nowhere.
    fn hash(&self) -> TokenHash {
        let hash = Sha256::new().chain_update(self.session_id.as_bytes());
        hash.chain_update(self.secret).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> RefreshToken {
        let id = "00000000-0000-7000-8000-000000000002".parse().unwrap();
        RefreshToken {
            session_id: id,
            secret: [7; 32],
        }
    }

    #[test]
    fn a_token_comes_back_from_its_text() {
        let text = token().to_text();
        assert_eq!(text.len(), 32 + 1 + 43);
        let parsed = RefreshToken::parse(&text).unwrap();
        assert_eq!(parsed.hash(), token().hash());
        let random = RefreshToken::random(token().session_id);
        assert_ne!(
            random.hash(),
            RefreshToken::random(token().session_id).hash()
        );
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let text = token().to_text();
        let hyphenated = format!("{}.{}", token().session_id, &text[33..]);
        let long = format!("{text}A");
        let padded = format!("{}=", &text[..text.len() - 1]);
        for bad in [
            "",
            ".",
            "x.y",
            &text[1..],
            &text[..75],
            &hyphenated,
            &long,
            &padded,
        ] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_successor_depends_on_secret_session_and_predecessor() {
        let key = SuccessorKey::derive(&[1; 32]);
        let successor = key.successor(&token());
        assert_eq!(
            successor.to_text(),
            key.successor(&token()).to_text(),
            "repeatable"
        );
        assert_ne!(successor.secret, token().secret);
        let next = key.successor(&successor);
        assert_ne!(next.secret, successor.secret);
        let mut other = token();
        other.secret[31] ^= 1;
        assert_ne!(key.successor(&other).secret, successor.secret);
        let other = RefreshToken {
            session_id: SessionId::from_uuid(new_id()),
            ..token()
        };
        assert_ne!(key.successor(&other).secret, successor.secret);
        assert_ne!(
            SuccessorKey::derive(&[2; 32]).successor(&token()).secret,
            successor.secret
        );
    }
}
