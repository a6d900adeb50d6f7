//! External clients: phones and laptops that an ingress node lets in. A deleted one stays, so that its keys and
//! addresses are never taken again.

mod change;
mod check;
mod error;
#[cfg(test)]
mod tests;
mod wish;

pub(super) use check::label as check_label;
pub use error::ClientError;
pub use wish::{ClientPatch, ClientWish, ReissueWish};

use super::{ClientFile, Node, Registry, RegistryError};
use gatewrt_protocol::{
    ClientId, ClientName, NetworkId, NodeId, NodeName, Prefix, PresharedKey, Tag, WgPublicKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Which of its traffic a client sends through the tunnel.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tunnel {
    /// What is for the network and for prefixes that it serves.
    #[default]
    Split,
    /// Everything: its Internet traffic goes out at the gateway.
    Full,
}

/// Whether a client is let in, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientState {
    /// It is let in.
    Enabled,
    /// An admin switched it off.
    Disabled,
    /// Its time is over.
    Expired,
    /// The node that its file names is gone, or lets no clients in any more.
    NoGateway,
}

/// An external client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Never changes.
    pub id: ClientId,
    /// Its network.
    pub net: NetworkId,
    /// Unique among the network's clients.
    pub name: ClientName,
    /// What people call it: any text.
    #[serde(default)]
    pub label: String,
    /// What rules may speak of it by.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Keys that it had: dead for good.
    #[serde(default)]
    pub past_keys: BTreeSet<WgPublicKey>,
    /// Preshared key.
    #[serde(default)]
    pub psk: Option<PresharedKey>,
    /// The node that its file names and that lets it in.
    pub gateway: NodeId,
    /// Its addresses on each node that it can be moved to, `gateway` among them; a seat is never taken back.
    pub seats: BTreeMap<NodeId, Vec<IpAddr>>,
    /// DNS servers; none are the network's.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// What goes through the tunnel.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// Prefixes that a split tunnel takes beside the network's own; none is all that the network serves.
    #[serde(default)]
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind it, which the network may reach.
    #[serde(default)]
    pub prefixes: BTreeSet<Prefix>,
    /// Whether an admin lets it in.
    pub enabled: bool,
    /// Whether others may open connections to it.
    #[serde(default)]
    pub reachable: bool,
    /// From when on it is not let in, in seconds since 1970.
    #[serde(default)]
    pub expires: Option<u64>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it got the file that it has, in seconds since 1970.
    pub issued: u64,
    /// What that file says.
    pub file: ClientFile,
    /// When it was deleted, in seconds since 1970.
    #[serde(default)]
    pub deleted: Option<u64>,
}

/// The keys that a new or reissued client is to have, made outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKeys {
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Used where a preshared key is wanted.
    pub psk: PresharedKey,
}

impl Client {
    /// Whether it was not deleted.
    pub fn is_live(&self) -> bool {
        self.deleted.is_none()
    }

    /// Its overlay addresses now: those of its seat on the gateway, IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        self.seats.get(&self.gateway).map_or(&[], Vec::as_slice)
    }

    /// Whether `key` is or was its key.
    pub fn had_key(&self, key: WgPublicKey) -> bool {
        self.key == key || self.past_keys.contains(&key)
    }
}

impl Registry {
    /// A client by its id, also a deleted one.
    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(&id)
    }

    /// All clients there ever were, in order of their ids.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// The clients of a network, without deleted ones.
    pub fn live_clients(&self, net: NetworkId) -> impl Iterator<Item = &Client> {
        self.clients.values().filter(move |client| client.net == net && client.is_live())
    }

    /// The clients whose files name `node`, without deleted ones.
    pub fn clients_at(&self, node: &Node) -> impl Iterator<Item = &Client> {
        let id = node.id;
        self.live_clients(node.net).filter(move |client| client.gateway == id)
    }

    /// A client of a network by its name or the text of its id.
    pub fn find_client(&self, net: &str, text: &str) -> Result<&Client, RegistryError> {
        let network = self.find_network(net)?;
        let id = text.parse::<ClientId>().ok();
        let by_id = self.live_clients(network.id).find(|client| Some(client.id) == id);
        let by_name = || self.live_clients(network.id).find(|client| client.name.as_str() == text);
        let missing = || ClientError::NoSuchClient {
            text: text.to_owned(),
            network: network.name.clone(),
            known: self.live_clients(network.id).map(|client| client.name.clone()).collect(),
        };
        Ok(by_id.or_else(by_name).ok_or_else(missing)?)
    }

    /// Whether a client is let in at `now`.
    pub fn client_state(&self, client: &Client, now: u64) -> ClientState {
        let gateway = self.live_node(client.gateway).filter(|node| node.ingress.is_some());
        if !client.enabled {
            ClientState::Disabled
        } else if client.expires.is_some_and(|expires| expires <= now) {
            ClientState::Expired
        } else if gateway.is_none() {
            ClientState::NoGateway
        } else {
            ClientState::Enabled
        }
    }

    /// The clients that `node` lets in at `now`.
    pub fn admitted(&self, node: &Node, now: u64) -> impl Iterator<Item = &Client> {
        let admitted = move |client: &&Client| self.client_state(client, now) == ClientState::Enabled;
        self.clients_at(node).filter(admitted)
    }

    /// Clients whose time is over from a moment in `after`, exclusive, to `until`.
    pub fn expiring(&self, after: u64, until: u64) -> impl Iterator<Item = &Client> {
        let expires = move |client: &&Client| client.expires.is_some_and(|at| after < at && at <= until);
        self.clients().filter(|client| client.is_live()).filter(expires)
    }

    /// A node's name, also of a removed one.
    pub fn name_of(&self, node: NodeId) -> Option<&NodeName> {
        self.node(node).map(|node| &node.name)
    }
}
