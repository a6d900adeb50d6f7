//! Access rules and groups, as the API speaks of them.

use crate::{
    desk::State,
    registry::{Group, Registry, Rule, Selector},
};
use gatewrt_protocol::{GroupName, NetworkName, RuleId, Service, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::registry::{CheckAnswer, GroupWish, NetworkPatch, NodePatch, RulePatch, RuleWish};

/// An access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: RuleId,
    /// Its network.
    #[schema(value_type = String)]
    pub network: NetworkName,
    /// `allow` or `deny`; one that denies wins over one that allows.
    #[schema(value_type = String)]
    pub verdict: Verdict,
    /// Selectors: who opens the connection.
    pub from: Vec<String>,
    /// Selectors: what it is opened to.
    pub to: Vec<String>,
    /// Services; none is every one.
    #[schema(value_type = Vec<String>)]
    pub services: Vec<Service>,
    /// Whether it counts.
    pub enabled: bool,
    /// What people wrote beside it: any text.
    pub note: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// What will surprise, such as a selector that stands for nothing now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl RuleView {
    /// The view of a rule.
    pub fn of(state: &State, rule: &Rule) -> Self {
        let registry = &state.registry;
        let network = registry.network(rule.net).expect("a rule's network exists");
        Self {
            id: rule.id,
            network: network.name.clone(),
            verdict: rule.verdict,
            from: texts(registry, &rule.from),
            to: texts(registry, &rule.to),
            services: rule.services.clone(),
            enabled: rule.enabled,
            note: rule.note.clone(),
            created: rule.created,
            warnings: registry.rule_warnings(rule),
        }
    }
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: GroupName,
    /// Selectors: all that is in it.
    pub members: Vec<String>,
    /// Rules that name it themselves, oldest first.
    #[schema(value_type = Vec<String>)]
    pub used_by: Vec<RuleId>,
    /// What will surprise, such as a selector that stands for nothing now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl GroupView {
    /// The view of a group.
    pub fn of(state: &State, group: &Group) -> Self {
        let registry = &state.registry;
        let warning = |member| registry.selector_warning(group.net, member);
        Self {
            name: group.name.clone(),
            members: texts(registry, &group.members),
            used_by: registry.rules_with(group).map(|rule| rule.id).collect(),
            warnings: group.members.iter().filter_map(warning).collect(),
        }
    }
}

fn texts(registry: &Registry, selectors: &[Selector]) -> Vec<String> {
    selectors.iter().map(|selector| registry.selector_text(selector)).collect()
}
