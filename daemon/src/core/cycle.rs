//! The round of observe, decide, apply: when the kernel is looked at, and how often what failed is tried again.

use super::{Core, Network, Now, Output, desired, is_enabled};
use crate::{
    kernel::Interest,
    model::{IfName, Observed, SysctlPath},
    plan::Plan,
};
use gatewrt_protocol::{Failure, NetworkName};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How often WireGuard is looked at: it tells no one when a peer is removed.
const LOOK: Duration = Duration::from_millis(1500);
/// How long kernel events are gathered before one look.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// First wait after an apply that did not settle the kernel.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// When the kernel is looked at next, and how far an apply has come.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    pub(super) look_at: Option<Now>,
    pub(super) observing: bool,
    pub(super) applying: bool,
    /// Applies in a row that did not end in an empty plan.
    pub(super) unsettled: u32,
    pub(super) retry_at: Option<Now>,
    pub(super) settled: bool,
}

impl Core {
    /// Kernel objects changed: events that follow each other are gathered before one look.
    pub(super) fn handle_changed(&mut self, now: Now) {
        self.look_by(now + DEBOUNCE);
    }

    /// What shall be may have changed: look at once, and count retries from the start.
    pub(super) fn want_anew(&mut self, now: Now) {
        self.rhythm.unsettled = 0;
        self.rhythm.retry_at = None;
        self.look_by(now);
    }

    pub(super) fn look_by(&mut self, at: Now) {
        self.rhythm.look_at = Some(self.rhythm.look_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn handle_observed(&mut self, observed: Observed, now: Now) {
        self.rhythm.observing = false;
        self.observe_failure = None;
        self.look_by(now + LOOK);
        let before = std::mem::replace(&mut self.observed, observed);
        if self.has_observed {
            self.handle_wan(&before, now);
        }
        self.has_observed = true;
        self.feed_paths(now);
        self.decide(now);
        self.refresh_reports();
    }

    fn decide(&mut self, now: Now) {
        let wanted = desired::desired(&self.config, &self.wanted(), &self.gone_links(), &self.observed);
        self.view_failures = wanted.failures;
        self.desired = wanted.desired;
        let interest = self.interest_of(wanted.reads);
        if interest != self.interest {
            self.interest = interest;
            self.look_by(now);
            return;
        }
        let plan = Plan::new(&self.observed, &self.desired);
        self.rhythm.settled = plan.steps.is_empty();
        if plan.steps.is_empty() {
            self.handle_settled(now);
            return;
        }
        match self.rhythm.retry_at.filter(|at| *at > now) {
            Some(later) => self.look_by(later),
            None if self.rhythm.applying => {}
            None => {
                self.rhythm.applying = true;
                self.outputs.push(Output::Apply(plan));
            }
        }
    }

    /// The networks that shall be in the kernel.
    pub(super) fn wanted(&self) -> BTreeMap<&NetworkName, &Network> {
        let all = self.networks.iter().filter(|_| self.stopping != Some(true));
        all.filter(|(name, network)| network.is_wanted() && is_enabled(&self.config, name)).collect()
    }

    /// The interfaces that shall not. One whose records are merely not known is left as it runs.
    fn gone_links(&self) -> BTreeSet<IfName> {
        let wanted = self.wanted();
        self.networks.keys().filter(|name| !wanted.contains_key(name)).map(IfName::from).collect()
    }

    fn interest_of(&self, mut sysctls: BTreeSet<SysctlPath>) -> Interest {
        sysctls.extend(self.desired.sysctls.keys().cloned());
        sysctls.extend(self.observed.saved_sysctls.keys().cloned());
        Interest { sysctls, tunnels: self.networks.keys().map(IfName::from).collect() }
    }

    /// The kernel is as it shall be.
    fn handle_settled(&mut self, now: Now) {
        self.rhythm.unsettled = 0;
        self.rhythm.retry_at = None;
        self.apply_failures.clear();
        for network in self.networks.values_mut() {
            network.note_applied();
        }
        let left: Vec<_> = self.networks.iter().filter(|(_, network)| network.leaving).collect();
        let left: Vec<NetworkName> = left.into_iter().map(|(name, _)| name.clone()).collect();
        for name in left {
            self.networks.remove(&name);
            self.outputs.push(Output::Forget(name));
            self.look_by(now);
        }
        if self.stopping == Some(true) {
            self.outputs.push(Output::Stopped);
        }
    }

    pub(super) fn handle_applied(&mut self, failures: Vec<Failure>, now: Now) {
        self.rhythm.applying = false;
        self.rhythm.unsettled += 1;
        if failures != self.apply_failures {
            failures.iter().for_each(|failure| log::warn!("could not {}: {}", failure.what, failure.why));
        }
        // One apply may need a second round, for what a first step brought to light; then ever slower.
        let wait = match self.rhythm.unsettled {
            1 | 2 => Duration::ZERO,
            n => FIRST_RETRY.saturating_mul(1 << (n - 3).min(10)).min(LONGEST_RETRY),
        };
        self.rhythm.retry_at = Some(now + wait);
        self.apply_failures = failures;
        self.look_by(now);
    }

    pub(super) fn handle_observe_failed(&mut self, why: String, now: Now) {
        self.rhythm.observing = false;
        self.rhythm.settled = false;
        let failure = Failure { what: "read the kernel's network state".to_owned(), why };
        if self.observe_failure.as_ref() != Some(&failure) {
            log::warn!("could not {}: {}", failure.what, failure.why);
        }
        self.observe_failure = Some(failure);
        self.look_by(now + 2 * LOOK);
        if self.stopping == Some(true) {
            self.outputs.push(Output::Stopped);
        }
    }
}
