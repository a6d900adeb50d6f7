//! Leaks of a router whose Internet traffic leaves through an exit. With the kill switch on, no fault lets a packet
//! leave by another way: IPv4, IPv6 and DNS, of LAN hosts and of the router itself, captured beyond its WAN. With the
//! switch off the same traffic is let through on purpose.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Capture, Host, TrafficGenerator, eventually, until},
    mesh::exits::{EFFECT, Exits, HOME, NOBODY, Seen},
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const SOON: Duration = Duration::from_secs(10);
/// Longest time until a recovered exit is used again: it has to answer for ten seconds first.
const TAKEN_AGAIN: Duration = Duration::from_secs(30);
/// Hosts that send traffic, all of it in the scope.
const ALL: [&str; 3] = ["home-pc", "guest-pc", HOME];
/// Ruleset of a home router's own firewall.
const FIREWALL: &str = "table inet fw4like {
    chain srcnat {
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"wan\" ip saddr { 192.168.20.0/24, 192.168.21.0/24 } masquerade
    }
}";
/// Our rules of both families, deleted by a network restart.
const DELETE_RULES: &str = "ip -4 rule flush protocol 103; ip -6 rule flush protocol 103";

/// `home` with all of its traffic through `farm`, with failover to `office`, and a capture of packets that leave
/// another way.
struct Site {
    exits: Exits,
    home: Host,
    generators: BTreeMap<&'static str, TrafficGenerator>,
    capture: Capture,
    is_closed: bool,
    counted: usize,
    let_through: Vec<(String, BTreeMap<String, usize>)>,
}

impl Site {
    fn new(is_closed: bool) -> Result<Self> {
        let mut exits = Exits::start(&["farm", "office"])?;
        exits.mesh.remove_foreign(HOME)?;
        exits.mesh.forget_interface(HOME);
        let home = exits.host(HOME)?;
        let generators =
            ALL.into_iter().map(|name| Ok((name, exits.generator(name)?))).collect::<Result<_>>()?;
        let capture = exits.leaks()?;
        let mut site =
            Self { exits, home, generators, capture, is_closed, counted: 0, let_through: Vec::new() };
        site.wait_for_direct()?;
        site.choose(["farm", "office"])?;
        site.wait_for("farm")?;
        site.exits.mesh.wait_until_confirmed(HOME)?;
        site.counted = site.capture.count();
        ensure!(site.counted > 0, "what left before there was a scope was not seen");
        Ok(site)
    }

    fn choose(&self, order: [&str; 2]) -> Result<()> {
        self.exits
            .set_scope("everything", &json!({ "of": ["all"], "exits": order, "kill_switch": self.is_closed }))
    }

    fn wait_for(&self, exit: &str) -> Result<()> {
        let seen = self.exits.through(exit)?;
        self.wait_until(TAKEN_AGAIN, |_| Ok(seen))
    }

    fn wait_for_direct(&self) -> Result<()> {
        self.wait_until(EFFECT, |name| self.exits.direct(name))
    }

    /// Waits until traffic goes nowhere, with the kill switch on, or over the WAN, with it off.
    fn wait_for_none(&self) -> Result<()> {
        if self.is_closed { self.wait_until(EFFECT, |_| Ok(NOBODY)) } else { self.wait_for_direct() }
    }

    fn wait_until(&self, deadline: Duration, seen: impl Fn(&str) -> Result<Seen>) -> Result<()> {
        let wanted = self.generators.iter().map(|(name, generator)| Ok((generator, seen(name)?)));
        TrafficGenerator::wait_for_all(deadline, &wanted.collect::<Result<Vec<_>>>()?)
    }

    /// Runs an event, at whose end traffic flows as before, and counts the packets that left another way meanwhile.
    fn event(&mut self, what: &str, happens: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        eprintln!("--- {what}");
        let start = Instant::now();
        happens(self).with_context(|| what.to_owned())?;
        let lines = self.capture.lines().split_off(self.counted);
        self.counted += lines.len();
        let mut kinds = BTreeMap::new();
        lines.iter().for_each(|line| *kinds.entry(kind(line)).or_default() += 1);
        println!("{what}: {kinds:?} outside the tunnel, {:.1} s", start.elapsed().as_secs_f64());
        self.let_through.push((what.to_owned(), kinds));
        ensure!(!self.is_closed || lines.is_empty(), "{what}: {} packets leaked: {lines:#?}", lines.len());
        Ok(())
    }

