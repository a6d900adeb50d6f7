//! Records, which are signed and published. Field names are the wire form, pinned by `fixtures/`. Fields that are empty or
//! at their default are left out, unknown ones are ignored.

use crate::{
    Access, ClientReport, ExitOffer, ExitScope, Ingress, NetworkId, NetworkName, NodeId, NodeName, Prefix,
    RolledBack, ScopeReport, WgPublicKey, id::BASE32,
};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Kind of a signed record, named in its JWS header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Member`]
    Member,
    /// [`Tombstone`]
    Tombstone,
    /// [`Roster`]
    Roster,
    /// [`Policy`]
    Policy,
    /// [`Assignment`]
    Assignment,
    /// [`Report`]
    Report,
    /// [`Presence`]
    Presence,
    /// [`crate::JoinRequest`]
    Join,
}

impl Kind {
    const TABLE: [(Self, &'static str); 8] = [
        (Self::Member, "gatewrt-member"),
        (Self::Tombstone, "gatewrt-tombstone"),
        (Self::Roster, "gatewrt-roster"),
        (Self::Policy, "gatewrt-policy"),
        (Self::Assignment, "gatewrt-assignment"),
        (Self::Report, "gatewrt-report"),
        (Self::Presence, "gatewrt-presence"),
        (Self::Join, "gatewrt-join"),
    ];

    /// Name of the record's kind as `typ` in a JWS header.
    pub fn typ(self) -> &'static str {
        Self::TABLE.iter().find(|(kind, _)| *kind == self).map_or("", |(_, typ)| typ)
    }

    /// Record kind that a JWS header names as `typ`; `None` for kinds of a later version.
    pub fn from_typ(typ: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, known)| *known == typ).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.typ().trim_start_matches("gatewrt-"))
    }
}

/// Value that is signed and published as a record of some [`Kind`].
pub trait Record: Serialize + Sized {
    /// Kind that the record is signed as.
    fn kind(&self) -> Kind;
    /// True if a message signed as `kind` can hold a record of this type.
    fn accepts(kind: Kind) -> bool;
    /// Parses a record from the payload of a message that was signed as `kind`.
    fn parse(kind: Kind, payload: &[u8]) -> serde_json::Result<Self>;
}

macro_rules! record {
    ($type:ty, $kind:ident) => {
        impl $crate::Record for $type {
            fn kind(&self) -> $crate::Kind {
                $crate::Kind::$kind
            }
            fn accepts(kind: $crate::Kind) -> bool {
                kind == $crate::Kind::$kind
            }
            fn parse(_: $crate::Kind, payload: &[u8]) -> serde_json::Result<Self> {
                serde_json::from_slice(payload)
            }
        }
    };
}
pub(crate) use record;

/// Role of a node, as far as its join code and its owner allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The network reaches prefixes behind the node.
    Egress,
    /// External clients connect to the node.
    Ingress,
    /// Others send Internet traffic through the node.
    Exit,
}

/// Source from which an endpoint of a node is known, such as its WAN interface or STUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// Setting of the router's owner; preferred over all others.
    Configured,
    /// Public address of a WAN interface.
    Wan,
    /// Answer of a STUN server.
    Stun,
    /// Source address that the coordinator saw, with the listen port.
    Observed,
    /// Address of a LAN, for nodes at the same site.
    Lan,
    /// Source of a later version; tried last.
    #[serde(other)]
    Other,
}

/// Candidate address at which a node's WireGuard may be reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address and UDP port.
    pub addr: SocketAddr,
    /// Source of the endpoint.
    pub kind: EndpointKind,
}

/// Prefix that a node serves to the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServedPrefix {
    /// Prefix that others reach.
    pub prefix: Prefix,
    /// Preference among nodes that serve the same prefix; the least goes first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: u32,
}

/// Member record: facts on one node that every node of its network may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Network.
    pub net: NetworkId,
    /// Node.
    pub node: NodeId,
    /// Revision, which grows by one with each change of this record, and never otherwise.
    pub rev: u64,
    /// Name of the node, unique in its network.
    pub name: NodeName,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Overlay addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Endpoints, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Prefixes behind the node and behind its external clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<ServedPrefix>,
    /// Blocks of the network for its external clients' addresses, at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Prefix>,
    /// Offer to forward others' Internet traffic, if the node is an exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitOffer>,
}
record!(Member, Member);

/// Tombstone: record of a removed node, in place of its member record until every node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Network.
    pub net: NetworkId,
    /// Removed node.
    pub node: NodeId,
    /// Revision, higher than that of the member record before.
    pub rev: u64,
}
record!(Tombstone, Tombstone);

/// Record on a member topic: that of a member, or the tombstone of a removed node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MemberUpdate {
    /// Record of a node that is a member.
    Member(Member),
    /// Tombstone of a node that was removed.
    Tombstone(Tombstone),
}

impl MemberUpdate {
    /// Network and node that the record is about, and its revision.
    pub fn about(&self) -> (NetworkId, NodeId, u64) {
        match self {
            Self::Member(member) => (member.net, member.node, member.rev),
            Self::Tombstone(tombstone) => (tombstone.net, tombstone.node, tombstone.rev),
        }
    }
}

impl Record for MemberUpdate {
    fn kind(&self) -> Kind {
        match self {
            Self::Member(_) => Kind::Member,
            Self::Tombstone(_) => Kind::Tombstone,
        }
    }
    fn accepts(kind: Kind) -> bool {
        matches!(kind, Kind::Member | Kind::Tombstone)
    }
    fn parse(kind: Kind, payload: &[u8]) -> serde_json::Result<Self> {
        if kind == Kind::Tombstone {
            serde_json::from_slice(payload).map(Self::Tombstone)
        } else {
            serde_json::from_slice(payload).map(Self::Member)
        }
    }
}

/// Digest of a network's member records, by which a node detects a record that is withheld or out of date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Network.
    pub net: NetworkId,
    /// Revision, which grows by one with each change.
    pub rev: u64,
    /// Number of members, without tombstones.
    pub count: u32,
    /// Digest by [`Roster::digest_of`].
    pub digest: String,
}
record!(Roster, Roster);

impl Roster {
    /// Digest of a network's members: the first 130 bits, in base32, of the SHA-256 over one line `<node> <rev>` for
    /// each member, in order of node ids.
    pub fn digest_of<'a>(members: impl IntoIterator<Item = (&'a NodeId, &'a u64)>) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for (node, rev) in members {
            context.update(format!("{node} {rev}\n").as_bytes());
        }
        BASE32.encode(context.finish().as_ref()).chars().take(26).collect()
    }

    /// Roster of a network's members, each given by its id and the revision of its record.
    pub fn new(net: NetworkId, rev: u64, members: &BTreeMap<NodeId, u64>) -> Self {
        Self { net, rev, count: members.len() as u32, digest: Self::digest_of(members) }
    }

    /// True if the roster describes exactly these members, which come in order of node ids.
    pub fn describes<'a>(
        &self,
        members: impl IntoIterator<Item = (&'a NodeId, &'a u64), IntoIter: ExactSizeIterator>,
    ) -> bool {
        let members = members.into_iter();
        self.count as usize == members.len() && self.digest == Self::digest_of(members)
    }
}

/// Settings of a network that all its nodes share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Network.
    pub net: NetworkId,
    /// Revision, which grows by one with each change.
    pub rev: u64,
    /// Name of the network.
    pub name: NetworkName,
    /// Prefixes of the overlay addresses: one IPv4 prefix, one IPv6 prefix.
    pub prefixes: Vec<Prefix>,
    /// MTU of the WireGuard interface, in bytes: 1280 to 1420.
    pub mtu: u16,
    /// Seconds between keepalive packets; 0 for none.
    pub keepalive: u16,
    /// DNS domain of the network.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Brokers of the coordinator as `host:port`, best first; where absent, those of the join answer. A node tries these,
    /// then those. A node that reaches none asks other nodes for a newer policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<String>,
}
record!(Policy, Policy);

/// Prefix behind a node that it is assigned to serve to the network, with or without NAT.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Egress {
    /// Prefix behind the node that the network reaches.
    pub prefix: Prefix,
    /// Masquerading. On: hosts behind the node see its address. Off: they see the true source, and can open connections
    /// to the network themselves.
    pub nat: bool,
    /// Preference as in [`ServedPrefix::metric`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: u32,
}

/// Assignment: settings that only one node needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Network.
    pub net: NetworkId,
    /// Node that the assignment is for.
    pub node: NodeId,
    /// Revision, which grows by one with each change.
    pub rev: u64,
    /// Name of the node.
    pub name: NodeName,
    /// Overlay addresses of the node, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Prefixes to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
    /// External clients to let in; absent where the node is no ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// Exit service for others' Internet traffic; absent where the node is no exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitOffer>,
    /// Scopes of the router's own Internet traffic that go through exits, at most [`ExitScope::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ExitScope>,
    /// Time for the control link to confirm a change, in seconds, 5 to 3600; absent for 60. After it the node rolls back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_s: Option<u16>,
    /// Counter that grows when an admin asks for a retry of a change that was rolled back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// Access rules that concern this node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
    /// Addresses of the control plane, which are never reached through the network itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<SocketAddr>,
}
record!(Assignment, Assignment);

