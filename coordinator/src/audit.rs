//! Audit log: who changed what, from where. An entry is stored in the same transaction as its change, so that
//! neither exists without the other. Pure; the table is in [`crate::store`].

use gatewrt_protocol::{NetworkId, NetworkName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Largest number of entries of the audit log; the oldest are deleted first.
pub const KEPT: u32 = 10_000;
/// Largest number of bytes of [`Entry::detail`].
const DETAIL: usize = 2048;

/// Entry of the audit log: one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Time of the change, in seconds since 1970.
    pub at: u64,
    /// Author: a token's name, `join code …`, `command line` with the admin token, or `local root` without one.
    pub who: String,
    /// Source address of the request.
    pub from: IpAddr,
    /// Id of the network that was changed.
    #[serde(default)]
    pub net: Option<NetworkId>,
    /// Name of the network at that time.
    #[serde(default)]
    pub network: Option<NetworkName>,
    /// Action: `node.rename`, `client.create`, …
    pub action: String,
    /// Object that was changed, mostly its name.
    pub target: String,
    /// Request, without secrets.
    #[serde(default)]
    pub detail: String,
}

/// JSON of a request's body for the audit log, cut to a bounded length.
pub fn detail(spec: &impl Serialize) -> String {
    let mut text = serde_json::to_string(spec).unwrap_or_default();
    if text.len() > DETAIL {
        let end = (0..=DETAIL).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}
