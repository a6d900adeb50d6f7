//! Connection tracking of the kernel (`linux/netfilter/nfnetlink_conntrack.h`): entries are read, and those that the caller
//! forbids are deleted, which ends their flow offload too.
//!
//! The other end of a connection that is to take another way does not know of the cut and goes on answering. Such a late
//! answer would open a connection from outside, and the host's next packet would count as the reply to it and stay out of
//! the host's scope. So late answers are expected: an entry with their tuple, but not that of the host's packets, stays
//! for a minute after the last of them. Our table drops what belongs to such an entry, known by where its replies would
//! go: addresses that nobody has (0.0.0.0/8, RFC 1122; 100::/64, RFC 6666).

use super::{
    KernelError,
    netlink::{
        attr::{Message, Received, addr, attrs, attrs_after},
        socket::{NetlinkError, Socket},
    },
};
use crate::{model::Flow, plan::FlowVerdict};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{
    AF_UNSPEC, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, IPPROTO_TCP, IPPROTO_UDP,
    NFNL_SUBSYS_CTNETLINK, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// File that exists once the kernel tracks connections.
const TRACKING: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Time for which late answers are expected, in seconds. Each answer prolongs it: UDP to 30 seconds, TCP to two minutes.
const LATE_FOR: u32 = 60;
/// Attempts to make an entry: an answer that comes just then makes another one.
const LATE_ATTEMPTS: usize = 5;

const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
/// `struct nfgenmsg`: family, version, resource.
const NFGENMSG: usize = 4;
const NLA_F_NESTED: u16 = 1 << 15;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const TCP_CONNTRACK_TIME_WAIT: u8 = 7;
const CTA_TIMEOUT: u16 = 7;
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
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Cuts the tracked connections that `check` does not keep; returns their number.
pub fn cut(check: &mut dyn FnMut(&Flow) -> FlowVerdict) -> Result<usize, KernelError> {
    if Path::new(TRACKING).exists() { delete(check).map_err(explain) } else { Ok(0) }
}

/// Reads the tracked connections once, and fails where the kernel does not show them.
pub fn check() -> Result<(), KernelError> {
    if Path::new(TRACKING).exists() { dump(&mut |_| ()).map(drop).map_err(explain) } else { Ok(()) }
}

fn explain(error: NetlinkError) -> KernelError {
    match error.errno {
        EINVAL | EOPNOTSUPP | EPROTONOSUPPORT => KernelError::Missing(
            "this kernel does not show its connections: those that stand go on when they are forbidden; install \
             kmod-nf-conntrack-netlink"
                .to_owned(),
        ),
        _ => error.at("look through the connections"),
    }
}

fn dump(take: &mut dyn FnMut(Received<'_>)) -> Result<Socket, NetlinkError> {
    let mut socket = Socket::open(NETLINK_NETFILTER)?;
    socket.read(&message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC as u8), |received| {
        take(received);
        None::<()>
    })?;
    Ok(socket)
}

fn delete(check: &mut dyn FnMut(&Flow) -> FlowVerdict) -> Result<usize, NetlinkError> {
    let (mut cuts, mut late) = (Vec::new(), 0);
    let mut socket = dump(&mut |received| {
        let Some((flow, deletion)) = flow(received).zip(deletion(received)) else { return };
        // Entries for late answers are ours, and made again where they are still needed.
        let is_late = is_late(&flow);
        let verdict = if is_late { FlowVerdict::Forbidden } else { check(&flow) };
        let answers = (verdict == FlowVerdict::Rerouted).then(|| answers(received)).flatten();
        late += usize::from(is_late);
        cuts.extend((verdict != FlowVerdict::Keep).then_some((deletion, answers)));
    })?;
    // All deletions come first: no entry may have the tuple of one that is still there.
    for (deletion, _) in &cuts {
        gone(socket.change(deletion))?;
    }
    let answers = cuts.iter().filter_map(|(_, answers)| answers.as_ref());
    for (number, answers) in (1..).zip(answers) {
        answers.expect(&mut socket, number)?;
    }
    Ok(cuts.len().saturating_sub(late))
}

/// Turns the failure to delete a connection that has ended by itself into success.
fn gone(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.is(&[ENOENT]) => Ok(()),
        outcome => outcome,
    }
}

fn is_late(flow: &Flow) -> bool {
    match flow.seen {
        IpAddr::V4(v4) => v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.octets().starts_with(&[1, 0, 0, 0, 0, 0, 0, 0]),
    }
}

/// Address that nobody has, as the destination of the replies to late answers. Each `number` gives another one: no two
/// entries may have the same tuple.
fn nowhere(like: IpAddr, number: u32) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number & 0x00ff_ffff).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(0x0100 << 112 | u128::from(number)).into(),
    }
}

/// Late answers that the other end of a cut connection may still send.
struct Answers {
    family: u8,
    /// Tuple as the kernel has it; the fields below are parsed from it.
    tuple: Vec<u8>,
    to: IpAddr,
    proto: u8,
    ports: [u16; 2],
    zone: Option<Vec<u8>>,
}

