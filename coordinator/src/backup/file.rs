//! Files of a backup: written as a whole or not at all, readable only by their owner; and files with identities.

use super::BackupError;
use crate::pki;
use age::x25519;
use data_encoding::HEXLOWER;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file by `write`, with mode 0600 from the beginning. It appears under its name when it is whole and on disk.
/// An existing file is replaced only with `force`. Returns its size in bytes.
pub fn write_file(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<u64, BackupError> {
    check_target(path, force)?;
    let fault = |source| BackupError::Io { what: "write", path: path.into(), source };
    if path.file_name().is_none() {
        return Err(BackupError::NotAFile { path: path.into() });
    }
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let draft = format!(".gatewrt-backup-{}", HEXLOWER.encode(&pki::random::<8>()));
    let draft = folder.join(draft);
    let written = (|| -> io::Result<u64> {
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        let mut buffered = BufWriter::new(&file);
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.sync_all()?;
        Ok(file.metadata()?.len())
    })();
    let placed = written.and_then(|size| {
        place(&draft, path, force)?;
        File::open(folder)?.sync_all()?;
        Ok(size)
    });
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    placed.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists { path: path.into() },
        _ => fault(error),
    })
}

/// Refuses a path that must not be replaced.
fn check_target(path: &Path, force: bool) -> Result<(), BackupError> {
    match fs::metadata(path) {
        Ok(about) if !about.is_file() => Err(BackupError::NotAFile { path: path.into() }),
        Ok(_) if !force => Err(BackupError::Exists { path: path.into() }),
        _ => Ok(()),
    }
}

/// Gives the draft its name. Without `force` a link does that, which never replaces what appeared meanwhile.
fn place(draft: &Path, path: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(draft, path);
    }
    match fs::hard_link(draft, path) {
        Ok(()) => fs::remove_file(draft),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems such as FAT have no links.
        Err(_) if fs::symlink_metadata(path).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(draft, path),
    }
}

/// Opens the file of a backup; `-` is stdin.
pub fn open_source(path: &Path) -> Result<Box<dyn BufRead>, BackupError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let fault = |source| BackupError::Io { what: "read", path: path.into(), source };
    let file = File::open(path).map_err(fault)?;
    if file.metadata().map_err(fault)?.is_dir() {
        return Err(fault(io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(BufReader::new(file)))
}

/// Reads identities of age, one a line, as `age-keygen` writes them.
pub fn read_identities(path: &Path) -> Result<Vec<x25519::Identity>, BackupError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| BackupError::Io { what: "read", path: path.into(), source })?;
    let bad = |why: String| BackupError::BadIdentity { path: path.into(), why };
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let identity =
        |(at, line): (usize, &str)| line.parse().map_err(|why| bad(format!("line {}: {why}", at + 1)));
    let identities: Vec<_> = lines.map(identity).collect::<Result<_, _>>()?;
    if identities.is_empty() { Err(bad("it is empty".to_owned())) } else { Ok(identities) }
}
