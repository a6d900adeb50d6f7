//! Arguments of `backup` and `restore`.

use clap::Args;
use std::path::PathBuf;

const BACKUP: &str = "\
The backup has the keys, the CA, the admin token and the database, as they are when it begins. Whoever
can read it can be this coordinator: encrypt what leaves the machine. The coordinator may run or not.

Examples:
  gatewrt-coordinator backup /var/backups/gatewrt.backup
  gatewrt-coordinator backup /mnt/usb/gatewrt.backup --force           # replaces the last one
  gatewrt-coordinator backup gatewrt.backup --recipient age1…          # only its secret key reads it
  gatewrt-coordinator backup - --recipient age1… | ssh nas 'cat > gatewrt.backup'

\"age-keygen -o key.txt\" makes a key and prints the recipient. Keep key.txt elsewhere.";

#[derive(Debug, Args)]
#[command(after_help = BACKUP)]
pub(in crate::cli) struct BackupArgs {
    /// File to write, with mode 0600; - for stdout
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Encrypt to this recipient of age, its public key; can be repeated: each can decrypt
    #[arg(long = "recipient", value_name = "AGE1…")]
    pub recipients: Vec<String>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

const RESTORE: &str = "\
The backup is verified first. A directory that is not empty is refused without --force; with it, its files
are kept there in a folder before-restore-TIME. Interrupted at any moment, the directory has its old files
or those of the backup, or the next start says what to do.

Examples:
  gatewrt-coordinator restore gatewrt.backup --dry-run                 # what does it hold, is it whole?
  gatewrt-coordinator restore gatewrt.backup
  gatewrt-coordinator restore gatewrt.backup --identity key.txt --data ./gw
  ssh nas cat gatewrt.backup | gatewrt-coordinator restore - --identity key.txt --force";

#[derive(Debug, Args)]
#[command(after_help = RESTORE)]
pub(in crate::cli) struct RestoreArgs {
    /// File to read; - for stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File with the secret key of age for an encrypted backup; can be repeated
    #[arg(long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,
    /// Restore into a directory that is not empty
    #[arg(long)]
    pub force: bool,
    /// Only verify the backup and say what it holds
    #[arg(long)]
    pub dry_run: bool,
}
