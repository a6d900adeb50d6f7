//! What can be typed about exits and what goes through them.

use crate::api::Ipv6;
use clap::{Args, Subcommand, ValueEnum};
use gatewrt_protocol::{NodeName, Prefix, Tag, Traffic};
use std::net::IpAddr;

const EXIT_EXAMPLES: &str = "\
The router's owner has to allow it too: option allow_exit '1' in /etc/config/gatewrt.

Examples:
  gatewrt-coordinator exit set home office
  gatewrt-coordinator exit set home office --dns 9.9.9.9 --dns 2620:fe::fe
  gatewrt-coordinator exit list home";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Exit {
    /// Let others send their Internet traffic through a node
    #[command(after_help = EXIT_EXAMPLES)]
    Set {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Resolvers to ask through it, in order; can be given more than once [default: those of its uplink]
        #[arg(long, value_name = "IP", value_delimiter = ',')]
        dns: Vec<IpAddr>,
        /// For IPv6 alone
        #[arg(long, conflicts_with = "no_ipv6")]
        no_ipv4: bool,
        /// For IPv4 alone
        #[arg(long)]
        no_ipv6: bool,
    },
    /// Let no one do so any more
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Also when scopes name it: their traffic goes nowhere, or out over the WAN where the kill switch is off
        #[arg(long)]
        force: bool,
    },
    /// The exits of a network and the nodes that may be one: what each offers, and what goes through it
    List {
        /// Name or id of the network
        network: String,
    },
}

const SET_EXAMPLES: &str = "\
What goes through the exit (--of):
  router            what the router sends itself, but for its tunnels and its control link
  all               that, and what it forwards for its LANs
  dev:br-guest      what comes in over an interface: a bridge, a VLAN
  192.168.7.0/24    hosts of a LAN, or one of them

The kill switch is on: while no exit works the traffic goes nowhere. A router that loses its coordinator over the
change takes it back by itself; see \"node set-confirm\" and \"node retry\".

Examples:
  gatewrt-coordinator exit-client set home cabin guests --of dev:br-guest --exit office
  gatewrt-coordinator exit-client set home cabin tv --of 192.168.7.9 --exit berlin --exit paris --auto
  gatewrt-coordinator exit-client set home cabin everything --of all --auto --exclude 203.0.113.0/24
  gatewrt-coordinator exit-client set home cabin work --of 192.168.8.0/24 --exit office --no-kill-switch --ipv6 wan";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ExitClient {
    /// Send Internet traffic of a node through an exit
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetScope>),
    /// Let it go out over the WAN again
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// As in "exit-client list"
        scope: Tag,
    },
    /// What goes through exits, and what becomes of it now
    List {
        /// Name or id of the network
        network: String,
        /// Only this node
        node: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetScope {
    /// Name or id of the network
    pub network: String,
    /// Name or id of the node
    pub node: String,
    /// What to call it: 1 to 32 characters of a-z, 0-9 and "-"
    pub scope: Tag,
    /// Which traffic; can be given more than once
    #[arg(long, value_name = "TRAFFIC", value_delimiter = ',', required = true)]
    pub of: Vec<Traffic>,
    /// Through which node; can be given more than once: the first that works is taken
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub exit: Vec<NodeName>,
    /// Then through any other exit: the nearest that works [default: where no --exit is given]
    #[arg(long)]
    pub auto: bool,
    /// While no exit works, let it go out over the WAN
    #[arg(long)]
    pub no_kill_switch: bool,
    /// Let it reach no LAN and nothing of the network either
    #[arg(long)]
    pub forbid_lan: bool,
    /// What becomes of IPv6 while the exit in use leads to IPv4 alone
    #[arg(long, value_enum, default_value = "block")]
    pub ipv6: Ipv6Arg,
    /// Destinations that are reached as if there were no exit; can be given more than once
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub exclude: Vec<Prefix>,
    /// Resolvers to ask through the exit [default: those that the exit in use offers]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub dns: Vec<IpAddr>,
    /// Let DNS queries go where their hosts send them
    #[arg(long, conflicts_with = "dns")]
    pub keep_dns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Ipv6Arg {
    /// It goes nowhere
    Block,
    /// It stays on the WAN
    Wan,
}

impl From<Ipv6Arg> for Ipv6 {
    fn from(ipv6: Ipv6Arg) -> Self {
        match ipv6 {
            Ipv6Arg::Block => Self::Block,
            Ipv6Arg::Wan => Self::Wan,
        }
    }
}
