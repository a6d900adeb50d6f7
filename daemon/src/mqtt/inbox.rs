//! Bytes from the broker to packets. A packet that is too long is skipped, not stored.

use super::LONGEST;
use bytes::{Buf, BytesMut};
use rumqttc::{Error, Packet};

const PUBLISH: u8 = 3;
/// Longest topic in bytes, far above any of ours.
const LONGEST_TOPIC: usize = 512;
/// Length in bytes from which a packet takes the buffer along, which would else keep the size of the longest packet
/// ever.
const LARGE: usize = 8192;

/// MQTT packet that arrived, or the head of one that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A packet.
    Packet(Packet),
    /// Head of a message that is too long; its body is skipped.
    TooLong {
        /// Topic.
        topic: String,
        /// Length of the packet in bytes.
        bytes: usize,
        /// Packet id, if it must be acknowledged.
        ack: Option<u16>,
    },
}

/// Buffer for the bytes of an MQTT packet that has not arrived whole: at most one packet's worth and one read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) buffer: BytesMut,
    skip: usize,
}

impl Inbox {
    /// Takes the next MQTT packet out of the buffer; `None` when more bytes are needed.
    pub(super) fn take(&mut self) -> Result<Option<Incoming>, Error> {
        let skipped = self.skip.min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        let held = self.buffer.len();
        match Packet::read(&mut self.buffer, LONGEST) {
            Ok(packet) => {
                if held - self.buffer.len() > LARGE {
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                Ok(Some(Incoming::Packet(packet)))
            }
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(Error::PayloadSizeLimitExceeded(length)) => self.take_head(length),
            Err(error) => Err(error),
        }
    }

    /// Takes the head of a message that is too long, of `length` bytes after its length field; its body is skipped.
    fn take_head(&mut self, length: usize) -> Result<Option<Incoming>, Error> {
        let first = *self.buffer.first().ok_or(Error::MalformedPacket)?;
        let acked = first & 0b0110 != 0;
        if first >> 4 != PUBLISH {
            return Err(Error::PayloadSizeLimitExceeded(length));
        }
        let head = 1 + self.buffer.iter().skip(1).take_while(|&&byte| byte & 0x80 != 0).count() + 1;
        let Some(topic_length) = number(&self.buffer, head) else { return Ok(None) };
        let topic_length = usize::from(topic_length);
        if topic_length > LONGEST_TOPIC {
            return Err(Error::MalformedPacket);
        }
        let id_at = head + 2 + topic_length;
        if self.buffer.len() < id_at + 2 {
            return Ok(None);
        }
        let topic = String::from_utf8_lossy(&self.buffer[head + 2..id_at]).into_owned();
        let ack = number(&self.buffer, id_at).filter(|_| acked);
        self.skip = head + length;
        Ok(Some(Incoming::TooLong { topic, bytes: head + length, ack }))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rumqttc::{Publish, QoS};

    fn publish(payload: usize, qos: QoS) -> BytesMut {
        let mut publish = Publish::new("a/b", qos, vec![b'x'; payload]);
        publish.pkid = if qos == QoS::AtMostOnce { 0 } else { 77 };
        let mut bytes = BytesMut::new();
        Packet::Publish(publish).write(&mut bytes, usize::MAX).expect("written");
        bytes
    }

    /// Everything taken from `bytes` when they arrive in parts of `part`, and the most that was ever held.
    fn take_all(bytes: &[u8], part: usize) -> (Vec<Incoming>, usize) {
        let (mut inbox, mut taken, mut most) = (Inbox::default(), Vec::new(), 0);
        for part in bytes.chunks(part) {
            inbox.buffer.extend_from_slice(part);
            while let Some(incoming) = inbox.take().expect("sound") {
                taken.push(incoming);
            }
            most = most.max(inbox.buffer.len());
        }
        (taken, most)
    }

    #[test]
    fn too_long_message_is_reported_and_the_next_one_read() {
        for (qos, ack) in [(QoS::AtLeastOnce, Some(77)), (QoS::AtMostOnce, None)] {
            let mut bytes = publish(3 * LONGEST, qos);
            let length = bytes.len();
            bytes.extend_from_slice(&publish(5, qos));
            for part in [1, 1000, 4096, usize::MAX] {
                let (taken, most) = take_all(&bytes, part);
                assert_eq!(taken[0], Incoming::TooLong { topic: "a/b".into(), bytes: length, ack });
                assert!(matches!(&taken[1], Incoming::Packet(Packet::Publish(p)) if p.payload.len() == 5));
                assert_eq!(taken.len(), 2);
                assert!(most <= 4096 || part == usize::MAX, "{most} bytes were held");
            }
        }
    }

    #[test]
    fn longest_record_is_read() {
        let (taken, _) = take_all(&publish(gatewrt_protocol::MAX_ASSIGNMENT, QoS::AtLeastOnce), 1400);
        assert!(matches!(&taken[..], [Incoming::Packet(Packet::Publish(_))]));
    }

    #[test]
    fn buffer_gives_back_the_room_of_a_long_message() {
        let long = publish(gatewrt_protocol::MAX_ASSIGNMENT, QoS::AtLeastOnce);
        let mut inbox = Inbox::default();
        for _ in 0..3 {
            for part in long.chunks(4096) {
                inbox.buffer.reserve(4096);
                inbox.buffer.extend_from_slice(part);
                drop(inbox.take().expect("sound"));
            }
            inbox.buffer.reserve(4096);
            assert!(inbox.buffer.capacity() < 3 * 4096, "{}", inbox.buffer.capacity());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut inbox = Inbox { buffer: BytesMut::from(&bytes[..]), skip: 0 };
            while let Ok(Some(_)) = inbox.take() {}
        }

        #[test]
        fn any_packet_body_parses_or_fails(first: u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut inbox = Inbox::default();
            inbox.buffer.extend_from_slice(&[first, body.len() as u8]);
            inbox.buffer.extend_from_slice(&body);
            while let Ok(Some(_)) = inbox.take() {}
        }
    }
}
