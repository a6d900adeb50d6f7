//! Ingress nodes and external clients, as the API speaks of them.

use crate::registry::{ClientState, Tunnel};
use gatewrt_protocol::{ClientId, ClientName, NetworkName, NodeName, Prefix, Tag, WgPublicKey};
use serde::{Deserialize, Deserializer, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// What an admin asks of an ingress; what is left out is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressWish {
    /// Where clients reach the node, as `host:port`. Default: a public address that the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Default: a free /24 of the network's IPv4 prefix, or less in a small one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block4: Option<Prefix>,
    /// Default: a free /112 of the network's IPv6 prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block6: Option<Prefix>,
}

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

/// What an admin asks of a new client; what is left out is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientWish {
    /// Unique among the network's clients.
    pub name: ClientName,
    /// Any text up to 64 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Nodes that it can come in at; its file names the first.
    pub gateways: Vec<NodeName>,
    /// Its public key; without one a pair is made, and the private key is in the answer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<WgPublicKey>,
    /// From the gateways' blocks, at most one a family and gateway. Default: the next free ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Whether a preshared key is made too.
    #[serde(default)]
    pub psk: bool,
    /// DNS servers. Default: the network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// What goes through the tunnel.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// What a split tunnel takes beside the network's own prefixes. Default: all that the network serves.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind the client, which the network may reach.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub prefixes: BTreeSet<Prefix>,
    /// Whether others may open connections to it.
    #[serde(default)]
    pub reachable: bool,
    /// From when on it is not let in, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// What rules may speak of it by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
}

/// What an admin changes of a client; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPatch {
    /// Unique among the network's clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ClientName>,
    /// Any text up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What rules may speak of it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeSet<Tag>>,
    /// Whether it is let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether others may open connections to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// From when on it is not let in, in seconds since 1970; `null` for never.
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub expires: Option<Option<u64>>,
    /// DNS servers; none are the network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<IpAddr>>,
    /// What goes through the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// What a split tunnel takes beside the network's own prefixes; none is all that the network serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<BTreeSet<Prefix>>,
    /// Prefixes behind the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<BTreeSet<Prefix>>,
}

/// Tells `null` from a field that is not there.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// How a client is to get a new key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReissueWish {
    /// Where it comes in from now on. Default: where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<NodeName>,
    /// Its new public key; without one a pair is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<WgPublicKey>,
    /// Whether it gets a preshared key. Default: where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<bool>,
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
