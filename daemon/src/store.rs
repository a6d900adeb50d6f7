//! State that outlives a reboot, in one folder for each network below the state directory: `identity.json`, written
//! once at joining, `records`, the last good records, and `exit.json`, the choice of exits made on the router. Beside
//! the folders `guard.json`, the boot lockdown. Files are 0600 in folders 0700, replaced whole or not at all. It ends
//! at files: [`crate::core`] knows what a record means.

pub mod records;

use crate::{
    atomic_file,
    config::OwnScope,
    identity::{Identity, Keys, NoRandomness},
    plan::BootLockdown,
};
use gatewrt_protocol::{JoinCode, NetworkName};
pub use records::{Records, RecordsFile, Saved};
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

const IDENTITY: &str = "identity.json";
const RECORDS: &str = "records";
const CHOICE: &str = "exit.json";
const BOOT_LOCKDOWN: &str = "guard.json";

/// Failure to write state to disk or to read it back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left on the disk; the old file is whole.
    #[error("no space left for {}: free some; what was stored before is whole", .0.display())]
    Full(PathBuf),
    /// Missing permission, or a read-only file system.
    #[error("not permitted: {}; run it as root, on a file system that can be written", path.display())]
    Denied {
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Any other error of the system.
    #[error("{} can't be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Damaged identity; the network must be joined again.
    #[error("{} is damaged ({why}): put back a backup of it and restart the daemon, or leave the network and join again with a new code", path.display())]
    DamagedIdentity {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        why: String,
    },
    /// Damaged records; they count as absent.
    #[error("{} is damaged ({why}): starting without it, the coordinator sends all again", path.display())]
    DamagedRecords {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        why: String,
    },
    /// Damaged boot lockdown.
    #[error("{} is damaged ({why}): nothing is forwarded until the daemon runs, which writes it anew", path.display())]
    DamagedLockdown {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        why: String,
    },
    /// Damaged choice of exits.
    #[error("{} is damaged ({why})", path.display())]
    DamagedChoice {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        why: String,
    },
    /// Identity for this network that exists already.
    #[error("this router is in network {0} already: leave it first (gatewrt leave {0})")]
    AlreadyJoined(NetworkName),
    /// Failure to generate keys.
    #[error(transparent)]
    Keys(NoRandomness),
}

