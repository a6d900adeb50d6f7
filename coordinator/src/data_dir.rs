//! Directory of the coordinator: its files, their modes (files 0600, a new directory 0700), and a lock so that one
//! process at a time uses it. Files are written atomically, so that an interrupted first start can be
//! repeated.

mod replace;

pub(crate) use replace::Replacement;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Default directory of the coordinator.
pub const DEFAULT_DATA: &str = "/var/lib/gatewrt";
/// Name of the file with the API's address for local commands.
pub const LOCAL_URL: &str = "url";
/// Name of the file that is there until a first start is complete: without it, keys and database must be there.
pub(crate) const FIRST_START: &str = "first-start";
/// Name of the file whose lock is held by the process that uses the directory.
pub(crate) const LOCK: &str = "lock";
/// Name of the database.
pub(crate) const DATABASE: &str = "gatewrt.db";
/// Name of the database's write-ahead log.
const DATABASE_LOG: &str = "gatewrt.db-wal";

/// Error of the coordinator's data directory. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Reading or writing failed.
    #[error("can't {what} {}{}", path.display(), advice(source))]
    Io {
        /// Operation: `create`, `read`, `write`, …
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Another coordinator uses the directory.
    #[error("another coordinator runs on {}: stop it first, or give this one its own with --data", path.display())]
    Locked {
        /// Path of the directory.
        path: PathBuf,
    },
    /// Others could replace the files of the directory.
    #[error(
        "others than its owner can write to {path}, and so replace the coordinator's keys: chmod go-w {path}, or choose another directory with --data",
        path = path.display()
    )]
    Writable {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The directory is not that of a coordinator.
    #[error("there is no coordinator in {}: name its directory with --data", path.display())]
    NoCoordinator {
        /// Path of the directory.
        path: PathBuf,
    },
    /// A file is missing that can't be created again: routers would not trust the new one.
    #[error(
        "{} is missing, and this is no first start: restore the file from a backup, or all with gatewrt-coordinator restore FILE --force (a new one would not be trusted by any router)",
        path.display()
    )]
    Lost {
        /// Path of the file.
        path: PathBuf,
    },
    /// A restore into the empty directory was interrupted.
    #[error(
        "a restore into {} was interrupted, and nothing is there yet: run gatewrt-coordinator restore again; to begin anew, remove the directory",
        path.display()
    )]
    NotRestored {
        /// Path of the directory.
        path: PathBuf,
    },
    /// A restore is complete on the disk, and its files can't be moved to their places.
    #[error(
        "a restore is not finished, at {}: {source}. Make it possible to move the files of that directory; the next start, or the next restore, finishes it",
        path.display()
    )]
    Unfinished {
        /// Path of the file that can't be moved.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The content of a file is not valid.
    #[error("{} is damaged ({why}): restore it from a backup, or all with gatewrt-coordinator restore FILE --force", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Reason why the content is not valid.
        why: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": run as a user who may write there, or choose another directory with --data"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space there",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            ": a file is in the way, choose another with --data"
        }
        _ => "",
    }
}

/// Data directory of the coordinator, locked by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Open file that holds the lock.
    _lock: File,
}

impl DataDir {
    /// Opens the data directory: creates it if it is missing, and locks it. A first start begins where there is neither
    /// a database nor any file of `trusted`, and lasts until its end is said, also if it was interrupted.
    pub fn open(path: &Path, trusted: &[&str]) -> Result<Self, DirError> {
        let dir = Self::lock(path)?;
        if Self::has_decision(path) {
            dir.finish_replacement()?;
            tracing::warn!("finished a restore that was interrupted");
        }
        let is_first = !trusted.iter().chain([&DATABASE, &DATABASE_LOG]).any(|name| dir.file(name).exists());
        if is_first && dir.has_waiting() {
            return Err(DirError::NotRestored { path: path.into() });
        }
        dir.drop_waiting()?;
        if is_first {
            dir.write(FIRST_START, "")?;
        }
        Ok(dir)
    }

    /// Opens the data directory of a coordinator that has run there, for a command that needs it alone.
    pub fn of_coordinator(path: &Path, trusted: &[&str]) -> Result<Self, DirError> {
        if !trusted.iter().all(|name| path.join(name).exists()) {
            return Err(DirError::NoCoordinator { path: path.into() });
        }
        Self::lock(path)
    }

