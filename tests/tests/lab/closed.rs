//! A closed scope holds whatever the router's routing table and links look like: a default route over the LAN or in
//! another table, a port outside its bridge, a link that is missing or renamed, hosts that have both families.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Capture, Host, TrafficGenerator, eventually},
    mesh::exits::{EFFECT, Exits, HOME, NOBODY, Seen},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Longest time until a recovered exit is used again: it has to answer for ten seconds first.
const TAKEN_AGAIN: Duration = Duration::from_secs(30);
/// Our rules of both families, deleted by a network restart.
const DELETE_RULES: &str = "ip -4 rule flush protocol 103; ip -6 rule flush protocol 103";

/// `home` with traffic of a LAN host, and a capture of packets that leave another way than by a tunnel.
struct Site {
    exits: Exits,
    home: Host,
    pc: TrafficGenerator,
    capture: Capture,
    counted: usize,
}

impl Site {
    fn new() -> Result<Self> {
        Self::with(Exits::start(&["farm"])?)
    }

    fn with(exits: Exits) -> Result<Self> {
        let (home, pc) = (exits.host(HOME)?, exits.generator("home-pc")?);
        let capture = exits.leaks()?;
        pc.wait_until_seen_as(EFFECT, exits.direct("home-pc")?)?;
        let site = Self { exits, home, pc, capture, counted: 0 };
        ensure!(site.capture.count() > 0, "what left before there was a scope was not seen");
        Ok(site)
    }

    /// Sets the scope of the router, and waits until it is in effect. `lan` is the router's own word for its LANs.
    fn close(&mut self, of: &str) -> Result<()> {
        eprintln!("--- scope {of}");
        match of {
            "lan" => drop(self.exits.mesh.gatewrt(HOME, &["exit", "enable", "farm"])?),
            _ => self.exits.set_scope("some", &json!({ "of": [of], "exits": ["farm"] }))?,
        }
        self.pc.wait_until_seen_as(TAKEN_AGAIN, self.farm()?)?;
        self.exits.mesh.wait_until_settled(HOME)?;
        self.counted = self.capture.count();
        Ok(())
    }

    fn open(&self, of: &str) -> Result<()> {
        match of {
            "lan" => drop(self.exits.mesh.gatewrt(HOME, &["exit", "disable"])?),
            _ => self.exits.unset_scope("some")?,
        }
        self.pc.wait_until_seen_as(EFFECT, self.exits.direct("home-pc")?)
    }

    fn farm(&self) -> Result<Seen> {
        self.exits.through("farm")
    }

    /// Does something to the router, after which the host is seen like this, and nothing has left another way.
    fn event(&mut self, what: &str, deed: &str, seen: Option<Seen>) -> Result<()> {
        self.home.shell(deed).with_context(|| what.to_owned())?;
        self.ask_on()?;
        if let Some(seen) = seen {
            self.pc.wait_until_seen_as(TAKEN_AGAIN, seen).with_context(|| what.to_owned())?;
        }
        self.nothing_left(what)
    }

    fn nothing_left(&mut self, what: &str) -> Result<()> {
        let lines = self.capture.lines().split_off(self.counted);
        self.counted += lines.len();
        println!("{what}: {} packets outside the tunnel", lines.len());
        ensure!(lines.is_empty(), "{what}: {} packets leaked: {lines:#?}", lines.len());
        Ok(())
    }

    /// Waits until the host has sent some more requests, answered or not.
    fn ask_on(&self) -> Result<()> {
        self.pc.forget();
        eventually(SOON, "the host has asked", || self.pc.heard().values().all(|heard| heard.asked >= 4))
    }

    fn kill(&self) -> Result<()> {
        let daemon = self.exits.mesh.daemon(HOME)?;
        daemon.kill(Signal::SIGKILL)?;
        daemon.wait(SOON).map(drop)
    }

    fn start(&self) -> Result<()> {
        self.exits.mesh.daemon(HOME)?.restart()?;
        self.exits.mesh.daemon(HOME)?.wait_for_log(SOON, "is running")
    }

    fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start()
    }

    fn scope(&self) -> Result<Value> {
        Ok(self.exits.mesh.scopes(HOME)?[0].clone())
    }
}

