//! The text of our firewall table in the making: sets and chains, one after the other. What is said has places for words,
//! as the [phrases of iptables](super::iptables) have: a rule is a line here, where a text of its own for each, put together
//! later, takes three times the code. It ends at the words; what the rules are is for those who write them.

use super::access::spans;
use crate::{
    model::Family,
    ownership::{NFT_TABLE, Numbers},
    sorted::SortedSet,
};
use gatewrt_protocol::Prefix;
use std::fmt::{Display, Write};

/// A table's text, as far as it is written.
///
/// In what is said, `$1` to `$9` are the words that come with it, `$m` is the mask of our marks and `$k` all other bits,
/// `$b`, `$q` and `$o` are the marks of what bypasses the networks, is masqueraded and came in from outside; `$r` refuses.
pub(super) struct Text<'a> {
    text: String,
    numbers: &'a Numbers,
    begun: bool,
}

/// What stands before the sets and chains.
pub(super) fn head() -> String {
    format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\ntable inet {NFT_TABLE} {{\n")
}

impl<'a> Text<'a> {
    pub(super) fn new(numbers: &'a Numbers) -> Self {
        Self { text: head(), numbers, begun: false }
    }

    /// A set of intervals. An element a line: so are they compared when the table changes.
    pub(super) fn set(&mut self, name: &str, kind: &str, elements: &mut dyn Iterator<Item = String>) {
        self.begin("set", name, &[]);
        self.say("\t\ttype $1\n\t\tflags interval\n", &[kind]);
        self.elements(elements);
    }

    pub(super) fn elements(&mut self, elements: &mut dyn Iterator<Item = String>) {
        self.text += "\t\telements = {\n";
        elements.for_each(|element| self.say("\t\t\t$1,\n", &[&element]));
        self.text += "\t\t}\n";
    }

    /// A set a family of those that the prefixes have, as [`asked`] names them.
    pub(super) fn prefix_sets(&mut self, what: &str, label: &str, prefixes: &SortedSet<Prefix>) {
        for family in families(prefixes) {
            let (digit, spans) = (digit(family), spans(&mut prefixes.iter(), family));
            let name = format!("{what}-{digit}-{label}");
            let mut elements = spans.into_iter().map(|(first, last)| range(&first, &last));
            self.set(&name, &format!("ipv{digit}_addr"), &mut elements);
        }
    }

    /// A chain that the kernel asks.
    pub(super) fn base(&mut self, name: &str, hook: &str) {
        self.chain("$1", &[name]);
        self.rule("type $1; policy accept;", &[hook]);
    }

    /// A chain that others lead to.
    pub(super) fn chain(&mut self, name: &str, words: &[&str]) {
        self.begin("chain", name, words);
    }

    /// A rule of the chain that was begun last.
    pub(super) fn rule(&mut self, rule: &str, words: &[&str]) {
        self.text += "\t\t";
        self.say(rule, words);
        self.text += "\n";
    }

    pub(super) fn finish(mut self) -> String {
        self.text += "\t}\n}\n";
        self.text
    }

    pub(super) fn begin(&mut self, kind: &str, name: &str, words: &[&str]) {
        self.text += if self.begun { "\t}\n\n" } else { "" };
        self.begun = true;
        self.say("\t$1 ", &[kind]);
        self.say(name, words);
        self.text += " {\n";
    }

    fn say(&mut self, said: &str, words: &[&str]) {
        let mut pieces = said.split('$');
        self.text += pieces.next().unwrap_or_default();
        for piece in pieces {
            let (place, rest) = piece.split_at(1);
            let Numbers { mask, bypass, masquerade, .. } = *self.numbers;
            let number = match place {
                "m" => mask,
                "k" => !mask,
                "b" => bypass,
                "q" => masquerade,
                "o" => self.numbers.outside(),
                _ => 0,
            };
            let word = place.parse().ok().and_then(|place: usize| words.get(place - 1));
            match word {
                Some(word) => self.text += word,
                None if place == "r" => self.text += "reject with icmpx type admin-prohibited",
                None => write!(self.text, "{number:#010x}").expect("a string takes all"),
            }
            self.text += rest;
        }
    }
}

/// How a rule asks for what is in such sets: once a family. `side` is `saddr` or `daddr`.
pub(super) fn asked(side: &str, what: &str, label: &str, prefixes: &SortedSet<Prefix>) -> Vec<String> {
    let mut all = Vec::new();
    for family in families(prefixes) {
        all.push(format!("{} {side} @{what}-{}-{label}", ip(family), digit(family)));
    }
    all
}

fn families(prefixes: &SortedSet<Prefix>) -> SortedSet<Family> {
    prefixes.iter().map(Family::of).collect()
}

pub(super) fn to(prefix: &Prefix) -> String {
    format!("{} daddr {prefix}", ip(Family::of(prefix)))
}

pub(super) fn range(first: &dyn Display, last: &dyn Display) -> String {
    let (first, last) = (first.to_string(), last.to_string());
    if first == last { first } else { format!("{first}-{last}") }
}

pub(super) fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

pub(super) fn digit(family: Family) -> &'static str {
    match family {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}
