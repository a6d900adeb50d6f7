//! What outlives a reboot, one folder a network below the state directory: `identity.json`, written once at
//! joining, `records`, the last good records, and `exit.json`, what was said of exits on the router. Beside the folders
//! `guard.json`, what keeps closed scopes in before the daemon runs. Files are 0600 in folders 0700, replaced whole or
//! not at all. It ends at files: what a record means is for [`crate::core`].

pub mod atomic;
pub mod records;

use crate::{
    config::OwnScope,
    gather::Gather,
    identity::{Identity, Keys, NoRandomness},
    plan::Guardfile,
    sorted::sort_by,
};
use gatewrt_protocol::{
    JoinCode, NetworkName,
    json::{self, JsonError},
};
pub use records::{Bucket, Records, RecordsFile, Saved};
use std::{
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
};

const IDENTITY: &str = "identity.json";
const RECORDS: &str = "records";
const CHOICE: &str = "exit.json";
const GUARD: &str = "guard.json";

/// Why something could not be kept or read back.
#[derive(Debug)]
pub enum StoreError {
    /// No space is left. What was there before is whole.
    Full(PathBuf),
    /// Not permitted, or the file system is read-only.
    Denied {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the system refused.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An identity that can't be read; the network must be joined anew.
    DamagedIdentity {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// Stored records that can't be read; they count as absent.
    DamagedRecords {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// What keeps closed scopes in before the daemon runs can't be read.
    DamagedGuard {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// What was said on the router of its Internet traffic can't be read.
    DamagedChoice {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// There is an identity for this network already.
    AlreadyJoined(NetworkName),
    /// No keys could be made.
    Keys(NoRandomness),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(path) => {
                write!(f, "no space left for {}: free some; what was stored before is whole", path.display())
            }
            Self::Denied { path, .. } => {
                write!(
                    f,
                    "not permitted: {}; run it as root, on a file system that can be written",
                    path.display()
                )
            }
            Self::Io { path, .. } => write!(f, "{} can't be used", path.display()),
            Self::DamagedIdentity { path, why } => write!(
                f,
                "{} is damaged ({why}): put back a backup of it and restart the daemon, or leave the network and join again with a new code",
                path.display()
            ),
            Self::DamagedRecords { path, why } => {
                write!(
                    f,
                    "{} is damaged ({why}): starting without it, the coordinator sends all again",
                    path.display()
                )
            }
            Self::DamagedGuard { path, why } => write!(
                f,
                "{} is damaged ({why}): nothing is forwarded until the daemon runs, which writes it anew",
                path.display()
            ),
            Self::DamagedChoice { path, why } => write!(f, "{} is damaged ({why})", path.display()),
            Self::AlreadyJoined(network) => {
                write!(
                    f,
                    "this router is in network {network} already: leave it first (gatewrt leave {network})"
                )
            }
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Denied { source, .. } | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
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

/// The state directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// A store below `dir`, which is made when the first thing is kept in it.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The networks this router has joined, in order of names.
    pub fn networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::at(&self.dir))?,
        };
        let joined = |name: &NetworkName| self.folder(name).join(IDENTITY).exists();
        let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        let mut names: Vec<_> = entries.filter_map(name).filter(joined).gather();
        sort_by(&mut names, Ord::cmp);
        Ok(names)
    }

    /// Who this router is in `network`; `None` when it has not joined.
    pub fn identity(&self, network: &NetworkName) -> Result<Option<Identity>, StoreError> {
        let path = self.folder(network).join(IDENTITY);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |why| StoreError::DamagedIdentity { path: path.clone(), why };
        let identity: Identity = json::read(&bytes).map_err(|error| damaged(error.to_string()))?;
        if identity.network == *network {
            Ok(Some(identity))
        } else {
            Err(damaged(format!("it is that of network {}", identity.network)))
        }
    }

    /// Keeps what a router became by joining with `code`, and forgets that the join was under way.
    pub fn save_identity(&self, code: &JoinCode, identity: &Identity) -> Result<(), StoreError> {
        let folder = self.folder(&identity.network);
        let path = folder.join(IDENTITY);
        if path.exists() {
            return Err(StoreError::AlreadyJoined(identity.network.clone()));
        }
        write_json(&path, identity)?;
        self.forget_pending(code)
    }

    /// The keys for joining with `code`: those of an earlier attempt whose answer did not arrive, else new ones.
    /// They are on disk before anyone is asked, so that a retry after a power cut is the same node.
    pub fn pending_keys(&self, code: &JoinCode) -> Result<Keys, StoreError> {
        let path = self.pending(code);
        let kept = read(&path)?.and_then(|bytes| json::read(&bytes).ok());
        if let Some(keys) = kept {
            return Ok(keys);
        }
        let keys = Keys::generate().map_err(StoreError::Keys)?;
        write_json(&path, &keys)?;
        Ok(keys)
    }

    /// Forgets the keys of an attempt that was refused for good.
    pub fn forget_pending(&self, code: &JoinCode) -> Result<(), StoreError> {
        let path = self.pending(code);
        absent_is_fine(fs::remove_file(&path)).map_err(StoreError::at(&path))
    }

    /// Removes all that is kept of `network`, its keys too.
    pub fn forget(&self, network: &NetworkName) -> Result<(), StoreError> {
        let folder = self.folder(network);
        absent_is_fine(fs::remove_dir_all(&folder)).map_err(StoreError::at(&folder))?;
        absent_is_fine(atomic::sync_dir(&self.dir)).map_err(StoreError::at(&self.dir))
    }

    /// What was said on the router of its Internet traffic in `network`; `None` when nothing was.
    pub fn choice(&self, network: &NetworkName) -> Result<Option<Vec<OwnScope>>, StoreError> {
        let path = self.folder(network).join(CHOICE);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |error: JsonError| StoreError::DamagedChoice { path, why: error.to_string() };
        json::read(&bytes).map(Some).map_err(damaged)
    }

    /// Keeps it; `None` forgets it.
    pub fn save_choice(&self, network: &NetworkName, choice: Option<&[OwnScope]>) -> Result<(), StoreError> {
        let path = self.folder(network).join(CHOICE);
        match choice {
            Some(choice) => write_json(&path, &choice),
            None => absent_is_fine(fs::remove_file(&path)).map_err(StoreError::at(&path)),
        }
    }

    /// What keeps closed scopes in before the daemon runs; `None` when nothing must be kept in.
    pub fn guard(&self) -> Result<Option<Guardfile>, StoreError> {
        let path = self.dir.join(GUARD);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let damaged = |error: JsonError| StoreError::DamagedGuard { path, why: error.to_string() };
        json::read(&bytes).map(Some).map_err(damaged)
    }

    /// Keeps it, where it is another than what is there; `None` forgets it.
    pub fn save_guard(&self, guard: Option<&Guardfile>) -> Result<(), StoreError> {
        let path = self.dir.join(GUARD);
        match guard {
            None => absent_is_fine(fs::remove_file(&path)).map_err(StoreError::at(&path)),
            Some(guard) if self.guard().is_ok_and(|there| there.as_ref() == Some(guard)) => Ok(()),
            Some(guard) => write_json(&path, guard),
        }
    }

    /// The file of the last good records of `network`.
    pub fn records(&self, network: &NetworkName) -> RecordsFile {
        RecordsFile::new(self.folder(network).join(RECORDS))
    }

    fn folder(&self, network: &NetworkName) -> PathBuf {
        self.dir.join(network.as_str())
    }

    /// A name with a dot first is no network's.
    fn pending(&self, code: &JoinCode) -> PathBuf {
        let hash = JoinCode::secret_hash(&code.secret);
        self.dir.join(format!(".join-{}.json", hash.get(..16).unwrap_or(&hash)))
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), StoreError> {
    let text = json::write(value).expect("keys and names are always JSON");
    atomic::write(path, &mut |file| file.write_all(text.as_bytes())).map_err(StoreError::at(path))
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
