//! Replacement of all files of a data directory by others: all of them, or none, whenever the power goes.
//!
//! ```text
//!   begin ───▶ new files wait in a folder ───commit───▶ decided: the file `restoring` is there
//!                        │                                 │  ▲
//!                dropped, killed                           ▼  │ killed: begun again by whoever opens the directory
//!                        ▼                          old files go aside, then new ones in
//!               old files are as they were                 ▼
//!                                                   done: `restoring` is gone
//! ```
//!
//! All is inside the directory, which may be a mount point, or have a parent that its owner can't write to. Nothing after
//! the decision takes space on the disk. Folders and the lock stay where they are.

use super::{DataDir, DirError, LOCK};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

/// Folder with the new files.
const WAITING: &str = "restore-new";
/// File that is there from the decision until all is done.
const DECISION: &str = "restoring";

/// Content of [`DECISION`].
#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    /// Names of the new files.
    files: Vec<String>,
    /// Name of the folder for the old files; `None` if there are none.
    aside: Option<String>,
}

/// New files that are to replace those of a data directory. Dropped, they are removed, and nothing has changed.
#[derive(Debug)]
pub(crate) struct Replacement<'a> {
    dir: &'a DataDir,
    waiting: PathBuf,
    files: Vec<String>,
    is_decided: bool,
}

impl<'a> Replacement<'a> {
    pub(crate) fn begin(dir: &'a DataDir) -> Result<Self, DirError> {
        let waiting = dir.file(WAITING);
        let made = DirBuilder::new().mode(0o700).create(&waiting);
        made.map_err(|source| DirError::Io { what: "create", path: waiting.clone(), source })?;
        Ok(Self { dir, waiting, files: Vec::new(), is_decided: false })
    }

    /// Adds a file of mode 0600. Returns its path, to fill it otherwise.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> Result<PathBuf, DirError> {
        let path = self.waiting.join(name);
        let written = (|| -> io::Result<()> {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(content)
        })();
        written.map_err(|source| DirError::Io { what: "write", path: path.clone(), source })?;
        self.files.push(name.to_owned());
        Ok(path)
    }

    /// Replaces the files of the directory. Returns the folder with the old ones, if there were any; `aside` is its name.
    pub(crate) fn commit(mut self, aside: &str) -> Result<Option<PathBuf>, DirError> {
        let fault = |path: &Path| {
            let path = path.to_owned();
            |source| DirError::Io { what: "write", path, source }
        };
        for name in &self.files {
            let path = self.waiting.join(name);
            let synced = owned_as(&path, &self.dir.path).and_then(|()| File::open(&path)?.sync_all());
            synced.map_err(fault(&path))?;
        }
        sync(&self.waiting).map_err(fault(&self.waiting))?;
        let lock = self.dir.file(LOCK);
        owned_as(&lock, &self.dir.path).map_err(fault(&lock))?;
        let has_old = !self.dir.old_files(None)?.is_empty();
        if has_old {
            let folder = self.dir.file(aside);
            let made = DirBuilder::new().mode(0o700).create(&folder);
            made.and_then(|()| owned_as(&folder, &self.dir.path)).map_err(fault(&folder))?;
        }
        let aside = has_old.then(|| aside.to_owned());
        let decision = Decision { files: std::mem::take(&mut self.files), aside };
        let text = serde_json::to_string(&decision).expect("it has string keys only");
        if let Err(error) = self.dir.write(DECISION, &text) {
            // If it is there, it may be on the disk or not, and the new files have to stay.
            self.is_decided = DataDir::has_decision(&self.dir.path);
            if let (false, Some(aside)) = (self.is_decided, &decision.aside) {
                let _ = fs::remove_dir(self.dir.file(aside));
            }
            return Err(error);
        }
        self.is_decided = true;
        self.dir.finish_replacement()
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.is_decided {
            let _ = fs::remove_dir_all(&self.waiting);
        }
    }
}

impl DataDir {
    /// Does what is left of a replacement that was decided. Returns the folder with the old files, if there were any.
    pub(crate) fn finish_replacement(&self) -> Result<Option<PathBuf>, DirError> {
        let Some(text) = self.read(DECISION)? else { return Ok(None) };
        let decision: Decision =
            serde_json::from_str(&text).map_err(|error| self.damaged(DECISION, error))?;
        if !self.has_waiting() {
            return Err(self.damaged(DECISION, "the folder restore-new is gone: remove this file to go on"));
        }
        let (waiting, aside) = (self.file(WAITING), decision.aside.as_ref().map(|name| self.file(name)));
        let is_waiting = |name: &str| waiting.join(name).exists();
        let moved = |path: PathBuf| |source| DirError::Unfinished { path, source };
        if let Some(aside) = &aside {
            for name in self.old_files(Some(&decision))? {
                fs::rename(self.file(&name), aside.join(&name)).map_err(moved(self.file(&name)))?;
            }
            sync(aside).and_then(|()| sync(&self.path)).map_err(moved(aside.clone()))?;
        }
        for name in decision.files.iter().filter(|name| is_waiting(name)) {
            fs::rename(waiting.join(name), self.file(name)).map_err(moved(self.file(name)))?;
        }
        sync(&self.path).map_err(moved(self.path.clone()))?;
        let decided = self.file(DECISION);
        fs::remove_file(&decided).and_then(|()| sync(&self.path)).map_err(moved(decided))?;
        // It is empty. What stays is removed by the next who opens the directory.
        let _ = fs::remove_dir(&waiting);
        Ok(aside)
    }

    /// True if a replacement is decided and not finished.
    pub(crate) fn has_decision(path: &Path) -> bool {
        path.join(DECISION).exists()
    }

    /// True if a replacement was begun, and neither decided nor dropped.
    pub(super) fn has_waiting(&self) -> bool {
        self.file(WAITING).exists()
    }

    /// Removes what a replacement that was not decided has left.
    pub(crate) fn drop_waiting(&self) -> Result<(), DirError> {
        let (waiting, draft) = (self.file(WAITING), self.draft(DECISION));
        for (path, removed) in [(&waiting, fs::remove_dir_all(&waiting)), (&draft, fs::remove_file(&draft))] {
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DirError::Io { what: "remove", path: path.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Names of the files that a replacement puts aside: all but the lock, and those that are in place already.
    fn old_files(&self, decision: Option<&Decision>) -> Result<Vec<String>, DirError> {
        let is_new = |name: &str| {
            decision.is_some_and(|decision| {
                decision.files.iter().any(|new| new == name) && !self.file(WAITING).join(name).exists()
            })
        };
        let names = (|| -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_ours = [LOCK, DECISION].contains(&name.as_str());
                if !entry.file_type()?.is_dir() && !is_ours && !is_new(&name) {
                    names.push(name);
                }
            }
            Ok(names)
        })();
        names.map_err(|source| DirError::Io { what: "read", path: self.path.clone(), source })
    }
}

/// Gives a file to the owner of the directory: root restores what another user runs.
fn owned_as(path: &Path, dir: &Path) -> io::Result<()> {
    let (file, dir) = (fs::metadata(path)?, fs::metadata(dir)?);
    if (file.uid(), file.gid()) == (dir.uid(), dir.gid()) {
        return Ok(());
    }
    match chown(path, Some(dir.uid()), Some(dir.gid())) {
        // Only root may. Another user can write there, and read what is his.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
