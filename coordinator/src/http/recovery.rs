//! Routes of the recovery after the coordinator was set back.

use super::{
    App,
    caller::{AuditedChange, Caller},
    problem::Body,
    reply::Answer,
};
use crate::{
    api::{AdoptRequest, KeptRulesView, RecoveryView, StrayView},
    registry::{Moment, Registry},
};
use axum::extract::Path;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of the recovery.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(recovery))
        .routes(routes!(adopt_stray, cut_off_stray))
        .routes(routes!(accept_rules))
}

/// What became of the coordinator after it was set back, as by restoring a backup; empty if it never was.
#[utoipa::path(get, path = "/v1/recovery", tag = "coordinator", responses((status = 200, body = RecoveryView)))]
pub(super) async fn recovery(by: Caller) -> Answer<RecoveryView> {
    by.show(|state| Ok(RecoveryView::of(&state.registry))).await
}

/// Adopts a node or an external client that the coordinator does not know any more: it keeps its keys and addresses.
#[utoipa::path(post, path = "/v1/recovery/strays/{id}", tag = "coordinator", request_body = AdoptRequest, responses((status = 200, body = StrayView)))]
pub(super) async fn adopt_stray(
    by: Caller,
    Path(id): Path<String>,
    Body(request): Body<AdoptRequest>,
) -> Answer<StrayView> {
    let act = AuditedChange::new("stray.adopt", format!("stray {id}")).with_detail(&request);
    let plan = move |registry: &Registry, moment: &Moment| {
        let view = StrayView::of(registry, registry.find_stray(&id)?);
        registry.adopt_stray(&id, request.name.as_deref(), moment).map(|(rows, _)| (rows, view))
    };
    by.change(act, plan, |_, view| view).await
}

/// Cuts a node or an external client off for good that the coordinator does not know any more.
#[utoipa::path(delete, path = "/v1/recovery/strays/{id}", tag = "coordinator", responses((status = 200, body = StrayView)))]
pub(super) async fn cut_off_stray(by: Caller, Path(id): Path<String>) -> Answer<StrayView> {
    let act = AuditedChange::new("stray.cut-off", format!("stray {id}"));
    let plan = move |registry: &Registry, moment: &Moment| {
        let view = StrayView::of(registry, registry.find_stray(&id)?);
        registry.cut_off_stray(&id, moment).map(|(rows, _)| (rows, view))
    };
    by.change(act, plan, |_, view| view).await
}

/// Lets a node go by the coordinator's access rules alone, not by those as well that it had before the coordinator was set
/// back. `{node}` is its id, or its name if no other such node has that.
#[utoipa::path(delete, path = "/v1/recovery/rules/{node}", tag = "coordinator", responses((status = 200, body = KeptRulesView)))]
pub(super) async fn accept_rules(by: Caller, Path(node): Path<String>) -> Answer<KeptRulesView> {
    let act = AuditedChange::new("recovery.accept-rules", format!("access rules of node {node}"));
    let plan = move |registry: &Registry, _: &Moment| {
        let (rows, id) = registry.accept_rules(&node)?;
        let kept = registry.kept_rules().find(|(node, _)| node.id == id).expect("it keeps to some");
        Ok((rows, KeptRulesView::of(registry, kept.0, kept.1)))
    };
    by.change(act, plan, |_, view| view).await
}
