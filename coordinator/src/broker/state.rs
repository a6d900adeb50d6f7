//! State that the parts of the broker share: sessions, counters, receiver of events. All checks of access end
//! here, and use the directory at that moment.

use super::{
    Counters, Directory, Event, Limits,
    counters::{self, ByKind},
    links::Links,
};
use crate::access::Access;
use rmqtt::types::Id;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Time that a node's session waits for its event to be received before it gives up.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct BrokerState {
    pub(super) limits: Limits,
    pub(super) links: Links,
    /// Session of each connected node; a newer one replaces the older.
    pub(super) sessions: watch::Sender<BTreeMap<String, Id>>,
    directory: Arc<dyn Directory>,
    events: Mutex<Option<mpsc::Sender<Event>>>,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    all: Counters,
    delivered_to: BTreeMap<String, ByKind>,
}

impl BrokerState {
    pub(super) fn new(limits: Limits, directory: Arc<dyn Directory>) -> (Arc<Self>, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(limits.events);
        let links = Links::new(limits.links_per_node);
        let (sessions, counted) = (watch::Sender::default(), Mutex::default());
        let events = Mutex::new(Some(events));
        (Arc::new(Self { limits, links, sessions, directory, events, counted }), receiver)
    }

    /// Asks for a right of a node, by its standing now.
    pub(super) fn access<T>(&self, node: &str, ask: impl FnOnce(Access<'_>) -> T) -> T {
        let standing = self.directory.standing_of(node);
        ask(Access::new(node, standing.as_ref()))
    }

    pub(super) fn is_removed(&self, node: &str) -> bool {
        self.access(node, |access| access.is_removed())
    }

    pub(super) fn may_publish(&self, node: &str, topic: &str) -> bool {
        self.access(node, |access| access.may_publish(topic))
    }

    /// True if the last will of a session may be published. The will of a session that was replaced is outdated.
    pub(super) fn may_leave_will(&self, session: &Id, topic: &str) -> bool {
        let current = self.sessions.borrow().get(&*session.client_id).is_none_or(|now| now == session);
        current && self.may_publish(&session.client_id, topic)
    }

    pub(super) fn session_began(&self, session: &Id) {
        self.sessions.send_modify(|sessions| {
            sessions.insert(session.client_id.to_string(), session.clone());
        });
    }

    /// Removes the session of a node that has ended. Returns false if a newer one had replaced it, so that the node is
    /// still connected.
    pub(super) fn session_ended(&self, session: &Id) -> bool {
        self.sessions.send_if_modified(|sessions| {
            let current = sessions.get(&*session.client_id) == Some(session);
            if current {
                sessions.remove(&*session.client_id);
            }
            current
        })
    }

    /// Sends an event to the owner of the broker. A full queue delays this session for a while, then the event is lost
    /// and counted.
    pub(super) async fn emit(&self, event: Event) -> bool {
        let events = self.events.lock().expect("no holder of this lock panics").clone();
        let Some(events) = events else { return false };
        let taken = tokio::time::timeout(EVENT_TIMEOUT, events.send(event)).await;
        let taken = matches!(taken, Ok(Ok(())));
        if !taken {
            self.count(|counters| counters.events_lost += 1);
        }
        taken
    }

    /// Closes the channel of the broker's events: the receiver gets what is queued, then the end.
    pub(super) fn end_events(&self) {
        self.events.lock().expect("no holder of this lock panics").take();
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counted().all);
    }

    pub(super) fn count_delivered(&self, node: &str, topic: &str, payload: &[u8]) {
        let mut counted = self.counted();
        counters::count(&mut counted.all.delivered, topic, payload);
        if !counted.delivered_to.contains_key(node) {
            counted.delivered_to.insert(node.to_owned(), ByKind::new());
        }
        let tallies = counted.delivered_to.get_mut(node).expect("inserted above");
        counters::count(tallies, topic, payload);
    }

    pub(super) fn forget_delivered(&self, node: &str) {
        self.counted().delivered_to.remove(node);
    }

    pub(super) fn counters(&self) -> Counters {
        self.counted().all.clone()
    }

    pub(super) fn delivered_to(&self, node: &str) -> ByKind {
        self.counted().delivered_to.get(node).cloned().unwrap_or_default()
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::tests::{Known, NODE};

    const PRESENCE: &str = "gatewrt/v1/node/aaaaaaaaaaaaaaaa/presence";

    fn session(port: u16) -> Id {
        Id::new(1, 1, None, Some(([127, 0, 0, 1], port).into()), NODE.into(), None)
    }

    #[test]
    fn replaced_session_no_longer_speaks_for_the_node() {
        let (state, _events) = BrokerState::new(Limits::default(), Arc::new(Known));
        let (older, newer) = (session(1), session(2));
        state.session_began(&older);
        assert!(state.may_leave_will(&older, PRESENCE));
        state.session_began(&newer);
        assert!(!state.may_leave_will(&older, PRESENCE));
        assert!(!state.session_ended(&older));
        assert!(state.sessions.borrow().contains_key(NODE));
        assert!(state.may_leave_will(&newer, PRESENCE));
        assert!(!state.may_leave_will(&newer, "gatewrt/v1/net/aaaa/roster"));
        assert!(state.session_ended(&newer));
        assert!(state.sessions.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn event_that_nobody_receives_is_lost_and_counted() {
        let (state, mut events) =
            BrokerState::new(Limits { events: 1, ..Limits::default() }, Arc::new(Known));
        let event = || Event::Disconnected { node: NODE.into() };
        assert!(state.emit(event()).await);
        assert!(!state.emit(event()).await);
        assert_eq!(state.counters().events_lost, 1);
        assert_eq!(events.recv().await, Some(event()));
        assert!(state.emit(event()).await);
        state.end_events();
        assert!(!state.emit(event()).await);
        assert_eq!(events.recv().await, Some(event()));
        assert_eq!(events.recv().await, None);
    }
}
