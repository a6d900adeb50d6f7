//! Schedule of the reconcile loop: when the kernel is observed next, and how far the current round is.
//!
//! ```text
//!            poll(): next is due            started(steps)
//!   ┌──────┐ ────────────────▶ ┌───────────┐ ────────────▶ ┌──────────┐
//!   │ Idle │                   │ Observing │               │ Applying │
//!   └──────┘ ◀──────────────── └───────────┘               └──────────┘
//!       ▲      handle_observed(): nothing is due                 │
//!       └────────────────────────────────────────────────────────┘
//!                            handle_applied()
//! ```
//! A request in any state only moves the next observation forward: at most one round is on its way.

use super::super::Now;
use crate::plan::StepKey;
use std::time::Duration;

/// Time for which kernel events are collected before one observation.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(100);
/// Observations in a row that followed events and found nothing to do, after which events are collected for longer:
/// other programs are at work.
const IDLE: u32 = 4;
/// Limit on the doublings of the time for which events are collected.
const DOUBLINGS: u32 = 3;

/// Progress of one round of the reconcile loop.
#[derive(Debug, Default, PartialEq, Eq)]
enum Round {
    #[default]
    Idle,
    Observing,
    Applying(Vec<StepKey>),
}

/// Schedule of the reconcile loop.
#[derive(Debug, Default)]
pub(in crate::core) struct Schedule {
    round: Round,
    /// Time of the next observation.
    next: Option<Now>,
    /// Time at which the last observation began.
    began: Now,
    /// End of the pause after an apply, in which changes are collected.
    pause_until: Option<Now>,
    /// Something changed since the last observation.
    changed: bool,
    /// Observations in a row that followed a change and found nothing to do.
    idle: u32,
    settled: bool,
}

impl Schedule {
    /// Time of the next observation of the kernel; `None` while none is scheduled.
    pub(in crate::core) fn next(&self) -> Option<Now> {
        self.next
    }

    /// True if the kernel is as desired, as far as the last observation tells.
    pub(in crate::core) fn is_settled(&self) -> bool {
        self.settled
    }

    /// True while a plan is being executed.
    pub(super) fn is_applying(&self) -> bool {
        matches!(self.round, Round::Applying(_))
    }

    /// Requests an observation of the kernel at `at`, or earlier if one is scheduled earlier.
    pub(in crate::core) fn request_by(&mut self, at: Now) {
        self.next = Some(self.next.map_or(at, |before| before.min(at)));
    }

    /// Requests an observation of the kernel now, or at the end of the pause after an apply: two hundred changes in a
    /// row are not two hundred rounds.
    pub(super) fn request(&mut self, now: Now) {
        self.request_by(self.after_pause(now));
    }

    /// Requests an observation of the kernel after an event of its own. Events that follow each other share one.
    pub(super) fn handle_changed(&mut self, now: Now) {
        self.changed = true;
        let doublings = self.idle.saturating_sub(IDLE).min(DOUBLINGS);
        self.request_by(self.after_pause(now).max(now + DEBOUNCE * (1 << doublings)));
    }

    /// Begins an observation of the kernel if one is due and no round is on its way; true if it did.
    pub(in crate::core) fn poll(&mut self, now: Now) -> bool {
        let is_due = self.round == Round::Idle && self.next.is_some_and(|at| at <= now);
        if is_due {
            (self.round, self.next, self.began) = (Round::Observing, None, now);
        }
        is_due
    }

    /// Ends the observation of the kernel that is under way, whether it succeeded or failed.
    pub(super) fn handle_observed(&mut self) {
        if self.round == Round::Observing {
            self.round = Round::Idle;
        }
    }

    /// Ends an observation of the kernel that failed: the state of the kernel is unknown.
    pub(super) fn handle_failed(&mut self) {
        self.handle_observed();
        self.settled = false;
    }

