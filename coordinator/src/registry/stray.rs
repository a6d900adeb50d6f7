//! Strays: nodes and external clients that nodes know, and a registry that was set back does not, as they came after the
//! backup. Their keys, addresses and client blocks stay theirs until an admin adopts them or cuts them off.

use super::{
    ALL_ROLES, Changes, Client, ClientFile, CodeId, EgressSetting, Facts, Finding, Moment, Network, Node,
    Outcome, RecoveryError, Registry, RegistryError, Row, Tunnel, address,
};
use gatewrt_protocol::{
    Assignment, ClientId, ClientName, IngressClient, Member, NetworkId, NodeId, NodeName, Prefix, PublicKey,
    WgPublicKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

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

    /// WireGuard keys that are taken by it: its own, and those of the clients that it lets in.
    fn keys(&self) -> impl Iterator<Item = WgPublicKey> {
        let (own, assignment) = match self {
            Self::Node(node) => (node.member.key, node.assignment.as_ref()),
            Self::Client(client) => (client.client.key, None),
        };
        std::iter::once(own).chain(let_in(assignment).iter().map(|client| client.key))
    }

    fn identity(&self) -> Option<PublicKey> {
        match self {
            Self::Node(node) => node.identity,
            Self::Client(_) => None,
        }
    }

    fn row(self) -> Row {
        Row::Stray(self.id(), Some(Box::new(self)))
    }
}

fn client_id(key: WgPublicKey) -> String {
    data_encoding::HEXLOWER.encode(&key.0)
}

/// Clients that an assignment lets in.
fn let_in(assignment: Option<&Assignment>) -> &[IngressClient] {
    assignment.and_then(|assignment| assignment.ingress.as_ref()).map_or(&[], |ingress| &ingress.clients)
}

