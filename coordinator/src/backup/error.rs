//! Errors of backups and restores. `Display` says what to do.

use crate::{data_dir::DirError, store::StoreError};
use std::{io, path::PathBuf};

/// Error of a backup or a restore. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data directory can't be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The database can't be used.
    #[error("{}: {source}", path.display())]
    Store {
        /// Path of the database.
        path: PathBuf,
        /// Error of the database.
        source: StoreError,
    },
    /// The directory is not complete.
    #[error("{} is not complete, as its {what} was interrupted: start the coordinator, which completes it, then make the backup", path.display())]
    Incomplete {
        /// Path of the directory.
        path: PathBuf,
        /// What was interrupted.
        what: &'static str,
    },
    /// The file of the backup is there already.
    #[error("{} exists already: name another file, or replace it with --force", path.display())]
    Exists {
        /// Path of the file.
        path: PathBuf,
    },
    /// The backup can't replace what is there.
    #[error("{} is not a regular file: name one, or - for stdout", path.display())]
    NotAFile {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file can't be read or written.
    #[error("can't {what} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// Operation: `read`, `write`, …
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The file is no backup.
    #[error(
        "this is no backup of a coordinator: it is neither what “gatewrt-coordinator backup” writes nor encrypted with age"
    )]
    NotABackup,
    /// The backup ends too early.
    #[error("the backup is not whole: it ends too early. Copy it once more, or take another")]
    Truncated,
    /// The content of the backup is not what was written.
    #[error("the backup is damaged ({what}): copy it once more, or take another")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// The backup is of a later version.
    #[error(
        "the backup was made by a later version ({program}; this is {}): restore it with that version",
        crate::http::VERSION
    )]
    TooNew {
        /// Version of the program that made the backup.
        program: String,
    },
    /// The backup is encrypted, and there is no identity.
    #[error(
        "the backup is encrypted: name the file with the secret key of one of its recipients, --identity FILE"
    )]
    Encrypted,
    /// The backup is encrypted with a passphrase, as this program never does.
    #[error("the file is encrypted with a passphrase: decrypt it first, as with “age -d”")]
    Passphrase,
    /// The identities are not those of the recipients.
    #[error(
        "the backup is encrypted to other recipients: none of the identities can decrypt it. Name the file with the right one, --identity FILE"
    )]
    WrongIdentity,
    /// The file has no identities.
    #[error("{} has no age identity ({why}): name a file with lines such as AGE-SECRET-KEY-1…, as age-keygen writes it", path.display())]
    BadIdentity {
        /// Path of the file.
        path: PathBuf,
        /// Reason, without the content of the file.
        why: String,
    },
    /// A coordinator uses the directory.
    #[error("a coordinator runs on {}: stop it first. Nothing was changed", path.display())]
    Running {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The directory is not empty.
    #[error(
        "{} is not empty: it holds {holds}. Nothing was changed. With --force this is kept there in a folder, and the backup takes its place. The backup holds {backup}",
        path.display()
    )]
    NotEmpty {
        /// Path of the directory.
        path: PathBuf,
        /// Description of what is there.
        holds: String,
        /// Description of what the backup holds.
        backup: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ". Run as the user the coordinator runs as (often root)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ". Free some space there",
        io::ErrorKind::NotFound => ". Check the path",
        _ => "",
    }
}

impl BackupError {
    pub(super) fn damaged(what: impl ToString) -> Self {
        Self::Damaged { what: what.to_string() }
    }

    /// Error of reading the content of a backup.
    pub(super) fn reading(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::damaged(error),
        }
    }
}
