//! Output of a client's file, with its secrets filled in locally.

use super::{ConfigOutput, OneClient, print_qr};
use crate::{api::ClientView, cli::client::CommandError, secret::PrivateKey};
use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Destination of a client's file: the named file or stdout, as text or as a QR code.
pub(super) struct Out {
    file: Option<(PathBuf, File)>,
    qr: bool,
}

impl Out {
    /// Opens the file, if one is named. Its content stays until there is something to write. A new one is private; one that
    /// is there keeps its mode, and is refused if others could read the keys in it.
    pub(super) fn open(output: &ConfigOutput) -> Result<Self, CommandError> {
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            let about = file.metadata()?;
            if about.is_file() && about.permissions().mode() & 0o077 != 0 {
                let why = format!("it is there and open to others: chmod 600 {}", path.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            Ok((path.clone(), file))
        };
        let file = output.out.as_ref().map(|path| open(path).map_err(|source| unwritable(path, source)));
        Ok(Self { file: file.transpose()?, qr: output.qr })
    }

    /// Writes a client's file where `--out` says, else to stdout. A QR code goes to stdout only where that is a
    /// terminal: without `--out` the file takes its place elsewhere, since its private key is kept nowhere.
    pub(super) fn write(self, client: &ClientView, config: &str) -> Result<(), CommandError> {
        let file = self.file.as_ref().map(|(path, _)| path.clone());
        let wants_qr = self.qr;
        self.write_only(config)?;
        let mut stdout = std::io::stdout().lock();
        if wants_qr && stdout.is_terminal() {
            return print_qr(config, stdout);
        }
        if wants_qr {
            eprintln!("{}", no_qr(client, file.as_deref()));
        }
        if file.is_none() {
            stdout.write_all(config.as_bytes())?;
        }
        Ok(())
    }

    /// Writes to the file, if one is named.
    pub(super) fn write_only(self, config: &str) -> Result<(), CommandError> {
        let Some((path, mut file)) = self.file else { return Ok(()) };
        let written = file.set_len(0).and_then(|()| file.write_all(config.as_bytes()));
        written.map_err(|source| unwritable(&path, source))?;
        eprintln!("written to {}", path.display());
        Ok(())
    }
}

fn no_qr(client: &ClientView, file: Option<&Path>) -> String {
    let instead = if file.is_some() { "" } else { ", so this is the file and no QR code" };
    let file = file.unwrap_or(Path::new("FILE"));
    format!(
        "stdout is not a terminal{instead}; to show the code in one: gatewrt-coordinator client qr {} {} --private-key-file {}",
        client.network,
        client.name,
        file.display()
    )
}

fn unwritable(path: &Path, source: std::io::Error) -> CommandError {
    CommandError::Unwritable { path: path.into(), source }
}

/// Error for a QR code without a private key.
pub(super) fn key_is_needed(which: &OneClient) -> CommandError {
    CommandError::NoKey { network: which.network.clone(), client: which.client.clone() }
}

/// Client's file with the secrets of `path` in place of the comments. `path` has a private key alone, or is an
/// older file of the client.
pub(super) fn with_secrets(
    config: &str,
    client: &ClientView,
    path: &Path,
) -> Result<Zeroizing<String>, CommandError> {
    let bad = |why| CommandError::BadKey { path: path.into(), why };
    let source = |source| CommandError::File { path: path.into(), source };
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

/// Value of a key in a file, as `wg-quick` reads it.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim())
}
