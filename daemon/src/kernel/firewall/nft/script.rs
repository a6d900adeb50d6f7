//! Text of our firewall table for `nft -f`, whole or as a change. It ends at the words of nft; `plan` decides on rules.

use crate::{
    model::{
        AddressPair, AddressRange, Addresses, BaseChain, Chain, ChainPolicy, ChainType, CtState, Family,
        FirewallRule, FirewallSet, FirewallTable, Hook, Interfaces, Mark, Match, Op, Priority, SetElement,
        SetKind, Statement, Transport, protocol_number,
    },
    ownership::NFT_TABLE,
    plan::TableChange,
};
use std::fmt::Display;

/// `nft` script that puts a firewall table in place of the one that is there, in one transaction.
pub fn replacement(table: &FirewallTable) -> String {
    // Declared first: to delete a table that is not there is an error.
    format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n{}", declaration(table))
}

/// `nft` script that changes our firewall table in place, in one transaction.
pub fn change(change: &TableChange) -> String {
    let mut text = String::new();
    for change in &change.elements {
        text += &elements_command("delete", &change.set.0, &change.remove);
        text += &elements_command("add", &change.set.0, &change.add);
    }
    // Emptied before they are filled again or deleted: chains that go may jump to each other.
    change.flush.iter().for_each(|chain| text += &command("flush", "chain", &chain.0));
    if !(change.write.sets.is_empty() && change.write.chains.is_empty()) {
        text += &declaration(&change.write);
    }
    // Chains first: their rules use the sets.
    change.delete_chains.iter().for_each(|chain| text += &command("delete", "chain", &chain.0));
    change.delete_sets.iter().for_each(|set| text += &command("delete", "set", &set.0));
    text
}

fn command(verb: &str, kind: &str, name: &str) -> String {
    format!("{verb} {kind} inet {NFT_TABLE} {name}\n")
}

fn elements_command(verb: &str, set: &str, elements: &[SetElement]) -> String {
    if elements.is_empty() {
        return String::new();
    }
    let elements: Vec<String> = elements.iter().map(element).collect();
    format!("{verb} element inet {NFT_TABLE} {set} {{ {} }}\n", elements.join(", "))
}

fn declaration(table: &FirewallTable) -> String {
    let mut parts: Vec<String> = table.sets.iter().map(set).collect();
    parts.extend(table.chains.iter().map(chain));
    format!("table inet {NFT_TABLE} {{\n{}}}\n", parts.join("\n"))
}

fn set(set: &FirewallSet) -> String {
    let addresses = |family: &Family| format!("ipv{}_addr", digit(*family));
    let pairs = |family: &Family| format!("{0} . {0}", addresses(family));
    let kind = match &set.kind {
        SetKind::Interfaces => "ifname\n".to_owned(),
        SetKind::Addresses(family) => addresses(family) + INTERVAL,
        SetKind::Pairs(family) => pairs(family) + INTERVAL,
        SetKind::Services(family) => pairs(family) + " . inet_proto . inet_service" + INTERVAL,
    };
    let mut text = format!("\tset {} {{\n\t\ttype {kind}\t\telements = {{\n", set.name);
    for each in &set.elements {
        text = text + "\t\t\t" + &element(each) + ",\n";
    }
    text + "\t\t}\n\t}\n"
}

/// Ends the line of a set's type. Without it nft takes no ranges.
const INTERVAL: &str = "\n\t\tflags interval\n";

fn element(element: &SetElement) -> String {
    match element {
        SetElement::Interface(name) => format!("\"{name}\""),
        SetElement::Range(addresses) => range(addresses),
        SetElement::Pair(AddressPair { from, to, service: None }) => {
            format!("{} . {}", range(from), range(to))
        }
        SetElement::Pair(AddressPair { from, to, service: Some(service) }) => {
            let proto = protocol_number(service.proto, Family::of_addr(to.first));
            let ports = span(&service.first, &service.last);
            format!("{} . {} . {proto} . {ports}", range(from), range(to))
        }
    }
}

fn range(AddressRange { first, last }: &AddressRange) -> String {
    span(first, last)
}

fn span<T: Display + PartialEq>(first: &T, last: &T) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn chain(chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name);
    if let Some(base) = &chain.base {
        text = text + "\t\t" + &header(base) + "\n";
    }
    for each in &chain.rules {
        text = text + "\t\t" + &rule(each) + "\n";
    }
    text + "\t}\n"
}

fn header(base: &BaseChain) -> String {
    let kind = match base.kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
        ChainType::Route => "route",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    let priority = match (base.priority, base.hook) {
        (Priority::Mangle, _) => "mangle",
        // nft knows the name `dstnat` at this hook alone.
        (Priority::BeforeDstNat, Hook::Prerouting) => "dstnat - 5",
        (Priority::BeforeDstNat, _) => "-105",
        (Priority::Filter, _) => "filter",
        (Priority::SrcNat, _) => "srcnat",
    };
    let policy = match base.policy {
        ChainPolicy::Accept => "accept",
        ChainPolicy::Drop => "drop",
    };
    format!("type {kind} hook {hook} priority {priority}; policy {policy};")
}

