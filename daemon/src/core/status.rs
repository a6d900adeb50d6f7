//! Status of the daemon, as `gatewrt status` shows it on the router.

use super::{
    Core, Network, Now,
    clients::ClientStatus,
    scopes::{
        ConfigSource, config_source,
        status::{ExitStatus, ScopeStatus, exit_statuses, scope_status},
    },
    uplinks::offer,
};
use crate::config::Warning;
use gatewrt_protocol::{
    Applied, Assignment, Egress, ExitOffer, Failure, Member, NetworkId, NetworkName, NodeId, NodeName, Path,
    PeerReport, Prefix, RolledBack,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// State of the daemon, as `gatewrt status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Seconds since the daemon's start.
    pub uptime_s: u64,
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// Firewall in use: `nft` or `iptables`; empty before the first observation.
    #[serde(default)]
    pub firewall: String,
    /// Networks joined.
    pub networks: Vec<NetworkStatus>,
    /// Networks on disk that can't be read, with the reason. Their interfaces are left as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreadable: BTreeMap<NetworkName, String>,
    /// Settings in the router's configuration that are not in effect, and are no failure of a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<String>,
    /// The kernel is as desired.
    pub settled: bool,
}

/// Status of one network on this router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Name.
    pub name: NetworkName,
    /// Id.
    pub net: NetworkId,
    /// This node's id.
    pub node: NodeId,
    /// This node's name.
    pub node_name: NodeName,
    /// Interface.
    pub interface: String,
    /// `kernel`, or the userspace implementation; empty while there is no device.
    pub wireguard: String,
    /// UDP port.
    pub port: u16,
    /// Overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// `connected`, `connecting` or `removed`.
    pub control: String,
    /// Broker in use.
    pub broker: String,
    /// Reason why the control link is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_error: Option<String>,
    /// Prefixes that this router serves.
    pub egress: Vec<Egress>,
    /// External clients are to be let in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// External clients that are let in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientStatus>,
    /// Source of the configuration of `scopes`.
    pub scopes_by: ConfigSource,
    /// Scopes: Internet traffic of this router that goes through exits.
    pub scopes: Vec<ScopeStatus>,
    /// Other nodes that are exits.
    pub exits: Vec<ExitStatus>,
    /// Exit service that this router could offer; absent where its owner forbids it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<ExitOffer>,
    /// True if this router is an exit: the coordinator has switched it on, and its owner allows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_exit: bool,
    /// Peers.
    pub peers: Vec<PeerStatus>,
    /// Revisions in effect.
    pub applied: Applied,
    /// Change that was rolled back because it cut the control link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// Seconds left to confirm a change on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_s: Option<u64>,
    /// Failures, each with its reason.
    pub failures: Vec<Failure>,
    /// Number of refused messages by reason.
    pub refused: BTreeMap<String, u64>,
}

/// Status of one peer in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Name.
    pub name: NodeName,
    /// Public key.
    pub key: gatewrt_protocol::WgPublicKey,
    /// Overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes that it serves.
    pub prefixes: Vec<Prefix>,
    /// Id.
    pub node: NodeId,
    /// Endpoint that packets to it are sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Path by which it is reached.
    pub path: Path,
    /// Round trip in the tunnel, in milliseconds; only nodes that could serve this router are probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
}

impl Core {
    /// Status of the daemon and its networks as of now.
    pub fn status(&self, now: Now) -> Status {
        Status {
            firewall: self.observed.firewall.to_owned(),
            version: self.about.version.clone(),
            uptime_s: now.as_secs(),
            memory_kib: self.memory_kib,
            networks: self
                .networks
                .iter()
                .map(|(name, network)| self.network_status(name, network, now))
                .collect(),
            unreadable: self
                .unreadable
                .iter()
                .map(|(name, network)| (name.clone(), network.why.clone()))
                .collect(),
            config: self.config_faults(),
            settled: self.is_settled(),
        }
    }

    fn config_faults(&self) -> Vec<String> {
        let is_told = |warning: &Warning| match &warning.network {
            Some(network) => self.networks.contains_key(network),
            None => !self.networks.is_empty(),
        };
        let untold = self.config.warnings.iter().filter(|warning| !is_told(warning));
        let mut all: Vec<String> = untold.map(ToString::to_string).collect();
        for (name, network) in &self.config.networks {
            let is_known = self.networks.contains_key(name) || self.unreadable.contains_key(name);
            if !is_known && network.join_code.is_none() && network.enabled {
                all.push(format!(
                    "network {name}: this router has not joined a network of this name, and its section has no new join_code"
                ));
            }
        }
        all
    }

    fn network_status(&self, name: &NetworkName, network: &Network, now: Now) -> NetworkStatus {
        let membership = &network.membership;
        let assignment = network.directory.assignment();
        let peers = network.directory.peers().zip(self.peer_reports(network));
        let scopes = self.scopes_of(name, network);
        let offer = offer(&self.config, name, &self.observed);
        let control = match (network.directory.is_removed(), network.session.is_connected()) {
            (true, _) => "removed",
            (false, true) => "connected",
            (false, false) => "connecting",
        };
        NetworkStatus {
            name: name.clone(),
            net: membership.net,
            node: membership.node,
            node_name: assignment
                .map_or_else(|| membership.name.clone(), |assignment| assignment.name.clone()),
            interface: name.interface(),
            wireguard: self.backend_of(name),
            port: membership.port,
            addresses: assignment.map(|assignment| assignment.addresses.clone()).unwrap_or_default(),
            control: control.to_owned(),
            broker: network.broker.clone(),
            control_error: network.session.last_error().map(str::to_owned),
            egress: assignment.map(|assignment: &Assignment| assignment.egress.clone()).unwrap_or_default(),
            ingress: assignment.is_some_and(|assignment| assignment.ingress.is_some()),
            clients: self.client_statuses(name, network),
            scopes_by: config_source(&self.config, name, network),
            exits: exit_statuses(&scopes, network),
            scopes: scopes.into_iter().map(|scope| scope_status(scope, network)).collect(),
            is_exit: offer.is_some() && assignment.is_some_and(|assignment| assignment.exit.is_some()),
            offer,
            peers: peers.map(peer_status).collect(),
            applied: network.applied.clone(),
            rolled_back: network.rolled_back().cloned(),
            trial_s: network.trial_deadline().map(|at| at.saturating_sub(now).as_secs()),
            failures: self.failures_of(name, network),
            refused: network.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        }
    }
}

fn peer_status((member, seen): (&Member, PeerReport)) -> PeerStatus {
    PeerStatus {
        name: member.name.clone(),
        key: member.key,
        addresses: member.addresses.clone(),
        prefixes: member.prefixes.iter().map(|served| served.prefix).collect(),
        node: seen.node,
        endpoint: seen.endpoint,
        handshake_s: seen.handshake_s,
        rx: seen.rx,
        tx: seen.tx,
        path: seen.path,
        rtt_ms: seen.rtt_ms,
    }
}
