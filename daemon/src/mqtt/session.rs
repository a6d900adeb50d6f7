//! What one MQTT 3.1.1 connection remembers: what is unanswered. Pure.

use super::{Event, IN_FLIGHT, LinkError, Message, Options, inbox::Incoming};
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, QoS, SubAck, Subscribe,
    SubscribeFilter, SubscribeReasonCode,
};

/// The state of a connection after the broker's consent.
#[derive(Debug)]
pub(super) struct Session {
    filters: Vec<String>,
    last_id: u16,
    subscribing: Option<u16>,
    in_flight: heapless::Vec<u16, IN_FLIGHT>,
    pinging: bool,
}

/// What follows from a packet.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) reply: Option<Packet>,
    pub(super) event: Option<Event>,
}

/// The first packet of a connection.
pub(super) fn connect(options: &Options) -> Packet {
    let mut connect = Connect::new(options.client_id.as_str());
    connect.keep_alive = u16::try_from(options.keepalive.as_secs()).unwrap_or(u16::MAX);
    let Message { topic, payload, retain } = options.will.clone();
    connect.last_will = Some(LastWill::new(topic, payload, QoS::AtLeastOnce, retain));
    Packet::Connect(connect)
}

/// The broker's consent, or why not.
pub(super) fn consent(packet: Packet) -> Result<(), LinkError> {
    let Packet::ConnAck(ConnAck { code, .. }) = packet else {
        return Err(LinkError::Protocol("its first packet is no CONNACK".to_owned()));
    };
    Err(LinkError::Refused(match code {
        ConnectReturnCode::Success => return Ok(()),
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => {
            "not authorised; was the node removed from the network?"
        }
        ConnectReturnCode::BadClientId => "its id is not accepted",
        ConnectReturnCode::ServiceUnavailable => "out of service at the moment",
        ConnectReturnCode::RefusedProtocolVersion => "MQTT 3.1.1 is not spoken there",
    }))
}

impl Session {
    /// A new session, and the packet that subscribes to everything.
    pub(super) fn new(filters: Vec<String>) -> (Self, Packet) {
        let mut session =
            Self { filters, last_id: 0, subscribing: None, in_flight: heapless::Vec::new(), pinging: false };
        let filter = |path: &String| SubscribeFilter::new(path.clone(), QoS::AtLeastOnce);
        let mut subscribe = Subscribe::new_many(session.filters.iter().map(filter));
        subscribe.pkid = session.next_id();
        session.subscribing = Some(subscribe.pkid);
        (session, Packet::Subscribe(subscribe))
    }

    /// Whether one more message may go out.
    pub(super) fn has_room(&self) -> bool {
        self.subscribing.is_none() && !self.in_flight.is_full()
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
    pub(super) fn publish(&mut self, message: Message) -> Packet {
        let mut publish = Publish::new(message.topic, QoS::AtLeastOnce, message.payload);
        publish.retain = message.retain;
        publish.pkid = self.next_id();
        self.in_flight.push(publish.pkid).expect("asked for room before");
        Packet::Publish(publish)
    }

    /// The packet that asks whether the broker is there.
    pub(super) fn ping(&mut self) -> Packet {
        self.pinging = true;
        Packet::PingReq
    }

    /// Takes in what arrived.
    pub(super) fn handle(&mut self, incoming: Incoming) -> Result<Reaction, LinkError> {
        match incoming {
            Incoming::TooLong { topic, bytes, ack } => {
                let reply = ack.map(|id| Packet::PubAck(PubAck::new(id)));
                Ok(Reaction { reply, event: Some(Event::TooLong { topic, bytes }) })
            }
            Incoming::Packet(Packet::Publish(publish)) => handle_publish(publish),
            Incoming::Packet(Packet::PubAck(PubAck { pkid })) => self.handle_puback(pkid),
            Incoming::Packet(Packet::SubAck(suback)) => self.handle_suback(&suback),
            Incoming::Packet(Packet::PingResp) => {
                self.pinging = false;
                Ok(Reaction::default())
            }
            Incoming::Packet(Packet::Disconnect) => Err(LinkError::Closed),
            Incoming::Packet(_) => Err(LinkError::Protocol("a packet that belongs nowhere".to_owned())),
        }
    }

    fn handle_puback(&mut self, id: u16) -> Result<Reaction, LinkError> {
        let place = self.in_flight.iter().position(|known| *known == id);
        let place =
            place.ok_or_else(|| LinkError::Protocol(format!("it acknowledges {id}, which was not sent")))?;
        self.in_flight.remove(place);
        Ok(Reaction { reply: None, event: Some(Event::Acked) })
    }

    fn handle_suback(&mut self, suback: &SubAck) -> Result<Reaction, LinkError> {
        if self.subscribing.take() != Some(suback.pkid) || suback.return_codes.len() != self.filters.len() {
            return Err(LinkError::Protocol("it confirms a subscription that was not made".to_owned()));
        }
        let mut codes = self.filters.iter().zip(&suback.return_codes);
        match codes.find(|(_, code)| **code == SubscribeReasonCode::Failure) {
            Some((filter, _)) => Err(LinkError::Subscription(filter.clone())),
            None => Ok(Reaction { reply: None, event: Some(Event::Connected) }),
        }
    }

    /// Never 0, which MQTT does not allow, and never one that is in flight: there are few.
    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }
}

fn handle_publish(publish: Publish) -> Result<Reaction, LinkError> {
    let reply = match publish.qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce => Some(Packet::PubAck(PubAck::new(publish.pkid))),
        QoS::ExactlyOnce => return Err(LinkError::Protocol("QoS 2, which was not asked for".to_owned())),
    };
    let event = Event::Message { topic: publish.topic, payload: publish.payload.to_vec() };
    Ok(Reaction { reply, event: Some(event) })
}
