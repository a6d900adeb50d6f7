//! Arguments of all commands.

mod backup;
mod clients;
mod exits;
mod recovery;
mod rules;
mod tokens;
mod wait;

pub(super) use backup::{BackupArgs, RestoreArgs};
pub(super) use clients::{
    AddClient, ClientCommand, ConfigOutput, IngressCommand, KeyFile, OneClient, SetClient, TunnelArg,
};
pub(super) use exits::{ExitClientCommand, ExitCommand, SetScope};
pub(super) use recovery::RecoveryCommand;
pub(super) use rules::{CheckCommand, GroupCommand, OneRule, RuleCommand, TagCommand, Tagged, VerdictArg};
pub(super) use tokens::{RightsArg, TokenCommand};
pub(super) use wait::Wait;

use crate::{data_dir::DEFAULT_DATA, http::CustomCertificate, serve::ServeConfig};
use clap::{Args, Parser, Subcommand, ValueEnum};
use gatewrt_protocol::{NetworkName, NodeName, Prefix, Role};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

const EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator serve --advertise gw.example.org
  gatewrt-coordinator network create home
  gatewrt-coordinator code create home                 # then on a router: gatewrt join CODE
  gatewrt-coordinator egress set home office 192.168.10.0/24 --nat off
  gatewrt-coordinator ingress set home office
  gatewrt-coordinator client add home phone --gateway office --qr
  gatewrt-coordinator exit set home office
  gatewrt-coordinator exit-client set home cabin guests --of dev:br-guest --exit office
  gatewrt-coordinator rule add home deny --from tag:guests --to site:office
  gatewrt-coordinator node remove home cabin --wait 60  # until all routers obey
  gatewrt-coordinator check home phone 192.168.10.5 --service tcp/443
  gatewrt-coordinator status home
  gatewrt-coordinator watch

From another machine, with the files ca.crt and admin.token of the coordinator's directory:
  gatewrt-coordinator --url https://gw.example.org:8443 --ca-file ca.crt --token-file admin.token status

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the coordinator can't be reached,
4 the answer of \"check\" is no, 5 with --wait: the change is stored, but not all routers have confirmed it.";

/// Joins sites of OpenWrt routers into WireGuard networks: the coordinator and its commands.
#[derive(Debug, Parser)]
#[command(name = "gatewrt-coordinator", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    pub(super) wait: Wait,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options to reach the coordinator.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// Directory of the coordinator, with keys and database; commands on the same machine need nothing else
    #[arg(long, global = true, value_name = "DIR", env = "GATEWRT_DATA", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// URL of the coordinator, for commands from another machine
    #[arg(long, global = true, value_name = "URL", env = "GATEWRT_URL")]
    pub url: Option<String>,
    /// File with the admin token; default: admin.token in --data
    #[arg(long, global = true, value_name = "FILE", env = "GATEWRT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the coordinator's CA certificate; default: ca.crt in --data
    #[arg(long, global = true, value_name = "FILE", env = "GATEWRT_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the coordinator
    Serve(Serve),
    /// Write keys, settings and tokens to one file, also while the coordinator runs
    Backup(BackupArgs),
    /// Make a coordinator's directory of a backup
    Restore(RestoreArgs),
    /// Networks: create, list, show, set, delete
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Join codes: create, list, revoke
    #[command(subcommand)]
    Code(CodeCommand),
    /// Nodes: list, show, rename, remove, retry, set-confirm
    #[command(subcommand)]
    Node(NodeCommand),
    /// Prefixes behind nodes: set, unset, list
    #[command(subcommand)]
    Egress(EgressCommand),
    /// Nodes that let phones and laptops in: set, unset, list
    #[command(subcommand)]
    Ingress(IngressCommand),
    /// Exits, which forward Internet traffic of other nodes: set, unset, list
    #[command(subcommand)]
    Exit(ExitCommand),
    /// Scopes, the Internet traffic of nodes that goes through exits: set, unset, list
    #[command(subcommand)]
    ExitClient(ExitClientCommand),
    /// Phones and laptops: add, list, show, enable, disable, reissue, delete
    #[command(subcommand)]
    Client(ClientCommand),
    /// Access rules: add, list, show, enable, disable, delete
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Groups of selectors for rules: set, list, delete
    #[command(subcommand)]
    Group(GroupCommand),
    /// Tags of nodes and clients, for rules: add, remove, list
    #[command(subcommand)]
    Tag(TagCommand),
    /// Check if X may reach Y, and explain why
    Check(CheckCommand),
    /// Tokens of the API: create, list, revoke, reset-admin
    #[command(subcommand)]
    Token(TokenCommand),
    /// After a backup was restored: show what was found, adopt or cut off who is not known any more
    #[command(subcommand)]
    Recovery(RecoveryCommand),
    /// Show the audit log, newest entries first
    Audit {
        /// Only this network
        network: Option<String>,
        /// Number of entries
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        last: u32,
    },
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
    /// Show the state of all nodes: who is online, what each reported last
    Status {
        /// Only this network
        network: Option<String>,
    },
    /// Print records and reports as they change, one line each, until Ctrl-C
    Watch {
        /// Only this network
        network: Option<String>,
    },
}

