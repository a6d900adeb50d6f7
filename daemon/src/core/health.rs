//! Health of one node, from its WireGuard counters and probe replies, and the time of its next probe.
//!
//! ```text
//!                DEAD probes in a row without a reply
//!   ┌───────┐ ────────────────────────────────────────▶ ┌──────┐
//!   │ Alive │                                           │ Dead │ ◀─────────┐
//!   └───────┘                                           └──────┘           │ DEAD probes in a row
//!       ▲                                                  │ a reply       │ without a reply
//!       │   replies for RECOVERY (or for ALONE when        ▼               │
//!       │   no other candidate is alive)             ┌────────────┐        │
//!       └─────────────────────────────────────────── │ Recovering │ ───────┘
//!                                                    └────────────┘
//! ```
//! A new node counts as alive until the first probes were not answered. Received packets keep an alive node alive; only
//! replies bring a dead one back.

use super::Now;
use std::time::Duration;

/// Shortest wait for a reply, and so the interval of probes to a node in doubt.
const MIN_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest wait for a reply.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
/// Probes in a row without a reply after which a node is dead.
pub(super) const DEAD: usize = 4;
/// Time for which a dead node must answer to count as alive again.
const RECOVERY: Duration = Duration::from_secs(10);
/// Time for which a dead node must answer while no other candidate is alive.
const ALONE: Duration = Duration::from_secs(2);
/// Interval of probes to a node that is new or recovers.
const SOON: Duration = Duration::from_secs(1);
/// Replies after which a node is no longer new.
const NEW: u32 = 4;
/// Bytes of a WireGuard keepalive: what is sent beyond it is traffic.
const KEEPALIVE: u64 = 32;

/// Health of a node, as far as probes in the tunnel tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// True if the node answers; a new node counts as alive until its first probes went unanswered.
    pub alive: bool,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<u32>,
    /// Uplink to the IPv4 Internet, as the node reports it; `None` before its first report.
    pub v4: Option<bool>,
    /// Uplink to the IPv6 Internet, as the node reports it; `None` before its first report.
    pub v6: Option<bool>,
}

/// Answer of a node to a health probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Reply of the daemon: whether the node has a way to the Internet, by family.
    Reply {
        /// IPv4
        v4: bool,
        /// IPv6
        v6: bool,
    },
    /// Refusal of the kernel: no daemon is there to reply, but the tunnel works.
    Refused,
}

/// State of a node's health in its tracker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    Alive,
    #[default]
    Dead,
    /// Answers again since then, but not yet for long enough.
    Recovering(Now),
}

/// Tracker of one node's health, from its WireGuard counters and probe replies.
#[derive(Debug, Clone, Default)]
pub(super) struct HealthTracker {
    state: State,
    rtt_ms: Option<u32>,
    v4: Option<bool>,
    v6: Option<bool>,
    /// Bytes received and sent, as last read.
    counters: Option<(u64, u64)>,
    /// The last [`DEAD`] probes without a reply: id and time.
    waiting: Vec<(u32, Now)>,
    /// Probes since the last sign of life, up to [`DEAD`].
    unanswered: usize,
    /// Replies so far, up to [`NEW`].
    replies: u32,
    /// Time of the last sign of life, or of the node's first appearance.
    pub(super) heard: Now,
    /// Time of the last probe.
    probed: Option<Now>,
    /// A probe is due at once.
    urgent: bool,
}

impl HealthTracker {
    /// Tracker of a new node's health, which counts as alive.
    pub(super) fn new(now: Now) -> Self {
        Self { state: State::Alive, heard: now, ..Self::default() }
    }

    /// Health of the tracked node as of now.
    pub(super) fn health(&self) -> Health {
        Health { alive: self.is_alive(), rtt_ms: self.rtt_ms, v4: self.v4, v6: self.v6 }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.state == State::Alive
    }

    /// Time since which a dead node answers probes again; `None` while it does not, and once it is alive.
    pub(super) fn recovering_since(&self) -> Option<Now> {
        match self.state {
            State::Recovering(since) => Some(since),
            State::Alive | State::Dead => None,
        }
    }

    /// True if the node answered a health probe at least once.
    pub(super) fn is_known(&self) -> bool {
        self.replies > 0
    }

