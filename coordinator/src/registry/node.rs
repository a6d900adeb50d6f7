//! Nodes: join, change, update of their facts, remove.

use super::{
    CodeId, ExitSetting, Facts, IngressSetting, Moment, Network, Outcome, Registry, RegistryError, Row,
    ScopeSetting,
    client::check_label,
    range::{check_count, check_range},
};
use data_encoding::BASE64URL_NOPAD;
use gatewrt_protocol::{
    JoinRequest, NetworkId, NetworkName, NodeId, NodeName, Prefix, PublicKey, Report, Role, Tag, WgPublicKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Egress settings of one prefix that a node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressSetting {
    /// NAT on or off: see [`gatewrt_protocol::Egress::nat`].
    pub nat: bool,
    /// Metric: see [`gatewrt_protocol::ServedPrefix::metric`].
    pub metric: u32,
}

/// Node as the registry stores it: a router that has joined a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Id; never changes.
    pub id: NodeId,
    /// Network it belongs to.
    pub net: NetworkId,
    /// Name, unique among the nodes of the network.
    pub name: NodeName,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Identity key, with which it signs its messages.
    pub identity: PublicKey,
    /// Overlay addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Roles that it may take.
    pub roles: BTreeSet<Role>,
    /// Join code that it used.
    pub code: CodeId,
    /// Time when it joined, in seconds since 1970.
    pub joined: u64,
    /// Prefixes that it serves.
    #[serde(default)]
    pub egress: BTreeMap<Prefix, EgressSetting>,
    /// Ingress settings, if it lets external clients in.
    #[serde(default)]
    pub ingress: Option<IngressSetting>,
    /// Blocks that its clients last had their addresses from. They are reused when it becomes an ingress
    /// again.
    #[serde(default)]
    pub blocks: Vec<Prefix>,
    /// Exit settings, if it forwards Internet traffic of other nodes.
    #[serde(default)]
    pub exit: Option<ExitSetting>,
    /// Scopes: Internet traffic of its own that goes through other nodes.
    #[serde(default)]
    pub scopes: BTreeMap<Tag, ScopeSetting>,
    /// Seconds to confirm a change, until the node rolls it back; none means [`CONFIRM_S`].
    #[serde(default)]
    pub confirm_s: Option<u16>,
    /// Number of the attempt. It grows when an admin asks the node to retry a change that it rolled back.
    #[serde(default)]
    pub attempt: u32,
    /// Label for people: any text.
    #[serde(default)]
    pub label: String,
    /// Tags that rules can select it by.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// Facts that it reported last.
    pub facts: Facts,
    /// Time when it was removed, in seconds since 1970.
    #[serde(default)]
    pub removed: Option<u64>,
    /// Name of the network that it was removed from: the network may be gone too.
    #[serde(default)]
    pub removed_from: Option<NetworkName>,
    /// Time when it acknowledged its tombstone, in seconds since 1970.
    #[serde(default)]
    pub told: Option<u64>,
}

/// Changes to a node; fields that are left out stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodePatch {
    /// Name, unique among the nodes of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<NodeName>,
    /// Label: any text up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// All tags that the node is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeSet<String>>)]
    pub tags: Option<BTreeSet<Tag>>,
    /// Seconds to confirm a change, 5 to 3600. If the control link does not come back in that time, the
    /// router rolls the change back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 5, maximum = 3600)]
    pub confirm_s: Option<u16>,
}

/// Default for the seconds in which a node has to confirm a change, until it rolls it back.
pub const CONFIRM_S: u16 = 60;

/// Largest number of tags of one node.
const TAGS: usize = 64;

impl Node {
    /// True unless the node was removed.
    pub fn is_live(&self) -> bool {
        self.removed.is_none()
    }

    pub(super) fn row_if_changed(&self, before: &Node) -> Vec<Row> {
        if self == before { Vec::new() } else { vec![Row::Node(self.id, Some(Box::new(self.clone())))] }
    }
}

