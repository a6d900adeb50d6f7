//! What is to be done: the difference between a kernel as observed and as desired, as steps in an order that
//! loses no packet. Pure; it ends at the list. One file compares one kind of object.
//!
//! Only what is ours is compared. A foreign object is never in a step, with one exception that asks for help:
//! where a foreign interface has the name of a wanted one, [`Step::AddTunnel`] stays in every plan, alone for
//! that interface, so that the driver's [`Conflict`](crate::kernel::KernelError::Conflict) is reported until
//! someone clears it. What was dead and is made anew gets the rest by the next plan.

mod access;
mod address;
mod exits;
mod firewall;
mod flows;
mod guard;
pub mod iptables;
mod judge;
mod link;
pub mod rewrite;
mod route;
mod rule;
mod ruleset;
mod scope;
mod step;
mod sysctl;
mod text;
mod wireguard;

pub use access::{Block, PairSet};
pub use exits::{Exits, ScopeFlows, ScopeGuard, Source};
pub use flows::{Fate, Flow, Flows, Judge, Realm};
pub use guard::Guardfile;
pub use ruleset::{Firewall, Guard};
pub(crate) use step::Short;
pub use step::{NO_PSK, PeerChange, PeerUpdate, Step};

use crate::model::{Desired, Observed};
use link::View;
use std::fmt;

/// Steps that turn what is observed into what is desired; none when it is so already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be carried out. One that fails does not stop those after it: the
    /// next plan repairs.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Compares. Additions stand before deletions, from the bottom up, and deletions from the top down, so that
    /// a packet always meets either all of the old or all of the new.
    pub fn new(observed: &Observed, desired: &Desired) -> Self {
        let view = View { observed, desired };
        let mut all = Vec::new();
        let steps = &mut all;
        // What cuts, marks and masquerades stands before anything leads packets there.
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
        // Routes need the interface up. What stands in the way of one of ours goes first.
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
        // What may not stand any more is cut when nothing can make it anew.
        flows::cut(view, steps);
        // Forwarding was guarded by the table, but what it forwarded for is gone by now.
        sysctl::restorations(view, steps);
        Self { steps: all }
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One line a step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

#[cfg(test)]
mod tests;
