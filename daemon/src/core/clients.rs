//! External clients that are let in here, as observed: for reports, and for the status on the router.

use super::{Core, Network, paths::FRESH};
use crate::model::{IfName, WgCounters, WgPeer};
use gatewrt_protocol::{ClientReport, IngressClient, NetworkName, Prefix, WgPublicKey};
use serde::{Deserialize, Serialize};
use sorted_vec::SortedSet;
use std::net::{IpAddr, SocketAddr};

/// Status of one external client that this router lets in. Routers do not know its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Public key.
    pub key: WgPublicKey,
    /// Overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes that the network reaches behind it.
    pub prefixes: Vec<Prefix>,
    /// True if the client's Internet traffic leaves here.
    pub internet: bool,
    /// Others may open connections to it.
    pub reachable: bool,
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
}

impl Core {
    /// Reports of those external clients of a network that ever connected to this router.
    pub(super) fn client_reports(&self, name: &NetworkName, network: &Network) -> Vec<ClientReport> {
        let seen = self.clients_seen(name, network).into_iter().map(|(_, report)| report);
        seen.filter(|client| client.handshake_s.is_some()).collect()
    }

    /// Status of the external clients of a network that this router lets in.
    pub(super) fn client_statuses(&self, name: &NetworkName, network: &Network) -> Vec<ClientStatus> {
        let status = |(client, seen): (&IngressClient, ClientReport)| ClientStatus {
            key: client.key,
            addresses: client.addresses.clone(),
            prefixes: client.prefixes.clone(),
            internet: client.internet,
            reachable: client.reachable,
            endpoint: seen.endpoint,
            handshake_s: seen.handshake_s,
            rx: seen.rx,
            tx: seen.tx,
        };
        self.clients_seen(name, network).into_iter().map(status).collect()
    }

    fn clients_seen<'a>(
        &self,
        name: &NetworkName,
        network: &'a Network,
    ) -> Vec<(&'a IngressClient, ClientReport)> {
        let Some(device) = self.observed.devices.get(&IfName::from(name)) else { return Vec::new() };
        let ingress = network.directory.assignment().and_then(|assignment| assignment.ingress.as_ref());
        let clients = ingress.map(|ingress| ingress.clients.as_slice()).unwrap_or_default();
        let seen = |client: &'a IngressClient| {
            let peer = device.peers.get(&client.key)?;
            let counters = device.counters.get(&client.key).copied().unwrap_or_default();
            Some((client, self.client_report(client.key, peer, counters)))
        };
        clients.iter().filter_map(seen).collect()
    }

    fn client_report(&self, key: WgPublicKey, peer: &WgPeer, counters: WgCounters) -> ClientReport {
        let handshake_s = counters.handshake_age(self.wall).map(|age| age.as_secs());
        ClientReport { key, endpoint: peer.endpoint, handshake_s, rx: counters.rx, tx: counters.tx }
    }
}

/// Keys of the external clients that are connected now, by their last handshake.
pub(super) fn present(clients: &[ClientReport]) -> SortedSet<WgPublicKey> {
    let fresh = |client: &&ClientReport| client.handshake_s.is_some_and(|age| age < FRESH.as_secs());
    clients.iter().filter(fresh).map(|client| client.key).collect()
}