fn rule(rule: &FirewallRule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(condition).collect();
    words.extend(rule.statements.iter().map(statement));
    words.extend(rule.comment.as_ref().map(|comment| format!("comment \"{comment}\"")));
    words.join(" ")
}

fn condition(condition: &Match) -> String {
    match condition {
        Match::Iif(op, names) => format!("iifname {}{}", not(*op), interfaces(names)),
        Match::Oif(op, names) => format!("oifname {}{}", not(*op), interfaces(names)),
        Match::CameIn => "iif != 0".to_owned(),
        Match::Family(family) => format!("meta nfproto ipv{}", digit(*family)),
        Match::Saddr(addresses) => side("saddr", addresses),
        Match::Daddr(addresses) => side("daddr", addresses),
        Match::Pair(family, set) => format!("{0} saddr . {0} daddr @{set}", ip(*family)),
        Match::Service(family, set) => {
            format!("{0} saddr . {0} daddr . meta l4proto . th dport @{set}", ip(*family))
        }
        Match::ToRouter(op) => format!("fib daddr type {}local", not(*op)),
        Match::CtState(state) => format!("ct state {}", ct_state(*state)),
        Match::CtOriginal => "ct direction original".to_owned(),
        Match::CtDnat => "ct status dnat".to_owned(),
        Match::CtReplyDaddr(prefix) => format!("ct reply {} daddr {prefix}", ip(Family::of(prefix))),
        Match::CtMark(op, mark) => format!("ct mark {}", has_mark(*op, *mark)),
        Match::Mark(op, mark) => format!("meta mark {}", has_mark(*op, *mark)),
        Match::Dport(Transport::Tcp, port) => format!("tcp dport {port}"),
        Match::Dport(Transport::Udp, port) => format!("udp dport {port}"),
        Match::UdpPorts(from, to) => format!("udp sport {from} udp dport {to}"),
        Match::Icmpv6(first, last) => format!("icmpv6 type {}", span(first, last)),
        Match::TcpSyn => "tcp flags syn".to_owned(),
        Match::TcpNotFirst => "tcp flags & (fin | syn | rst | ack) != syn".to_owned(),
    }
}

fn statement(statement: &Statement) -> String {
    match statement {
        Statement::Accept => "accept".to_owned(),
        Statement::Drop => "drop".to_owned(),
        Statement::Reject => "reject with icmpx type admin-prohibited".to_owned(),
        Statement::RejectReset => "reject with tcp reset".to_owned(),
        Statement::Return => "return".to_owned(),
        Statement::Jump(chain) => format!("jump {chain}"),
        Statement::Goto(chain) => format!("goto {chain}"),
        Statement::SetMark(mark) => format!("meta mark set meta mark {}", set_bits(*mark)),
        Statement::SetCtMark(mark) => format!("ct mark set ct mark {}", set_bits(*mark)),
        Statement::AddCtMark(bits) => format!("ct mark set ct mark | {bits:#010x}"),
        Statement::ClampMss => "tcp option maxseg size set rt mtu".to_owned(),
        Statement::SetMss(bytes) => format!("tcp option maxseg size set {bytes}"),
        Statement::Masquerade => "masquerade".to_owned(),
        Statement::Snat(addr) => format!("snat {} to {addr}", ip(Family::of_addr(*addr))),
        Statement::Dnat(addr) => format!("dnat {} to {addr}", ip(Family::of_addr(*addr))),
    }
}

fn not(op: Op) -> &'static str {
    match op {
        Op::Is => "",
        Op::IsNot => "!= ",
    }
}

fn interfaces(names: &Interfaces) -> String {
    match names {
        Interfaces::One(name) => format!("\"{name}\""),
        Interfaces::Set(set) => format!("@{set}"),
    }
}

fn side(side: &str, addresses: &Addresses) -> String {
    match addresses {
        Addresses::Prefix(prefix) => format!("{} {side} {prefix}", ip(Family::of(prefix))),
        Addresses::Set(family, set) => format!("{} {side} @{set}", ip(*family)),
    }
}

fn ct_state(state: CtState) -> &'static str {
    match state {
        CtState::Established => "established,related",
        CtState::NotEstablished => "new,invalid,untracked",
        CtState::New => "new",
        CtState::Invalid => "invalid",
    }
}

fn has_mark(op: Op, Mark { value, mask }: Mark) -> String {
    let op = match op {
        Op::Is => "==",
        Op::IsNot => "!=",
    };
    format!("& {mask:#010x} {op} {value:#010x}")
}

fn set_bits(Mark { value, mask }: Mark) -> String {
    format!("& {:#010x} | {value:#010x}", !mask)
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}
