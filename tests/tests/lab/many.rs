//! Costs of a network of many nodes to one of its routers.

use crate::node_generator::{join, name};
use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Process, UdpStream, eventually},
    mesh::{Mesh, NETWORK},
    wg,
};
use std::time::Duration;

/// Number of nodes that have joined without a router behind them.
const NODES: u16 = 58;
const SOON: Duration = Duration::from_secs(20);
/// Time over which bytes of an idle link are counted: from one MQTT ping to the next.
const WINDOW: Duration = Duration::from_secs(30);
/// Most bytes a day that an idle router may use, each way.
const BYTES_A_DAY: u64 = 2_000_000;
/// Share of the reports in that, whatever their length.
const REPORTS_A_DAY: u64 = 1_080_000;
/// Most bytes sent for a change and the report that follows, with 48 peers in it.
const LONGEST_REPORT: u64 = 16_000;
/// Most memory of the daemon, without the program's text, which is many times as long here as in a build for routers.
const MOST_MEMORY_KIB: u64 = 4 << 10;

/// One more node, one more prefix and one node less take a plan each, of just the steps for the change, and a stream
/// between the others loses nothing.
#[test]
fn one_change_among_sixty_nodes_is_one_step() -> Result<()> {
    let mesh = sixty_nodes()?;
    let (a, b) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&a, &b, b.ip4()?.into(), 100)?;
    let others = wg::endpoints(&mesh.host("office")?)?;

    let mut steps = Steps::of(&mesh)?;
    join(&mesh, &mesh.code(1)?, NODES + 1)?;
    steps.expect(&["gw-home: add peer"])?;
    mesh.admin(&["egress", "set", NETWORK, &name(NODES + 1), "172.20.0.0/16"])?;
    steps.expect(&["gw-home: set peer", "add route 172.20.0.0/16"])?;
    mesh.admin(&["node", "remove", NETWORK, &name(NODES + 1)])?;
    steps.expect(&["delete route 172.20.0.0/16", "gw-home: remove peer"])?;

    assert_eq!(wg::endpoints(&mesh.host("office")?)?, others);
    stream.finish()?.assert_lossless();
    Ok(())
}

/// An idle router: the traffic on its control link and the daemon's memory are measured. A report is measured by
/// itself; the daemon's own tests show how often one is sent.
#[test]
fn idle_router_among_sixty_nodes_costs_little() -> Result<()> {
    let mesh = sixty_nodes()?;
    let office = mesh.host("office")?;
    meter(&office)?;
    let before = metered(&office)?;
    mesh.serve("office", &mesh.lans("office")?[0], true)?;
    let report = eventually(SOON, "a report says that it is done", || report_of_all(&mesh))?;
    let quiet = wait_until_quiet(&office)?;
    let with_report = since(before, quiet);
    // This sleep waits for no condition: bytes are counted over this time.
    std::thread::sleep(WINDOW);
    let idle = since(quiet, metered(&office)?);
    ensure!(report_of_all(&mesh)? == report, "there was news, or it is not as idle as it should be");

    let [up, down] = idle.map(|bytes| bytes * 24 * 3600 / WINDOW.as_secs());
    let day = [up + REPORTS_A_DAY, down];
    let memory = own_memory_kib(mesh.daemon("office")?)?;
    eprintln!(
        "{} peers; {WINDOW:?} idle: {idle:?} bytes up and down; a change and its report: {with_report:?}",
        NODES + 1
    );
    eprintln!("a day: {day:?} bytes up and down; memory of its own, as built for tests: {memory} KiB");
    assert!(with_report[0] < LONGEST_REPORT, "{with_report:?} bytes");
    assert!(day.iter().all(|bytes| *bytes < BYTES_A_DAY), "{day:?} bytes a day");
    assert!(memory < MOST_MEMORY_KIB, "{memory} KiB");
    Ok(())
}

