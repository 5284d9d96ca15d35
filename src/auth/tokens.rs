//! Access tokens: JWTs that any node can check by itself.
//!
//! A token's header is trusted for one thing: which of *our* keys to try (`kid`). The key knows
//! its algorithm, the header must agree with it; `jku`, `jwk` and `x5u` are never looked at, and a
//! `crit` that we would have to understand is refused. All claims are required and typed, so that
//! a wrong-typed `exp` cannot pass for an absent one (CVE-2026-25537). The time comes from
//! [`Clock`], therefore `exp` and `iat` are compared here and not by the library.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rookery_protocol::user::UserRole;
use rookery_protocol::{SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use super::AuthError;
use crate::clock::Clock;
use crate::error::AppError;
use crate::store::UserRow;

/// Clocks of two nodes may differ by this much.
pub const LEEWAY_SECONDS: i64 = 15;
/// Ours have about 450 bytes; what is larger is not read at all.
const TOKEN_BYTES_MAX: usize = 2 * 1024;
const SECRET_BYTES_MIN: usize = 32;
const KEY_ID_CHARS: std::ops::RangeInclusive<usize> = 1..=64;
const ISSUER: &str = "rookery";
const AUDIENCE: &str = "rookery";

/// Somebody who proved who they are, until `expires_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub username: String,
    pub role: UserRole,
    /// The account's version when the token was made; see [`UserRow::auth_version`].
    pub auth_version: i64,
    pub expires_at: Timestamp,
}

/// Why a token was refused; the socket's close code depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the access token is not valid")]
    Invalid,
    #[error("the access token has expired; refresh it")]
    Expired,
    #[error("the session has ended; log in again")]
    Revoked,
}

impl From<TokenRefusal> for AppError {
    fn from(refusal: TokenRefusal) -> Self {
        Self::unauthenticated(&refusal.to_string())
    }
}

/// Makes and checks access tokens.
pub struct AccessTokens {
    /// The first signs. A handful at most: searched in order.
    keys: RwLock<Arc<[Key]>>,
    life_seconds: i64,
    clock: Clock,
}

struct Key {
    id: String,
    algorithm: Algorithm,
    /// As a token's header names the algorithm.
    algorithm_name: &'static str,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    sub: UserId,
    sid: SessionId,
    username: String,
    role: UserRole,
    av: i64,
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    aud: Cow<'a, str>,
    iat: i64,
    exp: i64,
}

/// What is read of a token's header.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

impl AccessTokens {
    pub(super) fn new(
        keys: &[(String, Vec<u8>)],
        life_seconds: i64,
        clock: Clock,
    ) -> Result<Self, AuthError> {
        Ok(Self {
            keys: RwLock::new(Self::known(keys)?),
            life_seconds,
            clock,
        })
    }

    /// Signs and checks with these keys from now on; a token of a key that is not among them is
    /// refused.
    pub(super) fn replace_keys(&self, keys: &[(String, Vec<u8>)]) -> Result<(), AuthError> {
        let keys = Self::known(keys)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<[Key]> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    fn known(keys: &[(String, Vec<u8>)]) -> Result<Arc<[Key]>, AuthError> {
        let mut known: Vec<Key> = Vec::with_capacity(keys.len());
        for (id, secret) in keys {
            if secret.len() < SECRET_BYTES_MIN {
                return Err(AuthError::ShortKey(id.clone()));
            }
            if !KEY_ID_CHARS.contains(&id.len()) || known.iter().any(|key| key.id == *id) {
                return Err(AuthError::KeyId(id.clone()));
            }
            known.push(Key {
                id: id.clone(),
                algorithm: Algorithm::HS256,
                algorithm_name: "HS256",
                encoding: EncodingKey::from_secret(secret),
                decoding: DecodingKey::from_secret(secret),
            });
        }
        if known.is_empty() {
            return Err(AuthError::NoKey);
        }
        Ok(known.into())
    }

    /// Seconds that a new token lives.
    #[must_use]
    pub fn life_seconds(&self) -> i64 {
        self.life_seconds
    }

    /// A token for one session of one user.
    ///
    /// # Errors
    /// `INTERNAL`, if the library cannot sign; it has no known reason not to.
    pub fn issue(&self, user: &UserRow, session_id: SessionId) -> Result<String, AppError> {
        let issued_at = self.now_seconds();
        let keys = self.keys();
        let key = &keys[0];
        let header = Header {
            kid: Some(key.id.clone()),
            ..Header::new(key.algorithm)
        };
        let claims = Claims {
            sub: user.user_id,
            sid: session_id,
            username: user.username.clone(),
            role: user.role,
            av: user.auth_version,
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            iat: issued_at,
            exp: issued_at + self.life_seconds,
        };
        jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|error| {
            tracing::error!(%error, "cannot sign an access token");
            AppError::internal()
        })
    }

    /// Who holds this token. Does not know of revocations.
    ///
    /// # Errors
    /// Forged, malformed or expired.
    pub fn verify(&self, token: &str) -> Result<Access, TokenRefusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Invalid);
        }
        let payload = self.signed_payload(token).ok_or(TokenRefusal::Invalid)?;
        let claims: Claims<'_> =
            serde_json::from_slice(&payload).map_err(|_| TokenRefusal::Invalid)?;
        let now = self.now_seconds();
        let early = claims.iat > now.saturating_add(LEEWAY_SECONDS);
        // An end that clients could not be told.
        let endless = claims.exp > Timestamp::LAST.as_millis() / 1_000;
        if claims.iss != ISSUER || claims.aud != AUDIENCE || early || endless {
            return Err(TokenRefusal::Invalid);
        }
        if claims.exp.saturating_add(LEEWAY_SECONDS) <= now {
            return Err(TokenRefusal::Expired);
        }
        Ok(Access {
            user_id: claims.sub,
            session_id: claims.sid,
            username: claims.username,
            role: claims.role,
            auth_version: claims.av,
            expires_at: Timestamp::from_millis(claims.exp.saturating_mul(1_000)),
        })
    }

    /// The claims' bytes, if one of our keys signed them with its own algorithm.
    fn signed_payload(&self, token: &str) -> Option<Vec<u8>> {
        let (message, signature) = token.rsplit_once('.')?;
        let (head, payload) = message.split_once('.')?;
        let head = URL_SAFE_NO_PAD.decode(head).ok()?;
        let head: Head<'_> = serde_json::from_slice(&head).ok()?;
        let keys = self.keys();
        let key = keys.iter().find(|key| key.id == head.kid)?;
        if head.alg != key.algorithm_name || head.crit.is_some() {
            return None;
        }
        let verify = jsonwebtoken::crypto::verify;
        let genuine = verify(signature, message.as_bytes(), &key.decoding, key.algorithm).ok()?;
        if genuine {
            URL_SAFE_NO_PAD.decode(payload).ok()
        } else {
            None
        }
    }

    fn now_seconds(&self) -> i64 {
        self.clock.now().as_millis().div_euclid(1_000)
    }
}

#[cfg(test)]
mod tests;
