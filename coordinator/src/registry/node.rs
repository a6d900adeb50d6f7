//! Nodes: they join, are renamed, say what changed, are removed.

use super::{
    CodeId, ExitSetting, Facts, IngressSetting, Moment, Network, Outcome, Registry, RegistryError, Row,
    ScopeSetting, client::check_label, rule::check,
};
use data_encoding::BASE64URL_NOPAD;
use gatewrt_protocol::{
    JoinRequest, NetworkId, NodeId, NodeName, Prefix, PublicKey, Report, Role, Tag, WgPublicKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// How a prefix is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressSetting {
    /// See [`gatewrt_protocol::Egress::nat`].
    pub nat: bool,
    /// See [`gatewrt_protocol::ServedPrefix::metric`].
    pub metric: u32,
}

/// A router that has joined a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Never changes.
    pub id: NodeId,
    /// Its network.
    pub net: NetworkId,
    /// Unique among the network's nodes.
    pub name: NodeName,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Signs what it says.
    pub identity: PublicKey,
    /// Overlay addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What it may do for others.
    pub roles: BTreeSet<Role>,
    /// The code it joined with.
    pub code: CodeId,
    /// When it joined, in seconds since 1970.
    pub joined: u64,
    /// What it serves.
    #[serde(default)]
    pub egress: BTreeMap<Prefix, EgressSetting>,
    /// That it lets external clients in.
    #[serde(default)]
    pub ingress: Option<IngressSetting>,
    /// The blocks that its clients had their addresses from last: its again when it lets clients in again.
    #[serde(default)]
    pub blocks: Vec<Prefix>,
    /// That it takes others' Internet traffic.
    #[serde(default)]
    pub exit: Option<ExitSetting>,
    /// Which of its own Internet traffic goes through others.
    #[serde(default)]
    pub scopes: BTreeMap<Tag, ScopeSetting>,
    /// How long its control link may take to show that it outlived a change, in seconds; nothing stated is 60.
    #[serde(default)]
    pub confirm_s: Option<u16>,
    /// Grows when an admin wants tried again what it took back.
    #[serde(default)]
    pub attempt: u32,
    /// What people call it: any text.
    #[serde(default)]
    pub label: String,
    /// What rules may speak of it by.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// What it said of itself last.
    pub facts: Facts,
    /// When it was removed, in seconds since 1970.
    #[serde(default)]
    pub removed: Option<u64>,
}

/// What an admin changes about a node; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodePatch {
    /// Unique among the network's nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<NodeName>,
    /// Any text of up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// All that it is to be marked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub tags: Option<BTreeSet<Tag>>,
    /// How long its control link may take to show that it outlived a change, in seconds, 5 to 3600: then the router
    /// takes the change back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 5, maximum = 3600)]
    pub confirm_s: Option<u16>,
}

/// How long a control link may take to show that it outlived a change, in seconds, where nothing is stated.
pub const CONFIRM_S: u16 = 60;

/// Tags of one node.
const TAGS: usize = 64;

impl Node {
    /// Whether it was not removed.
    pub fn is_live(&self) -> bool {
        self.removed.is_none()
    }

    pub(super) fn row_if_changed(&self, before: &Node) -> Vec<Row> {
        if self == before { Vec::new() } else { vec![Row::Node(self.id, Some(Box::new(self.clone())))] }
    }

    pub(super) fn removed_row(&self, now: u64) -> Row {
        let (egress, scopes) = (BTreeMap::new(), BTreeMap::new());
        let removed = Node { removed: Some(now), egress, ingress: None, exit: None, scopes, ..self.clone() };
        Row::Node(self.id, Some(Box::new(removed)))
    }
}

impl Registry {
    /// Lets a router join whose request was verified. The same request again, as when the answer was lost,
    /// is answered alike and takes no second use of the code.
    pub fn join(&self, request: &JoinRequest, seen: Option<IpAddr>, moment: &Moment) -> Outcome<NodeId> {
        let secret =
            BASE64URL_NOPAD.decode(request.secret.as_bytes()).map_err(|_| RegistryError::CodeUnknown)?;
        let code = self.code_of(&secret)?;
        if let Some(node) = self.nodes().find(|node| is_again(node, request, &code.id)) {
            return Ok((Vec::new(), node.id));
        }
        let taken = code.take(moment.now)?;
        self.check_keys(request)?;
        let network = self.network(code.net).ok_or(RegistryError::CodeUnknown)?;
        let (addresses, network) = network.allocate()?;
        let node = Node {
            id: NodeId::from_entropy(moment.bytes(0)),
            net: network.id,
            name: self.free_name(&network, &request.name),
            key: request.key,
            identity: request.identity,
            addresses,
            roles: code.roles.clone(),
            code: code.id.clone(),
            joined: moment.now,
            egress: BTreeMap::new(),
            ingress: None,
            blocks: Vec::new(),
            exit: None,
            scopes: BTreeMap::new(),
            confirm_s: None,
            attempt: 0,
            label: String::new(),
            tags: BTreeSet::new(),
            facts: Facts::of_request(request, seen),
            removed: None,
        };
        let id = node.id;
        let code = Row::Code(taken.id.clone(), Some(taken));
        Ok((vec![code, Row::Network(network.id, Some(network)), Row::Node(id, Some(Box::new(node)))], id))
    }

