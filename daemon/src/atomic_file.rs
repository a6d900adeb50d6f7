//! Atomic writes: a file is replaced whole or stays as it was, even if the power goes or the disk fills up.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Replaces the file `path` (0600) through a temporary file beside it; missing folders are made (0700). When it fails,
/// the old file is as it was and no temporary file is left.
pub fn write(path: &Path, fill: &mut dyn FnMut(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = temporary(path)?;
    let done = fill_and_rename(path, &temporary, fill);
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done?;
    sync_dir(dir)
}

/// Syncs the folder `dir` to disk, so that renames and removals in it outlast a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn fill_and_rename(
    path: &Path,
    temporary: &Path,
    fill: &mut dyn FnMut(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    // A temporary file that a power cut left behind may have another mode.
    let _ = fs::remove_file(temporary);
    let mut file =
        BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?);
    fill(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(temporary, path)
}

fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{name}.tmp")))
}
