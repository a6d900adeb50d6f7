//! Demo steps about a phone, and about the admin's page.

use anyhow::Result;

use crate::exits::is_no_warning;
use crate::scene::Scene;
use crate::story::{NETWORK, ROUTERS, is_answer};

/// File that the coordinator's command line writes for the phone.
const ISSUED: &str = "/tmp/phone.conf";
/// Configuration of the phone's WireGuard app.
const FILE: &str = "/etc/wireguard/farm.conf";

/// Switches ingress on at the office's router.
pub fn ingress(scene: &mut Scene) -> Result<()> {
    let set = format!("gatewrt-coordinator ingress set {NETWORK} office");
    scene.run_showing("coordinator", &set, is_no_warning).map(drop)
}

/// Adds the phone as a client, with a QR code where a terminal can show it.
pub fn add(scene: &mut Scene) -> Result<()> {
    let command =
        format!("gatewrt-coordinator client add {NETWORK} phone --gateway office --qr --out {ISSUED}");
    if scene.screen.is_terminal() {
        scene.run_on_terminal("coordinator", &command)?;
    } else {
        scene.run("coordinator", &command)?;
    }
    let phone = scene.host("phone")?;
    phone.write_file(FILE, scene.host("coordinator")?.read_file(ISSUED)?)?;
    phone.run(&["chmod", "600", FILE])?;
    wait_until_let_in(scene, true)
}

/// Waits until the gateway has the phone as a peer, or no longer has it. WireGuard retries a handshake only after five
/// seconds, so an app that starts earlier would make the demo wait.
fn wait_until_let_in(scene: &Scene, wanted: bool) -> Result<()> {
    let peers = ROUTERS.len() - 1 + usize::from(wanted);
    scene.wait("office", &format!("wg show gw-{NETWORK} peers"), |said| said.lines().count() == peers)
}

/// Brings the phone's tunnel up with `wg-quick`.
pub fn up(scene: &mut Scene) -> Result<()> {
    scene.run_showing("phone", "wg-quick up farm", |line| {
        line.contains(" address add") || line.contains(" route add")
    })?;
    scene.wait("phone", "ping -n -c 1 -W 1 barn-pc || true", |said| said.lines().any(is_answer))?;
    scene.run_showing("phone", "ping -4 -c 1 barn-pc", is_answer)?;
    scene.run("phone", "curl -sS http://home-pc/").map(drop)
}

/// Disables the client, which cuts it off at once, and enables it again.
pub fn cut(scene: &mut Scene) -> Result<()> {
    scene.run("coordinator", &format!("gatewrt-coordinator client disable {NETWORK} phone"))?;
    wait_until_let_in(scene, false)?;
    scene.run_in_vain("phone", "ping -4 -c 1 -W 1 barn-pc", |line| line.contains("received"))?;
    scene.run("coordinator", &format!("gatewrt-coordinator client enable {NETWORK} phone"))?;
    wait_until_let_in(scene, true)?;
    scene.ask("phone", "wg-quick down farm 2>&1; wg-quick up farm 2>&1")?;
    scene.wait("phone", "ping -n -c 1 -W 1 barn-pc || true", |said| said.lines().any(is_answer))?;
    scene.run_showing("phone", "ping -4 -c 1 barn-pc", is_answer).map(drop)
}

/// Makes the admin's page reachable for a browser on this machine.
pub fn page(scene: &mut Scene) -> Result<()> {
    let command = "curl -sS --cacert /var/lib/gatewrt/ca.crt https://localhost:8443/";
    scene.run_showing("coordinator", command, |line| line.contains("<title>"))?;
    let address = scene.open_page()?;
    scene.screen.say("");
    scene
        .screen
        .note(&format!("In a browser on this machine, for as long as the demo stays up: https://{address}/"));
    scene.screen.note(
        "The browser will warn, since it does not know the coordinator's own CA. To log in, give this token:",
    );
    scene.run("coordinator", "cat /var/lib/gatewrt/admin.token").map(drop)
}
