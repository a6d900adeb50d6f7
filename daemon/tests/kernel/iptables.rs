//! Our chains of iptables among those of other programs.

use crate::bed::{in_namespace, kernel, sh, table};
use gatewrt::{
    config::FirewallChoice,
    kernel::linux::Options,
    model::{FirewallTable, Guard, Ruleset},
    plan::Step,
};
use std::fs;

/// Table of the daemon that serves one prefix to one network.
fn serving(prefix: &str) -> FirewallTable {
    table(Guard {
        egress: [(prefix.parse().expect("valid"), true)].into_iter().collect(),
        ..Guard::default()
    })
}

fn served() -> FirewallTable {
    serving("192.168.20.0/24")
}

fn known() -> Option<Ruleset> {
    Some(served().into())
}

fn iptables(program: &str) -> Options {
    Options { firewall: FirewallChoice::Iptables, iptables: program.into(), ..Options::default() }
}

/// All rules of iptables, in both families.
fn rules() -> String {
    sh("for t in filter mangle nat; do iptables-legacy -t $t -S; ip6tables-legacy -t $t -S; done")
}

#[test]
fn our_chains_stand_first_and_leave_those_of_others() {
    in_namespace(|bed| {
        sh(
            "iptables-legacy -N zone_lan; iptables-legacy -A FORWARD -j zone_lan; iptables-legacy -P INPUT DROP",
        );
        let before = rules();
        bed.options = iptables("iptables-legacy");
        bed.restart();
        assert_eq!(bed.observe().ruleset, None);
        bed.run(Step::DeleteRuleset);
        assert_eq!(rules(), before);
        bed.write(served());
        let written = rules();
        assert!(written.contains("-A FORWARD -j gwrt-forward\n-A FORWARD -j zone_lan"), "{written}");
        bed.write(served());
        assert_eq!(rules(), written);
        bed.restart();
        assert_eq!((bed.observe().ruleset, bed.observe().firewall), (known(), "iptables"));
        for change in ["iptables-legacy -F gwrt-forward", "ip6tables-legacy -D FORWARD -j gwrt-forward"] {
            sh(change);
            bed.restart();
            assert_eq!(bed.observe().ruleset, Some(Ruleset::Unknown), "{change}");
            bed.write(served());
            assert_eq!((rules(), bed.observe().ruleset), (written.clone(), known()));
        }
        bed.run(Step::DeleteRuleset);
        assert_eq!((rules(), bed.observe().ruleset), (before, None));
    });
}

#[test]
fn table_moves_to_the_firewall_in_use() {
    in_namespace(|bed| {
        let auto =
            |nft: &str| Options { nft: nft.into(), iptables: "iptables-legacy".into(), ..Options::default() };
        let others = "table ip gatewrt {\n}\n";
        sh("nft add table ip gatewrt");
        bed.kernel = kernel(auto("nft"));
        bed.write(served());
        assert_eq!((bed.observe().firewall, rules().contains("gwrt-")), ("nft", false));
        bed.kernel = kernel(iptables("iptables-legacy"));
        bed.write(served());
        assert_eq!((sh("nft list ruleset").as_str(), rules().contains("gwrt-")), (others, true));
        bed.kernel = kernel(auto("/nowhere/nft"));
        assert_eq!((bed.observe().firewall, bed.observe().ruleset), ("iptables", known()));
        bed.kernel = kernel(auto("nft"));
        assert_eq!((bed.observe().firewall, bed.observe().ruleset), ("nft", None));
        bed.write(served());
        assert_eq!((bed.observe().ruleset, rules().contains("gwrt-")), (known(), false));
    });
}

/// iptables as on a kernel that refuses rules with a word, in these programs.
fn without(word: &str, programs: &[&str]) -> Options {
    sh("rm -rf /run/old; mkdir /run/old; cd /run/old
        for p in iptables-save ip6tables-save iptables-restore ip6tables-restore; do
            ln -s /usr/sbin/$(echo $p | sed s/-/-legacy-/) $p
        done");
    for program in programs {
        let script = format!(
            "#!/bin/sh\nall=$(cat)\ncase $all in *\"{word}\"*) echo \"no {word}\" >&2; exit 3; esac\n\
             echo \"$all\" | {program}-legacy-restore \"$@\"\n"
        );
        let path = format!("/run/old/{program}-restore");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, script).expect("written");
        sh(&format!("chmod +x {path}"));
    }
    iptables("/run/old/iptables")
}

#[test]
fn refused_chains_leave_our_interfaces_closed() {
    in_namespace(|bed| {
        bed.kernel = kernel(without("TCPMSS", &["iptables", "ip6tables"]));
        let step = bed.update(served());
        let error = bed.fail(step);
        assert!(error.to_string().contains("no TCPMSS"), "{error}");
        let said = rules();
        let cuts = said.matches("-A gwrt-forward -i gw-+ -j DROP\n-A gwrt-forward -o gw-+ -j DROP\n").count();
        assert_eq!(cuts, 2, "{said}");
        assert_eq!(bed.observe().ruleset, Some(Ruleset::Unknown));
        bed.kernel = kernel(iptables("iptables-legacy"));
        bed.write(served());
        let whole = rules();
        // After a failed update the older chains stay.
        bed.kernel = kernel(without("TCPMSS", &["iptables", "ip6tables"]));
        let step = bed.update(served());
        bed.fail(step);
        assert_eq!(rules(), whole);
        bed.kernel = kernel(iptables("/nowhere/iptables"));
        let step = bed.update(served());
        let error = bed.fail(step);
        assert!(error.to_string().contains("install nftables, or iptables"), "{error}");
    });
}

/// Most routers with iptables have no `nat` for IPv6.
#[test]
fn missing_nat_for_ipv6_fails_only_when_needed() {
    in_namespace(|bed| {
        bed.kernel = kernel(without("*nat", &["ip6tables"]));
        bed.write(served());
        let guarded = rules();
        let step = bed.update(serving("fd20::/64"));
        assert!(bed.fail(step.clone()).to_string().contains("no *nat"));
        assert!(rules() != guarded, "IPv4 goes on");
        bed.run(Step::DeleteRuleset);
        bed.fail(step);
        assert_eq!(sh("ip6tables-legacy -S").matches("-A gwrt-forward -i gw-+ -j DROP").count(), 1);
    });
}
