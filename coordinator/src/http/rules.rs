//! What may reach what: each handler is one question or change.

use super::{
    App,
    caller::{Act, Caller},
    problem::{Body, Params},
    reply::{Answer, Listed, Resource, without},
    routes::the_network,
};
use crate::{
    api::{GroupView, NetworkView, RuleView},
    desk::{State, now},
    registry::{
        AccessError, CheckAnswer, GroupWish, Moment, NetworkPatch, Registry, RegistryError, RulePatch,
        RuleWish,
    },
};
use axum::extract::Path;
use gatewrt_protocol::{GroupName, Service};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(change_network))
        .routes(routes!(list_rules, create_rule))
        .routes(routes!(show_rule, change_rule, delete_rule))
        .routes(routes!(list_groups))
        .routes(routes!(show_group, set_group, delete_group))
        .routes(routes!(check))
}

impl Resource for RuleView {
    fn called(&self) -> String {
        format!("rule {}", self.id)
    }
    /// Names in selectors may change by themselves; what a rule is about does not.
    fn wanted(&self) -> Option<Value> {
        without(self, &["warnings"])
    }
}

impl Resource for GroupView {
    fn called(&self) -> String {
        format!("group {}", self.name)
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &["warnings", "used_by"])
    }
}

impl Resource for CheckAnswer {
    fn called(&self) -> String {
        "the answer".into()
    }
}

fn the_rule(
    net: &str,
    rule: &str,
) -> impl FnOnce(&State) -> Result<RuleView, RegistryError> + Send + 'static {
    let (net, rule) = (net.to_owned(), rule.to_owned());
    move |state| state.registry.find_rule(&net, &rule).map(|rule| RuleView::of(state, rule))
}

fn the_group(
    net: &str,
    group: &str,
) -> impl FnOnce(&State) -> Result<GroupView, RegistryError> + Send + 'static {
    let (net, group) = (net.to_owned(), group.to_owned());
    move |state| state.registry.find_group(&net, &group).map(|group| GroupView::of(state, group))
}

/// Changes what becomes of connections that no rule fits, and the resolvers of external clients.
#[utoipa::path(patch, path = "/v1/networks/{net}", tag = "networks", request_body = NetworkPatch, responses((status = 200, body = NetworkView)))]
pub(super) async fn change_network(
    by: Caller,
    Path(net): Path<String>,
    Body(patch): Body<NetworkPatch>,
) -> Answer<NetworkView> {
    let act = Act::of("network.change", the_network(&net)).saying(&patch);
    let plan = move |registry: &Registry, _: &Moment| registry.change_network(&net, &patch);
    by.change(act, plan, |state, network| NetworkView::of(state, &network)).await
}

/// The access rules of a network, oldest first.
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

/// Makes an access rule.
#[utoipa::path(post, path = "/v1/networks/{net}/rules", tag = "access", request_body = RuleWish, responses((status = 201, body = RuleView)))]
pub(super) async fn create_rule(
    by: Caller,
    Path(net): Path<String>,
    Body(wish): Body<RuleWish>,
) -> Answer<RuleView> {
    let act = Act::new("rule.create", "a rule").saying(&wish);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_rule(&net, &wish, moment);
    by.create(act, plan, |state, rule| RuleView::of(state, &rule)).await
}

/// One access rule, by its id or the beginning of it.
#[utoipa::path(get, path = "/v1/networks/{net}/rules/{rule}", tag = "access", responses((status = 200, body = RuleView)))]
pub(super) async fn show_rule(by: Caller, Path((net, rule)): Path<(String, String)>) -> Answer<RuleView> {
    by.show(the_rule(&net, &rule)).await
}

