//! Specs of external clients, as admins send them.

use super::Tunnel;
use gatewrt_protocol::{ClientName, NodeName, Prefix, Tag, WgPublicKey};
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// Spec of a new client; defaults are chosen for fields that are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientSpec {
    /// Name, unique among the clients of the network.
    #[schema(value_type = String)]
    pub name: ClientName,
    /// Label: any text up to 64 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Nodes that the client can use as its gateway; its file names the first.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<NodeName>,
    /// Public key of the client. Without one a key pair is generated, and the private key is only in the
    /// answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<WgPublicKey>,
    /// Addresses from the gateways' blocks, at most one for each family and gateway. Default: the next free
    /// ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Set to generate a preshared key too.
    #[serde(default)]
    pub psk: bool,
    /// DNS servers. Default: those of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Traffic that the client sends through the tunnel.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// Prefixes of a split tunnel besides the network's own. Default: all that the network serves.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub routes: BTreeSet<Prefix>,
    /// Prefixes behind the client, which the network may reach.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub prefixes: BTreeSet<Prefix>,
    /// Set if others may open connections to it.
    #[serde(default)]
    pub reachable: bool,
    /// Expiry time, in seconds since 1970: from then on the client is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Tags that rules can select it by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub tags: BTreeSet<Tag>,
}

/// Changes to a client; fields that are left out stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClientPatch {
    /// Name, unique among the clients of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<ClientName>,
    /// Label: any text up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Tags that rules can select it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub tags: Option<BTreeSet<Tag>>,
    /// Enables or disables the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Set if others may open connections to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// Expiry time, in seconds since 1970; `null` means that it never expires.
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub expires: Option<Option<u64>>,
    /// DNS servers; empty means those of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
    /// Traffic that the client sends through the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Prefixes of a split tunnel besides the network's own; empty means all that the network serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub routes: Option<BTreeSet<Prefix>>,
    /// Prefixes behind the client, which the network may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub prefixes: Option<BTreeSet<Prefix>>,
}

/// Deserializer of a field in a patch: distinguishes `null` from a missing field.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Request for a new key and file of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReissueRequest {
    /// New gateway. Default: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<NodeName>,
    /// New public key; without one a key pair is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<WgPublicKey>,
    /// Set to generate a preshared key. Default: if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<bool>,
}
