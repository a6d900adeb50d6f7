//! Routes of networks, join codes, nodes and egress.

use super::{
    App, VERSION,
    caller::{AuditedChange, Caller},
    problem::{ApiError, Body, Params},
    query::{ForceQuery, NetworkQuery},
    reply::{Answer, Listed},
    resource::{current_network, current_node},
};
use crate::{
    api::{
        CodeView, EgressSpec, EgressView, Health, NetworkStatus, NetworkView, NodeStatus, NodeView,
        RecoveryView, Status, UntoldView, egress_in_use,
    },
    controller::now,
    registry::{CodeSpec, EgressSetting, Moment, NetworkSpec, NodePatch, Registry},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use gatewrt_protocol::{JoinCode, Prefix};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of networks, join codes, nodes and served prefixes.
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

/// Answers the health check. Open to anyone.
#[utoipa::path(get, path = "/v1/health", tag = "coordinator", security(()), responses(
    (status = 200, body = Health),
    (status = 503, body = Health, description = "no change is made: it is not known what is on the disk"),
))]
pub(super) async fn health(State(app): State<App>) -> Result<(StatusCode, Json<Health>), ApiError> {
    let (unsure, clock_behind_s) =
        app.controller.view(|state| (state.unsure.is_some(), state.clock_behind())).await?;
    let (code, status) = match unsure {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "storage-unsure"),
    };
    Ok((code, Json(Health { status: status.into(), version: VERSION.into(), clock_behind_s })))
}

/// Lists all networks that the caller may see, by name.
#[utoipa::path(get, path = "/v1/networks", tag = "networks", responses((status = 200, body = Vec<NetworkView>)))]
pub(super) async fn list_networks(by: Caller) -> Listed<NetworkView> {
    let filter = by.filter();
    by.list(move |state| {
        let seen = state.registry.networks().filter(|network| filter.sees(network.id));
        Ok(seen.map(|network| (network.name.to_string(), NetworkView::of(state, network))).collect())
    })
    .await
}

/// Creates a network.
#[utoipa::path(post, path = "/v1/networks", tag = "networks", request_body = NetworkSpec, responses((status = 201, body = NetworkView)))]
pub(super) async fn create_network(by: Caller, Body(spec): Body<NetworkSpec>) -> Answer<NetworkView> {
    let act = AuditedChange::new("network.create", format!("network {}", spec.name)).with_detail(&spec);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_network(&spec, moment);
    by.create(act, plan, |state, network| NetworkView::with_warnings(state, &network)).await
}

