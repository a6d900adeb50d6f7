//! Retained messages, in memory. The engine's own store keeps nothing. This one keeps what was published, and
//! is the last check of the author's rights before a message is retained.

use super::state::BrokerState;
use async_trait::async_trait;
use bytes::Bytes;
use rmqtt::{
    retain::{RetainStorage, RetainTree},
    topic::Topic,
    types::{From as Author, FromType, Id, Publish, Retain, TopicFilter, TopicName},
};
use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

pub(super) struct Retained {
    state: Arc<BrokerState>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    tree: RetainTree<Retain>,
    count: isize,
    max: isize,
}

impl Retained {
    /// Creates the store with messages that the coordinator published before, in the name of `author`.
    pub(super) fn new(
        state: Arc<BrokerState>,
        author: &Id,
        messages: BTreeMap<String, Bytes>,
    ) -> Result<Self, rmqtt::Error> {
        let mut kept = Kept::default();
        for (topic, payload) in messages {
            let publish = super::message(&topic, payload, true);
            kept.set(&topic, Retain { msg_id: None, from: Author::from_admin(author.clone()), publish })?;
        }
        Ok(Self { state, kept: Mutex::new(kept) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock panics")
    }

    fn may_keep(&self, author: &Author, publish: &Publish) -> bool {
        match author.typ() {
            FromType::Admin => true,
            FromType::Custom => self.state.may_publish(&author.client_id, &publish.topic),
            FromType::LastWill => self.state.may_leave_will(author, &publish.topic),
            FromType::System | FromType::Bridge => false,
        }
    }
}

impl Kept {
    /// Stores the retained message of a topic. An empty payload clears the topic (MQTT 3.1.1, 3.3.1.3).
    fn set(&mut self, topic: &str, retain: Retain) -> Result<(), rmqtt::Error> {
        let topic = Topic::from_str(topic)?;
        self.count -= isize::from(self.tree.remove(&topic).is_some());
        if !retain.publish.payload.is_empty() {
            self.tree.insert(&topic, retain);
            self.count += 1;
        }
        self.max = self.max.max(self.count);
        Ok(())
    }
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, retain: Retain, _expiry: Option<Duration>) -> rmqtt::Result<()> {
        if self.may_keep(&retain.from, &retain.publish) { self.kept().set(topic, retain) } else { Ok(()) }
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let filter = Topic::from_str(filter)?;
        let found = self.kept().tree.matches(&filter);
        Ok(found.into_iter().map(|(topic, retain)| (TopicName::from(topic.to_string()), retain)).collect())
    }

    async fn count(&self) -> isize {
        self.kept().count
    }

    async fn max(&self) -> isize {
        self.kept().max
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Known, *};
    use crate::broker::{Limits, message, tests::NODE};

    const PRESENCE: &str = "gatewrt/v1/node/aaaaaaaaaaaaaaaa/presence";
    const ROSTER: &str = "gatewrt/v1/net/aaaa/roster";

    /// True if a message of this author is retained.
    async fn keeps(author: fn(Id) -> Author, name: &'static str, topic: &str) -> bool {
        let (state, _events) = BrokerState::new(Limits::default(), Arc::new(Known));
        let id = Id::from(1, name.into());
        let retained = Retained::new(state, &id, BTreeMap::new()).unwrap();
        let retain = Retain { msg_id: None, from: author(id), publish: message(topic, "x".into(), true) };
        retained.set(&topic.into(), retain, None).await.unwrap();
        retained.get(&"#".into()).await.unwrap().len() == 1
    }

    #[tokio::test]
    async fn retained_message_without_rights_is_not_kept() {
        assert!(keeps(Author::from_admin, "coordinator", ROSTER).await);
        for node in [Author::from_custom, Author::from_lastwill] {
            assert!(keeps(node, NODE, PRESENCE).await);
            assert!(!keeps(node, NODE, ROSTER).await);
            assert!(!keeps(node, "coordinator", ROSTER).await);
            assert!(!keeps(node, "removedaaaaaaaaa", PRESENCE).await);
        }
        for nobody in [Author::from_system, Author::from_bridge] {
            assert!(!keeps(nobody, NODE, PRESENCE).await);
        }
    }
}
