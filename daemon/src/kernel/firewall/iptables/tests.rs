use super::{
    compile::LONGEST,
    words::{Words, condition, prefixes},
    *,
};
use crate::model::{
    AddressRange, Addresses, ChainName, CtState, FirewallSet, Mark, SetElement, SetKind, SetName, Transport,
};

fn link(name: &str) -> Interfaces {
    Interfaces::One(IfName::new(name).unwrap())
}

fn from(prefix: &str) -> Match {
    Match::Saddr(Addresses::Prefix(prefix.parse().unwrap()))
}

fn to(prefix: &str) -> Match {
    Match::Daddr(Addresses::Prefix(prefix.parse().unwrap()))
}

fn rule(matches: Vec<Match>, statement: Statement) -> FirewallRule {
    FirewallRule::new(matches, statement)
}

fn chain(name: &str, rules: Vec<FirewallRule>) -> Chain {
    Chain { name: name.into(), base: None, rules }
}

fn base(name: &str, (kind, hook): (ChainType, Hook), rules: Vec<FirewallRule>) -> Chain {
    let base = BaseChain { kind, hook, priority: Priority::Filter, policy: ChainPolicy::Accept };
    Chain { base: Some(base), ..chain(name, rules) }
}

const FORWARD: (ChainType, Hook) = (ChainType::Filter, Hook::Forward);
const POSTROUTING: (ChainType, Hook) = (ChainType::Nat, Hook::Postrouting);

fn table(chains: impl Into<Vec<Chain>>) -> FirewallTable {
    FirewallTable { sets: Vec::new(), chains: chains.into() }
}

fn written(chains: impl Into<Vec<Chain>>, family: Family) -> String {
    script("", &table(chains), family)
}

#[test]
fn range_becomes_the_prefixes_it_consists_of() {
    for (first, last, expected) in [
        ("10.9.0.0", "10.9.255.255", &["10.9.0.0/16"][..]),
        ("10.9.1.2", "10.9.1.3", &["10.9.1.2/31"]),
        ("10.9.1.1", "10.9.1.6", &["10.9.1.1/32", "10.9.1.2/31", "10.9.1.4/31", "10.9.1.6/32"]),
        ("0.0.0.0", "255.255.255.255", &["0.0.0.0/0"]),
        ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"],
        ),
        ("255.255.255.255", "255.255.255.255", &["255.255.255.255/32"]),
        ("fd09::1:2", "fd09::1:2", &["fd09::1:2/128"]),
    ] {
        let range = AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
        assert_eq!(prefixes(&range), expected, "{first}-{last}");
    }
}

#[test]
fn accept_in_our_chain_leaves_ours_alone() {
    let text = written(
        [
            base(
                "forward",
                FORWARD,
                vec![
                    rule(vec![Match::Iif(Op::Is, link("gw-a"))], Statement::Jump("forward-gw-a".into())),
                    rule(vec![Match::Oif(Op::Is, link("gw-a"))], Statement::Drop),
                ],
            ),
            chain(
                "forward-gw-a",
                vec![
                    rule(vec![], Statement::Jump("access-gw-a".into())),
                    rule(vec![to("10.1.0.0/16")], Statement::Accept),
                    rule(vec![], Statement::Drop),
                ],
            ),
            chain(
                "access-gw-a",
                vec![
                    rule(vec![Match::CtState(CtState::Established)], Statement::Accept),
                    rule(vec![from("10.2.0.0/16")], Statement::Return),
                    rule(vec![], Statement::Drop),
                ],
            ),
        ],
        Family::V4,
    );
    let expected = "*filter\n:gwrt-access-gw-a - [0:0]\n:gwrt-forward - [0:0]\n:gwrt-forward-gw-a - [0:0]\n\
        :gwrt-forward-gw-a.2 - [0:0]\n\
        -A gwrt-forward-gw-a.2 -d 10.1.0.0/16 -j RETURN\n-A gwrt-forward-gw-a.2 -j DROP\n\
        -A gwrt-access-gw-a -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n\
        -A gwrt-access-gw-a -s 10.2.0.0/16 -g gwrt-forward-gw-a.2\n-A gwrt-access-gw-a -j DROP\n\
        -A gwrt-access-gw-a -g gwrt-forward-gw-a.2\n\
        -A gwrt-forward-gw-a -g gwrt-access-gw-a\n-A gwrt-forward-gw-a -g gwrt-forward-gw-a.2\n\
        -A gwrt-forward -i gw-a -g gwrt-forward-gw-a\n-A gwrt-forward -o gw-a -j DROP\n\
        -I FORWARD -j gwrt-forward\nCOMMIT\n";
    assert_eq!(text, expected);
}

