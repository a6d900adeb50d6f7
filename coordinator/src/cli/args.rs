//! What can be typed.

mod clients;
mod exits;
mod rules;
mod tokens;

pub(super) use clients::{Add, Client, Ingress, KeyFile, Output, Set, TunnelArg, Which};
pub(super) use exits::{Exit, ExitClient, SetScope};
pub(super) use rules::{Check, Group, OneRule, Rule, Tag, Tagged, VerdictArg};
pub(super) use tokens::{RightsArg, Token};

use crate::{http::GivenCert, serve::ServeConfig};
use clap::{Args, Parser, Subcommand, ValueEnum};
use gatewrt_protocol::{NetworkName, NodeName, Prefix, Role};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where keys and database are when nothing else is said.
pub const DEFAULT_DATA: &str = "/var/lib/gatewrt";

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
  gatewrt-coordinator check home phone 192.168.10.5 --service tcp/443
  gatewrt-coordinator status home
  gatewrt-coordinator watch

From another machine, with the files ca.crt and admin.token of the coordinator's directory:
  gatewrt-coordinator --url https://gw.example.org:8443 --ca-file ca.crt --token-file admin.token status

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the coordinator can't be reached,
4 the answer of \"check\" is no.";

/// Joins sites of OpenWrt routers into WireGuard networks: the coordinator and its commands.
#[derive(Debug, Parser)]
#[command(name = "gatewrt-coordinator", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// How commands reach the coordinator.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// The coordinator's directory: keys and database; commands on the same machine find all they need there
    #[arg(long, global = true, value_name = "DIR", env = "GATEWRT_DATA", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// The coordinator's address, for commands from another machine
    #[arg(long, global = true, value_name = "URL", env = "GATEWRT_URL")]
    pub url: Option<String>,
    /// A file with the admin token; default: admin.token in --data
    #[arg(long, global = true, value_name = "FILE", env = "GATEWRT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with the coordinator's CA certificate; default: ca.crt in --data
    #[arg(long, global = true, value_name = "FILE", env = "GATEWRT_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the coordinator
    Serve(Serve),
    /// Networks: create, list, show, set, delete
    #[command(subcommand)]
    Network(Network),
    /// Join codes: create, list, revoke
    #[command(subcommand)]
    Code(Code),
    /// Nodes: list, show, rename, remove, retry, set-confirm
    #[command(subcommand)]
    Node(Node),
    /// Prefixes behind nodes: set, unset, list
    #[command(subcommand)]
    Egress(Egress),
    /// Nodes that let phones and laptops in: set, unset, list
    #[command(subcommand)]
    Ingress(Ingress),
    /// Nodes that take others' Internet traffic: set, unset, list
    #[command(subcommand)]
    Exit(Exit),
    /// Internet traffic of nodes that goes through exits: set, unset, list
    #[command(subcommand)]
    ExitClient(ExitClient),
    /// Phones and laptops: add, list, show, switch on and off, reissue, delete
    #[command(subcommand)]
    Client(Client),
    /// Access rules: add, list, show, enable, disable, delete
    #[command(subcommand)]
    Rule(Rule),
    /// Groups that rules name: set, list, delete
    #[command(subcommand)]
    Group(Group),
    /// Tags of nodes and clients, which rules name: add, remove, list
    #[command(subcommand)]
    Tag(Tag),
    /// Whether X may reach Y, and why
    Check(Check),
    /// Tokens of the API: create, list, revoke
    #[command(subcommand)]
    Token(Token),
    /// Who changed what, newest first
    Audit {
        /// Only this network
        network: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        last: u32,
    },
    /// Print what a shell needs to complete commands
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// Of which shell
        shell: clap_complete::Shell,
    },
    /// How everything is now: who is online, what each node reported last
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
    /// Where to listen for the API and for joining routers; [::] is every address, IPv4 too
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8443")]
    https: SocketAddr,
    /// Where to listen for MQTT
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8883")]
    mqtt: SocketAddr,
    /// A certificate for browsers (PEM, with its chain), such as Let's Encrypt's; routers go on with the coordinator's own
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM); both files are read again when they change
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where to listen with that certificate
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:443", requires = "cert")]
    cert_https: SocketAddr,
    /// How routers reach this machine, best first; can be given more than once. Default: the addresses listened on
    #[arg(long, value_name = "HOST_OR_IP")]
    advertise: Vec<String>,
}

