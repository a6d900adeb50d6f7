//! Bytes of netlink: messages built front to back, and the attributes of received ones. Numbers are in the machine's
//! order, as netlink has them, unless a comment says network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NLMSG_HEADER: usize = 16;
const ATTR_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are no part of an attribute's number.
const TYPE_MASK: u16 = 0x3fff;

/// Netlink request: `nlmsghdr`, the family's own header, attributes.
#[derive(Debug, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// Netlink request without attributes: `kind` is `nlmsg_type`; `NLM_F_REQUEST` is added to `flags`; `header`
    /// follows `nlmsghdr`.
    pub fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let mut bytes = vec![0; NLMSG_HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((flags | nix::libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        bytes.extend_from_slice(header);
        let mut message = Self(bytes);
        message.pad();
        message
    }

    /// Appends an attribute to the request, with at most 65531 bytes of payload.
    pub fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&((ATTR_HEADER + payload.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Appends an attribute with a number of 8 bits.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }

    /// Appends an attribute with a number of 16 bits.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute with a number of 32 bits.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute with a text and the zero byte that the kernel expects after it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends an attribute with an IP address, in network order as everywhere.
    pub fn addr(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(v4) => self.attr(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attr(kind, &v6.octets()),
        }
    }

    /// Appends an attribute that holds those that `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.attr(kind | NESTED, &[]);
        fill(self);
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// Bytes of the request as it is sent, with this sequence number.
    pub fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }

    fn pad(&mut self) {
        self.0.resize(align(self.0.len()), 0);
    }
}

/// Netlink message as received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// Bytes after `nlmsghdr`.
    pub body: &'a [u8],
}

/// Netlink messages of one datagram; the list ends where one is cut off.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let (kind, flags) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
        let sequence = u32_at(bytes, 8)?;
        let body = bytes.get(NLMSG_HEADER..len)?;
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some(Received { kind, flags, sequence, body })
    })
}

/// Attributes in the body of a netlink message (after the family's header) or in another attribute; the list ends where
/// one is cut off.
pub fn attrs(bytes: &[u8]) -> Attrs<'_> {
    Attrs(bytes)
}

/// Iterator over netlink attributes: the number and payload of each.
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// Payload of the first attribute with this number.
    pub fn value(mut self, wanted: u16) -> Option<&'a [u8]> {
        self.find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    // Not inlined: the many callers share one copy of the code.
    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let payload = self.0.get(ATTR_HEADER..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// Attributes in the body of a netlink message, after a header of `header` bytes.
pub fn attrs_after(body: &[u8], header: usize) -> Attrs<'_> {
    attrs(body.get(align(header)..).unwrap_or_default())
}

/// Number of 16 bits at offset `at`; `None` beyond the end.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Number of 32 bits at offset `at`; `None` beyond the end.
#[inline(never)]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Number of 64 bits at offset `at`; `None` beyond the end.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// IP address in an attribute's payload, of a family by its length: 4 or 16 bytes.
pub fn addr(payload: &[u8]) -> Option<IpAddr> {
    match payload.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(payload).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(payload).ok()?).into()),
        _ => None,
    }
}

/// Text in an attribute's payload, without the zero byte after it.
pub fn text(payload: &[u8]) -> Option<&str> {
    std::str::from_utf8(payload.split(|b| *b == 0).next()?).ok()
}

fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn built_attributes_are_read_back() {
        let mut message = Message::new(24, nix::libc::NLM_F_ACK, &[1, 2, 3]);
        message.u8(1, 7).text(2, "gw-home").nest(3, |m| {
            m.u32(1, 0x01020304).addr(2, "fd00::1".parse().expect("valid"));
        });
        let bytes = message.bytes(9);
        let [received] = messages(&bytes).collect::<Vec<_>>()[..] else { panic!("one message") };
        assert_eq!((received.kind, received.flags, received.sequence), (24, 5, 9));
        let found: Vec<_> = attrs_after(received.body, 3).collect();
        assert_eq!(found[0], (1, &[7][..]));
        assert_eq!(text(found[1].1), Some("gw-home"));
        let inner: Vec<_> = attrs(found[2].1).collect();
        assert_eq!(u32_at(inner[0].1, 0), Some(0x01020304));
        assert_eq!(addr(inner[1].1), "fd00::1".parse().ok());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                prop_assert!(attrs_after(message.body, 4).count() <= bytes.len());
            }
            prop_assert!(attrs(&bytes).count() <= bytes.len());
        }
    }
}