/// Changes an access rule; what is left out stays.
#[utoipa::path(patch, path = "/v1/networks/{net}/rules/{rule}", tag = "access", request_body = RulePatch, responses((status = 200, body = RuleView)))]
pub(super) async fn change_rule(
    by: Caller,
    Path((net, rule)): Path<(String, String)>,
    Body(patch): Body<RulePatch>,
) -> Answer<RuleView> {
    let act = Act::of("rule.change", the_rule(&net, &rule)).saying(&patch);
    let plan = move |registry: &Registry, _: &Moment| registry.change_rule(&net, &rule, &patch);
    by.change(act, plan, |state, rule| RuleView::of(state, &rule)).await
}

/// Deletes an access rule.
#[utoipa::path(delete, path = "/v1/networks/{net}/rules/{rule}", tag = "access", responses((status = 200, body = RuleView)))]
pub(super) async fn delete_rule(by: Caller, Path((net, rule)): Path<(String, String)>) -> Answer<RuleView> {
    let act = Act::of("rule.delete", the_rule(&net, &rule));
    let plan = move |registry: &Registry, _: &Moment| registry.delete_rule(&net, &rule);
    by.change(act, plan, |state, rule| RuleView::of(state, &rule)).await
}

/// The groups of a network, by name.
#[utoipa::path(get, path = "/v1/networks/{net}/groups", tag = "access", responses((status = 200, body = Vec<GroupView>)))]
pub(super) async fn list_groups(by: Caller, Path(net): Path<String>) -> Listed<GroupView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let groups = state.registry.groups(network.id);
        Ok(groups.map(|group| (group.name.to_string(), GroupView::of(state, group))).collect())
    })
    .await
}

/// One group.
#[utoipa::path(get, path = "/v1/networks/{net}/groups/{group}", tag = "access", responses((status = 200, body = GroupView)))]
pub(super) async fn show_group(by: Caller, Path((net, group)): Path<(String, String)>) -> Answer<GroupView> {
    by.show(the_group(&net, &group)).await
}

/// Makes a group, or says anew what is in it.
#[utoipa::path(put, path = "/v1/networks/{net}/groups/{group}", tag = "access", request_body = GroupWish, responses((status = 200, body = GroupView)))]
pub(super) async fn set_group(
    by: Caller,
    Path((net, group)): Path<(String, String)>,
    Body(wish): Body<GroupWish>,
) -> Answer<GroupView> {
    // One that is new was never seen.
    let act = if by.has_seen() {
        Act::of("group.set", the_group(&net, &group))
    } else {
        Act::new("group.set", format!("group {group}"))
    };
    let act = act.saying(&wish);
    let plan = move |registry: &Registry, _: &Moment| {
        let name: GroupName = group.parse().map_err(AccessError::BadGroupName)?;
        registry.set_group(&net, &name, &wish)
    };
    by.change(act, plan, |state, group| GroupView::of(state, &group)).await
}

/// Deletes a group that nothing names.
#[utoipa::path(delete, path = "/v1/networks/{net}/groups/{group}", tag = "access", responses((status = 200, body = GroupView)))]
pub(super) async fn delete_group(
    by: Caller,
    Path((net, group)): Path<(String, String)>,
) -> Answer<GroupView> {
    let act = Act::of("group.delete", the_group(&net, &group));
    let plan = move |registry: &Registry, _: &Moment| registry.delete_group(&net, &group);
    by.change(act, plan, |state, group| GroupView::of(state, &group)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Who opens the connection: a selector, the name of a node, a client or a group, an address.
    #[param(example = "phone")]
    from: String,
    /// What it is opened to, alike.
    #[param(example = "192.168.10.5")]
    to: String,
    /// Such as tcp/443; every one where none is named.
    #[param(value_type = Option<String>, example = "tcp/443")]
    service: Option<Service>,
}

/// Whether X may reach Y, and why.
#[utoipa::path(get, path = "/v1/networks/{net}/check", tag = "access", params(Question), responses((status = 200, body = CheckAnswer)))]
pub(super) async fn check(
    by: Caller,
    Path(net): Path<String>,
    Params(question): Params<Question>,
) -> Answer<CheckAnswer> {
    by.show(move |state| state.registry.check(&net, &question.from, &question.to, question.service, now()))
        .await
}
