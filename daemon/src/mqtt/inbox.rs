//! Bytes from the broker to packets. A packet that is too long is skipped, not stored.

use super::{
    LONGEST, LinkError,
    packet::{self, Incoming},
};

const PUBLISH: u8 = 3;
/// No topic of ours comes near it.
const LONGEST_TOPIC: usize = 512;
/// A packet that is longer takes the buffer along, which would else stay as large as the longest ever was.
const LARGE: usize = 8192;

/// Bytes that are no packet yet: at most one packet's worth and one read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) buffer: Vec<u8>,
    skip: usize,
}

impl Inbox {
    /// The next packet; `None` when more bytes are needed.
    pub(super) fn take(&mut self) -> Result<Option<Incoming>, LinkError> {
        let skipped = self.skip.min(self.buffer.len());
        self.drop_first(skipped);
        self.skip -= skipped;
        let Some((head, length)) = packet::frame(&self.buffer).map_err(|()| malformed())? else {
            return Ok(None);
        };
        let bytes = head + length;
        if length > LONGEST {
            return self.take_head(head, bytes);
        }
        let Some(body) = self.buffer.get(head..bytes) else { return Ok(None) };
        let incoming = packet::read(self.buffer[0], body).ok_or_else(malformed)?;
        self.drop_first(bytes);
        Ok(Some(incoming))
    }

    /// The head of a message of so many bytes.
    fn take_head(&mut self, head: usize, bytes: usize) -> Result<Option<Incoming>, LinkError> {
        let (first, body) = (self.buffer[0], &self.buffer[head..]);
        if first >> 4 != PUBLISH {
            return Err(malformed());
        }
        let Some((topic, qos, id, _)) = packet::head_of_message(first, body) else {
            return if body.len() > LONGEST_TOPIC { Err(malformed()) } else { Ok(None) };
        };
        let topic = String::from_utf8_lossy(topic).into_owned();
        self.skip = bytes;
        Ok(Some(Incoming::TooLong { topic, bytes, qos, id }))
    }

    fn drop_first(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        if bytes > LARGE {
            self.buffer.shrink_to_fit();
        }
    }
}

fn malformed() -> LinkError {
    LinkError::Protocol("a malformed packet".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use rumqttc::{Packet, Publish, QoS};

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
    fn a_message_that_is_too_long_is_told_of_and_what_follows_is_read() {
        for (qos, id) in [(QoS::AtLeastOnce, 77), (QoS::AtMostOnce, 0)] {
            let mut bytes = publish(3 * LONGEST, qos);
            let length = bytes.len();
            bytes.extend_from_slice(&publish(5, qos));
            for part in [1, 1000, 4096, usize::MAX] {
                let (taken, most) = take_all(&bytes, part);
                let too_long = Incoming::TooLong { topic: "a/b".into(), bytes: length, qos: qos as u8, id };
                assert_eq!(taken[0], too_long);
                assert!(matches!(&taken[1], Incoming::Publish { payload, .. } if payload.len() == 5));
                assert_eq!(taken.len(), 2);
                assert!(most <= 4096 || part == usize::MAX, "{most} bytes were held");
            }
        }
    }

    #[test]
    fn the_longest_record_is_taken() {
        let (taken, _) = take_all(&publish(gatewrt_protocol::MAX_ASSIGNMENT, QoS::AtLeastOnce), 1400);
        assert!(matches!(&taken[..], [Incoming::Publish { .. }]));
    }

    #[test]
    fn the_buffer_is_as_large_as_what_it_holds() {
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
        fn any_bytes_are_packets_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut inbox = Inbox { buffer: bytes, skip: 0 };
            while let Ok(Some(_)) = inbox.take() {}
        }

        #[test]
        fn any_body_of_any_packet_is_a_packet_or_an_error(first: u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut inbox = Inbox::default();
            inbox.buffer.extend_from_slice(&[first, body.len() as u8]);
            inbox.buffer.extend_from_slice(&body);
            while let Ok(Some(_)) = inbox.take() {}
        }
    }
}