    /// Changes what can change about a node: its name, its label, its tags, how long it waits for its control link.
    pub fn change_node(&self, net: &str, node: &str, patch: &NodePatch) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        let mut changed = node.clone();
        if let Some(name) = &patch.name {
            if self.live_nodes(node.net).any(|other| other.id != node.id && other.name == *name) {
                return Err(RegistryError::NameTaken { what: "a node", name: name.to_string() });
            }
            if self.live_clients(node.net).any(|client| client.name.as_str() == name.as_str()) {
                return Err(RegistryError::NameTaken { what: "a client", name: name.to_string() });
            }
            changed.name = name.clone();
        }
        if let Some(label) = &patch.label {
            check_label(label)?;
            changed.label = label.clone();
        }
        if let Some(tags) = &patch.tags {
            check("the number of tags", tags.len(), TAGS, "0 to 64")?;
            changed.tags = tags.clone();
        }
        if let Some(confirm_s) = patch.confirm_s {
            let (what, range) = ("the time to confirm", "5 to 3600 seconds");
            if !(5..=3600).contains(&confirm_s) {
                return Err(RegistryError::OutOfRange { what, value: confirm_s.into(), range });
            }
            changed.confirm_s = Some(confirm_s).filter(|stated| *stated != CONFIRM_S);
        }
        Ok((changed.row_if_changed(node), changed))
    }

    /// Has a node try again what it took back.
    pub fn retry_node(&self, net: &str, node: &str) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        let changed = Node { attempt: node.attempt.saturating_add(1), ..node.clone() };
        Ok((changed.row_if_changed(node), changed))
    }

    /// Removes a node for ever: neither its keys nor its addresses come back. Where clients' files or scopes name it,
    /// only with `force`: they stay, cut off, until they are reissued elsewhere or have another exit.
    pub fn remove_node(&self, net: &str, node: &str, force: bool, moment: &Moment) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        self.check_clients_of(node, force)?;
        self.check_users_of(node, force)?;
        Ok((vec![node.removed_row(moment.now)], node.clone()))
    }

    /// Takes in what a node's verified report says of it; nothing where that is no news.
    pub fn learn(&self, id: NodeId, report: &Report, seen: Option<IpAddr>) -> super::Changes {
        let Some(node) = self.live_node(id) else { return Vec::new() };
        let learnt = Node { facts: node.facts.updated(report, seen), ..node.clone() };
        learnt.row_if_changed(node)
    }

    fn check_keys(&self, request: &JoinRequest) -> Result<(), RegistryError> {
        if request.key.0 == [0; 32] {
            return Err(RegistryError::BadKey { which: "WireGuard key" });
        }
        let known = |which, same: &dyn Fn(&Node) -> bool| {
            let node = self.nodes().find(|node| same(node));
            node.map(|node| RegistryError::KeyKnown {
                which,
                node: node.name.clone(),
                removed: !node.is_live(),
            })
        };
        self.check_no_clients_key(request.key)?;
        let error = known("WireGuard key", &|node| node.key == request.key)
            .or_else(|| known("identity key", &|node| node.identity == request.identity));
        error.map_or(Ok(()), Err)
    }

    /// The name wanted, with a number where it is taken.
    fn free_name(&self, network: &Network, wanted: &NodeName) -> NodeName {
        let nodes = self.live_nodes(network.id).map(|node| node.name.as_str());
        let clients = self.live_clients(network.id).map(|client| client.name.as_str());
        let taken: BTreeSet<_> = nodes.chain(clients).collect();
        let numbered = (2u32..).map(|number| numbered(wanted, number));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        names.find(|name| !taken.contains(name.as_str())).expect("there are more numbers than nodes")
    }
}

fn is_again(node: &Node, request: &JoinRequest, code: &CodeId) -> bool {
    node.is_live() && node.key == request.key && node.identity == request.identity && node.code == *code
}

fn numbered(name: &NodeName, number: u32) -> NodeName {
    let suffix = format!("-{number}");
    let stem: String = name.as_str().chars().take(NodeName::LONGEST - suffix.len()).collect();
    format!("{}{suffix}", stem.trim_end_matches('-')).parse().expect("a name with a number is a name")
}
