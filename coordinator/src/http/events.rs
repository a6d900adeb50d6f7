//! Live state as server-sent events, for the page: the status of each network at first and after changes, and
//! each change as in [`super::watch`].

mod stream;

pub(super) use stream::while_granted;

use super::{App, Caller, NetworkFilter, problem::ApiError, query::NetworkQuery};
use crate::{
    api::NetworkStatus,
    broker::Sessions,
    controller::{ControllerState, WatchEvent, now},
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

/// Shortest interval between two status events in a reader's stream.
const PACE: Duration = Duration::from_secs(1);
/// Number of nodes for which a second is added to the interval: the status of a large network is long.
const NODES_A_PACE: u32 = 100;

/// Routes of the stream of server-sent events.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Live state as an endless stream of server-sent events: `status` with a network's state at first and after
/// changes (at most once a second), `change` with each change, `gone` with the name of a deleted network, and
/// `gap` if the reader was too slow. It ends with the session or the token.
#[utoipa::path(get, path = "/v1/events", tag = "coordinator", params(NetworkQuery),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    by: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let changes = by.app.controller.watch();
    let filter = by.filter();
    let wanted = by.view(move |state| filter.requested(&state.registry)).await?;
    let feed = Feed {
        app: by.app.clone(),
        filter: by.filter(),
        wanted,
        changes,
        ready: VecDeque::new(),
        names: BTreeMap::new(),
        stale: BTreeSet::new(),
        has_others: true,
        next_status: Instant::now(),
    };
    let events = unfold(feed, |mut feed| async move { feed.next().await.map(|event| (event, feed)) });
    Ok(Sse::new(while_granted(by.app, by.grant, events)).keep_alive(KeepAlive::default()))
}

/// State of one reader's stream of events.
struct Feed {
    app: App,
    filter: NetworkFilter,
    wanted: Option<NetworkId>,
    changes: Receiver<Arc<WatchEvent>>,
    ready: VecDeque<Event>,
    /// Networks that the reader knows.
    names: BTreeMap<NetworkId, NetworkName>,
    /// Networks that have changed since their last status.
    stale: BTreeSet<NetworkName>,
    /// Set if there may be networks that the reader does not know.
    has_others: bool,
    next_status: Instant,
}

impl Feed {
    /// Next event for the reader; `None` when the coordinator stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let waits = self.has_others || !self.stale.is_empty();
            tokio::select! {
                change = self.changes.recv() => self.handle_change(change)?,
                () = sleep_until(self.next_status), if waits => self.send_status().await?,
            }
        }
    }

    fn handle_change(&mut self, change: Result<Arc<WatchEvent>, RecvError>) -> Option<()> {
        match change {
            Ok(change) => {
                // An unknown network is new, or not for this reader. The next status tells.
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

    async fn send_status(&mut self) -> Option<()> {
        let (stale, all) = (std::mem::take(&mut self.stale), std::mem::take(&mut self.has_others));
        let (filter, wanted, sessions) = (self.filter.clone(), self.wanted, (self.app.sessions)());
        let known: BTreeSet<_> = self.names.keys().copied().collect();
        let ask = move |state: &ControllerState| {
            Snapshot::of(state, &filter, wanted, &sessions, |net, name| {
                stale.contains(name) || (all && !known.contains(&net))
            })
        };
        let snapshot = self.app.controller.view(ask).await.ok()?;
        for (_, name) in self.names.extract_if(.., |net, _| !snapshot.there.contains_key(net)) {
            self.ready.push_back(Event::default().event("gone").data(name.to_string()));
        }
        let nodes: usize = snapshot.changed.iter().map(|status| status.nodes.len()).sum();
        self.names = snapshot.there;
        self.ready.extend(snapshot.changed.iter().map(|status| event("status", status)));
        let more = u32::try_from(nodes).unwrap_or(u32::MAX) / NODES_A_PACE;
        self.next_status = Instant::now() + PACE.saturating_mul(more.saturating_add(1));
        Some(())
    }
}

/// Networks that a reader may see, and the status of those that have changed.
struct Snapshot {
    there: BTreeMap<NetworkId, NetworkName>,
    changed: Vec<NetworkStatus>,
}

impl Snapshot {
    fn of(
        state: &ControllerState,
        filter: &NetworkFilter,
        wanted: Option<NetworkId>,
        sessions: &Sessions,
        is_stale: impl Fn(NetworkId, &NetworkName) -> bool,
    ) -> Self {
        let networks = state.registry.networks();
        let seen: Vec<_> = networks
            .filter(|network| filter.sees(network.id) && wanted.is_none_or(|wanted| wanted == network.id))
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
