//! Records of each topic: Registry → contents, and those that have changed. Pure. The revision of a record
//! grows only when its content differs from the published one. Signing, storing and publishing are done
//! elsewhere.

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods, reason = "pure: time, files and random bytes come in as values")
)]

mod access;
#[cfg(test)]
mod tests;

pub use access::Compared;

use crate::registry::{Client, ExitSetting, Network, Node, Registry, Row, Tunnel};
use gatewrt_protocol::{
    Access, Assignment, Egress, Ingress, IngressClient, Member, MemberUpdate, NetworkId, NodeId, Policy,
    RecordError, Roster, ServedPrefix, Signer, Tombstone, Topic, id::ID_BYTES,
};
use std::collections::{BTreeMap, BTreeSet};

/// Content of a record of the coordinator: what is signed and published on one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Member record or tombstone of a node.
    Member(MemberUpdate),
    /// Roster of a network.
    Roster(Roster),
    /// Policy of a network.
    Policy(Policy),
    /// Assignment of a node.
    Assignment(Assignment),
}

impl Content {
    /// Revision of the record.
    pub fn rev(&self) -> u64 {
        match self {
            Self::Member(update) => update.about().2,
            Self::Roster(roster) => roster.rev,
            Self::Policy(policy) => policy.rev,
            Self::Assignment(assignment) => assignment.rev,
        }
    }

    /// Same content with another revision.
    pub fn with_rev(mut self, rev: u64) -> Self {
        match &mut self {
            Self::Member(MemberUpdate::Member(member)) => member.rev = rev,
            Self::Member(MemberUpdate::Tombstone(tombstone)) => tombstone.rev = rev,
            Self::Roster(roster) => roster.rev = rev,
            Self::Policy(policy) => policy.rev = rev,
            Self::Assignment(assignment) => assignment.rev = rev,
        }
        self
    }

    /// Signs the content as a record.
    pub fn sign(&self, signer: &Signer) -> Result<String, RecordError> {
        match self {
            Self::Member(update) => signer.sign(update),
            Self::Roster(roster) => signer.sign(roster),
            Self::Policy(policy) => signer.sign(policy),
            Self::Assignment(assignment) => signer.sign(assignment),
        }
    }

    /// Verifies and decodes a signed record; `None` if it is not valid on that topic.
    pub fn open(topic: Topic, signed: &[u8], key: &gatewrt_protocol::PublicKey) -> Option<Self> {
        use gatewrt_protocol::jws::open;
        match topic {
            Topic::Member(..) => open(signed, key).ok().map(Self::Member),
            Topic::Roster(_) => open(signed, key).ok().map(Self::Roster),
            Topic::Policy(_) => open(signed, key).ok().map(Self::Policy),
            Topic::Assignment(_) => open(signed, key).ok().map(Self::Assignment),
            Topic::Command(_) | Topic::Report(_) | Topic::Reply(_) | Topic::Presence(_) => None,
        }
    }

    /// Verifies and decodes a signed record of any kind that a coordinator publishes, and the topic that it belongs to.
    pub fn open_any(signed: &[u8], key: &gatewrt_protocol::PublicKey) -> Option<(Topic, Self)> {
        use gatewrt_protocol::{Kind, jws};
        let (kind, payload) = jws::verify(signed, key).ok()?;
        let content = match kind {
            Kind::Member | Kind::Tombstone => jws::read(kind, &payload).ok().map(Self::Member),
            Kind::Roster => jws::read(kind, &payload).ok().map(Self::Roster),
            Kind::Policy => jws::read(kind, &payload).ok().map(Self::Policy),
            Kind::Assignment => jws::read(kind, &payload).ok().map(Self::Assignment),
            Kind::Report | Kind::Presence | Kind::Join => None,
        }?;
        Some((content.topic(), content))
    }

    /// Topic that the record belongs to.
    fn topic(&self) -> Topic {
        match self {
            Self::Member(update) => {
                let (net, node, _) = update.about();
                Topic::Member(net, node)
            }
            Self::Roster(roster) => Topic::Roster(roster.net),
            Self::Policy(policy) => Topic::Policy(policy.net),
            Self::Assignment(assignment) => Topic::Assignment(assignment.node),
        }
    }

    /// Network that the record is about.
    pub fn net(&self) -> NetworkId {
        match self {
            Self::Member(update) => update.about().0,
            Self::Roster(roster) => roster.net,
            Self::Policy(policy) => policy.net,
            Self::Assignment(assignment) => assignment.net,
        }
    }

