//! External clients, as an ingress node learns of them and reports them.

use crate::{Prefix, WgPublicKey, key::KeyError, text_serde};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// WireGuard preshared key, 32 bytes, written in base64 as `wg` does. It is secret, so `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(align(4))]
pub struct PresharedKey(pub [u8; 32]);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}
impl fmt::Display for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}
impl FromStr for PresharedKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.parse::<WgPublicKey>().map(|same_form| Self(same_form.0))
    }
}
text_serde!(PresharedKey);

/// Settings of a node as an ingress: the external clients that it lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// External clients that are let in now, without disabled and expired ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<IngressClient>,
}

/// External client as its ingress node lets it in, identified by its WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressClient {
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Overlay addresses, from the node's client blocks, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Preshared key, if one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<PresharedKey>,
    /// Prefixes behind the client that the network may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// Full tunnel: its Internet traffic leaves through this node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internet: bool,
    /// Permission for others to open connections to its addresses; replies always pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reachable: bool,
}

/// State of an external client, as its ingress node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// WireGuard public key of the client.
    pub key: WgPublicKey,
    /// Current endpoint of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
}
