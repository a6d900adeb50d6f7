//! What an admin asks of external clients.

use super::Tunnel;
use gatewrt_protocol::{ClientName, NodeName, Prefix, Tag, WgPublicKey};
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// What an admin asks of a new client; what is left out is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientWish {
    /// Unique among the network's clients.
    #[schema(value_type = String)]
    pub name: ClientName,
    /// Any text up to 64 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Nodes that it can come in at; its file names the first.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<NodeName>,
    /// Its public key; without one a pair is made, and the private key is in the answer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<WgPublicKey>,
    /// From the gateways' blocks, at most one a family and gateway. Default: the next free ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Whether a preshared key is made too.
    #[serde(default)]
    pub psk: bool,
    /// DNS servers. Default: the network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// What goes through the tunnel.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// What a split tunnel takes beside the network's own prefixes. Default: all that the network serves.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind the client, which the network may reach.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub prefixes: BTreeSet<Prefix>,
    /// Whether others may open connections to it.
    #[serde(default)]
    pub reachable: bool,
    /// From when on it is not let in, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// What rules may speak of it by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub tags: BTreeSet<Tag>,
}

/// What an admin changes of a client; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientPatch {
    /// Unique among the network's clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<ClientName>,
    /// Any text up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What rules may speak of it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub tags: Option<BTreeSet<Tag>>,
    /// Whether it is let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether others may open connections to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// From when on it is not let in, in seconds since 1970; `null` for never.
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub expires: Option<Option<u64>>,
    /// DNS servers; none are the network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
    /// What goes through the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// What a split tunnel takes beside the network's own prefixes; none is all that the network serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub routes: Option<BTreeSet<Prefix>>,
    /// Prefixes behind the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub prefixes: Option<BTreeSet<Prefix>>,
}

/// Tells `null` from a field that is not there.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// How a client is to get a new key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReissueWish {
    /// Where it comes in from now on. Default: where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<NodeName>,
    /// Its new public key; without one a pair is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<WgPublicKey>,
    /// Whether it gets a preshared key. Default: where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<bool>,
}
