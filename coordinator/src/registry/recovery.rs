//! Recovery of a coordinator that was set back, as by restoring a backup. Its nodes refuse what is older than what they
//! have, and tell it of records that it signed itself since. From these it learns who was removed or disabled meanwhile,
//! and of whom it does not know any more: these are [`Stray`]s, until an admin adopts them or cuts them off.

use super::{
    ALL_ROLES, Changes, Client, ClientFile, CodeId, EgressSetting, Facts, Moment, Network, Node, Outcome,
    Registry, RegistryError, Row, Tunnel, address,
};
use gatewrt_protocol::{
    Assignment, ClientId, ClientName, IngressClient, Member, NetworkId, NodeId, NodeName, PublicKey,
    WgPublicKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Largest number of findings that are kept.
const FINDINGS: usize = 500;
/// Number of node addresses that are not given out after a restore: nodes that joined after the backup may have them, and
/// sleep. A small network leaves out a 16th of its addresses.
const SKIPPED: u64 = 512;

/// Recovery of the coordinator after it was set back, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Time at which the backup was restored, or the first node told of something newer, in seconds since 1970.
    pub at: u64,
    /// Time of the backup, in seconds since 1970; none if no backup was restored by command.
    #[serde(default)]
    pub backup_at: Option<u64>,
    /// Nodes whose state since the backup is not known yet: what is assigned to them waits until they have reported. None
    /// before the first start after a restore.
    #[serde(default)]
    pub waiting: Option<BTreeSet<NodeId>>,
    /// Nodes that told of records newer than the coordinator's.
    #[serde(default)]
    pub helped: BTreeSet<NodeId>,
    /// Findings, in words for an admin.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

impl Recovery {
    fn handle_heard(&mut self, node: NodeId) {
        if let Some(waiting) = &mut self.waiting {
            waiting.remove(&node);
        }
    }
}

/// Finding of a recovery: what had happened after the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// Time of the finding, in seconds since 1970.
    pub at: u64,
    /// Finding in words for an admin.
    pub what: String,
}

/// Node or external client that nodes know, and this registry does not: it came after the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stray {
    /// A node.
    Node(Box<StrayNode>),
    /// An external client.
    Client(Box<StrayClient>),
}

/// Node that this registry does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayNode {
    /// Newest member record that is known of it.
    pub member: Member,
    /// Newest assignment that it showed.
    #[serde(default)]
    pub assignment: Option<Assignment>,
    /// Identity key of its certificate; none until it has connected.
    #[serde(default)]
    pub identity: Option<PublicKey>,
    /// Time at which it was found, in seconds since 1970.
    pub at: u64,
}

/// External client that this registry does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayClient {
    /// Network.
    pub net: NetworkId,
    /// Node that let it in.
    pub gateway: NodeId,
    /// Client as its gateway knew it.
    pub client: IngressClient,
    /// Time at which it was found, in seconds since 1970.
    pub at: u64,
}

/// Refusal of an operation on a stray.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// No stray has this id.
    #[error("there is no stray “{id}”")]
    NoSuchStray {
        /// Value as it was entered.
        id: String,
        /// Ids of all strays.
        known: Vec<String>,
    },
    /// The stray node has not connected yet, so that its identity key is not known.
    #[error("{name} has not connected since the backup was restored")]
    Unheard {
        /// Name of the node.
        name: NodeName,
    },
    /// The network of the stray is not known either.
    #[error("its network {net} is not known either")]
    NoNetwork {
        /// Id of the network.
        net: NetworkId,
    },
    /// A client is to be adopted without a name: its gateway does not know any.
    #[error("a client needs a name to be adopted")]
    Unnamed,
    /// The name is not valid.
    #[error("“{name}” is not a valid name: {why}")]
    BadName {
        /// Value as it was entered.
        name: String,
        /// Reason why it is not valid.
        why: String,
    },
}

