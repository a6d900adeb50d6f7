//! The part of our firewall table that judges new connections of one network: sets with what is denied, what is
//! allowed and whose Internet traffic goes out, and the chains that ask them.

use super::{
    Guard,
    access::{Block, INTERNET6, NOT_INTERNET, PairSet, number, spans},
    ruleset::{REJECT, STANDS, chain, to},
};
use crate::{
    gather::Gather,
    model::{Family, IfName},
    sorted::SortedSet,
};
use gatewrt_protocol::{Service, Verdict};
use std::fmt;

/// A connection is judged by its first packet. When the kernel forgot one that is forbidden meanwhile, the next
/// answer would open it anew, the other way round.
const BEGUN: &str =
    "tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset comment \"begun before\"";

/// Whether there is such a part: where everything is allowed and no client is here, there is not.
pub(super) fn is_needed(guard: &Guard) -> bool {
    !guard.is_open() || guard.lets_out()
}

/// Sets and chains of an interface whose `uplinks` are none of ours.
pub(super) fn parts(link: &IfName, guard: &Guard, uplinks: &SortedSet<IfName>) -> [Vec<String>; 2] {
    let (mut sets, mut rules) = (Vec::new(), vec![STANDS.to_owned()]);
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    for set in PairSet::of(guard) {
        let asked = format!("{} @{}", key(&set), name(&set, link));
        match set.verdict {
            Verdict::Deny => denied.push(format!("{asked} {REJECT} comment \"denied\"")),
            Verdict::Allow => allowed.push(format!("{asked} return")),
        }
        sets.push(pair_set(&set, link));
    }
    if !guard.is_open() {
        rules.push(BEGUN.to_owned());
    }
    rules.extend(denied);
    for source in sources(link, guard) {
        let jump = |uplink| format!("{source} oifname \"{uplink}\" jump internet-{link}");
        rules.extend(uplinks.iter().map(jump));
    }
    if guard.access.default == Verdict::Deny {
        rules.extend(allowed);
        rules.push(format!("{REJECT} comment \"not allowed\""));
    }
    let mut chains = vec![chain(&format!("access-{link}"), rules)];
    if guard.lets_out() {
        sets.extend(families(guard).map(|family| internet_set(family, link, guard)));
        chains.push(internet_chain(link, guard));
    }
    [sets, chains]
}

/// Who may go out to the Internet, as a rule asks for it: once a family.
pub(super) fn sources(link: &IfName, guard: &Guard) -> impl Iterator<Item = String> {
    let source = move |family| format!("{} saddr @internet-{}-{link}", ip(family), digit(family));
    families(guard).filter(|_| guard.lets_out()).map(source)
}

fn families(guard: &Guard) -> impl Iterator<Item = Family> {
    let has = |family: &Family| guard.internet.iter().any(|prefix| Family::of(prefix) == *family);
    Family::ALL.into_iter().filter(has)
}

/// The Internet is what is left over: what is served is the network's, whoever else knows it. What belongs to no
/// connection, as after a change of exits, would not be masqueraded.
fn internet_chain(link: &IfName, guard: &Guard) -> String {
    let mut rules = vec!["ct state invalid drop".to_owned()];
    rules.extend(guard.served().map(|prefix| format!("{} return", to(prefix))));
    rules.extend(NOT_INTERNET.iter().map(|range| format!("ip daddr {range} return")));
    rules.push("meta nfproto ipv4 accept".to_owned());
    rules.push(format!("ip6 daddr {INTERNET6} accept"));
    chain(&format!("internet-{link}"), rules)
}

fn internet_set(family: Family, link: &IfName, guard: &Guard) -> String {
    let elements = spans(&mut guard.internet.iter(), family).into_iter().map(range).gather();
    let digit = digit(family);
    set(&format!("internet-{digit}-{link}"), &format!("ipv{digit}_addr"), elements)
}

fn pair_set(pairs: &PairSet, link: &IfName) -> String {
    let service = if pairs.services { " . inet_proto . inet_service" } else { "" };
    let digit = digit(pairs.family);
    let kind = format!("ipv{digit}_addr . ipv{digit}_addr{service}");
    set(&name(pairs, link), &kind, pairs.blocks.iter().map(element).gather())
}

fn name(pairs: &PairSet, link: &IfName) -> String {
    let verdict = match pairs.verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    };
    let side = if pairs.by_source { "from" } else { "to" };
    let services = if pairs.services { "services-" } else { "" };
    format!("{verdict}-{side}-{}-{services}{link}", digit(pairs.family))
}

fn key(pairs: &PairSet) -> String {
    let ip = ip(pairs.family);
    let service = if pairs.services { " . meta l4proto . th dport" } else { "" };
    format!("{ip} saddr . {ip} daddr{service}")
}

fn element(block: &Block) -> String {
    let service = |Service { proto, first, last }| {
        format!(" . {} . {}", number(proto, block.to.0.is_ipv4()), range((first, last)))
    };
    let service = block.service.map(service).unwrap_or_default();
    format!("{} . {}{service}", range(block.from), range(block.to))
}

pub(super) fn range<T: fmt::Display + PartialEq>((first, last): (T, T)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

pub(super) fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// An element a line: so are they compared when the table changes.
pub(super) fn set(name: &str, kind: &str, elements: Vec<String>) -> String {
    let elements: String = elements.into_iter().map(|element| format!("\t\t\t{element},\n")).collect();
    format!(
        "\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\telements = {{\n{elements}\t\t}}\n\t}}\n"
    )
}
