//! State of one MQTT 3.1.1 connection after the broker's CONNACK: the packets that are unanswered. Pure.
//!
//! ```text
//!  Subscribing ── SUBACK, every code a success ──▶ Subscribed ── PUBLISH, PUBACK ──┐
//!      │                                              ▲                            │
//!      └── SUBACK that refuses or fits nothing        └────────────────────────────┘
//!            ▼
//!         error: the link ends
//! ```
//! Messages may arrive in both phases. A ping may be unanswered in both as well, so that it is no phase of its own.

use super::{Event, IN_FLIGHT, LinkError, Message, Options, inbox::Incoming};
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, QoS, SubAck, Subscribe,
    SubscribeFilter, SubscribeReasonCode,
};

/// MQTT session on a connection that the broker has accepted.
#[derive(Debug)]
pub(super) struct Session {
    filters: Vec<String>,
    last_id: u16,
    phase: Phase,
    pinging: bool,
}

#[derive(Debug)]
enum Phase {
    /// The SUBSCRIBE of this id is unanswered; nothing is published before.
    Subscribing(u16),
    /// The messages of these ids are unacknowledged.
    Subscribed { in_flight: heapless::Vec<u16, IN_FLIGHT> },
}

/// Reaction of an MQTT session to a packet: a reply to send, an event to report.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) reply: Option<Packet>,
    pub(super) event: Option<Event>,
}

/// CONNECT packet, the first of an MQTT connection, with the node's id and will.
pub(super) fn connect(options: &Options) -> Packet {
    let mut connect = Connect::new(options.client_id.as_str());
    connect.keep_alive = u16::try_from(options.keepalive.as_secs()).unwrap_or(u16::MAX);
    let Message { topic, payload, retain } = options.will.clone();
    connect.last_will = Some(LastWill::new(topic, payload, QoS::AtLeastOnce, retain));
    Packet::Connect(connect)
}

