//! Backup of a coordinator as one file, and its restore.
//!
//! ```text
//!   data directory ──take──▶ Backup ──write──▶ age( gzip( tar( manifest.json, keys, database.json ) ) )
//!                               ▲                                      │
//!   data directory ◀──restore── Backup, verified ◀────────read─────────┘
//! ```
//!
//! A backup is taken by a process of its own, and not asked of the coordinator that runs: its keys never leave the machine
//! over HTTPS, no token of the API gets them, and a coordinator that does not answer, or does not run, is backed up in the
//! same way. All of it is in memory, as it is in the coordinator, so that nothing unencrypted is written to the disk.

mod archive;
mod error;
mod file;
mod keys;
mod restore;

pub use archive::{FileFacts, Manifest};
pub use error::BackupError;
pub use file::{open_source, read_identities, write_file};
pub use restore::{Restored, restore};

use crate::{
    data_dir::{DATABASE, DataDir, DirError, FIRST_START},
    pki::{ADMIN_TOKEN, SERVER_CERT, SERVER_KEY, SERVER_NAMES, TRUSTED},
    registry::Registry,
    store::{Dump, StoreError},
};
use gatewrt_protocol::NetworkName;
use keys::{KeyFacts, Misfit};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, fs, io, path::Path};

/// Files with the server certificate. A coordinator issues them anew where one is missing.
const SERVER: [&str; 3] = [SERVER_CERT, SERVER_KEY, SERVER_NAMES];

/// Content of a backup: keys, certificates, tokens, and the rows of the database.
pub struct Backup {
    /// What is in it, made by whom and when.
    pub manifest: Manifest,
    /// Texts of the files of the data directory, by name.
    files: BTreeMap<&'static str, String>,
    database: Dump,
}

/// What an admin knows a coordinator by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Names of the networks.
    pub networks: Vec<NetworkName>,
    /// Number of nodes that are not removed.
    pub nodes: usize,
    /// Number of external clients that are not deleted.
    pub clients: usize,
    /// Number of tokens of the API that were valid then, beside the admin token.
    pub tokens: usize,
}

impl Contents {
    fn of(registry: &Registry, now: u64) -> Self {
        Self {
            networks: registry.networks().map(|network| network.name.clone()).collect(),
            nodes: registry.nodes().filter(|node| node.is_live()).count(),
            clients: registry.clients().filter(|client| client.is_live()).count(),
            tokens: registry.tokens().filter(|token| token.holds(now)).count(),
        }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.networks.iter().map(NetworkName::as_str).collect();
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        write!(
            f,
            "{}{names}, {}, {}, {}",
            count(self.networks.len(), "network"),
            count(self.nodes, "node"),
            count(self.clients, "client"),
            count(self.tokens, "token"),
        )
    }
}

impl Backup {
    /// Takes a backup of the coordinator in `data`, which may run. `now` is in seconds since 1970. It is verified: what
    /// could not be restored is an error.
    pub async fn take(data: &Path, now: u64) -> Result<Self, BackupError> {
        if let Err(source) = fs::read_dir(data) {
            return Err(match source.kind() {
                io::ErrorKind::NotFound => DirError::NoCoordinator { path: data.into() }.into(),
                _ => BackupError::Io { what: "read", path: data.into(), source },
            });
        }
        let is_there = |name: &str| data.join(name).exists();
        let incomplete = |what| Err(BackupError::Incomplete { path: data.into(), what });
        if DataDir::has_decision(data) {
            return incomplete("restore");
        } else if is_there(FIRST_START) {
            return incomplete("first start");
        } else if !TRUSTED.iter().chain([&DATABASE]).any(|name| is_there(name)) {
            return Err(DirError::NoCoordinator { path: data.into() }.into());
        }
        let path = data.join(DATABASE);
        let fault = |source: StoreError| BackupError::Store { path: path.clone(), source };
        let database = Dump::read(&path).await.map_err(fault)?;
        let files = key_files(data)?;
        let file = |name: &str| files.get(name).map(String::as_str);
        let damaged = |(name, why): Misfit| DirError::Damaged { path: data.join(name), why };
        let keys = keys::check(file).map_err(damaged)?;
        let registry = database.load(&keys.record_key).await.map_err(fault)?.registry;
        let manifest = Manifest::new(now, keys.ca_sha256, Contents::of(&registry, now), database.schema());
        Ok(Self { manifest, files, database })
    }

    /// True if it has the admin token.
    pub fn has_admin_token(&self) -> bool {
        self.files.contains_key(ADMIN_TOKEN)
    }

    /// Verifies that a coordinator can run with what was read: keys that fit each other, a database that loads.
    pub async fn verify(&self) -> Result<Contents, BackupError> {
        let file = |name: &str| self.files.get(name).map(String::as_str);
        let keys = self.keys()?;
        if keys.ca_sha256 != self.manifest.ca_sha256 || self.database.schema() != self.manifest.schema {
            return Err(BackupError::damaged("its manifest is of another backup"));
        }
        if SERVER.iter().any(|name| file(name).is_some()) && !keys::server_fits(file) {
            return Err(BackupError::damaged("the server certificate is not of the server key and the CA"));
        }
        let loaded = self.database.load(&keys.record_key).await;
        let registry = loaded.map_err(|error| self.unusable(error))?.registry;
        Ok(Contents::of(&registry, self.manifest.made))
    }

    fn keys(&self) -> Result<KeyFacts, BackupError> {
        let keys = keys::check(|name| self.files.get(name).map(String::as_str));
        keys.map_err(|(name, why)| BackupError::damaged(format!("{name}: {why}")))
    }

    /// Error of a database that can't be made of the backup.
    fn unusable(&self, error: StoreError) -> BackupError {
        match error {
            StoreError::TooNew { .. } => BackupError::TooNew { program: self.manifest.program.clone() },
            StoreError::Damaged { what } => BackupError::damaged(format!("in its database: {what}")),
            error => BackupError::damaged(format!("in its database: {error}")),
        }
    }
}

/// Reads the files with keys, certificates and the admin token. What can be made anew may be missing.
fn key_files(data: &Path) -> Result<BTreeMap<&'static str, String>, BackupError> {
    let mut files = BTreeMap::new();
    for name in TRUSTED.into_iter().chain([ADMIN_TOKEN]).chain(SERVER) {
        let path = data.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => drop(files.insert(name, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !TRUSTED.contains(&name) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirError::Lost { path }.into());
            }
            Err(source) => return Err(BackupError::Io { what: "read", path, source }),
        }
    }
    if !keys::server_fits(|name| files.get(name).map(String::as_str)) {
        files.retain(|name, _| !SERVER.contains(name));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
