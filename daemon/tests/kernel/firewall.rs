//! Our table among foreign ones.

use crate::bed::{Bed, in_namespace, kernel, sh};
use gatewrt::{
    config::FirewallChoice,
    kernel::{KernelError, linux::Options},
    model::{IfName, Ruleset},
    plan::{Firewall, Guard, Step, rewrite},
};
use gatewrt_protocol::{Access, AccessRule, Prefix, Verdict};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

/// What the daemon would write for one network.
fn served() -> Ruleset {
    let guard =
        Guard { egress: [("192.168.20.0/24".parse().expect("valid"), true)].into(), ..Guard::default() };
    Firewall { tunnels: [(IfName::new("gw-t").expect("valid"), guard)].into(), ..Firewall::default() }
        .ruleset()
}

fn iptables(program: &str) -> Options {
    Options { firewall: FirewallChoice::Iptables, iptables: program.into(), ..Options::default() }
}

/// All rules of iptables, in both families.
fn rules() -> String {
    sh("for t in filter mangle nat; do iptables-legacy -t $t -S; ip6tables-legacy -t $t -S; done")
}

#[test]
fn iptables_has_our_chains_beside_those_of_others() {
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
        bed.run(Step::WriteRuleset(served()));
        let written = rules();
        assert!(written.contains("-A FORWARD -j gwrt-forward\n-A FORWARD -j zone_lan"), "{written}");
        bed.run(Step::WriteRuleset(served()));
        assert_eq!(rules(), written);
        bed.restart();
        assert_eq!((bed.observe().ruleset, bed.observe().firewall), (Some(served()), "iptables"));
        for change in ["iptables-legacy -F gwrt-forward", "ip6tables-legacy -D FORWARD -j gwrt-forward"] {
            sh(change);
            bed.restart();
            assert_ne!(bed.observe().ruleset.expect("something of ours"), served(), "{change}");
            bed.run(Step::WriteRuleset(served()));
            assert_eq!((rules(), bed.observe().ruleset), (written.clone(), Some(served())));
        }
        bed.run(Step::DeleteRuleset);
        assert_eq!((rules(), bed.observe().ruleset), (before, None));
    });
}

#[test]
fn the_firewall_is_the_one_that_is_there_and_the_other_one_gives_way() {
    in_namespace(|bed| {
        let auto =
            |nft: &str| Options { nft: nft.into(), iptables: "iptables-legacy".into(), ..Options::default() };
        let others = "table ip gatewrt {\n}\n";
        sh("nft add table ip gatewrt");
        bed.kernel = kernel(auto("nft"));
        bed.run(Step::WriteRuleset(served()));
        assert_eq!((bed.observe().firewall, rules().contains("gwrt-")), ("nft", false));
        bed.kernel = kernel(iptables("iptables-legacy"));
        bed.run(Step::WriteRuleset(served()));
        assert_eq!((sh("nft list ruleset").as_str(), rules().contains("gwrt-")), (others, true));
        bed.kernel = kernel(auto("/nowhere/nft"));
        assert_eq!((bed.observe().firewall, bed.observe().ruleset), ("iptables", Some(served())));
        bed.kernel = kernel(auto("nft"));
        assert_eq!((bed.observe().firewall, bed.observe().ruleset), ("nft", None));
        bed.run(Step::WriteRuleset(served()));
        assert_eq!((bed.observe().ruleset, rules().contains("gwrt-")), (Some(served()), false));
    });
}

#[test]
fn what_iptables_can_not_write_lets_nothing_through_our_interfaces() {
    in_namespace(|bed| {
        bed.kernel = kernel(iptables("iptables-legacy"));
        let text = served().0.replace("iifname \"gw-t\" jump", "iifname \"gw-t\" meta skuid 0 jump");
        let error = bed.fail(Step::WriteRuleset(ruleset(&text)));
        assert!(error.to_string().contains("iptables can't say “iifname"), "{error}");
        let said = rules();
        let cuts = said.matches("-A gwrt-forward -i gw-+ -j DROP\n-A gwrt-forward -o gw-+ -j DROP\n").count();
        assert_eq!(cuts, 2, "{said}");
        assert_eq!(bed.observe().ruleset.map(|there| there == served()), Some(false));
        bed.run(Step::WriteRuleset(served()));
        let whole = rules();
        // What guards them stays.
        bed.fail(Step::WriteRuleset(ruleset(&text)));
        assert_eq!(rules(), whole);
        bed.kernel = kernel(iptables("/nowhere/iptables"));
        let error = bed.fail(Step::WriteRuleset(served()));
        assert!(error.to_string().contains("install nftables, or iptables"), "{error}");
    });
}