impl RecoveryError {
    /// Stable short name of the error, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchStray { .. } => "not-found",
            Self::Unheard { .. } => "not-reachable",
            Self::NoNetwork { .. } => "not-found",
            Self::Unnamed | Self::BadName { .. } => "bad-name",
        }
    }

    /// Advice how to fix the error.
    pub fn advice(&self) -> String {
        match self {
            Self::NoSuchStray { known, .. } if known.is_empty() => "every node and client is known".into(),
            Self::NoSuchStray { known, .. } => format!("strays: {}", known.join(", ")),
            Self::Unheard { .. } => "adopt it when it is online, or cut it off".into(),
            Self::NoNetwork { .. } => {
                "it was created after the backup: create it anew, and have its routers leave and join again"
                    .into()
            }
            Self::Unnamed => "add --name NAME".into(),
            Self::BadName { .. } => "1 to 63 characters of a-z, 0-9 and “-”".into(),
        }
    }
}

impl Stray {
    /// Id: that of the node, or the client's WireGuard key in hexadecimal.
    pub fn id(&self) -> String {
        match self {
            Self::Node(node) => node.member.node.to_string(),
            Self::Client(client) => client_id(client.client.key),
        }
    }

    /// Network of the stray.
    pub fn net(&self) -> NetworkId {
        match self {
            Self::Node(node) => node.member.net,
            Self::Client(client) => client.net,
        }
    }

    /// Newest member record that is known of a node.
    pub fn member(&self) -> Option<&Member> {
        match self {
            Self::Node(node) => Some(&node.member),
            Self::Client(_) => None,
        }
    }

    /// Overlay addresses that it has.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Node(node) => &node.member.addresses,
            Self::Client(client) => &client.client.addresses,
        }
    }

    fn row(self) -> Row {
        Row::Stray(self.id(), Some(Box::new(self)))
    }
}

fn client_id(key: WgPublicKey) -> String {
    data_encoding::HEXLOWER.encode(&key.0)
}

impl Registry {
    /// Recovery of the coordinator, if it was ever set back.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// All strays, ordered by id.
    pub fn strays(&self) -> impl Iterator<Item = &Stray> {
        self.strays.values()
    }

    /// True if the assignment of a node has to wait until the node has reported.
    pub fn is_awaited(&self, node: NodeId) -> bool {
        let waiting = self.recovery().and_then(|recovery| recovery.waiting.as_ref());
        waiting.is_some_and(|all| all.contains(&node)) && self.live_node(node).is_some()
    }

    /// Begins the recovery at the first start after a backup was restored: all nodes are awaited, and addresses that were
    /// given out since are skipped.
    pub fn begin_recovery(&self) -> Changes {
        let Some(recovery) = self.recovery().filter(|recovery| recovery.waiting.is_none()) else {
            return Vec::new();
        };
        let waiting = self.nodes().filter(|node| node.is_live()).map(|node| node.id).collect();
        let skipped = |network: &Network| {
            let next = network.next + SKIPPED.min(network.node_addresses() / 16);
            Row::Network(network.id, Some(Network { next, ..network.clone() }))
        };
        let mut rows: Vec<Row> = self.networks().map(skipped).collect();
        rows.push(Row::Recovery(Some(Recovery { waiting: Some(waiting), ..recovery.clone() })));
        rows
    }

    /// Notes that a node has nothing newer than this registry: what is assigned to it need not wait any more.
    pub fn handle_heard(&self, node: NodeId) -> Changes {
        let Some(recovery) = self.recovery().filter(|_| self.is_awaited(node)) else { return Vec::new() };
        let mut recovery = recovery.clone();
        recovery.handle_heard(node);
        vec![Row::Recovery(Some(recovery))]
    }

    /// Notes that a node told of something newer, and what was found by it. Once it told of its own assignment, that need
    /// not wait any more.
    pub(crate) fn handle_told(&self, from: NodeId, own: bool, findings: Vec<String>, now: u64) -> Changes {
        let before = self.recovery();
        let mut recovery = before.cloned().unwrap_or_else(|| Recovery {
            at: now,
            waiting: Some(BTreeSet::new()),
            ..Recovery::default()
        });
        recovery.helped.insert(from);
        if own {
            recovery.handle_heard(from);
        }
        let findings = findings.into_iter().map(|what| Finding { at: now, what });
        recovery.findings.extend(findings.take(FINDINGS.saturating_sub(recovery.findings.len())));
        if before == Some(&recovery) { Vec::new() } else { vec![Row::Recovery(Some(recovery))] }
    }

