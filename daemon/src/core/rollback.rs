//! Rollback of changes that could cut the control link (commit-confirm).
//!
//! A risky change is in effect at once, and on trial until the broker has acknowledged something that was sent while it was
//! in effect. A change that is not confirmed that way in time is rolled back: the last confirmed records are in effect
//! again, and this revision is not tried any more.
//!
//! ```text
//!                  records without risk
//!   ┌───────────┐ ◀──────────────────────── any state
//!   │ Confirmed │
//!   └───────────┘ ◀───────────────────────────┐
//!         │ risky records                     │ acknowledged
//!         ▼            in effect              │
//!   ┌───────────┐ ─────────────────▶ ┌─────────┐
//!   │  Pending  │                    │ Running │
//!   └───────────┘                    └─────────┘
//!         │ deadline                      │ deadline
//!         ▼                               │
//!   ┌───────────┐ ◀───────────────────────┘
//!   │ Reverting │
//!   └───────────┘
//!         │ the old records are in effect: reconnect
//!         ▼
//!   ┌────────────┐ ◀── restart of the router or its daemon during a trial
//!   │ RolledBack │
//!   └────────────┘ ── risky records ──▶ Pending
//! ```
//!
//! On disk a change on trial is marked, with the confirmed records beside it, and a router that starts with the mark rolls
//! back: an admin who lost the way to a router pulls its plug, and a change that brings the router down must not do so at
//! each boot. The newest records stay in the directory all the same, so that the broker can't replay older ones. All of a
//! change is rolled back, a kill switch that came with it too: the router is as it was before. This module ends at what is
//! in effect: the plan brings it about.

use super::{Core, Network, Now, Output};
use gatewrt_protocol::{Assignment, NetworkName, Policy, RolledBack};
use litemap::LiteMap;
use std::time::Duration;

/// Duration of a trial in seconds, unless the assignment says another.
const DEFAULT_S: u16 = 60;
/// Shortest and longest trial, in seconds.
const RANGE_S: (u16, u16) = (5, 3600);

/// Key among stored records that marks them as on trial.
pub const ON_TRIAL: &str = "trial";
/// Key among stored records of which the newest were rolled back; its value is the reason.
const ROLLED_BACK: &str = "rolled-back";

/// Trial of the newest policy and assignment of a network, as a state machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trial {
    /// The newest records are in effect and need no confirmation.
    #[default]
    Confirmed,
    /// The newest records came at `since`, are not confirmed, and are about to be in effect.
    Pending {
        /// Time at which they came.
        since: Now,
    },
    /// The newest records are in effect and not confirmed.
    Running {
        /// Time since which they are in effect.
        since: Now,
        /// Messages sent on the control link before: only later ones confirm.
        sent: u64,
    },
    /// The last confirmed records are about to be in effect again. Then the control link is opened anew.
    Reverting(RolledBack),
    /// The last confirmed records are in effect.
    RolledBack(RolledBack),
}

/// Action to take once the records that a trial or a rollback wants are in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InEffect {
    /// Send a report: its acknowledgement confirms the trial.
    Report,
    /// Open the control link anew.
    Reconnect,
}

/// Parts of a change of policy and assignment that could cut the control link, in words.
pub fn risks(before: (&Policy, &Assignment), after: (&Policy, &Assignment)) -> Vec<&'static str> {
    let ((old_net, old), (new_net, new)) = (before, after);
    let parts = [
        (old_net.prefixes != new_net.prefixes, "the network's prefixes"),
        (old.scopes != new.scopes, "exit scopes"),
        (old.exit != new.exit, "service as an exit"),
        (old.egress != new.egress, "egress"),
        (old.access != new.access, "access rules"),
        (old.control != new.control, "the coordinator's addresses"),
    ];
    parts.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
}

impl Trial {
    /// Time at which a trial ends in a rollback unless it is confirmed, where a trial takes `duration`.
    fn deadline(&self, duration: Duration) -> Option<Now> {
        match self {
            Self::Pending { since } | Self::Running { since, .. } => Some(*since + duration),
            Self::Confirmed | Self::Reverting(_) | Self::RolledBack(_) => None,
        }
    }

    /// Report of the rollback that is under way or done; `None` in other states.
    fn rolled_back(&self) -> Option<&RolledBack> {
        match self {
            Self::Reverting(report) | Self::RolledBack(report) => Some(report),
            Self::Confirmed | Self::Pending { .. } | Self::Running { .. } => None,
        }
    }

    /// Notes that the control link was opened anew after `count` messages: only later ones can be acknowledged on it.
    pub(super) fn handle_connected(&mut self, count: u64) {
        if let Self::Running { sent, .. } = self {
            *sent = count;
        }
    }