impl Registry {
    /// Lets a router join, from a verified request. The request is idempotent: repeated, as when the answer
    /// was lost, it gets the same answer and takes no second use of the code.
    pub fn join(&self, request: &JoinRequest, seen: Option<IpAddr>, moment: &Moment) -> Outcome<NodeId> {
        let secret =
            BASE64URL_NOPAD.decode(request.secret.as_bytes()).map_err(|_| RegistryError::CodeUnknown)?;
        let code = self.code_of(&secret)?;
        if let Some(node) = self.nodes().find(|node| is_repeated(node, request, &code.id)) {
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
            removed_from: None,
            told: None,
        };
        let id = node.id;
        let code = Row::Code(taken.id.clone(), Some(taken));
        Ok((vec![code, Row::Network(network.id, Some(network)), Row::Node(id, Some(Box::new(node)))], id))
    }

    /// Changes the name, label, tags or confirm time of a node.
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
            check_count("the number of tags", tags.len(), TAGS, "0 to 64")?;
            changed.tags = tags.clone();
        }
        if let Some(confirm_s) = patch.confirm_s {
            check_range("the time to confirm", confirm_s.into(), 5..=3600, "5 to 3600 seconds")?;
            changed.confirm_s = Some(confirm_s).filter(|stated| *stated != CONFIRM_S);
        }
        Ok((changed.row_if_changed(node), changed))
    }

    /// Asks a node to retry the change that it rolled back.
    pub fn retry_node(&self, net: &str, node: &str) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        let changed = Node { attempt: node.attempt.saturating_add(1), ..node.clone() };
        Ok((changed.row_if_changed(node), changed))
    }

    /// Removes a node permanently: its keys and addresses are never reused. Refused while clients' files or
    /// scopes name it. With `force` these stay, cut off, until they get another gateway or exit.
    pub fn remove_node(&self, net: &str, node: &str, force: bool, moment: &Moment) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        self.check_clients_of(node, force)?;
        self.check_users_of(node, force)?;
        let network = self.network(node.net).expect("a live node's network exists");
        Ok((vec![node.removed_row(Some(&network.name), moment.now)], node.clone()))
    }

    /// Updates the facts of a node from its verified report; no rows if nothing is new.
    pub fn update_facts(&self, id: NodeId, report: &Report, seen: Option<IpAddr>) -> super::Changes {
        let Some(node) = self.live_node(id) else { return Vec::new() };
        let updated = Node { facts: node.facts.updated(report, seen), ..node.clone() };
        updated.row_if_changed(node)
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
        self.check_no_strays_key(request.key, Some(request.identity))?;
        let error = known("WireGuard key", &|node| node.key == request.key)
            .or_else(|| known("identity key", &|node| node.identity == request.identity));
        error.map_or(Ok(()), Err)
    }

    /// Free name for a new node: the requested one, with a number if it is taken.
    pub(super) fn free_name(&self, network: &Network, wanted: &NodeName) -> NodeName {
        let nodes = self.live_nodes(network.id).map(|node| node.name.as_str());
        let clients = self.live_clients(network.id).map(|client| client.name.as_str());
        let taken: BTreeSet<_> = nodes.chain(clients).collect();
        let numbered = (2u32..).map(|number| numbered(wanted, number));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        names.find(|name| !taken.contains(name.as_str())).expect("there are more numbers than nodes")
    }
}

fn is_repeated(node: &Node, request: &JoinRequest, code: &CodeId) -> bool {
    node.is_live() && node.key == request.key && node.identity == request.identity && node.code == *code
}

fn numbered(name: &NodeName, number: u32) -> NodeName {
    let suffix = format!("-{number}");
    let stem: String = name.as_str().chars().take(NodeName::LONGEST - suffix.len()).collect();
    format!("{}{suffix}", stem.trim_end_matches('-')).parse().expect("a name with a number is a name")
}
