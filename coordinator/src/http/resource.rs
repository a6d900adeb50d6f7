//! Resources of the API: display names for the audit log, specs (the part that an admin sets), and lookup of
//! the current state.

use crate::{
    api::{
        ClientConfig, ClientIssued, ClientView, CodeView, GroupView, KeptRulesView, Me, NetworkView,
        NodeStatus, NodeView, RecoveryView, RuleView, ScopeView, Status, StrayView, TokenView,
    },
    controller::{ControllerState, now},
    registry::{CheckAnswer, RegistryError},
};
use serde::Serialize;
use serde_json::Value;

/// Resource of the API with a path of its own.
pub trait Resource: Serialize {
    /// Name of the resource for the audit log: kind and name, such as `node office`.
    fn display_name(&self) -> String;

    /// Spec of the resource: the part that an admin sets and changes; `None` if that is all of it.
    fn spec(&self) -> Option<Value> {
        None
    }
}

/// JSON object without some of its fields, to implement [`Resource::spec`].
pub fn without(view: &impl Serialize, fields: &[&str]) -> Option<Value> {
    let mut value = serde_json::to_value(view).expect("views are JSON");
    if let Value::Object(object) = &mut value {
        object.retain(|name, _| !fields.contains(&name.as_str()));
    }
    Some(value)
}

/// Fields of a scope that depend on the reports of nodes.
const SCOPE_LIVE: [&str; 3] = ["live", "candidates", "warnings"];

impl Resource for NetworkView {
    fn display_name(&self) -> String {
        format!("network {}", self.name)
    }
    fn spec(&self) -> Option<Value> {
        without(self, &["nodes", "warnings"])
    }
}

impl Resource for CodeView {
    fn display_name(&self) -> String {
        format!("join code {}", self.id)
    }
    fn spec(&self) -> Option<Value> {
        without(self, &["used", "expires_in", "state", "code"])
    }
}

impl Resource for NodeView {
    fn display_name(&self) -> String {
        format!("node {}", self.name)
    }
    /// Spec of a node: leaves out what the router reports about itself, and the revision that depends on it.
    fn spec(&self) -> Option<Value> {
        let live = ["endpoints", "board", "version", "rev", "warnings", "rolled_back", "own_scopes"];
        let mut wanted = without(self, &live);
        // The number of clients depends on the specs of the clients.
        if let Some(Value::Object(ingress)) = wanted.as_mut().and_then(|wanted| wanted.get_mut("ingress")) {
            ingress.retain(|name, _| ["endpoint", "blocks"].contains(&name.as_str()));
        }
        if let Some(Value::Object(wanted)) = &mut wanted {
            keep_spec_fields(wanted);
        }
        wanted
    }
}

impl Resource for NodeStatus {
    fn display_name(&self) -> String {
        self.node.display_name()
    }
    fn spec(&self) -> Option<Value> {
        self.node.spec()
    }
}

impl Resource for Status {
    fn display_name(&self) -> String {
        "the coordinator".into()
    }
}

impl Resource for RecoveryView {
    fn display_name(&self) -> String {
        "the recovery".into()
    }
}

impl Resource for StrayView {
    fn display_name(&self) -> String {
        format!("stray {}", self.id)
    }
}

impl Resource for KeptRulesView {
    fn display_name(&self) -> String {
        format!("access rules of node {}", self.node)
    }
}

impl Resource for ScopeView {
    fn display_name(&self) -> String {
        format!("scope {} of node {}", self.name, self.node)
    }
    fn spec(&self) -> Option<Value> {
        without(self, &SCOPE_LIVE)
    }
}

impl Resource for ClientView {
    fn display_name(&self) -> String {
        format!("client {}", self.name)
    }
    fn spec(&self) -> Option<Value> {
        without(self, &["live", "stale", "state", "warnings"])
    }
}

impl Resource for ClientIssued {
    fn display_name(&self) -> String {
        self.client.display_name()
    }
    fn spec(&self) -> Option<Value> {
        self.client.spec()
    }
}

impl Resource for ClientConfig {
    fn display_name(&self) -> String {
        "a client's file".into()
    }
}

