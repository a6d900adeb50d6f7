//! Control links of the networks: messages of the coordinator, connections, and requests for withheld records.

use super::{
    Core, LinkEvent, Now, Output, Uplink,
    directory::{Change, Refusal},
    session::Action,
};
use gatewrt_protocol::{NetworkName, RecordError, Topic};
use std::time::Duration;

/// Interval of resyncs while records are withheld.
const RESYNC: Duration = Duration::from_secs(60);

impl Core {
    pub(super) fn handle_link(&mut self, name: &NetworkName, event: LinkEvent, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        match event {
            LinkEvent::Connected => {
                network.session.handle_connected(now);
                network.trial.handle_connected(network.session.sent());
                network.disagrees_since = network.disagrees_since.map(|_| now);
                network.check_roster(now);
                network.reporter.request();
                network.last_refusal = None;
                log::info!("{name}: control link is up");
                let presence = network.presence(&self.about.boot, true);
                network.session.handle_sent(now);
                self.outputs.push(Output::Publish(name.clone(), Uplink::Presence(presence)));
            }
            LinkEvent::Message(topic, payload) => {
                network.session.handle_delivery();
                self.handle_message(name, &topic, &payload, now);
            }
            LinkEvent::TooLong(topic, bytes) => {
                network.refuse(
                    &topic,
                    &Refusal::Record(RecordError::TooLong(bytes, gatewrt_protocol::MAX_ASSIGNMENT)),
                );
            }
            LinkEvent::Acked => {
                self.handle_acked(name);
                self.tell(name, now);
            }
            LinkEvent::Unsent => {
                network.session.handle_unsent();
                network.trial.handle_unsent(network.session.sent());
            }
            LinkEvent::Lost(why) => {
                log::info!("{name}: control link lost: {why}");
                network.session.handle_lost(why, now);
            }
        }
    }

    /// Tells the coordinator of one record that it does not seem to know any more: after each acknowledgement, so that one
    /// at a time is on its way.
    fn tell(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        let Some(token) = network.directory.pop_untold() else { return };
        network.session.handle_sent(now);
        self.outputs.push(Output::Publish(name.clone(), Uplink::Known(token)));
    }

    fn handle_message(&mut self, name: &NetworkName, topic: &str, payload: &[u8], now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        if matches!(topic.parse(), Ok(Topic::Command(_))) {
            return;
        }
        let taken = network.directory.accept(topic, payload);
        if taken.is_ok() {
            network.forget_refusal(topic);
        }
        match taken {
            Ok(Change::Nothing) => network.check_roster(now),
            Ok(change) => self.handle_change(name, change, now),
            Err(refusal) => {
                network.refuse(topic, &refusal);
                // The acknowledgement of the report starts telling the coordinator what it does not know.
                network.reporter.refresh();
            }
        }
    }

    /// Follows a change of the directory.
    fn handle_change(&mut self, name: &NetworkName, change: Change, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        // More records may be on their way: 500 take a slow router most of a minute.
        network.disagrees_since = None;
        network.check_roster(now);
        network.session.set_brokers(network.brokers().len());
        network.handle_records(now);
        self.outputs.push(Output::Save(name.clone()));
        if change == Change::Removal {
            self.outputs.push(Output::Flush(name.clone()));
        }
        if network.directory.is_removed() {
            log::warn!("{name}: this node was removed from the network by the coordinator");
            self.outputs.push(Output::Disconnect(name.clone()));
        }
        self.feed_members(name, now);
        self.request_reconcile(now);
    }

    pub(super) fn poll_link(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        match network.session.poll(now) {
            Some(Action::Connect(place)) => {
                network.directory.handle_connecting();
                let will = network.presence(&self.about.boot, false);
                let broker = network.brokers().into_iter().nth(place).unwrap_or_default();
                network.broker.clone_from(&broker);
                let known = network.known_at(&broker);
                let is_astray = network.session.is_astray(now);
                self.outputs.push(Output::Connect { network: name.clone(), broker, known, will });
                if is_astray {
                    self.ask_peers(name);
                }
            }
            Some(Action::Drop) => self.outputs.push(Output::Disconnect(name.clone())),
            None => {}
        }
    }

    /// Requests a network's withheld records again when that is due, by connecting to the broker anew.
    pub(super) fn poll_roster(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        if network.resync_due().is_none_or(|at| at > now) {
            return;
        }
        if network.directory.purge() {
            log::info!("{name}: forgot nodes that the network no longer has");
            network.check_roster(now);
            self.outputs.push(Output::Save(name.clone()));
            self.request_reconcile(now);
            return;
        }
        if network.resync_at.is_none() {
            log::warn!(
                "{name}: the roster names records that did not come: withheld or rolled back by the broker"
            );
        }
        network.resync_at = Some(now + RESYNC);
        network.session.reconnect(now);
        self.outputs.push(Output::Disconnect(name.clone()));
    }
}
