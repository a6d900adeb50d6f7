//! What one MQTT 3.1.1 connection remembers: what is unanswered. Pure.

use super::{
    Event, IN_FLIGHT, LinkError, Message,
    packet::{self, Incoming},
};

/// From here on a subscription's code is a refusal.
const REFUSED: u8 = 0x80;

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Session {
    has_consent: bool,
    filters: Vec<String>,
    last_id: u16,
    subscribing: Option<u16>,
    in_flight: Vec<u16>,
    pinging: bool,
}

/// What follows from a packet.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) reply: Option<Vec<u8>>,
    pub(super) event: Option<Event>,
}

/// The broker's consent, or why not.
fn consent(incoming: &Incoming) -> Result<(), LinkError> {
    Err(LinkError::Refused(match incoming {
        Incoming::Consent(0) => return Ok(()),
        Incoming::Consent(4 | 5) => "not authorised; was the node removed from the network?",
        Incoming::Consent(2) => "its id is not accepted",
        Incoming::Consent(3) => "out of service at the moment",
        Incoming::Consent(1) => "MQTT 3.1.1 is not spoken there",
        Incoming::TooLong { .. } => return Err(unsound("its first packet is too long")),
        _ => return Err(unsound("its first packet is no CONNACK")),
    }))
}

impl Session {
    /// A new session; what is subscribed to follows the broker's consent.
    pub(super) fn new(filters: Vec<String>) -> Self {
        Self {
            has_consent: false,
            filters,
            last_id: 0,
            subscribing: None,
            in_flight: Vec::new(),
            pinging: false,
        }
    }

    /// Whether the broker has consented.
    pub(super) fn has_consent(&self) -> bool {
        self.has_consent
    }

    /// Whether one more message may go out.
    pub(super) fn has_room(&self) -> bool {
        self.has_consent && self.subscribing.is_none() && self.in_flight.len() < IN_FLIGHT
    }

    /// Whether the broker owes an answer.
    pub(super) fn is_owed(&self) -> bool {
        self.pinging || self.subscribing.is_some() || !self.in_flight.is_empty()
    }

    /// Whether every message is acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The packet of a message. There must be room.
    pub(super) fn publish(&mut self, message: &Message) -> Vec<u8> {
        let id = self.next_id();
        self.in_flight.push(id);
        packet::publish(id, message)
    }

    /// The packet that asks whether the broker is there.
    pub(super) fn ping(&mut self) -> &'static [u8] {
        self.pinging = true;
        &packet::PING
    }

    /// Takes in what arrived.
    pub(super) fn handle(&mut self, incoming: Incoming) -> Result<Reaction, LinkError> {
        if !self.has_consent {
            consent(&incoming)?;
            self.has_consent = true;
            return Ok(Reaction { reply: Some(self.subscribe()), event: None });
        }
        match incoming {
            Incoming::TooLong { topic, bytes, qos, id } => told(Event::TooLong { topic, bytes }, qos, id),
            Incoming::Publish { topic, payload, qos, id } => told(Event::Message { topic, payload }, qos, id),
            Incoming::Acked(id) => self.handle_puback(id),
            Incoming::Subscribed(id, codes) => self.handle_suback(id, &codes),
            Incoming::Pong => {
                self.pinging = false;
                Ok(Reaction::default())
            }
            Incoming::Disconnect => Err(LinkError::Closed),
            Incoming::Consent(_) | Incoming::Other => Err(unsound("a packet that belongs nowhere")),
        }
    }

    fn subscribe(&mut self) -> Vec<u8> {
        let id = self.next_id();
        self.subscribing = Some(id);
        packet::subscribe(id, &self.filters)
    }

    fn handle_puback(&mut self, id: u16) -> Result<Reaction, LinkError> {
        let place = self.in_flight.iter().position(|known| *known == id);
        let place =
            place.ok_or_else(|| LinkError::Protocol(format!("it acknowledges {id}, which was not sent")))?;
        self.in_flight.remove(place);
        Ok(Reaction { reply: None, event: Some(Event::Acked) })
    }

    fn handle_suback(&mut self, id: u16, codes: &[u8]) -> Result<Reaction, LinkError> {
        if self.subscribing.take() != Some(id) || codes.len() != self.filters.len() {
            return Err(unsound("it confirms a subscription that was not made"));
        }
        match codes.iter().position(|code| *code >= REFUSED) {
            Some(at) => Err(LinkError::Subscription(self.filters[at].clone())),
            None => Ok(Reaction { reply: None, event: Some(Event::Connected) }),
        }
    }

    /// Never 0, which MQTT does not allow, and never one that is in flight: there are few.
    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }
}

/// Of a message, which is acknowledged where the broker wants that.
fn told(event: Event, qos: u8, id: u16) -> Result<Reaction, LinkError> {
    let reply = match qos {
        0 => None,
        1 => Some(packet::acknowledge(id)),
        _ => return Err(unsound("QoS 2, which was not asked for")),
    };
    Ok(Reaction { reply, event: Some(event) })
}

fn unsound(what: &str) -> LinkError {
    LinkError::Protocol(what.to_owned())
}
