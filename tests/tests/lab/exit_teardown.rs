//! Teardown of exits: when they are switched off and when the network is left, the router is as it was before, to the
//! last setting.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, differences, eventually},
    mesh::exits::{Exits, HOME},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
/// Directory of additional dnsmasq configuration.
const DNSMASQ: &str = "/tmp/dnsmasq.d";

/// The kernel's state, and the files that other programs read.
struct State {
    kernel: Value,
    files: String,
}

impl State {
    fn of(router: &Host) -> Result<Self> {
        let files = format!(
            "find {DNSMASQ} /etc/config -type f | sort | while read -r file; do echo \"$file\"; cat \"$file\"; done"
        );
        Ok(Self { kernel: router.dump()?, files: router.shell(&files)?.stdout })
    }

    /// Waits until a router is in this state again: the last step may take effect some time after the command.
    fn wait_for(&self, router: &Host) -> Result<()> {
        eventually(SOON, &format!("{} is as before", router.name()), || -> Result<()> {
            let now = Self::of(router)?;
            let differences = differences(&self.kernel, &now.kernel);
            ensure!(differences.is_empty(), "{}", differences.join("\n"));
            ensure!(self.files == now.files, "was:\n{}\nis:\n{}", self.files, now.files);
            Ok(())
        })
    }
}

/// One scope, several scopes with two exits, and all traffic in a scope; then no scope, and then the network is left.
#[test]
fn router_without_exits_or_network_is_as_before() -> Result<()> {
    let mut exits = Exits::without_home(&["farm", "office"])?;
    let home = exits.host(HOME)?;
    home.write_file(&format!("{DNSMASQ}/others.conf"), "server=/lan.example/192.168.20.9\n")?;
    exits.mesh.place_foreign(HOME)?;
    let stranger = State::of(&home)?;
    exits.mesh.join(HOME)?;
    exits.mesh.wait_for_peers(&[HOME, "farm", "office"])?;
    exits.mesh.wait_until_settled(HOME)?;
    let member = State::of(&home)?;

    let wishes = [
        json!([["lan", { "of": ["dev:lan"], "exits": ["farm"] }], ["guest", { "of": ["dev:guest"], "exits": ["office"] }]]),
        json!([["all", { "of": ["all"], "exits": ["farm"], "exclude": ["192.0.2.0/24"], "kill_switch": false }]]),
        json!([["router", { "of": ["router"], "exits": ["office"] }]]),
        json!([["host", { "of": ["192.168.20.10"], "exits": ["farm"], "allow_lan": false, "redirect_dns": false }]]),
    ];
    for wish in wishes {
        let scopes: Vec<(String, Value)> = serde_json::from_value(wish)?;
        for (name, wish) in &scopes {
            exits.set_scope(name, wish)?;
        }
        for (name, _) in &scopes {
            exits.wait_for_scope(name, "exit")?;
        }
        exits.mesh.wait_until_settled(HOME)?;
        ensure!(State::of(&home)?.kernel != member.kernel, "nothing was done");
        for (name, _) in &scopes {
            exits.unset_scope(name)?;
        }
        exits.wait_for_no_scope()?;
        exits.mesh.wait_until_settled(HOME)?;
        member.wait_for(&home)?;
    }

    exits.set_scope("all", &json!({ "of": ["all"], "exits": ["farm"] }))?;
    exits.wait_for_scope("all", "exit")?;
    exits.mesh.forget_interface(HOME);
    exits.mesh.gatewrt(HOME, &["leave", "home"])?;
    eventually(SOON, "no WireGuard runs", || -> Result<()> {
        let processes = home.run(&["ps", "-e", "-o", "comm="])?.stdout;
        ensure!(!processes.contains("wireguard-go"), "{processes}");
        Ok(())
    })?;
    stranger.wait_for(&home)?;
    ensure!(!home.exists("/etc/gatewrt/guard.json")?, "a guard for nothing is left");
    Ok(())
}

/// Exits are switched on and off a thousand times: each change takes effect, nothing is duplicated, and nothing is
/// left.
#[test]
fn thousand_exit_changes_leave_nothing() -> Result<()> {
    const TIMES: usize = 1000;
    let exits = Exits::start(&["farm"])?;
    let home = exits.host(HOME)?;
    exits.mesh.wait_until_settled(HOME)?;
    let before = State::of(&home)?;
    let count = "ip rule show | grep -c 'proto 103'";
    let start = Instant::now();
    for _ in 0..TIMES / 100 {
        let script = "for i in $(seq 100); do gatewrt exit enable farm >/dev/null; gatewrt exit disable >/dev/null; done";
        home.command(&["sh", "-ec", script]).timeout(Duration::from_secs(120)).run()?;
        home.run(&["gatewrt", "exit", "enable", "farm"])?;
        // One rule for each LAN, and one for the network.
        eventually(SOON, "three rules are there", || -> Result<()> {
            let rules = home.shell(count)?.stdout;
            ensure!(rules.trim() == "3", "{rules}");
            Ok(())
        })?;
        home.run(&["gatewrt", "exit", "disable"])?;
        eprintln!("{:?}", start.elapsed());
    }
    println!("{TIMES} times on and off: {:.1} s", start.elapsed().as_secs_f64());
    home.run(&["gatewrt", "exit", "forget"]).context("the coordinator's word again")?;
    before.wait_for(&home)
}
