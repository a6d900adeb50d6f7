//! Access rules that a node had before the coordinator was set back. Where they are stricter than those that follow from the
//! registry, the node gets rules that allow just what both allow: what was closed after the backup does not open by itself.

use super::{PrefixRule, by_family, joined, record};
use crate::sets::{AddressSet, ServiceSet};
use gatewrt_protocol::{Access, AccessRule, Verdict};

/// Largest number of pairs of rules that are worked out. Beyond, what only a part of two rules allows is denied.
const PAIRS: usize = 10_000;

/// Difference between earlier access rules and those of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// They allow the same.
    Same,
    /// The earlier ones deny nothing more, and allow more.
    Looser,
    /// The earlier ones deny something that those of now allow.
    Stricter,
}

pub(super) fn compared(now: &Access, earlier: &Access) -> Compared {
    let both = both(now, earlier);
    if now == earlier || (is_the_same(&both, now) && is_the_same(&both, earlier)) {
        Compared::Same
    } else if is_the_same(&both, now) {
        Compared::Looser
    } else {
        Compared::Stricter
    }
}

/// Access rules of now, as narrowed by earlier ones that a node keeps to; the same to the byte if that changes nothing.
pub(super) fn with_kept(now: Access, earlier: &Access) -> Access {
    let both = both(&now, earlier);
    if is_the_same(&both, &now) { now } else { both }
}

/// True if access rules are those that two allow of which one is these.
fn is_the_same(both: &Access, one: &Access) -> bool {
    *both == self::both(one, one)
}

/// Access rules that allow what both allow, and nothing else.
fn both(one: &Access, other: &Access) -> Access {
    let (first, second) = (Verdicts::of(one), Verdicts::of(other));
    let allowed = match (one.default, other.default) {
        (Verdict::Allow, Verdict::Allow) => Vec::new(),
        (Verdict::Deny, Verdict::Allow) => first.allowed,
        (Verdict::Allow, Verdict::Deny) => second.allowed,
        (Verdict::Deny, Verdict::Deny) => pairs(&first.allowed, &second.allowed),
    };
    let rules = first.denied.into_iter().chain(second.denied).chain(allowed).collect();
    record(one.default.max(other.default), joined(without_covered(rules)))
}

/// Rules of a record by their verdict.
struct Verdicts {
    allowed: Vec<PrefixRule>,
    denied: Vec<PrefixRule>,
}

impl Verdicts {
    fn of(access: &Access) -> Self {
        let set = |index: u32| -> AddressSet {
            let set = usize::try_from(index).ok().and_then(|index| access.sets.get(index));
            set.into_iter().flatten().copied().collect()
        };
        let rule = |rule: &AccessRule| PrefixRule {
            verdict: rule.verdict,
            from: set(rule.from),
            to: set(rule.to),
            services: ServiceSet::of(&rule.services),
        };
        let rules = access.rules.iter().map(rule).filter_map(by_family);
        let (allowed, denied) = rules.partition(|rule| rule.verdict == Verdict::Allow);
        Self { allowed, denied }
    }
}

/// Rules that allow what a rule of each side allows.
fn pairs(first: &[PrefixRule], second: &[PrefixRule]) -> Vec<PrefixRule> {
    let are_few = first.len().saturating_mul(second.len()) <= PAIRS;
    let pair = |one: &PrefixRule, other: &PrefixRule| {
        let services = one.services.intersection(&other.services);
        let rule = PrefixRule {
            verdict: Verdict::Allow,
            from: one.from.intersection(&other.from),
            to: one.to.intersection(&other.to),
            services,
        };
        let is_whole = rule == *one || rule == *other;
        by_family(rule).filter(|rule| !rule.services.is_empty() && (are_few || is_whole))
    };
    first.iter().flat_map(|one| second.iter().filter_map(move |other| pair(one, other))).collect()
}

/// Rules without those that another one covers.
fn without_covered(mut rules: Vec<PrefixRule>) -> Vec<PrefixRule> {
    rules.sort_unstable();
    rules.dedup();
    let is_covered = |rule: &PrefixRule| rules.iter().any(|other| other != rule && covers(other, rule));
    let covered: Vec<bool> = rules.iter().map(is_covered).collect();
    rules.into_iter().zip(covered).filter(|(_, covered)| !covered).map(|(rule, _)| rule).collect()
}

