//! Wait for the nodes that a change is about. Every change that publishes records waits a moment until they obey, woken by
//! their reports, and its answer names those that do and those that have not confirmed: `applied` and `pending`. A node
//! that is offline or has given up is not waited for.

use super::{App, deadline::Deadline, problem::ApiError};
use crate::{
    controller::{ControllerState, WatchEvent, now},
    obeyed::{Expected, Obeyed, Progress},
};
use axum::http::StatusCode;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until, timeout_at},
};

/// Longest and default wait, in seconds.
pub(super) const LONGEST_S: u64 = 60;
const DEFAULT_S: u64 = 3;
/// Shortest interval between two looks at the nodes' reports: many may report at once.
const PACE: Duration = Duration::from_millis(100);

/// Time that a change waits for its nodes: `?wait=SECONDS`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait(Duration);

impl Wait {
    /// Wait of `seconds`; a short moment if none are stated.
    pub(super) fn of(seconds: Option<u64>) -> Result<Self, ApiError> {
        let seconds = seconds.unwrap_or(DEFAULT_S);
        if seconds > LONGEST_S {
            let title = format!("wait {seconds} is out of range");
            let detail = format!("allowed: 0 to {LONGEST_S} seconds");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "out-of-range", title, detail));
        }
        Ok(Self(Duration::from_secs(seconds)))
    }

    /// Waits until all nodes obey that can, or the time is over. Returns who obeys; `None` if that concerns no node, or the
    /// coordinator stops: the change is made all the same.
    pub(super) async fn wait(
        self,
        app: &App,
        deadline: &Deadline,
        expected: Expected,
        mut events: Receiver<Arc<WatchEvent>>,
    ) -> Option<Obeyed> {
        if expected.is_empty() {
            return None;
        }
        deadline.put_off(self.0);
        let (expected, until) = (Arc::new(expected), Instant::now() + self.0);
        loop {
            let progress = look(app, expected.clone()).await?;
            let next = Instant::now() + PACE;
            if !progress.is_open || Instant::now() >= until {
                return Some(progress.obeyed);
            }
            // What may be over by then is looked at once more.
            let _ = timeout_at(until, node_speaks(&mut events)).await;
            sleep_until(next.min(until)).await;
        }
    }
}

async fn look(app: &App, expected: Arc<Expected>) -> Option<Progress> {
    let ask = move |state: &ControllerState| {
        expected.progress(&state.registry, &state.published, &state.live, now())
    };
    app.controller.view(ask).await.ok()
}

/// Waits until a node reports, comes, goes, or reads that it is removed.
async fn node_speaks(events: &mut Receiver<Arc<WatchEvent>>) {
    loop {
        match events.recv().await {
            Ok(event)
                if ["report", "presence", "connected", "disconnected", "told"].contains(&&*event.what) =>
            {
                return;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_) | RecvError::Closed) => return,
        }
    }
}
