//! Time of the controller: read at the beginning of each operation, when all that has expired by then is handled. So no
//! answer, no record and no row of the database takes a client, a code or a token for valid that another takes for
//! expired.

use super::Controller;
use crate::{
    clock::{self, Seen},
    registry::{Changes, Row},
};
use std::time::Duration;
use tokio::time::Instant;

/// Number of seconds after which the latest time is stored again, though nothing else is.
const STORE_INTERVAL: u64 = 3600;
/// Intervals of attempts to store what has expired, and the time alone, where that failed: the disk is full, say.
const RETRY_EXPIRY: Duration = Duration::from_secs(1);
const RETRY_TIME: Duration = Duration::from_secs(3600);
/// Number of seconds after which the latest time is stored with a change.
const STORE_WITH_CHANGES: u64 = 60;

impl Controller {
    /// Takes the time, and carries out the expiries that are due. Each is in the database before it has any effect.
    pub(super) async fn keep_time(&mut self) {
        self.time = clock::now();
        let is_due = self.next_expiry.is_some_and(|at| at <= self.time);
        let (stored, seen) = self.seen();
        let is_news = seen.behind_since.is_some() != stored.behind_since.is_some()
            || seen.latest < stored.latest
            || seen.latest >= stored.latest.saturating_add(STORE_INTERVAL);
        let may_retry = |after| self.time_unstored.is_none_or(|last: Instant| last.elapsed() >= after);
        let is_wanted = (is_due && may_retry(RETRY_EXPIRY)) || (is_news && may_retry(RETRY_TIME));
        if !is_wanted || !self.store.is_sure() {
            return;
        }
        let mut rows = self.state.registry.expire(self.time);
        let expired = names(&rows);
        rows.push(Row::Seen(seen));
        let stored_now = self.commit(rows).await;
        self.time_unstored = stored_now.is_err().then(Instant::now);
        match stored_now {
            Ok(()) => {
                expired.iter().for_each(|what| tracing::info!("{what} has expired"));
                log_clock(stored, seen);
            }
            Err(error) => tracing::error!("can't store what has expired, or the time: {error}"),
        }
    }

    /// Stores the latest time that was seen, at the end.
    pub(super) async fn store_time(&mut self) {
        let (stored, seen) = self.seen();
        if stored != seen && self.store.is_sure() {
            // The next start knows an earlier time then.
            let _ = self.commit(vec![Row::Seen(seen)]).await;
        }
    }

    /// Row with the latest time that was seen, for a change, unless it was stored a short time ago.
    pub(super) fn seen_row(&self) -> Option<Row> {
        let (stored, seen) = self.seen();
        (seen.latest >= stored.latest.saturating_add(STORE_WITH_CHANGES)).then_some(Row::Seen(seen))
    }

    /// Latest time that was seen, as stored, and with that of now.
    fn seen(&self) -> (Seen, Seen) {
        let stored = self.state.registry.seen();
        (stored, stored.after(clock::shown(), self.time))
    }
}

/// Names of what expires with rows, for the log.
fn names(rows: &Changes) -> Vec<String> {
    let name = |row: &Row| match row {
        Row::Token(_, Some(token)) => Some(format!("token {}", token.name)),
        Row::Code(id, _) => Some(format!("join code {id}")),
        Row::Client(_, Some(client)) => Some(format!("client {}", client.name)),
        _ => None,
    };
    rows.iter().filter_map(name).collect()
}

fn log_clock(before: Seen, seen: Seen) {
    let shown = clock::shown();
    match (before.behind_since, seen.behind_since) {
        (None, Some(_)) => tracing::warn!(
            "this machine's clock shows {}, {} s behind the latest time that was seen ({}): set it, if it is wrong; what has expired stays so",
            clock::date(shown),
            seen.latest.saturating_sub(shown),
            clock::date(seen.latest),
        ),
        (Some(_), None) => {
            tracing::info!("this machine's clock is taken to be right again: {}", clock::date(shown));
        }
        _ => {}
    }
}