    fn kill(&self) -> Result<()> {
        let daemon = self.exits.mesh.daemon(HOME)?;
        daemon.kill(Signal::SIGKILL)?;
        daemon.wait(SOON).map(drop)
    }

    fn start(&self) -> Result<()> {
        self.exits.mesh.daemon(HOME)?.restart()
    }

    /// Runs a deed on the router, first with its daemon running, then without; in the second case nothing has to work
    /// until the daemon is started.
    fn meddle(&mut self, what: &str, deed: &str) -> Result<()> {
        self.event(what, |site| {
            site.home.shell(deed)?;
            site.wait_for("farm")
        })?;
        self.event(&format!("{what}, no daemon"), |site| {
            site.kill()?;
            site.home.shell(deed)?;
            site.ask_on()?;
            site.start()?;
            site.wait_for("farm")
        })
    }

    /// Waits until every generator has sent some more requests, answered or not.
    fn ask_on(&self) -> Result<()> {
        self.generators.values().for_each(TrafficGenerator::forget);
        eventually(SOON, "everyone has asked", || {
            self.generators.values().all(|generator| generator.heard().values().all(|heard| heard.asked >= 4))
        })
    }

    fn run(&mut self) -> Result<()> {
        self.event("an exit dies", |site| {
            site.exits.mesh.lab.isolate("farm")?;
            site.wait_for("office")
        })?;
        self.event("all exits die", |site| {
            site.exits.mesh.lab.isolate("office")?;
            site.wait_for_none()
        })?;
        self.event("they come back", |site| {
            site.exits.mesh.lab.heal()?;
            site.wait_for("farm")
        })?;
        self.event("the daemon is killed", |site| {
            site.kill()?;
            site.ask_on()?;
            site.wait_for("farm")
        })?;
        self.event("the daemon starts", |site| {
            site.start()?;
            site.exits.mesh.daemon(HOME)?.wait_for_log(SOON, "is running")?;
            site.wait_for("farm")
        })?;
        self.meddle("the interface is deleted", "ip link del gw-home")?;
        self.meddle("nft flush ruleset", "nft flush ruleset")?;
        self.home.nft(FIREWALL)?;
        self.meddle("our rules are deleted", DELETE_RULES)?;
        let reload =
            format!("nft -f - <<'END'\ntable inet fw4like\ndelete table inet fw4like\n{FIREWALL}\nEND");
        self.meddle("the firewall is reloaded", &reload)?;
        self.event("the WAN goes", |site| {
            site.home.link_down("wan")?;
            site.ask_on()
        })?;
        self.event("the WAN comes", |site| {
            site.home.link_up("wan")?;
            site.wait_for("farm")
        })?;
        self.event("the WAN's address changes", |site| {
            site.home.change_wan_address()?;
            site.wait_for("farm")
        })?;
        self.event("the exit is switched", |site| {
            site.choose(["office", "farm"])?;
            site.wait_for("office")?;
            site.choose(["farm", "office"])?;
            site.wait_for("farm")?;
            site.exits.mesh.wait_until_confirmed(HOME)
        })?;
        self.event("the coordinator goes", |site| {
            site.exits.mesh.coordinator.stop()?;
            site.ask_on()?;
            site.wait_for("farm")
        })?;
        self.event("the router reboots, no daemon yet", |site| {
            site.generators.remove(HOME);
            site.home.reboot_with(|home| home.run(&["gatewrt", "guard"]).map(drop))?;
            site.generators.insert(HOME, site.exits.generator(HOME)?);
            site.ask_on()
        })?;
        self.event("its daemon starts, no coordinator", |site| {
            site.start()?;
            site.wait_for("farm")
        })?;
        self.event("the coordinator comes", |site| {
            site.exits.mesh.coordinator.restart()?;
            site.wait_for("farm")
        })
    }
}