/// Use of a router's network interface: WAN or LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceKind {
    /// Interface with a default route.
    Wan,
    /// Any other interface with an address.
    Lan,
    /// Value of a later version.
    #[serde(other)]
    Other,
}

/// Network interface of a router, as its node reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Name on the router.
    pub name: String,
    /// Use of the interface.
    pub kind: InterfaceKind,
    /// Prefixes of its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
}

/// Path by which a node reaches a peer now, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Direct to the peer, with a recent handshake.
    Direct,
    /// No recent handshake.
    Down,
    /// Value of a later version.
    #[serde(other)]
    Other,
}

/// State of a peer, as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Peer.
    pub node: NodeId,
    /// Current endpoint of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Path to the peer.
    pub path: Path,
    /// Round trip in the tunnel, in milliseconds, where it is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
}

/// Revisions of the policy, assignment and roster that are in effect on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Revision of the policy; 0 for none.
    pub policy: u64,
    /// Revision of the assignment; 0 for none.
    pub assignment: u64,
    /// Revision of the roster that all member records agree with; 0 for none.
    pub roster: u64,
}

/// Failure that a node reports, in words for an admin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// Action that failed.
    pub what: String,
    /// Reason of the failure.
    pub why: String,
}

/// Report of a node on itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Network.
    pub net: NetworkId,
    /// Node.
    pub node: NodeId,
    /// Random text that is new with each start of the daemon.
    pub boot: String,
    /// Sequence number, which grows with each report of this boot.
    pub seq: u64,
    /// Version of the daemon.
    pub version: String,
    /// Model of the router.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub board: String,
    /// Seconds since the daemon's start.
    pub uptime_s: u64,
    /// Resident memory of the daemon, in KiB.
    pub memory_kib: u64,
    /// `kernel`, or the name of the userspace implementation.
    pub wireguard: String,
    /// UDP port of WireGuard.
    pub port: u16,
    /// Interfaces with addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceReport>,
    /// Endpoints of the node, as far as it can tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Peers, those with the latest handshake first, at most [`Report::PEERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerReport>,
    /// Number of all peers.
    #[serde(default)]
    pub peer_count: u32,
    /// External clients that had a handshake, the latest first, at most [`Report::CLIENTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientReport>,
    /// Service that it could offer as an exit; absent where the router's owner forbids it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitOffer>,
    /// Scopes of its own Internet traffic that go through exits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ScopeReport>,
    /// Node in use for each prefix that several nodes serve.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gateways: BTreeMap<Prefix, NodeId>,
    /// Revisions in effect.
    pub applied: Applied,
    /// Assignment that was rolled back, if the newest was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// Failures to put it all into effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Records refused since the daemon's start, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
}
record!(Report, Report);

impl Report {
    /// Most peers in one report, so that it stays within [`crate::MAX_RECORD`].
    pub const PEERS: usize = 48;
    /// Most external clients in one report.
    pub const CLIENTS: usize = 24;
}

/// Presence of a node: online or offline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Network.
    pub net: NetworkId,
    /// Node.
    pub node: NodeId,
    /// Text of [`Report::boot`].
    pub boot: String,
    /// Number of the connection in this boot, so that the will of an older one does not count.
    pub session: u64,
    /// `true` while the node is connected.
    pub online: bool,
}
record!(Presence, Presence);

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
