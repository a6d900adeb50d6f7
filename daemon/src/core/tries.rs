//! How often one step is tried: at once, then ever more rarely, whether it fails or someone undoes it again and
//! again. It holds up no other step.

use super::Now;
use crate::{log, plan::Plan, sorted::SortedMap};
use gatewrt_protocol::Failure;
use std::time::Duration;

/// So many tries of a step follow each other at once: what a first one brings to light may need a second.
const AT_ONCE: u32 = 2;
/// The wait after those, doubled with each more.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait before what fails is tried again.
const FAILED: Duration = Duration::from_secs(30);
/// The longest wait before what someone undid is done again: it is to be back soon once they stop.
const UNDONE: Duration = Duration::from_millis(1500);
/// Not wanted for so long, a step counts as new.
const FORGET: Duration = Duration::from_secs(5);

/// The steps tried of late, by their text: what differs only in parts that no text shows counts as one.
#[derive(Debug, Default)]
pub struct Tries {
    steps: SortedMap<String, Try>,
}

#[derive(Debug, Default)]
struct Try {
    count: u32,
    next: Now,
    wanted: Now,
    failure: Option<Failure>,
}

impl Tries {
    /// What of a plan is to be done now, and when the first of the rest is.
    pub fn due(&mut self, plan: Plan, now: Now) -> (Plan, Option<Now>) {
        let mut later: Option<Now> = None;
        let mut steps = plan.steps;
        steps.retain(|step| {
            let Some(tried) = self.steps.get_mut(&step.to_string()) else { return true };
            tried.wanted = now;
            let waits = tried.next > now;
            if waits && later.is_none_or(|first| tried.next < first) {
                later = Some(tried.next);
            }
            !waits
        });
        for tried in self.steps.values_mut().filter(|tried| tried.wanted < now) {
            tried.failure = None;
        }
        self.steps.retain(|_, tried| now < tried.wanted + FORGET);
        (Plan { steps }, later)
    }

    /// The steps with these texts were carried out; what failed of them.
    pub fn handle_applied(&mut self, steps: Vec<String>, failures: Vec<Failure>, now: Now) {
        let mut failures: SortedMap<String, Failure> =
            failures.into_iter().map(|failure| (failure.what.clone(), failure)).collect();
        for text in steps {
            let failure = failures.remove(&text);
            let tried = self.steps.entry(text).or_default();
            tried.count += 1;
            tried.wanted = now;
            tried.next = now + wait(tried.count, failure.is_some());
            if let Some(failure) = failure.as_ref().filter(|failure| tried.failure.as_ref() != Some(failure))
            {
                log::warn!("could not {}: {}", failure.what, failure.why);
            }
            tried.failure = failure;
        }
    }

    /// What is wanted and did not work when it was tried last.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.steps.values().filter_map(|tried| tried.failure.as_ref())
    }

    /// Every step counts as new.
    pub fn forget(&mut self) {
        self.steps.values_mut().for_each(|tried| (tried.count, tried.next) = (0, Now::ZERO));
    }
}

fn wait(count: u32, failed: bool) -> Duration {
    let longest = if failed { FAILED } else { UNDONE };
    match count {
        0..=AT_ONCE => Duration::ZERO,
        n => FIRST_WAIT.saturating_mul(1 << (n - AT_ONCE - 1).min(10)).min(longest),
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

    fn texts(plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(Step::to_string).collect()
    }

    fn failure(plan: &Plan) -> Vec<Failure> {
        plan.steps.iter().map(|step| Failure { what: step.to_string(), why: "no".to_owned() }).collect()
    }

    /// How often a step is tried in `span` when it is wanted again at once.
    fn tried(fails: bool, span: Duration) -> usize {
        let (mut tries, mut now, mut count) = (Tries::default(), Now::ZERO, 0);
        while now < span {
            let (due, later) = tries.due(plan(&[1]), now);
            if due.is_empty() {
                now = later.expect("a time");
            } else {
                let failures = if fails { failure(&due) } else { Vec::new() };
                tries.handle_applied(texts(&due), failures, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_step_is_tried_ever_more_rarely() {
        assert_eq!(tried(true, Duration::from_millis(1)), 3);
        assert_eq!(tried(false, Duration::from_millis(1)), 3);
        assert!((9..15).contains(&tried(true, 120 * S)));
        assert!((8..12).contains(&tried(false, 10 * S)));
    }

    #[test]
    fn it_holds_up_no_other() {
        let mut tries = Tries::default();
        for _ in 0..5 {
            tries.handle_applied(texts(&plan(&[1])), failure(&plan(&[1])), S);
        }
        let (due, later) = tries.due(plan(&[1, 2]), S);
        assert_eq!(due, plan(&[2]));
        assert!(later.is_some_and(|at| at > S));
        tries.handle_applied(texts(&due), Vec::new(), S);
        assert_eq!(tries.failures().count(), 1);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_no_failure_and_soon_forgotten() {
        let mut tries = Tries::default();
        for _ in 0..9 {
            tries.handle_applied(texts(&plan(&[1])), failure(&plan(&[1])), S);
        }
        assert_eq!(tries.due(Plan::default(), 2 * S), (Plan::default(), None));
        assert_eq!(tries.failures().count(), 0);
        assert!(tries.due(plan(&[1]), 3 * S).0.is_empty());
        assert_eq!(tries.due(Plan::default(), 3 * S + FORGET), (Plan::default(), None));
        assert_eq!(tries.due(plan(&[1]), 3 * S + FORGET), (plan(&[1]), None));
    }

    #[test]
    fn when_all_is_wanted_anew_nothing_waits() {
        let mut tries = Tries::default();
        for _ in 0..9 {
            tries.handle_applied(texts(&plan(&[1])), failure(&plan(&[1])), S);
        }
        tries.forget();
        assert_eq!(tries.due(plan(&[1]), S), (plan(&[1]), None));
        assert_eq!(tries.failures().count(), 1);
    }
}
