//! The audit log: who changed what, from where. One entry is stored in the same transaction as the change it
//! tells of, so that there is neither without the other. Pure; the table is in [`crate::store`].

use gatewrt_protocol::{NetworkId, NetworkName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Entries that are kept; the oldest go first.
pub const KEPT: u32 = 10_000;
/// Bytes of [`Entry::detail`].
const DETAIL: usize = 2048;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in seconds since 1970.
    pub at: u64,
    /// A token's name, `join code …`, `command line`.
    pub who: String,
    /// Where the request came from.
    pub from: IpAddr,
    /// In which network.
    #[serde(default)]
    pub net: Option<NetworkId>,
    /// Its name then.
    #[serde(default)]
    pub network: Option<NetworkName>,
    /// `node.rename`, `client.create`, …
    pub action: String,
    /// What was changed: a name, mostly.
    pub target: String,
    /// What was asked for, without secrets.
    #[serde(default)]
    pub detail: String,
}

/// What was asked for, as text of bounded length.
pub fn detail(wish: &impl Serialize) -> String {
    let mut text = serde_json::to_string(wish).unwrap_or_default();
    if text.len() > DETAIL {
        let end = (0..=DETAIL).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}
