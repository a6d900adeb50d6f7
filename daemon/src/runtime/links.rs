//! The control links, one a network: signs what goes out, names whose what comes in is.

use crate::{
    core::{LinkEvent, Uplink},
    identity::Identity,
    log,
    mqtt::{Event, Link, Message, NotTaken, Options},
    sorted::SortedMap,
    tls,
    wait::Wait,
};
use gatewrt_protocol::{NetworkName, Presence, Record, RecordError, Topic};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// An idle link is probed this often.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long saying good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// All control links.
pub struct Links {
    open: SortedMap<NetworkName, Link>,
    /// Each until then at most.
    closing: Vec<(Link, Instant)>,
}

impl Links {
    pub fn new() -> Self {
        Self { open: SortedMap::new(), closing: Vec::new() }
    }

    /// Starts an attempt; one that is open already is dropped. The error is the end of the attempt.
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

    /// Ends a link, if there is one, in good manners: the broker does not publish the will.
    pub fn close(&mut self, network: &NetworkName) {
        if let Some(mut link) = self.open.remove(network) {
            link.leave();
            self.closing.push((link, Instant::now() + GOODBYE));
        }
    }

    /// Waits until every link that was closed is gone.
    pub fn finish(&mut self) {
        while self.is_closing() {
            let mut wait = Wait::until(Instant::now() + GOODBYE);
            self.enlist(&mut wait);
            wait.wait();
        }
    }

    /// Signs and sends, if the link is open and has room. Says whether it did.
    pub fn publish(&mut self, identity: &Identity, uplink: &Uplink) -> bool {
        let Some(link) = self.open.get_mut(&identity.network) else { return false };
        let message = match uplink {
            Uplink::Presence(presence) => self::presence(identity, presence),
            Uplink::Report(report) => signed(identity, Topic::Report(identity.node), report.as_ref()),
        };
        match message.map(|message| link.try_publish(message)) {
            Ok(Ok(())) => return true,
            Ok(Err(NotTaken::Over)) => {}
            Ok(Err(NotTaken::Full)) => log::debug!("{}: too much waits to be sent", identity.network),
            Err(error) => log::warn!("{}: can't sign: {error}", identity.network),
        }
        false
    }

    /// The next event of any link, if there is one.
    pub fn poll(&mut self) -> Option<(NetworkName, LinkEvent)> {
        self.is_closing();
        let event = |(network, link): (&NetworkName, &mut Link)| Some((network.clone(), link.poll()?));
        let (network, event) = (&mut self.open).into_iter().find_map(event)?;
        if matches!(event, Event::Lost(_)) {
            self.open.remove(&network);
        }
        Some((network, from(event)))
    }

    /// Adds what to wait for.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        self.open.values().for_each(|link| link.enlist(wait));
        for (link, by) in &self.closing {
            link.enlist(wait);
            wait.no_longer(*by);
        }
    }

    /// Lets links that were closed take their leave; whether one still does. What arrives on them is dropped.
    fn is_closing(&mut self) -> bool {
        self.closing.retain_mut(|(link, by)| {
            while link.poll().is_some() {}
            !link.is_over() && Instant::now() < *by
        });
        !self.closing.is_empty()
    }
}

fn from(event: Event) -> LinkEvent {
    match event {
        Event::Connected => LinkEvent::Connected,
        Event::Message { topic, payload } => LinkEvent::Message(topic, payload),
        Event::TooLong { topic, bytes } => LinkEvent::TooLong(topic, bytes),
        Event::Acked => LinkEvent::Acked,
        Event::Lost(error) => LinkEvent::Lost(error.to_string()),
    }
}

fn presence(identity: &Identity, presence: &Presence) -> Result<Message, RecordError> {
    signed(identity, Topic::Presence(identity.node), presence)
}

fn signed(identity: &Identity, topic: Topic, record: &impl Record) -> Result<Message, RecordError> {
    let payload = identity.keys.signer().sign(record)?.into_bytes();
    Ok(Message { topic: topic.to_string(), payload, retain: true })
}