impl Resource for RuleView {
    fn display_name(&self) -> String {
        format!("rule {}", self.id)
    }
    /// Spec of an access rule: all but its warnings, which depend on other objects.
    fn spec(&self) -> Option<Value> {
        without(self, &["warnings"])
    }
}

impl Resource for GroupView {
    fn display_name(&self) -> String {
        format!("group {}", self.name)
    }
    fn spec(&self) -> Option<Value> {
        without(self, &["warnings", "used_by"])
    }
}

impl Resource for CheckAnswer {
    fn display_name(&self) -> String {
        "the answer".into()
    }
}

impl Resource for TokenView {
    fn display_name(&self) -> String {
        format!("token {}", self.name)
    }
    fn spec(&self) -> Option<Value> {
        without(self, &["valid", "token"])
    }
}

impl Resource for Me {
    fn display_name(&self) -> String {
        self.name.clone()
    }
    fn spec(&self) -> Option<Value> {
        without(self, &["expires_in"])
    }
}

/// Keeps only the spec fields of the exit and the scopes in a node's JSON.
fn keep_spec_fields(node: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Object(exit)) = node.get_mut("exit") {
        exit.retain(|name, _| name == "enabled" || name.ends_with("_wanted"));
    }
    let scopes = node.get_mut("scopes").and_then(Value::as_array_mut);
    for scope in scopes.into_iter().flatten().filter_map(Value::as_object_mut) {
        scope.retain(|name, _| !SCOPE_LIVE.contains(&name.as_str()));
    }
}

/// Query for the current view of a network, for the check of `If-Match` and the audit log.
pub(super) fn current_network(
    net: &str,
) -> impl FnOnce(&ControllerState) -> Result<NetworkView, RegistryError> + Send + 'static {
    let net = net.to_owned();
    move |state| state.registry.find_network(&net).map(|network| NetworkView::of(state, network))
}

/// Query for the current view of a node, for the check of `If-Match` and the audit log.
pub(super) fn current_node(
    net: &str,
    node: &str,
) -> impl FnOnce(&ControllerState) -> Result<NodeView, RegistryError> + Send + 'static {
    let (net, node) = (net.to_owned(), node.to_owned());
    move |state| state.registry.find_node(&net, &node).map(|node| NodeView::of(state, node))
}

/// Query for the current view of a scope, for the check of `If-Match` and the audit log.
pub(super) fn current_scope(
    net: &str,
    node: &str,
    scope: &str,
) -> impl FnOnce(&ControllerState) -> Result<ScopeView, RegistryError> + Send + 'static {
    let (net, node, scope) = (net.to_owned(), node.to_owned(), scope.to_owned());
    move |state| {
        let (node, name, scope) = state.registry.find_scope(&net, &node, &scope)?;
        Ok(ScopeView::of(state, node, name, scope))
    }
}

/// Query for the current view of a client, for the check of `If-Match` and the audit log.
pub(super) fn current_client(
    net: &str,
    client: &str,
) -> impl FnOnce(&ControllerState) -> Result<ClientView, RegistryError> + Send + 'static {
    let (net, client) = (net.to_owned(), client.to_owned());
    move |state| state.registry.find_client(&net, &client).map(|client| ClientView::of(state, client, now()))
}

/// Query for the current view of a rule, for the check of `If-Match` and the audit log.
pub(super) fn current_rule(
    net: &str,
    rule: &str,
) -> impl FnOnce(&ControllerState) -> Result<RuleView, RegistryError> + Send + 'static {
    let (net, rule) = (net.to_owned(), rule.to_owned());
    move |state| state.registry.find_rule(&net, &rule).map(|rule| RuleView::of(state, rule))
}

/// Query for the current view of a group, for the check of `If-Match` and the audit log.
pub(super) fn current_group(
    net: &str,
    group: &str,
) -> impl FnOnce(&ControllerState) -> Result<GroupView, RegistryError> + Send + 'static {
    let (net, group) = (net.to_owned(), group.to_owned());
    move |state| state.registry.find_group(&net, &group).map(|group| GroupView::of(state, group))
}