impl Serve {
    pub(super) fn config(self, data: PathBuf) -> ServeConfig {
        let files = self.cert.zip(self.key);
        let given = files.map(|(cert, key)| (GivenCert { cert, key }, self.cert_https));
        ServeConfig { data, https: self.https, mqtt: self.mqtt, advertise: self.advertise, given }
    }
}

const NETWORK_SET_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator network set home --access deny   # only what a rule allows
  gatewrt-coordinator network set home --dns 192.168.10.1,fd00:10::1
  gatewrt-coordinator network set home --dns none";

#[derive(Debug, Subcommand)]
pub(super) enum Network {
    /// Make a network
    Create {
        /// 1 to 12 characters of a-z, 0-9 and "-": on routers the interface is gw-NAME
        name: NetworkName,
        /// Overlay addresses, IPv4 [default: a free 10.x.0.0/16]
        #[arg(long, value_name = "PREFIX")]
        prefix4: Option<Prefix>,
        /// Overlay addresses, IPv6 [default: a random fdxx::/64]
        #[arg(long, value_name = "PREFIX")]
        prefix6: Option<Prefix>,
        /// MTU of the WireGuard interfaces, 1280 to 1420 [default: 1420]
        #[arg(long)]
        mtu: Option<u16>,
        /// Seconds between keepalive packets, 0 for none [default: 25]
        #[arg(long)]
        keepalive: Option<u16>,
    },
    /// All networks
    List,
    /// One network
    Show {
        /// Name or id
        network: String,
    },
    /// Change a network
    #[command(after_help = NETWORK_SET_EXAMPLES)]
    Set {
        /// Name or id
        network: String,
        /// What becomes of new connections that no rule fits
        #[arg(long, value_enum, required_unless_present = "dns")]
        access: Option<VerdictArg>,
        /// Resolvers that external clients are told of, or "none"; can be given more than once
        #[arg(long, value_name = "IP", value_delimiter = ',')]
        dns: Vec<String>,
    },
    /// Delete a network
    Delete {
        /// Name or id
        network: String,
        /// Also when it has nodes, which are removed
        #[arg(long)]
        force: bool,
    },
}

const CODE_EXAMPLES: &str = "\
The code alone goes to stdout, so that a script can use it:
  code=$(gatewrt-coordinator code create home --uses 3 --expires 2h)";

#[derive(Debug, Subcommand)]
pub(super) enum Code {
    /// Make a join code and print it
    #[command(after_help = CODE_EXAMPLES)]
    Create {
        /// Name or id of the network
        network: String,
        /// How many routers may join with it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// For how long, such as 30m, 24h, 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        expires: Duration,
        /// What those that join may do for others [default: everything]
        #[arg(long, value_delimiter = ',')]
        roles: Vec<RoleArg>,
    },
    /// The codes of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// Take a code back; routers that joined with it stay
    Revoke {
        /// Name or id of the network
        network: String,
        /// As in "code list"
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
  gatewrt-coordinator node show home cabin              # what was taken back, and why
  gatewrt-coordinator node retry home cabin";

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// The nodes of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// One node
    Show {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
    },
    /// Give a node another name
    Rename {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// 1 to 63 characters of a-z, 0-9 and "-"
        name: NodeName,
    },
    /// Remove a node for ever: it is cut off everywhere within seconds
    Remove {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Also when clients come in there or traffic of others goes out there: it stays cut off until that is changed
        #[arg(long)]
        force: bool,
    },
    /// Have a node try again a change that it took back
    Retry {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
    },
    /// Say how long a node waits for its control link after a change before it takes it back
    #[command(after_help = CONFIRM_EXAMPLES)]
    SetConfirm {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// 5 to 3600; a new node waits 60
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
pub(super) enum Egress {
    /// Let the network reach a prefix behind a node
    #[command(after_help = EGRESS_EXAMPLES)]
    Set {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Such as 192.168.10.0/24
        prefix: Prefix,
        /// on: hosts behind the node see the node's address; off: they see the true source, and can open connections
        /// to the network
        #[arg(long, value_enum, default_value = "on")]
        nat: OnOff,
        /// Where several nodes serve it, the least goes first; of equals the nearest that works
        #[arg(long, default_value_t = 0)]
        metric: u32,
    },
    /// Take a prefix back
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// As it was set
        prefix: Prefix,
    },
    /// All prefixes behind nodes of a network
    List {
        /// Name or id of the network
        network: String,
    },
}
