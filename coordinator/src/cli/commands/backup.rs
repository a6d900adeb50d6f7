//! Commands `backup` and `restore`. They work on the directory of the coordinator, not through its API.

use super::{
    super::{
        args::{BackupArgs, RestoreArgs},
        client::CommandError,
        output::harmless,
    },
    CommandResult, line, print, span,
};
use crate::{
    backup::{self, Backup, BackupError, Contents},
    clock::{date, now},
    data_dir::DEFAULT_DATA,
};
use age::x25519;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

/// What was written.
#[derive(Serialize)]
struct Written<'a> {
    /// Path of the file; `-` for stdout.
    file: &'a Path,
    /// Size in bytes; `None` for stdout.
    size: Option<u64>,
    #[serde(flatten)]
    backup: Summary,
    /// Number of recipients to which it is encrypted.
    recipients: usize,
}

/// What a backup holds.
#[derive(Serialize)]
struct Summary {
    made: u64,
    program: String,
    schema: i64,
    ca_sha256: String,
    networks: Vec<String>,
    nodes: usize,
    clients: usize,
    tokens: usize,
    admin_token: bool,
}

/// What was restored, or would be.
#[derive(Serialize)]
struct Report<'a> {
    /// Directory of the coordinator.
    data: &'a Path,
    backup: Summary,
    /// False after a dry run.
    restored: bool,
    /// Folder with the files that were there.
    kept: Option<PathBuf>,
    /// What the admin has to do.
    next: Vec<String>,
}

impl Summary {
    fn of(backup: &Backup, holds: &Contents) -> Self {
        let manifest = &backup.manifest;
        Self {
            made: manifest.made,
            program: manifest.program.clone(),
            schema: manifest.schema,
            ca_sha256: manifest.ca_sha256.clone(),
            networks: holds.networks.iter().map(ToString::to_string).collect(),
            nodes: holds.nodes,
            clients: holds.clients,
            tokens: holds.tokens,
            admin_token: backup.has_admin_token(),
        }
    }
}

pub(in crate::cli) fn backup(data: &Path, args: &BackupArgs, as_json: bool) -> CommandResult {
    let recipients = recipients(&args.recipients)?;
    let to_stdout = args.file == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(CommandError::Usage(
            "a backup is not for a terminal: name a file, or redirect stdout to one".to_owned(),
        ));
    }
    let taken = wait(Backup::take(data, now()))?;
    let size = if to_stdout {
        // A pipe that breaks is an error here: the reader has no whole backup.
        let written = taken.write(&recipients, io::stdout().lock());
        written.map_err(|source| BackupError::Io { what: "write", path: "stdout".into(), source })?;
        None
    } else {
        Some(backup::write_file(&args.file, args.force, |file| taken.write(&recipients, file))?)
    };
    let summary = Summary::of(&taken, &taken.manifest.holds);
    let written = Written { file: &args.file, size, backup: summary, recipients: recipients.len() };
    let said = match written.recipients {
        0 => "not encrypted: whoever can read it can be this coordinator".to_owned(),
        1 => "encrypted to 1 recipient".to_owned(),
        count => format!("encrypted to {count} recipients"),
    };
    let holds = holds_text(&taken, &taken.manifest.holds);
    // stdout has the backup.
    if to_stdout && as_json {
        eprintln!("{}", serde_json::to_string(&written).map_err(io::Error::other)?);
        return Ok(());
    } else if to_stdout {
        eprintln!("wrote the backup to stdout, {said}; {holds}");
        return Ok(());
    }
    print(&written, as_json, |written| {
        let size = written.size.unwrap_or_default();
        line(&format!("wrote {} ({size} bytes, {said})", written.file.display()))?;
        line(&holds)
    })
}

pub(in crate::cli) fn restore(data: &Path, args: &RestoreArgs, as_json: bool) -> CommandResult {
    let mut identities = Vec::new();
    for path in &args.identities {
        identities.extend(backup::read_identities(path)?);
    }
    let backup = Backup::read(backup::open_source(&args.file)?, &identities)?;
    let (holds, kept) = if args.dry_run {
        (wait(backup.verify())?, None)
    } else {
        let restored = wait(backup::restore(&backup, data, args.force, now()))?;
        (restored.holds, restored.kept)
    };
    let report = Report {
        data,
        backup: Summary::of(&backup, &holds),
        restored: !args.dry_run,
        kept,
        next: if args.dry_run { Vec::new() } else { next(data, &backup) },
    };
    print(&report, as_json, |report| {
        let (made, ago) = (report.backup.made, span(now().saturating_sub(report.backup.made)));
        line(&format!(
            "{} the backup of {} ({ago} ago, version {})",
            if report.restored { "restored" } else { "verified" },
            date(made),
            report.backup.program,
        ))?;
        line(&format!("  {}", holds_text(&backup, &holds)))?;
        line(&format!("  CA sha256 {}", report.backup.ca_sha256))?;
        if let Some(kept) = &report.kept {
            line(&format!(
                "  the files that were there are in {}: delete them when all works",
                kept.display()
            ))?;
        }
        for (at, step) in report.next.iter().enumerate() {
            line(&format!("{} {}. {step}", if at == 0 { "next" } else { "    " }, at + 1))?;
        }
        Ok(())
    })
}

fn holds_text(backup: &Backup, holds: &Contents) -> String {
    let token = if backup.has_admin_token() { ", and the admin token" } else { ", and no admin token" };
    format!("it holds {holds}{token}")
}

/// What to do after a restore.
fn next(data: &Path, backup: &Backup) -> Vec<String> {
    let option =
        if data == Path::new(DEFAULT_DATA) { String::new() } else { format!(" --data {}", data.display()) };
    let made = date(backup.manifest.made);
    let token = match backup.has_admin_token() {
        true => "admin.token is the one of the backup; one that was made since is not valid here",
        false => "The backup has no admin token: the start makes a new admin.token",
    };
    vec![
        "Make sure that the coordinator of which this is a backup runs nowhere else: two with the same keys undo each other's changes".to_owned(),
        format!("Start it: gatewrt-coordinator serve{option}, with the options that it had. Routers look for it at the names, addresses and ports that they know"),
        format!("Make again what was changed after {made}: it is not in the backup. Tokens and join codes that were revoked since are valid again until you do; uses of join codes since are not counted. Nodes and clients that were removed or disabled since stay out as soon as a router that knows it has reported"),
        "See what routers tell of the time since: gatewrt-coordinator recovery show. Adopt or cut off whom the backup does not know".to_owned(),
        format!("{token}. Other tokens of the API are valid as they were at {made}"),
    ]
}

/// Reads recipients of age. An error does not repeat them: one may be a secret key.
fn recipients(texts: &[String]) -> Result<Vec<x25519::Recipient>, CommandError> {
    let recipient = |(at, text): (usize, &String)| {
        text.parse().map_err(|_| {
            let which = if texts.len() == 1 { "--recipient".to_owned() } else { format!("--recipient number {}", at + 1) };
            let why = if text.to_uppercase().starts_with("AGE-SECRET-KEY-") {
                "is a secret key: give its public key, as “age-keygen -y” prints it, and keep the secret one elsewhere"
            } else {
                "is no recipient of age: give a public key such as age1…, as age-keygen prints it"
            };
            CommandError::Usage(harmless(&format!("{which} {why}")))
        })
    };
    texts.iter().enumerate().map(recipient).collect()
}

/// Waits for the database.
fn wait<T>(work: impl Future<Output = Result<T, BackupError>>) -> Result<T, BackupError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the kernel gives a new process what it needs").block_on(work)
}