/// As most routers with iptables are.
#[test]
fn a_kernel_without_nat_for_ipv6_is_no_matter_until_it_is_needed() {
    in_namespace(|bed| {
        sh("mkdir /run/old; cd /run/old
            for p in iptables-save ip6tables-save iptables-restore; do
                ln -s /usr/sbin/$(echo $p | sed s/-/-legacy-/) $p
            done
            printf '%s\\n' '#!/bin/sh' 'all=$(cat)' \\
                'case $all in *\"*nat\"*) echo no table nat >&2; exit 3; esac' \\
                'echo \"$all\" | ip6tables-legacy-restore \"$@\"' > ip6tables-restore
            chmod +x ip6tables-restore");
        bed.kernel = kernel(iptables("/run/old/iptables"));
        bed.run(Step::WriteRuleset(served()));
        let guarded = rules();
        let six = ruleset(&served().0.replace("\t\tip daddr 192.168.20.0/24", "\t\tip6 daddr fd20::/64"));
        assert!(bed.fail(Step::WriteRuleset(six.clone())).to_string().contains("no table nat"));
        assert!(rules() != guarded, "IPv4 goes on");
        bed.run(Step::DeleteRuleset);
        bed.fail(Step::WriteRuleset(six));
        assert_eq!(sh("ip6tables-legacy -S").matches("-A gwrt-forward -i gw-+ -j DROP").count(), 1);
    });
}

/// With all that reads back otherwise than it was written.
const TABLE: &str = "table inet gatewrt {
  set home { type ipv4_addr; flags interval; auto-merge; elements = { 10.1.0.0/16, 10.0.0.0/16 } }
  chain c { type nat hook postrouting priority srcnat + 5; ct mark and 0x02000000 == 0x02000000 masquerade; }
  chain f { type filter hook forward priority filter; iifname gw-t ip saddr @home counter accept; }
}";

