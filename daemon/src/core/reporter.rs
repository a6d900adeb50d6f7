//! Reports of one network: when one is due, and whether it would say anything new. Their content is
//! [`report`](super::report)'s matter.

use super::{Now, rate_limit::TokenBucket};
use gatewrt_protocol::WgPublicKey;
use sorted_vec::SortedSet;
use std::time::Duration;

/// Shortest time between two reports.
const MIN_GAP: Duration = Duration::from_secs(2);
/// Bytes of a report per heartbeat when nothing changes: 1.1 MB a day at the usual heartbeat.
const BYTES_PER_HEARTBEAT: u32 = 750;
/// Reports that are sent at once because a client came or went, before the rate limit holds.
const CLIENT_BURST: u32 = 8;
/// Time after which one more report is sent because a client came or went. It tells what happened meanwhile.
const CLIENT_REFILL: Duration = Duration::from_secs(60);

/// Schedule of one network's reports.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    last: Option<Sent>,
    /// Clients in the last report.
    present: SortedSet<WgPublicKey>,
    client_reports: TokenBucket,
    /// Bytes of the last report.
    bytes: u32,
    /// Something that was reported may have changed.
    stale: bool,
    seq: u64,
}

/// Report that was sent last: its facts and the time.
#[derive(Debug, Clone)]
struct Sent {
    /// Facts of the report, as text.
    facts: String,
    at: Now,
}

impl Default for Reporter {
    fn default() -> Self {
        Self {
            last: None,
            present: SortedSet::new(),
            client_reports: TokenBucket::new(CLIENT_BURST, CLIENT_REFILL),
            bytes: 0,
            stale: true,
            seq: 0,
        }
    }
}

impl Reporter {
    /// Makes a network's report due as soon as the network is connected, whatever was sent before.
    pub(super) fn request(&mut self) {
        self.last = None;
    }

    /// Makes a network's report due soon, if it would say anything new.
    pub(super) fn refresh(&mut self) {
        self.stale = true;
    }

    /// Time at which a network's report is due on a connection that is up since `connected`: at once after connecting,
    /// soon when something may have changed, else at the next heartbeat.
    pub(super) fn due(&self, connected: Now, heartbeat: Duration) -> Now {
        let interval = self.interval(heartbeat);
        let wait = if self.stale { MIN_GAP.min(interval) } else { interval };
        self.last.as_ref().map_or(connected, |sent| sent.at + wait)
    }

    /// Takes up a network's report that is due at `due`; true if it is to be sent: it is a heartbeat, or has new facts,
    /// or clients came or went and the rate limit for that allows it.
    pub(super) fn poll(
        &mut self,
        due: Now,
        heartbeat: Duration,
        facts: &str,
        present: &SortedSet<WgPublicKey>,
        now: Now,
    ) -> bool {
        self.stale = false;
        let interval = self.interval(heartbeat);
        let is_heartbeat = self.last.as_ref().is_none_or(|sent| sent.at + interval <= due);
        let is_news = self.last.as_ref().is_none_or(|sent| sent.facts != facts);
        is_heartbeat || is_news || (*present != self.present && self.client_reports.take(now).is_ok())
    }

    /// Records that a report is sent; returns its sequence number.
    pub(super) fn handle_sent(&mut self, facts: String, present: SortedSet<WgPublicKey>, now: Now) -> u64 {
        self.present = present;
        self.seq += 1;
        self.last = Some(Sent { facts, at: now });
        self.seq
    }

    /// Records the length of the last report, in bytes.
    pub(super) fn set_bytes(&mut self, bytes: u32) {
        self.bytes = bytes;
    }

    /// Time between two reports without news: the heartbeat, and longer after a long report.
    fn interval(&self, heartbeat: Duration) -> Duration {
        heartbeat.max(heartbeat * self.bytes / BYTES_PER_HEARTBEAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const HEARTBEAT: Duration = Duration::from_secs(60);

    fn client(number: u8) -> SortedSet<WgPublicKey> {
        [WgPublicKey([number; 32])].into_iter().collect()
    }

    /// A reporter that has reported these facts at 10 s.
    fn reporter(facts: &str) -> Reporter {
        let mut reporter = Reporter::default();
        assert!(reporter.poll(10 * S, HEARTBEAT, facts, &SortedSet::new(), 10 * S));
        assert_eq!(reporter.handle_sent(facts.to_owned(), SortedSet::new(), 10 * S), 1);
        reporter
    }

    #[test]
    fn new_connection_reports_at_once() {
        let mut reporter = reporter("a");
        assert_eq!(Reporter::default().due(3 * S, HEARTBEAT), 3 * S);
        reporter.request();
        assert_eq!(reporter.due(11 * S, HEARTBEAT), 11 * S);
        assert!(reporter.poll(11 * S, HEARTBEAT, "a", &SortedSet::new(), 11 * S));
    }

    #[test]
    fn stale_report_is_due_soon_and_sent_only_with_news() {
        let mut reporter = reporter("a");
        assert_eq!(reporter.due(S, HEARTBEAT), 10 * S + HEARTBEAT);
        reporter.refresh();
        let due = reporter.due(S, HEARTBEAT);
        assert_eq!(due, 10 * S + MIN_GAP);
        assert!(!reporter.poll(due, HEARTBEAT, "a", &SortedSet::new(), due));
        assert_eq!(reporter.due(S, HEARTBEAT), 10 * S + HEARTBEAT, "no longer stale");
        assert!(reporter.poll(due, HEARTBEAT, "b", &SortedSet::new(), due));
    }

    #[test]
    fn heartbeat_is_sent_without_news_and_later_after_a_long_report() {
        let mut reporter = reporter("a");
        let due = reporter.due(S, HEARTBEAT);
        assert!(reporter.poll(due, HEARTBEAT, "a", &SortedSet::new(), due));
        reporter.set_bytes(2 * BYTES_PER_HEARTBEAT);
        assert_eq!(reporter.due(S, HEARTBEAT), 10 * S + 2 * HEARTBEAT);
    }

    #[test]
    fn clients_that_come_and_go_are_rate_limited() {
        let mut reporter = reporter("a");
        let now = 11 * S;
        let mut sent = 0;
        for number in 0..100 {
            if reporter.poll(now, HEARTBEAT, "a", &client(number), now) {
                reporter.handle_sent("a".to_owned(), client(number), now);
                sent += 1;
            }
        }
        assert_eq!(sent, CLIENT_BURST);
    }
}
