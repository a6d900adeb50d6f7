//! API values of the recovery after the coordinator was set back.

use crate::{
    clock::date,
    records::stricter_rules,
    registry::{Finding, Node, Recovery, Registry, Stray},
};
use gatewrt_protocol::{Access, AccessRule, NetworkName, NodeId, NodeName, Verdict};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// Recovery of the coordinator after it was set back, as by restoring a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryView {
    /// Recovery in one sentence; none if the coordinator was never set back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Time at which the backup was restored, or the first node told of something newer, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Time of the backup, in seconds since 1970; none if no backup was restored by command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_at: Option<u64>,
    /// Nodes that have not reported since: what is assigned to them waits until then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub waiting: Vec<NodeName>,
    /// Nodes that told of records newer than the coordinator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub helped: Vec<NodeName>,
    /// Findings, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Nodes and external clients that the coordinator does not know any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<StrayView>,
    /// Nodes that keep to access rules that they had before, beside those of the coordinator, which would allow more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<KeptRulesView>,
}

/// Access rules that a node had before the coordinator was set back, and keeps to until an admin accepts the coordinator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptRulesView {
    /// Id of the node.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Name of the node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Network of the node.
    pub network: String,
    /// Earlier rules of the node, one a line, from sources to destinations.
    pub rules: Vec<String>,
}

/// Node or external client that nodes know and the coordinator does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StrayView {
    /// Id to adopt it or cut it off by.
    pub id: String,
    /// What it is: `node` or `client`.
    pub what: String,
    /// Network; its id if that is not known either.
    pub network: String,
    /// Name of a node; none for a client, whose gateway knows no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<NodeName>,
    /// Node that let a client in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<NodeName>,
    /// Overlay addresses that it has, and that nobody else gets.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Set if it can be adopted now: a node has to have connected, the network has to be known, and nobody else may have its
    /// keys by now.
    pub adoptable: bool,
    /// Time at which it was found, in seconds since 1970.
    pub at: u64,
}

/// Request to adopt a stray.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptRequest {
    /// Name: a client needs one; a node keeps its own if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl RecoveryView {
    /// Creates the view of the recovery.
    pub fn of(registry: &Registry) -> Self {
        let Some(recovery) = registry.recovery() else { return Self::default() };
        let names = |ids: &mut dyn Iterator<Item = &NodeId>| -> Vec<NodeName> {
            let mut names: Vec<_> =
                ids.filter_map(|id| registry.live_node(*id)).map(|node| node.name.clone()).collect();
            names.sort();
            names
        };
        let waiting = names(&mut recovery.waiting.iter().flatten());
        let helped = names(&mut recovery.helped.iter());
        let rules = KeptRulesView::all_of(registry);
        let strays = registry.strays().count();
        Self {
            summary: Some(summary(recovery, [helped.len(), waiting.len(), strays, rules.len()])),
            at: Some(recovery.at),
            backup_at: recovery.backup_at,
            waiting,
            helped,
            findings: recovery.findings.clone(),
            strays: registry.strays().map(|stray| StrayView::of(registry, stray)).collect(),
            rules,
        }
    }
}

impl KeptRulesView {
    fn all_of(registry: &Registry) -> Vec<Self> {
        let kept = stricter_rules(registry).into_iter();
        kept.map(|(node, access)| Self::of(registry, node, access)).collect()
    }

    /// Creates the view of the rules that a node keeps to.
    pub fn of(registry: &Registry, node: &Node, access: &Access) -> Self {
        let network = registry.network(node.net).map(|network| network.name.to_string());
        let (id, name) = (node.id, node.name.clone());
        Self { id, node: name, network: network.unwrap_or_default(), rules: rule_lines(access) }
    }
}

/// Access rules of a node in words.
fn rule_lines(access: &Access) -> Vec<String> {
    let verdict = |verdict| if verdict == Verdict::Allow { "allow" } else { "deny" };
    let set = |index: u32| {
        let set = usize::try_from(index).ok().and_then(|index| access.sets.get(index));
        set.into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let line = |rule: &AccessRule| {
        let services: String = rule.services.iter().map(|service| format!(" {service}")).collect();
        format!("{} {} → {}{services}", verdict(rule.verdict), set(rule.from), set(rule.to))
    };
    let rest = format!("{} all else", verdict(access.default));
    access.rules.iter().map(line).chain([rest]).collect()
}

fn summary(recovery: &Recovery, [helped, waiting, strays, rules]: [usize; 4]) -> String {
    let mut parts = vec![match recovery.backup_at {
        Some(backup) => {
            format!("the coordinator was restored at {} from a backup of {}", date(recovery.at), date(backup))
        }
        None => format!("the coordinator was set back, as its nodes found at {}", date(recovery.at)),
    }];
    parts.push(match helped {
        1 => "1 router brought it up to date".to_owned(),
        more => format!("{more} routers brought it up to date"),
    });
    if waiting > 0 {
        parts.push(format!("{waiting} not heard of since"));
    }
    if strays > 0 {
        parts.push(format!("{strays} not known any more, to be adopted or cut off"));
    }
    match rules {
        0 => {}
        1 => parts
            .push("1 router keeps to stricter access rules that it had, until you accept others".to_owned()),
        more => parts.push(format!(
            "{more} routers keep to stricter access rules that they had, until you accept others"
        )),
    }
    parts.join(", ")
}

impl StrayView {
    /// Creates the view of a stray.
    pub fn of(registry: &Registry, stray: &Stray) -> Self {
        let net = stray.net();
        let network: Option<&NetworkName> = registry.network(net).map(|network| &network.name);
        let (what, name, gateway, at) = match stray {
            Stray::Node(node) => ("node", Some(node.member.name.clone()), None, node.at),
            Stray::Client(client) => ("client", None, registry.name_of(client.gateway).cloned(), client.at),
        };
        Self {
            id: stray.id(),
            what: what.to_owned(),
            network: network.map_or_else(|| net.to_string(), ToString::to_string),
            name,
            gateway,
            addresses: stray.addresses().to_vec(),
            adoptable: registry.is_adoptable(stray),
            at,
        }
    }
}