/// Shows one network.
#[utoipa::path(get, path = "/v1/networks/{net}", tag = "networks", responses((status = 200, body = NetworkView)))]
pub(super) async fn show_network(by: Caller, Path(net): Path<String>) -> Answer<NetworkView> {
    by.show(current_network(&net)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Delete the network even if it has nodes: they are removed.
    #[serde(default)]
    force: bool,
}

/// Deletes a network with its codes, and the tokens for it.
#[utoipa::path(delete, path = "/v1/networks/{net}", tag = "networks", params(DeleteQuery), responses((status = 200, body = NetworkView)))]
pub(super) async fn delete_network(
    by: Caller,
    Path(net): Path<String>,
    Params(DeleteQuery { force }): Params<DeleteQuery>,
) -> Answer<NetworkView> {
    let act = AuditedChange::of("network.delete", current_network(&net));
    let plan = move |registry: &Registry, moment: &Moment| registry.delete_network(&net, force, moment);
    by.change(act, plan, |state, network| NetworkView::of(state, &network)).await
}

/// Join codes of a network, oldest first.
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

/// Creates a join code. The code itself is only in this answer.
#[utoipa::path(post, path = "/v1/networks/{net}/codes", tag = "codes", request_body = CodeSpec, responses((status = 201, body = CodeView)))]
pub(super) async fn create_code(
    by: Caller,
    Path(net): Path<String>,
    Body(spec): Body<CodeSpec>,
) -> Answer<CodeView> {
    let act = AuditedChange::new("code.create", "a join code").with_detail(&spec);
    let plan = move |registry: &Registry, moment: &Moment| {
        let network = registry.find_network(&net)?.name.clone();
        let (rows, (code, secret)) = registry.create_code(&net, &spec, moment)?;
        Ok((rows, (code, secret, network)))
    };
    let (ca, record_key, url) = (by.app.pki.ca_hash(), by.app.pki.signer().public(), by.app.url.clone());
    by.create(act, plan, move |_, (code, secret, network)| {
        let text = JoinCode { url, network, ca, record_key, secret }.to_string();
        CodeView { code: Some(text), ..CodeView::of(&code, now()) }
    })
    .await
}

/// Revokes a join code. Routers that have joined with it stay.
#[utoipa::path(delete, path = "/v1/networks/{net}/codes/{code}", tag = "codes", responses((status = 200, body = CodeView)))]
pub(super) async fn revoke_code(by: Caller, Path((net, code)): Path<(String, String)>) -> Answer<CodeView> {
    let (in_net, id) = (net.clone(), code.clone());
    let act = AuditedChange::of("code.revoke", move |state| {
        state.registry.find_code(&in_net, &id).map(|code| CodeView::of(code, now()))
    });
    let plan = move |registry: &Registry, moment: &Moment| registry.revoke_code(&net, &code, moment);
    by.change(act, plan, |_, code| CodeView::of(&code, now())).await
}

/// Nodes of a network by name, with their current state.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes", tag = "nodes", responses((status = 200, body = Vec<NodeStatus>)))]
pub(super) async fn list_nodes(by: Caller, Path(net): Path<String>) -> Listed<NodeStatus> {
    let sessions = (by.app.sessions)();
    by.list(move |state| {
        let nodes = NetworkStatus::of(state, state.registry.find_network(&net)?, &sessions, now()).nodes;
        Ok(nodes.into_iter().map(|status| (status.node.name.to_string(), status)).collect())
    })
    .await
}

/// Shows one node with its current state.
#[utoipa::path(get, path = "/v1/networks/{net}/nodes/{node}", tag = "nodes", responses((status = 200, body = NodeStatus)))]
pub(super) async fn show_node(by: Caller, Path((net, node)): Path<(String, String)>) -> Answer<NodeStatus> {
    let sessions = (by.app.sessions)();
    by.show(move |state| {
        let node = state.registry.find_node(&net, &node)?;
        Ok(NodeStatus::of(state, node, &sessions, now()))
    })
    .await
}

/// Changes the name, label, tags or confirm time of a node.
#[utoipa::path(patch, path = "/v1/networks/{net}/nodes/{node}", tag = "nodes", request_body = NodePatch, responses((status = 200, body = NodeView)))]
pub(super) async fn change_node(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(patch): Body<NodePatch>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("node.change", current_node(&net, &node)).with_detail(&patch);
    let plan = move |registry: &Registry, _: &Moment| registry.change_node(&net, &node, &patch);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// Removes a node permanently: it is cut off everywhere within seconds.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}", tag = "nodes", params(ForceQuery), responses((status = 200, body = NodeView)))]
pub(super) async fn remove_node(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(ForceQuery { force }): Params<ForceQuery>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("node.remove", current_node(&net, &node));
    let plan = move |registry: &Registry, moment: &Moment| registry.remove_node(&net, &node, force, moment);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// Lets a node serve a prefix to its network, or changes how.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/egress", tag = "egress", request_body = EgressSpec, responses((status = 200, body = NodeView)))]
pub(super) async fn set_egress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(spec): Body<EgressSpec>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("egress.set", current_node(&net, &node)).with_detail(&spec);
    let setting = EgressSetting { nat: spec.nat, metric: spec.metric };
    let plan = move |registry: &Registry, _: &Moment| registry.set_egress(&net, &node, spec.prefix, setting);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PrefixQuery {
    /// Prefix as it was set.
    #[param(value_type = String, example = "192.168.10.0/24")]
    prefix: Prefix,
}

/// Stops a node from serving a prefix.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/egress", tag = "egress", params(PrefixQuery), responses((status = 200, body = NodeView)))]
pub(super) async fn unset_egress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(PrefixQuery { prefix }): Params<PrefixQuery>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("egress.unset", current_node(&net, &node)).with_detail(&prefix);
    let plan = move |registry: &Registry, _: &Moment| registry.unset_egress(&net, &node, prefix);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

/// Prefixes behind the nodes of a network, and the users of those that several nodes serve.
#[utoipa::path(get, path = "/v1/networks/{net}/egress", tag = "egress", responses((status = 200, body = Vec<EgressView>)))]
pub(super) async fn list_egress(by: Caller, Path(net): Path<String>) -> Listed<EgressView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let all = egress_in_use(state, network.id).into_iter();
        Ok(all.map(|view| (format!("{} {:010} {}", view.prefix, view.metric, view.node), view)).collect())
    })
    .await
}

/// Current state of the coordinator and of all networks that the caller may see.
#[utoipa::path(get, path = "/v1/status", tag = "coordinator", params(NetworkQuery), responses((status = 200, body = Status)))]
pub(super) async fn status(by: Caller) -> Answer<Status> {
    let (sessions, uptime_s) = ((by.app.sessions)(), by.app.started.elapsed().as_secs());
    let (filter, whole) = (by.filter(), by.grant.network.is_none());
    by.show(move |state| {
        let wanted = filter.requested(&state.registry)?;
        let networks =
            state.registry.networks().filter(|network| wanted.is_none_or(|wanted| wanted == network.id));
        let mut networks: Vec<_> =
            networks.map(|network| NetworkStatus::of(state, network, &sessions, now())).collect();
        networks.sort_by(|one, other| one.network.name.cmp(&other.network.name));
        let recovery = whole.then(|| RecoveryView::of(&state.registry).summary).flatten();
        let untold = UntoldView::all_of(state, wanted, now());
        Ok(Status {
            version: VERSION.into(),
            uptime_s,
            unsure: state.unsure.clone(),
            recovery,
            clock_behind_s: state.clock_behind(),
            networks,
            untold,
        })
    })
    .await
}
