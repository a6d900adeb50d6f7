//! Evaluation of access rules for all connections between two sets of addresses.

use crate::{
    registry::{AccessError, Rule},
    sets::{AddressSet, ServiceSet},
};
use gatewrt_protocol::Verdict;

/// Largest number of steps that an access check may take: all other requests wait for it. A check of a single node,
/// client or site stays far below.
const MAX_STEPS: usize = 2_000_000;

/// Access rule with the addresses that its selectors match.
pub(super) struct ResolvedRule<'a> {
    pub(super) rule: &'a Rule,
    pub(super) from: AddressSet,
    pub(super) to: AddressSet,
    pub(super) services: ServiceSet,
}

/// Decision of the access rules on some connections: the rules that match, and if any connection is left to the
/// network's default.
#[derive(Default)]
pub(super) struct Decision<'a> {
    pub(super) denied: Vec<&'a Rule>,
    pub(super) allowed: Vec<&'a Rule>,
    pub(super) rest: bool,
    /// Set if the two sets have no address family in common.
    pub(super) no_family: bool,
}

/// Set of connections, from any address of one set to any address of another.
#[derive(Clone)]
struct Connections {
    from: AddressSet,
    to: AddressSet,
    services: ServiceSet,
}

pub(super) fn evaluate<'a>(
    rules: &[ResolvedRule<'a>],
    from: AddressSet,
    to: AddressSet,
    services: ServiceSet,
) -> Result<Decision<'a>, AccessError> {
    let families = from.families().into_iter().zip(to.families());
    let open = families.map(|(from, to)| Connections { from, to, services: services.clone() });
    let mut open: Vec<_> = open.filter(|flows| !flows.is_empty()).collect();
    if open.is_empty() {
        return Ok(Decision { no_family: true, ..Decision::default() });
    }
    let mut steps_left = MAX_STEPS;
    let denied = match_rules(rules, Verdict::Deny, &mut open, &mut steps_left)?;
    let allowed = match_rules(rules, Verdict::Allow, &mut open, &mut steps_left)?;
    Ok(Decision { denied, allowed, rest: !open.is_empty(), no_family: false })
}

/// Removes from `open` the connections that rules of this verdict match. Returns these rules.
fn match_rules<'a>(
    rules: &[ResolvedRule<'a>],
    verdict: Verdict,
    open: &mut Vec<Connections>,
    steps_left: &mut usize,
) -> Result<Vec<&'a Rule>, AccessError> {
    let mut fit = Vec::new();
    for rule in rules.iter().filter(|rule| rule.rule.verdict == verdict) {
        let (met, mut left): (Vec<_>, Vec<_>) =
            std::mem::take(open).into_iter().partition(|flows| flows.meets(rule));
        let cuts: usize = met.iter().map(|flows| flows.weight() + rule.weight()).sum();
        let work = cuts + met.len() + left.len() + 1;
        *steps_left = steps_left.checked_sub(work).ok_or(AccessError::TooMuch)?;
        if !met.is_empty() {
            fit.push(rule.rule);
        }
        left.extend(met.into_iter().flat_map(|flows| flows.without(rule)));
        *open = left;
    }
    Ok(fit)
}

impl ResolvedRule<'_> {
    fn weight(&self) -> usize {
        self.from.ranges() + self.to.ranges()
    }
}

impl Connections {
    fn weight(&self) -> usize {
        self.from.ranges() + self.to.ranges()
    }

    fn is_empty(&self) -> bool {
        self.from.is_empty() || self.to.is_empty() || self.services.is_empty()
    }

    fn meets(&self, rule: &ResolvedRule<'_>) -> bool {
        self.services.meets(&rule.services) && self.from.meets(&rule.from) && self.to.meets(&rule.to)
    }

    /// Connections of the set that the rule does not match, in disjoint parts.
    fn without(self, rule: &ResolvedRule<'_>) -> impl Iterator<Item = Connections> {
        let (from, to) = (self.from.intersection(&rule.from), self.to.intersection(&rule.to));
        let parts = [
            Connections { from: self.from.difference(&rule.from), ..self.clone() },
            Connections {
                from: from.clone(),
                to: self.to.difference(&rule.to),
                services: self.services.clone(),
            },
            Connections { from, to, services: self.services.difference(&rule.services) },
        ];
        parts.into_iter().filter(|part| !part.is_empty())
    }
}
