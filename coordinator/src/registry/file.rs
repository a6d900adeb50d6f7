//! Content of a client's file, without its secrets. It is stored when it is issued, and compared with the
//! current settings to tell if it is stale.

use super::{Client, Network, Registry, Tunnel};
use gatewrt_protocol::{NetworkId, Prefix, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Content of a client's WireGuard file, without its secrets. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFile {
    /// Overlay addresses of the client.
    pub addresses: Vec<IpAddr>,
    /// DNS servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// MTU in bytes.
    pub mtu: u16,
    /// Public key of the gateway.
    pub gateway: WgPublicKey,
    /// Endpoint of the gateway, as `host:port`; empty if unknown.
    pub endpoint: String,
    /// Traffic that the client sends through the tunnel.
    pub allowed: BTreeSet<Prefix>,
    /// Keepalive interval in seconds; 0 for none.
    #[serde(default)]
    pub keepalive: u16,
}

impl ClientFile {
    /// Placeholder for the file of a new client, until it is made.
    pub(super) fn placeholder() -> Self {
        Self {
            addresses: Vec::new(),
            dns: Vec::new(),
            mtu: 0,
            gateway: WgPublicKey([0; 32]),
            endpoint: String::new(),
            allowed: BTreeSet::new(),
            keepalive: 0,
        }
    }
}

impl Registry {
    /// Content of the file that a client would be issued now.
    pub fn client_file(&self, client: &Client) -> Option<ClientFile> {
        let network = self.network(client.net)?;
        let gateway = self.node(client.gateway)?;
        Some(ClientFile {
            addresses: client.addresses().to_vec(),
            dns: if client.dns.is_empty() { network.dns.clone() } else { client.dns.clone() },
            mtu: network.mtu,
            gateway: gateway.key,
            endpoint: self.client_endpoint(gateway).unwrap_or_default(),
            allowed: self.allowed(network, client),
            keepalive: network.keepalive,
        })
    }

    /// Changes of a client's file since it was issued, in words.
    pub fn stale(&self, client: &Client) -> Vec<String> {
        self.client_file(client).map_or_else(Vec::new, |now| drift(&client.file, &now))
    }

    fn allowed(&self, network: &Network, client: &Client) -> BTreeSet<Prefix> {
        match client.tunnel {
            Tunnel::Full => every_address(),
            Tunnel::Split if client.routes.is_empty() => {
                merged(network.prefixes().into_iter().chain(self.served(client)))
            }
            Tunnel::Split => merged(network.prefixes().into_iter().chain(client.routes.iter().copied())),
        }
    }

    /// Prefixes that the network serves to a client: all but those behind the client itself.
    fn served(&self, client: &Client) -> impl Iterator<Item = Prefix> {
        self.all_served(client.net).filter(|prefix| !client.prefixes.contains(prefix))
    }

    /// Prefixes behind the nodes and clients of a network.
    pub(super) fn all_served(&self, net: NetworkId) -> impl Iterator<Item = Prefix> {
        let sites = self.live_nodes(net).flat_map(|node| node.egress.keys().copied());
        sites.chain(self.live_clients(net).flat_map(|client| client.prefixes.iter().copied()))
    }
}

/// Prefixes of a full tunnel: both default routes.
fn every_address() -> BTreeSet<Prefix> {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        .map(|addr| Prefix::new(addr, 0).expect("no host bits are set"))
        .into()
}

/// Prefixes without those that another one covers.
fn merged(prefixes: impl Iterator<Item = Prefix>) -> BTreeSet<Prefix> {
    let mut last: Option<Prefix> = None;
    let all: BTreeSet<Prefix> = prefixes.collect();
    // The order is such that the last prefix kept is the only one that can cover the next.
    let mut is_new = |prefix: &Prefix| {
        let new = last.is_none_or(|last| !last.covers(prefix));
        last = last.filter(|_| !new).or(Some(*prefix));
        new
    };
    all.into_iter().filter(|prefix| is_new(prefix)).collect()
}

/// Differences between the file that a client has and the one that it would be issued now, in words. An endpoint that
/// is unknown now is no difference.
pub(super) fn drift(then: &ClientFile, now: &ClientFile) -> Vec<String> {
    let full = |file: &ClientFile| file.allowed.iter().any(Prefix::is_default);
    let mut words = Vec::new();
    match (full(then), full(now)) {
        (false, true) => words.push("the tunnel is a full one now: the file sends only some prefixes".into()),
        (true, false) => words.push("the tunnel is a split one now: the file sends everything".into()),
        _ => words.extend(prefix_drift(then, now)),
    }
    if then.gateway != now.gateway {
        words.push("the gateway has another key now: the file does not work any more".into());
    }
    if then.endpoint != now.endpoint && !now.endpoint.is_empty() {
        words.push(format!(
            "the gateway is reached at {} now: the file names {}",
            now.endpoint, then.endpoint
        ));
    }
    if then.addresses != now.addresses {
        words.push(format!("its addresses are {} now", list(&now.addresses)));
    }
    if then.dns != now.dns {
        words.push(format!("its DNS servers are {} now: the file names {}", list(&now.dns), list(&then.dns)));
    }
    if then.mtu != now.mtu {
        words.push(format!("the MTU is {} now: the file says {}", now.mtu, then.mtu));
    }
    if then.keepalive != now.keepalive {
        words.push(format!("keepalive is {} s now: the file says {} s", now.keepalive, then.keepalive));
    }
    words
}

fn prefix_drift(then: &ClientFile, now: &ClientFile) -> impl Iterator<Item = String> {
    let new = now.allowed.difference(&then.allowed);
    let new =
        new.map(|prefix| format!("prefix {prefix} is new: the file does not send it through the tunnel"));
    let gone = then.allowed.difference(&now.allowed);
    let gone =
        gone.map(|prefix| format!("prefix {prefix} is gone: the file still sends it through the tunnel"));
    new.chain(gone).collect::<Vec<_>>().into_iter()
}

fn list(addrs: &[IpAddr]) -> String {
    if addrs.is_empty() {
        return "none".into();
    }
    addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