impl Registry {
    /// All strays, ordered by id.
    pub fn strays(&self) -> impl Iterator<Item = &Stray> {
        self.strays.values()
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
        // Whichever of its records it tells of last: the newest counts.
        let held = known.and_then(|known| known.assignment.as_ref());
        let newer = assignment.filter(|told| held.is_none_or(|held| held.rev < told.rev));
        let stray = StrayNode {
            member: known
                .map(|known| &known.member)
                .filter(|known| known.rev >= member.rev)
                .unwrap_or(member)
                .clone(),
            assignment: newer.or(held).cloned(),
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

    /// Rows that keep the client blocks of a known node its own, where it got them after the backup. No rows if none are
    /// new.
    pub(crate) fn keep_blocks(&self, node: &Node, member: &Member) -> Changes {
        let Some(network) = self.network(node.net) else { return Vec::new() };
        let taken = network.with_taken(member);
        if taken == *network {
            return Vec::new();
        }
        let mut blocks = node.blocks.clone();
        // Nobody else has them yet, so that it gets them when it is an ingress again.
        for block in member.clients.iter().filter(|block| network.has_inside(block) && network.is_free(block))
        {
            if !blocks.iter().any(|had| had.is_ipv4() == block.is_ipv4()) {
                blocks.push(*block);
            }
        }
        blocks.sort_by_key(|block| !block.is_ipv4());
        let kept = Node { blocks, ..node.clone() }.row_if_changed(node);
        [Row::Network(network.id, Some(taken))].into_iter().chain(kept).collect()
    }

    /// Member record of a stray node.
    pub(crate) fn stray_member(&self, node: NodeId) -> Option<&Member> {
        self.strays.get(&node.to_string())?.member()
    }

    /// Row of an external client that this registry does not know, and what is found by it; none if the client is known, or
    /// a known stray.
    pub(crate) fn stray_client(
        &self,
        node: &Node,
        client: &IngressClient,
        now: u64,
    ) -> Option<(Row, String)> {
        let stray = StrayClient { net: node.net, gateway: node.id, client: client.clone(), at: now };
        let stray = Stray::Client(Box::new(stray));
        let is_known = self.clients().any(|known| known.had_key(client.key));
        if is_known || self.strays.contains_key(&stray.id()) {
            return None;
        }
        let addresses: Vec<String> = client.addresses.iter().map(ToString::to_string).collect();
        let found = format!(
            "a client of {} with address {} came after the backup: adopt it or cut it off",
            node.name,
            addresses.join(", ")
        );
        Some((stray.row(), found))
    }

    /// Finds a stray by its id.
    pub fn find_stray(&self, id: &str) -> Result<&Stray, RegistryError> {
        let known = || self.strays.keys().cloned().collect();
        let stray = self.strays.get(id);
        Ok(stray.ok_or_else(|| RecoveryError::NoSuchStray { id: id.to_owned(), known: known() })?)
    }

    /// Refuses keys of a stray: it would not be itself any more.
    pub(super) fn check_no_strays_key(
        &self,
        key: WgPublicKey,
        identity: Option<PublicKey>,
    ) -> Result<(), RegistryError> {
        let has_identity = |stray: &Stray| identity.is_some() && stray.identity() == identity;
        let stray = self.strays().find(|stray| stray.keys().any(|had| had == key) || has_identity(stray));
        stray.map_or(Ok(()), |stray| Err(RecoveryError::KeyOfStray { id: stray.id() }.into()))
    }

    /// True if a stray can be adopted: its network is known, and nobody has its keys by now.
    pub fn is_adoptable(&self, stray: &Stray) -> bool {
        let is_heard = match stray {
            Stray::Node(node) => node.identity.is_some(),
            Stray::Client(_) => true,
        };
        is_heard && self.network(stray.net()).is_some() && self.check_free(stray).is_ok()
    }

    /// Refuses a stray whose keys are another node's or client's by now.
    fn check_free(&self, stray: &Stray) -> Result<(), RecoveryError> {
        let (key, identity) = match stray {
            Stray::Node(node) => (node.member.key, node.identity),
            Stray::Client(client) => (client.client.key, None),
        };
        let node = self.nodes().find(|node| node.key == key || Some(node.identity) == identity);
        let by = node.map(|node| node.name.to_string());
        let client =
            || self.clients().find(|client| client.had_key(key)).map(|client| client.name.to_string());
        by.or_else(client).map_or(Ok(()), |by| Err(RecoveryError::KeysTaken { by }))
    }

    /// Adopts a stray: it becomes a node or an external client again, with its keys and addresses, under `name` or the name
    /// that it had. Clients that a node let in are strays from then on, and it keeps to the access rules that it had.
    pub fn adopt_stray(&self, id: &str, name: Option<&str>, moment: &Moment) -> Outcome<Stray> {
        let stray = self.find_stray(id)?;
        self.check_free(stray)?;
        let mut rows = match stray {
            Stray::Node(node) => self.adopted_with_clients(node, name, moment.now)?,
            Stray::Client(client) => {
                let client = self.adopted_client(client, name, moment)?;
                vec![Row::Client(client.id, Some(Box::new(client)))]
            }
        };
        rows.push(Row::Stray(id.to_owned(), None));
        Ok((rows, stray.clone()))
    }

    fn adopted_with_clients(
        &self,
        stray: &StrayNode,
        name: Option<&str>,
        now: u64,
    ) -> Result<Changes, RegistryError> {
        let unheard = || RecoveryError::Unheard { name: stray.member.name.clone() };
        let identity = stray.identity.ok_or_else(unheard)?;
        let node = self.adopted_node(stray, identity, name)?;
        let clients = let_in(stray.assignment.as_ref()).iter();
        let (mut rows, findings): (Changes, Vec<String>) =
            clients.filter_map(|client| self.stray_client(&node, client, now)).unzip();
        let before = self.recovery().cloned().unwrap_or_default();
        let mut recovery = before.clone();
        recovery.find(findings.into_iter().map(|what| Finding { at: now, what }));
        let access = stray.assignment.as_ref().map(|assignment| &assignment.access);
        recovery.keep_rules(node.id, access.filter(|access| !access.is_open()));
        if recovery != before {
            rows.push(Row::Recovery(Some(recovery)));
        }
        rows.push(Row::Node(node.id, Some(Box::new(node))));
        Ok(rows)
    }

    /// Cuts a stray off for good: it is removed as if it had been known. Its keys and addresses are never reused.
    pub fn cut_off_stray(&self, id: &str, moment: &Moment) -> Outcome<Stray> {
        let stray = self.find_stray(id)?;
        let row = match stray {
            Stray::Node(node) => self.removed_stray(node, moment),
            Stray::Client(client) => {
                let name = parse_name::<ClientName>(&format!("cut-off-{}", &id[..8]))?;
                let client = Client {
                    enabled: false,
                    deleted: Some(moment.now),
                    ..self.client_of(client, name, moment)
                };
                let key = if self.check_free(stray).is_ok() { client.key } else { placeholder(id, moment) };
                Row::Client(client.id, Some(Box::new(Client { key, ..client })))
            }
        };
        Ok((vec![row, Row::Stray(id.to_owned(), None)], stray.clone()))
    }

    /// Rows of the strays of a network that is deleted: its nodes read that they are removed.
    pub(super) fn ended_strays(&self, net: NetworkId, moment: &Moment) -> Changes {
        let strays = self.strays().filter(|stray| stray.net() == net);
        let rows = strays.flat_map(|stray| {
            let node = match stray {
                Stray::Node(node) => Some(self.removed_stray(node, moment)),
                Stray::Client(_) => None,
            };
            node.into_iter().chain([Row::Stray(stray.id(), None)])
        });
        rows.collect()
    }

    /// Row of a stray node once it is removed. What it signs counts no more, so keys that another has by now are replaced by
    /// some that nobody has.
    fn removed_stray(&self, stray: &StrayNode, moment: &Moment) -> Row {
        let is_taken = |key: WgPublicKey| {
            self.nodes().any(|node| node.key == key) || self.clients().any(|client| client.had_key(key))
        };
        let member = &stray.member;
        let none = placeholder(&member.node.to_string(), moment);
        let key = if is_taken(member.key) { none } else { member.key };
        let identity = stray.identity.unwrap_or(PublicKey(key.0));
        let is_taken = self.nodes().any(|node| node.identity == identity);
        let identity = if is_taken { PublicKey(none.0) } else { identity };
        let node = Node { key, ..self.node_of(stray, identity, member.name.clone()) };
        node.removed_row(self.network(member.net).map(|network| &network.name), moment.now)
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
        let node = self.node_of(stray, identity, self.free_name(network, &wanted));
        let assigned = stray.assignment.iter().flat_map(|assignment| &assignment.egress);
        // What another site serves by now stays that site's.
        let free = assigned.filter(|egress| self.check_egress(&node, egress.prefix).is_ok());
        let egress =
            free.map(|egress| (egress.prefix, EgressSetting { nat: egress.nat, metric: egress.metric }));
        Ok(Node { egress: egress.collect(), ..node.clone() })
    }

    fn node_of(&self, stray: &StrayNode, identity: PublicKey, name: NodeName) -> Node {
        let member = &stray.member;
        Node {
            id: member.node,
            net: member.net,
            name,
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
        }
    }

    fn adopted_client(
        &self,
        stray: &StrayClient,
        name: Option<&str>,
        moment: &Moment,
    ) -> Result<Client, RegistryError> {
        let name = parse_name::<ClientName>(name.ok_or(RecoveryError::Unnamed)?)?;
        if self.network(stray.net).is_none() {
            return Err(RecoveryError::NoNetwork { net: stray.net }.into());
        }
        self.check_client_name(stray.net, None, &name)?;
        let client = self.client_of(stray, name, moment);
        Ok(Client { file: self.client_file(&client).unwrap_or_else(ClientFile::placeholder), ..client })
    }

    fn client_of(&self, stray: &StrayClient, name: ClientName, moment: &Moment) -> Client {
        let known = &stray.client;
        Client {
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
        }
    }
}

/// Key that nobody has, for a stray whose key another has by now.
fn placeholder(id: &str, moment: &Moment) -> WgPublicKey {
    let (mut key, text) = (moment.bytes(0), id.as_bytes());
    let length = text.len().min(16);
    key[..length].copy_from_slice(&text[..length]);
    WgPublicKey(key)
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
        let inside = member.clients.iter().filter(|block| self.has_inside(block));
        let blocks = self.blocks.iter().chain(inside).copied().collect();
        Self { next, blocks, ..self.clone() }
    }

    fn has_inside(&self, block: &Prefix) -> bool {
        self.prefixes().iter().any(|prefix| prefix.covers(block))
    }
}
