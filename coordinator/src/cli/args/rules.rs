//! Arguments of `rule`, `group`, `tag` and `check`.

use clap::{Args, Subcommand, ValueEnum};
use gatewrt_protocol::{Service, Tag, Verdict};

const SELECTORS: &str = "\
Selectors:
  all            everything of the network
  tag:phones     nodes and clients that are marked with it
  node:office    a node's own addresses
  site:office    what a node serves
  client:phone   a client's addresses and what is behind it
  group:cameras  what is in the group
  192.168.10.5   an address or a prefix

A rule that denies wins over one that allows. Where no rule fits, the network's default decides:
  gatewrt-coordinator network set home --access deny";

const RULE_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator rule add home allow --from tag:phones --to 192.168.10.5 --service tcp/443
  gatewrt-coordinator rule add home deny --from site:cabin --to site:office --note 'guests'
  gatewrt-coordinator rule list home
  gatewrt-coordinator rule disable home qe3k            # the beginning of its id is enough";

const GROUP_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator group set home servers node:office 192.168.10.5 192.168.10.7
  gatewrt-coordinator rule add home allow --from tag:phones --to group:servers";

const TAG_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator tag add home phone guests
  gatewrt-coordinator tag remove home node:office guests
  gatewrt-coordinator tag list home";

const CHECK_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator check home phone 192.168.10.5 --service tcp/443
  gatewrt-coordinator check home tag:guests site:office && echo they may

Exit codes: 0 all of X may reach all of Y, 4 it may not, 1 to 3 as for every command.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerdictArg {
    Allow,
    Deny,
}

impl From<VerdictArg> for Verdict {
    fn from(verdict: VerdictArg) -> Self {
        match verdict {
            VerdictArg::Allow => Self::Allow,
            VerdictArg::Deny => Self::Deny,
        }
    }
}

#[derive(Debug, Subcommand)]
#[command(after_help = RULE_EXAMPLES)]
pub enum RuleCommand {
    /// Create a rule
    #[command(after_help = format!("{SELECTORS}\n\n{RULE_EXAMPLES}"))]
    Add {
        /// Name or id of the network
        network: String,
        /// Verdict on new connections that it matches
        #[arg(value_enum)]
        verdict: VerdictArg,
        /// Selector of the side that opens the connection; can be repeated
        #[arg(long, value_name = "SELECTOR", required = true)]
        from: Vec<String>,
        /// Selector of the side that it is opened to; can be repeated
        #[arg(long, value_name = "SELECTOR", required = true)]
        to: Vec<String>,
        /// Service such as tcp/443, udp/5000-5010, tcp, icmp; can be repeated [default: everything]
        #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
        service: Vec<Service>,
        /// Note for yourself
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
        /// Create it disabled
        #[arg(long)]
        disabled: bool,
    },
    /// List the rules of a network, oldest first
    List {
        /// Name or id of the network
        network: String,
    },
    /// Show one rule
    Show(OneRule),
    /// Enable a rule
    Enable(OneRule),
    /// Disable a rule, without deleting it
    Disable(OneRule),
    /// Delete a rule
    Delete(OneRule),
}

#[derive(Debug, Args)]
pub struct OneRule {
    /// Name or id of the network
    pub network: String,
    /// Id as in "rule list", or the beginning of it
    pub rule: String,
}

#[derive(Debug, Subcommand)]
#[command(after_help = GROUP_EXAMPLES)]
pub enum GroupCommand {
    /// Create a group, or replace its members
    #[command(after_help = format!("{SELECTORS}\n\n{GROUP_EXAMPLES}"))]
    Set {
        /// Name or id of the network
        network: String,
        /// 1 to 63 characters of a-z, 0-9 and "-"
        group: String,
        /// Selectors of all its members
        #[arg(value_name = "SELECTOR")]
        members: Vec<String>,
    },
    /// List the groups of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// Delete a group that no rule and no other group uses
    Delete {
        /// Name or id of the network
        network: String,
        /// Name of the group
        group: String,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = TAG_EXAMPLES)]
pub enum TagCommand {
    /// Add tags to a node or a client
    Add(Tagged),
    /// Remove tags from a node or a client
    Remove(Tagged),
    /// List all tags, and what has them
    List {
        /// Name or id of the network
        network: String,
    },
}

#[derive(Debug, Args)]
pub struct Tagged {
    /// Name or id of the network
    pub network: String,
    /// Name of a node or a client; if both have this name, node:NAME or client:NAME
    pub what: String,
    /// 1 to 32 characters of a-z, 0-9 and "-"
    #[arg(value_name = "TAG", required = true)]
    pub tags: Vec<Tag>,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{SELECTORS}\n\n{CHECK_EXAMPLES}"))]
pub struct CheckCommand {
    /// Name or id of the network
    pub network: String,
    /// Side that opens the connection: a node, a client, a group, an address or another selector
    pub from: String,
    /// Side that it is opened to, in the same form
    pub to: String,
    /// Service such as tcp/443 [default: everything]
    #[arg(long)]
    pub service: Option<Service>,
}