/// Kind of a captured packet: its family, and DNS or not.
fn kind(line: &str) -> String {
    let family = if line.contains(" IP6 ") { "IPv6" } else { "IPv4" };
    let what = if line.contains(".53: ") { " DNS" } else { "" };
    format!("{family}{what}")
}

/// With the kill switch on nothing leaks. At the end the firewall table is deleted by hand, to show that the capture
/// sees the same traffic when nothing holds it back.
#[test]
fn closed_scope_leaks_nothing() -> Result<()> {
    let mut site = Site::new(true)?;
    site.run()?;

    site.kill()?;
    site.home.shell("nft delete table inet gatewrt")?;
    for family in ["-4", "-6"] {
        site.home.shell(&format!("ip {family} rule flush protocol 103"))?;
        let (before, dns) = match family {
            "-4" => ("IPv4", "IPv4 DNS"),
            _ => ("IPv6", "IPv6 DNS"),
        };
        eventually(SOON, &format!("leaks over {before} are seen"), || {
            let kinds: Vec<String> =
                site.capture.lines()[site.counted..].iter().map(|line| kind(line)).collect();
            [before, dns].iter().all(|wanted| kinds.iter().any(|kind| kind == wanted))
        })?;
    }
    Ok(())
}

/// A scope is switched on and off a hundred times: while it is in effect, nothing leaves another way.
#[test]
fn closed_scope_toggled_a_hundred_times_leaks_nothing_while_on() -> Result<()> {
    const TIMES: usize = 100;
    let exits = Exits::start(&["farm"])?;
    let home = exits.host(HOME)?;
    let generator = exits.generator("home-pc")?;
    let capture = exits.leaks()?;
    let mut on = Vec::new();
    for _ in 0..TIMES {
        home.run(&["gatewrt", "exit", "enable", "farm"])?;
        until(SOON, "it is in effect", || -> Result<()> {
            let rules = home.shell("ip -4 rule show; ip -6 rule show")?.stdout;
            let ours = rules.lines().filter(|rule| rule.contains("iif lan") && rule.contains("proto 103"));
            ensure!(ours.count() >= 2, "{rules}");
            // Connections from before the change are cut too.
            ensure!(exits.mesh.plan(HOME)?.is_empty(), "not all is done");
            Ok(())
        })?;
        let start = time_of_day()?;
        generator.forget();
        until(SOON, "all ways were tried", || generator.heard().values().all(|heard| heard.asked > 0))?;
        on.push(start..time_of_day()?);
        home.run(&["gatewrt", "exit", "disable"])?;
    }
    generator.wait_until_seen_as(EFFECT, exits.direct("home-pc")?)?;
    let lines = capture.lines();
    let is_leak =
        |line: &&String| on.iter().any(|span| captured_at(line).is_some_and(|at| span.contains(&at)));
    let leaks: Vec<&String> = lines.iter().filter(is_leak).collect();
    let length: f64 = on.iter().map(|span| span.end - span.start).sum();
    println!(
        "on {TIMES} times, {length:.1} s in all: {} packets outside the tunnel, {} while it was off",
        leaks.len(),
        lines.len()
    );
    ensure!(leaks.is_empty(), "{leaks:#?}");
    ensure!(!lines.is_empty(), "off, everything is seen");
    Ok(())
}

/// Seconds since midnight, as in the capture's timestamps.
fn time_of_day() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() % 86_400.0)
}

fn captured_at(line: &str) -> Option<f64> {
    let mut parts = line.split(' ').next()?.split(':').map(str::parse::<f64>);
    let mut part = || parts.next()?.ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}

/// The same faults with the kill switch off: while no exit works, traffic flows over the WAN.
#[test]
fn open_scope_lets_the_same_through() -> Result<()> {
    let mut site = Site::new(false)?;
    site.run()?;
    for (what, kinds) in &site.let_through {
        println!("switch off: {what}: {kinds:?}");
    }
    let through = site.let_through.iter().find(|(what, _)| what == "all exits die").context("it happened")?;
    ensure!(through.1.len() == 4, "IPv4 and IPv6, DNS too: {through:?}");
    Ok(())
}
