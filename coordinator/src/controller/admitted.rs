//! Nodes that the broker lets connect, and the end of the session of one that is removed.

use super::{Controller, Delivery};
use crate::{broker::Directory, registry::Registry};
use gatewrt_protocol::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc::WeakSender, oneshot};

/// Time that a removed node has to read its own tombstone before its session ends.
const TOMBSTONE_TIME: Duration = Duration::from_millis(500);

/// Nodes that the broker lets connect, and the networks of each. Shared with the broker's threads.
#[derive(Debug, Clone, Default)]
pub struct Admitted(Arc<RwLock<BTreeMap<String, BTreeSet<String>>>>, Arc<AtomicBool>);

impl Directory for Admitted {
    fn networks_of(&self, node: &str) -> Option<BTreeSet<String>> {
        self.0.read().expect("no holder of this lock panics").get(node).cloned()
    }
}

impl Admitted {
    pub(super) fn admit(&self, registry: &Registry, ids: impl Iterator<Item = NodeId>) {
        let mut nodes = self.0.write().expect("no holder of this lock panics");
        for node in ids.filter_map(|id| registry.live_node(id)) {
            nodes.insert(node.id.to_string(), [node.net.to_string()].into());
        }
    }

    /// Lets nodes connect that are not known, to tell of themselves, or not.
    pub(super) fn admit_strangers(&self, admit: bool) {
        self.1.store(admit, Ordering::Relaxed);
    }

    /// Revokes a removed node's access: from now on it reads nothing and can't connect again.
    fn revoke(&self, node: NodeId) {
        self.0.write().expect("no holder of this lock panics").remove(&node.to_string());
    }
}

impl Controller {
    /// Ends the session of a removed node, and its access, once it could read its tombstone.
    pub(super) async fn end_session(&mut self, node: NodeId) {
        let (flushed, published) = oneshot::channel();
        self.send(Delivery::Flush(flushed)).await;
        // A weak sender: a session that is still to be ended must not keep the coordinator from stopping.
        tokio::spawn(revoke_after(published, node, self.admitted.clone(), self.deliveries.downgrade()));
    }
}

/// Revokes a node's access and ends its session, some time after its tombstone was published. The time runs
/// from there, as publishing takes a while when many nodes are removed at once.
async fn revoke_after(
    published: oneshot::Receiver<()>,
    node: NodeId,
    admitted: Admitted,
    deliveries: WeakSender<Delivery>,
) {
    // An error means that the coordinator stops.
    let _ = published.await;
    tokio::time::sleep(TOMBSTONE_TIME).await;
    admitted.revoke(node);
    if let Some(deliveries) = deliveries.upgrade() {
        let _ = deliveries.send(Delivery::EndSession(node)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use tokio::{sync::mpsc, time::Instant};

    const NODE: NodeId = NodeId::from_entropy([1; 10]);

    /// Runs [`revoke_after`] for an admitted node whose tombstone is published by `publish`. Returns the time that it
    /// took, if the node is still admitted, and the last delivery.
    async fn revoke(publish: impl Future<Output = ()>) -> (Duration, bool, Option<Delivery>) {
        let admitted = Admitted::default();
        admitted.0.write().unwrap().insert(NODE.to_string(), BTreeSet::new());
        let ((flushed, published), (sender, mut deliveries)) = (oneshot::channel(), mpsc::channel(1));
        let began = Instant::now();
        let publishing = async {
            publish.await;
            assert!(admitted.networks_of(&NODE.to_string()).is_some(), "it can still read its tombstone");
            let _ = flushed.send(());
        };
        tokio::join!(revoke_after(published, NODE, admitted.clone(), sender.downgrade()), publishing);
        let is_admitted = admitted.networks_of(&NODE.to_string()).is_some();
        (began.elapsed(), is_admitted, deliveries.try_recv().ok())
    }

    #[tokio::test(start_paused = true)]
    async fn removed_node_has_time_to_read_its_tombstone() {
        let (took, is_admitted, delivery) = revoke(async {}).await;
        assert!(!is_admitted && matches!(delivery, Some(Delivery::EndSession(NODE))));
        assert!(took >= TOMBSTONE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn removed_node_behind_a_slow_broker_has_the_same_time() {
        let busy = Duration::from_secs(60);
        let (took, is_admitted, _) = revoke(tokio::time::sleep(busy)).await;
        assert!(!is_admitted && took >= busy + TOMBSTONE_TIME);
    }
}
