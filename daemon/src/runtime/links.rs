//! The control links, one a network: signs what goes out, names whose what comes in is.

use crate::{
    core::{LinkEvent, Uplink},
    error_chain::error_chain,
    identity::Identity,
    mqtt::{Event, Link, Message, NotTaken, Options},
    task, tls,
};
use gatewrt_protocol::{NetworkName, Presence, Record, RecordError, Topic};
use litemap::LiteMap;
use std::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};
use tokio::task::JoinHandle;

/// Interval of the keepalives of an idle link.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Longest time for closing a link in order.
const GOODBYE: Duration = Duration::from_secs(2);

/// Control links of all networks.
pub struct Links {
    open: LiteMap<NetworkName, Link>,
    closing: Vec<JoinHandle<()>>,
}

impl Links {
    pub fn new() -> Self {
        Self { open: LiteMap::new(), closing: Vec::new() }
    }

    /// Starts an attempt to open a network's control link; one that is open already is dropped. The error is the end of
    /// the attempt.
    pub fn open(
        &mut self,
        identity: &Identity,
        broker: String,
        known: Vec<SocketAddr>,
        will: &Presence,
        mark: u32,
    ) -> Result<(), LinkEvent> {
        let lost = |error: &dyn std::fmt::Display| LinkEvent::Lost(error.to_string());
        let tls = tls::for_broker(&identity.ca, &identity.certificate, &identity.keys);
        let options = Options {
            broker,
            known,
            client_id: identity.node.to_string(),
            tls: tls.map_err(|error| lost(&error))?,
            will: presence(identity, will).map_err(|error| lost(&error))?,
            filters: Topic::filters_of(identity.net, identity.node).into(),
            keepalive: KEEPALIVE,
            mark,
        };
        self.open.insert(identity.network.clone(), Link::open(options));
        Ok(())
    }

    /// Ends the control link of a network, if there is one, in good manners: the broker does not publish the will.
    pub fn close(&mut self, network: &NetworkName) {
        if let Some(link) = self.open.remove(network) {
            self.closing.retain(|closing| !closing.is_finished());
            self.closing.push(task::spawn(link.close(GOODBYE)));
        }
    }

    /// Waits until every control link that was closed is gone.
    pub async fn finish(&mut self) {
        for closing in self.closing.drain(..) {
            let _ = closing.await;
        }
    }

    /// Signs a message to the coordinator and hands it to the network's control link; true if that is open and has
    /// room.
    pub fn publish(&self, identity: &Identity, uplink: &Uplink) -> bool {
        let Some(link) = self.open.get(&identity.network) else { return false };
        let message = match uplink {
            Uplink::Presence(presence) => self::presence(identity, presence),
            Uplink::Report(report) => signed(identity, Topic::Report(identity.node), report.as_ref()),
            Uplink::Known(token) => Ok(Message {
                topic: Topic::Reply(identity.node).to_string(),
                payload: token.as_bytes().to_vec(),
                retain: false,
            }),
        };
        match message.map(|message| link.try_publish(message)) {
            Ok(Ok(())) => return true,
            Ok(Err(NotTaken::Over)) => {}
            Ok(Err(NotTaken::Full)) => log::debug!("{}: too much waits to be sent", identity.network),
            Err(error) => log::warn!("{}: can't sign: {error}", identity.network),
        }
        false
    }

    /// Next event of any network's control link.
    pub async fn next(&mut self) -> Option<(NetworkName, LinkEvent)> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(NetworkName, LinkEvent)>> {
        for (network, link) in &mut self.open {
            let Poll::Ready(event) = link.poll_event(context) else { continue };
            let event = event.map_or_else(|| LinkEvent::Lost("the link ended".to_owned()), from);
            let network = network.clone();
            if matches!(event, LinkEvent::Lost(_)) {
                self.open.remove(&network);
            }
            return Poll::Ready(Some((network, event)));
        }
        Poll::Pending
    }
}

fn from(event: Event) -> LinkEvent {
    match event {
        Event::Connected => LinkEvent::Connected,
        Event::Message { topic, payload } => LinkEvent::Message(topic, payload),
        Event::TooLong { topic, bytes } => LinkEvent::TooLong(topic, bytes),
        Event::Acked => LinkEvent::Acked,
        Event::Lost(error) => LinkEvent::Lost(error_chain(&error)),
    }
}

fn presence(identity: &Identity, presence: &Presence) -> Result<Message, RecordError> {
    signed(identity, Topic::Presence(identity.node), presence)
}

fn signed(identity: &Identity, topic: Topic, record: &impl Record) -> Result<Message, RecordError> {
    let payload = identity.keys.signer().sign(record)?.into_bytes();
    Ok(Message { topic: topic.to_string(), payload, retain: true })
}
