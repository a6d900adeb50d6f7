//! Our table among foreign ones.

use crate::bed::{Bed, in_namespace, kernel, sh};
use gatewrt::{
    kernel::{KernelError, linux::Options},
    model::Ruleset,
    plan::Step,
};
use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

/// With all that reads back otherwise than it was written.
const TABLE: &str = "table inet gatewrt {
  set home { type ipv4_addr; flags interval; auto-merge; elements = { 10.1.0.0/16, 10.0.0.0/16 } }
  chain c { type nat hook postrouting priority srcnat + 5; ct mark and 0x02000000 == 0x02000000 masquerade; }
  chain f { type filter hook forward priority filter; iifname gw-t ip saddr @home counter accept; }
}";

fn ruleset(text: &str) -> Ruleset {
    Ruleset(text.to_owned())
}

fn write(bed: &mut Bed) {
    bed.run(Step::WriteRuleset(ruleset(TABLE)));
    assert_eq!(bed.observe().ruleset, Some(ruleset(TABLE)));
}

#[test]
fn what_was_written_is_known_again_until_someone_changes_it() {
    in_namespace(|bed| {
        assert_eq!(bed.observe().ruleset, None);
        write(bed);
        let mode = fs::metadata("/run/gatewrt/ruleset").expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A foreign table is no change of ours.
        sh("nft add table inet other");
        assert_eq!(bed.observe().ruleset, Some(ruleset(TABLE)));
        for change in [
            "add chain inet gatewrt x",
            "add element inet gatewrt home { 10.9.0.0/16 }",
            "flush table inet gatewrt",
        ] {
            sh(&format!("nft '{change}'"));
            let seen = bed.observe().ruleset.expect("there is one");
            assert_ne!(seen, ruleset(TABLE), "{change}");
            write(bed);
        }
        sh("nft delete table inet gatewrt");
        assert_eq!(bed.observe().ruleset, None);
        write(bed);
        sh("nft flush ruleset");
        assert_eq!(bed.observe().ruleset, None);
    });
}

#[test]
fn counters_are_no_change() {
    in_namespace(|bed| {
        let text = "table inet gatewrt { chain o { type filter hook output priority 0; counter; }; }";
        bed.run(Step::WriteRuleset(ruleset(text)));
        sh("ping -c1 -W1 127.0.0.1");
        assert!(!sh("nft list table inet gatewrt").contains("packets 0 "));
        bed.restart();
        assert_eq!(bed.observe().ruleset, Some(ruleset(text)));
    });
}

#[test]
fn a_restarted_daemon_knows_its_table() {
    in_namespace(|bed| {
        write(bed);
        bed.restart();
        assert_eq!(bed.observe().ruleset, Some(ruleset(TABLE)));
        bed.restart();
        fs::remove_file("/run/gatewrt/ruleset").expect("removed");
        bed.restart();
        let seen = bed.observe().ruleset.expect("there is one");
        assert!(seen != ruleset(TABLE) && seen.0.contains("table inet gatewrt"), "{seen:?}");
    });
}

#[test]
fn foreign_tables_stay_as_they_are() {
    in_namespace(|bed| {
        sh("nft 'table inet other { chain gatewrt { type filter hook forward priority 0; policy drop; }; }
            table ip gatewrt { chain x { accept; }; }'");
        let before = sh("nft list ruleset");
        bed.run(Step::DeleteRuleset);
        write(bed);
        write(bed);
        bed.run(Step::DeleteRuleset);
        bed.run(Step::DeleteRuleset);
        assert_eq!(sh("nft list ruleset"), before);
        assert_eq!(bed.observe().ruleset, None);
        assert!(!fs::exists("/run/gatewrt/ruleset").expect("seen"));
    });
}

#[test]
fn a_table_that_is_refused_leaves_the_old_one() {
    in_namespace(|bed| {
        write(bed);
        let before = sh("nft list ruleset");
        for bad in ["table inet gatewrt { chain", "table inet gatewrt { chain c { jump nowhere; }; }"] {
            let error = bed.fail(Step::WriteRuleset(ruleset(bad)));
            assert!(
                matches!(&error, KernelError::Refused(what) if what.starts_with("nft refused: ")),
                "{error:?}"
            );
        }
        assert_eq!(sh("nft list ruleset"), before);
        assert_eq!(bed.observe().ruleset, Some(ruleset(TABLE)));
    });
}

#[test]
fn without_nft_it_says_what_to_install() {
    in_namespace(|bed| {
        let without = || kernel(Options { nft: "/run/nft".into(), ..Options::default() });
        bed.kernel = without();
        assert_eq!(bed.observe().ruleset, None);
        bed.run(Step::DeleteRuleset);
        let error = bed.fail(Step::WriteRuleset(ruleset(TABLE)));
        assert!(
            matches!(&error, KernelError::Missing(what) if what.contains("install nftables")),
            "{error:?}"
        );
        // One that is there is neither ours nor nothing.
        bed.restart();
        write(bed);
        bed.kernel = without();
        assert_eq!(bed.observe().ruleset, Some(ruleset("")));
    });
}

#[test]
fn looking_again_costs_no_program() {
    in_namespace(|bed| {
        write(bed);
        bed.kernel = kernel(Options { nft: "/run/nft".into(), ..Options::default() });
        let script = "#!/bin/sh\necho x >> /run/calls\nexec nft \"$@\"\n";
        fs::write("/run/nft", script).expect("written");
        sh("chmod +x /run/nft");
        let calls = || fs::read_to_string("/run/calls").unwrap_or_default().len() / 2;
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(bed.observe().ruleset, Some(ruleset(TABLE)));
        }
        println!("100 observations: {:?}", start.elapsed());
        assert_eq!(calls(), 1);
        sh("nft add table inet other");
        assert_eq!(bed.observe().ruleset, Some(ruleset(TABLE)));
        assert_eq!(calls(), 2);
    });
}
