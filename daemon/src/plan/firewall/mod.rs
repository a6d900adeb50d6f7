//! Our firewall table, built from what each network may reach and whose Internet traffic leaves by exits. Pure: the same
//! input gives the same table. Chains of other programs are not in it: an accept here ends only our chains, and theirs
//! decide after.
//!
//! | file | concern |
//! | --- | --- |
//! | `networks` | traffic that comes from a network: relayed, served or refused |
//! | `access`, `access_chains` | access rules of a network, as sets and as the chains that look them up |
//! | `marks` | packets that bypass the networks, connections to be masqueraded |
//! | `masquerade` | source addresses of what leaves |
//! | `mss` | TCP segment sizes |
//! | `scopes` | kill switch: traffic of scopes leaves by their exits alone |
//! | `dns` | queries of scopes, redirected to the exit's resolver |
//! | `outside` | connections that begin outside |
//! | `lockdown` | closed scopes while the daemon does not run yet |
//! | `diff` | difference to the table that is there |
//!
//! All sets have names and stay when the table changes in place. The kernel looks up a set's elements as of now, also
//! for packets that are still in the old rules: an anonymous set of a rule that was replaced would be empty for them,
//! and a new connection would be refused.

mod access;
mod access_chains;
mod diff;
mod dns;
mod lockdown;
mod marks;
mod masquerade;
mod mss;
mod networks;
mod outside;
mod rules;
mod scopes;

pub use access::PairSet;
pub use diff::{ElementChange, InPlace, TableChange, TableUpdate};
pub use lockdown::BootLockdown;

use super::{Step, link::View};
use crate::{
    model::{Exits, FirewallTable, Guard, IfName, Ruleset},
    ownership::ReservedNumbers,
};
use access_chains::AccessChains;
use litemap::LiteMap;
use marks::Marks;
use scopes::Scopes;

/// Input from which our firewall table is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Marks and their mask.
    pub numbers: ReservedNumbers,
    /// Interfaces of ours, each with what its network may reach. Their names come from a
    /// [`NetworkName`](gatewrt_protocol::NetworkName): they become part of the names of chains.
    pub tunnels: LiteMap<IfName, Guard>,
    /// Scopes whose Internet traffic leaves by exits alone.
    pub exits: Exits,
    /// Routing may ask for the mark of what bypasses the networks, so that their connections have to remember it. Each
    /// packet costs two rules then.
    pub bypass: bool,
}

pub(super) fn write(view: View<'_>, steps: &mut Vec<Step>) {
    let observed = view.observed.ruleset.as_ref();
    if let Some(Ruleset::Known(table)) = &view.desired.ruleset
        && observed != view.desired.ruleset.as_ref()
    {
        steps.push(Step::WriteRuleset(TableUpdate::new(observed, table.clone())));
    }
}

pub(super) fn delete(view: View<'_>, steps: &mut Vec<Step>) {
    if view.observed.ruleset.is_some() && view.desired.ruleset.is_none() {
        steps.push(Step::DeleteRuleset);
    }
}

impl Firewall {
    /// Our firewall table as it is observed once it is written.
    pub fn ruleset(&self) -> Ruleset {
        self.table().into()
    }

    /// Builds the content of our firewall table.
    pub fn table(&self) -> FirewallTable {
        let marks = Marks::new(&self.numbers);
        let scopes = Scopes::new(&self.exits, marks);
        let judged = self.tunnels.iter().filter(|(_, guard)| access_chains::is_needed(guard));
        let access: Vec<AccessChains<'_>> =
            judged.map(|(link, guard)| AccessChains::new(link, guard, self.uplinks(guard))).collect();
        let mut table = FirewallTable { sets: scopes.sets(), chains: Vec::new() };
        table.sets.extend(access.iter().flat_map(AccessChains::sets));
        let chains = &mut table.chains;
        chains.push(self.forward(&scopes));
        chains.extend(self.input(&scopes));
        chains.extend(self.prerouting(&scopes));
        if self.bypass {
            chains.extend(marks.output());
        }
        chains.push(self.postrouting(&scopes));
        chains.push(self.mss());
        chains.extend(self.tunnels.iter().map(|(link, guard)| self.network(link, guard)));
        chains.extend(scopes.chains());
        chains.extend(access.iter().flat_map(AccessChains::chains));
        let masqueraded = self.tunnels.iter().filter(|(_, guard)| guard.masquerades());
        chains.extend(masqueraded.map(|(link, guard)| marks.network(link, guard)));
        table
    }

    /// Interfaces that lead into a network: its own, and its secondary exit interfaces.
    fn interfaces_of<'a>(&'a self, link: &'a IfName) -> impl Iterator<Item = &'a IfName> {
        let secondary = self.exits.secondary.iter().filter(move |(_, main)| *main == link);
        [link].into_iter().chain(secondary.map(|(secondary, _)| secondary))
    }

    /// Interfaces that lead into any network of ours.
    fn interfaces(&self) -> impl Iterator<Item = &IfName> {
        self.tunnels.keys().flat_map(|link| self.interfaces_of(link))
    }

    /// Uplinks of a network's Internet traffic that are none of our own interfaces: a default route may lead into one
    /// of those.
    fn uplinks<'a>(&self, guard: &'a Guard) -> Vec<&'a IfName> {
        let is_ours = |uplink: &IfName| self.interfaces().any(|link| link == uplink);
        guard.uplinks.iter().filter(|uplink| !is_ours(uplink)).collect()
    }
}
