//! Typed content of our firewall table: sets, chains and rules. `plan` builds it, the kernel's firewall drivers render
//! it for nftables and iptables. There is a [`Match`] and a [`Statement`] for what our rules need, and no more.

use super::super::{Family, IfName};
use gatewrt_protocol::{Prefix, Proto, Service};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, sync::Arc};

/// State of our firewall table, observed or desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruleset {
    /// Table with the content that we wrote. Shared: it can be large, and is held in many places.
    Known(Arc<FirewallTable>),
    /// Table that another program changed, or that can't be read. Desired: it stays as it is.
    Unknown,
}

impl From<FirewallTable> for Ruleset {
    fn from(table: FirewallTable) -> Self {
        Self::Known(Arc::new(table))
    }
}

/// Content of our firewall table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallTable {
    /// Sets, each with a name of its own.
    pub sets: Vec<FirewallSet>,
    /// Chains, each with a name of its own. Base chains of one hook and priority run in this order.
    pub chains: Vec<Chain>,
}

impl FirewallTable {
    /// Set of this name in the firewall table.
    pub fn set(&self, name: &SetName) -> Option<&FirewallSet> {
        self.sets.iter().find(|set| set.name == *name)
    }

    /// Chain of this name in the firewall table.
    pub fn chain(&self, name: &ChainName) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == *name)
    }
}

/// Name of a set in our firewall table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetName(pub String);

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Named set of our firewall table that rules match against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallSet {
    /// Name.
    pub name: SetName,
    /// Kind of its elements.
    pub kind: SetKind,
    /// Elements, all of that kind; no two overlap.
    pub elements: Vec<SetElement>,
}

/// Kind of the elements in a firewall set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetKind {
    /// Interface names.
    Interfaces,
    /// Ranges of addresses.
    Addresses(Family),
    /// Source and destination ranges.
    Pairs(Family),
    /// Source and destination ranges, with a service.
    Services(Family),
}

/// Element of a firewall set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SetElement {
    /// Element of [`SetKind::Interfaces`].
    Interface(IfName),
    /// Element of [`SetKind::Addresses`].
    Range(AddressRange),
    /// Element of [`SetKind::Pairs`], and with a service of [`SetKind::Services`].
    Pair(AddressPair),
}

/// Range of addresses from the first to the last, both included and of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressRange {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
}

/// Range of source addresses and range of destination addresses of connections, with their service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressPair {
    /// Sources.
    pub from: AddressRange,
    /// Destinations.
    pub to: AddressRange,
    /// Service there; `None` is all services.
    pub service: Option<Service>,
}

/// Name of a chain in our firewall table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainName(pub String);

impl From<&str> for ChainName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Chain of firewall rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Name.
    pub name: ChainName,
    /// Place in the kernel's packet path; `None` for a chain that only other chains lead to.
    pub base: Option<BaseChain>,
    /// Rules in order.
    pub rules: Vec<FirewallRule>,
}

/// Place of a base chain in the kernel's packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseChain {
    /// Type.
    pub kind: ChainType,
    /// Hook.
    pub hook: Hook,
    /// Order among the chains of that hook.
    pub priority: Priority,
    /// Fate of packets that no rule decides on.
    pub policy: ChainPolicy,
}

/// Type of a base chain, which decides which packets it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainType {
    /// Sees all packets.
    Filter,
    /// Sees the first packet of each connection, and may translate its addresses.
    Nat,
    /// Sees all packets; one whose mark it changes is routed again.
    Route,
}

/// Netfilter hook of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To the router itself.
    Input,
    /// Through the router.
    Forward,
    /// From the router itself.
    Output,
    /// After routing.
    Postrouting,
}

/// Order of a base chain among the chains of one hook (`enum nf_ip_hook_priorities` in `linux/netfilter_ipv4.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// -150, before routing by mark.
    Mangle,
    /// -105, just before others translate destinations at -100.
    BeforeDstNat,
    /// 0
    Filter,
    /// 100
    SrcNat,
}

/// Policy of a base chain for packets that no rule decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainPolicy {
    /// Packets go on.
    Accept,
    /// Packets are dropped.
    Drop,
}

/// Rule of a firewall chain: a packet that all matches fit meets the statements in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// Matches; none fits every packet.
    pub matches: Vec<Match>,
    /// Statements; only the last may end the chain.
    pub statements: Vec<Statement>,
    /// Comment that shows in listings.
    pub comment: Option<String>,
}