    fn is_member(&self) -> bool {
        matches!(self, Self::Member(MemberUpdate::Member(_)))
    }
}

/// Change of a published record: the new content of one topic; `None` clears it.
pub type Change = (Topic, Option<Content>);

/// Records that the coordinator has published, by topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishedRecords {
    records: BTreeMap<Topic, Content>,
    /// Revisions, by topic, that nodes have from the time after a backup: the next is higher, whatever its content.
    floors: BTreeMap<Topic, u64>,
}

impl PublishedRecords {
    /// Content that is published on `topic`.
    pub fn content(&self, topic: &Topic) -> Option<&Content> {
        self.records.get(topic)
    }

    /// All published contents, ordered by topic.
    pub fn iter(&self) -> impl Iterator<Item = (&Topic, &Content)> {
        self.records.iter()
    }

    /// Puts changes of published records into effect. Returns the changes that undo them.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let swap = |(topic, content): Change| match content {
            Some(content) => {
                self.floors.remove(&topic);
                (topic, self.records.insert(topic, content))
            }
            None => (topic, self.records.remove(&topic)),
        };
        changes.into_iter().map(swap).collect()
    }

    /// True if nodes have something on `topic` that these records do not have: a higher revision, the same one with other
    /// content, or a tombstone in place of a member record, whatever its revision, as no removed node comes back.
    pub fn is_behind(&self, topic: &Topic, known: &Content) -> bool {
        let is_end = matches!(known, Content::Member(MemberUpdate::Tombstone(_)));
        self.content(topic).is_none_or(|stands| {
            let is_newer = stands.rev() < known.rev() || (stands.rev() == known.rev() && stands != known);
            is_newer || (is_end && stands.is_member())
        })
    }

    /// Makes the next revision on `topic` one above `rev`, and the next plan publish it, changed or not. Returns the
    /// revision that it was above before, if any.
    pub fn raise(&mut self, topic: Topic, rev: u64) -> Option<u64> {
        let before = self.floors.get(&topic).copied();
        self.floors.insert(topic, rev.max(before.unwrap_or_default()));
        before
    }

    /// Undoes a [`Self::raise`], which returned `before`, unless something was published since.
    pub fn lower(&mut self, topic: &Topic, before: Option<u64>) {
        match (self.floors.get_mut(topic), before) {
            (Some(floor), Some(before)) => *floor = before,
            (Some(_), None) => _ = self.floors.remove(topic),
            (None, _) => {}
        }
    }

    /// Changes that make these records the same as `others`, in the order of publishing.
    pub fn changes_to(&self, others: &Self) -> Vec<Change> {
        let topics: BTreeSet<&Topic> = self.records.keys().chain(others.records.keys()).collect();
        let is_changed = |topic: &&Topic| self.content(topic) != others.content(topic);
        let change = |topic: &Topic| (*topic, others.content(topic).cloned());
        let mut changes: Vec<Change> = topics.into_iter().filter(is_changed).map(change).collect();
        // As in `plan`: rosters last.
        changes.sort_by_key(|(topic, _)| matches!(topic, Topic::Roster(_)));
        changes
    }

    /// Plans the changes that make the records of `topics` match `registry`, in the order of publishing: the member
    /// records of a network come before the roster that lists their revisions.
    pub fn plan(&self, registry: &Registry, now: u64, topics: &BTreeSet<Topic>) -> Vec<Change> {
        let (rosters, others): (Vec<&Topic>, Vec<&Topic>) = topics
            .iter()
            .filter(|topic| !is_held_back(registry, topic))
            .partition(|topic| matches!(topic, Topic::Roster(_)));
        let mut rules = access::RulesCache::default();
        let mut changes: Vec<Change> = others
            .into_iter()
            .filter_map(|topic| self.change(*topic, draft(registry, now, topic, &mut rules)))
            .collect();
        for topic in rosters {
            let Topic::Roster(net) = *topic else { continue };
            let roster = registry.network(net).map(|_| Roster::new(net, 0, &self.members(net, &changes)));
            changes.extend(self.change(*topic, roster.map(Content::Roster)));
        }
        changes
    }

    /// Change that publishes `draft`, whose revision is ignored, on `topic`; `None` if it is published
    /// already.
    fn change(&self, topic: Topic, draft: Option<Content>) -> Option<Change> {
        let floor = self.floors.get(&topic).copied();
        match (self.records.get(&topic), draft) {
            (None, None) => None,
            // One that was withdrawn stays so when the clock goes back: its revisions would begin anew.
            (None, Some(Content::Member(MemberUpdate::Tombstone(_)))) if floor.is_none() => None,
            (Some(_), None) => Some((topic, None)),
            (None, Some(draft)) => Some((topic, Some(draft.with_rev(floor.unwrap_or_default() + 1)))),
            (Some(stands), Some(draft)) => {
                let (rev, same) = (stands.rev(), draft.clone().with_rev(stands.rev()) == *stands);
                let next = floor.map_or(rev, |floor| floor.max(rev)) + 1;
                (floor.is_some() || !same).then(|| (topic, Some(draft.with_rev(next))))
            }
        }
    }

    /// Nodes of a network and the revisions of their member records, with `changes` in effect.
    fn members(&self, net: NetworkId, changes: &[Change]) -> BTreeMap<NodeId, u64> {
        let (first, last) = (NodeId::from_entropy([0; ID_BYTES]), NodeId::from_entropy([255; ID_BYTES]));
        let stand = self.records.range(Topic::Member(net, first)..=Topic::Member(net, last));
        let stand = stand.map(|(topic, content)| (topic, Some(content)));
        let change = changes.iter().map(|(topic, content)| (topic, content.as_ref()));
        let mut members = BTreeMap::new();
        for (topic, content) in stand.chain(change) {
            let Topic::Member(of, node) = *topic else { continue };
            if of != net {
                continue;
            }
            match content.filter(|content| content.is_member()) {
                Some(content) => members.insert(node, content.rev()),
                None => members.remove(&node),
            };
        }
        members
    }
}

