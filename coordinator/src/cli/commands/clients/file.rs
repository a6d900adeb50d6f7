//! A client's file on its way to disk, and its secrets put in here, where they stay.

use super::{Output, Which, print_qr};
use crate::{api::ClientView, cli::client::ClientError, secret::PrivateKey};
use std::{
    fs::{File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Where a file goes.
pub(super) struct Out {
    file: Option<(PathBuf, File)>,
    qr: bool,
}

impl Out {
    /// Opens the file, if one is named; what is in it stays until there is something to write.
    pub(super) fn open(output: &Output) -> Result<Self, ClientError> {
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok((path.clone(), file))
        };
        let file = output.out.as_ref().map(|path| open(path).map_err(|source| unwritable(path, source)));
        Ok(Self { file: file.transpose()?, qr: output.qr })
    }

    /// To the file, if one was named; to stdout as a QR code if that was asked for, else as it is without a file.
    pub(super) fn write(self, config: &str) -> Result<(), ClientError> {
        let (to_stdout, qr) = (self.file.is_none(), self.qr);
        self.write_only(config)?;
        if qr {
            print_qr(config)?;
        } else if to_stdout {
            std::io::stdout().lock().write_all(config.as_bytes())?;
        }
        Ok(())
    }

    /// To the file, if one was named.
    pub(super) fn write_only(self, config: &str) -> Result<(), ClientError> {
        let Some((path, mut file)) = self.file else { return Ok(()) };
        let written = file.set_len(0).and_then(|()| file.write_all(config.as_bytes()));
        written.map_err(|source| unwritable(&path, source))?;
        eprintln!("written to {}", path.display());
        Ok(())
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> ClientError {
    ClientError::Unwritable { path: path.into(), source }
}

/// That there is nothing to scan without a private key.
pub(super) fn key_is_needed(which: &Which) -> ClientError {
    ClientError::NoKey { network: which.network.clone(), client: which.client.clone() }
}

/// A file with the secrets of `path` in place of the comments: a private key alone, or an older file of the client.
pub(super) fn with_secrets(
    config: &str,
    client: &ClientView,
    path: &Path,
) -> Result<Zeroizing<String>, ClientError> {
    let bad = |why| ClientError::BadKey { path: path.into(), why };
    let source = |source| ClientError::File { path: path.into(), source };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(source)?);
    let private = value(&text, "PrivateKey").unwrap_or_else(|| text.trim());
    let key: PrivateKey = private.parse().map_err(|_| bad("there is no private key in it".to_owned()))?;
    if key.public() != client.key {
        return Err(bad(format!("the private key in it is not that of client {}", client.name)));
    }
    let psk = value(&text, "PresharedKey");
    if client.psk && psk.is_none() {
        return Err(bad("its preshared key is missing: name the file that the client was issued".to_owned()));
    }
    let mut filled = Zeroizing::new(String::with_capacity(config.len() + 256));
    for line in config.lines() {
        match (line.split_whitespace().nth(1), psk) {
            (Some("PrivateKey"), _) if line.starts_with('#') => {
                filled.push_str(&format_line("PrivateKey", private))
            }
            (Some("PresharedKey"), Some(psk)) if line.starts_with('#') => {
                filled.push_str(&format_line("PresharedKey", psk));
            }
            _ => filled.push_str(line),
        }
        filled.push('\n');
    }
    Ok(filled)
}

fn format_line(name: &str, value: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{name} = {value}"))
}

/// What a file says of a key, as `wg-quick` reads it.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim())
}
