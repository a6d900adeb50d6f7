//! Changes as server-sent events, each one [`WatchEvent`] in JSON.

use super::{App, Caller, events::while_granted, problem::ApiError, query::NetworkQuery};
use crate::controller::{ControllerState, WatchEvent};
use axum::response::sse::{Event, KeepAlive, Sse};
use gatewrt_protocol::NetworkName;
use std::{convert::Infallible, sync::Arc};
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of the endless answer that `watch` reads.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// Changes as an endless stream of server-sent events: `change` with one JSON object each, and `gap` if the
/// reader was too slow. It ends with the session or the token.
#[utoipa::path(get, path = "/v1/watch", tag = "coordinator", params(NetworkQuery),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn watch(
    by: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let changes = BroadcastStream::new(by.app.controller.watch());
    let filter = by.filter();
    let name = move |state: &ControllerState| {
        let wanted = filter.requested(&state.registry)?;
        Ok(wanted.and_then(|net| state.registry.network(net)).map(|network| network.name.clone()))
    };
    let wanted = by.view(name).await?;
    let events = changes.filter_map(move |change| match change {
        Ok(change) => concerns(&change, wanted.as_ref()).then(|| event(&change)),
        // The watcher was too slow for the queue. It is told, as it can't see the gap itself.
        Err(lagged) => Some(Event::default().event("gap").data(lagged.to_string())),
    });
    Ok(Sse::new(while_granted(by.app, by.grant, events)).keep_alive(KeepAlive::default()))
}

fn concerns(change: &Arc<WatchEvent>, wanted: Option<&NetworkName>) -> bool {
    wanted.is_none_or(|wanted| change.network.as_ref() == Some(wanted))
}

fn event(change: &Arc<WatchEvent>) -> Event {
    let json = serde_json::to_string(change.as_ref()).expect("an event is JSON");
    Event::default().event("change").data(json)
}
