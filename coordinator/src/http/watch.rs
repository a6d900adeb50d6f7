//! Changes as they happen, as server-sent events: one [`WatchEvent`] in JSON each.

use super::{
    App,
    problem::{ApiError, Params},
    routes::Of,
};
use crate::desk::{DeskError, WatchEvent};
use axum::{
    extract::State as Shared,
    response::sse::{Event, KeepAlive, Sse},
};
use gatewrt_protocol::NetworkName;
use std::{convert::Infallible, sync::Arc};
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};

pub(super) async fn watch(
    Shared(app): Shared<App>,
    Params(Of { network }): Params<Of>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let changes = BroadcastStream::new(app.desk.watch());
    let wanted = match network {
        None => None,
        Some(text) => Some(name_of(&app, text).await?),
    };
    let events = changes.filter_map(move |change| match change {
        Ok(change) => concerns(&change, wanted.as_ref()).then(|| Ok(event(&change))),
        // The watcher was too slow for the queue: it is told, rather than left with a gap it can't see.
        Err(lagged) => Some(Ok(Event::default().event("gap").data(lagged.to_string()))),
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn name_of(app: &App, text: String) -> Result<NetworkName, ApiError> {
    let find = move |state: &crate::desk::State| {
        state.registry.find_network(&text).map(|network| network.name.clone())
    };
    Ok(app.desk.view(find).await?.map_err(DeskError::from)?)
}

fn concerns(change: &Arc<WatchEvent>, wanted: Option<&NetworkName>) -> bool {
    wanted.is_none_or(|wanted| change.network.as_ref() == Some(wanted))
}

fn event(change: &Arc<WatchEvent>) -> Event {
    let json = serde_json::to_string(change.as_ref()).expect("an event is JSON");
    Event::default().event("change").data(json)
}
