//! What can be typed about tokens.

use clap::{Subcommand, ValueEnum};
use std::time::Duration;

const EXAMPLES: &str = "\
The token alone goes to stdout, so that a script can keep it:
  gatewrt-coordinator token create ci --rights read --expires 30d > ci.token
  gatewrt-coordinator --token-file ci.token status";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Token {
    /// Make a token and print it
    #[command(after_help = EXAMPLES)]
    Create {
        /// To tell it from others, also in the audit log
        name: String,
        /// Whether it may change things
        #[arg(long, value_enum)]
        rights: RightsArg,
        /// Name or id of the only network it is for [default: all]
        #[arg(long)]
        network: Option<String>,
        /// For how long, such as 30m, 24h, 7d [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// All tokens, without their texts
    List,
    /// Take a token back, at once
    Revoke {
        /// Name or id, as in "token list"
        token: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum RightsArg {
    /// To look
    Read,
    /// To look and to change
    Admin,
}
