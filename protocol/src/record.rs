//! The records: what is signed and published. Field names are the wire form, pinned by `fixtures/`; fields
//! that are empty or at their default are left out, unknown ones are ignored.

use crate::{
    Access, ClientReport, ExitOffer, ExitScope, Ingress, NetworkId, NetworkName, NodeId, NodeName, Prefix,
    ScopeReport, TakenBack, WgPublicKey,
    base::BASE32,
    json::{self, Blank, FromJson, JsonError, Reader},
    json_fields, json_words,
};
use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// What a signed message is, as named in its header.
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

    /// The `typ` of a JWS header.
    pub fn typ(self) -> &'static str {
        Self::TABLE.iter().find(|(kind, _)| *kind == self).map_or("", |(_, typ)| typ)
    }

    /// The kind of a `typ`; `None` for kinds of a later version.
    pub fn from_typ(typ: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, known)| *known == typ).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.typ().trim_start_matches("gatewrt-"))
    }
}

/// A value that travels signed.
pub trait Record: Serialize + Sized {
    /// What it is signed as.
    fn kind(&self) -> Kind;
    /// Whether a message signed as `kind` can be one.
    fn accepts(kind: Kind) -> bool;
    /// Reads the payload of a message that was signed as `kind`.
    fn parse(kind: Kind, payload: &[u8]) -> Result<Self, JsonError>;
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
            fn parse(_: $crate::Kind, payload: &[u8]) -> Result<Self, $crate::json::JsonError> {
                $crate::json::read(payload)
            }
        }
    };
}
pub(crate) use record;

/// What a node may do for others, as far as its join code and its owner allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Lets the network reach prefixes behind it.
    Egress,
    /// Lets external clients in.
    Ingress,
    /// Takes Internet traffic of others.
    Exit,
}

/// How an endpoint became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// Stated by the router's owner: goes before all others.
    Configured,
    /// An address of a WAN interface that is not private.
    Wan,
    /// Learnt from a STUN server.
    Stun,
    /// The source address that the coordinator saw, with the listen port.
    Observed,
    /// An address of a LAN, for nodes at the same site.
    Lan,
    /// Of a later version: tried last.
    #[serde(other)]
    Other,
}
json_words!(
    EndpointKind: "configured" Configured, "wan" Wan, "stun" Stun, "observed" Observed, "lan" Lan; Other
);

/// Where a node's WireGuard may be reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address and UDP port.
    pub addr: SocketAddr,
    /// How it became known.
    pub kind: EndpointKind,
}
json_fields!(Endpoint: addr, kind);

/// A prefix that a node serves to the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServedPrefix {
    /// What others reach.
    pub prefix: Prefix,
    /// Where several nodes serve the same prefix, the least metric goes first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: u32,
}
json_fields!(ServedPrefix: prefix; metric);

/// What every node of a network may know of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Network.
    pub net: NetworkId,
    /// Node.
    pub node: NodeId,
    /// Grows by one with each change of this record, and never otherwise.
    pub rev: u64,
    /// Unique in its network.
    pub name: NodeName,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Overlay addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Candidates, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Prefixes behind it, also behind its external clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<ServedPrefix>,
    /// Blocks of the network that its external clients have their addresses from, at most one a family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Prefix>,
    /// That it takes others' Internet traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitOffer>,
}
record!(Member, Member);
json_fields!(Member: net, node, rev, name, key, addresses; endpoints, prefixes, clients, exit);

/// Stands where the member record of a removed node was, until no one needs to be told any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Network.
    pub net: NetworkId,
    /// The removed node.
    pub node: NodeId,
    /// Higher than that of the member record before.
    pub rev: u64,
}
record!(Tombstone, Tombstone);
json_fields!(Tombstone: net, node, rev);

/// What stands on a member topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MemberUpdate {
    /// The node is a member, and this is known of it.
    Member(Member),
    /// The node was removed.
    Tombstone(Tombstone),
}

