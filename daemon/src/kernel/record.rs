//! Small files on the run-time disk that a restarted daemon goes on from: written whole or not at all, readable
//! by root alone.

use super::KernelError;
use crate::log::warn;
use gatewrt_protocol::json::{self, FromJson};
use serde::Serialize;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// What was saved; nothing when there is none, or none that can be read.
pub fn load<T: FromJson>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        bytes => bytes,
    };
    let parsed = bytes.and_then(|bytes| json::read(&bytes).map_err(io::Error::from));
    parsed.inspect_err(|error| warn!("{} is unreadable and is begun anew: {error}", path.display())).ok()
}

/// Saves.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), KernelError> {
    let text = json::write(value).map_err(io::Error::from);
    let outcome = text.and_then(|text| write(path, text.as_bytes()));
    outcome.map_err(|error| KernelError::Refused(format!("write {}: {error}", path.display())))
}

/// Removes what was saved.
pub fn forget(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        warn!("remove {}: {error}", path.display());
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path)).inspect_err(
        |_| {
            let _ = fs::remove_file(&new);
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/numbers");
        assert_eq!(load::<Vec<u8>>(&path), None);
        save(&path, &[1, 2]).expect("saved");
        save(&path, &[3]).expect("saved");
        assert_eq!(load::<Vec<u8>>(&path), Some(vec![3]));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("run")).expect("there").count(), 1);
        fs::write(&path, "{").expect("written");
        assert_eq!(load::<Vec<u8>>(&path), None);
        forget(&path);
        forget(&path);
    }
}