    /// Creates the data directory if it is missing, and locks it. Nothing else is read or written.
    pub(crate) fn lock(path: &Path) -> Result<Self, DirError> {
        make_or_check(path)?;
        let lock = path.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = file.map_err(|source| DirError::Io { what: "create", path: lock.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(DirError::Locked { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(DirError::Io { what: "lock", path: lock, source }),
        }
    }

    /// Path of a file in the data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Path of the database in the data directory.
    pub fn database(&self) -> PathBuf {
        self.file(DATABASE)
    }

    /// True if keys and database are still to be made: until [`DataDir::end_first_start`].
    pub fn is_first_start(&self) -> bool {
        self.file(FIRST_START).exists()
    }

    /// Creates an empty database if there is none. Its mode is that of the files which SQLite creates next to it.
    pub fn make_database(&self) -> Result<(), DirError> {
        if self.database().exists() { Ok(()) } else { self.write(DATABASE, "") }
    }

    /// Ends a first start: all is there.
    pub fn end_first_start(&self) -> Result<(), DirError> {
        let path = self.file(FIRST_START);
        if !path.exists() {
            return Ok(());
        }
        let removed = fs::remove_file(&path).and_then(|()| File::open(&self.path)?.sync_all());
        removed.map_err(|source| DirError::Io { what: "remove", path, source })
    }

    /// Reads a file of the data directory as text; `None` if it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<String>, DirError> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DirError::Io { what: "read", path, source }),
        }
    }

    /// Reads a file that is created once, by `make`, and that routers trust from then on.
    pub fn read_or_make(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, DirError> {
        if let Some(text) = self.read(name)? {
            return Ok(text);
        }
        if !self.is_first_start() {
            return Err(DirError::Lost { path: self.file(name) });
        }
        let text = make();
        self.write(name, &text)?;
        Ok(text)
    }

    /// Writes a file of the data directory with mode 0600 atomically: after a crash it has the old or the new content.
    pub fn write(&self, name: &str, text: &str) -> Result<(), DirError> {
        let (path, draft) = (self.file(name), self.draft(name));
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|source| DirError::Io { what: "write", path, source })
    }

    /// Path under which a file is written before it gets its name.
    fn draft(&self, name: &str) -> PathBuf {
        self.file(&format!(".{name}.new"))
    }

    /// Error for a file of the data directory whose content is not valid.
    pub fn damaged(&self, name: &str, why: impl ToString) -> DirError {
        DirError::Damaged { path: self.file(name), why: why.to_string() }
    }
}

/// Creates the directory for its owner alone. The mode of one that is there is its owner's business: it is refused if others
/// could write to it. All files in it are private in any case.
fn make_or_check(path: &Path) -> Result<(), DirError> {
    let is_there = path.exists();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DirError::Io { what: "create", path: path.into(), source })?;
    let about = fs::metadata(path);
    let about = about.map_err(|source| DirError::Io { what: "read", path: path.into(), source })?;
    let mode = about.permissions().mode();
    if is_there && mode & 0o022 != 0 {
        return Err(DirError::Writable { path: path.into() });
    }
    if is_there && mode & 0o055 != 0 {
        let path = path.display();
        tracing::warn!("others can see the names of the files in {path}: chmod 700 {path}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mode(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn mode_of_a_foreign_directory_stays() {
        for allowed in [0o700, 0o755, 0o750, 0o2755] {
            let (_dir, path) = with_mode(allowed);
            DataDir::open(&path, &[]).unwrap();
            assert_eq!(mode(&path), allowed);
        }
    }

    #[test]
    fn directory_that_others_can_write_to_is_refused_untouched() {
        for refused in [0o777, 0o1777, 0o775, 0o702] {
            let (_dir, path) = with_mode(refused);
            let error = DataDir::open(&path, &[]).unwrap_err().to_string();
            assert!(error.contains("chmod go-w"), "{error}");
            assert_eq!((mode(&path), fs::read_dir(&path).unwrap().count()), (refused, 0));
        }
    }

    #[test]
    fn new_directory_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        DataDir::open(&path, &[]).unwrap();
        assert_eq!(mode(&path), 0o700);
    }
}