/// A fallback gateway on the LAN makes no WAN of it, whether it is there before the scope, or comes while it is closed,
/// or is the only one left.
#[test]
fn default_route_over_the_lan_opens_no_scope() -> Result<()> {
    let mut site = Site::new()?;
    let tv = site.exits.host("home-tv")?;
    let web = site.exits.partners()?.web;
    let by_tv = Capture::incoming(&tv, &format!("dst host {} or dst host {}", web[0], web[1]))?;
    let add = format!(
        "ip -4 route add default via {} dev lan metric 200; ip -6 route add default via {} dev lan metric 9000",
        tv.ip4()?,
        tv.ip6()?
    );
    let delete = "ip -4 route del default metric 200; ip -6 route del default metric 9000";
    for of in ["dev:lan", "all", "lan"] {
        let farm = site.farm()?;
        site.close(of)?;
        site.event("fallback over the LAN", &add, Some(farm))?;
        site.restart()?;
        site.event("the daemon is restarted", "true", Some(farm))?;
        site.exits.mesh.lab.isolate("farm")?;
        site.event("the exit dies", "true", Some(NOBODY))?;
        site.event("our rules are deleted", DELETE_RULES, Some(NOBODY))?;
        site.exits.mesh.lab.heal()?;
        site.event("the exit is back", "true", Some(farm))?;
        site.open(of)?;
        // Now the route is there first.
        site.close(of)?;
        site.event("scope after the route", "true", Some(farm))?;
        site.event("fallback goes", delete, Some(farm))?;
        site.open(of)?;
    }
    site.close("lan")?;
    site.event("fallback is the only one", &format!("{add}; ip link set wan down"), Some(NOBODY))?;
    ensure!(by_tv.count() == 0, "left by the LAN: {:#?}", by_tv.lines());
    Ok(())
}

/// Where the WAN's default route is in a table of its own, the firewall alone holds too.
#[test]
fn uplink_of_another_table_opens_no_scope() -> Result<()> {
    let mut site = Site::new()?;
    for family in ["-4", "-6"] {
        site.home.shell(&format!(
            "ip {family} route show default | sed 's/$/ table 100/' | while read line; do ip {family} route add $line; done
             ip {family} rule add pref 32800 lookup 100
             ip {family} route del default"
        ))?;
    }
    let farm = site.farm()?;
    for of in ["dev:lan", "all", "lan"] {
        site.close(of)?;
        site.event("the daemon is told", "true", Some(farm))?;
        site.kill()?;
        site.event("our rules are deleted, no daemon", DELETE_RULES, None)?;
        site.start()?;
        site.event("the daemon is back", "true", Some(farm))?;
        site.open(of)?;
    }
    Ok(())
}

/// What comes in by a port while netifd has it outside its bridge is no call from outside, and belongs to the scope.
#[test]
fn port_outside_its_bridge_opens_no_scope() -> Result<()> {
    let mut exits = Exits::without_home(&["farm"])?;
    let home = exits.host(HOME)?;
    home.shell(&format!(
        "mac=$(cat /sys/class/net/lan/address)
         ip link set lan down; ip link set lan name eth1; ip addr flush dev eth1
         ip link add lan address $mac type bridge; ip link set eth1 master lan
         ip link set eth1 up; ip link set lan up
         ip addr add {}/24 dev lan; ip -6 addr add {}/64 dev lan nodad
         sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0",
        exits.host(HOME)?.lan4()?,
        exits.host(HOME)?.lan6()?
    ))?;
    exits.mesh.join(HOME)?;
    exits.mesh.wait_for_peers(&[HOME, "farm"])?;
    let mut site = Site::with(exits)?;
    let farm = site.farm()?;
    let (leave, join) = ("ip link set eth1 nomaster", "ip link set eth1 master lan");
    for of in ["dev:lan", "all", "lan"] {
        site.close(of)?;
        site.event("the port leaves", leave, None)?;
        site.event("the port joins", join, Some(farm))?;
        site.kill()?;
        site.event("the port leaves, no daemon", leave, None)?;
        site.event("the port joins, no daemon", join, Some(farm))?;
        site.event("the port leaves again, no daemon", leave, None)?;
        site.start()?;
        site.event("the daemon starts meanwhile", "true", None)?;
        site.event("the port joins after", join, Some(farm))?;
        site.open(of)?;
    }
    Ok(())
}

