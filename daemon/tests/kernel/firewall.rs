//! Our nftables table among those of other programs.

use crate::bed::{Bed, base_chain, in_namespace, kernel, link, sh, table};
use gatewrt::{
    config::FirewallChoice,
    kernel::{KernelError, firewall::nft::script, linux::Options},
    model::{
        AddressRange, Addresses, Chain, ChainType, Family, FirewallRule, FirewallSet, FirewallTable, Guard,
        Hook, Interfaces, Mark, Match, Op, Ruleset, SetElement, SetKind, SetName, Statement,
    },
    plan::{Step, TableChange},
};
use gatewrt_protocol::{Access, AccessRule, Prefix, Verdict};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

/// Table that nft lists in other words than it was written in.
fn reworded() -> FirewallTable {
    let home = || SetName("home".to_owned());
    let range = |first: &str, last: &str| {
        let [first, last] = [first, last].map(|addr| addr.parse().expect("valid"));
        SetElement::Range(AddressRange { first, last })
    };
    let elements = vec![range("10.1.0.0", "10.1.255.255"), range("10.0.0.0", "10.0.255.255")];
    let set = FirewallSet { name: home(), kind: SetKind::Addresses(Family::V4), elements };
    let marked = Match::CtMark(Op::Is, Mark { value: 0x0200_0000, mask: 0x0200_0000 });
    let masquerade = vec![FirewallRule::new(vec![marked], Statement::Masquerade)];
    let from_home = Match::Saddr(Addresses::Set(Family::V4, home()));
    let from_tunnel = Match::Iif(Op::Is, Interfaces::One(link()));
    let accept = vec![FirewallRule::new(vec![from_tunnel, from_home], Statement::Accept)];
    let chains = vec![
        base_chain("c", ChainType::Nat, Hook::Postrouting, masquerade),
        base_chain("f", ChainType::Filter, Hook::Forward, accept),
    ];
    FirewallTable { sets: vec![set], chains }
}

fn known(table: FirewallTable) -> Option<Ruleset> {
    Some(table.into())
}

fn write(bed: &mut Bed) {
    bed.write(reworded());
    assert_eq!(bed.observe().ruleset, known(reworded()));
}

