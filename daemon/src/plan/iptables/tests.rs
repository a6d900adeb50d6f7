use super::*;

/// A table of our making, from its sets and chains.
fn table(parts: &str) -> String {
    format!("table inet gatewrt\ndelete table inet gatewrt\ntable inet gatewrt {{\n{parts}}}\n")
}

fn chain(name: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!("\tchain {name} {{\n{rules}\t}}\n")
}

const FORWARD: &str = "type filter hook forward priority filter; policy accept;";

fn said(parts: &[String], family: Family) -> String {
    change("", &table(&parts.join("\n")), family).unwrap()
}

#[test]
fn ranges_are_said_in_prefixes() {
    for (range, expected) in [
        ("10.9.0.0-10.9.255.255", &["10.9.0.0/16"][..]),
        ("10.9.1.2-10.9.1.3", &["10.9.1.2/31"]),
        ("10.9.1.1-10.9.1.6", &["10.9.1.1/32", "10.9.1.2/31", "10.9.1.4/31", "10.9.1.6/32"]),
        ("0.0.0.0-255.255.255.255", &["0.0.0.0/0"]),
        ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"],
        ),
        ("255.255.255.255", &["255.255.255.255/32"]),
        ("fd09::1:2", &["fd09::1:2/128"]),
    ] {
        assert_eq!(prefixes(range).unwrap(), expected, "{range}");
    }
    assert_eq!(prefixes("somewhere"), None);
}

#[test]
fn what_ends_our_chains_does_not_end_those_of_others() {
    let text = said(
        &[
            chain("forward", &[FORWARD, "iifname \"gw-a\" jump forward-gw-a", "oifname \"gw-a\" drop"]),
            chain("forward-gw-a", &["jump access-gw-a", "ip daddr 10.1.0.0/16 accept", "drop"]),
            chain(
                "access-gw-a",
                &["ct state established,related accept", "ip saddr 10.2.0.0/16 return", "drop"],
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
fn what_was_there_goes_in_the_same_breath() {
    let saved = "# Generated\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [3:180]\n:gwrt-forward - [0:0]\n\
        :gwrt-old - [0:0]\n:zone_lan - [0:0]\n-A FORWARD -j zone_lan\n-A FORWARD -j gwrt-forward\n\
        -A gwrt-forward -j gwrt-old\nCOMMIT\n*nat\n:gwrt-x - [0:0]\n-A PREROUTING -j gwrt-x\nCOMMIT\n";
    let text = table(&chain("forward", &[FORWARD, "iifname \"gw-a\" drop"]));
    let both = change(saved, &text, Family::V4).unwrap();
    assert_eq!(
        both,
        "*nat\n:gwrt-x - [0:0]\n-D PREROUTING -j gwrt-x\n-X gwrt-x\nCOMMIT\n\
         *filter\n:gwrt-forward - [0:0]\n:gwrt-old - [0:0]\n-D FORWARD -j gwrt-forward\n\
         -A gwrt-forward -i gw-a -j DROP\n-I FORWARD -j gwrt-forward\n-X gwrt-old\nCOMMIT\n"
    );
    let nothing = change(saved, "", Family::V4).unwrap();
    assert!(nothing.contains("-X gwrt-forward\n-X gwrt-old\nCOMMIT\n"), "{nothing}");
    assert_eq!(change("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "", Family::V4), Ok(String::new()));
    assert_eq!(ours(saved).lines().count(), 6);
}

#[test]
fn what_iptables_can_not_say_is_an_error_and_no_rule() {
    for rule in [
        "tcp sport 1 drop",
        "meta skuid 0 drop",
        "ip saddr @nowhere drop",
        "ip saddr 10.0.0.0/8",
        "oifname != \"gw-a\" return",
    ] {
        let text = table(&chain("forward", &[FORWARD, rule]));
        let error = change("", &text, Family::V4).unwrap_err();
        assert!(error.contains(rule), "{error}");
    }
    assert!(change("", "table inet other { }\n", Family::V4).is_err());
    // What is for the other family is left out, whatever it is.
    let text = table(&chain("forward", &[FORWARD, "ip6 saddr fd00::/8 tcp sport 1 drop"]));
    assert!(!change("", &text, Family::V4).unwrap().contains("fd00"));
}

/// Routers with iptables seldom have it for IPv6.
#[test]
fn nat_is_asked_for_only_in_the_family_that_needs_it() {
    let nat = "type nat hook postrouting priority srcnat; policy accept;";
    let marking = "ct mark set ct mark & 0xf0ffffff | 0x02000000 return";
    let parts = |prefix: &str| {
        [
            chain("postrouting", &[nat, "ct mark & 0x0f000000 == 0x02000000 oifname != \"gw-a\" masquerade"]),
            chain("mark-gw-a", &[&format!("ip daddr {prefix} {marking}"), "ip6 daddr fd20::/64 return"]),
        ]
    };
    assert!(said(&parts("10.1.0.0/16"), Family::V4).contains("*nat"));
    assert_eq!(said(&parts("10.1.0.0/16"), Family::V6), "");
    assert_eq!(said(&[chain("postrouting", &[nat])], Family::V4), "");
}

#[test]
fn names_are_as_long_as_the_kernel_takes_them() {
    let long = "shut-a-scope-with-a-name-of-some-length";
    let jump = format!("jump {long}");
    let text = said(&[chain("forward", &[FORWARD, &jump]), chain(long, &["drop"])], Family::V6);
    let longest = text.split_whitespace().filter_map(|word| word.strip_prefix(':')).map(str::len).max();
    assert_eq!(longest, Some(LONGEST), "{text}");
}

#[test]
fn what_lets_nothing_through_is_said() {
    for family in Family::ALL {
        let text = change("", CLOSED, family).unwrap();
        assert!(
            text.contains("-A gwrt-forward -i gw-+ -j DROP\n-A gwrt-forward -o gw-+ -j DROP\n"),
            "{text}"
        );
    }
}
