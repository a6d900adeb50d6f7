//! Reconcile loop: observe the kernel, decide what is desired, plan, apply, and again until nothing is left to do.

mod schedule;

pub(super) use schedule::Schedule;

use super::{Core, Network, Now, Output, Unreadable, desired, is_enabled, rule_conflicts, uplinks};
use crate::{
    model::{IfName, ObserveQuery, Observed, Rule, SysctlPath},
    ownership::INTERFACE_PREFIX,
    plan::{BootLockdown, Plan, StepFailure, StepKey},
};
use gatewrt_protocol::{Failure, NetworkName};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::time::Duration;

/// Interval of observations: WireGuard sends no event when a peer is removed.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(1500);
/// Interval while health checks are under way, which read the peers' counters.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

impl Core {
    /// Requests a round of the reconcile loop, since kernel objects changed.
    pub(super) fn handle_changed(&mut self, now: Now) {
        self.schedule.handle_changed(now);
    }

    /// Requests a round of the reconcile loop in which every step is due: the desired state may have changed.
    pub(super) fn request_reconcile(&mut self, now: Now) {
        self.backoff.reset();
        self.schedule.request(now);
    }

    pub(super) fn handle_observed(&mut self, observed: Observed, now: Now) {
        self.schedule.handle_observed();
        self.observe_failure = None;
        let before = std::mem::replace(&mut self.observed, observed);
        // Without the tables of others, an uplink may look like a LAN.
        let tables = rule_conflicts::tables(&self.config.numbers, &before);
        let is_whole = tables.iter().all(|table| before.foreign_routes.contains_key(table));
        self.observed.lans_before = match (self.has_observed, is_whole) {
            (false, _) => desired::ruled_links(&self.observed.rules, &self.config.numbers).cloned().collect(),
            (true, true) => uplinks::lan_links(&before),
            (true, false) => before.lans_before.clone(),
        };
        self.observed.prefixes_before = uplinks::link_prefixes(&before);
        self.observed.uplinks = uplinks::outer_links(&before);
        if self.has_observed {
            self.handle_wan(&before, now);
        }
        self.has_observed = true;
        self.feed_paths(now);
        self.feed_lans();
        self.feed_gateways(now);
        self.schedule.request_by(now + if self.has_gateways() { HEALTH_INTERVAL } else { OBSERVE_INTERVAL });
        self.decide(now);
        self.refresh_reports();
    }

    fn feed_lans(&mut self) {
        let lans = uplinks::lan_links(&self.observed);
        self.networks.iter_mut().for_each(|(_, network)| network.lans = lans.clone());
    }

    fn decide(&mut self, now: Now) {
        let held = self.held();
        let is_known = |name: &NetworkName| !held.contains(&IfName::from(name));
        let known = self.active_networks().into_iter().filter(|(name, _)| is_known(name)).collect();
        let mut decision =
            desired::decide(&self.config, &known, self.gone_links(), &self.observed, &self.desired);
        if !held.is_empty() {
            desired::keep(&mut decision.desired, &self.observed);
        }
        desired::leave_out_v6(&mut decision.desired, &self.observed);
        self.config_failures = decision.failures;
        self.desired = decision.desired;
        let query = self.query(decision.reads);
        if query != self.query {
            // Something that the decision needs was not observed yet.
            self.query = query;
            self.schedule.request_by(now);
            return;
        }
        self.update_boot_lockdown(now);
        let plan = Plan::new(&self.observed, &self.desired);
        let is_empty = plan.is_empty();
        self.schedule.handle_planned(is_empty, held.is_empty());
        let (due, later) = self.backoff.due(plan, now);
        let can_apply = !self.schedule.is_applying();
        if due.is_empty() && can_apply {
            self.handle_in_effect(now);
        }
        if is_empty {
            self.handle_settled(now);
        } else if !due.is_empty() && can_apply {
            self.schedule.handle_started(due.steps.iter().map(StepKey::from).collect());
            self.outputs.push(Output::Apply(due));
        } else if let Some(later) = later {
            self.schedule.request_by(later);
        }
    }