/// A device that is missing is said to be, and no exit is shown for it; its hosts are known by their addresses while it
/// has another name.
#[test]
fn missing_device_is_said_and_opens_nothing() -> Result<()> {
    let mut site = Site::new()?;
    site.exits.set_scope("typo", &json!({ "of": ["dev:lann"], "exits": ["farm"] }))?;
    let said = |site: &Site| -> Result<()> {
        let scope = site.scope()?;
        ensure!(
            scope["state"] == "blocked" && scope["why"].to_string().contains("there is no interface"),
            "{scope}"
        );
        let shown = site.exits.mesh.gatewrt(HOME, &["exit", "status"])?.stdout;
        ensure!(!shown.contains("oes through farm"), "{shown}");
        Ok(())
    };
    eventually(EFFECT, "the missing device is said", || said(&site))?;
    site.exits.unset_scope("typo")?;
    site.close("dev:lan")?;
    let rename = format!(
        "ip link set lan down; ip link set lan name lan9; ip link set lan9 up
         ip addr replace {}/24 dev lan9; ip addr replace {}/64 dev lan9 nodad",
        site.home.lan4()?,
        site.home.lan6()?
    );
    site.event("the device is renamed", &rename, None)?;
    eventually(EFFECT, "the renamed device is said", || said(&site))?;
    site.ask_on()?;
    site.nothing_left("the device stays renamed")
}

/// A scope that names a LAN by its IPv4 prefix has the IPv6 of the LAN's hosts too, and the other way round.
#[test]
fn prefix_of_one_family_takes_the_other_along() -> Result<()> {
    let mut site = Site::new()?;
    for prefix in site.home.prefixes("lan")? {
        let farm = site.farm()?;
        site.close(&prefix)?;
        site.exits.mesh.lab.isolate("farm")?;
        site.event("the exit dies", "true", Some(NOBODY))?;
        site.event("our rules are deleted", DELETE_RULES, Some(NOBODY))?;
        site.exits.mesh.lab.heal()?;
        site.event("the exit is back", "true", Some(farm))?;
        site.open(&prefix)?;
    }
    Ok(())
}

/// A flow is offloaded when its answer comes: then the kernel asks for the way of the packets it answers as if the
/// router had sent them, from their host's address or the one that they have in the tunnel. That way is never the WAN;
/// the router's own packets keep theirs.
#[test]
fn way_of_an_answered_flow_is_never_the_wan() -> Result<()> {
    let mut site = Site::new()?;
    site.close("dev:lan")?;
    let web = site.exits.partners()?.web[1].to_string();
    let way = |to: &str, from: &str, more: &[&str]| -> Result<String> {
        let found = site.home.output(&[&["ip", "route", "get", to, "from", from], more].concat())?;
        Ok(found.stdout + &found.stderr)
    };
    let (overlay, pc) = (site.exits.mesh.overlay(HOME)?[1].to_string(), site.exits.host("home-pc")?.ip6()?);
    let found = way(&web, &overlay, &["oif", "gw-home"])?;
    ensure!(!found.contains("dev wan"), "{found}");
    // No address of the router: the rules are read.
    let rules = site.home.run(&["ip", "-6", "rule", "show"])?.stdout;
    let prefix = site.home.prefixes("lan")?[1].clone();
    let is_his = |rule: &&str| rule.contains(&format!("from {prefix} ")) && rule.contains("iif lo");
    ensure!(rules.lines().any(|rule| is_his(&rule)), "{pc}: {rules}");
    let found = way(&web, &site.home.lan6()?.to_string(), &[])?;
    ensure!(found.contains("dev wan"), "{found}");
    let peer = site.exits.mesh.overlay("farm")?[1].to_string();
    let found = way(&peer, &overlay, &[])?;
    ensure!(found.contains("dev gw-home"), "{found}");
    Ok(())
}

/// Where the router's firewall offloads flows, a scope's flows stay in their tunnel, also those that an answer offloads;
/// and those that left by the WAN are cut when the scope is closed.
#[test]
#[ignore = "needs flowtables in the kernel: make vm"]
fn offloaded_flow_stays_in_its_tunnel() -> Result<()> {
    let mut site = Site::new()?;
    let farm = site.farm()?;
    site.home.nft(
        "table inet offloading {
           flowtable ft {
             hook ingress priority filter
             devices = { lan, wan }
           }
           chain forward {
             type filter hook forward priority filter
             meta l4proto { tcp, udp } flow add @ft
           }
         }",
    )?;
    for of in ["dev:lan", "all", "lan"] {
        site.ask_on()?;
        site.close(of)?;
        for _ in 0..5 {
            site.event("flows are offloaded", "true", Some(farm))?;
        }
        let flows = site.home.shell("cat /proc/net/nf_conntrack")?.stdout;
        ensure!(flows.contains("[OFFLOAD]"), "nothing was offloaded: {flows}");
        site.exits.mesh.lab.isolate("farm")?;
        site.event("the exit dies", "true", Some(NOBODY))?;
        site.exits.mesh.lab.heal()?;
        site.event("the exit is back", "true", Some(farm))?;
        site.open(of)?;
    }
    Ok(())
}
