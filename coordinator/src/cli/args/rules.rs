//! What can be typed about who may reach what.

use clap::{Args, Subcommand, ValueEnum};
use gatewrt_protocol::{Service, Tag as TagName, Verdict};

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
pub enum Rule {
    /// Make a rule
    #[command(after_help = format!("{SELECTORS}\n\n{RULE_EXAMPLES}"))]
    Add {
        /// Name or id of the network
        network: String,
        /// What becomes of new connections that it fits
        #[arg(value_enum)]
        verdict: VerdictArg,
        /// Who opens the connection; can be given more than once
        #[arg(long, value_name = "SELECTOR", required = true)]
        from: Vec<String>,
        /// What it is opened to; can be given more than once
        #[arg(long, value_name = "SELECTOR", required = true)]
        to: Vec<String>,
        /// Such as tcp/443, udp/5000-5010, tcp, icmp; can be given more than once [default: everything]
        #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
        service: Vec<Service>,
        /// What you want to remember of it
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
        /// Not to count yet
        #[arg(long)]
        disabled: bool,
    },
    /// The rules of a network, oldest first
    List {
        /// Name or id of the network
        network: String,
    },
    /// One rule
    Show(OneRule),
    /// Have a rule count
    Enable(OneRule),
    /// Have a rule count no more, and keep it
    Disable(OneRule),
    /// Delete a rule
    Delete(OneRule),
}

#[derive(Debug, Args)]
pub struct OneRule {
    /// Name or id of the network
    pub network: String,
    /// Its id as in "rule list", or the beginning of it
    pub rule: String,
}

#[derive(Debug, Subcommand)]
#[command(after_help = GROUP_EXAMPLES)]
pub enum Group {
    /// Make a group, or say anew what is in it
    #[command(after_help = format!("{SELECTORS}\n\n{GROUP_EXAMPLES}"))]
    Set {
        /// Name or id of the network
        network: String,
        /// 1 to 63 characters of a-z, 0-9 and "-"
        group: String,
        /// Selectors: all that is in it
        #[arg(value_name = "SELECTOR")]
        members: Vec<String>,
    },
    /// The groups of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// Delete a group that no rule and no group names
    Delete {
        /// Name or id of the network
        network: String,
        /// Its name
        group: String,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = TAG_EXAMPLES)]
pub enum Tag {
    /// Mark a node or a client
    Add(Tagged),
    /// Take marks off a node or a client
    Remove(Tagged),
    /// Which tags there are, and on what
    List {
        /// Name or id of the network
        network: String,
    },
}

#[derive(Debug, Args)]
pub struct Tagged {
    /// Name or id of the network
    pub network: String,
    /// A node or a client by its name; where both are called so, node:NAME or client:NAME
    pub what: String,
    /// 1 to 32 characters of a-z, 0-9 and "-"
    #[arg(value_name = "TAG", required = true)]
    pub tags: Vec<TagName>,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{SELECTORS}\n\n{CHECK_EXAMPLES}"))]
pub struct Check {
    /// Name or id of the network
    pub network: String,
    /// Who opens the connection: a node, a client, a group, an address or another selector
    pub from: String,
    /// What it is opened to, alike
    pub to: String,
    /// Such as tcp/443 [default: everything]
    #[arg(long)]
    pub service: Option<Service>,
}
