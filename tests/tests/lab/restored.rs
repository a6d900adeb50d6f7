//! A coordinator that was restored from a backup: its routers bring it up to date, obey the next change, and nobody gets in
//! silently who went after the backup.

use crate::common::check_obeys;
use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, Topology, UdpStream, eventually, ping},
    mesh::{CONFIG, Mesh, NETWORK},
    phone::Phone,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Five sites, and a phone.
const FIVE_SITES: &str = r#"
[server.coordinator]
[server.phone]
[router.office]
lan = "192.168.10.0/24"
lan6 = "fd00:10::/64"
hosts = ["office-pc"]
[router.home]
lan = "192.168.20.0/24"
lan6 = "fd00:20::/64"
hosts = ["home-pc"]
[router.hut]
lan = "192.168.30.0/24"
lan6 = "fd00:30::/64"
hosts = ["hut-pc"]
[router.farm]
lan = "192.168.40.0/24"
lan6 = "fd00:40::/64"
hosts = ["farm-pc"]
[router.barn]
lan = "192.168.50.0/24"
lan6 = "fd00:50::/64"
hosts = ["barn-pc"]
"#;
/// Changes after the backup, which are lost.
const LOST: u32 = 200;
/// Longest time from the first change after the restore until all obey.
const OBEYED: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);
const BACKUP: &str = "/tmp/gatewrt.backup";

#[test]
fn restored_coordinator_is_obeyed_and_lets_nobody_in_silently() -> Result<()> {
    let mut mesh = Mesh::start(Lab::new(&Topology::parse(FIVE_SITES)?)?, &["office", "home", "hut", "farm"])?;
    for router in ["office", "home", "hut", "farm"] {
        mesh.serve(router, &lan(&mesh, router)?, false)?;
    }
    mesh.admin(&["ingress", "set", NETWORK, "office"])?;
    let phone = mesh.phone("phone", "office", &[])?;
    let [office, home, farm, barn] =
        ["office-pc", "home-pc", "farm-pc", "barn-pc"].map(|host| mesh.host(host));
    let (office, home, farm, barn) = (office?, home?, farm?, barn?);
    for host in [&home, &farm] {
        eventually(SOON, "the sites reach each other", || ping(&office, host.ip4()?.into()))?;
    }
    eventually(SOON, "the phone reaches a site", || ping(phone.host(), home.ip4()?.into()))?;

    mesh.admin(&["backup", BACKUP])?;
    let script = format!(
        "for i in $(seq {LOST}); do gatewrt-coordinator egress set {NETWORK} hut {} --metric $i --no-wait || exit; done",
        lan(&mesh, "hut")?
    );
    mesh.host("coordinator")?.run(&["sh", "-c", &script])?;
    // One goes while it is asleep, a phone is shut out, and one comes.
    mesh.daemon("farm")?.kill(Signal::SIGKILL)?;
    mesh.daemon("farm")?.wait(SOON)?;
    mesh.admin(&["node", "remove", NETWORK, "farm"])?;
    mesh.admin(&["client", "disable", NETWORK, "phone"])?;
    // It tells of itself with its next report.
    mesh.host("barn")?.write_file(CONFIG, "config gatewrt 'main'\n\toption heartbeat '10'\n")?;
    mesh.join("barn")?;
    mesh.serve("barn", &lan(&mesh, "barn")?, false)?;
    eventually(SOON, "barn reaches home", || ping(&barn, home.ip4()?.into()))?;
    is_out(&office, &farm, "farm is removed")?;
    eventually(SOON, "the phone is shut out", || cut_off(phone.host(), &home))?;

    let kept = UdpStream::start_echo(&office, &home, home.ip4()?.into(), 100)?;
    mesh.coordinator.kill(Signal::SIGTERM)?;
    mesh.coordinator.wait(SOON)?;
    mesh.admin(&["restore", BACKUP, "--force"])?;
    mesh.coordinator.restart()?;
    let start = Instant::now();
    eventually(SOON, "the coordinator answers", || mesh.admin(&["status"]))?;
    mesh.admin(&["egress", "set", NETWORK, "home", "172.20.0.0/16"])?;
    for router in ["office", "home", "hut"] {
        eventually(OBEYED, &format!("{router} obeys the change after the restore"), || obeys(&mesh, router))?;
    }
    println!("all obey {:?} after the coordinator's start", start.elapsed());
    let recovery = mesh.admin_json(&["recovery", "show"])?;
    println!("{recovery:#}");
    ensure!(recovery["summary"].as_str().is_some_and(|text| text.contains("routers brought it up to date")));

    mesh.forget_interface("farm");
    // Neither who was removed, nor who was shut out, is in again.
    mesh.start_daemon("farm")?;
    eventually(SOON, "farm learns its end", || -> Result<()> {
        ensure!(mesh.status("farm")?["control"] == "removed", "{}", mesh.status("farm")?);
        Ok(())
    })?;
    is_out(&office, &farm, "farm is in again")?;
    stays_out(&phone, &home)?;
    ensure!(mesh.client("phone")?["state"] == "disabled", "{}", mesh.client("phone")?);
    // Who came after the backup is out until the admin has him back.
    let stray = eventually(SOON, "barn can be adopted", || stray(&mesh, "barn"))?;
    is_out(&home, &barn, "barn is in without a word of the admin")?;
    mesh.admin(&["recovery", "adopt", &stray])?;
    eventually(SOON, "barn reaches home again", || ping(&barn, home.ip4()?.into()))?;
    for router in ["office", "home", "hut", "barn"] {
        eventually(OBEYED, &format!("{router} obeys, and has no failure"), || is_well(&mesh, router))?;
    }
    kept.finish()?.assert_lossless();
    Ok(())
}

fn lan(mesh: &Mesh, router: &str) -> Result<String> {
    Ok(mesh.lans(router)?[0].clone())
}

fn cut_off(from: &Host, to: &Host) -> Result<()> {
    ensure!(ping(from, to.ip4()?.into()).is_err(), "{} reaches {}", from.name(), to.name());
    Ok(())
}

/// Asserts that neither host reaches the other.
fn is_out(one: &Host, other: &Host, what: &str) -> Result<()> {
    cut_off(one, other).and_then(|()| cut_off(other, one)).context(what.to_owned())
}

fn stays_out(phone: &Phone, host: &Host) -> Result<()> {
    cut_off(phone.host(), host).context("the phone is in again")
}

/// Asserts that a router has applied all that the coordinator shows.
fn obeys(mesh: &Mesh, router: &str) -> Result<()> {
    check_obeys(&mesh.admin_json(&["node", "show", NETWORK, router])?)?;
    let status = mesh.status("home")?;
    ensure!(status["egress"].to_string().contains("172.20.0.0/16"), "home does not serve it: {status}");
    Ok(())
}

fn is_well(mesh: &Mesh, router: &str) -> Result<()> {
    obeys(mesh, router)?;
    let failures = &mesh.status(router)?["failures"];
    ensure!(failures.as_array().is_none_or(Vec::is_empty), "{router}: {failures}");
    Ok(())
}

fn stray(mesh: &Mesh, name: &str) -> Result<String> {
    let recovery = mesh.admin_json(&["recovery", "show"])?;
    let mut strays = recovery["strays"].as_array().into_iter().flatten();
    let is_it = |stray: &&Value| stray["name"] == name && stray["adoptable"] == true;
    let stray = strays.find(is_it).with_context(|| format!("no {name} to adopt: {recovery}"))?;
    Ok(stray["id"].as_str().context("an id")?.to_owned())
}
