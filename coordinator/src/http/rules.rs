//! What may reach what: each handler is one question or change.

use super::{
    App,
    caller::{Act, Caller},
    problem::Body,
    reply::Answer,
    routes::the_network,
};
use crate::{
    api::NetworkView,
    registry::{Moment, NetworkPatch, Registry},
};
use axum::extract::Path;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(change_network))
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