/// Checks that the first packet is the broker's CONNACK, with success.
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
    /// MQTT session in its first phase, and the packet that subscribes to all filters.
    pub(super) fn new(filters: Vec<String>) -> (Self, Packet) {
        const SUBSCRIBE: u16 = 1;
        let filter = |path: &String| SubscribeFilter::new(path.clone(), QoS::AtLeastOnce);
        let mut subscribe = Subscribe::new_many(filters.iter().map(filter));
        subscribe.pkid = SUBSCRIBE;
        let phase = Phase::Subscribing(SUBSCRIBE);
        (Self { filters, last_id: SUBSCRIBE, phase, pinging: false }, Packet::Subscribe(subscribe))
    }

    /// True if one more message may be published.
    pub(super) fn has_room(&self) -> bool {
        matches!(&self.phase, Phase::Subscribed { in_flight } if !in_flight.is_full())
    }

    /// True if the broker owes an answer.
    pub(super) fn is_owed(&self) -> bool {
        self.pinging || matches!(self.phase, Phase::Subscribing(_)) || !self.is_idle()
    }

    /// True if the broker has acknowledged every message.
    pub(super) fn is_idle(&self) -> bool {
        !matches!(&self.phase, Phase::Subscribed { in_flight } if !in_flight.is_empty())
    }

    /// PUBLISH packet of a message, which is in flight from now on. The caller has asked for room.
    pub(super) fn publish(&mut self, message: Message) -> Packet {
        let mut publish = Publish::new(message.topic, QoS::AtLeastOnce, message.payload);
        publish.retain = message.retain;
        publish.pkid = self.next_id();
        if let Phase::Subscribed { in_flight } = &mut self.phase {
            in_flight.push(publish.pkid).expect("asked for room before");
        }
        Packet::Publish(publish)
    }

    /// PINGREQ packet, which asks the broker for a sign of life.
    pub(super) fn ping(&mut self) -> Packet {
        self.pinging = true;
        Packet::PingReq
    }

    /// Handles a packet that arrived from the broker.
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
        if let Phase::Subscribed { in_flight } = &mut self.phase
            && let Some(position) = in_flight.iter().position(|known| *known == id)
        {
            in_flight.remove(position);
            return Ok(Reaction { reply: None, event: Some(Event::Acked) });
        }
        Err(LinkError::Protocol(format!("it acknowledges {id}, which was not sent")))
    }

    fn handle_suback(&mut self, suback: &SubAck) -> Result<Reaction, LinkError> {
        let is_ours = matches!(self.phase, Phase::Subscribing(id) if id == suback.pkid);
        if !is_ours || suback.return_codes.len() != self.filters.len() {
            return Err(LinkError::Protocol("it confirms a subscription that was not made".to_owned()));
        }
        let mut codes = self.filters.iter().zip(&suback.return_codes);
        if let Some((filter, _)) = codes.find(|(_, code)| **code == SubscribeReasonCode::Failure) {
            return Err(LinkError::Subscription(filter.clone()));
        }
        self.phase = Phase::Subscribed { in_flight: heapless::Vec::new() };
        Ok(Reaction { reply: None, event: Some(Event::Connected) })
    }

    /// Next MQTT packet id: never 0, which MQTT does not allow, and never one in flight, since those are few.
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 1;

    fn session() -> Session {
        Session::new(vec!["a".into(), "b".into()]).0
    }

    fn suback(session: &mut Session, id: u16, codes: &[SubscribeReasonCode]) -> Result<Reaction, LinkError> {
        session.handle(Incoming::Packet(Packet::SubAck(SubAck::new(id, codes.to_vec()))))
    }

    fn puback(session: &mut Session, id: u16) -> Result<Reaction, LinkError> {
        session.handle(Incoming::Packet(Packet::PubAck(PubAck::new(id))))
    }

    fn subscribed() -> Session {
        let mut session = session();
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let reaction = suback(&mut session, ID, &[granted, granted]).expect("subscribed");
        assert!(matches!(reaction.event, Some(Event::Connected)));
        session
    }

    fn message() -> Message {
        Message { topic: "t".into(), payload: Vec::new(), retain: false }
    }

    #[test]
    fn subscribing_session_waits_for_the_suback() {
        let mut session = session();
        assert!(!session.has_room() && session.is_owed() && session.is_idle());
        assert!(matches!(puback(&mut session, 2), Err(LinkError::Protocol(_))));
    }

    #[test]
    fn suback_with_success_opens_the_session() {
        let session = subscribed();
        assert!(session.has_room() && !session.is_owed() && session.is_idle());
    }

    #[test]
    fn suback_with_failure_or_of_another_request_ends_the_link() {
        let (granted, refused) =
            (SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure);
        let refusal = suback(&mut session(), ID, &[granted, refused]);
        assert!(matches!(refusal, Err(LinkError::Subscription(filter)) if filter == "b"));
        for (id, codes) in [(ID + 1, vec![granted; 2]), (ID, vec![granted])] {
            assert!(matches!(suback(&mut session(), id, &codes), Err(LinkError::Protocol(_))));
        }
        assert!(matches!(suback(&mut subscribed(), ID, &[granted; 2]), Err(LinkError::Protocol(_))));
    }

    #[test]
    fn published_message_is_in_flight_until_its_puback() {
        let mut session = subscribed();
        for sent in 1..=IN_FLIGHT {
            assert!(session.has_room(), "{sent}");
            session.publish(message());
        }
        assert!(!session.has_room() && session.is_owed() && !session.is_idle());
        assert!(matches!(puback(&mut session, ID), Err(LinkError::Protocol(_))));
        for id in ID + 1..=ID + IN_FLIGHT as u16 {
            assert!(matches!(puback(&mut session, id).expect("known").event, Some(Event::Acked)));
        }
        assert!(session.is_idle() && !session.is_owed());
    }

    #[test]
    fn ping_is_owed_until_its_answer_in_both_phases() {
        for mut session in [session(), subscribed()] {
            let owed = session.is_owed();
            session.ping();
            assert!(session.is_owed());
            session.handle(Incoming::Packet(Packet::PingResp)).expect("answered");
            assert_eq!(session.is_owed(), owed);
        }
    }
}