fn own_memory_kib(daemon: &Process) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn since(before: [u64; 2], now: [u64; 2]) -> [u64; 2] {
    [now[0] - before[0], now[1] - before[1]]
}

/// Two real sites, and many nodes that only joined at the coordinator.
fn sixty_nodes() -> Result<Mesh> {
    let mesh = Mesh::two_sites()?;
    let code = mesh.code(NODES.into())?;
    (1..=NODES).try_for_each(|number| join(&mesh, &code, number))?;
    eventually(SOON, "office has all peers", || -> Result<()> {
        let peers = wg::peers(&mesh.host("office")?)?.len();
        ensure!(peers == usize::from(NODES) + 1, "{peers} peers");
        Ok(())
    })?;
    mesh.wait_until_settled("office")?;
    Ok(mesh)
}

/// The steps in the log of `office`.
struct Steps<'a> {
    mesh: &'a Mesh,
    seen: usize,
}

impl<'a> Steps<'a> {
    fn of(mesh: &'a Mesh) -> Result<Self> {
        let mut steps = Self { mesh, seen: 0 };
        steps.seen = steps.lines()?.len();
        Ok(steps)
    }

    fn lines(&self) -> Result<Vec<String>> {
        let log = self.mesh.daemon("office")?.log();
        let is_step = |line: &&str| line.contains(" step: ") || line.contains(" steps: ");
        Ok(log.lines().filter(is_step).map(str::to_owned).collect())
    }

    /// Asserts that exactly one plan was applied since the last call, with these steps.
    fn expect(&mut self, steps: &[&str]) -> Result<()> {
        let line = eventually(SOON, &format!("a plan is carried out: {steps:?}"), || -> Result<String> {
            self.lines()?.get(self.seen).cloned().context("none")
        })?;
        self.mesh.wait_until_settled("office")?;
        assert_eq!(self.lines()?.len(), self.seen + 1, "{:#?}", self.lines()?);
        self.seen += 1;
        assert!(line.contains(&format!(" {} step", steps.len())), "{line}");
        assert!(steps.iter().all(|step| line.contains(step)), "{line}");
        assert_eq!(line.matches(" peer ").count(), 1, "{line}");
        Ok(())
    }
}

/// Sequence number of the last report of `office`, which has to say that its assignment is applied.
fn report_of_all(mesh: &Mesh) -> Result<u64> {
    let node = mesh.admin_json(&["node", "show", NETWORK, "office"])?;
    let (wanted, done) = (&node["current"]["assignment"], &node["report"]["applied"]["assignment"]);
    ensure!(wanted == done, "{done} of {wanted}");
    node["report"]["seq"].as_u64().context("a report")
}

/// Installs counters of the control link's traffic, IP headers included.
fn meter(router: &Host) -> Result<()> {
    router.nft(
        "table inet metering {
           counter up { }
           counter down { }
           chain output { type filter hook output priority 300; tcp dport 8883 counter name up; }
           chain input { type filter hook input priority -300; tcp sport 8883 counter name down; }
         }\n",
    )
}

/// Waits until the control link is quiet, and returns the bytes up and down so far.
fn wait_until_quiet(router: &Host) -> Result<[u64; 2]> {
    let mut last = metered(router)?;
    let mut still = 0;
    eventually(SOON, "the control link is quiet", || {
        let now = metered(router)?;
        still = if now == last { still + 1 } else { 0 };
        last = now;
        ensure!(still > 10, "{now:?} bytes");
        Ok(now)
    })
}

/// Bytes up and down so far.
fn metered(router: &Host) -> Result<[u64; 2]> {
    let bytes = |name: &str| -> Result<u64> {
        let counter = router.run(&["nft", "-j", "list", "counter", "inet", "metering", name])?.json()?;
        let parts = counter["nftables"].as_array().context("a list")?;
        parts.iter().find_map(|part| part["counter"]["bytes"].as_u64()).context("a counter")
    };
    Ok([bytes("up")?, bytes("down")?])
}
