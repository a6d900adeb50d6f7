//! The boot lockdown, with the program that init runs: from the first link after a reboot until the daemon's rules are
//! in effect, no packet of a closed scope leaves.

use super::{
    bed::{self, Bed, both},
    exits::{FAR, acquaint, add, any, exits, lan, link, receive},
};
use gatewrt::{
    kernel::{
        Kernel,
        linux::{LinuxKernel, Options},
    },
    model::{Desired, Family, ObserveQuery, Observed, Route, RouteKind, Rule, Ruleset},
    ownership::ReservedNumbers,
    plan::{BootLockdown, Firewall, Plan, Step},
    store::Store,
};
use std::{
    fs,
    net::{IpAddr, UdpSocket},
};
use tempfile::TempDir;

/// Router whose links are not up yet, with the daemon's files on its disk.
struct Router {
    bed: Bed,
    disk: TempDir,
}

impl Router {
    fn new() -> Self {
        let (bed, disk) = (Bed::new(), tempfile::tempdir().unwrap());
        for far in FAR {
            add(&bed.wan, far);
        }
        for name in ["lan0", "wan0"] {
            bed.router.ip(&format!("link set {name} down"));
        }
        let path = disk.path().display();
        let config = format!(
            "config gatewrt main\n option state_dir '{path}/state'\n option run_dir '{path}/run'\n{}",
            bed::CHOICE
        );
        fs::write(disk.path().join("config"), config).unwrap();
        Self { bed, disk }
    }

    fn store(&self) -> Store {
        Store::new(&self.disk.path().join("state"))
    }

    /// Output of `gatewrt guard`, with its exit status in the last line.
    fn guard(&self) -> String {
        let (program, config) = (env!("CARGO_BIN_EXE_gatewrt"), self.disk.path().join("config"));
        let programs = bed::programs(&self.disk.path().join("bin"));
        let script =
            format!("PATH={programs}:$PATH {program} guard --config {} 2>&1; echo $?", config.display());
        self.bed.router.command("sh", &["-c", &script], "")
    }

    fn boot(&self) {
        let up = |name: &str| self.bed.router.ip(&format!("link set {name} up"));
        up("lan0");
        up("wan0");
        for [lan, wan, next] in [
            ["192.168.20.1/24", "203.0.113.1/24", "203.0.113.2"],
            ["fd20::1/64", "2001:db8::1/64", "2001:db8::2"],
        ] {
            for (address, name) in [(lan, "lan0"), (wan, "wan0")] {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                self.bed.router.ip(&format!("addr replace {address} dev {name}{nodad}"));
            }
            self.bed.router.ip(&format!("route replace default via {next} dev wan0"));
        }
        acquaint(&self.bed);
    }

    fn options(&self) -> Options {
        Options { run_dir: self.disk.path().join("run"), ..bed::options() }
    }

    fn observe(&self) -> Observed {
        let options = self.options();
        let observe = || LinuxKernel::new(options).unwrap().observe(&ObserveQuery::default()).unwrap();
        self.bed.router.run(observe)
    }

    fn execute(&self, step: &Step) {
        let (options, step) = (self.options(), step.clone());
        self.bed.router.run(move || LinuxKernel::new(options).unwrap().execute(&step).unwrap());
    }

    fn off(&self) {
        self.bed.router.without_table();
        for family in ["-4", "-6"] {
            self.bed.router.ip(&format!("{family} rule del pref 910"));
        }
    }
}

/// Desired state of the daemon while no exit works. Its firewall table differs from that of the boot lockdown.
fn desired() -> Desired {
    let numbers = ReservedNumbers::default();
    let rule = |family| Rule {
        family,
        priority: numbers.exit_priority,
        mark: 0,
        mask: numbers.mask,
        invert: false,
        table: numbers.exit_table,
        iif: Some(link("lan0")),
        from: None,
    };
    let route = |prefix: &str, metric, kind| Route {
        table: numbers.exit_table,
        prefix: prefix.parse().unwrap(),
        metric,
        kind,
    };
    let mut routes =
        vec![route("192.168.20.0/24", 512, RouteKind::Throw), route("fd20::/64", 512, RouteKind::Throw)];
    routes.extend(["0.0.0.0/0", "::/0"].map(|all| route(all, u32::MAX, RouteKind::Blackhole)));
    let exits = exits(&[lan()]);
    let ruleset = Firewall { exits: exits.clone(), bypass: true, ..Firewall::default() }.ruleset();
    Desired {
        rules: Family::ALL.map(rule).into_iter().collect(),
        routes: routes.into_iter().collect(),
        ruleset: Some(ruleset),
        exits,
        ..Desired::default()
    }
}

