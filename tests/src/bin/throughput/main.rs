//! `throughput`: compares a router's throughput with GateWRT to that of the same setup made by hand from `ip`, `wg` and
//! `nft`, through an egress and through an exit. Both use the same topology in one kernel, in turn, over the kernel's
//! WireGuard.
//!
//! Prints a line for each, and fails if GateWRT carries less than [`LEAST`] of the setup by hand, by the median of
//! several runs. Each run builds both topologies again: the placement of a topology's memory in the kernel is chance,
//! changes the time by a hundredth, and lasts as long as the topology.

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

/// Least ratio of the throughput with GateWRT to that by hand.
const LEAST: f64 = 0.98;
/// Number of runs, each with topologies of its own; odd, so that one is in the middle. In an emulated machine each takes minutes.
const RUNS: usize = 3;
/// Number of pairs of measurements in a run; odd.
const ROUNDS: usize = 3;
/// TCP port on which the server answers with the address it sees.
const ASKED: u16 = 8088;
/// Number of connections at once, so that there is always something to do.
const CONNECTIONS: usize = 4;
/// Largest window of a connection, in bytes.
const WINDOW: usize = 256 << 10;
/// Bytes each way in one measurement: so many that the resolution of idle time, 10 ms, doesn't matter.
const BYTES: usize = 4 << 20;
/// Limit in bytes for merging packets of a tunnel on receipt (`gro_max_size`): so low that none are merged.
const PACKET: usize = 1400;

fn main() -> ExitCode {
    let both =
        measure("through an egress", egress).and_then(|one| Ok([one, measure("through an exit", exit)?]));
    match both {
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

/// Median of the ratios of all runs.
fn measure(what: &str, run: impl Fn() -> Result<f64>) -> Result<f64> {
    let ratios = (0..RUNS).map(|_| run().with_context(|| what.to_owned())).collect::<Result<Vec<_>>>()?;
    let ratio = median(ratios.clone());
    println!("throughput {what}: ratio {ratio:.3}, the median of {RUNS} runs: {ratios:.3?}");
    Ok(ratio)
}

/// Ratio for a path from a host of one site to a host on the other's LAN, which sees its own router as the source.
fn egress() -> Result<f64> {
    let mesh = Mesh::start(Lab::two_sites()?, &["office", "home"])?;
    mesh.serve_lans(&["office"], false)?;
    mesh.serve_lans(&["home"], true)?;
    let lab = Lab::two_sites()?;
    by_hand::egress(&lab, "office", "home")?;
    let path = |lab: &Lab| Path::new(lab, "office-pc", "home-pc", lab.host("home")?.lan4()?);
    compare(&path(&mesh.lab)?, &path(&lab)?)
}

/// Ratio for a path from a host of one site to a server on the Internet, which sees the other site's router as the
/// source.
fn exit() -> Result<f64> {
    let exits = Exits::start(&["farm"])?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"] }))?;
    exits.wait_for_scope("lan", "exit")?;
    let mut topology = Topology::exits()?;
    topology.router.get_mut(HOME).context("a router home")?.rp_filter = 1;
    let lab = Lab::new(&topology)?;
    by_hand::exit(&lab, HOME, "farm")?;
    let path = |lab: &Lab| Path::new(lab, "home-pc", "web", lab.host("farm")?.ip4()?);
    compare(&path(&exits.mesh.lab)?, &path(&lab)?)
}

/// Client and server of a measurement.
struct Path {
    client: Host,
    server: Host,
    address: IpAddr,
}

impl Path {
    /// Prepares a path and waits until the server sees the client as `masqueraded`.
    fn new(lab: &Lab, client: &str, server: &str, masqueraded: Ipv4Addr) -> Result<Self> {
        let (client, server) = (lab.host(client)?, lab.host(server)?);
        let address = server.ip4()?;
        let _whoami = Whoami::start_on(&server, ASKED)?;
        // Packets are not merged, as they come in at a small router's ports: how many are merged otherwise is chance,
        // and changes the time by a tenth.
        for router in lab.hosts().iter().filter(|host| host.kind() == Kind::Router) {
            router.shell(&format!(
                "for tunnel in gw-home wg0; do
                    if [ -e /sys/class/net/$tunnel ]; then ip link set $tunnel gro_max_size {PACKET}; fi
                done"
            ))?;
        }
        // Packets are sent one by one and each is acknowledged. The windows are too small to fill a queue on the path,
        // so that nothing is lost and nobody waits.
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

    /// Processor time of a transfer in seconds: a router has least of it. Waits between packets don't count: with an
    /// emulated processor they depend on what else this machine does.
    fn seconds(&self) -> Result<f64> {
        let before = idle()?;
        let took = transfer(&self.client, &self.server, self.address, CONNECTIONS, BYTES / CONNECTIONS)?;
        Ok(took.as_secs_f64() - (idle()? - before))
    }
}

/// Idle time of the processor since boot, in seconds.
fn idle() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let all = stat.lines().next().context("a line for all processors")?;
    Ok(all.split_whitespace().nth(4).context("its idle time")?.parse::<f64>()? / 100.0)
}

/// Measures both paths in turn, and returns the ratio of the throughput of ours to that by hand.
fn compare(ours: &Path, by_hand: &Path) -> Result<f64> {
    // Warm-up: the first packets find their way, and buffers grow.
    ours.seconds()?;
    by_hand.seconds()?;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // The order alternates, so that going first is no advantage.
        let mut pair = [(0, ours), (1, by_hand)];
        pair.rotate_left(round % 2);
        for (which, path) in pair {
            times[which].push(path.seconds()?);
        }
    }
    let rates = times.map(|times| (2 * BYTES) as f64 * 8.0 / 1e6 / median(times));
    ensure!(rates[1] > 0.0, "nothing came by hand");
    println!("throughput of a run: {:.1} Mbit/s, {:.1} by hand", rates[0], rates[1]);
    Ok(rates[0] / rates[1])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
