//! The packets of MQTT 3.1.1 that a link needs (OASIS, section 3), to bytes and from them. What they mean is for the
//! session.

use super::Message;

/// Asks whether the broker is there.
pub(super) const PING: [u8; 2] = [0xc0, 0];
/// The will is not to be published.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Of a message: wanted, or sent, at least once.
const QOS_1: u8 = 1;

/// What a broker sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// CONNACK, with its code.
    Consent(u8),
    /// A message.
    Publish {
        topic: String,
        payload: Vec<u8>,
        qos: u8,
        /// Its packet id; 0 where none is to be acknowledged.
        id: u16,
    },
    /// The head of a message that is too long; the rest of it is skipped.
    TooLong {
        topic: String,
        /// Its length in all.
        bytes: usize,
        qos: u8,
        id: u16,
    },
    /// A message of ours has arrived.
    Acked(u16),
    /// The answer to a subscription, with a code for each filter.
    Subscribed(u16, Vec<u8>),
    Pong,
    Disconnect,
    /// Sound, but not for a client.
    Other,
}

/// Where a packet's body begins, and its length; `None` while that is not all there. The error is a length that is none.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, ()> {
    let mut length = 0;
    for at in 1..5 {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((at + 1, length)));
        }
    }
    Err(())
}

/// The packet with this first byte and body; `None` when it is malformed.
pub(super) fn read(first: u8, body: &[u8]) -> Option<Incoming> {
    Some(match (first >> 4, body) {
        (2, [_, code]) => Incoming::Consent(*code),
        (3, _) => {
            let (topic, qos, id, rest) = head_of_message(first, body)?;
            let topic = String::from_utf8(topic.to_vec()).ok()?;
            Incoming::Publish { topic, payload: rest.to_vec(), qos, id }
        }
        (4, [a, b]) => Incoming::Acked(u16::from_be_bytes([*a, *b])),
        (9, [a, b, codes @ ..]) => Incoming::Subscribed(u16::from_be_bytes([*a, *b]), codes.to_vec()),
        (13, []) => Incoming::Pong,
        (14, []) => Incoming::Disconnect,
        (1 | 5..=8 | 10..=12, _) => Incoming::Other,
        _ => return None,
    })
}

/// Topic, QoS, packet id and what follows of a message; `None` when that is not all there, or malformed.
pub(super) fn head_of_message(first: u8, body: &[u8]) -> Option<(&[u8], u8, u16, &[u8])> {
    let (length, rest) = body.split_first_chunk()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let qos = first >> 1 & 3;
    if qos == 0 {
        return Some((topic, qos, 0, rest));
    }
    let (id, rest) = rest.split_first_chunk()?;
    let id = u16::from_be_bytes(*id);
    (qos < 3 && id != 0).then_some((topic, qos, id, rest))
}

/// Asks for consent, in a session that is new.
pub(super) fn connect(client_id: &str, keepalive: u16, will: &Message) -> Vec<u8> {
    const CLEAN: u8 = 0x02;
    const WILL: u8 = 0x04;
    let mut body = Vec::new();
    put(b"MQTT", &mut body);
    let flags = CLEAN | WILL | QOS_1 << 3 | u8::from(will.retain) << 5;
    body.extend_from_slice(&[4, flags]);
    body.extend_from_slice(&keepalive.to_be_bytes());
    for field in [client_id.as_bytes(), will.topic.as_bytes(), &will.payload] {
        put(field, &mut body);
    }
    framed(0x10, &body)
}

/// Subscribes to each filter.
pub(super) fn subscribe(id: u16, filters: &[String]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for filter in filters {
        put(filter.as_bytes(), &mut body);
        body.push(QOS_1);
    }
    framed(0x82, &body)
}

/// A message.
pub(super) fn publish(id: u16, message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    put(message.topic.as_bytes(), &mut body);
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(&message.payload);
    framed(0x30 | QOS_1 << 1 | u8::from(message.retain), &body)
}

/// Acknowledges a message.
pub(super) fn acknowledge(id: u16) -> Vec<u8> {
    framed(0x40, &id.to_be_bytes())
}

/// With its length first. None of ours comes near the longest.
fn put(field: &[u8], body: &mut Vec<u8>) {
    let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&field[..usize::from(length)]);
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    while length > 0x7f {
        packet.push(length as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use rumqttc::{
        ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, QoS, SubAck, Subscribe,
        SubscribeFilter, SubscribeReasonCode,
    };

    /// As another implementation reads it.
    fn theirs(bytes: &[u8]) -> Packet {
        Packet::read(&mut BytesMut::from(bytes), usize::MAX).expect("sound")
    }

    /// What another implementation writes, as it is read here.
    fn ours(packet: Packet) -> Option<Incoming> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("written");
        let (head, length) = frame(&bytes).expect("sound").expect("whole");
        assert_eq!(head + length, bytes.len());
        read(bytes[0], &bytes[head..])
    }

    fn message(length: usize, retain: bool) -> Message {
        Message { topic: "a/b".into(), payload: vec![7; length], retain }
    }

    #[test]
    fn what_is_written_is_what_others_read() {
        for length in [0, 5, 127, 128, 20_000] {
            for retain in [false, true] {
                let message = message(length, retain);
                let mut publish = Publish::new("a/b", QoS::AtLeastOnce, message.payload.clone());
                (publish.pkid, publish.retain) = (77, retain);
                assert_eq!(theirs(&super::publish(77, &message)), Packet::Publish(publish));
                let mut connect = Connect::new("node");
                connect.keep_alive = 30;
                let will = LastWill::new("a/b", message.payload.clone(), QoS::AtLeastOnce, retain);
                connect.last_will = Some(will);
                assert_eq!(theirs(&super::connect("node", 30, &message)), Packet::Connect(connect));
            }
        }
        let filters = ["a/#", "b"].map(str::to_owned);
        let each = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
        let mut subscribe = Subscribe::new_many(each);
        subscribe.pkid = 9;
        assert_eq!(theirs(&super::subscribe(9, &filters)), Packet::Subscribe(subscribe));
        assert_eq!(theirs(&acknowledge(300)), Packet::PubAck(PubAck::new(300)));
        assert_eq!((theirs(&PING), theirs(&DISCONNECT)), (Packet::PingReq, Packet::Disconnect));
    }

    #[test]
    fn what_others_write_is_read() {
        let refused = ConnAck::new(ConnectReturnCode::NotAuthorized, false);
        assert_eq!(ours(Packet::ConnAck(refused)), Some(Incoming::Consent(5)));
        let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure];
        assert_eq!(ours(Packet::SubAck(SubAck::new(3, codes))), Some(Incoming::Subscribed(3, vec![1, 0x80])));
        assert_eq!(ours(Packet::PubAck(PubAck::new(300))), Some(Incoming::Acked(300)));
        assert_eq!(ours(Packet::PingResp), Some(Incoming::Pong));
        assert_eq!(ours(Packet::PingReq), Some(Incoming::Other));
        for (qos, id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 77), (QoS::ExactlyOnce, 77)] {
            let mut publish = Publish::new("a/b", qos, vec![7; 300]);
            publish.pkid = id;
            let (topic, payload) = ("a/b".to_owned(), vec![7; 300]);
            let expected = Incoming::Publish { topic, payload, qos: qos as u8, id };
            assert_eq!(ours(Packet::Publish(publish)), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_none(first: u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(first, &body);
            let _ = frame(&body);
        }
    }
}
