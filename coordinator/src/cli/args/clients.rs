//! Arguments of `ingress` and `client`.

use super::OnOff;
use clap::{Args, Subcommand};
use gatewrt_protocol::{ClientName, NodeName, Prefix, Tag, WgPublicKey};
use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

const INGRESS_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator ingress set home office
  gatewrt-coordinator ingress set home office --endpoint vpn.example.org:51820
  gatewrt-coordinator ingress list home";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum IngressCommand {
    /// Let phones and laptops in at a node
    #[command(after_help = INGRESS_EXAMPLES)]
    Set {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Endpoint for clients [default: a public address of the node]
        #[arg(long, value_name = "HOST:PORT")]
        endpoint: Option<String>,
        /// IPv4 block for clients [default: a free /24 of the network]
        #[arg(long, value_name = "PREFIX")]
        block4: Option<Prefix>,
        /// IPv6 block for clients [default: a free /112 of the network]
        #[arg(long, value_name = "PREFIX")]
        block6: Option<Prefix>,
    },
    /// Stop letting clients in at a node
    Unset {
        /// Name or id of the network
        network: String,
        /// Name or id of the node
        node: String,
        /// Stop even if clients' files name it: they stay, cut off, until they are reissued elsewhere
        #[arg(long)]
        force: bool,
    },
    /// List the nodes that let clients in, and those that may
    List {
        /// Name or id of the network
        network: String,
    },
}

const ADD_EXAMPLES: &str = "\
The file alone goes to stdout. The private key in it is shown only this once and kept nowhere.

Examples:
  gatewrt-coordinator client add home phone --gateway office --qr
  gatewrt-coordinator client add home laptop --gateway office --full --dns 10.80.0.1 > laptop.conf
  gatewrt-coordinator client add home guest --gateway office --expires 7d --tag guests --out guest.conf
  gatewrt-coordinator client add home van --gateway office --prefix 192.168.77.0/24 --reachable
  gatewrt-coordinator client add home server --gateway office --key \"$(wg pubkey < private.key)\"";

const QR_EXAMPLES: &str = "\
The private key stays here: it is put into the file by this command and never sent.

Examples:
  gatewrt-coordinator client qr home phone --private-key-file private.key
  gatewrt-coordinator client config home laptop --private-key-file old-laptop.conf --out laptop.conf --mark";

