//! Commit-confirm: a change that could cut the control link is in effect at once, and on trial until the broker has
//! acknowledged something that was sent after it was in effect. A change that does not show that in time is taken back:
//! the records that were confirmed last are in effect again, and this revision is not tried any more.
//!
//! On disk a change on trial is marked as such, with the confirmed records beside it. A router that starts with such a
//! mark goes back: who lost the way to his router pulls its plug, and a change that brings the router down is not to
//! do so at each boot. The newest records stay in the directory all the same, so that the broker can roll back nothing.
//! What is taken back is whole, a kill switch that came with it too: the router is as it was before. It ends at what is in
//! effect: the plan brings it about.

use super::{Core, Network, Now, Output};
use crate::{gather::Gather, log, sorted::SortedMap};
use gatewrt_protocol::{Assignment, NetworkName, Policy, TakenBack, json};
use std::time::Duration;

/// How long a trial takes where nothing else is said.
const USUAL: u16 = 60;
/// The shortest and the longest trial, in seconds.
const RANGE: (u16, u16) = (5, 3600);

/// Stands among stored records that are on trial.
pub const ON_TRIAL: &str = "trial";
/// Stands among stored records of which the newest were taken back.
const TAKEN_BACK: &str = "taken-back";
/// Goes before the topic of a stored record that was confirmed and is not the newest.
pub(super) const CONFIRMED: &str = "confirmed:";

/// How the newest policy and assignment of a network stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trial {
    /// They are in effect, and nothing is to be shown.
    #[default]
    Over,
    /// They are in effect, or about to be, and are not confirmed.
    Running {
        /// When they came.
        since: Now,
        /// Since when they are in effect, and how much was sent on the control link before.
        effect: Option<(Now, u64)>,
    },
    /// They are not in effect: the records before them are, which were confirmed.
    Back {
        /// What is told of it.
        taken: TakenBack,
        /// The control link is to be opened anew once this is in effect.
        reconnect: bool,
    },
}

/// What of a change could cut the control link, in words.
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
    parts.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).gather()
}

impl Trial {
    /// When the newest records are taken back unless they are confirmed.
    fn deadline(&self, patience: Duration) -> Option<Now> {
        match self {
            Self::Running { since, effect } => Some(effect.map_or(*since, |(at, _)| at) + patience),
            Self::Over | Self::Back { .. } => None,
        }
    }

    /// The control link was opened anew when so much was sent: only what follows is acknowledged on it.
    pub(super) fn handle_connected(&mut self, count: u64) {
        if let Self::Running { effect: Some((_, sent)), .. } = self {
            *sent = count;
        }
    }

    /// No more was sent than so much.
    pub(super) fn handle_unsent(&mut self, count: u64) {
        if let Self::Running { effect: Some((_, sent)), .. } = self {
            *sent = count.min(*sent);
        }
    }
}

impl Network {
    /// What the newest records are, as far as a trial is about them.
    fn newest(&self) -> (u64, u64) {
        self.directory.newest().map_or((0, 0), |(policy, assignment)| (policy.rev, assignment.rev))
    }

    /// What the node took back, and does not try again.
    pub(super) fn taken_back(&self) -> Option<&TakenBack> {
        match &self.trial {
            Trial::Back { taken, .. } => Some(taken),
            Trial::Over | Trial::Running { .. } => None,
        }
    }

    /// Until when the newest records are to be confirmed.
    pub(super) fn trial_deadline(&self) -> Option<Now> {
        self.trial.deadline(self.patience())
    }

    fn patience(&self) -> Duration {
        let asked = self.directory.newest().and_then(|(_, assignment)| assignment.confirm_s);
        Duration::from_secs(u64::from(asked.unwrap_or(USUAL).clamp(RANGE.0, RANGE.1)))
    }

    /// The stored mark is taken up: what was on trial when the daemon ended was not confirmed.
    pub(super) fn resume_trial(&mut self, stored: &SortedMap<String, String>) {
        let newest = self.newest();
        self.judged = newest;
        self.trial = if let Some(taken) = stored.get(TAKEN_BACK) {
            let taken = json::read(taken.as_bytes()).unwrap_or_else(|_| TakenBack {
                assignment: newest.1,
                why: "it was not confirmed by the control link".to_owned(),
            });
            Trial::Back { taken, reconnect: false }
        } else if stored.contains_key(ON_TRIAL) {
            let why =
                "the router, or its daemon, was restarted before the control link had shown that it works";
            let taken = TakenBack { assignment: newest.1, why: self.account(why) };
            Trial::Back { taken, reconnect: false }
        } else {
            Trial::Over
        };
        match self.trial {
            Trial::Back { .. } => self.directory.go_back(),
            Trial::Over | Trial::Running { .. } => self.directory.confirm(),
        }
    }