impl FirewallRule {
    /// Firewall rule with one statement.
    pub fn new(matches: Vec<Match>, statement: Statement) -> Self {
        Self { matches, statements: vec![statement], comment: None }
    }

    /// Adds one more statement to the firewall rule.
    pub fn and(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Adds a comment to the firewall rule.
    pub fn comment(self, comment: &str) -> Self {
        Self { comment: Some(comment.to_owned()), ..self }
    }
}

/// Condition of a firewall rule on a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Match {
    /// Interface that it came in by.
    Iif(Op, Interfaces),
    /// Interface that it leaves by.
    Oif(Op, Interfaces),
    /// Packet came in by an interface: the router did not send it itself.
    CameIn,
    /// Family.
    Family(Family),
    /// Source address.
    Saddr(Addresses),
    /// Destination address.
    Daddr(Addresses),
    /// Source and destination are an element of a set of [`SetKind::Pairs`].
    Pair(Family, SetName),
    /// Source, destination and service are an element of a set of [`SetKind::Services`].
    Service(Family, SetName),
    /// Destination is an address of the router.
    ToRouter(Op),
    /// State of its connection.
    CtState(CtState),
    /// Packet has the direction of its connection's first packet.
    CtOriginal,
    /// Destination of the packet's connection was translated.
    CtDnat,
    /// Destination of its connection's answers.
    CtReplyDaddr(Prefix),
    /// Mark of its connection.
    CtMark(Op, Mark),
    /// Mark of the packet itself.
    Mark(Op, Mark),
    /// Destination port.
    Dport(Transport, u16),
    /// Source and destination port of UDP.
    UdpPorts(u16, u16),
    /// ICMPv6 type, from the first to the last.
    Icmpv6(u8, u8),
    /// TCP with SYN set: both packets that open a connection.
    TcpSyn,
    /// TCP that is no first packet of a connection: of SYN, ACK, FIN and RST it has not SYN alone.
    TcpNotFirst,
}

/// Comparison in a match of a firewall rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Equal.
    Is,
    /// Unequal.
    IsNot,
}

/// Interfaces that a firewall rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interfaces {
    /// One.
    One(IfName),
    /// Those of a set of [`SetKind::Interfaces`].
    Set(SetName),
}

/// Addresses that a firewall rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addresses {
    /// Those of a prefix.
    Prefix(Prefix),
    /// Those of a set of [`SetKind::Addresses`].
    Set(Family, SetName),
}

/// State of a packet's connection, as connection tracking knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CtState {
    /// Established, or related to one that is.
    Established,
    /// Anything but established and related.
    NotEstablished,
    /// New.
    New,
    /// Invalid: it belongs to no connection and opens none.
    Invalid,
}

/// Value of certain bits in a packet's or connection's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Value of those bits.
    pub value: u32,
    /// Bits that count; others belong to other programs.
    pub mask: u32,
}

/// Transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// Action of a firewall rule on a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// Our chains end here; chains of others still decide on the packet.
    Accept,
    /// The packet is dropped, and nobody is told.
    Drop,
    /// The packet is refused: ICMP tells its sender that it is prohibited.
    Reject,
    /// A TCP packet is answered with a reset.
    RejectReset,
    /// Back to the chain that led here.
    Return,
    /// On to another chain, and back at its end.
    Jump(ChainName),
    /// On to another chain; its end leads where this chain's end leads.
    Goto(ChainName),
    /// Sets bits of the packet's mark.
    SetMark(Mark),
    /// Sets bits of the connection's mark.
    SetCtMark(Mark),
    /// Adds bits to the connection's mark.
    AddCtMark(u32),
    /// Lowers the TCP segment size to what the route takes.
    ClampMss,
    /// Lowers the TCP segment size to this, in bytes.
    SetMss(u32),
    /// The connection's source becomes the address of the interface that it leaves by.
    Masquerade,
    /// The connection's source becomes this.
    Snat(IpAddr),
    /// The connection's destination becomes this.
    Dnat(IpAddr),
}

/// Number of a transport protocol, or of ICMP, in IP headers of an address family.
pub fn protocol_number(proto: Proto, family: Family) -> u8 {
    match (proto, family) {
        (Proto::Tcp, _) => 6,
        (Proto::Udp, _) => 17,
        (Proto::Icmp, Family::V4) => 1,
        (Proto::Icmp, Family::V6) => 58,
    }
}
