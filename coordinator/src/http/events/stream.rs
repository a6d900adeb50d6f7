//! Endless answers. Each ends with the grant of its caller: at logout, or when the session or the token ends.

use crate::http::{App, grant::Grant};
use axum::response::sse::Event;
use futures_util::stream::{Stream, StreamExt, unfold};
use std::{convert::Infallible, time::Duration};

/// Interval of checking the caller's grant while there are no events.
const RECHECK: Duration = Duration::from_secs(1);

/// Events for a caller until the grant ends. It is checked before each event: none is sent after the answer to a logout or
/// a revocation.
pub(in crate::http) fn while_granted(
    app: App,
    grant: Grant,
    events: impl Stream<Item = Event> + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    unfold((app, grant, Box::pin(events)), |(app, grant, mut events)| async {
        loop {
            let event = tokio::select! {
                event = events.next() => Some(event?),
                () = tokio::time::sleep(RECHECK) => None,
            };
            if !grant.still_holds(&app).await {
                return None;
            }
            if let Some(event) = event {
                return Some((Ok(event), (app, grant, events)));
            }
        }
    })
}