const COMPLETIONS: &str = "\
Examples:
  gatewrt-coordinator completions bash > /etc/bash_completion.d/gatewrt-coordinator
  gatewrt-coordinator completions fish > ~/.config/fish/completions/gatewrt-coordinator.fish";

const SERVE_EXAMPLES: &str = "\
The first start makes keys, a CA and a database in --data. Nothing else has to be installed.

Examples:
  gatewrt-coordinator serve --advertise gw.example.org
  gatewrt-coordinator serve --data ./gw --https 127.0.0.1:8443 --mqtt 127.0.0.1:8883
  gatewrt-coordinator serve --advertise gw.example.org --cert fullchain.pem --key privkey.pem";

#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(super) struct Serve {
    /// Listen address of the API, also for joining routers; [::] is every address, IPv4 too
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8443")]
    https: SocketAddr,
    /// Listen address of MQTT
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8883")]
    mqtt: SocketAddr,
    /// Custom certificate for browsers (PEM, with its chain), such as one of Let's Encrypt; routers use the
    /// coordinator's own
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM); both files are read again when they change
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Listen address for the custom certificate
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:443", requires = "cert")]
    cert_https: SocketAddr,
    /// Name or address of this machine for routers, best first; can be repeated [default: the listen
    /// addresses]
    #[arg(long, value_name = "HOST_OR_IP")]
    advertise: Vec<String>,
}

impl Serve {
    pub(super) fn config(self, data: PathBuf) -> ServeConfig {
        let files = self.cert.zip(self.key);
        let custom_certificate = files.map(|(cert, key)| (CustomCertificate { cert, key }, self.cert_https));
        ServeConfig {
            data,
            https: self.https,
            mqtt: self.mqtt,
            advertise: self.advertise,
            custom_certificate,
        }
    }
}

const NETWORK_SET_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator network set home --access deny   # only what a rule allows
  gatewrt-coordinator network set home --dns 192.168.10.1,fd00:10::1
  gatewrt-coordinator network set home --dns none";

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Create a network
    Create {
        /// 1 to 12 characters of a-z, 0-9 and "-": on routers the interface is gw-NAME
        name: NetworkName,
        /// IPv4 prefix of overlay addresses [default: a free 10.x.0.0/16]
        #[arg(long, value_name = "PREFIX")]
        prefix4: Option<Prefix>,
        /// IPv6 prefix of overlay addresses [default: a random fdxx::/64]
        #[arg(long, value_name = "PREFIX")]
        prefix6: Option<Prefix>,
        /// MTU of the WireGuard interfaces, 1280 to 1420 [default: 1420]
        #[arg(long)]
        mtu: Option<u16>,
        /// Seconds between keepalive packets, 0 for none [default: 25]
        #[arg(long)]
        keepalive: Option<u16>,
    },
    /// List all networks
    List,
    /// Show one network
    Show {
        /// Name or id
        network: String,
    },
    /// Change a network
    #[command(after_help = NETWORK_SET_EXAMPLES)]
    Set {
        /// Name or id
        network: String,
        /// Default verdict on new connections that match no rule
        #[arg(long, value_enum, required_unless_present = "dns")]
        access: Option<VerdictArg>,
        /// Resolvers for external clients, or "none"; can be repeated
        #[arg(long, value_name = "IP", value_delimiter = ',')]
        dns: Vec<String>,
    },
    /// Delete a network
    Delete {
        /// Name or id
        network: String,
        /// Delete it even if it has nodes: they are removed
        #[arg(long)]
        force: bool,
    },
}