fn answers(received: Received<'_>) -> Option<Answers> {
    let attr = |kind| attrs_after(received.body, NFGENMSG).value(kind);
    let raw = attr(CTA_TUPLE_REPLY)?;
    let Tuple { dst: to, proto, ports, .. } = tuple(raw)?;
    let (family, zone) = (*received.body.first()?, attr(CTA_ZONE).map(<[u8]>::to_vec));
    let has_ports = [IPPROTO_TCP, IPPROTO_UDP].contains(&i32::from(proto));
    has_ports.then(|| Answers { family, tuple: raw.to_vec(), to, proto, ports, zone })
}

impl Answers {
    /// Makes the connection entry that expects these late answers, in place of one that an answer has opened since.
    fn expect(&self, socket: &mut Socket, number: u32) -> Result<(), NetlinkError> {
        let own = |command, flags| {
            let mut message = message(command, flags | NLM_F_ACK, self.family);
            message.attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &self.tuple);
            message
        };
        let mut entry = own(IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL);
        let [from_port, to_port] = self.ports.map(u16::to_be_bytes);
        entry.nest(CTA_TUPLE_REPLY, |reply| {
            reply.nest(CTA_TUPLE_IP, |ip| {
                let [src, dst] = if self.to.is_ipv4() {
                    [CTA_IP_V4_SRC, CTA_IP_V4_DST]
                } else {
                    [CTA_IP_V6_SRC, CTA_IP_V6_DST]
                };
                ip.addr(src, self.to).addr(dst, nowhere(self.to, number));
            });
            reply.nest(CTA_TUPLE_PROTO, |proto| {
                proto.u8(CTA_PROTO_NUM, self.proto);
                proto.attr(CTA_PROTO_SRC_PORT, &to_port).attr(CTA_PROTO_DST_PORT, &from_port);
            });
        });
        if i32::from(self.proto) == IPPROTO_TCP {
            // In the last state: packets that belong to the entry do not open it again.
            entry.nest(CTA_PROTOINFO, |info| {
                info.nest(CTA_PROTOINFO_TCP, |tcp| {
                    tcp.u8(CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_TIME_WAIT);
                });
            });
        }
        entry.attr(CTA_TIMEOUT, &LATE_FOR.to_be_bytes());
        let mut other = own(IPCTNL_MSG_CT_DELETE, 0);
        for message in [&mut entry, &mut other] {
            if let Some(zone) = &self.zone {
                message.attr(CTA_ZONE, zone);
            }
        }
        for _ in 0..LATE_ATTEMPTS {
            match socket.change(&entry) {
                Err(error) if error.is(&[EEXIST]) => gone(socket.change(&other))?,
                outcome => return outcome,
            }
        }
        Ok(())
    }
}

fn message(command: u16, flags: i32, family: u8) -> Message {
    Message::new((NFNL_SUBSYS_CTNETLINK as u16) << 8 | command, flags, &[family, 0, 0, 0])
}

/// Netlink request to delete a tracked connection: its tuple as the kernel has it, and the zone and id that tell it
/// from others with the same tuple.
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
    let Tuple { src, dst, proto, ports: [_, port] } = original?;
    let (answers, seen) = reply.map_or((dst, src), |reply| (reply.src, reply.dst));
    Some(Flow { src, dst, proto, port, answers, seen, mark })
}

struct Tuple {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    /// Source and destination; 0 where the protocol has none.
    ports: [u16; 2],
}

fn tuple(tuple: &[u8]) -> Option<Tuple> {
    let (mut src, mut dst, mut proto, mut ports) = (None, None, None, [0; 2]);
    for (kind, payload) in attrs(tuple).flat_map(|(kind, nested)| attrs(nested).map(move |a| (kind, a))) {
        match (kind, payload) {
            (CTA_TUPLE_IP, (CTA_IP_V4_SRC | CTA_IP_V6_SRC, bytes)) => src = addr(bytes),
            (CTA_TUPLE_IP, (CTA_IP_V4_DST | CTA_IP_V6_DST, bytes)) => dst = addr(bytes),
            (CTA_TUPLE_PROTO, (CTA_PROTO_NUM, bytes)) => proto = bytes.first().copied(),
            (CTA_TUPLE_PROTO, (kind @ (CTA_PROTO_SRC_PORT | CTA_PROTO_DST_PORT), bytes)) => {
                ports[usize::from(kind == CTA_PROTO_DST_PORT)] = u16::from_be_bytes(bytes.try_into().ok()?);
            }
            _ => (),
        }
    }
    Some(Tuple { src: src?, dst: dst?, proto: proto?, ports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::attr::messages;
    use proptest::prelude::*;

    /// Message of a dump, as the kernel sends it.
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
    fn dumped_connection_is_parsed_and_its_deletion_names_it() {
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
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let received = Received { kind: 0, flags: 0, sequence: 0, body: &bytes };
            let _ = (flow(received), deletion(received), answers(received));
        }
    }
}
