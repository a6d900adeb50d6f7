//! API values of ingress nodes and external clients.

pub use crate::registry::{ClientPatch, ClientSpec, IngressSpec, ReissueRequest};

use crate::{
    controller::ControllerState,
    registry::{Client, ClientState, Node, Tunnel},
};
use gatewrt_protocol::{ClientId, ClientName, NetworkName, NodeName, Prefix, Tag, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};
use zeroize::Zeroizing;

/// Ingress as the API shows it: a node that lets external clients in, or may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IngressView {
    /// Name of the node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Endpoint for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Blocks of its clients' addresses; empty if it lets no clients in.
    #[schema(value_type = Vec<String>)]
    pub blocks: Vec<Prefix>,
    /// Number of clients whose files name it.
    pub clients: usize,
    /// Set if clients can reach it, as far as known.
    pub reachable: bool,
    /// Reason why clients can't reach the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Overlay addresses of an external client on one node that it can use as its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SeatView {
    /// Name of the node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Addresses of the client if the node is its gateway.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// State of an external client as its gateway reported it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientLive {
    /// Set if its last handshake is recent.
    pub online: bool,
    /// Source address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes that the gateway received from it.
    pub rx: u64,
    /// Bytes that the gateway sent to it.
    pub tx: u64,
}

/// External client as the API shows it: its settings, its state and its gateway's last report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientView {
    /// Id of the client.
    #[schema(value_type = String)]
    pub id: ClientId,
    /// Name of the client.
    #[schema(value_type = String)]
    pub name: ClientName,
    /// Label for people: any text.
    pub label: String,
    /// Network it belongs to.
    #[schema(value_type = String)]
    pub network: NetworkName,
    /// WireGuard public key.
    #[schema(value_type = String)]
    pub key: WgPublicKey,
    /// Node that its file names.
    #[schema(value_type = String)]
    pub gateway: NodeName,
    /// Nodes that it can use as its gateway.
    pub gateways: Vec<SeatView>,
    /// Overlay addresses at its gateway.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Tags that rules can select it by.
    #[schema(value_type = BTreeSet<String>)]
    pub tags: BTreeSet<Tag>,
    /// DNS servers; empty means those of the network.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Traffic that the client sends through the tunnel.
    pub tunnel: Tunnel,
    /// Prefixes of a split tunnel besides the network's own; empty means all that the network serves.
    #[schema(value_type = BTreeSet<String>)]
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind the client.
    #[schema(value_type = BTreeSet<String>)]
    pub prefixes: BTreeSet<Prefix>,
    /// Set unless an admin has disabled it.
    pub enabled: bool,
    /// Set if others may open connections to it.
    pub reachable: bool,
    /// Set if it has a preshared key.
    pub psk: bool,
    /// Expiry time, in seconds since 1970: from then on the client is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// State: let in, or the reason why not.
    pub state: ClientState,
    /// Creation time, in seconds since 1970.
    pub created: u64,
    /// Time when its current file was issued, in seconds since 1970.
    pub issued: u64,
    /// Changes since its file was issued, in words; empty if the file is fresh.
    pub stale: Vec<String>,
    /// State as its gateway reported it last; none if it never connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<ClientLive>,
    /// Warnings about the change that was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// External client with its newly issued file. Has no `Debug`: the file contains the private key.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientIssued {
    /// View of the client.
    pub client: ClientView,
    /// File for `wg-quick` and the WireGuard apps. The private key is only in here.
    #[schema(value_type = String)]
    pub config: Zeroizing<String>,
    /// QR code of the file (SVG); none if the file is too long for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub qr: Option<Zeroizing<String>>,
    /// Warnings: allowed, but probably not intended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// File of an external client as it would be issued now, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientConfig {
    /// A comment stands where a secret belongs.
    #[schema(value_type = String)]
    pub config: Zeroizing<String>,
    /// Changes since its current file was issued, in words.
    pub stale: Vec<String>,
}

/// Age in seconds from which a client's last handshake is not recent any more: WireGuard's REJECT_AFTER_TIME.
const FRESH: u64 = 180;

impl IngressView {
    /// Creates the ingress view of a node that was not removed and may let clients in.
    pub fn of(state: &ControllerState, node: &Node) -> Self {
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
    /// Creates the view of an external client at `at`, in seconds since 1970.
    pub fn of(state: &ControllerState, client: &Client, at: u64) -> Self {
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
            warnings: Vec::new(),
        }
    }

    /// Creates the view of an external client, with warnings about the prefixes behind it.
    pub fn with_warnings(state: &ControllerState, client: &Client, at: u64) -> Self {
        Self { warnings: state.registry.client_warnings(client), ..Self::of(state, client, at) }
    }
}

/// State of an external client from the last report of its gateway that lists it.
fn live(state: &ControllerState, client: &Client, at: u64) -> Option<ClientLive> {
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