    /// Notes that the last message on the control link was not sent: there were only `count`.
    pub(super) fn handle_unsent(&mut self, count: u64) {
        if let Self::Running { sent, .. } = self {
            *sent = count.min(*sent);
        }
    }

    /// Notes that the records which this state wants are in effect, after `sent` messages; returns the action to take.
    fn handle_in_effect(&mut self, sent: u64, now: Now) -> Option<InEffect> {
        match std::mem::take(self) {
            Self::Pending { .. } => {
                *self = Self::Running { since: now, sent };
                Some(InEffect::Report)
            }
            Self::Reverting(report) => {
                *self = Self::RolledBack(report);
                Some(InEffect::Reconnect)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Notes that the broker has acknowledged the first `acked` messages; true if that confirms the trial.
    fn handle_acked(&mut self, acked: u64) -> bool {
        let is_confirmed = matches!(self, Self::Running { sent, .. } if acked > *sent);
        if is_confirmed {
            *self = Self::Confirmed;
        }
        is_confirmed
    }
}

impl Network {
    /// Revisions of the newest policy and assignment of the network, which a trial is about.
    fn newest(&self) -> (u64, u64) {
        self.directory.newest().map_or((0, 0), |(policy, assignment)| (policy.rev, assignment.rev))
    }

    /// Report of the rollback after which the newest records of the network are not in effect.
    pub(super) fn rolled_back(&self) -> Option<&RolledBack> {
        self.trial.rolled_back()
    }

    /// Time by which the newest policy and assignment must be confirmed; `None` unless they are on trial.
    pub(super) fn trial_deadline(&self) -> Option<Now> {
        self.trial.deadline(self.trial_duration())
    }

    fn trial_duration(&self) -> Duration {
        let asked = self.directory.newest().and_then(|(_, assignment)| assignment.confirm_s);
        Duration::from_secs(u64::from(asked.unwrap_or(DEFAULT_S).clamp(RANGE_S.0, RANGE_S.1)))
    }

    /// Continues a trial or a rollback from before the daemon's start, by the mark among the stored records. A change
    /// that was on trial when the daemon ended was not confirmed.
    pub(super) fn resume_trial(&mut self, stored: &LiteMap<String, String>) {
        let newest = self.newest();
        self.trial_revisions = newest;
        self.trial = if let Some(report) = stored.get(ROLLED_BACK) {
            let report = serde_json::from_slice(report.as_bytes()).unwrap_or_else(|_| RolledBack {
                assignment: newest.1,
                why: "it was not confirmed by the control link".to_owned(),
            });
            Trial::RolledBack(report)
        } else if stored.contains_key(ON_TRIAL) {
            let why =
                "the router, or its daemon, was restarted before the control link had shown that it works";
            Trial::RolledBack(RolledBack { assignment: newest.1, why: self.explain(why) })
        } else {
            Trial::Confirmed
        };
        match self.rolled_back() {
            Some(_) => self.directory.roll_back(),
            None => self.directory.confirm(),
        }
    }

    /// Copy of all records of the network as they are to be stored, with the mark of a trial or a rollback.
    pub fn stored(&self) -> LiteMap<String, String> {
        let mut all = self.directory.stored();
        let mark = match &self.trial {
            Trial::Confirmed => return all,
            Trial::Pending { .. } | Trial::Running { .. } => (ON_TRIAL, "1".to_owned()),
            Trial::Reverting(report) | Trial::RolledBack(report) => {
                (ROLLED_BACK, serde_json::to_string(report).unwrap_or_default())
            }
        };
        all.insert(mark.0.to_owned(), mark.1);
        all.extend(self.directory.stored_confirmed());
        all
    }

    /// Starts a trial when the newest policy or assignment, which came over the control link, is new and risky.
    pub(super) fn handle_records(&mut self, now: Now) {
        if self.newest() == self.trial_revisions {
            return;
        }
        self.trial_revisions = self.newest();
        let risks = self.risks();
        if risks.is_empty() {
            self.directory.confirm();
            self.trial = Trial::Confirmed;
        } else {
            log::info!(
                "{}: revision {} changes {}: the control link has {} s to show that it works",
                self.membership.network,
                self.trial_revisions.1,
                risks.join(", "),
                self.trial_duration().as_secs()
            );
            self.directory.try_newest();
            self.trial = Trial::Pending { since: now };
        }
    }

    fn risks(&self) -> Vec<&'static str> {
        let both = self.directory.confirmed().zip(self.directory.newest());
        both.map(|(before, after)| risks(before, after)).unwrap_or_default()
    }

    /// Reason of a rollback in words: the change, the observation, and the remedy.
    fn explain(&self, seen: &str) -> String {
        let confirmed = self.directory.confirmed().map_or(0, |(_, assignment)| assignment.rev);
        let name = self.directory.newest().map_or(&self.membership.name, |(_, assignment)| &assignment.name);
        format!(
            "it changed {}, and {seen}. This router went back to revision {confirmed}. If something else was the \
             reason, have it tried again: “gatewrt-coordinator node retry {} {name}”",
            self.risks().join(", "),
            self.membership.network,
        )
    }

    /// Goes back to the last confirmed policy and assignment.
    fn roll_back(&mut self) {
        let last = self.session.last_error().unwrap_or("it looked open");
        let seen =
            format!("the control link delivered nothing for {} s ({last})", self.trial_duration().as_secs());
        let report = RolledBack { assignment: self.trial_revisions.1, why: self.explain(&seen) };
        self.trial = Trial::Reverting(report);
        self.directory.roll_back();
    }
}

impl Core {
    /// Advances the trials of all networks when the desired state is in effect, or as much of it as works.
    pub(super) fn handle_in_effect(&mut self, now: Now) {
        for (name, network) in &mut self.networks {
            let sent = network.session.sent();
            match network.trial.handle_in_effect(sent, now) {
                Some(InEffect::Report) => network.reporter.request(),
                Some(InEffect::Reconnect) if network.session.reconnect(now).is_some() => {
                    self.outputs.push(Output::Disconnect(name.clone()));
                }
                Some(InEffect::Reconnect) | None => {}
            }
        }
    }

    /// Takes in the broker's acknowledgement of a network's next message, which may confirm a trial.
    pub(super) fn handle_acked(&mut self, name: &NetworkName) {
        let Some(network) = self.networks.get_mut(name) else { return };
        network.session.handle_acked();
        if network.trial.handle_acked(network.session.acked()) {
            log::info!("{name}: revision {} is confirmed: the control link works", network.trial_revisions.1);
            network.directory.confirm();
            self.outputs.push(Output::Save(name.clone()));
        }
    }

    pub(super) fn poll_trial(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        if network.trial_deadline().is_none_or(|at| at > now) {
            return;
        }
        network.roll_back();
        if let Some(report) = network.rolled_back() {
            log::warn!("{name}: rolled back revision {}: {}", report.assignment, report.why);
        }
        network.reporter.refresh();
        self.outputs.push(Output::Save(name.clone()));
        self.outputs.push(Output::Flush(name.clone()));
        self.feed_members(name, now);
        self.request_reconcile(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PENDING: Trial = Trial::Pending { since: S };
    const RUNNING: Trial = Trial::Running { since: S, sent: 7 };

    fn report() -> RolledBack {
        RolledBack { assignment: 3, why: "it was silent".to_owned() }
    }

    #[test]
    fn pending_trial_runs_once_in_effect() {
        let mut trial = PENDING;
        assert_eq!(trial.handle_in_effect(7, 2 * S), Some(InEffect::Report));
        assert_eq!(trial, Trial::Running { since: 2 * S, sent: 7 });
        assert_eq!(trial.handle_in_effect(9, 3 * S), None, "only once");
        assert_eq!(trial, Trial::Running { since: 2 * S, sent: 7 });
    }

    #[test]
    fn pending_trial_is_confirmed_by_nothing() {
        let mut trial = PENDING;
        assert!(!trial.handle_acked(100));
        assert_eq!(trial, PENDING);
    }

    #[test]
    fn running_trial_is_confirmed_by_a_later_message() {
        let mut trial = RUNNING;
        assert!(!trial.handle_acked(7), "sent before");
        assert!(trial.handle_acked(8));
        assert_eq!(trial, Trial::Confirmed);
    }

    #[test]
    fn running_trial_over_a_new_connection_needs_a_message_on_it() {
        let mut trial = RUNNING;
        trial.handle_connected(9);
        assert!(!trial.handle_acked(9));
        trial.handle_unsent(8);
        assert!(trial.handle_acked(9));
    }

    #[test]
    fn trial_has_a_deadline_until_it_ends() {
        for trial in [PENDING, RUNNING] {
            assert_eq!(trial.deadline(60 * S), Some(61 * S));
        }
        for trial in [Trial::Confirmed, Trial::Reverting(report()), Trial::RolledBack(report())] {
            assert_eq!(trial.deadline(60 * S), None);
        }
    }

    #[test]
    fn reverting_trial_reconnects_once_in_effect() {
        let mut trial = Trial::Reverting(report());
        assert_eq!(trial.handle_in_effect(7, S), Some(InEffect::Reconnect));
        assert_eq!(trial, Trial::RolledBack(report()));
        assert_eq!(trial.handle_in_effect(7, S), None, "only once");
        assert_eq!(trial.rolled_back(), Some(&report()));
    }

    #[test]
    fn confirmed_trial_stays_confirmed() {
        let mut trial = Trial::Confirmed;
        assert_eq!((trial.handle_in_effect(7, S), trial.handle_acked(8)), (None, false));
        assert_eq!(trial, Trial::Confirmed);
    }
}
