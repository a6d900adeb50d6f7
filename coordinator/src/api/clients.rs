//! Ingress nodes and external clients, as the API speaks of them.

pub use crate::registry::{ClientPatch, ClientWish, IngressWish, ReissueWish};

use crate::registry::{ClientState, Tunnel};
use gatewrt_protocol::{ClientId, ClientName, NetworkName, NodeName, Prefix, Tag, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// A node that lets external clients in, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressView {
    /// Which node.
    pub node: NodeName,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its clients' addresses come from these; none where it lets no clients in.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatView {
    /// The node.
    pub node: NodeName,
    /// The client's addresses when it comes in there.
    pub addresses: Vec<IpAddr>,
}

/// What a client's gateway reported of it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLive {
    /// Whether its last handshake is fresh.
    pub online: bool,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// Its id.
    pub id: ClientId,
    /// Its name.
    pub name: ClientName,
    /// What people call it: any text.
    pub label: String,
    /// Its network.
    pub network: NetworkName,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// The node that its file names.
    pub gateway: NodeName,
    /// The nodes that it can come in at.
    pub gateways: Vec<SeatView>,
    /// Its overlay addresses where it comes in.
    pub addresses: Vec<IpAddr>,
    /// What rules may speak of it by.
    pub tags: BTreeSet<Tag>,
    /// DNS servers; none are the network's.
    pub dns: Vec<IpAddr>,
    /// What goes through the tunnel.
    pub tunnel: Tunnel,
    /// What a split tunnel takes beside the network's own prefixes; none is all that the network serves.
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind it.
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
#[derive(Clone, Serialize, Deserialize)]
pub struct ClientIssued {
    /// The client.
    pub client: ClientView,
    /// Its file, as `wg-quick` and the WireGuard apps read it. The private key is in here and nowhere else.
    pub config: String,
    /// The same as a picture (SVG) that the apps scan; nothing where it is too long for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qr: Option<String>,
    /// What will surprise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A client's file as it would be issued now, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConfig {
    /// A comment stands where a secret belongs.
    pub config: String,
    /// What has changed since the file that the client has was issued.
    pub stale: Vec<String>,
}
