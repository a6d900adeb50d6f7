//! External clients, as the node that lets them in is told of them.

use crate::{Prefix, WgPublicKey, base::BASE64, json_fields, key::KeyError, text_serde};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// A WireGuard preshared key, 32 bytes, written in base64 as `wg` does. A secret: `Debug` shows nothing of it.
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

/// That a node lets external clients in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Those that are let in now: a disabled or expired one is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<IngressClient>,
}
json_fields!(Ingress: ; clients);

/// An external client. The key names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressClient {
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Its overlay addresses, from the node's blocks, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Preshared key, if one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<PresharedKey>,
    /// Prefixes behind the client, which the network may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// Whether its Internet traffic goes out here (full tunnel).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internet: bool,
    /// Whether others may open connections to its addresses; what they answer to always passes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reachable: bool,
}
json_fields!(IngressClient: key, addresses; psk, prefixes, internet, reachable);

/// What a node sees of one external client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// The client.
    pub key: WgPublicKey,
    /// Where packets to it go.
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
json_fields!(ClientReport: key, rx, tx; endpoint, handshake_s);
