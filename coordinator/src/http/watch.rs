//! Changes as they happen, as server-sent events: one [`WatchEvent`] in JSON each.

use super::{App, Caller, problem::ApiError, routes::Of};
use crate::desk::{State, WatchEvent};
use axum::response::sse::{Event, KeepAlive, Sse};
use gatewrt_protocol::NetworkName;
use std::{convert::Infallible, sync::Arc};
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// Changes as they happen, as server-sent events without end: `change` with one JSON object each, and `gap`
/// where the reader was too slow.
#[utoipa::path(get, path = "/v1/watch", tag = "coordinator", params(Of),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn watch(
    by: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let changes = BroadcastStream::new(by.app.desk.watch());
    let scope = by.scope();
    let name = move |state: &State| {
        let wanted = scope.wanted(&state.registry)?;
        Ok(wanted.and_then(|net| state.registry.network(net)).map(|network| network.name.clone()))
    };
    let wanted = by.view(name).await?;
    let (grant, app) = (by.grant.clone(), by.app.clone());
    let events = changes.filter_map(move |change| match change {
        Ok(change) => concerns(&change, wanted.as_ref()).then(|| Ok(event(&change))),
        // The watcher was too slow for the queue: it is told, rather than left with a gap it can't see.
        Err(lagged) => Some(Ok(Event::default().event("gap").data(lagged.to_string()))),
    });
    let events = futures_util::StreamExt::take_until(events, async move { grant.ended(&app).await });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn concerns(change: &Arc<WatchEvent>, wanted: Option<&NetworkName>) -> bool {
    wanted.is_none_or(|wanted| change.network.as_ref() == Some(wanted))
}

fn event(change: &Arc<WatchEvent>) -> Event {
    let json = serde_json::to_string(change.as_ref()).expect("an event is JSON");
    Event::default().event("change").data(json)
}
