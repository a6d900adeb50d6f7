//! The connections that the kernel tracks (`linux/netfilter/nfnetlink_conntrack.h`): looked through, and forgotten
//! where they are forbidden. Which those are is for the caller to say. To forget one ends its flow offload too.

use super::{
    KernelError,
    netlink::{
        attr::{Message, Received, addr, attrs, attrs_after},
        socket::{NetlinkError, Socket},
    },
};
use crate::plan::Flow;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{
    AF_UNSPEC, EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, NFNL_SUBSYS_CTNETLINK, NLM_F_ACK, NLM_F_DUMP,
};
use std::{net::IpAddr, path::Path};

/// There as soon as the kernel tracks connections.
const TRACKING: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
/// `struct nfgenmsg`: family, version, resource.
const NFGENMSG: usize = 4;
const NLA_F_NESTED: u16 = 1 << 15;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Has the kernel forget the connections that `is_forbidden` names; gives how many those were.
pub fn cut(is_forbidden: &mut dyn FnMut(&Flow) -> bool) -> Result<usize, KernelError> {
    if !Path::new(TRACKING).exists() {
        return Ok(0);
    }
    forget(is_forbidden).map_err(|error| match error.errno {
        EINVAL | EOPNOTSUPP | EPROTONOSUPPORT => KernelError::Missing(
            "this kernel does not show its connections: those that stand go on when they are forbidden; install \
             kmod-nf-conntrack-netlink"
                .to_owned(),
        ),
        _ => error.at("look through the connections"),
    })
}

fn forget(is_forbidden: &mut dyn FnMut(&Flow) -> bool) -> Result<usize, NetlinkError> {
    let mut socket = Socket::open(NETLINK_NETFILTER)?;
    let deletions = socket.read(&message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC as u8), |received| {
        flow(received).filter(&mut *is_forbidden).and_then(|_| deletion(received))
    })?;
    for deletion in &deletions {
        match socket.change(deletion) {
            // It ended by itself meanwhile.
            Err(error) if error.is(&[ENOENT]) => (),
            outcome => outcome?,
        }
    }
    Ok(deletions.len())
}

fn message(command: u16, flags: i32, family: u8) -> Message {
    Message::new((NFNL_SUBSYS_CTNETLINK as u16) << 8 | command, flags, &[family, 0, 0, 0])
}

/// What asks for the end of a connection: its tuple as it came, with what tells it from others that have the same.
fn deletion(received: Received<'_>) -> Option<Message> {
    let mut message = message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, *received.body.first()?);
    for (kind, payload) in attrs_after(received.body, NFGENMSG) {
        match kind {
            CTA_TUPLE_ORIG => message.attr(kind | NLA_F_NESTED, payload),
            CTA_ZONE | CTA_ID => message.attr(kind, payload),
            _ => continue,
        };
    }
    Some(message)
}

fn flow(received: Received<'_>) -> Option<Flow> {
    let (mut original, mut reply, mut mark) = (None, None, 0);
    for (kind, payload) in attrs_after(received.body, NFGENMSG) {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(payload),
            CTA_TUPLE_REPLY => reply = tuple(payload),
            CTA_MARK => mark = u32::from_be_bytes(payload.try_into().ok()?),
            _ => (),
        }
    }
    let Tuple { src, dst, proto, port } = original?;
    let (answers, seen) = reply.map_or((dst, src), |reply| (reply.src, reply.dst));
    Some(Flow { src, dst, proto, port, answers, seen, mark })
}

struct Tuple {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    port: u16,
}

fn tuple(tuple: &[u8]) -> Option<Tuple> {
    let (mut src, mut dst, mut proto, mut port) = (None, None, None, 0);
    for (kind, payload) in attrs(tuple).flat_map(|(kind, nested)| attrs(nested).map(move |a| (kind, a))) {
        match (kind, payload) {
            (CTA_TUPLE_IP, (CTA_IP_V4_SRC | CTA_IP_V6_SRC, bytes)) => src = addr(bytes),
            (CTA_TUPLE_IP, (CTA_IP_V4_DST | CTA_IP_V6_DST, bytes)) => dst = addr(bytes),
            (CTA_TUPLE_PROTO, (CTA_PROTO_NUM, bytes)) => proto = bytes.first().copied(),
            (CTA_TUPLE_PROTO, (CTA_PROTO_DST_PORT, bytes)) => {
                port = u16::from_be_bytes(bytes.try_into().ok()?)
            }
            _ => (),
        }
    }
    Some(Tuple { src: src?, dst: dst?, proto: proto?, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::attr::messages;
    use proptest::prelude::*;

    /// A message of a dump, as the kernel sends it.
    fn dumped([src, dst]: [&str; 2], [answers, seen]: [&str; 2], port: u16) -> Vec<u8> {
        let mut message = message(0, 0, 2);
        for (kind, src, dst) in [(CTA_TUPLE_ORIG, src, dst), (CTA_TUPLE_REPLY, answers, seen)] {
            let (src, dst) = (src.parse().expect("valid"), dst.parse().expect("valid"));
            message.nest(kind, |tuple| {
                tuple.nest(CTA_TUPLE_IP, |ip| {
                    ip.addr(CTA_IP_V4_SRC, src).addr(CTA_IP_V4_DST, dst);
                });
                tuple.nest(CTA_TUPLE_PROTO, |proto| {
                    proto.u8(CTA_PROTO_NUM, 6).attr(2, &[0, 1]).attr(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                });
            });
        }
        // Status; then the mark.
        message.u32(3, 9).attr(CTA_MARK, &[3, 0, 0, 1]).attr(CTA_ZONE, &[0, 7]).attr(CTA_ID, &[1, 2, 3, 4]);
        message.bytes(1)
    }

    fn received(bytes: &[u8]) -> Received<'_> {
        messages(bytes).next().expect("a message")
    }

    #[test]
    fn a_connection_is_read_and_named_again() {
        let bytes = dumped(["10.90.0.7", "192.168.1.5"], ["192.168.1.9", "10.0.0.1"], 443);
        let addr = |text: &str| text.parse().expect("valid");
        let (src, dst) = (addr("10.90.0.7"), addr("192.168.1.5"));
        let (answers, seen) = (addr("192.168.1.9"), addr("10.0.0.1"));
        let expected = Flow { src, dst, proto: 6, port: 443, answers, seen, mark: 0x0300_0001 };
        assert_eq!(flow(received(&bytes)), Some(expected));
        let deletion = deletion(received(&bytes)).expect("a request").bytes(2);
        assert_eq!((received(&deletion).kind, received(&deletion).body[0]), (0x102, 2));
        assert_eq!(flow(received(&deletion)), Some(Flow { answers: dst, seen: src, mark: 0, ..expected }));
        let kinds: Vec<_> = attrs_after(received(&deletion).body, NFGENMSG).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let received = Received { kind: 0, flags: 0, sequence: 0, body: &bytes };
            let _ = (flow(received), deletion(received));
        }
    }
}