    /// Row of a node that this registry does not know, and of its network, in which its addresses are taken from now on. No
    /// rows if nothing is new.
    pub(crate) fn stray_node(
        &self,
        member: &Member,
        assignment: Option<&Assignment>,
        identity: Option<PublicKey>,
        now: u64,
    ) -> Changes {
        let known = match self.strays.get(&member.node.to_string()) {
            Some(Stray::Node(known)) => Some(known.as_ref()),
            _ => None,
        };
        let stray = StrayNode {
            member: known
                .map(|known| &known.member)
                .filter(|known| known.rev >= member.rev)
                .unwrap_or(member)
                .clone(),
            assignment: assignment.or(known.and_then(|known| known.assignment.as_ref())).cloned(),
            identity: identity.or(known.and_then(|known| known.identity)),
            at: known.map_or(now, |known| known.at),
        };
        if known == Some(&stray) {
            return Vec::new();
        }
        let network = self.network(member.net).map(|network| network.with_taken(&stray.member));
        let network = network.map(|network| Row::Network(network.id, Some(network)));
        network.into_iter().chain([Stray::Node(Box::new(stray)).row()]).collect()
    }

    /// Member record of a stray node.
    pub(crate) fn stray_member(&self, node: NodeId) -> Option<&Member> {
        self.strays.get(&node.to_string())?.member()
    }

    /// Row of an external client that this registry does not know; none if it is a known stray.
    pub(crate) fn stray_client(
        &self,
        net: NetworkId,
        gateway: NodeId,
        client: &IngressClient,
        now: u64,
    ) -> Option<Row> {
        let stray = StrayClient { net, gateway, client: client.clone(), at: now };
        let stray = Stray::Client(Box::new(stray));
        (!self.strays.contains_key(&stray.id())).then(|| stray.row())
    }

    /// Finds a stray by its id.
    pub fn find_stray(&self, id: &str) -> Result<&Stray, RegistryError> {
        let known = || self.strays.keys().cloned().collect();
        let stray = self.strays.get(id);
        Ok(stray.ok_or_else(|| RecoveryError::NoSuchStray { id: id.to_owned(), known: known() })?)
    }

    /// Adopts a stray: it becomes a node or an external client again, with its keys and addresses, under `name` or the name
    /// that it had.
    pub fn adopt_stray(&self, id: &str, name: Option<&str>, moment: &Moment) -> Outcome<Stray> {
        let stray = self.find_stray(id)?;
        let row = match stray {
            Stray::Node(node) => {
                let unheard = || RecoveryError::Unheard { name: node.member.name.clone() };
                let identity = node.identity.ok_or_else(unheard)?;
                Row::Node(node.member.node, Some(Box::new(self.adopted_node(node, identity, name)?)))
            }
            Stray::Client(client) => {
                let client = self.adopted_client(client, name, moment)?;
                Row::Client(client.id, Some(Box::new(client)))
            }
        };
        Ok((vec![row, Row::Stray(id.to_owned(), None)], stray.clone()))
    }

    /// Cuts a stray off for good: it is removed as if it had been known. Its keys and addresses are never reused.
    pub fn cut_off_stray(&self, id: &str, moment: &Moment) -> Outcome<Stray> {
        let stray = self.find_stray(id)?;
        let row = match stray {
            Stray::Node(node) => {
                // A removed node signs nothing that counts; the key only has to be one that no other node has.
                let identity = node.identity.unwrap_or(PublicKey(node.member.key.0));
                let network = self.network(node.member.net).map(|network| &network.name);
                let network = network.ok_or(RecoveryError::NoNetwork { net: node.member.net })?;
                self.adopted_node(node, identity, None)?.removed_row(network, moment.now)
            }
            Stray::Client(client) => {
                let client = self.adopted_client(client, Some(&format!("cut-off-{}", &id[..8])), moment)?;
                let client = Client { enabled: false, deleted: Some(moment.now), ..client };
                Row::Client(client.id, Some(Box::new(client)))
            }
        };
        Ok((vec![row, Row::Stray(id.to_owned(), None)], stray.clone()))
    }

