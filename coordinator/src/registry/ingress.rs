//! Nodes that let external clients in, and the blocks that these have their addresses from.

use gatewrt_protocol::Prefix;
use serde::{Deserialize, Serialize};

/// That a node lets external clients in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressSetting {
    /// Where clients reach the node, as `host:port`; nothing stated is what the node itself says.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Blocks of the network, IPv4 first: its clients' addresses.
    pub blocks: Vec<Prefix>,
}
