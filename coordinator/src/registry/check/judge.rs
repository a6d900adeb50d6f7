//! What rules say of all connections from a set of addresses to a set of addresses.

use crate::{
    registry::{AccessError, Rule},
    space::{Addresses, Services},
};
use gatewrt_protocol::Verdict;

/// Steps of work that a question may take: everyone else waits for it. Any question about a single node, client or
/// site stays far below.
const PATIENCE: usize = 2_000_000;

/// A rule and what its selectors stand for.
pub(super) struct Meant<'a> {
    pub(super) rule: &'a Rule,
    pub(super) from: Addresses,
    pub(super) to: Addresses,
    pub(super) services: Services,
}

/// The rules that have a say, and whether anything is left to the network's default.
#[derive(Default)]
pub(super) struct Judgement<'a> {
    pub(super) denied: Vec<&'a Rule>,
    pub(super) allowed: Vec<&'a Rule>,
    pub(super) rest: bool,
    /// The two have no address family in common.
    pub(super) no_family: bool,
}

/// Connections from anywhere in one set to anywhere in another.
#[derive(Clone)]
struct Flows {
    from: Addresses,
    to: Addresses,
    services: Services,
}

pub(super) fn judge<'a>(
    rules: &[Meant<'a>],
    from: Addresses,
    to: Addresses,
    services: Services,
) -> Result<Judgement<'a>, AccessError> {
    let families = from.families().into_iter().zip(to.families());
    let open = families.map(|(from, to)| Flows { from, to, services: services.clone() });
    let mut open: Vec<_> = open.filter(|flows| !flows.is_empty()).collect();
    if open.is_empty() {
        return Ok(Judgement { no_family: true, ..Judgement::default() });
    }
    let mut patience = PATIENCE;
    let denied = settle(rules, Verdict::Deny, &mut open, &mut patience)?;
    let allowed = settle(rules, Verdict::Allow, &mut open, &mut patience)?;
    Ok(Judgement { denied, allowed, rest: !open.is_empty(), no_family: false })
}

/// Takes out of `open` what rules of this verdict fit, and answers these rules.
fn settle<'a>(
    rules: &[Meant<'a>],
    verdict: Verdict,
    open: &mut Vec<Flows>,
    patience: &mut usize,
) -> Result<Vec<&'a Rule>, AccessError> {
    let mut fit = Vec::new();
    for rule in rules.iter().filter(|rule| rule.rule.verdict == verdict) {
        let (met, mut left): (Vec<_>, Vec<_>) =
            std::mem::take(open).into_iter().partition(|flows| flows.meets(rule));
        let cuts: usize = met.iter().map(|flows| flows.weight() + rule.weight()).sum();
        let work = cuts + met.len() + left.len() + 1;
        *patience = patience.checked_sub(work).ok_or(AccessError::TooMuch)?;
        if !met.is_empty() {
            fit.push(rule.rule);
        }
        left.extend(met.into_iter().flat_map(|flows| flows.without(rule)));
        *open = left;
    }
    Ok(fit)
}

impl Meant<'_> {
    fn weight(&self) -> usize {
        self.from.ranges() + self.to.ranges()
    }
}

impl Flows {
    fn weight(&self) -> usize {
        self.from.ranges() + self.to.ranges()
    }

    fn is_empty(&self) -> bool {
        self.from.is_empty() || self.to.is_empty() || self.services.is_empty()
    }

    fn meets(&self, rule: &Meant<'_>) -> bool {
        self.services.meets(&rule.services) && self.from.meets(&rule.from) && self.to.meets(&rule.to)
    }

    /// What the rule does not fit, in parts that share nothing.
    fn without(self, rule: &Meant<'_>) -> impl Iterator<Item = Flows> {
        let (from, to) = (self.from.intersection(&rule.from), self.to.intersection(&rule.to));
        let parts = [
            Flows { from: self.from.difference(&rule.from), ..self.clone() },
            Flows { from: from.clone(), to: self.to.difference(&rule.to), services: self.services.clone() },
            Flows { from, to, services: self.services.difference(&rule.services) },
        ];
        parts.into_iter().filter(|part| !part.is_empty())
    }
}