impl StoreError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// State directory of the daemon.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Store in the state directory `dir`, which is created with the first file in it.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Networks this router has joined, sorted by name.
    pub fn networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::at(&self.dir))?,
        };
        let joined = |name: &NetworkName| self.folder(name).join(IDENTITY).exists();
        let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        let mut names: Vec<_> = entries.filter_map(name).filter(joined).collect();
        names.sort();
        Ok(names)
    }

    /// Identity of this router in `network`; `None` when it has not joined.
    pub fn identity(&self, network: &NetworkName) -> Result<Option<Identity>, StoreError> {
        let path = self.folder(network).join(IDENTITY);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |why| StoreError::DamagedIdentity { path: path.clone(), why };
        let identity: Identity =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if identity.network == *network {
            Ok(Some(identity))
        } else {
            Err(damaged(format!("it is that of network {}", identity.network)))
        }
    }

    /// Saves the identity that this router got by joining with `code`, and forgets the pending keys of that join.
    pub fn save_identity(&self, code: &JoinCode, identity: &Identity) -> Result<(), StoreError> {
        let folder = self.folder(&identity.network);
        let path = folder.join(IDENTITY);
        if path.exists() {
            return Err(StoreError::AlreadyJoined(identity.network.clone()));
        }
        write_json(&path, identity)?;
        let left = self.left(code);
        absent_is_fine(fs::remove_file(&left)).map_err(StoreError::at(&left))?;
        self.forget_pending(code)
    }

    /// Saves the identity of a network that this router is in, with another port.
    pub fn save_port(&self, identity: &Identity) -> Result<(), StoreError> {
        write_json(&self.folder(&identity.network).join(IDENTITY), identity)
    }

    /// Notes that a network was left whose configuration has this code: it is not joined again by itself.
    pub fn retire(&self, code: &JoinCode) -> Result<(), StoreError> {
        write_json(&self.left(code), &())
    }

    /// True if the network of this code was left, and not joined with the code since.
    pub fn is_retired(&self, code: &JoinCode) -> bool {
        self.left(code).exists()
    }

    /// Private keys for joining with `code`: those of an earlier attempt whose answer did not arrive, else new ones.
    /// They are on disk before the request is sent, so that a retry after a power cut is the same node.
    pub fn pending_keys(&self, code: &JoinCode) -> Result<Keys, StoreError> {
        let path = self.pending(code);
        let kept = read(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(keys) = kept {
            return Ok(keys);
        }
        let keys = Keys::generate().map_err(StoreError::Keys)?;
        write_json(&path, &keys)?;
        Ok(keys)
    }

    /// Deletes the pending keys for joining with `code`, once that is done or refused for good.
    pub fn forget_pending(&self, code: &JoinCode) -> Result<(), StoreError> {
        let path = self.pending(code);
        absent_is_fine(fs::remove_file(&path)).map_err(StoreError::at(&path))
    }

    /// Removes all state of `network` from disk, its keys too.
    pub fn forget(&self, network: &NetworkName) -> Result<(), StoreError> {
        let folder = self.folder(network);
        absent_is_fine(fs::remove_dir_all(&folder)).map_err(StoreError::at(&folder))?;
        absent_is_fine(atomic_file::sync_dir(&self.dir)).map_err(StoreError::at(&self.dir))
    }

    /// Choice of exits made on the router for `network`; `None` when none was made.
    pub fn choice(&self, network: &NetworkName) -> Result<Option<Vec<OwnScope>>, StoreError> {
        let path = self.folder(network).join(CHOICE);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| StoreError::DamagedChoice { path, why: error.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Saves the choice of exits made on the router for `network`; `None` forgets it.
    pub fn save_choice(&self, network: &NetworkName, choice: Option<&[OwnScope]>) -> Result<(), StoreError> {
        let path = self.folder(network).join(CHOICE);
        match choice {
            Some(choice) => write_json(&path, &choice),
            None => absent_is_fine(fs::remove_file(&path)).map_err(StoreError::at(&path)),
        }
    }

    /// Boot lockdown as saved on disk; `None` when no scope is closed.
    pub fn boot_lockdown(&self) -> Result<Option<BootLockdown>, StoreError> {
        let path = self.dir.join(BOOT_LOCKDOWN);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| StoreError::DamagedLockdown { path, why: error.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Saves the boot lockdown if it differs from the one on disk; `None` forgets it.
    pub fn save_boot_lockdown(&self, lockdown: Option<&BootLockdown>) -> Result<(), StoreError> {
        let path = self.dir.join(BOOT_LOCKDOWN);
        match lockdown {
            None => absent_is_fine(fs::remove_file(&path)).map_err(StoreError::at(&path)),
            Some(lockdown) if self.boot_lockdown().is_ok_and(|there| there.as_ref() == Some(lockdown)) => {
                Ok(())
            }
            Some(lockdown) => write_json(&path, lockdown),
        }
    }

    /// File of the last good records of `network`.
    pub fn records(&self, network: &NetworkName) -> RecordsFile {
        RecordsFile::new(self.folder(network).join(RECORDS))
    }

    fn folder(&self, network: &NetworkName) -> PathBuf {
        self.dir.join(network.as_str())
    }

    /// File of the pending keys for joining with `code`.
    fn pending(&self, code: &JoinCode) -> PathBuf {
        self.of_code("join", code)
    }

    /// File that is there if the network of `code` was left.
    fn left(&self, code: &JoinCode) -> PathBuf {
        self.of_code("left", code)
    }

    /// A name with a dot first is no network's.
    fn of_code(&self, what: &str, code: &JoinCode) -> PathBuf {
        let hash = JoinCode::secret_hash(&code.secret);
        self.dir.join(format!(".{what}-{}.json", hash.get(..16).unwrap_or(&hash)))
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), StoreError> {
    let text = serde_json::to_vec(value).expect("keys and names are always JSON");
    atomic_file::write(path, &mut |file| file.write_all(&text)).map_err(StoreError::at(path))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::at(path)(error)),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
