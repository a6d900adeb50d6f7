//! Routes of exits and scopes.

use super::{
    App,
    caller::{AuditedChange, Caller},
    problem::{Body, Params},
    query::ForceQuery,
    reply::{Answer, Listed},
    resource::{current_node, current_scope},
};
use crate::{
    api::{ExitSpec, ExitView, NodeView, ScopeSpec, ScopeView},
    registry::{Moment, Registry},
};
use axum::extract::Path;
use gatewrt_protocol::Role;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of exits and scopes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_exits))
        .routes(routes!(set_exit, unset_exit))
        .routes(routes!(list_scopes))
        .routes(routes!(show_scope, set_scope, unset_scope))
        .routes(routes!(retry_node))
}

/// Exits, and nodes that may be one: what each offers, why not more, and the scopes that use it.
#[utoipa::path(get, path = "/v1/networks/{net}/exits", tag = "exits", responses((status = 200, body = Vec<ExitView>)))]
pub(super) async fn list_exits(by: Caller, Path(net): Path<String>) -> Listed<ExitView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let nodes = state.registry.live_nodes(network.id).filter(|node| node.roles.contains(&Role::Exit));
        Ok(nodes.map(|node| (node.name.to_string(), ExitView::of(state, node))).collect())
    })
    .await
}

/// Makes a node an exit, or changes its settings. The owner of the router has to allow it too.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/exit", tag = "exits", request_body = ExitSpec, responses((status = 200, body = NodeView)))]
pub(super) async fn set_exit(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(spec): Body<ExitSpec>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("exit.set", current_node(&net, &node)).with_detail(&spec);
    let plan = move |registry: &Registry, _: &Moment| registry.set_exit(&net, &node, &spec);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

/// Stops a node from being an exit. With `force` even if scopes use it.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/exit", tag = "exits", params(ForceQuery), responses((status = 200, body = NodeView)))]
pub(super) async fn unset_exit(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(ForceQuery { force }): Params<ForceQuery>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("exit.unset", current_node(&net, &node));
    let plan = move |registry: &Registry, _: &Moment| registry.unset_exit(&net, &node, force);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// Scopes of a node by name, and their current state.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes/{node}/scopes", tag = "exits", responses((status = 200, body = Vec<ScopeView>)))]
pub(super) async fn list_scopes(by: Caller, Path((net, node)): Path<(String, String)>) -> Listed<ScopeView> {
    by.list(move |state| {
        let node = state.registry.find_node(&net, &node)?;
        Ok(ScopeView::all_of(state, node).map(|view| (view.name.to_string(), view)).collect())
    })
    .await
}

/// Shows one scope of a node with its current state.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes/{node}/scopes/{scope}", tag = "exits", responses((status = 200, body = ScopeView)))]
pub(super) async fn show_scope(
    by: Caller,
    Path((net, node, scope)): Path<(String, String, String)>,
) -> Answer<ScopeView> {
    by.show(current_scope(&net, &node, &scope)).await
}

/// Sends Internet traffic of a node through an exit, or changes how.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/scopes/{scope}", tag = "exits", request_body = ScopeSpec, responses((status = 200, body = ScopeView)))]
pub(super) async fn set_scope(
    by: Caller,
    Path((net, node, scope)): Path<(String, String, String)>,
    Body(spec): Body<ScopeSpec>,
) -> Answer<ScopeView> {
    // A new scope has no entity tag.
    let act = if by.has_if_match() {
        AuditedChange::of("scope.set", current_scope(&net, &node, &scope))
    } else {
        AuditedChange::new("scope.set", format!("scope {scope} of node {node}"))
    };
    let act = act.with_detail(&spec);
    let plan = move |registry: &Registry, _: &Moment| registry.set_scope(&net, &node, &scope, &spec);
    by.change(act, plan, |state, (node, name)| ScopeView::of(state, &node, &name, &node.scopes[&name])).await
}

/// Deletes a scope: its traffic goes out over the node's WAN again.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/scopes/{scope}", tag = "exits", responses((status = 200, body = ScopeView)))]
pub(super) async fn unset_scope(
    by: Caller,
    Path((net, node, scope)): Path<(String, String, String)>,
) -> Answer<ScopeView> {
    let act = AuditedChange::of("scope.unset", current_scope(&net, &node, &scope));
    let plan = move |registry: &Registry, _: &Moment| {
        let (before, name, setting) = registry.find_scope(&net, &node, &scope)?;
        let gone = (before.clone(), name.clone(), setting.clone());
        registry.unset_scope(&net, &node, &scope).map(|(rows, _)| (rows, gone))
    };
    by.change(act, plan, |state, (node, name, scope)| ScopeView::of(state, &node, &name, &scope)).await
}

/// Asks a node to retry the change that it rolled back.
#[utoipa::path(post, path = "/v1/networks/{net}/nodes/{node}/retry", tag = "nodes", responses((status = 200, body = NodeView)))]
pub(super) async fn retry_node(by: Caller, Path((net, node)): Path<(String, String)>) -> Answer<NodeView> {
    let act = AuditedChange::of("node.retry", current_node(&net, &node));
    let plan = move |registry: &Registry, _: &Moment| registry.retry_node(&net, &node);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}
