//! The keys that sign access tokens.
//!
//! One key signs, any number is accepted, so that a key can be changed in a running cluster: first
//! every node accepts the new one (`JWT_SECRETS_PREVIOUS`), then every node signs with it
//! (`JWT_SECRET`, the old one moves to `JWT_SECRETS_PREVIOUS`), then the old one is dropped. A
//! key's id (`kid`) comes from the key itself, so nodes agree on it without being told.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::TryRngCore;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::key::Key;
use super::secret::{REDACTED, Secret, is_placeholder};
use super::sources::{Result, Sources};

const JWT_SECRET: Key = Key::new("auth.jwt_secret")
    .variable_name("JWT_SECRET")
    .secret()
    .live();
const JWT_SECRETS_PREVIOUS: Key = Key::new("auth.jwt_secrets_previous")
    .variable_name("JWT_SECRETS_PREVIOUS")
    .secret()
    .live();

pub(super) const KEYS: [Key; 2] = [JWT_SECRET, JWT_SECRETS_PREVIOUS];

/// HMAC-SHA256 is as strong as its key up to this length (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Fewer kinds of bytes are a key held down; 32 random hexadecimal digits have 14 kinds.
const DIFFERENT_BYTES_MIN: usize = 6;
/// Where a single node keeps the secret it made, in its data directory.
const SECRET_FILE: &str = "jwt_secret";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// Keys by id; the first signs, all are accepted. `JWT_SECRET` is the first; default: made on
    /// the first start of a single node and kept in the data directory. `JWT_SECRETS_PREVIOUS`:
    /// others that are accepted, separated by commas; default: none.
    pub keys: Vec<(String, Secret)>,
}

impl AuthConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        let signing = sources.optional(&JWT_SECRET, secret)?;
        let accepted = sources.list(&JWT_SECRETS_PREVIOUS, secret)?;
        if signing.is_none() && !accepted.is_empty() {
            return Err(
                "JWT_SECRETS_PREVIOUS is set without JWT_SECRET; set the secret that \
                        signs as well"
                    .to_owned(),
            );
        }
        let mut keys: Vec<(String, Secret)> = Vec::new();
        for key in signing.into_iter().chain(accepted).map(with_id) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(Self { keys })
    }

    /// The keys' bytes, by id.
    #[must_use]
    pub fn signing_keys(&self) -> Vec<(String, Vec<u8>)> {
        let keys = self.keys.iter();
        keys.map(|(id, secret)| (id.clone(), secret.expose().as_bytes().to_vec()))
            .collect()
    }

    /// Takes the secret that an earlier start kept, if there is one.
    pub(super) fn use_kept_secret(&mut self, data_dir: &Path) -> Result<()> {
        let path = data_dir.join(SECRET_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
        };
        let kept = secret(text.trim()).map_err(|_| {
            format!(
                "{} holds no whole secret; remove it, and a new one is made (everybody logs in \
                 again), or set JWT_SECRET",
                path.display()
            )
        })?;
        self.keys = vec![with_id(kept)];
        Ok(())
    }

    /// Makes a secret and keeps it for later starts.
    pub(super) fn make_secret(&mut self, data_dir: &Path) -> Result<()> {
        let mut bytes = [0; SECRET_BYTES_MIN];
        rand::rngs::OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|e| format!("the system gives no random numbers ({e}); set JWT_SECRET"))?;
        let text = STANDARD.encode(bytes);
        write_secret(&data_dir.join(SECRET_FILE), &text)?;
        self.keys = vec![with_id(Secret::new(text))];
        Ok(())
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 2] {
        let signing = self.keys.first().map(|_| REDACTED);
        let accepted = self.keys.len().saturating_sub(1);
        [
            json!(signing),
            json!((accepted > 0).then(|| vec![REDACTED; accepted])),
        ]
    }
}

/// Makes a directory that only this user may enter, unless it is there.
pub(super) fn make_private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| {
            format!(
                "the data directory {} cannot be made: {e}; set DATA_DIR",
                dir.display()
            )
        })
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e: std::io::Error| {
        format!(
            "{} cannot be written: {e}; set DATA_DIR to a directory that can, or set JWT_SECRET",
            path.display()
        )
    })
}

fn secret(text: &str) -> Result<Secret> {
    if text.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "a secret has at least {SECRET_BYTES_MIN} bytes, this one has {}; make one with \
             `openssl rand -base64 32`",
            text.len()
        ));
    }
    let different: HashSet<u8> = text.bytes().collect();
    if is_placeholder(text) || different.len() < DIFFERENT_BYTES_MIN {
        return Err(
            "this is an example and no secret; make one with `openssl rand -base64 32`".to_owned(),
        );
    }
    Ok(Secret::new(text))
}

/// The secret and its id: four bytes of a hash, enough to tell a few keys apart and of no help in
/// finding one.
fn with_id(secret: Secret) -> (String, Secret) {
    let hash = Sha256::new()
        .chain_update(b"rookery kid ")
        .chain_update(secret.expose())
        .finalize();
    let id = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    (id, secret)
}