#[test]
fn chains_of_an_earlier_table_go_in_the_same_commit() {
    let saved = "# Generated\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [3:180]\n:gwrt-forward - [0:0]\n\
        :gwrt-old - [0:0]\n:zone_lan - [0:0]\n-A FORWARD -j zone_lan\n-A FORWARD -j gwrt-forward\n\
        -A gwrt-forward -j gwrt-old\nCOMMIT\n*nat\n:gwrt-x - [0:0]\n-A PREROUTING -j gwrt-x\nCOMMIT\n";
    let drop = rule(vec![Match::Iif(Op::Is, link("gw-a"))], Statement::Drop);
    let both = script(saved, &table([base("forward", FORWARD, vec![drop])]), Family::V4);
    assert_eq!(
        both,
        "*nat\n:gwrt-x - [0:0]\n-D PREROUTING -j gwrt-x\n-X gwrt-x\nCOMMIT\n\
         *filter\n:gwrt-forward - [0:0]\n:gwrt-old - [0:0]\n-D FORWARD -j gwrt-forward\n\
         -A gwrt-forward -i gw-a -j DROP\n-I FORWARD -j gwrt-forward\n-X gwrt-old\nCOMMIT\n"
    );
    let nothing = script(saved, &table([]), Family::V4);
    assert!(nothing.contains("-X gwrt-forward\n-X gwrt-old\nCOMMIT\n"), "{nothing}");
    assert_eq!(script("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", &table([]), Family::V4), "");
    assert_eq!(ours(saved).lines().count(), 6);
}

#[test]
fn negated_interface_with_return_goes_on_with_the_next_rule() {
    let pass = rule(vec![from("10.0.0.0/8"), Match::Iif(Op::IsNot, link("gw-a"))], Statement::Return);
    let text = written([base("forward", FORWARD, vec![pass, rule(vec![], Statement::Drop)])], Family::V4);
    let expected = "-A gwrt-forward.1 -j DROP\n\
        -A gwrt-forward -s 10.0.0.0/8 -g gwrt-other\n\
        -A gwrt-other -i gw-a -g gwrt-forward.1\n-A gwrt-other -j RETURN\n\
        -A gwrt-forward -g gwrt-forward.1\n-I FORWARD -j gwrt-forward\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn reject_outside_of_filter_becomes_drop_in_mangle() {
    let reject = rule(vec![Match::Oif(Op::Is, link("gw-a"))], Statement::Reject);
    let text = written([base("postrouting", POSTROUTING, vec![reject])], Family::V4);
    assert!(
        text.contains("*mangle\n:gwrt-postrouting - [0:0]\n-A gwrt-postrouting -o gw-a -j DROP\n"),
        "{text}"
    );
    assert!(!text.contains("*nat"), "{text}");
}

#[test]
fn rule_of_the_other_family_is_left_out() {
    let drop = |prefix| rule(vec![from(prefix), Match::Dport(Transport::Tcp, 1)], Statement::Drop);
    let chains = [base("forward", FORWARD, vec![drop("10.0.0.0/8"), drop("fd00::/8")])];
    assert!(!written(chains.clone(), Family::V4).contains("fd00"));
    assert!(!written(chains, Family::V6).contains("10.0.0.0"));
}

#[test]
fn set_of_interfaces_becomes_one_match_each() {
    let links = ["br-lan", "lo"].map(|name| SetElement::Interface(IfName::new(name).unwrap()));
    let name = SetName("inside".to_owned());
    let set = FirewallSet { name: name.clone(), kind: SetKind::Interfaces, elements: links.into() };
    let table = FirewallTable { sets: vec![set], chains: Vec::new() };
    let asked = |op| condition(&Match::Oif(op, Interfaces::Set(name.clone())), &table, Family::V4);
    let words = || vec!["-o br-lan".to_owned(), "-o lo".to_owned()];
    assert_eq!((asked(Op::Is), asked(Op::IsNot)), (Words::Any(words()), Words::None(words())));
}

/// Routers with iptables seldom have `nat` for IPv6.
#[test]
fn family_without_masquerading_needs_no_nat() {
    let mark = Mark { value: 0x0200_0000, mask: 0x0f00_0000 };
    let masquerade = vec![Match::CtMark(Op::Is, mark), Match::Oif(Op::IsNot, link("gw-a"))];
    let chains = |prefix: &str| {
        let marked = rule(vec![to(prefix)], Statement::SetCtMark(mark)).and(Statement::Return);
        [
            base("postrouting", POSTROUTING, vec![rule(masquerade.clone(), Statement::Masquerade)]),
            chain("mark-gw-a", vec![marked, rule(vec![to("fd20::/64")], Statement::Return)]),
        ]
    };
    assert!(written(chains("10.1.0.0/16"), Family::V4).contains("*nat"));
    assert_eq!(written(chains("10.1.0.0/16"), Family::V6), "");
    assert_eq!(written([base("postrouting", POSTROUTING, vec![])], Family::V4), "");
}

#[test]
fn long_chain_name_is_cut_to_what_the_kernel_takes() {
    let long = ChainName::from("shut-a-scope-with-a-name-of-some-length");
    let jump = rule(vec![], Statement::Jump(long.clone()));
    let chains = [base("forward", FORWARD, vec![jump]), chain(&long.0, vec![rule(vec![], Statement::Drop)])];
    let text = written(chains, Family::V6);
    let longest = text.split_whitespace().filter_map(|word| word.strip_prefix(':')).map(str::len).max();
    assert_eq!(longest, Some(LONGEST), "{text}");
}

#[test]
fn closed_table_drops_on_every_interface_of_ours() {
    for family in Family::ALL {
        let text = script("", &closed(), family);
        assert!(
            text.contains("-A gwrt-forward -i gw-+ -j DROP\n-A gwrt-forward -o gw-+ -j DROP\n"),
            "{text}"
        );
    }
}
