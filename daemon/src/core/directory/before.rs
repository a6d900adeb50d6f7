//! The policy and the assignment that were confirmed last, kept beside the newest while those are on trial or were taken
//! back: see [`confirm`](crate::core::confirm).

use super::{Change, Directory, Held, Refusal, Source, record, replace};
use crate::{core::confirm::CONFIRMED, sorted::SortedMap};
use gatewrt_protocol::{Assignment, Policy, Topic};

/// The records that were confirmed last, where the newest are others.
#[derive(Debug, Clone, Default)]
pub(super) struct Before {
    pub(super) policy: Option<Held<Policy>>,
    pub(super) assignment: Option<Held<Assignment>>,
    /// Whether they are in effect instead of the newest.
    in_effect: bool,
}

impl Directory {
    /// The records that were confirmed last, where the newest are others, as they are to be stored.
    pub(in crate::core) fn stored_confirmed(&self) -> SortedMap<String, String> {
        let mut all = SortedMap::new();
        let mut put = |topic: Topic, token: &str| all.insert(format!("{CONFIRMED}{topic}"), token.to_owned());
        if let Some(held) = &self.before.policy {
            put(Topic::Policy(self.net), &held.token);
        }
        if let Some(held) = &self.before.assignment {
            put(Topic::Assignment(self.node), &held.token);
        }
        all
    }

    /// The network's settings that are in effect.
    pub fn policy(&self) -> Option<&Policy> {
        if self.before.in_effect { self.confirmed_policy() } else { record(&self.policy) }
    }

    /// What this node is to do now.
    pub fn assignment(&self) -> Option<&Assignment> {
        if self.before.in_effect { self.confirmed_assignment() } else { record(&self.assignment) }
    }

    /// The newest settings and assignment, in effect or not.
    pub(in crate::core) fn newest(&self) -> Option<(&Policy, &Assignment)> {
        record(&self.policy).zip(record(&self.assignment))
    }

    /// Those that were confirmed last.
    pub(in crate::core) fn confirmed(&self) -> Option<(&Policy, &Assignment)> {
        self.confirmed_policy().zip(self.confirmed_assignment())
    }

    fn confirmed_policy(&self) -> Option<&Policy> {
        record(&self.before.policy).or(record(&self.policy))
    }

    fn confirmed_assignment(&self) -> Option<&Assignment> {
        record(&self.before.assignment).or(record(&self.assignment))
    }

    /// The newest are confirmed.
    pub(in crate::core) fn confirm(&mut self) {
        self.before = Before::default();
    }

    /// The newest are in effect, confirmed or not.
    pub(in crate::core) fn try_newest(&mut self) {
        self.before.in_effect = false;
    }

    /// Those confirmed last are in effect, but for external clients that were shut out since: they stay out.
    pub(in crate::core) fn go_back(&mut self) {
        self.before.in_effect = true;
        let newest = self.assignment.as_ref().and_then(|held| held.record.ingress.as_ref());
        let before = self.before.assignment.as_mut().and_then(|held| held.record.ingress.as_mut());
        if let Some(before) = before {
            let newest = newest.map(|ingress| ingress.clients.as_slice()).unwrap_or_default();
            before.clients.retain(|client| newest.iter().any(|other| other.key == client.key));
        }
    }

    pub(super) fn restore_confirmed(&mut self, topic: &str, token: &str) -> Result<Change, Refusal> {
        let topic: Topic = topic.parse().map_err(|_| Refusal::Topic)?;
        let payload = token.as_bytes();
        match topic {
            Topic::Policy(_) => {
                let record: Policy = self.read(payload, Source::Disk)?;
                let ours = record.net == self.net;
                replace(&mut self.before.policy, &mut None, record.rev, record, ours, payload)
            }
            Topic::Assignment(_) => {
                let record: Assignment = self.read(payload, Source::Disk)?;
                let ours = (record.net, record.node) == (self.net, self.node);
                replace(&mut self.before.assignment, &mut None, record.rev, record, ours, payload)
            }
            _ => Err(Refusal::Topic),
        }
    }
}