    /// The records as they are to be stored, with what is to be known of a trial: a copy of all.
    pub fn stored(&self) -> SortedMap<String, String> {
        let mut all = self.directory.stored();
        let mark = match &self.trial {
            Trial::Over => return all,
            Trial::Running { .. } => (ON_TRIAL, "1".to_owned()),
            Trial::Back { taken, .. } => (TAKEN_BACK, json::write(taken).unwrap_or_default()),
        };
        all.insert(mark.0.to_owned(), mark.1);
        all.extend(self.directory.stored_confirmed());
        all
    }

    /// Records came over the control link. A policy or an assignment that is new and risky is on trial from now on.
    pub(super) fn judge(&mut self, now: Now) {
        if self.newest() == self.judged {
            return;
        }
        self.judged = self.newest();
        let risks = self.risks();
        if risks.is_empty() {
            self.directory.confirm();
            self.trial = Trial::Over;
        } else {
            log::info!(
                "{}: revision {} changes {}: the control link has {} s to show that it works",
                self.membership.network,
                self.judged.1,
                risks.join(", "),
                self.patience().as_secs()
            );
            self.directory.try_newest();
            self.trial = Trial::Running { since: now, effect: None };
        }
    }

    fn risks(&self) -> Vec<&'static str> {
        let both = self.directory.confirmed().zip(self.directory.newest());
        both.map(|(before, after)| risks(before, after)).unwrap_or_default()
    }

    /// What was changed, what was seen, and what to do.
    fn account(&self, seen: &str) -> String {
        let confirmed = self.directory.confirmed().map_or(0, |(_, assignment)| assignment.rev);
        let name = self.directory.newest().map_or(&self.membership.name, |(_, assignment)| &assignment.name);
        format!(
            "it changed {}, and {seen}. This router went back to revision {confirmed}. If something else was the \
             reason, have it tried again: “gatewrt-coordinator node retry {} {name}”",
            self.risks().join(", "),
            self.membership.network,
        )
    }

    /// The newest records did not show in time that the control link outlives them.
    fn take_back(&mut self) {
        let last = self.session.last_error().unwrap_or("it looked open");
        let seen = format!("the control link delivered nothing for {} s ({last})", self.patience().as_secs());
        let taken = TakenBack { assignment: self.judged.1, why: self.account(&seen) };
        self.trial = Trial::Back { taken, reconnect: true };
        self.directory.go_back();
    }
}

impl Core {
    /// What shall be is in effect, or as much of it as can be.
    pub(super) fn handle_in_effect(&mut self, now: Now) {
        for (name, network) in &mut self.networks {
            let sent = network.session.sent();
            match &mut network.trial {
                Trial::Running { effect: effect @ None, .. } => {
                    *effect = Some((now, sent));
                    // What is sent now is what is to be acknowledged.
                    (network.said, network.said_at) = (None, None);
                }
                Trial::Back { reconnect: reconnect @ true, .. } => {
                    *reconnect = false;
                    if network.session.handle_wan_changed(now).is_some() {
                        self.outputs.push(Output::Disconnect(name.clone()));
                    }
                }
                Trial::Over | Trial::Running { .. } | Trial::Back { .. } => {}
            }
        }
    }

    /// The broker acknowledged what was sent before.
    pub(super) fn handle_acked(&mut self, name: &NetworkName) {
        let Some(network) = self.networks.get_mut(name) else { return };
        network.session.handle_acked();
        let Trial::Running { effect: Some((_, sent)), .. } = network.trial else { return };
        if network.session.acked() > sent {
            log::info!("{name}: revision {} is confirmed: the control link works", network.judged.1);
            network.directory.confirm();
            network.trial = Trial::Over;
            self.outputs.push(Output::Save(name.clone()));
        }
    }

    pub(super) fn poll_trial(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        if network.trial_deadline().is_none_or(|at| at > now) {
            return;
        }
        network.take_back();
        if let Some(taken) = network.taken_back() {
            log::warn!("{name}: took back revision {}: {}", taken.assignment, taken.why);
        }
        network.stale = true;
        self.outputs.push(Output::Save(name.clone()));
        self.outputs.push(Output::Flush(name.clone()));
        self.tell_paths(name, now);
        self.want_anew(now);
    }
}
