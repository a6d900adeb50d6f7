//! Nodes that the broker lets connect, and the end of the session of one that is removed.

use super::{Controller, Delivery};
use crate::{
    broker::{Directory, Standing},
    registry::{Node, Registry},
};
use gatewrt_protocol::NodeId;
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::{mpsc::WeakSender, oneshot};

/// Time that a removed node has to read its own tombstone before its session ends. It reads it in the next
/// session otherwise.
const TOMBSTONE_TIME: Duration = Duration::from_millis(500);

/// Nodes that the broker lets connect, and the standing of each. Shared with the broker's threads.
#[derive(Debug, Clone, Default)]
pub struct Admitted(Arc<RwLock<Nodes>>);

#[derive(Debug, Default)]
struct Nodes {
    /// Standing of nodes that are known; none of one that was removed and has no tombstone any more.
    known: BTreeMap<String, Option<Standing>>,
    /// True if nodes that are not known may tell of themselves.
    admits_strangers: bool,
}

impl Directory for Admitted {
    fn standing_of(&self, node: &str) -> Option<Standing> {
        let nodes = self.0.read().expect("no holder of this lock panics");
        let stranger = || nodes.admits_strangers.then_some(Standing::Stranger);
        nodes.known.get(node).cloned().unwrap_or_else(stranger)
    }
}

impl Admitted {
    /// Brings the standing of nodes up to date. A removed one can connect as long as it has a tombstone to read; it is no
    /// stranger later.
    pub(super) fn update(&self, registry: &Registry, ids: impl Iterator<Item = NodeId>, now: u64) {
        let mut nodes = self.0.write().expect("no holder of this lock panics");
        for id in ids {
            match registry.node(id) {
                Some(node) => nodes.known.insert(id.to_string(), standing(node, now)),
                None => nodes.known.remove(&id.to_string()),
            };
        }
    }

    /// Lets nodes connect that are not known, to tell of themselves, or not.
    pub(super) fn admit_strangers(&self, admit: bool) {
        self.0.write().expect("no holder of this lock panics").admits_strangers = admit;
    }
}

fn standing(node: &Node, now: u64) -> Option<Standing> {
    let net = node.net.to_string();
    if node.is_live() {
        return Some(Standing::Member([net].into()));
    }
    node.has_tombstone(now).then_some(Standing::Removed(net))
}

impl Controller {
    /// Ends the session of a removed node, once it could read its tombstone.
    pub(super) async fn end_session(&mut self, node: NodeId) {
        let (flushed, published) = oneshot::channel();
        self.send(Delivery::Flush(flushed)).await;
        // A weak sender: a session that is still to be ended must not keep the coordinator from stopping.
        tokio::spawn(end_after(published, node, self.deliveries.downgrade()));
    }
}

/// Ends a node's session some time after its tombstone was published. The time runs from there, as publishing takes a
/// while when many nodes are removed at once.
async fn end_after(published: oneshot::Receiver<()>, node: NodeId, deliveries: WeakSender<Delivery>) {
    // An error means that the coordinator stops.
    let _ = published.await;
    tokio::time::sleep(TOMBSTONE_TIME).await;
    if let Some(deliveries) = deliveries.upgrade() {
        let _ = deliveries.send(Delivery::EndSession(node)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Op, World};
    use std::future::Future;
    use tokio::{sync::mpsc, time::Instant};

    const NODE: NodeId = NodeId::from_entropy([1; 10]);

    /// Runs [`end_after`] for a node whose tombstone is published by `publish`. Returns the time until the delivery
    /// that ends its session.
    async fn end(publish: impl Future<Output = ()>) -> Duration {
        let ((flushed, published), (sender, mut deliveries)) = (oneshot::channel(), mpsc::channel(1));
        let began = Instant::now();
        let publishing = async {
            publish.await;
            let _ = flushed.send(());
        };
        tokio::join!(end_after(published, NODE, sender.downgrade()), publishing);
        assert!(matches!(deliveries.try_recv(), Ok(Delivery::EndSession(NODE))));
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn removed_node_has_time_to_read_its_tombstone() {
        assert!(end(async {}).await >= TOMBSTONE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn removed_node_behind_a_slow_broker_has_the_same_time() {
        let busy = Duration::from_secs(60);
        assert!(end(tokio::time::sleep(busy)).await >= busy + TOMBSTONE_TIME);
    }

    #[test]
    fn removed_node_may_connect_as_long_as_it_has_a_tombstone() {
        let mut world = World::default();
        world.step(&Op::CreateNetwork(0, None));
        world.step(&Op::CreateCode(0, 2));
        let node = world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 0 }).joined.unwrap();
        let net = world.registry.node(node).unwrap().net.to_string();
        let admitted = Admitted::default();
        let standing = |world: &World| {
            admitted.update(&world.registry, [node].into_iter(), world.now);
            admitted.standing_of(&node.to_string())
        };
        assert_eq!(standing(&world), Some(Standing::Member([net.clone()].into())));
        assert!(world.step(&Op::DeleteNetwork(0, true)).refused.is_none());
        assert_eq!(standing(&world), Some(Standing::Removed(net.clone())));
        world.now += crate::registry::TOMBSTONE_S - 1;
        assert_eq!(standing(&world), Some(Standing::Removed(net)));
        world.now += 1;
        assert_eq!(standing(&world), None);
        world.step(&Op::Purge);
        assert_eq!((standing(&world), world.registry.node(node)), (None, None));
    }

    /// Of a network that goes on, all removed nodes are known.
    #[test]
    fn node_that_was_removed_long_ago_is_no_stranger() {
        let mut world = World::default();
        world.step(&Op::CreateNetwork(0, None));
        world.step(&Op::CreateCode(0, 2));
        let node = world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 0 }).joined.unwrap();
        let admitted = Admitted::default();
        admitted.admit_strangers(true);
        assert_eq!(admitted.standing_of(&node.to_string()), Some(Standing::Stranger));
        world.step(&Op::Remove(0, true));
        world.now += crate::registry::TOMBSTONE_S;
        admitted.update(&world.registry, [node].into_iter(), world.now);
        assert_eq!(admitted.standing_of(&node.to_string()), None);
    }
}
