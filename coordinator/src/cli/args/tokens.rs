//! Arguments of `token`.

use clap::{Subcommand, ValueEnum};
use std::time::Duration;

const EXAMPLES: &str = "\
The token alone goes to stdout, so that a script can keep it:
  gatewrt-coordinator token create ci --rights read --expires 30d > ci.token
  gatewrt-coordinator --token-file ci.token status";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Create a token and print it
    #[command(after_help = EXAMPLES)]
    Create {
        /// Name, also for the audit log
        name: String,
        /// Rights of the token
        #[arg(long, value_enum)]
        rights: RightsArg,
        /// Name or id of its only network [default: all]
        #[arg(long)]
        network: Option<String>,
        /// Time until it expires, such as 30m, 24h, 7d [default: it never expires]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// List all tokens, without their texts
    List,
    /// Revoke a token at once; admin.token too
    Revoke {
        /// Name or id as in "token list"
        token: String,
    },
    /// Make a new admin.token in --data, for root on the coordinator's machine; the one before becomes invalid
    #[command(after_help = RESET_EXAMPLES)]
    ResetAdmin,
}

const RESET_EXAMPLES: &str = "\
The coordinator must not run meanwhile:
  systemctl stop gatewrt-coordinator
  gatewrt-coordinator token reset-admin
  systemctl start gatewrt-coordinator";

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum RightsArg {
    /// Right to read
    Read,
    /// Right to read and to change
    Admin,
}