#[test]
fn written_table_is_known_until_another_program_changes_it() {
    in_namespace(|bed| {
        assert_eq!(bed.observe().ruleset, None);
        write(bed);
        let mode = fs::metadata("/run/gatewrt/ruleset").expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A foreign table does not change ours.
        sh("nft add table inet other");
        assert_eq!(bed.observe().ruleset, known(reworded()));
        for change in [
            "add chain inet gatewrt x",
            "add element inet gatewrt home { 10.9.0.0/16 }",
            "flush table inet gatewrt",
        ] {
            sh(&format!("nft '{change}'"));
            assert_eq!(bed.observe().ruleset, Some(Ruleset::Unknown), "{change}");
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
fn table_with_other_counters_stays_known() {
    in_namespace(|bed| {
        let reject = FirewallRule::new(vec![Match::TcpNotFirst], Statement::RejectReset);
        let output = || base_chain("o", ChainType::Filter, Hook::Output, vec![reject.clone()]);
        let table = || FirewallTable { sets: Vec::new(), chains: vec![output()] };
        // Our rules have no counters: this `nft` adds one.
        bed.options =
            wrap_nft("[ $1 = -f ] && { sed 's/policy accept;/policy accept; counter;/' | nft -f -; exit; }");
        bed.restart();
        bed.write(table());
        sh("ping -c1 -W1 127.0.0.1");
        assert!(!sh("nft list table inet gatewrt").contains("packets 0 "));
        bed.restart();
        assert_eq!(bed.observe().ruleset, known(table()));
    });
}

#[test]
fn restarted_daemon_knows_its_table() {
    in_namespace(|bed| {
        write(bed);
        bed.restart();
        assert_eq!(bed.observe().ruleset, known(reworded()));
        bed.restart();
        fs::remove_file("/run/gatewrt/ruleset").expect("removed");
        bed.restart();
        assert_eq!(bed.observe().ruleset, Some(Ruleset::Unknown));
    });
}

#[test]
fn foreign_tables_stay_when_ours_is_written_and_deleted() {
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
fn refused_table_leaves_the_old_one() {
    in_namespace(|bed| {
        write(bed);
        let before = sh("nft list ruleset");
        let jump = FirewallRule::new(vec![], Statement::Jump("nowhere".into()));
        let chain = |name: &str, rules| Chain { name: name.into(), base: None, rules };
        let table = |chain| FirewallTable { sets: Vec::new(), chains: vec![chain] };
        for bad in [table(chain("{", vec![])), table(chain("c", vec![jump]))] {
            let step = bed.update(bad);
            let error = bed.fail(step);
            assert!(
                matches!(&error, KernelError::Refused(what) if what.starts_with("nft refused: ")),
                "{error:?}"
            );
        }
        assert_eq!(sh("nft list ruleset"), before);
        assert_eq!(bed.observe().ruleset, known(reworded()));
    });
}

#[test]
fn missing_nft_is_reported_with_what_to_install() {
    in_namespace(|bed| {
        let without = || {
            kernel(Options { firewall: FirewallChoice::Nft, nft: "/run/nft".into(), ..Options::default() })
        };
        bed.kernel = without();
        assert_eq!(bed.observe().ruleset, None);
        bed.run(Step::DeleteRuleset);
        let step = bed.update(reworded());
        let error = bed.fail(step);
        assert!(
            matches!(&error, KernelError::Missing(what) if what.contains("install nftables")),
            "{error:?}"
        );
        // A table that can't be listed is unknown, neither ours nor absent.
        bed.restart();
        write(bed);
        bed.kernel = without();
        assert_eq!(bed.observe().ruleset, Some(Ruleset::Unknown));
    });
}

#[test]
fn repeated_observation_runs_no_program() {
    in_namespace(|bed| {
        write(bed);
        bed.kernel =
            kernel(Options { firewall: FirewallChoice::Nft, nft: "/run/nft".into(), ..Options::default() });
        let script = "#!/bin/sh\necho x >> /run/calls\nexec nft \"$@\"\n";
        fs::write("/run/nft", script).expect("written");
        sh("chmod +x /run/nft");
        let calls = || fs::read_to_string("/run/calls").unwrap_or_default().len() / 2;
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(bed.observe().ruleset, known(reworded()));
        }
        println!("100 observations: {:?}", start.elapsed());
        assert_eq!(calls(), 1);
        sh("nft add table inet other");
        assert_eq!(bed.observe().ruleset, known(reworded()));
        assert_eq!(calls(), 2);
    });
}

/// Table with as many closed clients.
fn clients(count: u8) -> FirewallTable {
    // The addresses are not adjacent, so that each is an element.
    let client = |n: u8| format!("10.9.1.{}/32", n * 2).parse::<Prefix>().expect("a prefix");
    table(Guard { closed: (0..count).map(client).collect(), ..Guard::default() })
}

/// Handle of the table, which changes when the table is written whole.
fn handle() -> String {
    let listing = sh("nft -a list table inet gatewrt");
    listing.lines().next().and_then(|line| line.split_once("# handle ")).expect("a handle").1.to_owned()
}

fn wrap_nft(script: &str) -> Options {
    fs::write("/run/nft", format!("#!/bin/sh\n{script}\nexec nft \"$@\"\n")).expect("written");
    sh("chmod +x /run/nft");
    Options { firewall: FirewallChoice::Nft, nft: "/run/nft".into(), ..Options::default() }
}

#[test]
fn known_table_changes_in_place() {
    in_namespace(|bed| {
        bed.write(clients(0));
        let first = handle();
        for count in [3, 100, 99, 0, 5] {
            bed.write(clients(count));
            assert_eq!(bed.observe().ruleset, known(clients(count)));
            // Neither others' changes nor a restart make it another table.
            sh("nft 'add table inet other; delete table inet other'");
            bed.restart();
            assert_eq!(bed.observe().ruleset, known(clients(count)));
        }
        assert_eq!(handle(), first);
        assert_eq!(sh("nft list table inet gatewrt").matches("10.9.1.").count(), 5);
    });
}

#[test]
fn table_changed_by_another_program_is_written_whole() {
    in_namespace(|bed| {
        bed.write(clients(2));
        for change in [
            "add element inet gatewrt deny-to-4-gw-t { 10.7.0.1 . 10.7.0.2 }",
            "delete element inet gatewrt deny-to-4-gw-t { 0.0.0.0/0 . 10.9.1.2 }",
            "flush chain inet gatewrt input",
        ] {
            let before = handle();
            sh(&format!("nft '{change}'"));
            assert_ne!(bed.observe().ruleset, known(clients(2)), "{change}");
            bed.write(clients(3));
            assert_eq!(bed.observe().ruleset, known(clients(3)), "{change}");
            assert_ne!(handle(), before, "{change}");
            bed.write(clients(2));
        }
    });
}

#[test]
fn refused_change_is_written_whole() {
    in_namespace(|bed| {
        bed.write(clients(2));
        let before = handle();
        // A kernel that takes no element into a set that it has.
        let options = wrap_nft(
            "[ $1 = -s ] && exec nft \"$@\"; cat >/run/in; grep -q '^add element' /run/in && exit 1
            exec nft \"$@\" </run/in",
        );
        bed.kernel = kernel(options);
        bed.write(clients(4));
        assert_eq!(bed.observe().ruleset, known(clients(4)));
        assert_ne!(handle(), before);
    });
}

#[test]
fn change_by_another_program_while_we_write_is_undone() {
    in_namespace(|bed| {
        bed.write(clients(2));
        // Another program changes the table just before it is read back.
        let meddle =
            "[ $1 = -s ] && [ ! -e /run/done ] && touch /run/done && nft add chain inet gatewrt theirs";
        let options = wrap_nft(&format!("[ -e /run/meddle ] && {{ {meddle}; }}"));
        bed.kernel = kernel(options);
        assert_eq!(bed.observe().ruleset, known(clients(2)));
        fs::write("/run/meddle", "").expect("written");
        bed.write(clients(3));
        assert!(fs::exists("/run/done").expect("seen"), "nobody meddled");
        assert_eq!(bed.observe().ruleset, known(clients(3)));
        assert!(!sh("nft list table inet gatewrt").contains("theirs"));
    });
}

/// A thousand access rules, as of an admin with fifty sites and two hundred clients.
fn thousand_rules() -> Access {
    let parse = |text: String| text.parse::<Prefix>().expect("a prefix");
    let both = |n: u32, host: u32| {
        vec![parse(format!("10.{n}.0.{host}/32")), parse(format!("fd0a:{n:x}::{host:x}/128"))]
    };
    let site = |n: u32| vec![parse(format!("10.{n}.0.0/24")), parse(format!("fd0a:{n:x}::/64"))];
    let client = |n: u32| vec![parse(format!("10.200.1.{n}/32")), parse(format!("fdc8::1:{n:x}/128"))];
    let group = |n: u32| (0..20).flat_map(|i| client((n + i * 11) % 200)).collect::<Vec<_>>();
    let everyone = vec![parse("10.0.0.0/8".into()), parse("fc00::/7".into())];
    let mut sets = vec![everyone];
    let mut rules = Vec::new();
    let services = ["tcp/443", "tcp/22", "udp/5000-5010", "tcp/8000-8100", "icmp"];
    for n in 0..1000 {
        let (from, to) = match n % 5 {
            0 => (client(n % 200), site(n % 50)),
            1 => (group(n % 200), both(n % 50, 5 + n % 7)),
            2 => (sets[0].clone(), both(n % 50, 20 + n / 50)),
            3 => (site(n % 50), site((n / 5) % 50)),
            _ => (client((n / 5) % 200), client(n % 200)),
        };
        let at = sets.len() as u32;
        sets.extend([from, to]);
        let services =
            services.iter().skip((n % 6) as usize).take(1).map(|text| text.parse().expect("valid"));
        let verdict = if n % 4 == 0 { Verdict::Deny } else { Verdict::Allow };
        rules.push(AccessRule { verdict, from: at, to: at + 1, services: services.collect() });
    }
    Access { default: Verdict::Deny, sets, rules }
}

#[test]
fn thousand_access_rules_are_few_elements_and_small_changes() {
    in_namespace(|bed| {
        let mut access = thousand_rules();
        let timed = |what: &str, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            println!("{what}: {:?}", start.elapsed());
            start.elapsed()
        };
        let table = |access: &Access| table(Guard { access: access.clone(), ..Guard::default() });
        let mut whole = FirewallTable::default();
        timed("1,000 rules compiled", &mut || whole = table(&access));
        let elements: usize = whole.sets.iter().map(|set| set.elements.len()).sum();
        let bytes = script::replacement(&whole).len();
        println!("{} rules are {elements} elements, {bytes} bytes", access.rules.len());
        assert!((500..10_000).contains(&elements), "{elements}");
        let took = timed("table written whole", &mut || bed.write(whole.clone()));
        assert!(took < Duration::from_secs(20));
        timed("observed", &mut || drop(bed.observe()));
        bed.restart();
        timed("observed anew", &mut || assert_eq!(bed.observe().ruleset, known(whole.clone())));
        let before = handle();
        access.rules.pop();
        let less = table(&access);
        let change = script::change(&TableChange::between(&whole, &less).expect("in place"));
        let changed = change.lines().map(|line| line.split(',').count()).sum::<usize>();
        println!("one rule less: {changed} elements in {} lines", change.lines().count());
        assert!((1..=20).contains(&changed), "{change}");
        assert!(!change.contains("chain"), "{change}");
        timed("one rule less, written", &mut || bed.write(less.clone()));
        timed("one rule more, written", &mut || bed.write(whole.clone()));
        assert_eq!(bed.observe().ruleset, known(whole.clone()));
        assert_eq!(handle(), before);
    });
}