/// True for the topic of an assignment that has to wait until its node has reported.
pub fn is_held_back(registry: &Registry, topic: &Topic) -> bool {
    matches!(topic, Topic::Assignment(node) if registry.is_awaited(*node))
}

/// Difference between the access rules that a node has shown and those that follow from the registry.
pub fn compared_rules(registry: &Registry, node: &Node, told: &Access) -> Compared {
    access::RulesCache::default().compared(registry, node, told)
}

/// Nodes that keep to access rules which they had before the coordinator was set back, where these deny something that those
/// which follow from the registry allow.
pub fn stricter_rules(registry: &Registry) -> Vec<(&Node, &Access)> {
    let mut cache = access::RulesCache::default();
    let is_stricter =
        |(node, kept): &(&Node, &Access)| cache.compared(registry, node, kept) == Compared::Stricter;
    registry.kept_rules().filter(is_stricter).collect()
}

/// Topics of the records whose content may have changed with `rows`. `registry` is the state after the change, and
/// `undo` the result of [`Registry::apply`].
pub fn touched(registry: &Registry, rows: &[Row], undo: &[Row]) -> BTreeSet<Topic> {
    let mut topics = access::touched(registry, rows, undo);
    topics.extend(rows.iter().flat_map(|row| touched_by(registry, row)));
    topics
}

fn touched_by(registry: &Registry, row: &Row) -> Vec<Topic> {
    match row {
        Row::Network(net, _) => network_topics(registry, *net),
        Row::Node(node, _) => registry.node(*node).map(node_topics).unwrap_or_default(),
        Row::Client(client, _) => {
            registry.client(*client).map(|client| client_topics(registry, client)).unwrap_or_default()
        }
        Row::Code(..) | Row::Token(..) | Row::Seen(_) | Row::Audit(_) | Row::Stray(..) => Vec::new(),
        // What was awaited may be assigned now.
        Row::Recovery(_) => registry.nodes().map(|node| Topic::Assignment(node.id)).collect(),
        // Handled by `access`.
        Row::Rule(..) | Row::Group(..) => Vec::new(),
        Row::Control(_) => registry.nodes().map(|node| Topic::Assignment(node.id)).collect(),
        Row::Brokers(_) => registry.networks().map(|network| Topic::Policy(network.id)).collect(),
    }
}

/// Topics that have or may get a record, in all networks.
pub fn all_topics(registry: &Registry, published: &PublishedRecords) -> BTreeSet<Topic> {
    let networks =
        registry.networks().flat_map(|network| [Topic::Policy(network.id), Topic::Roster(network.id)]);
    let nodes = registry.nodes().flat_map(node_topics);
    networks.chain(nodes).chain(published.iter().map(|(topic, _)| *topic)).collect()
}