    fn adopted_node(
        &self,
        stray: &StrayNode,
        identity: PublicKey,
        name: Option<&str>,
    ) -> Result<Node, RegistryError> {
        let member = &stray.member;
        let network = self.network(member.net).ok_or(RecoveryError::NoNetwork { net: member.net })?;
        let wanted = match name {
            Some(name) => parse_name::<NodeName>(name)?,
            None => member.name.clone(),
        };
        let node = Node {
            id: member.node,
            net: member.net,
            name: self.free_name(network, &wanted),
            key: member.key,
            identity,
            addresses: member.addresses.clone(),
            roles: ALL_ROLES.into(),
            code: CodeId::adopted(),
            joined: stray.at,
            egress: BTreeMap::new(),
            ingress: None,
            blocks: member.clients.clone(),
            exit: None,
            scopes: BTreeMap::new(),
            confirm_s: stray.assignment.as_ref().and_then(|assignment| assignment.confirm_s),
            attempt: stray.assignment.as_ref().map_or(0, |assignment| assignment.attempt),
            label: String::new(),
            tags: BTreeSet::new(),
            facts: Facts::default(),
            removed: None,
            removed_from: None,
            told: None,
        };
        let assigned = stray.assignment.iter().flat_map(|assignment| &assignment.egress);
        // What another site serves by now stays that site's.
        let free = assigned.filter(|egress| self.check_egress(&node, egress.prefix).is_ok());
        let egress =
            free.map(|egress| (egress.prefix, EgressSetting { nat: egress.nat, metric: egress.metric }));
        Ok(Node { egress: egress.collect(), ..node.clone() })
    }

    fn adopted_client(
        &self,
        stray: &StrayClient,
        name: Option<&str>,
        moment: &Moment,
    ) -> Result<Client, RegistryError> {
        let name = parse_name::<ClientName>(name.ok_or(RecoveryError::Unnamed)?)?;
        self.check_client_name(stray.net, None, &name)?;
        let known = &stray.client;
        let client = Client {
            id: ClientId::from_entropy(moment.bytes(0)),
            net: stray.net,
            name,
            label: String::new(),
            tags: BTreeSet::new(),
            key: known.key,
            past_keys: BTreeSet::new(),
            psk: known.psk,
            gateway: stray.gateway,
            seats: [(stray.gateway, known.addresses.clone())].into(),
            dns: Vec::new(),
            tunnel: if known.internet { Tunnel::Full } else { Tunnel::Split },
            routes: BTreeSet::new(),
            prefixes: known.prefixes.iter().copied().collect(),
            enabled: true,
            reachable: known.reachable,
            expires: None,
            expired: None,
            created: stray.at,
            issued: stray.at,
            file: ClientFile::placeholder(),
            deleted: None,
        };
        Ok(Client { file: self.client_file(&client).unwrap_or_else(ClientFile::placeholder), ..client })
    }
}

fn parse_name<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<T, RegistryError> {
    let bad = |why: T::Err| RecoveryError::BadName { name: name.to_owned(), why: why.to_string() };
    Ok(name.parse().map_err(bad)?)
}

impl Network {
    /// Network in which the addresses and client blocks of a node are taken.
    fn with_taken(&self, member: &Member) -> Self {
        let prefixes = self.prefixes();
        let index = |addr: &IpAddr| {
            let prefix = prefixes.iter().find(|prefix| prefix.contains(*addr))?;
            u64::try_from(address::index_of(prefix, *addr)).ok()
        };
        let next = member.addresses.iter().filter_map(index).map(|index| index + 1).fold(self.next, u64::max);
        let inside = |block: &&gatewrt_protocol::Prefix| prefixes.iter().any(|prefix| prefix.covers(block));
        let blocks = self.blocks.iter().chain(member.clients.iter().filter(inside)).copied().collect();
        Self { next, blocks, ..self.clone() }
    }

    /// Number of addresses that nodes of the network can have.
    fn node_addresses(&self) -> u64 {
        1u64 << (32 - self.prefix4.len()).min(32)
    }
}
