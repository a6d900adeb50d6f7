//! `throughput`: what a router carries through an egress and through an exit, with GateWRT and with the same made by hand
//! from `ip`, `wg` and `nft`: the same topology twice in one kernel, in turn, over the kernel's WireGuard.
//!
//! Prints a line for each, and fails where GateWRT carries less than [`LEAST`] of what is made by hand.

mod by_hand;

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Kind, Lab, Topology, Whoami, eventually, fetch, transfer},
    mesh::{
        Mesh,
        exits::{Exits, HOME},
    },
};
use serde_json::json;

/// Of the throughput by hand. The aim is 0.98; measured are 0.994 to 1.001 through an egress and 0.980 to 0.986 through an
/// exit, where each packet of a LAN is asked which way it goes. From one boot of the machine to the next it differs by that
/// much; less than this is a fault.
const LEAST: f64 = 0.97;
/// Pairs of measurements; odd, so that one is in the middle.
const ROUNDS: usize = 9;
/// Where the server says who asks.
const ASKED: u16 = 8088;
/// At once, so that there is always something to do.
const CONNECTIONS: usize = 4;
/// Of a connection, in bytes.
const WINDOW: usize = 256 << 10;
/// Each way, in one measurement: idle time is told in hundredths of a second, which must not matter.
const BYTES: usize = 4 << 20;
/// Of no packet that a tunnel carries is more put together, in bytes.
const PACKET: usize = 1400;

fn main() -> ExitCode {
    match egress().and_then(|egress| Ok([egress, exit()?])) {
        Ok(ratios) if ratios.iter().all(|ratio| *ratio >= LEAST) => ExitCode::SUCCESS,
        Ok(ratios) => {
            eprintln!("throughput: {ratios:.3?} of what is made by hand, at least {LEAST} is wanted");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("throughput: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A host of one site and a host on the other's LAN, which takes it for its own router.
fn egress() -> Result<f64> {
    let mesh = Mesh::start(Lab::two_sites()?, &["office", "home"])?;
    mesh.serve_lans(&["office"], false)?;
    mesh.serve_lans(&["home"], true)?;
    let lab = Lab::two_sites()?;
    by_hand::egress(&lab, "office", "home")?;
    let path = |lab: &Lab| Path::new(lab, "office-pc", "home-pc", lab.host("home")?.lan4()?);
    compare("through an egress", &path(&mesh.lab)?, &path(&lab)?)
}

/// A host of one site and a server on the Internet, which takes it for the other site's router.
fn exit() -> Result<f64> {
    let exits = Exits::start(&["farm"])?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"] }))?;
    exits.wait_for_scope("lan", "exit")?;
    let mut topology = Topology::exits()?;
    topology.router.get_mut(HOME).context("a router home")?.rp_filter = 1;
    let lab = Lab::new(&topology)?;
    by_hand::exit(&lab, HOME, "farm")?;
    let path = |lab: &Lab| Path::new(lab, "home-pc", "web", lab.host("farm")?.ip4()?);
    compare("through an exit", &path(&exits.mesh.lab)?, &path(&lab)?)
}

/// Who fetches what from whom.
struct Path {
    client: Host,
    server: Host,
    address: IpAddr,
}

impl Path {
    /// The server sees the client as `masqueraded`.
    fn new(lab: &Lab, client: &str, server: &str, masqueraded: Ipv4Addr) -> Result<Self> {
        let (client, server) = (lab.host(client)?, lab.host(server)?);
        let address = server.ip4()?;
        let _whoami = Whoami::start_on(&server, ASKED)?;
        // Each packet goes by itself, as it comes in at a small router's ports, and each is acknowledged: how many are put
        // together otherwise is chance, and makes a tenth of the time.
        for router in lab.hosts().iter().filter(|host| host.kind() == Kind::Router) {
            router.shell(&format!(
                "for tunnel in gw-home wg0; do
                    if [ -e /sys/class/net/$tunnel ]; then ip link set $tunnel gro_max_size {PACKET}; fi
                done"
            ))?;
        }
        // What is on its way never fills a queue on the way: nothing is lost, and nobody waits.
        for host in [&client, &server] {
            host.shell(&format!(
                "for link in /sys/class/net/*; do ip link set ${{link##*/}} gso_max_segs 1; done
                ip route show | while read -r route; do ip route change $route quickack 1; done
                sysctl -qw net.ipv4.tcp_wmem='4096 {WINDOW} {WINDOW}' net.ipv4.tcp_rmem='4096 {WINDOW} {WINDOW}'"
            ))?;
        }
        eventually(Duration::from_secs(20), "the server sees who masquerades", || -> Result<()> {
            let seen = fetch(&client, &format!("http://{address}:{ASKED}/"))?;
            ensure!(seen == masqueraded.to_string(), "it sees {seen}");
            Ok(())
        })?;
        Ok(Self { client, server, address: address.into() })
    }

    /// How long the processor was busy with it. It is what a router has least of; and how long it waits between packets,
    /// with a processor that is emulated, is a matter of what else this machine does.
    fn seconds(&self) -> Result<f64> {
        let before = idle()?;
        let took = transfer(&self.client, &self.server, self.address, CONNECTIONS, BYTES / CONNECTIONS)?;
        Ok(took.as_secs_f64() - (idle()? - before))
    }
}

/// Seconds in which the processor had nothing to do, since it started.
fn idle() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let all = stat.lines().next().context("a line for all processors")?;
    Ok(all.split_whitespace().nth(4).context("its idle time")?.parse::<f64>()? / 100.0)
}

/// Measures both in turn, and returns what ours carries of what the other does.
fn compare(what: &str, ours: &Path, by_hand: &Path) -> Result<f64> {
    // The first packets find their way, and buffers grow.
    ours.seconds()?;
    by_hand.seconds()?;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // Who goes first has nothing from it.
        let mut pair = [(0, ours), (1, by_hand)];
        pair.rotate_left(round % 2);
        for (which, path) in pair {
            times[which].push(path.seconds()?);
        }
    }
    eprintln!("throughput {what}: seconds, and by hand: {times:.4?}");
    let rates = times.map(|times| (2 * BYTES) as f64 * 8.0 / 1e6 / median(times));
    ensure!(rates[1] > 0.0, "nothing came by hand");
    let ratio = rates[0] / rates[1];
    println!(
        "throughput {what}: {:.1} Mbit/s, {:.1} by hand: ratio {ratio:.3}, the median of {ROUNDS} rounds",
        rates[0], rates[1]
    );
    Ok(ratio)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
