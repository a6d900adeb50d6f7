//! One node's pulse: what its counters and the answers to probes say, and when it is to be probed next.

use super::{Answer, Health, Now};
use std::time::Duration;

/// The shortest wait for an answer, and so the pace of probes to a node in doubt.
const PATIENCE: Duration = Duration::from_millis(300);
/// The longest.
const MOST_PATIENCE: Duration = Duration::from_secs(1);
/// So many probes in a row without an answer, and the node counts as dead.
pub(super) const DEAD: usize = 4;
/// One that was dead is taken again after it answered for so long,
const RECOVERY: Duration = Duration::from_secs(10);
/// or for so long when nobody else works.
const ALONE: Duration = Duration::from_secs(2);
/// Between probes to one that is new or recovers.
const SOON: Duration = Duration::from_secs(1);
/// So many answers, and a node is new no more.
const NEW: u32 = 4;
/// A keepalive of WireGuard: what leaves beyond it is traffic.
const KEEPALIVE: u64 = 32;

#[derive(Debug, Clone, Default)]
pub(super) struct Pulse {
    pub(super) health: Health,
    /// Bytes received and sent, as last seen.
    counters: Option<(u64, u64)>,
    /// Probes without an answer, the last [`DEAD`].
    waiting: Vec<(u32, Now)>,
    /// How many were sent since the last sign of life, up to [`DEAD`].
    silence: usize,
    /// Answers so far, up to [`NEW`].
    answers: u32,
    /// The last sign of life, or when it was first asked for one.
    pub(super) heard: Now,
    /// Since when one that was dead answers.
    pub(super) recovers: Option<Now>,
    /// When it was probed last.
    probed: Option<Now>,
    /// To be probed now, whatever else.
    urgent: bool,
}

impl Pulse {
    pub(super) fn new(now: Now) -> Self {
        Self { health: Health { alive: true, ..Health::default() }, heard: now, ..Self::default() }
    }

    /// It answered ever.
    pub(super) fn is_known(&self) -> bool {
        self.answers > 0
    }

    /// More than one probe was not answered in time.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.health.alive && self.silence > 1
    }

    pub(super) fn handle_counters(&mut self, (rx, tx): (u64, u64), now: Now) {
        let Some((rx_before, tx_before)) = self.counters.replace((rx, tx)) else { return };
        if rx > rx_before {
            if self.health.alive {
                self.silence = 0;
                self.heard = now;
            }
            // What is dead proves by answers that it is not.
            self.urgent |= !self.health.alive && self.recovers.is_none();
        } else if rx == rx_before && tx > tx_before + KEEPALIVE {
            self.urgent |= self.health.alive && self.silence == 0;
        }
    }

    /// Probe at once: what was known may be so no more.
    pub(super) fn doubt(&mut self) {
        self.urgent = true;
    }

    /// An answer to a probe; whether it is to one that waits for it.
    pub(super) fn handle_answer(&mut self, id: u32, answer: Answer, now: Now) -> bool {
        let Some(at) = self.waiting.iter().find(|(sent, _)| *sent == id).map(|(_, at)| *at) else {
            return false;
        };
        self.waiting.retain(|(sent, _)| *sent > id);
        (self.silence, self.heard) = (0, now);
        self.answers = (self.answers + 1).min(NEW);
        let rtt = u32::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u32::MAX);
        let smooth = |before: u32| before.saturating_mul(3).saturating_add(rtt) / 4;
        self.health.rtt_ms = Some(self.health.rtt_ms.map_or(rtt, smooth));
        if let Answer::Says { v4, v6 } = answer {
            (self.health.v4, self.health.v6) = (Some(v4), Some(v6));
        }
        if !self.health.alive {
            let since = *self.recovers.get_or_insert(now);
            self.revive_if(now >= since + RECOVERY);
        }
        true
    }

    /// Nobody else works: it need not prove itself for as long.
    pub(super) fn handle_alone(&mut self) {
        self.revive_if(self.recovers.is_some_and(|since| self.heard >= since + ALONE));
    }

    fn revive_if(&mut self, is_well: bool) {
        if is_well {
            self.health.alive = true;
            self.recovers = None;
        }
    }

    /// Too many probes in a row went unanswered.
    pub(super) fn poll_death(&mut self, now: Now) {
        if self.silence < DEAD || self.waiting.iter().any(|(_, at)| *at + self.patience() > now) {
            return;
        }
        self.recovers = None;
        self.health = Health::default();
    }

    /// When the next probe is due, or the wait for the last answer over; `rest` is the time between probes of one that
    /// is as it was.
    pub(super) fn due(&self, is_doubted: bool, rest: Duration) -> Now {
        let Some(probed) = self.probed else { return Now::ZERO };
        let in_doubt = self.health.alive && self.silence > 0 || is_doubted;
        let is_new = self.health.alive && self.answers < NEW;
        let wait = match () {
            () if in_doubt => self.patience(),
            () if is_new || self.recovers.is_some() => SOON,
            () => rest,
        };
        if self.urgent { probed + PATIENCE } else { probed + wait }
    }

    pub(super) fn handle_probe(&mut self, id: u32, now: Now) {
        self.urgent = false;
        self.probed = Some(now);
        if self.waiting.len() == DEAD {
            self.waiting.remove(0);
        }
        self.waiting.push((id, now));
        self.silence = (self.silence + 1).min(DEAD);
    }

    fn patience(&self) -> Duration {
        let rtt = Duration::from_millis(self.health.rtt_ms.unwrap_or_default().into());
        (rtt * 2).clamp(PATIENCE, MOST_PATIENCE)
    }
}