    /// Stores the boot lockdown of closed scopes before they are in force. The last one stays while records are missing
    /// or everything is taken down.
    fn update_boot_lockdown(&mut self, now: Now) {
        let is_incomplete = self.active_networks().values().any(|network| !network.directory.is_whole());
        let unreadable = self.unreadable.values().any(|network| !self.is_to_go(network));
        if is_incomplete || unreadable || self.stopping.is_some() {
            return;
        }
        let lockdown = BootLockdown::new(&self.desired, &self.config.numbers);
        if self.lockdown.set(&lockdown, now) {
            self.outputs.push(Output::BootLockdown(lockdown));
        }
    }

    /// Networks that are to be in the kernel.
    pub(super) fn active_networks(&self) -> LiteMap<&NetworkName, &Network> {
        let all = self.networks.iter().filter(|_| self.stopping != Some(true));
        all.filter(|(name, network)| network.is_active() && is_enabled(&self.config, name)).collect()
    }

    /// Interfaces of networks with incomplete records that exist, or have scopes in force: they are left as they are.
    fn held(&self) -> SortedSet<IfName> {
        let mut all = SortedSet::new();
        for (name, _) in self.active_networks().iter().filter(|(_, network)| !network.directory.is_whole()) {
            all.push(IfName::from(*name));
        }
        for (name, _) in self.unreadable.iter().filter(|(_, network)| !self.is_to_go(network)) {
            all.push(IfName::from(name));
        }
        let is_scopes = |rule: &Rule| rule.table >= self.config.numbers.exit_table;
        let guarded = self.observed.rules.iter().any(is_scopes);
        all.retain(|link| guarded || self.observed.links.contains_key(link));
        all
    }

    fn is_to_go(&self, network: &Unreadable) -> bool {
        network.leaving || self.stopping == Some(true)
    }

    /// Interfaces of networks that are left, removed, disabled or torn down, or no longer known here, which are to be
    /// deleted.
    fn gone_links(&self) -> SortedSet<IfName> {
        let active = self.active_networks();
        let mut all = SortedSet::new();
        for name in self.networks.keys().filter(|name| !active.contains_key(name)) {
            all.push(IfName::from(name));
        }
        for (name, _) in self.unreadable.iter().filter(|(_, network)| self.is_to_go(network)) {
            all.push(IfName::from(name));
        }
        let known: SortedSet<IfName> =
            self.networks.keys().chain(self.unreadable.keys()).map(IfName::from).collect();
        let ours = self.observed.our_addresses.iter().map(|address| &address.link);
        let orphans =
            ours.filter(|link| link.as_str().starts_with(INTERFACE_PREFIX) && !known.contains(link));
        all.extend(orphans.filter(|link| !desired::is_secondary(link)).cloned());
        all
    }

    fn query(&self, mut sysctls: SortedSet<SysctlPath>) -> ObserveQuery {
        sysctls.extend(self.desired.sysctls.keys().cloned());
        sysctls.extend(self.observed.saved_sysctls.keys().cloned());
        let mut tunnels: SortedSet<IfName> = self.networks.keys().map(IfName::from).collect();
        tunnels.extend(self.observed.links.keys().filter(|link| desired::is_secondary(link)).cloned());
        let tables = rule_conflicts::tables(&self.config.numbers, &self.observed);
        ObserveQuery { sysctls, tunnels, tables }
    }

    /// Handles a kernel that is as desired: revisions count as applied, and networks that were left are forgotten.
    fn handle_settled(&mut self, now: Now) {
        for (_, network) in self.networks.iter_mut().filter(|(_, network)| network.directory.is_whole()) {
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
            self.schedule.request_by(now);
        }
        if self.stopping == Some(true) {
            self.is_torn_down = true;
            self.outputs.push(Output::Stopped);
        }
    }

    pub(super) fn handle_applied(&mut self, failures: Vec<StepFailure>, now: Now) {
        let steps = self.schedule.handle_applied(now);
        self.backoff.handle_applied(steps, failures, now);
    }

    pub(super) fn handle_observe_failed(&mut self, why: String, now: Now) {
        self.schedule.handle_failed();
        let failure = Failure { what: "read the kernel's network state".to_owned(), why };
        if self.observe_failure.as_ref() != Some(&failure) {
            log::warn!("could not {}: {}", failure.what, failure.why);
        }
        self.observe_failure = Some(failure);
        self.schedule.request_by(now + 2 * OBSERVE_INTERVAL);
        if self.stopping == Some(true) {
            self.outputs.push(Output::Stopped);
        }
    }
}