/// Topics of the records that depend on a network. A change of an existing network affects only its own topics; a new
/// or deleted one affects those of its nodes too.
fn network_topics(registry: &Registry, net: NetworkId) -> Vec<Topic> {
    let own = [Topic::Policy(net), Topic::Roster(net)];
    let gone = registry.network(net).is_none();
    let nodes = registry.nodes().filter(|node| gone && node.net == net).flat_map(node_topics);
    own.into_iter().chain(nodes).collect()
}

/// Topics of the assignments that depend on a client, of all nodes that it can use as its gateway: it may have moved
/// from one to another.
fn client_topics(registry: &Registry, client: &Client) -> Vec<Topic> {
    client.seats.keys().filter_map(|node| registry.node(*node)).flat_map(node_topics).collect()
}

fn node_topics(node: &Node) -> Vec<Topic> {
    vec![Topic::Member(node.net, node.id), Topic::Roster(node.net), Topic::Assignment(node.id)]
}

/// Content of the record of a topic, as it follows from the registry, with revision 0.
fn draft(registry: &Registry, now: u64, topic: &Topic, rules: &mut access::RulesCache) -> Option<Content> {
    match *topic {
        Topic::Policy(net) => registry.network(net).map(|network| Content::Policy(policy(registry, network))),
        Topic::Member(net, node) => {
            let node = registry.node(node).filter(|node| node.net == net)?;
            member_update(registry, node, now).map(Content::Member)
        }
        Topic::Assignment(node) => {
            let node = registry.live_node(node)?;
            let access = rules.at(registry, node);
            Some(Content::Assignment(Assignment { access, ..assignment(registry, node, now) }))
        }
        _ => None,
    }
}

fn policy(registry: &Registry, network: &Network) -> Policy {
    Policy {
        net: network.id,
        rev: 0,
        name: network.name.clone(),
        prefixes: network.prefixes().to_vec(),
        mtu: network.mtu,
        keepalive: network.keepalive,
        domain: network.domain.clone(),
        brokers: registry.brokers().to_vec(),
    }
}

/// Record on the member topic of a node. The tombstone of a removed node outlives its network.
fn member_update(registry: &Registry, node: &Node, now: u64) -> Option<MemberUpdate> {
    if node.is_live() {
        let network = registry.network(node.net)?;
        return Some(MemberUpdate::Member(member(registry, network, node, now)));
    }
    let tombstone = Tombstone { net: node.net, node: node.id, rev: 0 };
    node.has_tombstone(now).then_some(MemberUpdate::Tombstone(tombstone))
}

fn member(registry: &Registry, network: &Network, node: &Node, now: u64) -> Member {
    let served = |(prefix, setting): (&_, &crate::registry::EgressSetting)| ServedPrefix {
        prefix: *prefix,
        metric: setting.metric,
    };
    let behind = registry.admitted(node, now).flat_map(|client| &client.prefixes);
    let behind = behind.map(|prefix| ServedPrefix { prefix: *prefix, metric: 0 });
    let mut prefixes: Vec<_> = node.egress.iter().map(served).chain(behind).collect();
    prefixes.sort();
    Member {
        net: node.net,
        node: node.id,
        rev: 0,
        name: node.name.clone(),
        key: node.key,
        addresses: node.addresses.clone(),
        endpoints: node.facts.candidates(&network.prefixes()),
        prefixes,
        clients: node.ingress.as_ref().map_or_else(Vec::new, |ingress| ingress.blocks.clone()),
        exit: node.exit_offer(),
    }
}

fn assignment(registry: &Registry, node: &Node, now: u64) -> Assignment {
    let egress = node.egress.iter();
    Assignment {
        net: node.net,
        node: node.id,
        rev: 0,
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        egress: egress
            .map(|(prefix, set)| Egress { prefix: *prefix, nat: set.nat, metric: set.metric })
            .collect(),
        ingress: node
            .ingress
            .as_ref()
            .map(|_| Ingress { clients: registry.admitted(node, now).map(ingress_client).collect() }),
        exit: node.exit.as_ref().map(ExitSetting::requested),
        scopes: node.scopes.iter().map(|(name, scope)| scope.record(name)).collect(),
        confirm_s: node.confirm_s,
        attempt: node.attempt,
        access: Access::default(),
        control: registry.control().to_vec(),
    }
}

fn ingress_client(client: &Client) -> IngressClient {
    IngressClient {
        key: client.key,
        addresses: client.addresses().to_vec(),
        psk: client.psk,
        prefixes: client.prefixes.iter().copied().collect(),
        internet: client.tunnel == Tunnel::Full,
        reachable: client.reachable,
    }
}
