//! What admins ask: each handler is one question or one change.

use super::{
    App,
    caller::{Act, Caller},
    exits::SCOPE_LIVE,
    problem::{Body, Params},
    reply::{Answer, Listed, Resource, without},
};
use crate::{
    api::{
        CodeView, EgressView, EgressWish, Health, NetworkStatus, NetworkView, NodeStatus, NodeView, Status,
        egress_in_use,
    },
    desk::{State, now},
    registry::{CodeWish, EgressSetting, Moment, NetworkWish, NodePatch, Registry, RegistryError},
};
use axum::{Json, extract::Path};
use gatewrt_protocol::{JoinCode, Prefix};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Of the coordinator.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_networks, create_network))
        .routes(routes!(show_network, delete_network))
        .routes(routes!(list_codes, create_code))
        .routes(routes!(revoke_code))
        .routes(routes!(list_nodes))
        .routes(routes!(show_node, change_node, remove_node))
        .routes(routes!(set_egress, unset_egress))
        .routes(routes!(list_egress))
        .routes(routes!(status))
}

impl Resource for NetworkView {
    fn called(&self) -> String {
        format!("network {}", self.name)
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &["nodes"])
    }
}

impl Resource for CodeView {
    fn called(&self) -> String {
        format!("join code {}", self.id)
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &["used", "expires_in", "state", "code"])
    }
}

impl Resource for NodeView {
    fn called(&self) -> String {
        format!("node {}", self.name)
    }
    /// The rest is what the router says of itself, and the revision that follows from it.
    fn wanted(&self) -> Option<Value> {
        let live = ["endpoints", "board", "version", "rev", "warnings", "taken_back", "own_scopes"];
        let mut wanted = without(self, &live);
        // How many clients name it is their matter.
        if let Some(Value::Object(ingress)) = wanted.as_mut().and_then(|wanted| wanted.get_mut("ingress")) {
            ingress.retain(|name, _| ["endpoint", "blocks"].contains(&name.as_str()));
        }
        if let Some(Value::Object(wanted)) = &mut wanted {
            keep_wishes(wanted);
        }
        wanted
    }
}

/// Of exits and scopes what was asked for.
fn keep_wishes(node: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Object(exit)) = node.get_mut("exit") {
        exit.retain(|name, _| name == "enabled" || name.ends_with("_wanted"));
    }
    let scopes = node.get_mut("scopes").and_then(Value::as_array_mut);
    for scope in scopes.into_iter().flatten().filter_map(Value::as_object_mut) {
        scope.retain(|name, _| !SCOPE_LIVE.contains(&name.as_str()));
    }
}

impl Resource for NodeStatus {
    fn called(&self) -> String {
        self.node.called()
    }
    fn wanted(&self) -> Option<Value> {
        self.node.wanted()
    }
}

impl Resource for Status {
    fn called(&self) -> String {
        "the coordinator".into()
    }
}

/// A network as it is now.
pub(super) fn the_network(
    net: &str,
) -> impl FnOnce(&State) -> Result<NetworkView, RegistryError> + Send + 'static {
    let net = net.to_owned();
    move |state| state.registry.find_network(&net).map(|network| NetworkView::of(state, network))
}

/// A node as it is now.
pub(super) fn the_node(
    net: &str,
    node: &str,
) -> impl FnOnce(&State) -> Result<NodeView, RegistryError> + Send + 'static {
    let (net, node) = (net.to_owned(), node.to_owned());
    move |state| state.registry.find_node(&net, &node).map(|node| NodeView::of(state, node))
}

/// Whether the coordinator is there. Open to anyone.
#[utoipa::path(get, path = "/v1/health", tag = "coordinator", security(()), responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".into(), version: VERSION.into() })
}

/// All networks, by name.
#[utoipa::path(get, path = "/v1/networks", tag = "networks", responses((status = 200, body = Vec<NetworkView>)))]
pub(super) async fn list_networks(by: Caller) -> Listed<NetworkView> {
    let scope = by.scope();
    by.list(move |state| {
        let seen = state.registry.networks().filter(|network| scope.sees(network.id));
        Ok(seen.map(|network| (network.name.to_string(), NetworkView::of(state, network))).collect())
    })
    .await
}