/// Packets of a LAN host to the far end, of which none arrives.
struct Stream {
    client: UdpSocket,
    server: UdpSocket,
}

impl Stream {
    fn new(bed: &Bed, at: IpAddr) -> Self {
        Self { client: bed.lan.udp(any(at)), server: bed.wan.udp(at) }
    }

    fn send(&self, text: &str) {
        let to = self.server.local_addr().unwrap();
        while self.client.send_to(text.as_bytes(), to).is_err() {}
    }

    /// Sends a packet that may leave, and asserts that it is the first to arrive.
    #[track_caller]
    fn end(&self) {
        self.send("let out");
        assert_eq!(receive(&self.server).0, "let out");
    }
}

#[test]
fn closed_scope_stays_kept_in_from_the_first_link_to_the_daemon() {
    let router = Router::new();
    let guard = BootLockdown::new(&desired(), &ReservedNumbers::default());
    router.store().save_boot_lockdown(guard.as_ref()).unwrap();
    let said = router.guard();
    assert!(said.contains("write firewall table\n") && said.ends_with("\n0\n"), "{said}");
    assert!(said.contains("add rule 910 IPv4 fwmark 0x0/0xf000000 iif lan0 lookup 26500\n"), "{said}");
    assert_eq!(router.guard(), "all is there already\n0\n");
    router.boot();
    let streams = both(FAR).map(|at| Stream::new(&router.bed, at));
    let send = |text: &str| streams.iter().for_each(|stream| stream.send(text));
    send("boot");
    // The table and the rules each hold alone.
    router.bed.router.flush();
    send("no table");
    assert!(router.guard().starts_with("write firewall table\n"));
    for family in ["-4", "-6"] {
        router.bed.router.ip(&format!("{family} rule del pref 910"));
    }
    send("no rules");
    assert_eq!(router.guard().matches("add rule").count(), 2);
    // The daemon adopts the table.
    let observed = router.observe();
    let there = observed.ruleset.clone().expect("a table");
    let is_shut = matches!(&there, Ruleset::Known(table) if table.chain(&"shut-s0".into()).is_some());
    assert!(is_shut && desired().ruleset != Some(there), "known, and another");
    let plan = Plan::new(&observed, &desired());
    assert!(matches!(&plan.steps[..], [Step::WriteRuleset(_)]), "{plan}");
    for step in &plan.steps {
        router.execute(step);
        send("a step");
    }
    assert!(Plan::new(&router.observe(), &desired()).is_empty());
    send("the daemon");
    router.off();
    streams.iter().for_each(Stream::end);
}

#[test]
fn router_without_closed_scope_is_left_alone() {
    let router = Router::new();
    assert_eq!(router.guard(), "no scope is to be kept in\n0\n");
    let observed = router.observe();
    assert!(observed.ruleset.is_none() && observed.rules.is_empty() && observed.routes.is_empty());
    let guard = BootLockdown::new(&desired(), &ReservedNumbers::default());
    router.store().save_boot_lockdown(guard.as_ref()).unwrap();
    router.store().save_boot_lockdown(None).unwrap();
    assert_eq!(router.guard(), "no scope is to be kept in\n0\n");
}

#[test]
fn damaged_file_forwards_nothing_until_the_daemon_runs() {
    let router = Router::new();
    fs::create_dir(router.disk.path().join("state")).unwrap();
    fs::write(router.disk.path().join("state/guard.json"), "{\"table\":").unwrap();
    let said = router.guard();
    assert!(said.contains("guard.json is damaged") && said.ends_with("\n1\n"), "{said}");
    router.boot();
    let streams = both(FAR).map(|at| Stream::new(&router.bed, at));
    streams.iter().for_each(|stream| stream.send("kept in"));
    // A daemon without scopes deletes the table.
    let plan = Plan::new(&router.observe(), &Desired::default());
    assert!(matches!(&plan.steps[..], [Step::DeleteRuleset]), "{plan}");
    router.execute(&plan.steps[0]);
    streams.iter().for_each(Stream::end);
}