    /// Records the outcome of the comparison of an observation with the desired state. `is_empty`: the plan has no
    /// steps. `is_known`: nothing was left out of it.
    pub(super) fn handle_planned(&mut self, is_empty: bool, is_known: bool) {
        let idle = is_empty && std::mem::take(&mut self.changed);
        self.idle = if idle { self.idle + 1 } else { 0 };
        self.settled = is_empty && is_known;
    }

    /// Records that these steps of a plan are being executed from now on.
    pub(super) fn handle_started(&mut self, steps: Vec<StepKey>) {
        self.round = Round::Applying(steps);
    }

    /// Ends the execution of a plan; returns its steps. Requests an observation, and begins a pause as long as the
    /// round took: on a slow router with hundreds of peers that is longer than records take to come, and a round for
    /// each would be minutes.
    pub(super) fn handle_applied(&mut self, now: Now) -> Vec<StepKey> {
        match std::mem::take(&mut self.round) {
            Round::Applying(steps) => {
                let took = now.saturating_sub(self.began);
                self.pause_until = Some(now + took.max(DEBOUNCE));
                self.request_by(now + took);
                steps
            }
            other => {
                self.round = other;
                self.request_by(now);
                Vec::new()
            }
        }
    }

    fn after_pause(&self, now: Now) -> Now {
        self.pause_until.map_or(now, |until| now.max(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn observing() -> Schedule {
        let mut schedule = Schedule::default();
        schedule.request(S);
        assert!(schedule.poll(S));
        schedule
    }

    fn applying() -> Schedule {
        let mut schedule = observing();
        schedule.handle_observed();
        schedule.handle_started(vec![StepKey::CutFlows]);
        schedule
    }

    #[test]
    fn idle_schedule_observes_when_due() {
        let mut schedule = Schedule::default();
        assert!(!schedule.poll(S), "nothing was requested");
        schedule.request_by(3 * S);
        schedule.request_by(4 * S);
        assert_eq!(schedule.next(), Some(3 * S));
        assert!(!schedule.poll(2 * S) && schedule.poll(3 * S));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn observing_schedule_starts_no_second_observation() {
        let mut schedule = observing();
        schedule.request(2 * S);
        assert!(!schedule.poll(2 * S));
        schedule.handle_observed();
        assert!(schedule.poll(2 * S));
    }

    #[test]
    fn failed_observation_makes_the_state_unknown() {
        let mut schedule = observing();
        schedule.handle_planned(true, true);
        assert!(schedule.is_settled());
        schedule.handle_failed();
        assert!(!schedule.is_settled());
        assert_eq!(schedule.round, Round::Idle);
    }

    #[test]
    fn applying_schedule_starts_no_observation() {
        let mut schedule = applying();
        schedule.request(2 * S);
        assert!(!schedule.poll(2 * S));
        schedule.handle_observed();
        assert!(schedule.is_applying(), "an observation that nobody asked for ends no apply");
    }

    #[test]
    fn applied_schedule_observes_after_a_pause() {
        let mut schedule = applying();
        assert_eq!(schedule.handle_applied(3 * S), [StepKey::CutFlows]);
        assert_eq!(schedule.next(), Some(5 * S), "the round took two seconds");
        assert!(schedule.poll(5 * S));
    }

    #[test]
    fn apply_outcome_without_an_apply_requests_an_observation() {
        let mut schedule = observing();
        assert_eq!(schedule.handle_applied(2 * S), []);
        assert_eq!((schedule.next(), &schedule.round), (Some(2 * S), &Round::Observing));
    }

    #[test]
    fn events_without_work_are_collected_ever_longer() {
        let mut schedule = Schedule::default();
        let mut waits = Vec::new();
        for round in 1..20 {
            let now = round * 10 * S;
            schedule.handle_changed(now);
            let at = schedule.next().expect("a time");
            waits.push(at - now);
            assert!(schedule.poll(at));
            schedule.handle_observed();
            schedule.handle_planned(true, true);
        }
        assert_eq!(waits[0], DEBOUNCE);
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&(DEBOUNCE * 8)));
    }
}
