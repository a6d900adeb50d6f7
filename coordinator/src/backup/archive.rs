//! Format of the file: a tar archive, compressed by gzip, encrypted by age if there are recipients. `tar xzf` and `age -d`
//! read it too. Its first file is the manifest.
//!
//! Reading extracts nothing to the disk and trusts nothing: plain files of known names, each once, of bounded size, with
//! the length and hash that the manifest names, and nothing after the end.

use super::{Backup, BackupError, Contents, SERVER};
use crate::{
    clock,
    http::VERSION,
    pki::{ADMIN_TOKEN, TRUSTED},
};
use age::{DecryptError, Decryptor, Encryptor, x25519};
use data_encoding::HEXLOWER;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Cursor, Read, Write},
};

/// Version of the format. A higher one belongs to a later version of this program.
pub(super) const FORMAT: u32 = 1;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DATABASE: &str = "database.json";
/// Largest size of each file but the database, in bytes.
const SMALL: u64 = 1 << 20;
/// Largest size of the database, in bytes: a hundred times that of a thousand nodes.
const LARGE: u64 = 1 << 30;
/// Beginnings of a file of age and of one of gzip.
const AGE: &[u8] = b"age-encryption.org/";
const GZIP: &[u8] = &[0x1f, 0x8b];

/// First file of a backup: what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// Version of the program.
    pub program: String,
    /// Version of the database's tables.
    pub schema: i64,
    /// Time when the backup began, in seconds since 1970: all that was acknowledged before is in it.
    pub made: u64,
    /// SHA-256 of the CA certificate, in hexadecimal.
    pub ca_sha256: String,
    /// What an admin knows it by.
    pub holds: Contents,
    /// The other files, by name.
    pub files: BTreeMap<String, FileFacts>,
}

/// Length and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

impl FileFacts {
    pub(super) fn of(content: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, content);
        Self { size: content.len() as u64, sha256: HEXLOWER.encode(hash.as_ref()) }
    }
}

impl Manifest {
    pub(super) fn new(made: u64, ca_sha256: String, holds: Contents, schema: i64) -> Self {
        let program = VERSION.to_owned();
        Self { format: FORMAT, program, schema, made, ca_sha256, holds, files: BTreeMap::new() }
    }

    /// Reads the manifest of a backup of this version or an earlier one.
    fn read(content: &[u8]) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            program: String,
        }
        let damaged = |error| BackupError::damaged(format!("{MANIFEST}: {error}"));
        let version: Version = serde_json::from_slice(content).map_err(damaged)?;
        if version.format > FORMAT {
            return Err(BackupError::TooNew { program: version.program });
        }
        let manifest: Self = serde_json::from_slice(content).map_err(damaged)?;
        if manifest.made > clock::LATEST {
            return Err(BackupError::damaged(format!("{MANIFEST}: the time is no time")));
        }
        Ok(manifest)
    }
}

impl Backup {
    /// Writes the backup, encrypted if there are recipients.
    pub fn write(&self, recipients: &[x25519::Recipient], out: impl Write) -> io::Result<()> {
        if recipients.is_empty() {
            return self.write_archive(out)?.flush();
        }
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        self.write_archive(encryptor.wrap_output(out)?)?.finish()?.flush()
    }

    fn write_archive<W: Write>(&self, out: W) -> io::Result<W> {
        let database = serde_json::to_vec(&self.database)?;
        let mut files: BTreeMap<&str, &[u8]> =
            self.files.iter().map(|(&name, text)| (name, text.as_bytes())).collect();
        files.insert(DATABASE, &database);
        let mut manifest = self.manifest.clone();
        manifest.files =
            files.iter().map(|(&name, content)| (name.to_owned(), FileFacts::of(content))).collect();
        let manifest = serde_json::to_vec_pretty(&manifest)?;
        let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        for (name, content) in [(MANIFEST, &manifest[..])].into_iter().chain(files) {
            let mut header = tar::Header::new_ustar();
            header.set_path(name)?;
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(self.manifest.made);
            header.set_cksum();
            archive.append(&header, content)?;
        }
        archive.into_inner()?.finish()
    }

