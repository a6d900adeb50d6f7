//! The steps with a phone, and with the admin's page.

use anyhow::Result;

use crate::scene::Scene;
use crate::story::{NETWORK, ROUTERS, is_answer};

/// Where the coordinator's command writes the phone's file.
const ISSUED: &str = "/tmp/phone.conf";
/// Where the phone's app keeps what it scanned.
const FILE: &str = "/etc/wireguard/farm.conf";

/// The office's router lets clients in.
pub fn ingress(scene: &mut Scene) -> Result<()> {
    scene.run("coordinator", &format!("gatewrt-coordinator ingress set {NETWORK} office")).map(drop)
}

/// A phone is added; what its app scans is on the screen.
pub fn add(scene: &mut Scene) -> Result<()> {
    let command =
        format!("gatewrt-coordinator client add {NETWORK} phone --gateway office --qr --out {ISSUED}");
    scene.screen.command("coordinator", &command);
    let host = scene.host("coordinator")?;
    scene.screen.picture(&host.run(&["sh", "-c", &command])?.stdout);
    let phone = scene.host("phone")?;
    phone.write_file(FILE, host.read_file(ISSUED)?)?;
    phone.run(&["chmod", "600", FILE])?;
    wait_until_let_in(scene, true)
}

/// The gateway knows the phone, or does not. An app that is quicker than that tries again after five seconds.
fn wait_until_let_in(scene: &Scene, wanted: bool) -> Result<()> {
    let peers = ROUTERS.len() - 1 + usize::from(wanted);
    scene.wait("office", &format!("wg show gw-{NETWORK} peers"), |said| said.lines().count() == peers)
}

/// The phone's app brings the tunnel up.
pub fn up(scene: &mut Scene) -> Result<()> {
    scene.run_showing("phone", "wg-quick up farm", |line| {
        line.contains(" address add") || line.contains(" route add")
    })?;
    scene.wait("phone", "ping -n -c 1 -W 1 barn-pc || true", |said| said.lines().any(is_answer))?;
    scene.run_showing("phone", "ping -4 -c 1 barn-pc", is_answer)?;
    scene.run("phone", "curl -sS http://home-pc/").map(drop)
}

/// A lost phone is cut off, and one that was found again let in.
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

/// The admin's page, through a way that this machine's browser can take.
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
