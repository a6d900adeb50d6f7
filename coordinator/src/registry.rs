//! Registry: settings by the admin and facts reported by the nodes, as one value in memory. Pure: each
//! operation takes the moment at which it happens and returns the rows that it changes, or a refusal. Rows
//! are stored by [`crate::store`] and turned into records by [`crate::records`].

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods, reason = "pure: time, files and random bytes come in as values")
)]

mod access_error;
mod address;
mod admin_token;
mod check;
mod claim;
mod client;
mod code;
mod egress;
mod error;
mod exit;
mod expiry;
mod facts;
mod file;
mod group;
mod ingress;
mod network;
mod node;
mod overlap;
mod range;
mod recovery;
mod removal;
mod rule;
mod selector;
mod selector_context;
mod stray;
#[cfg(test)]
mod tests;
mod token;

pub use access_error::AccessError;
pub use admin_token::{ADMIN_TOKEN_NAME, AdminToken};
pub use check::CheckAnswer;
pub use client::{
    Client, ClientError, ClientPatch, ClientSpec, ClientState, NewKeys, ReissueRequest, Tunnel,
};
pub use code::{Code, CodeId, CodeSpec, CodeState};
pub use error::{Overlap, RegistryError};
pub use exit::{ExitError, ExitSetting, ExitSpec, Ipv6, ScopeSetting, ScopeSpec, User};
pub use facts::{Facts, is_private};
pub use file::ClientFile;
pub use group::{Group, GroupSpec};
pub use ingress::{IngressSetting, IngressSpec};
pub use network::{Network, NetworkPatch, NetworkSpec};
pub use node::{CONFIRM_S, EgressSetting, Node, NodePatch};
pub use overlap::Owner;
pub use recovery::{Finding, Recovery, RecoveryError};
pub use removal::TOMBSTONE_S;
pub use rule::{Rule, RulePatch, RuleSpec};
pub use selector::Selector;
pub use selector_context::{SelectorContext, of_client};
pub use stray::Stray;
pub use token::{Rights, TOKEN_PREFIX, Token, TokenId, TokenSpec, token_hash};

use crate::{audit::Entry, clock::Seen};
use gatewrt_protocol::{ClientId, GroupName, NetworkId, NodeId, Role, RuleId};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Time and randomness of one operation on the registry.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Time in seconds since 1970.
    pub now: u64,
    /// Random bytes, fresh for each operation.
    pub entropy: [u8; 32],
}

impl Moment {
    /// Takes `N` of the operation's random bytes, from offset `at`.
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.entropy.get(at..).and_then(<[u8]>::first_chunk);
        *bytes.expect("an operation takes at most 32 random bytes")
    }
}

/// New state of one row of the registry and the database; `None` deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A network.
    Network(NetworkId, Option<Network>),
    /// A node. A removed one stays as long as its network, so that its keys and addresses are never reused.
    Node(NodeId, Option<Box<Node>>),
    /// An external client. A deleted one stays, so that its keys and addresses are never reused.
    Client(ClientId, Option<Box<Client>>),
    /// A join code.
    Code(CodeId, Option<Code>),
    /// An access rule.
    Rule(RuleId, Option<Rule>),
    /// A group that rules name.
    Group(NetworkId, GroupName, Option<Group>),
    /// Addresses of the coordinator itself.
    Control(Vec<SocketAddr>),
    /// Brokers of the coordinator as `host:port`, best first.
    Brokers(Vec<String>),
    /// Latest time that the coordinator has seen.
    Seen(Seen),
    /// A token of the HTTPS API.
    Token(TokenId, Option<Token>),
    /// Recovery of the coordinator.
    Recovery(Option<Recovery>),
    /// A stray, by its id.
    Stray(String, Option<Box<Stray>>),
    /// An entry of the audit log. It is stored together with the rows of its change, and is no part of the
    /// registry.
    Audit(Box<Entry>),
}

/// Rows that one operation on the registry changes. They take effect together or not at all.
pub type Changes = Vec<Row>;

/// Result of an operation on the registry: the rows that it changes, and its answer.
pub type Outcome<T> = Result<(Changes, T), RegistryError>;

/// Registry: the settings of all networks and everything in them. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    networks: BTreeMap<NetworkId, Network>,
    nodes: BTreeMap<NodeId, Node>,
    clients: BTreeMap<ClientId, Client>,
    codes: BTreeMap<CodeId, Code>,
    rules: BTreeMap<RuleId, Rule>,
    groups: BTreeMap<(NetworkId, GroupName), Group>,
    control: Vec<SocketAddr>,
    brokers: Vec<String>,
    seen: Seen,
    tokens: BTreeMap<TokenId, Token>,
    recovery: Option<Recovery>,
    strays: BTreeMap<String, Stray>,
}