    /// Reads a backup. What it says is checked, not yet if a coordinator can run with it: see [`Backup::verify`].
    pub fn read(mut input: impl BufRead, identities: &[x25519::Identity]) -> Result<Self, BackupError> {
        let mut start = Vec::new();
        let read = input.by_ref().take(AGE.len() as u64).read_to_end(&mut start);
        read.map_err(|error| BackupError::reading(&error))?;
        let (is_encrypted, is_plain) = (start.starts_with(AGE), start.starts_with(GZIP));
        let input = Cursor::new(start).chain(input);
        if is_plain {
            return read_archive(input);
        } else if !is_encrypted {
            return Err(BackupError::NotABackup);
        }
        let decryptor = Decryptor::new_buffered(input).map_err(undecipherable)?;
        if decryptor.is_scrypt() {
            return Err(BackupError::Passphrase);
        } else if identities.is_empty() {
            return Err(BackupError::Encrypted);
        }
        let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
        let content = decryptor.decrypt(identities).map_err(undecipherable)?;
        read_archive(BufReader::new(content))
    }
}

fn undecipherable(error: DecryptError) -> BackupError {
    match error {
        DecryptError::NoMatchingKeys => BackupError::WrongIdentity,
        DecryptError::Io(error) => BackupError::reading(&error),
        error => BackupError::damaged(error),
    }
}

fn read_archive(input: impl BufRead) -> Result<Backup, BackupError> {
    let fault = |error: io::Error| BackupError::reading(&error);
    let mut archive = tar::Archive::new(GzDecoder::new(input));
    let mut manifest: Option<Manifest> = None;
    let mut files = BTreeMap::new();
    // Raw: a long name or a link is an entry of another kind, which is refused, and never read into memory.
    for entry in archive.entries().map_err(fault)?.raw(true) {
        let mut entry = entry.map_err(fault)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let known = [MANIFEST, DATABASE, ADMIN_TOKEN].into_iter().chain(TRUSTED).chain(SERVER);
        let known = known.into_iter().find(|known| *known == name && entry.header().entry_type().is_file());
        let limit = if known == Some(DATABASE) { LARGE } else { SMALL };
        let (Some(name), true) = (known.filter(|name| !files.contains_key(name)), entry.size() <= limit)
        else {
            return Err(BackupError::damaged(
                "a file in it is of another name, kind or size than any of a backup",
            ));
        };
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(fault)?;
        match (&manifest, name) {
            (None, MANIFEST) => manifest = Some(Manifest::read(&content)?),
            (Some(_), MANIFEST) | (None, _) => {
                return Err(BackupError::damaged("its first file is not the only manifest"));
            }
            (Some(_), name) => drop(files.insert(name, content)),
        }
    }
    end(archive.into_inner()).map_err(fault)?;
    let manifest = manifest.ok_or_else(|| BackupError::damaged("it has no manifest"))?;
    unpack(manifest, files)
}

/// Reads to the end, where checksums are, and makes sure that it is the end.
fn end(mut content: GzDecoder<impl BufRead>) -> io::Result<()> {
    let more = || io::Error::other("there is something after its end");
    let mut rest = Vec::new();
    content.by_ref().take(SMALL).read_to_end(&mut rest)?;
    let is_end = rest.iter().all(|byte| *byte == 0) && content.read(&mut [0])? == 0;
    if is_end && content.into_inner().read(&mut [0])? == 0 { Ok(()) } else { Err(more()) }
}

fn unpack(manifest: Manifest, files: BTreeMap<&'static str, Vec<u8>>) -> Result<Backup, BackupError> {
    let names = files.keys().copied().eq(manifest.files.keys().map(String::as_str));
    let differs =
        |(name, content): &(&&str, &Vec<u8>)| manifest.files.get(**name) != Some(&FileFacts::of(content));
    if !names {
        return Err(BackupError::damaged("its files are not those of its manifest"));
    } else if let Some((name, _)) = files.iter().find(differs) {
        return Err(BackupError::damaged(format!("{name} is not what its manifest says")));
    }
    let mut database = None;
    let mut texts = BTreeMap::new();
    for (name, content) in files {
        let damaged = |why: &dyn ToString| BackupError::damaged(format!("{name}: {}", why.to_string()));
        if name == DATABASE {
            database = Some(serde_json::from_slice(&content).map_err(|error| damaged(&error))?);
        } else {
            texts.insert(name, String::from_utf8(content).map_err(|_| damaged(&"it is not a text"))?);
        }
    }
    let database = database.ok_or_else(|| BackupError::damaged("it has no database"))?;
    Ok(Backup { manifest, files: texts, database })
}
