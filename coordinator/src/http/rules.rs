//! Routes of access rules, groups and checks.

use super::{
    App,
    caller::{AuditedChange, Caller},
    problem::{Body, Params},
    reply::{Answer, Listed},
    resource::{current_group, current_network, current_rule},
};
use crate::{
    api::{GroupView, NetworkView, RuleView},
    controller::now,
    registry::{AccessError, CheckAnswer, GroupSpec, Moment, NetworkPatch, Registry, RulePatch, RuleSpec},
};
use axum::extract::Path;
use gatewrt_protocol::{GroupName, Service};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of access rules, groups and access checks.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(change_network))
        .routes(routes!(list_rules, create_rule))
        .routes(routes!(show_rule, change_rule, delete_rule))
        .routes(routes!(list_groups))
        .routes(routes!(show_group, set_group, delete_group))
        .routes(routes!(check))
}

/// Changes the default verdict of a network, or the resolvers of its external clients.
#[utoipa::path(patch, path = "/v1/networks/{net}", tag = "networks", request_body = NetworkPatch, responses((status = 200, body = NetworkView)))]
pub(super) async fn change_network(
    by: Caller,
    Path(net): Path<String>,
    Body(patch): Body<NetworkPatch>,
) -> Answer<NetworkView> {
    let act = AuditedChange::of("network.change", current_network(&net)).with_detail(&patch);
    let plan = move |registry: &Registry, _: &Moment| registry.change_network(&net, &patch);
    by.change(act, plan, |state, network| NetworkView::of(state, &network)).await
}

/// Access rules of a network, oldest first.
#[utoipa::path(get, path = "/v1/networks/{net}/rules", tag = "access", responses((status = 200, body = Vec<RuleView>)))]
pub(super) async fn list_rules(by: Caller, Path(net): Path<String>) -> Listed<RuleView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let rules = state.registry.rules(network.id).into_iter();
        let key = |view: &RuleView| format!("{:020} {}", view.created, view.id);
        Ok(rules.map(|rule| RuleView::of(state, rule)).map(|view| (key(&view), view)).collect())
    })
    .await
}

/// Creates an access rule.
#[utoipa::path(post, path = "/v1/networks/{net}/rules", tag = "access", request_body = RuleSpec, responses((status = 201, body = RuleView)))]
pub(super) async fn create_rule(
    by: Caller,
    Path(net): Path<String>,
    Body(spec): Body<RuleSpec>,
) -> Answer<RuleView> {
    let act = AuditedChange::new("rule.create", "a rule").with_detail(&spec);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_rule(&net, &spec, moment);
    by.create(act, plan, |state, rule| RuleView::of(state, &rule)).await
}

/// Shows one access rule, by its id or the beginning of it.
#[utoipa::path(get, path = "/v1/networks/{net}/rules/{rule}", tag = "access", responses((status = 200, body = RuleView)))]
pub(super) async fn show_rule(by: Caller, Path((net, rule)): Path<(String, String)>) -> Answer<RuleView> {
    by.show(current_rule(&net, &rule)).await
}

/// Changes an access rule; fields that are left out stay.
#[utoipa::path(patch, path = "/v1/networks/{net}/rules/{rule}", tag = "access", request_body = RulePatch, responses((status = 200, body = RuleView)))]
pub(super) async fn change_rule(
    by: Caller,
    Path((net, rule)): Path<(String, String)>,
    Body(patch): Body<RulePatch>,
) -> Answer<RuleView> {
    let act = AuditedChange::of("rule.change", current_rule(&net, &rule)).with_detail(&patch);
    let plan = move |registry: &Registry, _: &Moment| registry.change_rule(&net, &rule, &patch);
    by.change(act, plan, |state, rule| RuleView::of(state, &rule)).await
}

/// Deletes an access rule.
#[utoipa::path(delete, path = "/v1/networks/{net}/rules/{rule}", tag = "access", responses((status = 200, body = RuleView)))]
pub(super) async fn delete_rule(by: Caller, Path((net, rule)): Path<(String, String)>) -> Answer<RuleView> {
    let act = AuditedChange::of("rule.delete", current_rule(&net, &rule));
    let plan = move |registry: &Registry, _: &Moment| registry.delete_rule(&net, &rule);
    by.change(act, plan, |state, rule| RuleView::of(state, &rule)).await
}

/// Groups of a network, by name.
#[utoipa::path(get, path = "/v1/networks/{net}/groups", tag = "access", responses((status = 200, body = Vec<GroupView>)))]
pub(super) async fn list_groups(by: Caller, Path(net): Path<String>) -> Listed<GroupView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let groups = state.registry.groups(network.id);
        Ok(groups.map(|group| (group.name.to_string(), GroupView::of(state, group))).collect())
    })
    .await
}

/// Shows one group.
#[utoipa::path(get, path = "/v1/networks/{net}/groups/{group}", tag = "access", responses((status = 200, body = GroupView)))]
pub(super) async fn show_group(by: Caller, Path((net, group)): Path<(String, String)>) -> Answer<GroupView> {
    by.show(current_group(&net, &group)).await
}

/// Creates a group or replaces its members.
#[utoipa::path(put, path = "/v1/networks/{net}/groups/{group}", tag = "access", request_body = GroupSpec, responses((status = 200, body = GroupView)))]
pub(super) async fn set_group(
    by: Caller,
    Path((net, group)): Path<(String, String)>,
    Body(spec): Body<GroupSpec>,
) -> Answer<GroupView> {
    // A new group has no entity tag.
    let act = if by.has_if_match() {
        AuditedChange::of("group.set", current_group(&net, &group))
    } else {
        AuditedChange::new("group.set", format!("group {group}"))
    };
    let act = act.with_detail(&spec);
    let plan = move |registry: &Registry, _: &Moment| {
        let name: GroupName = group.parse().map_err(AccessError::BadGroupName)?;
        registry.set_group(&net, &name, &spec)
    };
    by.change(act, plan, |state, group| GroupView::of(state, &group)).await
}

/// Deletes a group. Refused while a rule or another group uses it.
#[utoipa::path(delete, path = "/v1/networks/{net}/groups/{group}", tag = "access", responses((status = 200, body = GroupView)))]
pub(super) async fn delete_group(
    by: Caller,
    Path((net, group)): Path<(String, String)>,
) -> Answer<GroupView> {
    let act = AuditedChange::of("group.delete", current_group(&net, &group));
    let plan = move |registry: &Registry, _: &Moment| registry.delete_group(&net, &group);
    by.change(act, plan, |state, group| GroupView::of(state, &group)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CheckQuery {
    /// Side that opens the connection: a selector, the name of a node, client or group, or an address.
    #[param(example = "phone")]
    from: String,
    /// Side that the connection is opened to, in the same form.
    #[param(example = "192.168.10.5")]
    to: String,
    /// Service such as tcp/443; every one if none is named.
    #[param(value_type = Option<String>, example = "tcp/443")]
    service: Option<Service>,
}

/// Checks if X may open connections to Y, and explains why.
#[utoipa::path(get, path = "/v1/networks/{net}/check", tag = "access", params(CheckQuery), responses((status = 200, body = CheckAnswer)))]
pub(super) async fn check(
    by: Caller,
    Path(net): Path<String>,
    Params(query): Params<CheckQuery>,
) -> Answer<CheckAnswer> {
    by.show(move |state| state.registry.check(&net, &query.from, &query.to, query.service, now())).await
}
