//! Demo steps about exits: a LAN's Internet traffic leaves through another router.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use gatewrt_tests::mesh::CONFIG;

use crate::scene::Scene;
use crate::story::NETWORK;

/// Exits for the barn's traffic, the preferred one first.
const EXITS: [&str; 2] = ["office", "home"];
const FETCH: &str = "curl -sS -4 --max-time 5 http://web/";

/// Switches two exits on: their routers' owners allow it in UCI, then the admin enables them.
pub fn offer(scene: &mut Scene) -> Result<()> {
    let list = format!("gatewrt-coordinator exit list {NETWORK}");
    let all = |word| move |said: &str| said.lines().filter(|line| line.contains(word)).count() == EXITS.len();
    for exit in EXITS {
        let uci = format!("config network {NETWORK}\\n\\toption allow_exit 1\\n");
        scene.run(exit, &format!("printf '{uci}' > {CONFIG}; gatewrt reload"))?;
    }
    scene.wait("coordinator", &list, all(" yes "))?;
    for exit in EXITS {
        let set = format!("gatewrt-coordinator exit set {NETWORK} {exit}");
        scene.run_showing("coordinator", &set, is_no_warning)?;
    }
    scene.wait("coordinator", &list, all("IPv4 and IPv6"))?;
    scene.run("coordinator", &list).map(drop)
}

/// Shows the failover of the barn's exit. A server sees the barn's LAN as the office, then, after a power cut there, as
/// home, and a capture at the barn's own uplink sees no packet in between.
pub fn use_and_lose(scene: &mut Scene) -> Result<()> {
    scene.start("web", "lab whoami", "", |_| false)?;
    let capture = capture_uplink(scene)?;
    let isp = scene.host("barn")?.public4()?.to_string();
    fetch_as(scene, &isp)?;

    let lan = &scene.host("barn")?.lan_prefixes()?[0];
    let exits = EXITS.map(|exit| format!("--exit {exit}")).join(" ");
    let set = format!("gatewrt-coordinator exit-client set {NETWORK} barn lan --of {lan} {exits}");
    scene.run_showing("coordinator", &set, is_no_warning)?;
    fetch_as(scene, &scene.host("office")?.ip4()?.to_string())?;
    scene.run_showing("barn", "gatewrt exit status", |line| line.contains("goes through"))?;
    let before = packets(&capture)?;
    ensure!(before > 0, "the capture saw nothing of what went out over the barn's own uplink");

    scene.screen.note(
        "The office loses power. Until the barn's router knows, nothing gets out: that is the kill switch.",
    );
    scene.reboot("office")?;
    let dead = Instant::now();
    scene.run_in_vain("barn-pc", "curl -sS -4 --max-time 1 http://web/", |_| true)?;
    fetch_as(scene, &scene.host("home")?.ip4()?.to_string())?;
    let time = dead.elapsed().as_secs_f64();
    let leaked = packets(&capture)? - before;
    scene.screen.note(&format!(
        "Out through home {time:.1} s later. Packets that the capture saw: {before} before the exit was used, {leaked} since."
    ));
    ensure!(leaked == 0, "something left past the tunnels; see {}", capture.display());
    back(scene)
}

/// True for a line to show of the admin's output: the lab's Internet has no DNS resolver, and the warning about that
/// would distract.
pub fn is_no_warning(line: &str) -> bool {
    !line.starts_with("warning")
}

/// Starts to capture packets that leave for the server outside the tunnels; returns the file that `tcpdump` writes.
/// Packets from the server don't count: it retransmits answers to connections that were cut when the exit was set.
fn capture_uplink(scene: &Scene) -> Result<PathBuf> {
    let (barn, web) = (scene.host("barn")?, scene.host("web")?);
    let command = format!("tcpdump -n -l --immediate-mode -i {} dst host {}", barn.wan(), web.ip4()?);
    scene.start("barn", &command, "listening on", |_| false)
}

fn packets(capture: &Path) -> Result<usize> {
    Ok(std::fs::read_to_string(capture)?.lines().filter(|line| line.contains(" > ")).count())
}

/// Sends requests from the barn's PC to the server until the server sees them come from the expected address.
fn fetch_as(scene: &Scene, expected: &str) -> Result<()> {
    scene.wait("barn-pc", &format!("{FETCH} || true"), |seen| seen.trim() == expected)?;
    let seen = scene.run("barn-pc", FETCH)?;
    ensure!(seen.trim() == expected, "the server saw {}, not {expected}", seen.trim());
    Ok(())
}

/// Ends the exit steps: starts the office's daemon again, and lets the barn's traffic leave through its own uplink.
fn back(scene: &Scene) -> Result<()> {
    scene.ask("barn", "kill $(pidof tcpdump)")?;
    scene.start("office", "gatewrtd", "is running", |_| false)?;
    scene.run("coordinator", &format!("gatewrt-coordinator exit-client unset {NETWORK} barn lan"))?;
    fetch_as(scene, &scene.host("barn")?.public4()?.to_string())?;
    scene.wait("office-pc", "ping -n -4 -c 1 -W 1 barn-pc || true", |said| {
        said.lines().any(crate::story::is_answer)
    })
}
