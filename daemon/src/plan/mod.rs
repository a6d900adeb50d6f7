//! Plan: the difference between the observed and the desired state of a kernel, as steps in an order that loses no packet.
//! Pure; it ends at the list. Each file compares one kind of object.
//!
//! Only objects of ours are compared. A foreign object is never in a step, with one exception that asks for help: where a
//! foreign interface has the name of a desired one, [`Step::AddTunnel`] stays in every plan, as the only step for that
//! interface, so that the driver's conflict is reported until someone clears it. A dead interface is created again by one
//! plan and filled by the next.

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods, reason = "pure: time, files and random bytes come in as values")
)]

mod address;
mod firewall;
mod flows;
mod key;
mod link;
mod route;
mod rule;
mod step;
mod sysctl;
mod wireguard;

pub use firewall::{BootLockdown, ElementChange, Firewall, InPlace, PairSet, TableChange, TableUpdate};
pub use flows::{FlowCheck, FlowVerdict};
pub use key::{PeerKey, PeerSettings, StepFailure, StepKey};
pub use step::{PeerChange, PeerUpdate, Step};

use crate::model::{Desired, Observed};
use link::View;
use std::fmt;

/// Plan of the steps that turn the observed state of the kernel into the desired one; empty when it is so already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps in the order of their execution. A step that fails does not stop those after it: the next plan repairs.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Plan of the steps that turn `observed` into `desired`. Additions come first, from the bottom up, then deletions,
    /// from the top down, so that a packet always meets either all of the old or all of the new.
    pub fn new(observed: &Observed, desired: &Desired) -> Self {
        let view = View { observed, desired };
        let mut all = Vec::new();
        let steps = &mut all;
        // The table that drops, marks and masquerades is there before anything leads packets to it.
        firewall::write(view, steps);
        link::additions(view, steps);
        // Per-interface settings exist only now. Forwarding begins only after the table that guards it.
        sysctl::settings(view, steps);
        // The socket's mark and key before the first packet leaves; addresses before it is up, so that
        // the first packet has its source.
        wireguard::devices(view, steps);
        address::additions(view, steps);
        // A peer knows its prefixes before a route leads them in.
        wireguard::gains(view, steps);
        link::ups(view, steps);
        // Routes need the interface up. Duplicates in the places of our routes are deleted first.
        route::duplicates(view, steps);
        route::additions(view, steps);
        route::closings(view, steps);
        // Rules last: they lead traffic in, and the tables are complete.
        rule::additions(view, steps);
        // Deletions mirror that: nothing leads in any more before what it led to goes.
        rule::deletions(view, steps);
        route::openings(view, steps);
        route::deletions(view, steps);
        wireguard::losses(view, steps);
        address::deletions(view, steps);
        link::deletions(view, steps);
        firewall::delete(view, steps);
        // Forbidden connections are cut once nothing can open them again.
        flows::cut(view, steps);
        // Forwarding was guarded by the table, but what it forwarded for is gone by now.
        sysctl::restorations(view, steps);
        Self { steps: all }
    }

    /// True if the plan has no steps.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Text of the plan, one line a step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

#[cfg(test)]
mod tests;
