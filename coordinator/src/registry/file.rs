//! What a client's file says, without its secrets: kept from when it was issued, so that it can be compared with
//! what the network is now.

use gatewrt_protocol::{Prefix, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFile {
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// DNS servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// In bytes.
    pub mtu: u16,
    /// The gateway's public key.
    pub gateway: WgPublicKey,
    /// Where the gateway is reached, as `host:port`; empty where that is not known.
    pub endpoint: String,
    /// What goes through the tunnel.
    pub allowed: BTreeSet<Prefix>,
    /// In seconds; 0 for none.
    #[serde(default)]
    pub keepalive: u16,
}