fn covers(one: &PrefixRule, other: &PrefixRule) -> bool {
    one.verdict == other.verdict
        && one.from.covers(&other.from)
        && one.to.covers(&other.to)
        && other.services.difference(&one.services).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::access::tests::decision;
    use gatewrt_protocol::{Prefix, Proto, Service};
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// Verdict, sources, destinations and services of a rule.
    type RuleText<'a> = (Verdict, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

    fn access(default: Verdict, rules: &[RuleText<'_>]) -> Access {
        let mut access = Access { default, ..Access::default() };
        let set = |access: &mut Access, prefixes: &[&str]| {
            access.sets.push(prefixes.iter().map(|text| text.parse::<Prefix>().unwrap()).collect());
            access.sets.len() as u32 - 1
        };
        for (verdict, from, to, services) in rules {
            let (from, to) = (set(&mut access, from), set(&mut access, to));
            let services = services.iter().map(|text| text.parse::<Service>().unwrap()).collect();
            access.rules.push(AccessRule { verdict: *verdict, from, to, services });
        }
        access
    }

    use Verdict::{Allow, Deny};

    const PHONES: &[&str] = &["10.9.1.0/24"];
    const LAN: &[&str] = &["192.168.1.0/24"];

    #[test]
    fn added_denial_or_missing_permission_is_stricter() {
        let open = Access::default();
        let closed = access(Deny, &[]);
        let denial = access(Allow, &[(Deny, PHONES, LAN, &[])]);
        let web = access(Deny, &[(Allow, PHONES, LAN, &["tcp/80"])]);
        let more = access(Deny, &[(Allow, PHONES, LAN, &["tcp/80-90"])]);
        for (now, earlier) in
            [(&open, &denial), (&open, &closed), (&web, &closed), (&more, &web), (&denial, &web)]
        {
            assert_eq!(compared(now, earlier), Compared::Stricter, "{now:?} {earlier:?}");
            assert_ne!(with_kept(now.clone(), earlier), *now);
        }
        for (now, earlier) in [(&denial, &open), (&closed, &web), (&web, &more), (&closed, &open)] {
            assert_eq!(compared(now, earlier), Compared::Looser, "{now:?} {earlier:?}");
            assert_eq!(with_kept(now.clone(), earlier), *now);
        }
        let half: &[&str] = &["192.168.1.0/25"];
        let parts = access(Deny, &[(Allow, PHONES, half, &["tcp/80"]), (Allow, PHONES, LAN, &["tcp/80"])]);
        for (now, earlier) in [(&open, &open), (&web, &web), (&web, &parts), (&parts, &web)] {
            assert_eq!(compared(now, earlier), Compared::Same, "{now:?} {earlier:?}");
        }
    }

    #[test]
    fn too_many_pairs_deny_what_parts_of_rules_allow() {
        let rule = |number: usize| -> PrefixRule {
            let from: Prefix = format!("10.0.{}.{}/32", number / 200, number % 200).parse().unwrap();
            let to: Prefix = "192.168.1.0/24".parse().unwrap();
            PrefixRule {
                verdict: Allow,
                from: [from].into_iter().collect(),
                to: [to].into_iter().collect(),
                services: ServiceSet::every(),
            }
        };
        let many: Vec<PrefixRule> = (0..200).map(rule).collect();
        let wide = PrefixRule {
            from: ["10.0.0.0/25".parse::<Prefix>().unwrap()].into_iter().collect(),
            to: ["192.168.0.0/16".parse::<Prefix>().unwrap()].into_iter().collect(),
            ..rule(0)
        };
        let part = PrefixRule {
            to: ["192.168.1.0/25".parse::<Prefix>().unwrap()].into_iter().collect(),
            ..wide.clone()
        };
        let others = [vec![wide], vec![part; 60]].concat();
        let allowed = pairs(&many, &others);
        assert!(allowed.iter().all(|rule| many.contains(rule)), "wholly inside one of the others");
        assert_eq!(allowed.len(), 128);
    }

    fn any_access() -> impl Strategy<Value = Access> {
        let addresses = || {
            proptest::sample::subsequence(
                vec!["10.0.0.0/30", "10.0.0.2/31", "10.0.0.5/32", "fd00::1/128"],
                1..3,
            )
        };
        let services = proptest::sample::subsequence(vec!["tcp/80", "tcp/80-443", "udp", "icmp"], 0..3);
        let verdict = || prop_oneof![Just(Allow), Just(Deny)];
        let rule = (verdict(), addresses(), addresses(), services);
        (verdict(), proptest::collection::vec(rule, 0..5)).prop_map(|(default, rules)| {
            let rules: Vec<_> = rules
                .iter()
                .map(|(verdict, from, to, services)| (*verdict, &**from, &**to, &**services))
                .collect();
            access(default, &rules)
        })
    }

    proptest! {
        #[test]
        fn kept_rules_allow_what_both_allow(now in any_access(), earlier in any_access()) {
            let kept = with_kept(now.clone(), &earlier);
            let addresses: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.9", "fd00::1"].iter().map(|text| text.parse().unwrap()).collect();
            let mut is_stricter = false;
            for from in &addresses {
                for to in addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
                    for (proto, port) in [(Proto::Tcp, 80), (Proto::Tcp, 99), (Proto::Udp, 5), (Proto::Icmp, 0)] {
                        let verdict = |access: &Access| decision(access, *from, *to, proto, port);
                        prop_assert_eq!(verdict(&kept), verdict(&now).max(verdict(&earlier)));
                        is_stricter |= verdict(&earlier) > verdict(&now);
                    }
                }
            }
            if is_stricter {
                prop_assert_eq!(compared(&now, &earlier), Compared::Stricter);
            }
        }
    }
}
