//! Words of iptables for matches and statements. Each has its words: the compiler reports a missing one, because the
//! `match` below is exhaustive. A packet that the router itself sent is recognised by its source; sets become one rule
//! an element.

use crate::model::{
    AddressPair, AddressRange, Addresses, CtState, Family, FirewallTable, Interfaces, Mark, Match, Op,
    SetElement, SetName, Transport, protocol_number,
};
use gatewrt_protocol::Proto;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// iptables words for one match of a firewall rule.
#[derive(Debug, PartialEq, Eq)]
pub enum Words {
    /// The packet fits anyway.
    Always,
    /// The packet can't fit: it is of the other family.
    Never,
    /// The packet fits if one of these does.
    Any(Vec<String>),
    /// The packet fits if none of these does. iptables can negate one alone.
    None(Vec<String>),
}

impl Words {
    fn one(words: String) -> Self {
        Self::Any(vec![words])
    }

    fn only_if(self, fits: bool) -> Self {
        if fits { self } else { Self::Never }
    }
}

/// iptables words for a match of a firewall rule, in one address family.
pub fn condition(condition: &Match, table: &FirewallTable, family: Family) -> Words {
    match condition {
        Match::Iif(op, names) => interfaces(*op, "-i", names, table),
        Match::Oif(op, names) => interfaces(*op, "-o", names, table),
        Match::CameIn => Words::one("-m addrtype ! --src-type LOCAL".to_owned()),
        Match::Family(of) => Words::Always.only_if(*of == family),
        Match::Saddr(addresses) => self::addresses("-s", addresses, table, family),
        Match::Daddr(addresses) => self::addresses("-d", addresses, table, family),
        Match::Pair(of, set) | Match::Service(of, set) => {
            Words::Any(elements(table, set).iter().flat_map(element).collect()).only_if(*of == family)
        }
        Match::ToRouter(op) => Words::one(format!("-m addrtype {}--dst-type LOCAL", not(*op))),
        Match::CtState(state) => Words::one(format!("-m conntrack {}", ct_state(*state))),
        Match::CtOriginal => Words::one("-m conntrack --ctdir ORIGINAL".to_owned()),
        Match::CtDnat => Words::one("-m conntrack --ctstate DNAT".to_owned()),
        Match::CtReplyDaddr(prefix) => {
            Words::one(format!("-m conntrack --ctrepldst {prefix}")).only_if(Family::of(prefix) == family)
        }
        Match::CtMark(op, mark) => Words::one(format!("-m connmark {}--mark {}", not(*op), has_mark(*mark))),
        Match::Mark(op, mark) => Words::one(format!("-m mark {}--mark {}", not(*op), has_mark(*mark))),
        Match::Dport(Transport::Tcp, port) => Words::one(format!("-p tcp --dport {port}")),
        Match::Dport(Transport::Udp, port) => Words::one(format!("-p udp --dport {port}")),
        Match::UdpPorts(from, to) => Words::one(format!("-p udp --sport {from} --dport {to}")),
        Match::Icmpv6(first, last) => {
            let types = (*first..=*last).map(|kind| format!("-p icmpv6 --icmpv6-type {kind}"));
            Words::Any(types.collect()).only_if(family == Family::V6)
        }
        Match::TcpSyn => Words::one("-p tcp --tcp-flags SYN SYN".to_owned()),
        Match::TcpNotFirst => Words::one("-p tcp ! --syn".to_owned()),
    }
}

/// Value and mask of a packet mark, as iptables matches take them.
fn has_mark(Mark { value, mask }: Mark) -> String {
    format!("{value:#010x}/{mask:#010x}")
}

/// Value and mask of a packet mark, as iptables targets take them.
pub fn set_mark(Mark { value, mask }: Mark) -> String {
    format!("{value:#010x}/{mask:#x}")
}

fn not(op: Op) -> &'static str {
    match op {
        Op::Is => "",
        Op::IsNot => "! ",
    }
}

fn ct_state(state: CtState) -> &'static str {
    match state {
        CtState::Established => "--ctstate ESTABLISHED,RELATED",
        CtState::NotEstablished => "! --ctstate ESTABLISHED,RELATED",
        CtState::New => "--ctstate NEW",
        CtState::Invalid => "--ctstate INVALID",
    }
}

fn interfaces(op: Op, side: &str, names: &Interfaces, table: &FirewallTable) -> Words {
    let names = match names {
        Interfaces::One(name) => vec![name.to_string()],
        Interfaces::Set(set) => elements(table, set).iter().flat_map(element).collect(),
    };
    let all = names.iter().map(|name| format!("{side} {name}")).collect();
    match op {
        Op::Is => Words::Any(all),
        Op::IsNot => Words::None(all),
    }
}

fn addresses(side: &str, addresses: &Addresses, table: &FirewallTable, family: Family) -> Words {
    let (of, prefixes) = match addresses {
        Addresses::Prefix(prefix) => (Family::of(prefix), vec![prefix.to_string()]),
        Addresses::Set(of, set) => (*of, elements(table, set).iter().flat_map(element).collect()),
    };
    let all = prefixes.iter().map(|prefix| format!("{side} {prefix}")).collect();
    Words::Any(all).only_if(of == family)
}

/// Elements of a named set of the firewall table; none for a set that the table lacks.
fn elements<'a>(table: &'a FirewallTable, name: &SetName) -> &'a [SetElement] {
    table.set(name).map_or(&[], |set| &set.elements)
}

fn element(element: &SetElement) -> Vec<String> {
    match element {
        SetElement::Interface(name) => vec![name.to_string()],
        SetElement::Range(range) => prefixes(range),
        SetElement::Pair(pair) => pairs(pair),
    }
}

fn pairs(AddressPair { from, to, service }: &AddressPair) -> Vec<String> {
    let service = service.map(|service| {
        let ports = format!("--dport {}", ports(service.first, service.last));
        match service.proto {
            Proto::Tcp => format!(" -p tcp {ports}"),
            Proto::Udp => format!(" -p udp {ports}"),
            Proto::Icmp => format!(" -p {}", protocol_number(Proto::Icmp, Family::of_addr(to.first))),
        }
    });
    let (service, to) = (service.unwrap_or_default(), prefixes(to));
    let mut all = Vec::new();
    for from in prefixes(from) {
        all.extend(to.iter().map(|to| format!("-s {from} -d {to}{service}")));
    }
    all
}

fn ports(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

/// Prefixes that make up an address range: iptables knows ranges only with a module that routers may lack.
pub fn prefixes(AddressRange { first, last }: &AddressRange) -> Vec<String> {
    let bits = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => u128::from(Ipv4Addr::to_bits(*v4)),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let (width, mut next, end) = (if first.is_ipv4() { 32 } else { 128 }, bits(first), bits(last));
    let mut all = Vec::new();
    while next <= end {
        // The largest block that begins here and ends in the range. All of IPv6 has one address more than fits.
        let fits = (end - next).checked_add(1).map_or(128, u128::ilog2);
        let size = fits.min(next.trailing_zeros());
        let addr = match first {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from_bits(next as u32)),
            IpAddr::V6(_) => Ipv6Addr::from_bits(next).into(),
        };
        all.push(format!("{addr}/{}", width - size));
        match 1u128.checked_shl(size).and_then(|step| next.checked_add(step)) {
            Some(after) => next = after,
            None => break,
        }
    }
    all
}
