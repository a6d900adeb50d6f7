//! Live state as server-sent events, for the page: how each network is when the reader comes and whenever that
//! changes, and each change as [`super::watch`] tells it.

use super::{
    App, Caller, Scope,
    grant::{Grant, RECHECK},
    problem::ApiError,
    routes::Of,
};
use crate::{
    api::NetworkStatus,
    broker::Sessions,
    desk::{State, WatchEvent, now},
};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use gatewrt_protocol::{NetworkId, NetworkName};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// A network's state is told at most so often.
const PACE: Duration = Duration::from_secs(1);
/// Of a network so large, a second more for each so many nodes: its state is as long.
const NODES_A_PACE: u32 = 100;

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Live state as server-sent events without end: `status` with a network's state when one comes and when it
/// changes (at most once a second), `change` with each change, `gone` with the name of a network that was
/// deleted, and `gap` where the reader was too slow.
#[utoipa::path(get, path = "/v1/events", tag = "coordinator", params(Of),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    by: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let changes = by.app.desk.watch();
    let scope = by.scope();
    let wanted = by.view(move |state| scope.wanted(&state.registry)).await?;
    let feed = Feed {
        app: by.app.clone(),
        grant: by.grant.clone(),
        scope: by.scope(),
        wanted,
        changes,
        ready: VecDeque::new(),
        names: BTreeMap::new(),
        stale: BTreeSet::new(),
        has_others: true,
        next_status: Instant::now(),
        next_check: Instant::now() + RECHECK,
    };
    let stream = unfold(feed, |mut feed| async move { feed.next().await.map(|event| (Ok(event), feed)) });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// What one reader is still to be told.
struct Feed {
    app: App,
    grant: Grant,
    scope: Scope,
    wanted: Option<NetworkId>,
    changes: Receiver<Arc<WatchEvent>>,
    ready: VecDeque<Event>,
    /// The networks it was told of.
    names: BTreeMap<NetworkId, NetworkName>,
    /// Those that have changed since.
    stale: BTreeSet<NetworkName>,
    /// Whether there may be others.
    has_others: bool,
    next_status: Instant,
    next_check: Instant,
}

impl Feed {
    /// The next event; the end where the reader's token holds no more.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let waits = self.has_others || !self.stale.is_empty();
            tokio::select! {
                change = self.changes.recv() => self.handle_change(change)?,
                () = sleep_until(self.next_status), if waits => self.tell_status().await?,
                () = sleep_until(self.next_check) => self.check().await?,
            }
        }
    }

    fn handle_change(&mut self, change: Result<Arc<WatchEvent>, RecvError>) -> Option<()> {
        match change {
            Ok(change) => {
                // A network not told of yet is new, or not this reader's; which, is seen with the next status.
                match &change.network {
                    Some(name) if self.names.values().any(|known| known == name) => {
                        self.ready.push_back(event("change", change.as_ref()));
                        self.stale.insert(name.clone());
                    }
                    _ => self.has_others = true,
                }
            }
            Err(RecvError::Lagged(missed)) => {
                self.ready.push_back(Event::default().event("gap").data(missed.to_string()));
                self.stale.extend(self.names.values().cloned());
                self.has_others = true;
            }
            Err(RecvError::Closed) => return None,
        }
        Some(())
    }

    async fn tell_status(&mut self) -> Option<()> {
        self.check().await?;
        let (stale, all) = (std::mem::take(&mut self.stale), std::mem::take(&mut self.has_others));
        let (scope, wanted, sessions) = (self.scope.clone(), self.wanted, (self.app.sessions)());
        let known: BTreeSet<_> = self.names.keys().copied().collect();
        let ask = move |state: &State| {
            Told::of(state, &scope, wanted, &sessions, |net, name| {
                stale.contains(name) || (all && !known.contains(&net))
            })
        };
        let told = self.app.desk.view(ask).await.ok()?;
        for (_, name) in self.names.extract_if(.., |net, _| !told.there.contains_key(net)) {
            self.ready.push_back(Event::default().event("gone").data(name.to_string()));
        }
        let nodes: usize = told.changed.iter().map(|status| status.nodes.len()).sum();
        self.names = told.there;
        self.ready.extend(told.changed.iter().map(|status| event("status", status)));
        let more = u32::try_from(nodes).unwrap_or(u32::MAX) / NODES_A_PACE;
        self.next_status = Instant::now() + PACE.saturating_mul(more.saturating_add(1));
        Some(())
    }

    /// Ends the stream of a token that was taken back or whose time is over.
    async fn check(&mut self) -> Option<()> {
        self.next_check = Instant::now() + RECHECK;
        self.grant.still_holds(&self.app).await.then_some(())
    }
}

/// What a look at the state shows a reader.
struct Told {
    there: BTreeMap<NetworkId, NetworkName>,
    changed: Vec<NetworkStatus>,
}

impl Told {
    fn of(
        state: &State,
        scope: &Scope,
        wanted: Option<NetworkId>,
        sessions: &Sessions,
        is_stale: impl Fn(NetworkId, &NetworkName) -> bool,
    ) -> Self {
        let networks = state.registry.networks();
        let seen: Vec<_> = networks
            .filter(|network| scope.sees(network.id) && wanted.is_none_or(|wanted| wanted == network.id))
            .collect();
        let stale = seen.iter().filter(|network| is_stale(network.id, &network.name));
        Self {
            changed: stale.map(|network| NetworkStatus::of(state, network, sessions, now())).collect(),
            there: seen.iter().map(|network| (network.id, network.name.clone())).collect(),
        }
    }
}

fn event(name: &str, data: &impl serde::Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).expect("an event is JSON"))
}