const CODE_EXAMPLES: &str = "\
The code alone goes to stdout, so that a script can use it:
  code=$(gatewrt-coordinator code create home --uses 3 --expires 2h)";

#[derive(Debug, Subcommand)]
pub(super) enum CodeCommand {
    /// Create a join code and print it
    #[command(after_help = CODE_EXAMPLES)]
    Create {
        /// Name or id of the network
        network: String,
        /// Number of routers that may join with it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Time until it expires, such as 30m, 24h, 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        expires: Duration,
        /// Roles of nodes that join with it [default: all]
        #[arg(long, value_delimiter = ',')]
        roles: Vec<RoleArg>,
    },
    /// List the codes of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// Revoke a code; routers that have joined with it stay
    Revoke {
        /// Name or id of the network
        network: String,
        /// Id as in "code list"
        code: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleArg {
    Egress,
    Ingress,
    Exit,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Egress => Self::Egress,
            RoleArg::Ingress => Self::Ingress,
            RoleArg::Exit => Self::Exit,
        }
    }
}

const CONFIRM_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator node set-confirm home cabin 120   # a slow uplink
  gatewrt-coordinator node show home cabin              # what was rolled back, and why
  gatewrt-coordinator node retry home cabin";

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List the nodes of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// Show one node
    Show {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
    },
    /// Rename a node
    Rename {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// 1 to 63 characters of a-z, 0-9 and "-"
        name: NodeName,
    },
    /// Remove a node permanently: it is cut off everywhere within seconds
    Remove {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Remove it even if clients or scopes use it: they are cut off until they get another gateway or
        /// exit
        #[arg(long)]
        force: bool,
    },
    /// Ask a node to retry a change that it rolled back
    Retry {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
    },
    /// Set how long a node waits for its control link after a change, before it rolls the change back
    #[command(after_help = CONFIRM_EXAMPLES)]
    SetConfirm {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Seconds, 5 to 3600; a new node waits 60
        #[arg(value_parser = clap::value_parser!(u16).range(5..=3600))]
        seconds: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOff {
    On,
    Off,
}

const EGRESS_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator egress set home office 192.168.10.0/24
  gatewrt-coordinator egress set home office fd00:10::/64 --nat off
  gatewrt-coordinator egress set home spare 192.168.10.0/24 --metric 10     # stands in while office is down";

#[derive(Debug, Subcommand)]
pub(super) enum EgressCommand {
    /// Let the network reach a prefix behind a node
    #[command(after_help = EGRESS_EXAMPLES)]
    Set {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Prefix such as 192.168.10.0/24
        prefix: Prefix,
        /// on: hosts behind the node see the node's address; off: they see the true source, and can open
        /// connections to the network
        #[arg(long, value_enum, default_value = "on")]
        nat: OnOff,
        /// If several nodes serve the prefix, the lowest metric is preferred, and among equals the nearest
        /// that works
        #[arg(long, default_value_t = 0)]
        metric: u32,
    },
    /// Stop serving a prefix
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Prefix as it was set
        prefix: Prefix,
    },
    /// List all prefixes behind nodes of a network
    List {
        /// Name or id of the network
        network: String,
    },
}
