//! Routes over rtnetlink (`linux/rtnetlink.h`).

use super::{
    attr::{Message, Received, addr, attrs_after, u32_at},
    socket::{NetlinkError, Socket},
};
use crate::{model::Family, ownership::PROTOCOL};
use gatewrt_protocol::Prefix;
use nix::libc::{
    self, AF_INET, AF_INET6, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE, RT_SCOPE_UNIVERSE, RTM_F_CLONED, RTN_BLACKHOLE, RTN_PROHIBIT, RTN_THROW, RTN_UNICAST,
    RTN_UNREACHABLE,
};

const HEADER: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;

/// Action of a route on a packet, with the index of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Sent out of this interface, to its link.
    Device(u32),
    /// Sent to a gateway on this interface.
    Gateway(u32),
    /// Search goes on (throw).
    Throw,
    /// Dropped without an error (blackhole).
    Blackhole,
    /// Any other kind of route: several next hops, or an error.
    Other,
}

/// Route as rtnetlink lists it, if it is looked up for forwarding: no local, broadcast or multicast one, none of a
/// cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRoute {
    /// Routing table.
    pub table: u32,
    /// Destinations.
    pub prefix: Prefix,
    /// Metric; the lowest wins.
    pub metric: u32,
    /// Action on a packet.
    pub target: Target,
    /// Protocol number of its maker.
    pub protocol: u8,
    /// True for a route of some packets only: by type of service or source.
    pub narrowed: bool,
}

/// Filter of the routes that are listed, applied in the kernel where it can (since 4.20), and here.
#[derive(Debug, Clone, Copy)]
pub enum Filter {
    /// Routes with our protocol number.
    Ours,
    /// Routes of this table.
    Table(u32),
}

/// Lists the routes of a family that pass the filter.
pub fn routes(socket: &mut Socket, family: Family, filter: Filter) -> Result<Vec<FoundRoute>, NetlinkError> {
    let (protocol, table) = match filter {
        Filter::Ours => (PROTOCOL, None),
        Filter::Table(table) => (0, Some(table)),
    };
    let header = Header { family, len: 0, table: 0, protocol, scope: 0, kind: 0 };
    let mut message = Message::new(libc::RTM_GETROUTE, NLM_F_DUMP, &header.bytes());
    if let Some(table) = table {
        message.u32(RTA_TABLE, table);
    }
    let wanted = |r: &FoundRoute| match filter {
        Filter::Ours => r.protocol == PROTOCOL,
        Filter::Table(table) => r.table == table,
    };
    match socket.read(&message, |received| parse(received, family).filter(wanted)) {
        // No such table, or a kernel without the family.
        Err(error) if error.is(&[libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP]) => Ok(Vec::new()),
        found => found,
    }
}

/// Route of ours as the kernel takes it: to a device, or to none.
#[derive(Debug, Clone, Copy)]
pub struct OurRoute {
    /// Routing table.
    pub table: u32,
    /// Destinations.
    pub prefix: Prefix,
    /// Metric.
    pub metric: u32,
    /// The interface.
    pub device: Option<u32>,
    /// True for a blackhole, false for a throw, in a route without an interface.
    pub blackhole: bool,
}

/// Adds a route of ours; `EEXIST` where another one has its place.
pub fn add(socket: &mut Socket, route: &OurRoute) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route))
}

/// Replaces the route that has the place of this one. The kernel does not compare protocols here: the caller has.
pub fn replace(socket: &mut Socket, route: &OurRoute) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_NEWROUTE, NLM_F_REPLACE, route))
}

/// Deletes a route of ours: the kernel compares the protocol too, so that a look-alike stays.
pub fn delete(socket: &mut Socket, route: &OurRoute) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_DELROUTE, 0, route))
}