fn ruleset(text: &str) -> Ruleset {
    Ruleset(text.into())
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
        let without = || {
            kernel(Options { firewall: FirewallChoice::Nft, nft: "/run/nft".into(), ..Options::default() })
        };
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
        bed.kernel =
            kernel(Options { firewall: FirewallChoice::Nft, nft: "/run/nft".into(), ..Options::default() });
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

fn table(guard: Guard) -> Ruleset {
    Firewall { tunnels: [(IfName::new("gw-t").expect("valid"), guard)].into(), ..Firewall::default() }
        .ruleset()
}

/// With as many closed clients.
fn clients(count: u8) -> Ruleset {
    // Apart, so that each is an element.
    let client = |n: u8| format!("10.9.1.{}/32", n * 2).parse::<Prefix>().expect("a prefix");
    table(Guard { closed: (0..count).map(client).collect(), ..Guard::default() })
}

/// Changes when the table is made anew.
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
fn a_table_that_is_ours_changes_in_place() {
    in_namespace(|bed| {
        bed.run(Step::WriteRuleset(clients(0)));
        let first = handle();
        for count in [3, 100, 99, 0, 5] {
            bed.run(Step::WriteRuleset(clients(count)));
            assert_eq!(bed.observe().ruleset, Some(clients(count)));
            // Neither others' changes nor a restart make it another table.
            sh("nft 'add table inet other; delete table inet other'");
            bed.restart();
            assert_eq!(bed.observe().ruleset, Some(clients(count)));
        }
        assert_eq!(handle(), first);
        assert_eq!(sh("nft list table inet gatewrt").matches("10.9.1.").count(), 5);
    });
}

#[test]
fn a_table_that_someone_changed_is_made_anew() {
    in_namespace(|bed| {
        bed.run(Step::WriteRuleset(clients(2)));
        for change in [
            "add element inet gatewrt deny-to-4-gw-t { 10.7.0.1 . 10.7.0.2 }",
            "delete element inet gatewrt deny-to-4-gw-t { 0.0.0.0/0 . 10.9.1.2 }",
            "flush chain inet gatewrt input",
        ] {
            let before = handle();
            sh(&format!("nft '{change}'"));
            assert_ne!(bed.observe().ruleset, Some(clients(2)), "{change}");
            bed.run(Step::WriteRuleset(clients(3)));
            assert_eq!(bed.observe().ruleset, Some(clients(3)), "{change}");
            assert_ne!(handle(), before, "{change}");
            bed.run(Step::WriteRuleset(clients(2)));
        }
    });
}

#[test]
fn a_change_that_nft_refuses_is_made_by_writing_all() {
    in_namespace(|bed| {
        bed.run(Step::WriteRuleset(clients(2)));
        let before = handle();
        // A kernel that takes no element into a set that it has.
        let options = wrap_nft(
            "[ $1 = -s ] && exec nft \"$@\"; cat >/run/in; grep -q '^add element' /run/in && exit 1
            exec nft \"$@\" </run/in",
        );
        bed.kernel = kernel(options);
        bed.run(Step::WriteRuleset(clients(4)));
        assert_eq!(bed.observe().ruleset, Some(clients(4)));
        assert_ne!(handle(), before);
    });
}

#[test]
fn what_someone_changes_while_we_do_is_not_taken_for_ours() {
    in_namespace(|bed| {
        bed.run(Step::WriteRuleset(clients(2)));
        // Just before the table is read back.
        let meddle =
            "[ $1 = -s ] && [ ! -e /run/done ] && touch /run/done && nft add chain inet gatewrt theirs";
        let options = wrap_nft(&format!("[ -e /run/meddle ] && {{ {meddle}; }}"));
        bed.kernel = kernel(options);
        assert_eq!(bed.observe().ruleset, Some(clients(2)));
        fs::write("/run/meddle", "").expect("written");
        bed.run(Step::WriteRuleset(clients(3)));
        assert!(fs::exists("/run/done").expect("seen"), "nobody meddled");
        assert_eq!(bed.observe().ruleset, Some(clients(3)));
        assert!(!sh("nft list table inet gatewrt").contains("theirs"));
    });
}

/// A thousand rules such as an admin of fifty sites and two hundred clients would come to.
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
fn a_thousand_rules_are_few_elements_and_one_rule_more_is_few_changes() {
    in_namespace(|bed| {
        let mut access = thousand_rules();
        let timed = |what: &str, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            println!("{what}: {:?}", start.elapsed());
            start.elapsed()
        };
        let ruleset = |access: &Access| table(Guard { access: access.clone(), ..Guard::default() });
        let mut whole = Ruleset("".into());
        timed("1,000 rules compiled", &mut || whole = ruleset(&access));
        let elements = whole.0.lines().filter(|line| line.starts_with("\t\t\t")).count();
        println!("{} rules are {elements} elements, {} bytes", access.rules.len(), whole.0.len());
        assert!((500..10_000).contains(&elements), "{elements}");
        let took = timed("table written whole", &mut || bed.run(Step::WriteRuleset(whole.clone())));
        assert!(took < Duration::from_secs(20));
        timed("observed", &mut || drop(bed.observe()));
        bed.restart();
        timed("observed anew", &mut || assert_eq!(bed.observe().ruleset, Some(whole.clone())));
        let before = handle();
        access.rules.pop();
        let less = ruleset(&access);
        let change = rewrite::change(&whole.0, &less.0).expect("in place");
        let changed = change.lines().map(|line| line.split(',').count()).sum::<usize>();
        println!("one rule less: {changed} elements in {} lines", change.lines().count());
        assert!((1..=20).contains(&changed), "{change}");
        assert!(!change.contains("chain"), "{change}");
        timed("one rule less, written", &mut || bed.run(Step::WriteRuleset(less.clone())));
        timed("one rule more, written", &mut || bed.run(Step::WriteRuleset(whole.clone())));
        assert_eq!(bed.observe().ruleset, Some(whole.clone()));
        assert_eq!(handle(), before);
    });
}
