//! The round of observe, decide, apply: when the kernel is looked at, and what is done then.

use super::{Core, Network, Now, Output, Unreadable, clashes, desired, is_enabled, place, tries::Tries};
use crate::{
    gather::Gather,
    kernel::Interest,
    log,
    model::{IfName, Observed, Rule, SysctlPath},
    plan::{Guardfile, Plan, Step},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Failure, NetworkName};
use std::time::Duration;

/// How often WireGuard is looked at: it tells no one when a peer is removed.
const LOOK: Duration = Duration::from_millis(1500);
/// The same while it matters soon whether a peer answers.
const COUNT: Duration = Duration::from_secs(1);
/// How long kernel events are gathered before one look.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// After so many looks in a row that events led to and that found nothing to do, others are at work: events are
/// gathered for longer,
const IDLE: u32 = 4;
/// doubled so often.
const DOUBLINGS: u32 = 3;

/// When the kernel is looked at next, and how far an apply has come.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    pub(super) look_at: Option<Now>,
    pub(super) observing: bool,
    /// When the kernel began to be looked at last.
    pub(super) looked: Now,
    /// The texts of the steps that are being carried out.
    pub(super) applying: Option<Vec<String>>,
    pub(super) tries: Tries,
    pub(super) settled: bool,
    /// Until when changes of what shall be are gathered.
    gathering: Option<Now>,
    /// Whether something changed since the last look.
    changed: bool,
    /// Looks in a row that a change led to and that found nothing to do.
    idle: u32,
    /// What was last said to keep closed scopes in at the next boot.
    guard: Option<Option<Guardfile>>,
}

impl Rhythm {
    /// The kernel was looked at: whether there is nothing to do, and whether that is because all is as it shall be.
    fn note_look(&mut self, nothing: bool, known: bool) {
        let idle = nothing && std::mem::take(&mut self.changed);
        self.idle = if idle { self.idle + 1 } else { 0 };
        self.settled = nothing && known;
    }
}

impl Core {
    /// Kernel objects changed: events that follow each other are gathered before one look.
    pub(super) fn handle_changed(&mut self, now: Now) {
        self.rhythm.changed = true;
        let doublings = self.rhythm.idle.saturating_sub(IDLE).min(DOUBLINGS);
        self.look_by(self.gathered(now).max(now + DEBOUNCE * (1 << doublings)));
    }

    /// What shall be may have changed: look at once, and try everything as if for the first time. What comes right after
    /// an apply is gathered, so that two hundred changes in a row are not two hundred rounds.
    pub(super) fn want_anew(&mut self, now: Now) {
        self.rhythm.tries.forget();
        self.look_by(self.gathered(now));
    }

    fn gathered(&self, now: Now) -> Now {
        self.rhythm.gathering.map_or(now, |until| now.max(until))
    }

