//! Ingress nodes and external clients, as the API speaks of them.

pub use crate::registry::{ClientPatch, ClientWish, IngressWish, ReissueWish};

use crate::{
    desk::State,
    registry::{Client, ClientState, Node, Tunnel},
};
use gatewrt_protocol::{ClientId, ClientName, NetworkName, NodeName, Prefix, Tag, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};
use zeroize::Zeroizing;

/// A node that lets external clients in, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IngressView {
    /// Which node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its clients' addresses come from these; none where it lets no clients in.
    #[schema(value_type = Vec<String>)]
    pub blocks: Vec<Prefix>,
    /// How many clients' files name it.
    pub clients: usize,
    /// Whether clients can reach it, as far as known.
    pub reachable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A client's place on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SeatView {
    /// The node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// The client's addresses when it comes in there.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// What a client's gateway reported of it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientLive {
    /// Whether its last handshake is fresh.
    pub online: bool,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes the gateway received from it.
    pub rx: u64,
    /// Bytes the gateway sent to it.
    pub tx: u64,
}

/// An external client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: ClientId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: ClientName,
    /// What people call it: any text.
    pub label: String,
    /// Its network.
    #[schema(value_type = String)]
    pub network: NetworkName,
    /// WireGuard public key.
    #[schema(value_type = String)]
    pub key: WgPublicKey,
    /// The node that its file names.
    #[schema(value_type = String)]
    pub gateway: NodeName,
    /// The nodes that it can come in at.
    pub gateways: Vec<SeatView>,
    /// Its overlay addresses where it comes in.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// What rules may speak of it by.
    #[schema(value_type = BTreeSet<String>)]
    pub tags: BTreeSet<Tag>,
    /// DNS servers; none are the network's.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// What goes through the tunnel.
    pub tunnel: Tunnel,
    /// What a split tunnel takes beside the network's own prefixes; none is all that the network serves.
    #[schema(value_type = BTreeSet<String>)]
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind it.
    #[schema(value_type = BTreeSet<String>)]
    pub prefixes: BTreeSet<Prefix>,
    /// Whether an admin lets it in.
    pub enabled: bool,
    /// Whether others may open connections to it.
    pub reachable: bool,
    /// Whether it has a preshared key.
    pub psk: bool,
    /// From when on it is not let in, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Whether it is let in, and why not.
    pub state: ClientState,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it got the file that it has, in seconds since 1970.
    pub issued: u64,
    /// What has changed since, in words; nothing where its file is fresh.
    pub stale: Vec<String>,
    /// What its gateway says of it; nothing where it never came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<ClientLive>,
}

/// A client with the file it needs. Has no `Debug`: the file holds the private key.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientIssued {
    /// The client.
    pub client: ClientView,
    /// Its file, as `wg-quick` and the WireGuard apps read it. The private key is in here and nowhere else.
    #[schema(value_type = String)]
    pub config: Zeroizing<String>,
    /// The same as a picture (SVG) that the apps scan; nothing where it is too long for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub qr: Option<Zeroizing<String>>,
    /// What will surprise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A client's file as it would be issued now, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientConfig {
    /// A comment stands where a secret belongs.
    #[schema(value_type = String)]
    pub config: Zeroizing<String>,
    /// What has changed since the file that the client has was issued.
    pub stale: Vec<String>,
}

/// Seconds after which a handshake is not fresh any more: WireGuard's REJECT_AFTER_TIME.
const FRESH: u64 = 180;

impl IngressView {
    /// The view of a live node that may let clients in.
    pub fn of(state: &State, node: &Node) -> Self {
        let endpoint = state.registry.client_endpoint(node);
        let unreachable = || {
            let error = state.registry.unreachable(node);
            format!("{error}: {}", error.advice())
        };
        Self {
            node: node.name.clone(),
            why: endpoint.is_none().then(unreachable),
            reachable: endpoint.is_some(),
            endpoint,
            blocks: node.ingress.as_ref().map_or_else(Vec::new, |ingress| ingress.blocks.clone()),
            clients: state.registry.clients_at(node).count(),
        }
    }
}

impl ClientView {
    /// The view of a client at a time, in seconds since 1970.
    pub fn of(state: &State, client: &Client, at: u64) -> Self {
        let registry = &state.registry;
        let network = registry.network(client.net).expect("a client's network exists");
        let name = |node| registry.name_of(node).expect("a node stays known").clone();
        let seat = |(node, addresses): (&_, &Vec<IpAddr>)| SeatView {
            node: name(*node),
            addresses: addresses.clone(),
        };
        Self {
            id: client.id,
            name: client.name.clone(),
            label: client.label.clone(),
            network: network.name.clone(),
            key: client.key,
            gateway: name(client.gateway),
            gateways: client.seats.iter().map(seat).collect(),
            addresses: client.addresses().to_vec(),
            tags: client.tags.clone(),
            dns: client.dns.clone(),
            tunnel: client.tunnel,
            routes: client.routes.clone(),
            prefixes: client.prefixes.clone(),
            enabled: client.enabled,
            reachable: client.reachable,
            psk: client.psk.is_some(),
            expires: client.expires,
            state: registry.client_state(client, at),
            created: client.created,
            issued: client.issued,
            stale: registry.stale(client),
            live: live(state, client, at),
        }
    }
}

/// From the last report of its gateway that lists it.
fn live(state: &State, client: &Client, at: u64) -> Option<ClientLive> {
    let is_let_in = state.registry.client_state(client, at) == ClientState::Enabled;
    let (said, seen) = state.live.now(client.gateway)?.client(client.key)?;
    let handshake_s = seen.handshake_s.map(|age| age.saturating_add(at.saturating_sub(*said)));
    Some(ClientLive {
        online: is_let_in && handshake_s.is_some_and(|age| age < FRESH),
        endpoint: seen.endpoint,
        handshake_s,
        rx: seen.rx,
        tx: seen.tx,
    })
}
