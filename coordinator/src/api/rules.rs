//! API values of access rules and groups.

use crate::{
    controller::ControllerState,
    registry::{Group, Registry, Rule, Selector},
};
use gatewrt_protocol::{GroupName, NetworkName, RuleId, Service, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::registry::{CheckAnswer, GroupSpec, NetworkPatch, NodePatch, RulePatch, RuleSpec};

/// Access rule as the API shows it, with names in its selectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// Id of the rule.
    #[schema(value_type = String)]
    pub id: RuleId,
    /// Network it belongs to.
    #[schema(value_type = String)]
    pub network: NetworkName,
    /// Verdict: `allow` or `deny`. Deny takes precedence.
    #[schema(value_type = String)]
    pub verdict: Verdict,
    /// Selectors of the side that opens the connection.
    pub from: Vec<String>,
    /// Selectors of the side that the connection is opened to.
    pub to: Vec<String>,
    /// Services; empty means every service.
    #[schema(value_type = Vec<String>)]
    pub services: Vec<Service>,
    /// Set if the rule is in effect.
    pub enabled: bool,
    /// Note for people: any text.
    pub note: String,
    /// Creation time, in seconds since 1970.
    pub created: u64,
    /// Warnings, such as a selector that matches nothing now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl RuleView {
    /// Creates the view of an access rule.
    pub fn of(state: &ControllerState, rule: &Rule) -> Self {
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

/// Group as the API shows it: named selectors, and the rules that use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Name of the group.
    #[schema(value_type = String)]
    pub name: GroupName,
    /// Selectors of all its members.
    pub members: Vec<String>,
    /// Rules that use it directly, oldest first.
    #[schema(value_type = Vec<String>)]
    pub used_by: Vec<RuleId>,
    /// Warnings, such as a selector that matches nothing now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl GroupView {
    /// Creates the view of a group.
    pub fn of(state: &ControllerState, group: &Group) -> Self {
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