    pub(super) fn look_by(&mut self, at: Now) {
        self.rhythm.look_at = Some(self.rhythm.look_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn handle_observed(&mut self, observed: Observed, now: Now) {
        self.rhythm.observing = false;
        self.observe_failure = None;
        let before = std::mem::replace(&mut self.observed, observed);
        self.observed.lans_before = place::lan_links(&before);
        let uplinks = place::wan_links(&self.observed);
        self.observed.uplinks = if uplinks.is_empty() { before.uplinks.clone() } else { uplinks };
        if self.has_observed {
            self.handle_wan(&before, now);
        }
        self.has_observed = true;
        self.feed_paths(now);
        self.feed_lans();
        self.feed_gateways(now);
        self.look_by(now + if self.has_gateways() { COUNT } else { LOOK });
        self.decide(now);
        self.refresh_reports();
    }

    fn feed_lans(&mut self) {
        let lans = place::lan_links(&self.observed);
        self.networks.values_mut().for_each(|network| network.lans = lans.clone());
    }

    fn decide(&mut self, now: Now) {
        let held = self.held();
        let is_known = |name: &NetworkName| !held.contains(&IfName::from(name));
        let known = self.wanted().into_iter().filter(|(name, _)| is_known(name)).collect();
        let mut wanted =
            desired::desired(&self.config, &known, self.gone_links(), &self.observed, &self.desired);
        if !held.is_empty() {
            desired::keep(&mut wanted.desired, &self.observed);
        }
        self.view_failures = wanted.failures;
        self.desired = wanted.desired;
        let interest = self.interest_of(wanted.reads);
        if interest != self.interest {
            self.interest = interest;
            self.look_by(now);
            return;
        }
        self.guard_next_boot();
        let plan = Plan::new(&self.observed, &self.desired);
        let settled = plan.is_empty();
        self.rhythm.note_look(settled, held.is_empty());
        let (due, later) = self.rhythm.tries.due(plan, now);
        if due.is_empty() && self.rhythm.applying.is_none() {
            self.handle_in_effect(now);
        }
        if settled {
            self.handle_settled(now);
        } else if !due.is_empty() && self.rhythm.applying.is_none() {
            self.rhythm.applying = Some(due.steps.iter().map(Step::to_string).gather());
            self.outputs.push(Output::Apply(due));
        } else if let Some(later) = later {
            self.look_by(later);
        }
    }

    /// Before anything of it is in force, and not while too little is known or all is taken down: then what was last
    /// known stays.
    fn guard_next_boot(&mut self) {
        let is_vague = self.wanted().values().any(|network| !network.directory.is_whole());
        let unreadable = self.unreadable.values().any(|network| !self.is_to_go(network));
        if is_vague || unreadable || self.stopping.is_some() {
            return;
        }
        let guard = Guardfile::new(&self.desired, &self.config.numbers);
        if self.rhythm.guard.as_ref() != Some(&guard) {
            self.rhythm.guard = Some(guard.clone());
            self.outputs.push(Output::Guard(guard));
        }
    }

    /// The networks that shall be in the kernel.
    pub(super) fn wanted(&self) -> SortedMap<&NetworkName, &Network> {
        let all = self.networks.iter().filter(|_| self.stopping != Some(true));
        all.filter(|(name, network)| network.is_wanted() && is_enabled(&self.config, name)).collect()
    }

    /// The interfaces that run, or whose scopes are kept in, and of which too little is known: they are left as they run.
    fn held(&self) -> SortedSet<IfName> {
        let mut all = SortedSet::new();
        for (name, _) in self.wanted().iter().filter(|(_, network)| !network.directory.is_whole()) {
            all.insert(IfName::from(*name));
        }
        for (name, _) in self.unreadable.iter().filter(|(_, network)| !self.is_to_go(network)) {
            all.insert(IfName::from(name));
        }
        let is_scopes = |rule: &Rule| rule.table >= self.config.numbers.exit_table;
        let guarded = self.observed.rules.iter().any(is_scopes);
        all.retain(|link| guarded || self.observed.links.contains_key(link));
        all
    }

    fn is_to_go(&self, network: &Unreadable) -> bool {
        network.leaving || self.stopping == Some(true)
    }

    /// The interfaces that shall not be.
    fn gone_links(&self) -> SortedSet<IfName> {
        let wanted = self.wanted();
        let mut all = SortedSet::new();
        for name in self.networks.keys().filter(|name| !wanted.contains_key(name)) {
            all.insert(IfName::from(name));
        }
        for (name, _) in self.unreadable.iter().filter(|(_, network)| self.is_to_go(network)) {
            all.insert(IfName::from(name));
        }
        all
    }

    fn interest_of(&self, mut sysctls: SortedSet<SysctlPath>) -> Interest {
        sysctls.extend(self.desired.sysctls.keys().cloned());
        sysctls.extend(self.observed.saved_sysctls.keys().cloned());
        let mut tunnels: SortedSet<IfName> = self.networks.keys().map(IfName::from).collect();
        tunnels.extend(self.observed.links.keys().filter(|link| desired::is_beside(link)).cloned());
        let scopes = !self.desired.exits.scopes.is_empty();
        let tables = scopes.then(|| clashes::tables(&self.config.numbers, &self.observed));
        Interest { sysctls, tunnels, tables: tables.unwrap_or_default() }
    }

    /// The kernel is as it shall be.
    fn handle_settled(&mut self, now: Now) {
        for network in self.networks.values_mut().filter(|network| network.directory.is_whole()) {
            network.note_applied();
        }
        let mut left: Vec<NetworkName> = Vec::new();
        for (name, _) in self.networks.iter().filter(|(_, network)| network.leaving) {
            left.push(name.clone());
        }
        for (name, _) in self.unreadable.iter().filter(|(_, network)| network.leaving) {
            left.push(name.clone());
        }
        for name in left {
            self.networks.remove(&name);
            self.unreadable.remove(&name);
            self.outputs.push(Output::Forget(name));
            self.look_by(now);
        }
        if self.stopping == Some(true) {
            self.outputs.push(Output::Stopped);
        }
    }

    pub(super) fn handle_applied(&mut self, failures: Vec<Failure>, now: Now) {
        if let Some(steps) = self.rhythm.applying.take() {
            self.rhythm.tries.handle_applied(steps, failures, now);
            // For as long as the round took: on a slow router with hundreds of peers that is longer than records take to
            // come, and a round for each would be minutes.
            let took = now.saturating_sub(self.rhythm.looked);
            self.rhythm.gathering = Some(now + took.max(DEBOUNCE));
            self.look_by(now + took);
            return;
        }
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