impl Registry {
    /// Puts rows into effect in the registry. Returns the rows that undo it.
    pub fn apply(&mut self, changes: Changes) -> Changes {
        let undo = changes.into_iter().map(|row| self.swap(row)).collect::<Vec<_>>();
        undo.into_iter().rev().collect()
    }

    fn swap(&mut self, row: Row) -> Row {
        match row {
            Row::Network(id, value) => Row::Network(id, swap(&mut self.networks, id, value)),
            Row::Node(id, value) => {
                Row::Node(id, swap(&mut self.nodes, id, value.map(|node| *node)).map(Box::new))
            }
            Row::Client(id, value) => {
                let value = value.map(|client| *client);
                Row::Client(id, swap(&mut self.clients, id, value).map(Box::new))
            }
            Row::Code(id, value) => Row::Code(id.clone(), swap(&mut self.codes, id, value)),
            Row::Rule(id, value) => Row::Rule(id, swap(&mut self.rules, id, value)),
            Row::Group(net, name, value) => {
                Row::Group(net, name.clone(), swap(&mut self.groups, (net, name), value))
            }
            Row::Control(value) => Row::Control(std::mem::replace(&mut self.control, value)),
            Row::Brokers(value) => Row::Brokers(std::mem::replace(&mut self.brokers, value)),
            Row::Seen(value) => Row::Seen(std::mem::replace(&mut self.seen, value)),
            Row::Token(id, value) => Row::Token(id.clone(), swap(&mut self.tokens, id, value)),
            Row::Recovery(value) => Row::Recovery(std::mem::replace(&mut self.recovery, value)),
            Row::Stray(id, value) => {
                let value = value.map(|stray| *stray);
                Row::Stray(id.clone(), swap(&mut self.strays, id, value).map(Box::new))
            }
            Row::Audit(entry) => Row::Audit(entry),
        }
    }

    /// All networks of the registry, ordered by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// Looks up a network by its id.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// Finds a network by its name or the text of its id.
    pub fn find_network(&self, text: &str) -> Result<&Network, RegistryError> {
        let by_id = text.parse().ok().and_then(|id| self.networks.get(&id));
        let by_name = || self.networks.values().find(|network| network.name.as_str() == text);
        by_id.or_else(by_name).ok_or_else(|| RegistryError::NoSuchNetwork {
            text: text.to_owned(),
            known: self.networks.values().map(|network| network.name.clone()).collect(),
        })
    }

    /// Looks up a node by its id, also a removed one.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// Looks up a node by its id, unless it was removed.
    pub fn live_node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).filter(|node| node.is_live())
    }

    /// All nodes of the registry, also removed ones, ordered by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Nodes of a network, without removed ones.
    pub fn live_nodes(&self, net: NetworkId) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.net == net && node.is_live())
    }

    /// Finds a node of a network by its name or the text of its id.
    pub fn find_node(&self, net: &str, text: &str) -> Result<&Node, RegistryError> {
        let network = self.find_network(net)?;
        let id = text.parse::<NodeId>().ok();
        let by_id = self.live_nodes(network.id).find(|node| Some(node.id) == id);
        let by_name = || self.live_nodes(network.id).find(|node| node.name.as_str() == text);
        by_id.or_else(by_name).ok_or_else(|| RegistryError::NoSuchNode {
            text: text.to_owned(),
            network: network.name.clone(),
            known: self
                .live_nodes(network.id)
                .map(|node| node.name.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        })
    }

    /// Join codes of a network.
    pub fn codes(&self, net: NetworkId) -> impl Iterator<Item = &Code> {
        self.codes.values().filter(move |code| code.net == net)
    }

    /// Addresses of the coordinator. Routers must never reach them through a network.
    pub fn control(&self) -> &[SocketAddr] {
        &self.control
    }

    /// Brokers of the coordinator, best first, as routers are to try them.
    pub fn brokers(&self) -> &[String] {
        &self.brokers
    }

    /// Sets the brokers of the coordinator.
    pub fn set_brokers(&self, brokers: Vec<String>) -> Changes {
        if brokers == self.brokers { Vec::new() } else { vec![Row::Brokers(brokers)] }
    }

    /// Latest time that the coordinator has seen.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Sets the addresses of the coordinator.
    pub fn set_control(&self, addrs: BTreeSet<SocketAddr>) -> Changes {
        let addrs: Vec<_> = addrs.into_iter().collect();
        if addrs == self.control { Vec::new() } else { vec![Row::Control(addrs)] }
    }
}

fn swap<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

/// All roles: a join code allows them unless it names some.
pub const ALL_ROLES: [Role; 3] = [Role::Egress, Role::Ingress, Role::Exit];