impl MemberUpdate {
    /// Network, node and revision.
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
    fn parse(kind: Kind, payload: &[u8]) -> Result<Self, JsonError> {
        if kind == Kind::Tombstone {
            json::read(payload).map(Self::Tombstone)
        } else {
            json::read(payload).map(Self::Member)
        }
    }
}

/// Digest of the set of a network's member records: lets a node see that one was withheld or rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Network.
    pub net: NetworkId,
    /// Grows by one with each change.
    pub rev: u64,
    /// How many nodes are members; tombstones do not count.
    pub count: u32,
    /// See [`Roster::digest_of`].
    pub digest: String,
}
record!(Roster, Roster);
json_fields!(Roster: net, rev, count, digest);

impl Roster {
    /// First 130 bits, in base32, of the SHA-256 over a line `<node> <rev>` a member, in order of node ids.
    pub fn digest_of<'a>(members: impl IntoIterator<Item = (&'a NodeId, &'a u64)>) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for (node, rev) in members {
            context.update(format!("{node} {rev}\n").as_bytes());
        }
        BASE32.encode(context.finish().as_ref()).chars().take(26).collect()
    }

    /// The roster of these members.
    pub fn new(net: NetworkId, rev: u64, members: &BTreeMap<NodeId, u64>) -> Self {
        Self { net, rev, count: members.len() as u32, digest: Self::digest_of(members) }
    }

    /// Whether it describes just these members, which come in order of node ids.
    pub fn describes<'a>(
        &self,
        members: impl IntoIterator<Item = (&'a NodeId, &'a u64), IntoIter: ExactSizeIterator>,
    ) -> bool {
        let members = members.into_iter();
        self.count as usize == members.len() && self.digest == Self::digest_of(members)
    }
}

/// Settings of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Network.
    pub net: NetworkId,
    /// Grows by one with each change.
    pub rev: u64,
    /// The network's name.
    pub name: NetworkName,
    /// Overlay addresses come from these: one IPv4 prefix, one IPv6 prefix.
    pub prefixes: Vec<Prefix>,
    /// Of the WireGuard interface, in bytes: 1280 to 1420.
    pub mtu: u16,
    /// Seconds between keepalive packets; 0 sends none.
    pub keepalive: u16,
    /// DNS domain of the network.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
}
record!(Policy, Policy);
json_fields!(Policy: net, rev, name, prefixes, mtu, keepalive; domain);

/// A prefix that a node is to serve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Egress {
    /// What the network reaches behind the node.
    pub prefix: Prefix,
    /// On: hosts behind the node see its address (masquerade). Off: they see the true source, and can open
    /// connections to the network themselves.
    pub nat: bool,
    /// See [`ServedPrefix::metric`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: u32,
}
json_fields!(Egress: prefix, nat; metric);

/// What only one node needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Network.
    pub net: NetworkId,
    /// The node it is for.
    pub node: NodeId,
    /// Grows by one with each change.
    pub rev: u64,
    /// The node's name.
    pub name: NodeName,
    /// The node's overlay addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Prefixes to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
    /// Whom to let in; absent where no external clients are let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// Whether to take others' Internet traffic: what of it is wanted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitOffer>,
    /// Which of the router's own Internet traffic goes through others, at most [`ExitScope::MOST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ExitScope>,
    /// How long the control link may take to show that it outlived a change, in seconds, 5 to 3600; absent for 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_s: Option<u16>,
    /// Grows when an admin wants tried again what the node took back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// What may reach what, as far as this node has to do with it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
    /// Where the control plane is: never to be reached through the network itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<SocketAddr>,
}
record!(Assignment, Assignment);
json_fields!(
    Assignment: net, node, rev, name, addresses;
    egress, ingress, exit, scopes, confirm_s, attempt, access, control
);

/// What an interface of a router is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceKind {
    /// Holds a default route.
    Wan,
    /// Anything else with an address.
    Lan,
    /// Of a later version.
    #[serde(other)]
    Other,
}
json_words!(InterfaceKind: "wan" Wan, "lan" Lan; Other);

/// An interface of a router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Name on the router.
    pub name: String,
    /// What it is for.
    pub kind: InterfaceKind,
    /// Prefixes that its addresses are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
}
json_fields!(InterfaceReport: name, kind; prefixes);

