//! Check of access: may X reach Y, and why. It explains the rules in an admin's words, and everything else
//! that a connection needs. It works on the settings, not on the current state of links.

mod end;
mod evaluate;
mod outside;
#[cfg(test)]
mod tests;

use super::{Registry, RegistryError, Rule, Selector, SelectorContext};
use crate::sets::ServiceSet;
use end::End;
use evaluate::evaluate;
use gatewrt_protocol::{RuleId, Service, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer to a check if one end may open connections to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckAnswer {
    /// Set if all of X may open connections to all of Y.
    pub allowed: bool,
    /// Decisive reason, in one sentence.
    pub why: String,
    /// Steps that led to the answer.
    pub steps: Vec<String>,
    /// Rule that decides, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rule: Option<RuleId>,
}

/// Reasons for and against access, as the check has found them so far.
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
    /// Checks if `from` may open connections to `to`, for one service or every one. Both are selectors or bare names.
    pub fn check(
        &self,
        net: &str,
        from: &str,
        to: &str,
        service: Option<Service>,
        now: u64,
    ) -> Result<CheckAnswer, RegistryError> {
        let network = self.find_network(net)?;
        let context = SelectorContext::new(self, network.id);
        let source = End::new(self, &context, self.selector_or_name(net, from)?);
        let target = End::new(self, &context, self.selector_or_name(net, to)?);
        let mut found = Findings::default();
        found.steps.extend(source.steps().chain(target.steps()));
        if target.is_outside() {
            self.evaluate_outside(&source, &target, now, &mut found);
            return Ok(found.answer());
        }
        source.obstacles(now, false).chain(target.obstacles(now, true)).for_each(|why| found.no(why, None));
        let (usable_from, usable_to) = (source.usable(now, false), target.usable(now, true));
        match source.shared_location(&target) {
            _ if usable_from.is_empty() || usable_to.is_empty() => {}
            Some(location) => {
                let why = format!(
                    "both are at {location}: traffic between them stays there, and rules do not apply"
                );
                found.yes(why, None);
            }
            None => {
                let services = ServiceSet::of(service.as_slice());
                let rules = self.resolved_rules(&context, network.id);
                let decision = evaluate(&rules, usable_from, usable_to, services)?;
                self.report(&decision, network.access, &mut found);
            }
        }
        Ok(found.answer())
    }

    fn resolved_rules(
        &self,
        context: &SelectorContext<'_>,
        net: gatewrt_protocol::NetworkId,
    ) -> Vec<evaluate::ResolvedRule<'_>> {
        let rules = self.rules(net).into_iter().filter(|rule| rule.enabled);
        let meant = |rule| evaluate::ResolvedRule {
            rule,
            from: context.addresses(&rule.from),
            to: context.addresses(&rule.to),
            services: ServiceSet::of(&rule.services),
        };
        rules.map(meant).collect()
    }

    fn report(&self, decision: &evaluate::Decision<'_>, default: Verdict, found: &mut Findings) {
        if decision.no_family {
            return found.no("one has IPv4 addresses only and the other IPv6: they can't talk".into(), None);
        }
        for rule in &decision.denied {
            found.no(format!("{} denies it", self.rule_text(rule)), Some(rule.id));
        }
        for rule in &decision.allowed {
            found.yes(format!("{} allows it", self.rule_text(rule)), Some(rule.id));
        }
        let rest = if decision.denied.is_empty() && decision.allowed.is_empty() {
            "no rule matches"
        } else {
            "no rule matches the rest"
        };
        match default {
            _ if !decision.rest => {}
            Verdict::Allow => found.yes(format!("{rest}, and this network allows what no rule denies"), None),
            Verdict::Deny => found.no(format!("{rest}, and this network denies what no rule allows"), None),
        }
    }

    /// Text of an access rule on one line.
    pub fn rule_text(&self, rule: &Rule) -> String {
        let side = |selectors: &[Selector]| {
            selectors.iter().map(|selector| self.selector_text(selector)).collect::<Vec<_>>().join(", ")
        };
        let verdict = if rule.verdict == Verdict::Allow { "allow" } else { "deny" };
        let services: String = rule.services.iter().map(|service| format!(" {service}")).collect();
        format!("rule {} ({verdict} {} → {}{services})", rule.id, side(&rule.from), side(&rule.to))
    }
}
