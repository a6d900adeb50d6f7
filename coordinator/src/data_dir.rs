//! The coordinator's directory: what is in it, who may read it (no one else: 0700, files 0600), and that one
//! program at a time has it. Files are written whole or not at all, so that a first start that was cut short
//! is simply done again.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why the directory can't be used. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Reading or writing failed.
    #[error("can't {what} {}{}", path.display(), advice(source))]
    Io {
        /// `create`, `read`, `write`, …
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another coordinator runs on it.
    #[error("another coordinator runs on {}: stop it first, or give this one its own with --data", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file that can't be made anew without breaking what routers trust.
    #[error(
        "{} is missing, but there is a database: restore the file from a backup (a new one would not be trusted by any router)",
        path.display()
    )]
    Lost {
        /// Which file.
        path: PathBuf,
    },
    /// A file that is not what it should be.
    #[error("{} is damaged ({why}): restore it from a backup", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
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

/// A directory that this process alone has, until it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, and takes it.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| DirError::Io { what: "create", path: path.into(), source })?;
        let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        closed.map_err(|source| DirError::Io { what: "set the mode of", path: path.into(), source })?;
        let lock = path.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = file.map_err(|source| DirError::Io { what: "create", path: lock.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(DirError::Locked { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(DirError::Io { what: "lock", path: lock, source }),
        }
    }

    /// A file's path.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.file("gatewrt.db")
    }

    /// The file's text; `None` where there is none.
    pub fn read(&self, name: &str) -> Result<Option<String>, DirError> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DirError::Io { what: "read", path, source }),
        }
    }

    /// The text of a file that is made once and trusted by routers ever after.
    pub fn read_or_make(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, DirError> {
        if let Some(text) = self.read(name)? {
            return Ok(text);
        }
        if self.database().exists() {
            return Err(DirError::Lost { path: self.file(name) });
        }
        let text = make();
        self.write(name, &text)?;
        Ok(text)
    }

    /// Writes a file, mode 0600, in one step: after a crash it is the old one or the new one.
    pub fn write(&self, name: &str, text: &str) -> Result<(), DirError> {
        let (path, aside) = (self.file(name), self.file(&format!(".{name}.new")));
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|source| DirError::Io { what: "write", path, source })
    }

    /// The error of a file whose content is not what it should be.
    pub fn damaged(&self, name: &str, why: impl ToString) -> DirError {
        DirError::Damaged { path: self.file(name), why: why.to_string() }
    }
}