/// Makes a network.
#[utoipa::path(post, path = "/v1/networks", tag = "networks", request_body = NetworkWish, responses((status = 201, body = NetworkView)))]
pub(super) async fn create_network(by: Caller, Body(wish): Body<NetworkWish>) -> Answer<NetworkView> {
    let act = Act::new("network.create", format!("network {}", wish.name)).saying(&wish);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_network(&wish, moment);
    by.create(act, plan, |state, network| NetworkView::of(state, &network)).await
}

/// One network.
#[utoipa::path(get, path = "/v1/networks/{net}", tag = "networks", responses((status = 200, body = NetworkView)))]
pub(super) async fn show_network(by: Caller, Path(net): Path<String>) -> Answer<NetworkView> {
    by.show(the_network(&net)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// Also when it has nodes, which are removed.
    #[serde(default)]
    force: bool,
}

/// Deletes a network with its codes, and the tokens for it.
#[utoipa::path(delete, path = "/v1/networks/{net}", tag = "networks", params(Force), responses((status = 200, body = NetworkView)))]
pub(super) async fn delete_network(
    by: Caller,
    Path(net): Path<String>,
    Params(Force { force }): Params<Force>,
) -> Answer<NetworkView> {
    if force {
        let (act, wanted) = (Act::of("network.empty", the_network(&net)), net.clone());
        let plan = move |registry: &Registry, moment: &Moment| {
            let network = registry.find_network(&wanted)?.clone();
            registry.remove_all_nodes(&wanted, moment).map(|(rows, ())| (rows, network))
        };
        let emptied = by.change(act, plan, |state, network| NetworkView::of(state, &network)).await?;
        if by.is_rehearsal() {
            return Ok(emptied);
        }
    }
    let act = Act::of("network.delete", the_network(&net));
    let plan = move |registry: &Registry, moment: &Moment| registry.delete_network(&net, moment);
    by.change(act, plan, |state, network| NetworkView::of(state, &network)).await
}

/// The join codes of a network, oldest first.
#[utoipa::path(get, path = "/v1/networks/{net}/codes", tag = "codes", responses((status = 200, body = Vec<CodeView>)))]
pub(super) async fn list_codes(by: Caller, Path(net): Path<String>) -> Listed<CodeView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let codes = state.registry.codes(network.id);
        Ok(codes
            .map(|code| (format!("{:012}-{}", code.created, code.id), CodeView::of(code, now())))
            .collect())
    })
    .await
}

/// Makes a join code. The code itself is in this answer only.
#[utoipa::path(post, path = "/v1/networks/{net}/codes", tag = "codes", request_body = CodeWish, responses((status = 201, body = CodeView)))]
pub(super) async fn create_code(
    by: Caller,
    Path(net): Path<String>,
    Body(wish): Body<CodeWish>,
) -> Answer<CodeView> {
    let act = Act::new("code.create", "a join code").saying(&wish);
    let plan = move |registry: &Registry, moment: &Moment| {
        let network = registry.find_network(&net)?.name.clone();
        let (rows, (code, secret)) = registry.create_code(&net, &wish, moment)?;
        Ok((rows, (code, secret, network)))
    };
    let (ca, record_key, url) = (by.app.pki.ca_hash(), by.app.pki.signer().public(), by.app.url.clone());
    by.create(act, plan, move |_, (code, secret, network)| {
        let text = JoinCode { url, network, ca, record_key, secret }.to_string();
        CodeView { code: Some(text), ..CodeView::of(&code, now()) }
    })
    .await
}

/// Takes a join code back. Routers that joined with it stay.
#[utoipa::path(delete, path = "/v1/networks/{net}/codes/{code}", tag = "codes", responses((status = 200, body = CodeView)))]
pub(super) async fn revoke_code(by: Caller, Path((net, code)): Path<(String, String)>) -> Answer<CodeView> {
    let (in_net, id) = (net.clone(), code.clone());
    let act = Act::of("code.revoke", move |state| {
        state.registry.find_code(&in_net, &id).map(|code| CodeView::of(code, now()))
    });
    let plan = move |registry: &Registry, moment: &Moment| registry.revoke_code(&net, &code, moment);
    by.change(act, plan, |_, code| CodeView::of(&code, now())).await
}

/// The nodes of a network, by name, as they are now.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes", tag = "nodes", responses((status = 200, body = Vec<NodeStatus>)))]
pub(super) async fn list_nodes(by: Caller, Path(net): Path<String>) -> Listed<NodeStatus> {
    let sessions = (by.app.sessions)();
    by.list(move |state| {
        let nodes = NetworkStatus::of(state, state.registry.find_network(&net)?, &sessions, now()).nodes;
        Ok(nodes.into_iter().map(|status| (status.node.name.to_string(), status)).collect())
    })
    .await
}

