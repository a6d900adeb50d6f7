//! Backoff of single steps. A step that fails, or that another program undoes again and again, is tried at once and then
//! ever more rarely. It delays no other step.
//!
//! ```text
//!             due in a plan, never tried
//!  (unknown) ────────────────────────────▶ executed ──┐
//!      ▲                                     │  ▲     │ wait(count): 0, 0, 250 ms, 500 ms, …
//!      │ FORGET after it was last planned    ▼  │     │ up to 30 s (failed) or 1.5 s (undone)
//!      └─────────────────────────────── waiting ◀─────┘
//!                 reset(): the count starts again
//! ```

use super::Now;
use crate::plan::{Plan, StepFailure, StepKey};
use gatewrt_protocol::Failure;
use litemap::LiteMap;
use std::time::Duration;

/// Attempts without a wait between them: what the first one brings to light may need a second.
const IMMEDIATE: u32 = 2;
/// First wait; it doubles with each further attempt.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait after a failure.
const MAX_WAIT_FAILED: Duration = Duration::from_secs(30);
/// Longest wait after a success that another program undid: the state is to be right soon once it stops.
const MAX_WAIT_UNDONE: Duration = Duration::from_millis(1500);
/// Time without being planned after which a step counts as new.
const FORGET: Duration = Duration::from_secs(5);

/// Backoff of a plan's steps, from the recent attempts at each.
#[derive(Debug, Default)]
pub struct Backoff {
    steps: LiteMap<StepKey, Attempts>,
}

/// Recent attempts at one step of a plan.
#[derive(Debug, Default)]
struct Attempts {
    count: u32,
    /// Time before which it is not tried again.
    next: Now,
    /// Last time at which a plan had it.
    planned: Now,
    /// Reason, if the last attempt failed.
    failure: Option<Failure>,
}

impl Backoff {
    /// Steps of a plan that are due now, and the time at which the first of its other steps is.
    pub fn due(&mut self, plan: Plan, now: Now) -> (Plan, Option<Now>) {
        let mut later: Option<Now> = None;
        let mut steps = plan.steps;
        steps.retain(|step| {
            let Some(attempts) = self.steps.get_mut(&StepKey::from(step)) else { return true };
            attempts.planned = now;
            let waits = attempts.next > now;
            if waits && later.is_none_or(|first| attempts.next < first) {
                later = Some(attempts.next);
            }
            !waits
        });
        for (_, attempts) in self.steps.iter_mut().filter(|(_, attempts)| attempts.planned < now) {
            attempts.failure = None;
        }
        self.steps.retain(|_, attempts| now < attempts.planned + FORGET);
        (Plan { steps }, later)
    }

    /// Records that these steps of a plan were executed, and which of them failed.
    pub fn handle_applied(&mut self, steps: Vec<StepKey>, failures: Vec<StepFailure>, now: Now) {
        let mut failures: LiteMap<StepKey, Failure> =
            failures.into_iter().map(|failed| (failed.key, failed.failure)).collect();
        for key in steps {
            let failure = failures.remove(&key);
            self.steps.entry(key).or_default().record(failure, now);
        }
    }

    /// Failures of the last attempts at steps that are still planned.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.steps.values().filter_map(|attempts| attempts.failure.as_ref())
    }

    /// Makes every delayed step of a plan due at once, as if it was new. Failures stay known until the next attempt.
    pub fn reset(&mut self) {
        self.steps.iter_mut().for_each(|(_, attempts)| (attempts.count, attempts.next) = (0, Now::ZERO));
    }
}

impl Attempts {
    fn record(&mut self, failure: Option<Failure>, now: Now) {
        self.count += 1;
        self.planned = now;
        self.next = now + wait(self.count, failure.is_some());
        if let Some(failure) = failure.as_ref().filter(|failure| self.failure.as_ref() != Some(failure)) {
            log::warn!("could not {}: {}", failure.what, failure.why);
        }
        self.failure = failure;
    }
}

fn wait(count: u32, failed: bool) -> Duration {
    let longest = if failed { MAX_WAIT_FAILED } else { MAX_WAIT_UNDONE };
    match count {
        0..=IMMEDIATE => Duration::ZERO,
        n => FIRST_WAIT.saturating_mul(1 << (n - IMMEDIATE - 1).min(10)).min(longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::IfName, plan::Step};

    const S: Duration = Duration::from_secs(1);

    fn plan(mtus: &[u32]) -> Plan {
        let link = IfName::new("gw-home").expect("a name");
        Plan { steps: mtus.iter().map(|mtu| Step::SetMtu(link.clone(), *mtu)).collect() }
    }

    fn keys(plan: &Plan) -> Vec<StepKey> {
        plan.steps.iter().map(StepKey::from).collect()
    }

    fn failures(plan: &Plan) -> Vec<StepFailure> {
        let failure = |step: &Step| Failure { what: step.to_string(), why: "no".to_owned() };
        plan.steps.iter().map(|step| StepFailure { key: step.into(), failure: failure(step) }).collect()
    }

    /// Attempts at a step in `span` when each plan has it again at once.
    fn attempts(fails: bool, span: Duration) -> usize {
        let (mut backoff, mut now, mut count) = (Backoff::default(), Now::ZERO, 0);
        while now < span {
            let (due, later) = backoff.due(plan(&[1]), now);
            if due.is_empty() {
                now = later.expect("a time");
            } else {
                let failed = if fails { failures(&due) } else { Vec::new() };
                backoff.handle_applied(keys(&due), failed, now);
                count += 1;
            }
        }
        count
    }

    fn failing(times: usize) -> Backoff {
        let mut backoff = Backoff::default();
        for _ in 0..times {
            backoff.handle_applied(keys(&plan(&[1])), failures(&plan(&[1])), S);
        }
        backoff
    }

    #[test]
    fn repeated_step_backs_off() {
        assert_eq!(attempts(true, Duration::from_millis(1)), 3);
        assert_eq!(attempts(false, Duration::from_millis(1)), 3);
        assert!((9..15).contains(&attempts(true, 120 * S)));
        assert!((8..12).contains(&attempts(false, 10 * S)));
    }

    #[test]
    fn waiting_step_delays_no_other() {
        let mut backoff = failing(5);
        let (due, later) = backoff.due(plan(&[1, 2]), S);
        assert_eq!(due, plan(&[2]));
        assert!(later.is_some_and(|at| at > S));
        backoff.handle_applied(keys(&due), Vec::new(), S);
        assert_eq!(backoff.failures().count(), 1);
    }

    #[test]
    fn step_no_longer_planned_is_no_failure_and_soon_forgotten() {
        let mut backoff = failing(9);
        assert_eq!(backoff.due(Plan::default(), 2 * S), (Plan::default(), None));
        assert_eq!(backoff.failures().count(), 0);
        assert!(backoff.due(plan(&[1]), 3 * S).0.is_empty());
        assert_eq!(backoff.due(Plan::default(), 3 * S + FORGET), (Plan::default(), None));
        assert_eq!(backoff.due(plan(&[1]), 3 * S + FORGET), (plan(&[1]), None));
    }

    #[test]
    fn waiting_step_is_due_at_once_after_reset() {
        let mut backoff = failing(9);
        backoff.reset();
        assert_eq!(backoff.due(plan(&[1]), S), (plan(&[1]), None));
        assert_eq!(backoff.failures().count(), 1);
    }
}
