//! Small files on the run-time disk from which a restarted daemon continues, readable by root alone.

use super::KernelError;
use crate::atomic_file;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::Path,
};

/// Loads the value in a record file; `None` when there is none, or none that can be read.
pub fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        bytes => bytes,
    };
    let parsed = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
    parsed.inspect_err(|error| log::warn!("{} is unreadable and is begun anew: {error}", path.display())).ok()
}

/// Saves a value in a record file, as JSON.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), KernelError> {
    let text = serde_json::to_vec(value).map_err(io::Error::from);
    let outcome = text.and_then(|text| atomic_file::write(path, &mut |file| file.write_all(&text)));
    outcome.map_err(|error| KernelError::Refused(format!("write {}: {error}", path.display())))
}

/// Removes a record file. Idempotent.
pub fn forget(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn saved_value_is_loaded() {
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
