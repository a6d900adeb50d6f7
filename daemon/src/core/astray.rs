//! A router that has lost its coordinator asks its peers where that is now: it may have slept while the coordinator moved.
//!
//! The brokers are in the network's policy, which every node holds as the coordinator signed it. A peer can therefore only
//! withhold a newer one, never make one up or bring an older one back, and a coordinator at a wrong address would still have
//! to show a certificate of the CA that this router knows. Nothing but the brokers is used of what a peer tells: a change of
//! settings that can't be confirmed over the control link would be rolled back.

use super::{Core, Network, Now, Output, serving::probe_target};
use gatewrt_protocol::{NetworkName, NodeId};

/// Maximum number of peers asked at each attempt to reach a broker.
const ASKED: usize = 8;

impl Core {
    /// Asks peers of a network for its policy, others at each attempt to connect.
    pub(super) fn ask_peers(&mut self, name: &NetworkName) {
        let Some(network) = self.networks.get(name) else { return };
        for node in next_asked(network) {
            if let Some(target) = probe_target(network, node, &self.observed) {
                self.outputs.push(Output::AskPolicy(name.clone(), target));
            }
        }
    }

    /// Connects to the brokers of the policy that a peer told, if it is newer and they are others.
    pub(super) fn handle_told(&mut self, name: &NetworkName, policy: &[u8], now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let Some(told) = network.directory.newer_policy(policy) else { return };
        let before = network.brokers();
        if network.told.as_ref().is_none_or(|known| known.rev < told.rev) {
            network.told = Some(told);
        }
        let brokers = network.brokers();
        if brokers != before && !network.session.is_connected() {
            log::info!("{name}: a peer says that the coordinator is at {}", brokers.join(", "));
            network.session.start_over(brokers.len(), now);
            self.outputs.push(Output::Disconnect(name.clone()));
        }
    }
}

fn next_asked(network: &Network) -> Vec<NodeId> {
    let all: Vec<NodeId> = network.directory.peers().map(|member| member.node).collect();
    let first = network.session.number() as usize * ASKED;
    all.iter().cycle().skip(first % all.len().max(1)).take(all.len().min(ASKED)).copied().collect()
}