/// How a peer is reached now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// A handshake is fresh; packets go straight to the peer.
    Direct,
    /// No fresh handshake.
    Down,
    /// Of a later version.
    #[serde(other)]
    Other,
}
json_words!(Path: "direct" Direct, "down" Down; Other);

/// What a node sees of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer.
    pub node: NodeId,
    /// Where packets to it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
    /// How it is reached.
    pub path: Path,
    /// Round trip in the tunnel, in milliseconds, where it is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
}
json_fields!(PeerReport: node, rx, tx, path; endpoint, handshake_s, rtt_ms);

/// Which revisions a node has put into effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Of the policy; 0 for none.
    pub policy: u64,
    /// Of the assignment; 0 for none.
    pub assignment: u64,
    /// Of the roster that all its member records agree with; 0 for none.
    pub roster: u64,
}
json_fields!(Applied: policy, assignment, roster);

/// Something that does not work, in words an admin understands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// What was to be done.
    pub what: String,
    /// Why it was not.
    pub why: String,
}
json_fields!(Failure: what, why);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Network.
    pub net: NetworkId,
    /// Node.
    pub node: NodeId,
    /// New with each start of the daemon.
    pub boot: String,
    /// Grows with each report of this boot.
    pub seq: u64,
    /// Of the daemon.
    pub version: String,
    /// What the router is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub board: String,
    /// Since the daemon's start, in seconds.
    pub uptime_s: u64,
    /// Resident memory of the daemon, in KiB.
    pub memory_kib: u64,
    /// `kernel`, or the name of the userspace implementation.
    pub wireguard: String,
    /// The UDP port WireGuard listens on.
    pub port: u16,
    /// Interfaces with addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceReport>,
    /// Where the node may be reached, as far as it can tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Peers, those with the freshest handshake first, at most [`Report::PEERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerReport>,
    /// How many peers there are in all.
    #[serde(default)]
    pub peer_count: u32,
    /// External clients that had a handshake, the freshest first, at most [`Report::CLIENTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientReport>,
    /// What it could serve as an exit; absent where the router's owner forbids it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitOffer>,
    /// Its own Internet traffic that goes through others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ScopeReport>,
    /// Of prefixes that several nodes serve: which node is used.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub gateways: Pairs<Prefix, NodeId>,
    /// What is in effect.
    pub applied: Applied,
    /// What was in effect and is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<TakenBack>,
    /// What is not, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Records refused since the daemon's start, by reason.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub refused: Pairs<String, u64>,
}
record!(Report, Report);
json_fields!(
    Report: net, node, boot, seq, version, uptime_s, memory_kib, wireguard, port, applied;
    board, interfaces, endpoints, peers, peer_count, clients, exit, scopes, gateways, taken_back, failures, refused
);

/// A map on the wire, pairs in order of their keys in memory: a router, which only writes it, needs no tree for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> Pairs<K, V> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Pairs<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Pairs<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(BTreeMap::deserialize(deserializer)?.into_iter().collect()))
    }
}

impl<K, V> Blank for Pairs<K, V> {
    fn blank() -> Self {
        Self::default()
    }
}

impl<K: FromStr<Err: fmt::Display> + Ord, V: FromJson> FromJson for Pairs<K, V> {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        Ok(Self(BTreeMap::from_json(reader)?.into_iter().collect()))
    }
}

impl Report {
    /// How many peers one report lists at the most, so that it stays within [`crate::MAX_RECORD`].
    pub const PEERS: usize = 48;
    /// How many external clients one report lists at the most.
    pub const CLIENTS: usize = 24;
}

/// Online or offline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Network.
    pub net: NetworkId,
    /// Node.
    pub node: NodeId,
    /// As in [`Report::boot`].
    pub boot: String,
    /// Grows with each connection of this boot: a will of an older one does not count.
    pub session: u64,
    /// Whether the node is connected.
    pub online: bool,
}
record!(Presence, Presence);
json_fields!(Presence: net, node, boot, session, online);

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
