//! A coordinator that moves to another machine, to another address or under a name. Routers that are awake learn it
//! beforehand; one that slept asks its peers over the tunnel.

use crate::common::{Names, check_obeys};
use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, Process, Topology, UdpStream, eventually, ping},
    mesh::{Mesh, NETWORK, SERVES},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

/// Three machines for the coordinator, one after the other, and three sites.
const SITES: &str = r#"
[server.coordinator]
[server.second]
[server.third]
[router.office]
lan = "192.168.10.0/24"
lan6 = "fd00:10::/64"
hosts = ["office-pc"]
[router.home]
lan = "192.168.20.0/24"
lan6 = "fd00:20::/64"
hosts = ["home-pc"]
[router.barn]
lan = "192.168.30.0/24"
lan6 = "fd00:30::/64"
hosts = ["barn-pc"]
"#;
const SOON: Duration = Duration::from_secs(20);
/// Longest time until a router that slept has found its coordinator: it asks after 30 seconds, at its next attempt.
const FOUND: Duration = Duration::from_secs(75);
const NAME: &str = "gw.example";

#[test]
fn coordinator_moves_to_another_address_and_then_under_a_name() -> Result<()> {
    let mut mesh = Mesh::start(Lab::new(&Topology::parse(SITES)?)?, &["office", "home", "barn"])?;
    for router in ["office", "home", "barn"] {
        mesh.serve(router, &mesh.lans(router)?[0].clone(), false)?;
    }
    let [office, home, barn] = ["office-pc", "home-pc", "barn-pc"].map(|host| mesh.host(host));
    let (office, home, barn) = (office?, home?, barn?);
    for host in [&home, &barn] {
        eventually(SOON, "the sites reach each other", || ping(&office, host.ip4()?.into()))?;
    }
    let [first, second, third] = ["coordinator", "second", "third"].map(|host| mesh.host(host));
    let (first, second, third) = (first?, second?, third?);
    let (old, new) = (first.ip4()?.to_string(), second.ip4()?.to_string());
    let _names = Names::serve(&third, &[third.ip4()?.into()])?;
    for router in ["office", "home", "barn"] {
        let resolver = format!("# Interface wan\nnameserver {}\n", third.ip4()?);
        mesh.host(router)?.shell("mkdir -p /tmp/resolv.conf.d")?;
        mesh.host(router)?.write_file("/tmp/resolv.conf.d/resolv.conf.auto", resolver)?;
    }
    let stream = UdpStream::start_echo(&office, &home, home.ip4()?.into(), 100)?;

    // By address. Barn is asleep from before the announcement until the first machine is gone; a stranger has its address.
    sleep(&mesh, "barn")?;
    mesh.coordinator.stop()?;
    mesh.coordinator = serve(&first, &[&new, &old])?;
    for router in ["office", "home"] {
        eventually(FOUND, &format!("{router} knows the new address"), || knows(&first, router, true))?;
    }
    knows(&first, "barn", false)?;
    move_to(&mut mesh, &first, &second, &[&new])?;
    let _stranger =
        first.spawn(&["gatewrt-coordinator", "serve", "--data", "/tmp/stranger", "--advertise", &old])?;
    for router in ["office", "home"] {
        eventually(FOUND, &format!("{router} is there"), || connected(&mesh, router, &new))?;
    }
    mesh.start_daemon("barn")?;
    eventually(FOUND, "barn finds it", || connected(&mesh, "barn", &new))?;
    obey(&second, &["office", "home", "barn"], "172.20.0.0/16")?;

    // By name, and home is asleep, which was the first to follow before.
    sleep(&mesh, "home")?;
    mesh.coordinator.stop()?;
    second.write_file("/etc/hosts", format!("127.0.0.1 localhost\n{} {NAME}\n", third.ip4()?))?;
    third.write_file("/etc/hosts", format!("127.0.0.1 localhost\n{} {NAME}\n", third.ip4()?))?;
    mesh.coordinator = serve(&second, &[NAME, &new])?;
    for router in ["office", "barn"] {
        eventually(FOUND, &format!("{router} knows the name"), || knows(&second, router, true))?;
    }
    move_to(&mut mesh, &second, &third, &[NAME])?;
    for router in ["office", "barn"] {
        eventually(FOUND, &format!("{router} is there"), || connected(&mesh, router, NAME))?;
    }
    mesh.start_daemon("home")?;
    eventually(FOUND, "home finds it", || connected(&mesh, "home", NAME))?;
    obey(&third, &["office", "home", "barn"], "172.21.0.0/16")?;
    stream.finish()?.assert_lossless();
    Ok(())
}

/// Starts the coordinator on a machine, under these names and addresses.
fn serve(host: &Host, advertised: &[&str]) -> Result<Process> {
    let names = advertised.iter().flat_map(|name| ["--advertise", name]);
    let command: Vec<&str> = ["gatewrt-coordinator", "serve"].into_iter().chain(names).collect();
    let coordinator = host.spawn(&command)?;
    coordinator.wait_for_log(SOON, SERVES)?;
    Ok(coordinator)
}

/// Moves the coordinator as an admin does: a backup here, a restore there, and this one never starts again.
fn move_to(mesh: &mut Mesh, from: &Host, to: &Host, advertised: &[&str]) -> Result<()> {
    let backup = format!("/tmp/to-{}.backup", to.name());
    from.run(&["gatewrt-coordinator", "backup", &backup])?;
    mesh.coordinator.stop()?;
    // An archive is no text.
    let copied = from.run(&["base64", "-w0", &backup])?.stdout;
    to.write_file("/tmp/backup.txt", copied)?;
    to.shell(&format!("base64 -d /tmp/backup.txt > {backup}"))?;
    to.run(&["gatewrt-coordinator", "restore", &backup])?;
    mesh.coordinator = serve(to, advertised)?;
    Ok(())
}

/// The daemon of a router ends; its tunnels go on.
fn sleep(mesh: &Mesh, router: &str) -> Result<()> {
    mesh.daemon(router)?.kill(Signal::SIGKILL)?;
    mesh.daemon(router)?.wait(SOON)?;
    Ok(())
}

/// Asserts that the list of nodes says whether a router has applied what the coordinator announces.
fn knows(coordinator: &Host, router: &str, wanted: bool) -> Result<()> {
    let node = shown(coordinator, router)?;
    let (current, applied) = (&node["current"], &node["report"]["applied"]);
    ensure!(
        (current["policy"] == applied["policy"]) == wanted,
        "{router} has applied {applied} of {current}"
    );
    Ok(())
}

/// A node as the coordinator there shows it.
fn shown(coordinator: &Host, router: &str) -> Result<Value> {
    coordinator.run(&["gatewrt-coordinator", "--json", "node", "show", NETWORK, router])?.json()
}

fn connected(mesh: &Mesh, router: &str, to: &str) -> Result<()> {
    let status = mesh.status(router)?;
    let broker = status["broker"].as_str().context("a broker")?;
    ensure!(status["control"] == "connected" && broker.starts_with(to), "{router}: {status:#}");
    Ok(())
}

/// Asserts that all routers obey a change of the coordinator there.
fn obey(coordinator: &Host, routers: &[&str], prefix: &str) -> Result<()> {
    coordinator.run(&["gatewrt-coordinator", "--no-wait", "egress", "set", NETWORK, "office", prefix])?;
    for router in routers {
        eventually(SOON, &format!("{router} obeys"), || check_obeys(&shown(coordinator, router)?))?;
    }
    Ok(())
}