fn request(kind: u16, flags: i32, route: &OurRoute) -> Message {
    let family = Family::of(&route.prefix);
    let scope = match (kind, family, route.device) {
        // Any scope.
        (libc::RTM_DELROUTE, ..) => RT_SCOPE_NOWHERE,
        (_, Family::V4, Some(_)) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let header = Header {
        family,
        len: route.prefix.len(),
        table: u8::try_from(route.table).unwrap_or(0),
        protocol: PROTOCOL,
        scope,
        kind: match (route.device, route.blackhole) {
            (Some(_), _) => RTN_UNICAST,
            (None, true) => RTN_BLACKHOLE,
            (None, false) => RTN_THROW,
        },
    };
    let mut message = Message::new(kind, flags | NLM_F_ACK, &header.bytes());
    message.addr(RTA_DST, route.prefix.addr()).u32(RTA_TABLE, route.table);
    message.u32(RTA_PRIORITY, route.metric);
    if let Some(index) = route.device {
        message.u32(RTA_OIF, index);
    }
    message
}

/// Header of a route message: `struct rtmsg`.
struct Header {
    family: Family,
    len: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let family = if self.family == Family::V4 { AF_INET } else { AF_INET6 };
        let (table, protocol, scope, kind) = (self.table, self.protocol, self.scope, self.kind);
        [family as u8, self.len, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
    }
}

fn parse(received: Received<'_>, family: Family) -> Option<FoundRoute> {
    let body = received.body;
    let &[af, len, src_len, tos, table, protocol, _, kind, ..] = body else { return None };
    let wanted = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    if i32::from(af) != wanted || u32_at(body, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let (mut table, mut metric, mut device, mut dst) = (u32::from(table), 0, None, None);
    let (mut gateway, mut several) = (false, false);
    for (attr, payload) in attrs_after(body, HEADER) {
        match attr {
            RTA_DST => dst = addr(payload),
            RTA_OIF => device = u32_at(payload, 0),
            RTA_PRIORITY => metric = u32_at(payload, 0)?,
            RTA_TABLE => table = u32_at(payload, 0)?,
            RTA_GATEWAY | RTA_VIA => gateway = true,
            RTA_MULTIPATH | RTA_NH_ID => several = true,
            _ => (),
        }
    }
    let target = match (kind, device) {
        (RTN_THROW, _) => Target::Throw,
        // IPv6 says that it leads to lo.
        (RTN_BLACKHOLE, _) => Target::Blackhole,
        (RTN_UNICAST, Some(index)) if gateway => Target::Gateway(index),
        (RTN_UNICAST, Some(index)) if !several => Target::Device(index),
        (RTN_UNICAST | RTN_UNREACHABLE | RTN_PROHIBIT, _) => Target::Other,
        _ => return None,
    };
    let prefix = Prefix::new(dst.unwrap_or(family.unspecified()), len).ok()?;
    Some(FoundRoute { table, prefix, metric, target, protocol, narrowed: (src_len, tos) != (0, 0) })
}

impl Family {
    fn unspecified(self) -> std::net::IpAddr {
        match self {
            Self::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::attr::messages;

    #[test]
    fn own_route_is_read_back() {
        for (prefix, target) in [
            ("10.1.0.0/16", Target::Device(3)),
            ("fd00::/8", Target::Device(4)),
            ("0.0.0.0/0", Target::Throw),
            ("::/0", Target::Blackhole),
        ] {
            let prefix: Prefix = prefix.parse().expect("valid");
            let device = if let Target::Device(index) = target { Some(index) } else { None };
            let blackhole = target == Target::Blackhole;
            let ours = OurRoute { table: 26487, prefix, metric: 512, device, blackhole };
            let bytes = request(libc::RTM_NEWROUTE, 0, &ours).bytes(1);
            let found = messages(&bytes).find_map(|m| parse(m, Family::of(&prefix))).expect("a route");
            let expected =
                FoundRoute { table: 26487, prefix, metric: 512, target, protocol: PROTOCOL, narrowed: false };
            assert_eq!(found, expected);
        }
    }
}
