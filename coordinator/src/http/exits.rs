//! Exits and what goes through them: each handler is one question or change.

use super::{
    App,
    caller::{Act, Caller},
    problem::{Body, Params},
    reply::{Answer, Listed, Resource, without},
    routes::{ForceRemove, the_node},
};
use crate::{
    api::{ExitView, ExitWish, NodeView, ScopeView, ScopeWish},
    desk::State,
    registry::{Moment, Registry, RegistryError},
};
use axum::extract::Path;
use gatewrt_protocol::Role;
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_exits))
        .routes(routes!(set_exit, unset_exit))
        .routes(routes!(list_scopes))
        .routes(routes!(show_scope, set_scope, unset_scope))
        .routes(routes!(retry_node))
}

/// What of a scope its node or the state of others says.
pub(super) const SCOPE_LIVE: [&str; 3] = ["live", "candidates", "warnings"];

impl Resource for ScopeView {
    fn called(&self) -> String {
        format!("scope {} of node {}", self.name, self.node)
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &SCOPE_LIVE)
    }
}

/// A scope as it is now.
fn the_scope(
    net: &str,
    node: &str,
    scope: &str,
) -> impl FnOnce(&State) -> Result<ScopeView, RegistryError> + Send + 'static {
    let (net, node, scope) = (net.to_owned(), node.to_owned(), scope.to_owned());
    move |state| {
        let (node, name, scope) = state.registry.find_scope(&net, &node, &scope)?;
        Ok(ScopeView::of(state, node, name, scope))
    }
}

/// The nodes that take others' Internet traffic, and those that may: what each offers, why not more, and what goes
/// through it.
#[utoipa::path(get, path = "/v1/networks/{net}/exits", tag = "exits", responses((status = 200, body = Vec<ExitView>)))]
pub(super) async fn list_exits(by: Caller, Path(net): Path<String>) -> Listed<ExitView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let nodes = state.registry.live_nodes(network.id).filter(|node| node.roles.contains(&Role::Exit));
        Ok(nodes.map(|node| (node.name.to_string(), ExitView::of(state, node))).collect())
    })
    .await
}

/// Has a node take others' Internet traffic, or changes how. Its owner has to allow it too.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/exit", tag = "exits", request_body = ExitWish, responses((status = 200, body = NodeView)))]
pub(super) async fn set_exit(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(wish): Body<ExitWish>,
) -> Answer<NodeView> {
    let act = Act::of("exit.set", the_node(&net, &node)).saying(&wish);
    let plan = move |registry: &Registry, _: &Moment| registry.set_exit(&net, &node, &wish);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

/// Has a node take no one's Internet traffic any more. With `force` also where scopes name it.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/exit", tag = "exits", params(ForceRemove), responses((status = 200, body = NodeView)))]
pub(super) async fn unset_exit(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(ForceRemove { force }): Params<ForceRemove>,
) -> Answer<NodeView> {
    let act = Act::of("exit.unset", the_node(&net, &node));
    let plan = move |registry: &Registry, _: &Moment| registry.unset_exit(&net, &node, force);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// Which of a node's Internet traffic goes through others, by name, and what becomes of it now.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes/{node}/scopes", tag = "exits", responses((status = 200, body = Vec<ScopeView>)))]
pub(super) async fn list_scopes(by: Caller, Path((net, node)): Path<(String, String)>) -> Listed<ScopeView> {
    by.list(move |state| {
        let node = state.registry.find_node(&net, &node)?;
        Ok(ScopeView::all_of(state, node).map(|view| (view.name.to_string(), view)).collect())
    })
    .await
}

/// One scope of a node.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes/{node}/scopes/{scope}", tag = "exits", responses((status = 200, body = ScopeView)))]
pub(super) async fn show_scope(
    by: Caller,
    Path((net, node, scope)): Path<(String, String, String)>,
) -> Answer<ScopeView> {
    by.show(the_scope(&net, &node, &scope)).await
}

/// Sends traffic of a node through an exit, or changes how.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/scopes/{scope}", tag = "exits", request_body = ScopeWish, responses((status = 200, body = ScopeView)))]
pub(super) async fn set_scope(
    by: Caller,
    Path((net, node, scope)): Path<(String, String, String)>,
    Body(wish): Body<ScopeWish>,
) -> Answer<ScopeView> {
    // One that is new was never seen.
    let act = if by.has_seen() {
        Act::of("scope.set", the_scope(&net, &node, &scope))
    } else {
        Act::new("scope.set", format!("scope {scope} of node {node}"))
    };
    let act = act.saying(&wish);
    let plan = move |registry: &Registry, _: &Moment| registry.set_scope(&net, &node, &scope, &wish);
    by.change(act, plan, |state, (node, name)| ScopeView::of(state, &node, &name, &node.scopes[&name])).await
}

/// Lets traffic of a node go out over its WAN again.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/scopes/{scope}", tag = "exits", responses((status = 200, body = ScopeView)))]
pub(super) async fn unset_scope(
    by: Caller,
    Path((net, node, scope)): Path<(String, String, String)>,
) -> Answer<ScopeView> {
    let act = Act::of("scope.unset", the_scope(&net, &node, &scope));
    let plan = move |registry: &Registry, _: &Moment| {
        let (before, name, setting) = registry.find_scope(&net, &node, &scope)?;
        let gone = (before.clone(), name.clone(), setting.clone());
        registry.unset_scope(&net, &node, &scope).map(|(rows, _)| (rows, gone))
    };
    by.change(act, plan, |state, (node, name, scope)| ScopeView::of(state, &node, &name, &scope)).await
}

/// Has a node try again what it put into effect and took back.
#[utoipa::path(post, path = "/v1/networks/{net}/nodes/{node}/retry", tag = "nodes", responses((status = 200, body = NodeView)))]
pub(super) async fn retry_node(by: Caller, Path((net, node)): Path<(String, String)>) -> Answer<NodeView> {
    let act = Act::of("node.retry", the_node(&net, &node));
    let plan = move |registry: &Registry, _: &Moment| registry.retry_node(&net, &node);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}
