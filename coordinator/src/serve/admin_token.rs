//! File `admin.token`: its text becomes a token of the API at the start. Whoever may write to the directory and restart the
//! coordinator owns it anyway.

use super::ServeError;
use crate::{
    controller::Controller,
    data_dir::{DataDir, DirError},
    pki::{ADMIN_TOKEN, TRUSTED, random},
};
use data_encoding::BASE64URL_NOPAD;
use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

/// Least length of an admin token, in bytes: a shorter one could be guessed.
const SHORTEST: usize = 32;

/// Makes the text of the file valid, and the file where it was lost. A revoked token stays revoked, also without its file.
pub(super) async fn adopt(dir: &DataDir, controller: &mut Controller) -> Result<(), ServeError> {
    let text = match read(dir)? {
        Some(text) => text,
        None if controller.has_no_admin_token() => {
            tracing::warn!(
                "the admin token was revoked: “gatewrt-coordinator token reset-admin” makes a new one"
            );
            return Ok(());
        }
        None => write_new(dir)?,
    };
    let is_valid = controller.adopt_admin_token(&text).await.map_err(ServeError::Reconcile)?;
    if !is_valid {
        tracing::warn!(
            "the token in {} was revoked and stays so: “gatewrt-coordinator token reset-admin” makes a new one",
            dir.file(ADMIN_TOKEN).display()
        );
    }
    Ok(())
}

/// Writes a new admin token to the directory of a coordinator that does not run. It is valid from the next start on.
/// Returns the path of its file, which belongs to the user who has the keys: the coordinator may run as another than root.
pub fn reset(data: &Path) -> Result<PathBuf, DirError> {
    let dir = DataDir::of_coordinator(data, &TRUSTED)?;
    write_new(&dir)?;
    let path = dir.file(ADMIN_TOKEN);
    let keys = fs::metadata(dir.file(TRUSTED[0]));
    let given = keys.and_then(|keys| chown(&path, Some(keys.uid()), Some(keys.gid())));
    given.map_err(|source| DirError::Io { what: "change the owner of", path: path.clone(), source })?;
    Ok(path)
}

fn read(dir: &DataDir) -> Result<Option<String>, DirError> {
    let text = dir.read(ADMIN_TOKEN)?.map(|text| text.trim().to_owned());
    Ok(text.filter(|text| text.len() >= SHORTEST))
}

fn write_new(dir: &DataDir) -> Result<String, DirError> {
    let text = BASE64URL_NOPAD.encode(&random::<32>());
    dir.write(ADMIN_TOKEN, &format!("{text}\n"))?;
    Ok(text)
}
