//! Restore of a backup into a data directory.

use super::{Backup, BackupError, Contents};
use crate::{
    clock::date,
    data_dir::{DATABASE, DataDir, DirError, LOCK, Replacement},
    registry::Recovery,
    store::StoreError,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Largest number of files that are named of a directory that is not empty.
const NAMED: usize = 6;

/// Outcome of a restore.
#[derive(Debug)]
pub struct Restored {
    /// What the restored coordinator has.
    pub holds: Contents,
    /// Folder with the files that were there, if there were any.
    pub kept: Option<PathBuf>,
}

/// Restores a backup into `data`, which must be empty unless `force` is given. `now` is in seconds since 1970. After an
/// error `data` has the files that it had, unless the error says otherwise.
pub async fn restore(backup: &Backup, data: &Path, force: bool, now: u64) -> Result<Restored, BackupError> {
    let holds = backup.verify().await?;
    // A directory that is no coordinator's gets no lock before it is certain that it becomes one.
    let locked = if data.join(LOCK).exists() { Some(lock(data)?) } else { None };
    let there = names(data)?;
    if !there.is_empty() && !force {
        let backup_holds = format!("{holds}, as of {}", date(backup.manifest.made));
        let holds = describe(data, &there, backup, now).await;
        return Err(BackupError::NotEmpty { path: data.into(), holds, backup: backup_holds });
    }
    let dir = locked.map_or_else(|| lock(data), Ok)?;
    let kept = replace(backup, &dir, now).await?;
    Ok(Restored { holds, kept })
}

/// Locks the directory, and does what an earlier restore has left to do.
fn lock(data: &Path) -> Result<DataDir, BackupError> {
    let dir = DataDir::lock(data).map_err(|error| match error {
        DirError::Locked { path } => BackupError::Running { path },
        error => error.into(),
    })?;
    dir.finish_replacement()?;
    dir.drop_waiting()?;
    Ok(dir)
}

/// Names of what is in a directory, without the lock and what belongs to the file system.
fn names(data: &Path) -> Result<Vec<String>, BackupError> {
    let names = (|| -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(data)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != LOCK && name != "lost+found");
        names.sort();
        Ok(names)
    })();
    match names {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|source| BackupError::Io { what: "read", path: data.into(), source }),
    }
}

/// Describes a directory that is not empty.
async fn describe(data: &Path, names: &[String], backup: &Backup, now: u64) -> String {
    match Backup::take(data, now).await {
        Ok(there) if there.manifest.ca_sha256 == backup.manifest.ca_sha256 => {
            format!("the coordinator that the backup is of, with {}", there.manifest.holds)
        }
        Ok(there) => format!("another coordinator than the backup is of, with {}", there.manifest.holds),
        Err(_) => {
            let more = names.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
        }
    }
}

/// Replaces the files of the directory by those of the backup. Returns the folder with the old ones.
async fn replace(backup: &Backup, dir: &DataDir, now: u64) -> Result<Option<PathBuf>, BackupError> {
    let mut new = Replacement::begin(dir)?;
    for (name, text) in &backup.files {
        new.add(name, text.as_bytes())?;
    }
    let database = new.add(DATABASE, b"")?;
    let recovery = Recovery { at: now, backup_at: Some(backup.manifest.made), ..Recovery::default() };
    let written = backup.database.write(&database, recovery, &backup.keys()?.record_key).await;
    written.map_err(|source: StoreError| BackupError::Store { path: database, source })?;
    let stamp = date(now).replace(['-', ':'], "");
    let names = (1..).map(|number| match number {
        1 => format!("before-restore-{stamp}"),
        number => format!("before-restore-{stamp}-{number}"),
    });
    let free = names.into_iter().find(|name| !dir.file(name).exists());
    Ok(new.commit(&free.expect("numbers do not end"))?)
}
