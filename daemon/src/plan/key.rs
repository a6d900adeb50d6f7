//! Keys of steps, by which their outcome and their backoff are known from one plan to the next.

use super::{PeerChange, PeerUpdate, Step};
use crate::model::{Address, IfName, NO_PSK, Route, Rule, SysctlPath, WgPeer};
use gatewrt_protocol::{Failure, Prefix, WgPublicKey};
use std::net::SocketAddr;

/// Key of a plan's step: its object and the change of it. Steps that differ only in a secret or in the content of the
/// firewall table have the same key: it stays the same attempt at the same object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKey {
    /// [`Step::AddTunnel`], with its MTU.
    AddTunnel(IfName, u32),
    /// [`Step::DeleteTunnel`]
    DeleteTunnel(IfName),
    /// [`Step::SetMtu`]
    SetMtu(IfName, u32),
    /// [`Step::SetUp`]
    SetUp(IfName),
    /// [`Step::SetDevice`], with port and mark.
    SetDevice(IfName, u16, u32),
    /// [`Step::SetPeers`]
    SetPeers(IfName, Vec<PeerKey>),
    /// [`Step::AddAddress`]
    AddAddress(Address),
    /// [`Step::DeleteAddress`]
    DeleteAddress(Address),
    /// [`Step::AddRoute`]
    AddRoute(Route),
    /// [`Step::ReplaceRoute`]
    ReplaceRoute(Route),
    /// [`Step::DeleteRoute`]
    DeleteRoute(Route),
    /// [`Step::AddRule`]
    AddRule(Rule),
    /// [`Step::DeleteRule`]
    DeleteRule(Rule),
    /// [`Step::WriteRuleset`]
    WriteRuleset,
    /// [`Step::DeleteRuleset`]
    DeleteRuleset,
    /// [`Step::CutFlows`]
    CutFlows,
    /// [`Step::SetSysctl`], with the value.
    SetSysctl(SysctlPath, String),
    /// [`Step::RestoreSysctl`]
    RestoreSysctl(SysctlPath),
}

/// Failure of one step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// Step that failed.
    pub key: StepKey,
    /// Text of the step and reason of the failure, for the report.
    pub failure: Failure,
}

/// Key of one WireGuard peer's change within [`StepKey::SetPeers`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKey {
    /// [`PeerChange::Add`]
    Add(WgPublicKey, PeerSettings),
    /// [`PeerChange::Update`]
    Update(WgPublicKey, PeerSettings),
    /// [`PeerChange::Remove`]
    Remove(WgPublicKey),
}

/// Settings of a WireGuard peer that a change sets, without secrets; `None` where it leaves one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerSettings {
    endpoint: Option<SocketAddr>,
    /// Allowed IPs it gains; empty where all are replaced.
    gains: Vec<Prefix>,
    allowed: Option<Vec<Prefix>>,
    keepalive: Option<u16>,
    /// True if the peer gets a preshared key, false if it loses it.
    has_psk: Option<bool>,
}

impl From<&Step> for StepKey {
    fn from(step: &Step) -> Self {
        match step {
            Step::AddTunnel { link, mtu } => Self::AddTunnel(link.clone(), *mtu),
            Step::DeleteTunnel(link) => Self::DeleteTunnel(link.clone()),
            Step::SetMtu(link, mtu) => Self::SetMtu(link.clone(), *mtu),
            Step::SetUp(link) => Self::SetUp(link.clone()),
            Step::SetDevice(link, settings) => Self::SetDevice(link.clone(), settings.port, settings.mark),
            Step::SetPeers(link, changes) => {
                Self::SetPeers(link.clone(), changes.iter().map(PeerKey::from).collect())
            }
            Step::AddAddress(address) => Self::AddAddress(address.clone()),
            Step::DeleteAddress(address) => Self::DeleteAddress(address.clone()),
            Step::AddRoute(route) => Self::AddRoute(route.clone()),
            Step::ReplaceRoute(route) => Self::ReplaceRoute(route.clone()),
            Step::DeleteRoute(route) => Self::DeleteRoute(route.clone()),
            Step::AddRule(rule) => Self::AddRule(rule.clone()),
            Step::DeleteRule(rule) => Self::DeleteRule(rule.clone()),
            Step::WriteRuleset(_) => Self::WriteRuleset,
            Step::DeleteRuleset => Self::DeleteRuleset,
            Step::CutFlows(_) => Self::CutFlows,
            Step::SetSysctl(path, value) => Self::SetSysctl(path.clone(), value.clone()),
            Step::RestoreSysctl(path) => Self::RestoreSysctl(path.clone()),
        }
    }
}

