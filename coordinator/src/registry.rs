//! What the admin wants and what the nodes said of themselves: one value, kept whole in memory. Pure: each
//! operation takes the moment it happens at and answers with the rows it changes, or why it refuses. It ends
//! where rows are stored ([`crate::store`]) and where they become records ([`crate::records`]).

mod access_error;
mod address;
mod check;
mod client;
mod code;
mod egress;
mod error;
mod exit;
mod facts;
mod file;
mod group;
mod ingress;
mod network;
mod node;
mod overlap;
mod rule;
mod scope;
mod selector;
#[cfg(test)]
mod tests;
mod token;

pub use access_error::AccessError;
pub use check::CheckAnswer;
pub use client::{Client, ClientError, ClientPatch, ClientState, ClientWish, NewKeys, ReissueWish, Tunnel};
pub use code::{Code, CodeId, CodeWish};
pub use error::{Overlap, RegistryError};
pub use exit::{ExitError, ExitSetting, ExitWish, Ipv6, ScopeSetting, ScopeWish, User};
pub use facts::{Facts, is_private};
pub use file::ClientFile;
pub use group::{Group, GroupWish};
pub use ingress::{IngressSetting, IngressWish};
pub use network::{Network, NetworkPatch, NetworkWish};
pub use node::{CONFIRM_S, EgressSetting, Node, NodePatch};
pub use overlap::Owner;
pub use rule::{Rule, RulePatch, RuleWish};
pub use scope::{Scope, of_client};
pub use selector::Selector;
pub use token::{Rights, TOKEN_PREFIX, Token, TokenId, TokenWish, token_hash};

use crate::audit::Entry;
use gatewrt_protocol::{ClientId, GroupName, NetworkId, NodeId, Role, RuleId};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// When an operation happens, and what is random in it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Seconds since 1970.
    pub now: u64,
    /// Fresh for each operation.
    pub entropy: [u8; 32],
}

impl Moment {
    /// `N` of the random bytes, from `at`.
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.entropy.get(at..).and_then(<[u8]>::first_chunk);
        *bytes.expect("an operation takes at most 32 random bytes")
    }
}

/// One row as it is from now on; `None` where it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A network.
    Network(NetworkId, Option<Network>),
    /// A node; a removed one stays, so that its keys and addresses are never taken again.
    Node(NodeId, Option<Box<Node>>),
    /// An external client; a deleted one stays, so that its keys and addresses are never taken again.
    Client(ClientId, Option<Box<Client>>),
    /// A join code.
    Code(CodeId, Option<Code>),
    /// An access rule.
    Rule(RuleId, Option<Rule>),
    /// A group that rules name.
    Group(NetworkId, GroupName, Option<Group>),
    /// Where the coordinator itself is.
    Control(Vec<SocketAddr>),
    /// A token of the HTTPS API.
    Token(TokenId, Option<Token>),
    /// Who changed what. It is stored with the rows it tells of, and no part of the registry.
    Audit(Box<Entry>),
}

/// The rows that one operation changes. They take effect together or not at all.
pub type Changes = Vec<Row>;

/// An operation's outcome: the rows it changes, and its answer.
pub type Outcome<T> = Result<(Changes, T), RegistryError>;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    networks: BTreeMap<NetworkId, Network>,
    nodes: BTreeMap<NodeId, Node>,
    clients: BTreeMap<ClientId, Client>,
    codes: BTreeMap<CodeId, Code>,
    rules: BTreeMap<RuleId, Rule>,
    groups: BTreeMap<(NetworkId, GroupName), Group>,
    control: Vec<SocketAddr>,
    tokens: BTreeMap<TokenId, Token>,
}

impl Registry {
    /// Puts rows into effect. Answers the rows that undo it.
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
            Row::Token(id, value) => Row::Token(id.clone(), swap(&mut self.tokens, id, value)),
            Row::Audit(entry) => Row::Audit(entry),
        }
    }

    /// All networks, in order of their ids.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// A network by its id.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// A network by its name or the text of its id.
    pub fn find_network(&self, text: &str) -> Result<&Network, RegistryError> {
        let by_id = text.parse().ok().and_then(|id| self.networks.get(&id));
        let by_name = || self.networks.values().find(|network| network.name.as_str() == text);
        by_id.or_else(by_name).ok_or_else(|| RegistryError::NoSuchNetwork {
            text: text.to_owned(),
            known: self.networks.values().map(|network| network.name.clone()).collect(),
        })
    }

    /// A node by its id, also a removed one.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// A node that was not removed.
    pub fn live_node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).filter(|node| node.is_live())
    }

    /// All nodes there ever were, in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The nodes of a network, without removed ones.
    pub fn live_nodes(&self, net: NetworkId) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.net == net && node.is_live())
    }

    /// A node of a network by its name or the text of its id.
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

    /// The join codes of a network.
    pub fn codes(&self, net: NetworkId) -> impl Iterator<Item = &Code> {
        self.codes.values().filter(move |code| code.net == net)
    }

    /// Where the coordinator is: what routers must never reach through a network.
    pub fn control(&self) -> &[SocketAddr] {
        &self.control
    }

    /// States where the coordinator is.
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

/// Every role there is: what a join code allows when nothing else is said.
pub const ALL_ROLES: [Role; 3] = [Role::Egress, Role::Ingress, Role::Exit];
