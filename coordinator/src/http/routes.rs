//! What admins ask: each handler is one question or order.

use super::{
    App,
    problem::{ApiError, Body, Params},
};
use crate::{
    api::{
        CodeView, EgressView, EgressWish, Health, NetworkStatus, NetworkView, NodeStatus, NodeView, Status,
        egress_of,
    },
    desk::{State, now},
    registry::{CodeWish, EgressSetting, NetworkWish, NodePatch, Registry, RegistryError},
};
use axum::{
    Json,
    extract::{Path, State as Shared},
    http::StatusCode,
};
use gatewrt_protocol::{JoinCode, Prefix};
use serde::Deserialize;

type Answer<T> = Result<Json<T>, ApiError>;
type Created<T> = Result<(StatusCode, Json<T>), ApiError>;

/// Of the coordinator.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".into(), version: VERSION.into() })
}

pub(super) async fn list_networks(Shared(app): Shared<App>) -> Answer<Vec<NetworkView>> {
    let list = |state: &State| {
        let mut views: Vec<_> =
            state.registry.networks().map(|network| NetworkView::of(state, network)).collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    };
    Ok(Json(app.desk.view(list).await?))
}

pub(super) async fn create_network(
    Shared(app): Shared<App>,
    Body(wish): Body<NetworkWish>,
) -> Created<NetworkView> {
    let plan = move |registry: &Registry, moment: &_| registry.create_network(&wish, moment);
    let view = app.desk.change(plan, |state, network| NetworkView::of(state, &network)).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

pub(super) async fn show_network(Shared(app): Shared<App>, Path(net): Path<String>) -> Answer<NetworkView> {
    let show =
        move |state: &State| state.registry.find_network(&net).map(|network| NetworkView::of(state, network));
    found(app.desk.view(show).await?)
}

#[derive(Deserialize)]
pub(super) struct Force {
    #[serde(default)]
    force: bool,
}

pub(super) async fn delete_network(
    Shared(app): Shared<App>,
    Path(net): Path<String>,
    Params(Force { force }): Params<Force>,
) -> Answer<NetworkView> {
    if force {
        let net = net.clone();
        app.desk.change(move |registry, moment| registry.remove_all_nodes(&net, moment), |_, ()| ()).await?;
    }
    let plan = move |registry: &Registry, _: &_| registry.delete_network(&net);
    Ok(Json(app.desk.change(plan, |state, network| NetworkView::of(state, &network)).await?))
}

pub(super) async fn list_codes(Shared(app): Shared<App>, Path(net): Path<String>) -> Answer<Vec<CodeView>> {
    let list = move |state: &State| {
        let network = state.registry.find_network(&net)?;
        let mut codes: Vec<_> = state.registry.codes(network.id).collect();
        codes.sort_by_key(|code| (code.created, code.id.clone()));
        Ok(codes.into_iter().map(|code| CodeView::of(code, now())).collect())
    };
    found(app.desk.view(list).await?)
}

pub(super) async fn create_code(
    Shared(app): Shared<App>,
    Path(net): Path<String>,
    Body(wish): Body<CodeWish>,
) -> Created<CodeView> {
    let plan = move |registry: &Registry, moment: &_| {
        let network = registry.find_network(&net)?.name.clone();
        let (rows, (code, secret)) = registry.create_code(&net, &wish, moment)?;
        Ok((rows, (code, secret, network)))
    };
    let (code, secret, network) = app.desk.change(plan, |_, made| made).await?;
    let (ca, record_key) = (app.pki.ca_hash(), app.pki.signer().public());
    let text = JoinCode { url: app.url.clone(), network, ca, record_key, secret }.to_string();
    Ok((StatusCode::CREATED, Json(CodeView { code: Some(text), ..CodeView::of(&code, now()) })))
}

pub(super) async fn revoke_code(
    Shared(app): Shared<App>,
    Path((net, code)): Path<(String, String)>,
) -> Answer<CodeView> {
    let plan = move |registry: &Registry, moment: &_| registry.revoke_code(&net, &code, moment);
    Ok(Json(app.desk.change(plan, |_, code| CodeView::of(&code, now())).await?))
}

pub(super) async fn list_nodes(Shared(app): Shared<App>, Path(net): Path<String>) -> Answer<Vec<NodeStatus>> {
    let sessions = (app.sessions)();
    let list = move |state: &State| {
        let network = state.registry.find_network(&net)?;
        Ok(NetworkStatus::of(state, network, &sessions, now()).nodes)
    };
    found(app.desk.view(list).await?)
}

pub(super) async fn show_node(
    Shared(app): Shared<App>,
    Path((net, node)): Path<(String, String)>,
) -> Answer<NodeStatus> {
    let sessions = (app.sessions)();
    let show = move |state: &State| {
        state.registry.find_node(&net, &node).map(|node| NodeStatus::of(state, node, &sessions, now()))
    };
    found(app.desk.view(show).await?)
}

pub(super) async fn change_node(
    Shared(app): Shared<App>,
    Path((net, node)): Path<(String, String)>,
    Body(patch): Body<NodePatch>,
) -> Answer<NodeView> {
    let plan = move |registry: &Registry, _: &_| registry.change_node(&net, &node, &patch);
    Ok(Json(app.desk.change(plan, |state, node| NodeView::of(state, &node)).await?))
}

pub(super) async fn remove_node(
    Shared(app): Shared<App>,
    Path((net, node)): Path<(String, String)>,
) -> Answer<NodeView> {
    let plan = move |registry: &Registry, moment: &_| registry.remove_node(&net, &node, moment);
    Ok(Json(app.desk.change(plan, |state, node| NodeView::of(state, &node)).await?))
}

pub(super) async fn set_egress(
    Shared(app): Shared<App>,
    Path((net, node)): Path<(String, String)>,
    Body(wish): Body<EgressWish>,
) -> Answer<NodeView> {
    let setting = EgressSetting { nat: wish.nat, metric: wish.metric };
    let plan = move |registry: &Registry, _: &_| registry.set_egress(&net, &node, wish.prefix, setting);
    Ok(Json(app.desk.change(plan, |state, node| NodeView::with_warnings(state, &node)).await?))
}

#[derive(Deserialize)]
pub(super) struct Which {
    prefix: Prefix,
}

pub(super) async fn unset_egress(
    Shared(app): Shared<App>,
    Path((net, node)): Path<(String, String)>,
    Params(Which { prefix }): Params<Which>,
) -> Answer<NodeView> {
    let plan = move |registry: &Registry, _: &_| registry.unset_egress(&net, &node, prefix);
    Ok(Json(app.desk.change(plan, |state, node| NodeView::with_warnings(state, &node)).await?))
}

pub(super) async fn list_egress(
    Shared(app): Shared<App>,
    Path(net): Path<String>,
) -> Answer<Vec<EgressView>> {
    let list = move |state: &State| {
        let network = state.registry.find_network(&net)?;
        let mut views: Vec<_> = state.registry.live_nodes(network.id).flat_map(egress_of).collect();
        views.sort_by_key(|view| (view.prefix, view.metric));
        Ok(views)
    };
    found(app.desk.view(list).await?)
}

/// Of which network; all when none is named.
#[derive(Deserialize)]
pub(super) struct Of {
    pub(super) network: Option<String>,
}

pub(super) async fn status(Shared(app): Shared<App>, Params(Of { network }): Params<Of>) -> Answer<Status> {
    let (sessions, uptime_s) = ((app.sessions)(), app.started.elapsed().as_secs());
    let status = move |state: &State| {
        let wanted = network.as_deref().map(|text| state.registry.find_network(text)).transpose()?;
        let networks =
            state.registry.networks().filter(|network| wanted.is_none_or(|wanted| wanted.id == network.id));
        let mut networks: Vec<_> =
            networks.map(|network| NetworkStatus::of(state, network, &sessions, now())).collect();
        networks.sort_by(|one, other| one.network.name.cmp(&other.network.name));
        Ok(Status { version: VERSION.into(), uptime_s, networks })
    };
    found(app.desk.view(status).await?)
}

fn found<T>(outcome: Result<T, RegistryError>) -> Answer<T> {
    outcome.map(Json).map_err(|error| ApiError::from(crate::desk::DeskError::from(error)))
}
