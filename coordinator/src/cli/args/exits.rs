//! Arguments of `exit` and `exit-client`.

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
pub(in crate::cli) enum ExitCommand {
    /// Make a node an exit: let others send their Internet traffic through it
    #[command(after_help = EXIT_EXAMPLES)]
    Set {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Resolvers to ask through it, in order; can be repeated [default: those of its uplink]
        #[arg(long, value_name = "IP", value_delimiter = ',')]
        dns: Vec<IpAddr>,
        /// IPv6 only
        #[arg(long, conflicts_with = "no_ipv6")]
        no_ipv4: bool,
        /// IPv4 only
        #[arg(long)]
        no_ipv6: bool,
    },
    /// Stop a node from being an exit
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Stop even if scopes use it: their traffic is dropped, or goes out over the WAN where the kill
        /// switch is off
        #[arg(long)]
        force: bool,
    },
    /// List the exits of a network and the nodes that may be one: what each offers, and the scopes that use
    /// it
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

The kill switch is on: while no exit works, the traffic is dropped. A router that loses its coordinator after the
change rolls it back; see \"node set-confirm\" and \"node retry\".

Examples:
  gatewrt-coordinator exit-client set home cabin guests --of dev:br-guest --exit office
  gatewrt-coordinator exit-client set home cabin tv --of 192.168.7.9 --exit berlin --exit paris --auto
  gatewrt-coordinator exit-client set home cabin everything --of all --auto --exclude 203.0.113.0/24
  gatewrt-coordinator exit-client set home cabin work --of 192.168.8.0/24 --exit office --no-kill-switch --ipv6 wan";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ExitClientCommand {
    /// Send Internet traffic of a node through an exit
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetScope>),
    /// Delete a scope: its traffic goes out over the WAN again
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Name of the scope as in "exit-client list"
        scope: Tag,
    },
    /// List scopes and their current state
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
    /// Name of the scope: 1 to 32 characters of a-z, 0-9 and "-"
    pub scope: Tag,
    /// Traffic of the scope; can be repeated
    #[arg(long, value_name = "TRAFFIC", value_delimiter = ',', required = true)]
    pub of: Vec<Traffic>,
    /// Exit; can be repeated: the first that works is used
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub exit: Vec<NodeName>,
    /// Use any other exit after those: the nearest that works [default: if no --exit is given]
    #[arg(long)]
    pub auto: bool,
    /// While no exit works, let the traffic go out over the WAN
    #[arg(long)]
    pub no_kill_switch: bool,
    /// Let the traffic reach no LAN and nothing of the network
    #[arg(long)]
    pub forbid_lan: bool,
    /// Handling of IPv6 while the exit in use has IPv4 only
    #[arg(long, value_enum, default_value = "block")]
    pub ipv6: Ipv6Arg,
    /// Destinations that are reached directly, without the exit; can be repeated
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub exclude: Vec<Prefix>,
    /// Resolvers to ask through the exit [default: those that the exit in use offers]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub dns: Vec<IpAddr>,
    /// Do not redirect DNS queries
    #[arg(long, conflicts_with = "dns")]
    pub keep_dns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Ipv6Arg {
    /// IPv6 is dropped
    Block,
    /// IPv6 stays on the WAN
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
