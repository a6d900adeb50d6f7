//! May X reach Y, and why: the rules in an admin's words, and what else has to be so that a connection comes about.
//! It answers from what is wanted, not from what is up just now.

mod end;
mod judge;
mod outside;
#[cfg(test)]
mod tests;

use super::{Registry, RegistryError, Rule, Scope, Selector};
use crate::space::Services;
use end::End;
use gatewrt_protocol::{RuleId, Service, Verdict};
use judge::judge;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether X may reach Y.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckAnswer {
    /// Whether all of X may open connections to all of Y.
    pub allowed: bool,
    /// What decides, in a sentence.
    pub why: String,
    /// How that was found, step by step.
    pub steps: Vec<String>,
    /// The rule that decides, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rule: Option<RuleId>,
}

/// What speaks for it and what against, as found so far.
#[derive(Debug, Default)]
struct Findings {
    steps: Vec<String>,
    yes: Vec<(String, Option<RuleId>)>,
    no: Vec<(String, Option<RuleId>)>,
}

impl Findings {
    fn yes(&mut self, why: String, rule: Option<RuleId>) {
        self.steps.push(why.clone());
        self.yes.push((why, rule));
    }

    fn no(&mut self, why: String, rule: Option<RuleId>) {
        self.steps.push(why.clone());
        self.no.push((why, rule));
    }

    fn answer(mut self) -> CheckAnswer {
        let allowed = self.no.is_empty();
        let partly = !allowed && !self.yes.is_empty();
        let decisive = if allowed { &mut self.yes } else { &mut self.no };
        let (why, rule) = if decisive.is_empty() { (String::new(), None) } else { decisive.remove(0) };
        let why = if partly { format!("not all of it: {why}") } else { why };
        CheckAnswer { allowed, why, steps: self.steps, rule }
    }
}

impl Registry {
    /// Whether `from` may open connections to `to`, for a service or every one. Both are selectors or bare names.
    pub fn check(
        &self,
        net: &str,
        from: &str,
        to: &str,
        service: Option<Service>,
        now: u64,
    ) -> Result<CheckAnswer, RegistryError> {
        let network = self.find_network(net)?;
        let scope = Scope::new(self, network.id);
        let source = End::new(self, &scope, self.selector_or_name(net, from)?);
        let target = End::new(self, &scope, self.selector_or_name(net, to)?);
        let mut found = Findings::default();
        found.steps.extend(source.steps().chain(target.steps()));
        if target.is_outside() {
            self.judge_outside(&source, &target, now, &mut found);
            return Ok(found.answer());
        }
        source.barred(now, false).chain(target.barred(now, true)).for_each(|why| found.no(why, None));
        let (usable_from, usable_to) = (source.usable(now, false), target.usable(now, true));
        match source.shares_place_with(&target) {
            _ if usable_from.is_empty() || usable_to.is_empty() => {}
            Some(place) => {
                let why =
                    format!("both are at {place}: what goes between them stays there, and no rule is asked");
                found.yes(why, None);
            }
            None => {
                let services = Services::of(service.as_slice());
                let rules = self.judged(&scope, network.id);
                let judgement = judge(&rules, usable_from, usable_to, services)?;
                self.tell(&judgement, network.access, &mut found);
            }
        }
        Ok(found.answer())
    }

    fn judged(&self, scope: &Scope<'_>, net: gatewrt_protocol::NetworkId) -> Vec<judge::Meant<'_>> {
        let rules = self.rules(net).into_iter().filter(|rule| rule.enabled);
        let meant = |rule| judge::Meant {
            rule,
            from: scope.addresses(&rule.from),
            to: scope.addresses(&rule.to),
            services: Services::of(&rule.services),
        };
        rules.map(meant).collect()
    }

    fn tell(&self, judgement: &judge::Judgement<'_>, default: Verdict, found: &mut Findings) {
        if judgement.no_family {
            return found.no("one has IPv4 addresses only and the other IPv6: they can't talk".into(), None);
        }
        for rule in &judgement.denied {
            found.no(format!("{} denies it", self.rule_text(rule)), Some(rule.id));
        }
        for rule in &judgement.allowed {
            found.yes(format!("{} allows it", self.rule_text(rule)), Some(rule.id));
        }
        let rest = if judgement.denied.is_empty() && judgement.allowed.is_empty() {
            "no rule says anything of it"
        } else {
            "no rule says anything of the rest"
        };
        match default {
            _ if !judgement.rest => {}
            Verdict::Allow => {
                found.yes(format!("{rest}, and what no rule denies is allowed in this network"), None)
            }
            Verdict::Deny => {
                found.no(format!("{rest}, and what no rule allows is denied in this network"), None)
            }
        }
    }

    /// A rule on one line.
    pub fn rule_text(&self, rule: &Rule) -> String {
        let side = |selectors: &[Selector]| {
            selectors.iter().map(|selector| self.selector_text(selector)).collect::<Vec<_>>().join(", ")
        };
        let verdict = if rule.verdict == Verdict::Allow { "allow" } else { "deny" };
        let services: String = rule.services.iter().map(|service| format!(" {service}")).collect();
        format!("rule {} ({verdict} {} → {}{services})", rule.id, side(&rule.from), side(&rule.to))
    }
}
