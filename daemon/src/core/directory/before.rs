//! Last confirmed policy and assignment, kept beside the newest while those are on trial or were rolled back: see
//! [`rollback`](crate::core::rollback).

use super::{Change, Directory, Held, Refusal, Source, record, replace};
use gatewrt_protocol::{Assignment, Policy, Topic};
use litemap::LiteMap;

/// Prefix of the topic of a stored record that was confirmed and is not the newest.
pub(super) const CONFIRMED: &str = "confirmed:";

/// Last confirmed policy and assignment, where the newest are others.
#[derive(Debug, Clone, Default)]
pub(super) struct Before {
    pub(super) policy: Option<Held<Policy>>,
    pub(super) assignment: Option<Held<Assignment>>,
    /// True while these are in effect instead of the newest.
    in_effect: bool,
}

impl Directory {
    /// Last confirmed policy and assignment as they are to be stored, where the newest are others.
    pub(in crate::core) fn stored_confirmed(&self) -> LiteMap<String, String> {
        let mut all = LiteMap::new();
        let mut put = |topic: Topic, token: &str| all.insert(format!("{CONFIRMED}{topic}"), token.to_owned());
        if let Some(held) = &self.before.policy {
            put(Topic::Policy(self.net), &held.token);
        }
        if let Some(held) = &self.before.assignment {
            put(Topic::Assignment(self.node), &held.token);
        }
        all
    }

    /// Policy of the network that is in effect, the newest or the last confirmed one.
    pub fn policy(&self) -> Option<&Policy> {
        if self.before.in_effect { self.confirmed_policy() } else { record(&self.policy) }
    }

    /// Assignment of this node that is in effect, the newest or the last confirmed one.
    pub fn assignment(&self) -> Option<&Assignment> {
        if self.before.in_effect { self.confirmed_assignment() } else { record(&self.assignment) }
    }

    /// Newest policy and assignment of the network, in effect or not.
    pub(in crate::core) fn newest(&self) -> Option<(&Policy, &Assignment)> {
        record(&self.policy).zip(record(&self.assignment))
    }

    /// Last confirmed policy and assignment of the network.
    pub(in crate::core) fn confirmed(&self) -> Option<(&Policy, &Assignment)> {
        self.confirmed_policy().zip(self.confirmed_assignment())
    }

    fn confirmed_policy(&self) -> Option<&Policy> {
        record(&self.before.policy).or(record(&self.policy))
    }

    fn confirmed_assignment(&self) -> Option<&Assignment> {
        record(&self.before.assignment).or(record(&self.assignment))
    }

    /// Confirms the newest policy and assignment.
    pub(in crate::core) fn confirm(&mut self) {
        self.before = Before::default();
    }

    /// Puts the newest policy and assignment in effect, confirmed or not.
    pub(in crate::core) fn try_newest(&mut self) {
        self.before.in_effect = false;
    }

    /// Puts the last confirmed policy and assignment in effect, except external clients that were revoked since: they
    /// stay revoked.
    pub(in crate::core) fn roll_back(&mut self) {
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
