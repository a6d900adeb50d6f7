//! What may reach what: each handler is one question or order.

use super::{
    App,
    problem::{ApiError, Body},
};
use crate::{
    api::NetworkView,
    registry::{NetworkPatch, Registry},
};
use axum::{
    Json,
    extract::{Path, State as Shared},
};

type Answer<T> = Result<Json<T>, ApiError>;

pub(super) async fn change_network(
    Shared(app): Shared<App>,
    Path(net): Path<String>,
    Body(patch): Body<NetworkPatch>,
) -> Answer<NetworkView> {
    let plan = move |registry: &Registry, _: &_| registry.change_network(&net, &patch);
    Ok(Json(app.desk.change(plan, |state, network| NetworkView::of(state, &network)).await?))
}