    /// True if the node is alive, and more than one health probe of it was not answered in time.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_alive() && self.unanswered > 1
    }

    pub(super) fn handle_counters(&mut self, (rx, tx): (u64, u64), now: Now) {
        let Some((rx_before, tx_before)) = self.counters.replace((rx, tx)) else { return };
        if rx > rx_before {
            if self.is_alive() {
                self.unanswered = 0;
                self.heard = now;
            }
            // A dead node proves by replies that it works.
            self.urgent |= self.state == State::Dead;
        } else if rx == rx_before && tx > tx_before + KEEPALIVE {
            self.urgent |= self.is_alive() && self.unanswered == 0;
        }
    }

    /// Makes a health probe of the node due at once: what is known may be outdated.
    pub(super) fn doubt(&mut self) {
        self.urgent = true;
    }

    /// Takes in the answer to a health probe; true if that probe waited for one.
    pub(super) fn handle_answer(&mut self, id: u32, answer: Answer, now: Now) -> bool {
        let Some(at) = self.waiting.iter().find(|(sent, _)| *sent == id).map(|(_, at)| *at) else {
            return false;
        };
        self.waiting.retain(|(sent, _)| *sent > id);
        (self.unanswered, self.heard) = (0, now);
        self.replies = (self.replies + 1).min(NEW);
        let rtt = u32::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u32::MAX);
        let smooth = |before: u32| before.saturating_mul(3).saturating_add(rtt) / 4;
        self.rtt_ms = Some(self.rtt_ms.map_or(rtt, smooth));
        if let Answer::Reply { v4, v6 } = answer {
            (self.v4, self.v6) = (Some(v4), Some(v6));
        }
        self.state = match self.state {
            State::Alive => State::Alive,
            State::Dead => State::Recovering(now),
            State::Recovering(since) if now >= since + RECOVERY => State::Alive,
            State::Recovering(since) => State::Recovering(since),
        };
        true
    }

    /// Ends the recovery of the node sooner than usual, where no other candidate is alive.
    pub(super) fn handle_alone(&mut self) {
        if self.recovering_since().is_some_and(|since| self.heard >= since + ALONE) {
            self.state = State::Alive;
        }
    }

    /// Declares the node dead when too many health probes in a row went unanswered.
    pub(super) fn poll_death(&mut self, now: Now) {
        if self.unanswered < DEAD || self.waiting.iter().any(|(_, at)| *at + self.timeout() > now) {
            return;
        }
        self.state = State::Dead;
        (self.rtt_ms, self.v4, self.v6) = (None, None, None);
    }

    /// Time at which the next health probe of the node is due, or the wait for the last answer ends. `interval` is that
    /// between probes of a node whose state does not change.
    pub(super) fn due(&self, is_doubted: bool, interval: Duration) -> Now {
        let Some(probed) = self.probed else { return Now::ZERO };
        let in_doubt = self.is_alive() && self.unanswered > 0 || is_doubted;
        let is_new = self.is_alive() && self.replies < NEW;
        let wait = match () {
            () if in_doubt => self.timeout(),
            () if is_new || self.recovering_since().is_some() => SOON,
            () => interval,
        };
        if self.urgent { probed + MIN_TIMEOUT } else { probed + wait }
    }

    /// Records that a health probe is sent to the node.
    pub(super) fn handle_probe(&mut self, id: u32, now: Now) {
        self.urgent = false;
        self.probed = Some(now);
        if self.waiting.len() == DEAD {
            self.waiting.remove(0);
        }
        self.waiting.push((id, now));
        self.unanswered = (self.unanswered + 1).min(DEAD);
    }

    /// Time to wait for the reply to a health probe, which is twice the usual round trip within limits.
    fn timeout(&self) -> Duration {
        let rtt = Duration::from_millis(self.rtt_ms.unwrap_or_default().into());
        (rtt * 2).clamp(MIN_TIMEOUT, MAX_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const REPLY: Answer = Answer::Reply { v4: true, v6: false };

    /// Sends `DEAD` probes from `now` on that nobody answers.
    fn silence(tracker: &mut HealthTracker, now: Now) {
        (0..DEAD as u32).for_each(|id| tracker.handle_probe(1000 + id, now));
        tracker.poll_death(now + MAX_TIMEOUT);
    }

    fn reply(tracker: &mut HealthTracker, id: u32, now: Now) {
        tracker.handle_probe(id, now);
        assert!(tracker.handle_answer(id, REPLY, now));
    }

    fn dead() -> HealthTracker {
        let mut tracker = HealthTracker::new(S);
        silence(&mut tracker, S);
        tracker
    }

    #[test]
    fn alive_node_without_replies_dies() {
        let mut tracker = HealthTracker::new(S);
        reply(&mut tracker, 1, S);
        silence(&mut tracker, 2 * S);
        assert_eq!((tracker.state, tracker.health()), (State::Dead, Health::default()));
    }

    #[test]
    fn alive_node_stays_alive_while_packets_come_in() {
        let mut tracker = HealthTracker::new(S);
        tracker.handle_counters((0, 0), S);
        (0..DEAD as u32).for_each(|id| tracker.handle_probe(id, S));
        tracker.handle_counters((9, 0), S);
        tracker.poll_death(9 * S);
        assert_eq!(tracker.state, State::Alive);
    }

    #[test]
    fn dead_node_that_replies_recovers() {
        let mut tracker = dead();
        tracker.handle_counters((0, 0), 3 * S);
        tracker.handle_counters((9, 0), 3 * S);
        assert_eq!(tracker.state, State::Dead, "packets alone don't revive it");
        reply(&mut tracker, 1, 5 * S);
        assert_eq!(tracker.recovering_since(), Some(5 * S));
        reply(&mut tracker, 2, 5 * S + RECOVERY - S);
        assert_eq!(tracker.recovering_since(), Some(5 * S));
        reply(&mut tracker, 3, 5 * S + RECOVERY);
        assert_eq!(tracker.state, State::Alive);
    }

    #[test]
    fn recovering_node_without_alternative_is_alive_sooner() {
        let mut tracker = dead();
        reply(&mut tracker, 1, 5 * S);
        tracker.handle_alone();
        assert!(!tracker.is_alive());
        reply(&mut tracker, 2, 5 * S + ALONE);
        tracker.handle_alone();
        assert!(tracker.is_alive());
    }

    #[test]
    fn recovering_node_without_replies_dies() {
        let mut tracker = dead();
        reply(&mut tracker, 1, 5 * S);
        silence(&mut tracker, 6 * S);
        assert_eq!(tracker.state, State::Dead);
    }
}
