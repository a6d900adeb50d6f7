//! From the first link that comes up after a reboot, over the daemon's start, until it stands: nothing of a closed scope
//! leaves, with the program that init runs.

use super::{
    bed::{self, Bed, both},
    exits::{FAR, acquaint, add, any, exits, lan, link, receive},
};
use gatewrt::{
    kernel::{
        Interest, Kernel,
        linux::{LinuxKernel, Options},
    },
    model::{Desired, Family, Observed, Route, RouteKind, Rule},
    ownership::Numbers,
    plan::{Firewall, Guardfile, Plan, Step},
    store::Store,
};
use std::{
    fs,
    net::{IpAddr, UdpSocket},
};
use tempfile::TempDir;

/// A router whose links are not up yet, with what the daemon left on its disk.
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

    /// What the program says, with its exit status in the last line.
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
        let observe = || LinuxKernel::new(options).unwrap().observe(&Interest::default()).unwrap();
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

/// What shall be while no exit works: as the daemon wants it, with tables that differ from what is put up before.
fn desired() -> Desired {
    let numbers = Numbers::default();
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
    let ruleset = Firewall { exits: exits.clone(), ..Firewall::default() }.ruleset();
    Desired {
        rules: Family::ALL.map(rule).into(),
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

    /// Now it may: what arrives first was sent first.
    #[track_caller]
    fn end(&self) {
        self.send("let out");
        assert_eq!(receive(&self.server).0, "let out");
    }
}

#[test]
fn nothing_of_a_closed_scope_leaves_between_the_first_link_and_the_daemon() {
    let router = Router::new();
    let guard = Guardfile::new(&desired(), &Numbers::default());
    router.store().save_guard(guard.as_ref()).unwrap();
    let said = router.guard();
    assert!(said.contains("write firewall table\n") && said.ends_with("\n0\n"), "{said}");
    assert!(said.contains("add rule 910 IPv4 fwmark 0x0/0xf000000 iif lan0 lookup 26500\n"), "{said}");
    assert_eq!(router.guard(), "all is there already\n0\n");
    router.boot();
    let streams = both(FAR).map(|at| Stream::new(&router.bed, at));
    let send = |text: &str| streams.iter().for_each(|stream| stream.send(text));
    send("boot");
    // Each of the two holds alone.
    router.bed.router.flush();
    send("no table");
    assert!(router.guard().starts_with("write firewall table\n"));
    for family in ["-4", "-6"] {
        router.bed.router.ip(&format!("{family} rule del pref 910"));
    }
    send("no rules");
    assert_eq!(router.guard().matches("add rule").count(), 2);
    // The daemon takes it up.
    let observed = router.observe();
    let there = observed.ruleset.clone().expect("a table");
    assert!(there.0.contains("shut-s0") && desired().ruleset != Some(there), "known, and another");
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
fn where_nothing_is_to_be_kept_in_nothing_is_touched() {
    let router = Router::new();
    assert_eq!(router.guard(), "no scope is to be kept in\n0\n");
    let observed = router.observe();
    assert!(observed.ruleset.is_none() && observed.rules.is_empty() && observed.routes.is_empty());
    let guard = Guardfile::new(&desired(), &Numbers::default());
    router.store().save_guard(guard.as_ref()).unwrap();
    router.store().save_guard(None).unwrap();
    assert_eq!(router.guard(), "no scope is to be kept in\n0\n");
}

#[test]
fn a_damaged_file_lets_nothing_through_until_the_daemon_runs() {
    let router = Router::new();
    fs::create_dir(router.disk.path().join("state")).unwrap();
    fs::write(router.disk.path().join("state/guard.json"), "{\"table\":").unwrap();
    let said = router.guard();
    assert!(said.contains("guard.json is damaged") && said.ends_with("\n1\n"), "{said}");
    router.boot();
    let streams = both(FAR).map(|at| Stream::new(&router.bed, at));
    streams.iter().for_each(|stream| stream.send("kept in"));
    // The daemon knows of no scope: it takes away what is there.
    let plan = Plan::new(&router.observe(), &Desired::default());
    assert!(matches!(&plan.steps[..], [Step::DeleteRuleset]), "{plan}");
    router.execute(&plan.steps[0]);
    streams.iter().for_each(Stream::end);
}