/// One node as it is now.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes/{node}", tag = "nodes", responses((status = 200, body = NodeStatus)))]
pub(super) async fn show_node(by: Caller, Path((net, node)): Path<(String, String)>) -> Answer<NodeStatus> {
    let sessions = (by.app.sessions)();
    by.show(move |state| {
        let node = state.registry.find_node(&net, &node)?;
        Ok(NodeStatus::of(state, node, &sessions, now()))
    })
    .await
}

/// Changes a node's name, label, tags, or how long it waits for its control link after a change.
#[utoipa::path(patch, path = "/v1/networks/{net}/nodes/{node}", tag = "nodes", request_body = NodePatch, responses((status = 200, body = NodeView)))]
pub(super) async fn change_node(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(patch): Body<NodePatch>,
) -> Answer<NodeView> {
    let act = Act::of("node.change", the_node(&net, &node)).saying(&patch);
    let plan = move |registry: &Registry, _: &Moment| registry.change_node(&net, &node, &patch);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ForceRemove {
    /// Also when external clients come in there, or scopes go out there, which are cut off.
    #[serde(default)]
    pub(super) force: bool,
}

/// Removes a node for ever: it is cut off everywhere within seconds.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}", tag = "nodes", params(ForceRemove), responses((status = 200, body = NodeView)))]
pub(super) async fn remove_node(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(ForceRemove { force }): Params<ForceRemove>,
) -> Answer<NodeView> {
    let act = Act::of("node.remove", the_node(&net, &node));
    let plan = move |registry: &Registry, moment: &Moment| registry.remove_node(&net, &node, force, moment);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// Has a node serve a prefix to its network, or changes how it does.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/egress", tag = "egress", request_body = EgressWish, responses((status = 200, body = NodeView)))]
pub(super) async fn set_egress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(wish): Body<EgressWish>,
) -> Answer<NodeView> {
    let act = Act::of("egress.set", the_node(&net, &node)).saying(&wish);
    let setting = EgressSetting { nat: wish.nat, metric: wish.metric };
    let plan = move |registry: &Registry, _: &Moment| registry.set_egress(&net, &node, wish.prefix, setting);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// As it was set.
    #[param(value_type = String, example = "192.168.10.0/24")]
    prefix: Prefix,
}

/// Has a node serve a prefix no more.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/egress", tag = "egress", params(Which), responses((status = 200, body = NodeView)))]
pub(super) async fn unset_egress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(Which { prefix }): Params<Which>,
) -> Answer<NodeView> {
    let act = Act::of("egress.unset", the_node(&net, &node)).saying(&prefix);
    let plan = move |registry: &Registry, _: &Moment| registry.unset_egress(&net, &node, prefix);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

/// All prefixes behind nodes of a network, and who reaches one that several serve through which.
#[utoipa::path(get, path = "/v1/networks/{net}/egress", tag = "egress", responses((status = 200, body = Vec<EgressView>)))]
pub(super) async fn list_egress(by: Caller, Path(net): Path<String>) -> Listed<EgressView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let all = egress_in_use(state, network.id).into_iter();
        Ok(all.map(|view| (format!("{} {:010} {}", view.prefix, view.metric, view.node), view)).collect())
    })
    .await
}

/// Of which network; all when none is named.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Name or id of the only network wanted.
    #[allow(dead_code)] // Read by `Caller`, which checks that it may be seen.
    pub(super) network: Option<String>,
}

/// How everything is now.
#[utoipa::path(get, path = "/v1/status", tag = "coordinator", params(Of), responses((status = 200, body = Status)))]
pub(super) async fn status(by: Caller) -> Answer<Status> {
    let (sessions, uptime_s) = ((by.app.sessions)(), by.app.started.elapsed().as_secs());
    let scope = by.scope();
    by.show(move |state| {
        let wanted = scope.wanted(&state.registry)?;
        let networks =
            state.registry.networks().filter(|network| wanted.is_none_or(|wanted| wanted == network.id));
        let mut networks: Vec<_> =
            networks.map(|network| NetworkStatus::of(state, network, &sessions, now())).collect();
        networks.sort_by(|one, other| one.network.name.cmp(&other.network.name));
        Ok(Status { version: VERSION.into(), uptime_s, networks })
    })
    .await
}
