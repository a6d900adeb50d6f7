//! The part of our firewall table that judges new connections of one network: sets with what is denied, what is
//! allowed and whose Internet traffic goes out, and the chains that ask them.

use super::{
    Guard,
    access::{Block, INTERNET6, NOT_INTERNET, PairSet, number},
    ruleset::STANDS,
    text::{Text, asked, digit, ip, range, to},
};
use crate::model::IfName;
use gatewrt_protocol::{Service, Verdict};
use std::net::IpAddr;

/// A connection is judged by its first packet. When the kernel forgot one that is forbidden meanwhile, the next
/// answer would open it anew, the other way round.
const BEGUN: &str =
    "tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset comment \"begun before\"";

/// Whether there is such a part: where everything is allowed and no client is here, there is not.
pub(super) fn is_needed(guard: &Guard) -> bool {
    !guard.is_open() || guard.lets_out()
}

/// What is to be judged by.
pub(super) struct Judged<'a> {
    link: &'a str,
    guard: &'a Guard,
    /// Where the Internet is: none of ours.
    uplinks: Vec<&'a IfName>,
    pairs: Vec<PairSet>,
}

impl<'a> Judged<'a> {
    pub(super) fn new(link: &'a IfName, guard: &'a Guard, uplinks: Vec<&'a IfName>) -> Self {
        Self { link: link.as_str(), guard, uplinks, pairs: PairSet::of(guard) }
    }

    pub(super) fn sets(&self, text: &mut Text<'_>) {
        for pairs in &self.pairs {
            let (digit, service) = (digit(pairs.family), if pairs.services { SERVICE } else { "" });
            let kind = format!("ipv{digit}_addr . ipv{digit}_addr{service}");
            text.set(&name(pairs, self.link), &kind, &mut pairs.blocks.iter().map(element));
        }
        if self.guard.lets_out() {
            text.prefix_sets("internet", self.link, &self.guard.internet);
        }
    }

    pub(super) fn chains(&self, text: &mut Text<'_>) {
        text.chain("access-$1", &[self.link]);
        text.rule(STANDS, &[]);
        if !self.guard.is_open() {
            text.rule(BEGUN, &[]);
        }
        self.ask(text, Verdict::Deny, "$1 @$2 $r comment \"denied\"");
        for source in sources(self.link, self.guard) {
            for uplink in &self.uplinks {
                let words = [&source, uplink.as_str(), self.link];
                text.rule("$1 oifname \"$2\" jump internet-$3", &words);
            }
        }
        if self.guard.access.default == Verdict::Deny {
            self.ask(text, Verdict::Allow, "$1 @$2 return");
            text.rule("$r comment \"not allowed\"", &[]);
        }
        if self.guard.lets_out() {
            self.internet(text);
        }
    }

    fn ask(&self, text: &mut Text<'_>, verdict: Verdict, rule: &str) {
        for pairs in self.pairs.iter().filter(|pairs| pairs.verdict == verdict) {
            text.rule(rule, &[&key(pairs), &name(pairs, self.link)]);
        }
    }

    /// The Internet is what is left over: what is served is the network's, whoever else knows it. What belongs to no
    /// connection, as after a change of exits, would not be masqueraded.
    fn internet(&self, text: &mut Text<'_>) {
        text.chain("internet-$1", &[self.link]);
        text.rule("ct state invalid drop", &[]);
        for prefix in self.guard.served() {
            text.rule("$1 return", &[&to(prefix)]);
        }
        for range in NOT_INTERNET {
            text.rule("ip daddr $1 return", &[range]);
        }
        text.rule("meta nfproto ipv4 accept", &[]);
        text.rule("ip6 daddr $1 accept", &[INTERNET6]);
    }
}

/// Who may go out to the Internet, as a rule asks for it: once a family.
pub(super) fn sources(link: &str, guard: &Guard) -> Vec<String> {
    if guard.lets_out() { asked("saddr", "internet", link, &guard.internet) } else { Vec::new() }
}

/// In the type of a set.
const SERVICE: &str = " . inet_proto . inet_service";

fn name(pairs: &PairSet, link: &str) -> String {
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
    let service = |Service { proto, first, last }: Service| {
        format!(" . {} . {}", number(proto, block.to.0.is_ipv4()), range(&first, &last))
    };
    let service = block.service.map(service).unwrap_or_default();
    let side = |(first, last): (IpAddr, IpAddr)| range(&first, &last);
    format!("{} . {}{service}", side(block.from), side(block.to))
}