const SET_EXAMPLES: &str = "\
Examples:
  gatewrt-coordinator client set home phone --expires 2027-01-31
  gatewrt-coordinator client set home phone --expires never --tag family,phones
  gatewrt-coordinator client set home laptop --tunnel split --route 192.168.10.0/24";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClientCommand {
    /// Create a client for a phone or laptop, with its key and file
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<AddClient>),
    /// List the clients of a network
    List {
        /// Name or id of the network
        network: String,
    },
    /// Show one client
    Show(OneClient),
    /// Print the file that a client would be issued now
    #[command(after_help = QR_EXAMPLES)]
    Config {
        #[command(flatten)]
        which: OneClient,
        #[command(flatten)]
        key: KeyFile,
        /// Write to this file, readable by you alone, instead of stdout
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the file as a QR code, for a client whose private key you have
    #[command(after_help = QR_EXAMPLES)]
    Qr {
        #[command(flatten)]
        which: OneClient,
        #[command(flatten)]
        key: KeyFile,
    },
    /// Let a client in again
    Enable(OneClient),
    /// Cut a client off until it is enabled again
    Disable(OneClient),
    /// Set if others can open connections to a client, or only answer it
    Reachable {
        #[command(flatten)]
        which: OneClient,
        /// on or off
        on: OnOff,
    },
    /// Rename a client
    Rename {
        #[command(flatten)]
        which: OneClient,
        /// 1 to 63 characters of a-z, 0-9 and "-"
        name: ClientName,
    },
    /// Change a client: label, tags, expiry, DNS, tunnel, prefixes
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetClient>),
    /// Delete a client permanently: its key is refused from now on
    Delete(OneClient),
    /// Issue a new key and file, and another gateway if one is named; the old key is never accepted again
    Reissue {
        #[command(flatten)]
        which: OneClient,
        /// New gateway [default: the current one]
        #[arg(long, value_name = "NODE")]
        gateway: Option<NodeName>,
        /// New public key [default: a new pair]
        #[arg(long, value_name = "KEY")]
        key: Option<WgPublicKey>,
        /// Generate a preshared key [default: if it had one]
        #[arg(long, value_enum)]
        psk: Option<OnOff>,
        #[command(flatten)]
        output: ConfigOutput,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OneClient {
    /// Name or id of the network
    pub network: String,
    /// Name or id of the client
    pub client: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeyFile {
    /// File with the client's private key, or an older file of the client; it is not sent
    #[arg(long, value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
    /// Record that the client has this file now, so that it is not stale any more
    #[arg(long)]
    pub mark: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigOutput {
    /// Print a QR code instead of the file; needs a terminal
    #[arg(long)]
    pub qr: bool,
    /// Write to this file, readable by you alone, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AddClient {
    /// Name or id of the network
    pub network: String,
    /// 1 to 63 characters of a-z, 0-9 and "-"
    pub name: ClientName,
    /// Gateway; with several, the file names the first, and reissuing moves it
    #[arg(long, value_name = "NODE", required = true, value_delimiter = ',')]
    pub gateway: Vec<NodeName>,
    /// Any text up to 64 characters
    #[arg(long, default_value = "")]
    pub label: String,
    /// Tags for rules; can be repeated
    #[arg(long, value_delimiter = ',')]
    pub tag: Vec<Tag>,
    /// Public key [default: a new pair]
    #[arg(long, value_name = "KEY")]
    pub key: Option<WgPublicKey>,
    /// Addresses from the gateway's blocks [default: the next free ones]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub address: Vec<IpAddr>,
    /// Generate a preshared key too
    #[arg(long)]
    pub psk: bool,
    /// DNS servers [default: the network's]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub dns: Vec<IpAddr>,
    /// Send all its traffic through the tunnel: Internet traffic goes out at the gateway
    #[arg(long, conflicts_with = "route")]
    pub full: bool,
    /// Prefixes for the tunnel besides the network itself [default: all that the network serves]
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub route: Vec<Prefix>,
    /// Prefix behind it, which the network may reach
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub prefix: Vec<Prefix>,
    /// Let others open connections to it
    #[arg(long)]
    pub reachable: bool,
    /// Time span or date of expiry, such as 30d or 2027-01-31 [default: never]
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    pub expires: Option<Expiry>,
    #[command(flatten)]
    pub output: ConfigOutput,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetClient {
    #[command(flatten)]
    pub which: OneClient,
    /// Any text up to 64 characters
    #[arg(long)]
    pub label: Option<String>,
    /// Tags for rules, in place of those it has; '' for none
    #[arg(long, value_name = "TAG,…")]
    pub tag: Option<CommaList<Tag>>,
    /// Time span or date of expiry, such as 30d or 2027-01-31, or "never"
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    pub expires: Option<Expiry>,
    /// DNS servers; '' for the network's
    #[arg(long, value_name = "IP,…")]
    pub dns: Option<CommaList<IpAddr>>,
    /// Traffic that goes through the tunnel
    #[arg(long, value_enum)]
    pub tunnel: Option<TunnelArg>,
    /// Prefixes of a split tunnel besides the network itself; '' for all that it serves
    #[arg(long, value_name = "PREFIX,…")]
    pub route: Option<CommaList<Prefix>>,
    /// Prefixes behind it, in place of those it has; '' for none
    #[arg(long, value_name = "PREFIX,…")]
    pub prefix: Option<CommaList<Prefix>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum TunnelArg {
    /// Traffic for the network
    Split,
    /// All traffic
    Full,
}

/// Items separated by commas; an empty text is an empty list.
#[derive(Debug, Clone)]
pub(in crate::cli) struct CommaList<T>(pub Vec<T>);

impl<T: std::str::FromStr> std::str::FromStr for CommaList<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Expiry time, in seconds since 1970; `None` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Expiry(pub Option<u64>);

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    let date = if text.contains([' ', 'T']) { text.to_owned() } else { format!("{text}T00:00:00") };
    let after = || humantime::parse_duration(text).ok().and_then(|span| now().checked_add(span));
    let at = || {
        let at = humantime::parse_rfc3339_weak(&date).ok()?;
        at.duration_since(SystemTime::UNIX_EPOCH).ok()
    };
    let wrong =
        || "write a time span such as 12h or 30d, a date such as 2027-01-31 (UTC), or never".to_owned();
    after().or_else(at).map(|at| Expiry(Some(at.as_secs()))).ok_or_else(wrong)
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_parsed_from_a_span_or_a_date() {
        assert_eq!(expiry("never"), Ok(Expiry(None)));
        assert_eq!(expiry("2027-01-31"), Ok(Expiry(Some(1_801_353_600))));
        assert_eq!(expiry("2027-01-31T12:00:00Z"), Ok(Expiry(Some(1_801_396_800))));
        let Ok(Expiry(Some(soon))) = expiry("1h") else { panic!("a span") };
        assert!((3590..=3610).contains(&(soon - now().as_secs())));
        for text in ["", "soon", "31.1.2027", "-1h"] {
            assert!(expiry(text).is_err(), "{text}");
        }
    }

    #[test]
    fn empty_text_is_an_empty_list() {
        let list = |text: &str| text.parse::<CommaList<Tag>>().map(|list| list.0.len());
        assert_eq!((list(""), list("a"), list("a, b")), (Ok(0), Ok(1), Ok(2)));
        assert!(list("A").is_err());
    }
}