impl From<&(WgPublicKey, PeerChange)> for PeerKey {
    fn from((key, change): &(WgPublicKey, PeerChange)) -> Self {
        match change {
            PeerChange::Add(peer) => Self::Add(*key, PeerSettings::of(peer)),
            PeerChange::Update(update) => Self::Update(*key, PeerSettings::from(update)),
            PeerChange::Remove => Self::Remove(*key),
        }
    }
}

impl PeerSettings {
    fn of(peer: &WgPeer) -> Self {
        Self {
            endpoint: peer.endpoint,
            gains: Vec::new(),
            allowed: Some(peer.allowed.iter().copied().collect()),
            keepalive: Some(peer.keepalive),
            has_psk: Some(peer.psk.is_some()),
        }
    }
}

impl From<&PeerUpdate> for PeerSettings {
    fn from(update: &PeerUpdate) -> Self {
        let gains = update.gains.iter().filter(|_| update.allowed.is_none());
        Self {
            endpoint: update.endpoint,
            gains: gains.copied().collect(),
            allowed: update.allowed.as_ref().map(|allowed| allowed.iter().copied().collect()),
            keepalive: update.keepalive,
            has_psk: update.psk.as_ref().map(|psk| *psk != NO_PSK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{FirewallTable, Ruleset, WgSecret, WgSettings},
        plan::TableUpdate,
    };
    use gatewrt_protocol::PresharedKey;
    use std::sync::Arc;

    const PEER: WgPublicKey = WgPublicKey([7; 32]);

    fn link() -> IfName {
        IfName::new("gw-home").unwrap()
    }

    fn update(update: PeerUpdate) -> StepKey {
        StepKey::from(&Step::SetPeers(link(), vec![(PEER, PeerChange::Update(update))]))
    }

    #[test]
    fn steps_that_differ_in_secrets_or_table_content_share_a_key() {
        let device = |secret| WgSettings { secret: WgSecret([secret; 32]), port: 51820, mark: 1 };
        let device = |secret| StepKey::from(&Step::SetDevice(link(), device(secret)));
        assert_eq!(device(1), device(2));
        let write = |from: Option<&Ruleset>| {
            StepKey::from(&Step::WriteRuleset(TableUpdate::new(from, Arc::new(FirewallTable::default()))))
        };
        assert_eq!(write(None), write(Some(&Ruleset::Known(Arc::default()))));
        let psk = |psk| update(PeerUpdate { psk: Some(PresharedKey(psk)), ..PeerUpdate::default() });
        assert_eq!(psk([1; 32]), psk([2; 32]));
        assert_ne!(psk([1; 32]), psk([0; 32]));
    }

    #[test]
    fn steps_that_change_something_else_differ_in_key() {
        let endpoint = |text: &str| {
            update(PeerUpdate { endpoint: Some(text.parse().unwrap()), ..PeerUpdate::default() })
        };
        assert_ne!(endpoint("192.0.2.1:1"), endpoint("192.0.2.2:1"));
        let keepalive =
            |keepalive| update(PeerUpdate { keepalive: Some(keepalive), ..PeerUpdate::default() });
        assert_ne!(keepalive(0), keepalive(25));
        assert_ne!(StepKey::from(&Step::SetUp(link())), StepKey::from(&Step::DeleteTunnel(link())));
        let mtu = |mtu| StepKey::from(&Step::SetMtu(link(), mtu));
        assert_ne!(mtu(1280), mtu(1420));
    }
}
