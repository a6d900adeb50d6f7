//! What is to be done, as values: one step is one change of one object.

use crate::model::{Address, IfName, Route, Rule, Ruleset, SysctlPath, WgPeer, WgSettings};
use gatewrt_protocol::WgPublicKey;

/// One change of one object of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make an interface: kernel WireGuard, or a userspace implementation where the kernel has none.
    AddTunnel {
        /// Its name.
        link: IfName,
        /// In bytes.
        mtu: u32,
    },
    /// Remove an interface, with its userspace implementation if it has one.
    DeleteTunnel(IfName),
    /// Set the MTU in bytes.
    SetMtu(IfName, u32),
    /// Set it up.
    SetUp(IfName),
    /// Set a device's own key, port and mark; peers stay as they are.
    SetDevice(IfName, WgSettings),
    /// Set peers, in one message. Peers that are not named stay as they are. More than one is named only where
    /// a prefix moves from one peer to another, so that no packet finds neither.
    SetPeers(IfName, Vec<(WgPublicKey, PeerChange)>),
    /// Add an address, with our protocol number where the kernel keeps it.
    AddAddress(Address),
    /// Delete an address.
    DeleteAddress(Address),
    /// Add a route, with our protocol number; never replaces one.
    AddRoute(Route),
    /// Change what a route of ours does, in place.
    ReplaceRoute(Route),
    /// Delete a route of ours.
    DeleteRoute(Route),
    /// Add a rule, with our protocol number.
    AddRule(Rule),
    /// Delete a rule of ours.
    DeleteRule(Rule),
    /// Write our firewall table, whole, in one transaction.
    WriteRuleset(Ruleset),
    /// Delete our firewall table.
    DeleteRuleset,
    /// Give a setting this value, remembering on the run-time disk what it was before we first did.
    SetSysctl(SysctlPath, String),
    /// Put a setting back to what it was; leaves it when someone else changed it since.
    RestoreSysctl(SysctlPath),
}

/// One peer's change. `None` leaves a part as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// The peer is new: all of it.
    Add(WgPeer),
    /// It exists: only these parts change.
    Update {
        /// New endpoint.
        endpoint: Option<std::net::SocketAddr>,
        /// New allowed IPs, all of them, replacing.
        allowed: Option<std::collections::BTreeSet<gatewrt_protocol::Prefix>>,
        /// New keepalive in seconds.
        keepalive: Option<u16>,
    },
    /// The peer goes.
    Remove,
}
