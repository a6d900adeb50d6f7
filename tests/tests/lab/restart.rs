//! Restarts of the daemon while packets flow: the tunnels lose nothing.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Lab, Topology, UdpStream, eventually},
    mesh::{CONFIG, INTERFACE, Mesh},
    wg,
};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, time::Duration};

const SOON: Duration = Duration::from_secs(10);
const SOCKET: &str = "/var/run/gatewrt/control.sock";

/// The daemon is killed and started ten times.
#[test]
fn killed_daemon_loses_no_packet() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let streams = streams(&mesh, "office-pc", "home-pc")?;
    let before = Tunnel::of(&mesh, "office")?;
    for _ in 0..10 {
        let daemon = mesh.daemon("office")?;
        daemon.kill(Signal::SIGKILL)?;
        daemon.wait(SOON)?;
        mesh.start_daemon("office")?;
        check_nothing_was_done(&mesh, "office", &before)?;
    }
    finish(streams)
}

/// The daemon is stopped by its own command and by a signal, and started again, the last time from another file, as in
/// an upgrade.
#[test]
fn stopped_and_upgraded_daemon_loses_no_packet() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let streams = streams(&mesh, "office-pc", "home-pc")?;
    let before = Tunnel::of(&mesh, "office")?;

    mesh.gatewrt("office", &["stop"])?;
    ensure!(mesh.daemon("office")?.wait(SOON)?.success(), "it ended in order");
    mesh.start_daemon("office")?;
    check_nothing_was_done(&mesh, "office", &before)?;

    ensure!(mesh.daemon("office")?.stop()?.success(), "it ended in order");
    let office = mesh.host("office")?;
    office.shell("mkdir /tmp/new; strip -o /tmp/new/gatewrtd $(readlink -f /mnt/bin/gatewrtd)")?;
    let upgraded = office.spawn(&["/tmp/new/gatewrtd"])?;
    upgraded.wait_for_log(SOON, "is running")?;
    mesh.daemons.insert("office".to_owned(), upgraded);
    check_nothing_was_done(&mesh, "office", &before)?;
    finish(streams)
}

/// A change of the configuration takes effect after a signal, as init sends it, even at the moment of the daemon's
/// start: the process stays, and so does the tunnel.
#[test]
fn reloaded_daemon_is_the_same_process() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let streams = streams(&mesh, "office-pc", "home-pc")?;
    let office = mesh.host("office")?;
    let index = office.ifindex(INTERFACE)?;
    let set_mtu =
        |mtu: &str| office.write_file(CONFIG, format!("config network 'home'\n\toption mtu '{mtu}'\n"));
    let wait_for_mtu = |mtu: &str| {
        eventually(SOON, &format!("the interface has MTU {mtu}"), || -> Result<()> {
            let link = office.run(&["ip", "link", "show", "dev", INTERFACE])?.stdout;
            ensure!(link.contains(&format!(" mtu {mtu} ")), "{link}");
            Ok(())
        })
    };
    set_mtu("1400")?;
    mesh.daemon("office")?.kill(Signal::SIGHUP)?;
    wait_for_mtu("1400")?;
    ensure!(mesh.daemon("office")?.is_running() && office.ifindex(INTERFACE)? == index);

    for _ in 0..5 {
        mesh.gatewrt("office", &["stop"])?;
        mesh.daemon("office")?.wait(SOON)?;
        office.remove(SOCKET)?;
        let hasty = format!("until test -S {SOCKET}; do :; done; kill -HUP $(pidof gatewrtd)");
        let hasty = office.spawn(&["sh", "-c", &hasty])?;
        let daemon = office.spawn(&["gatewrtd"])?;
        ensure!(hasty.wait(SOON)?.success(), "{}", hasty.log());
        daemon.wait_for_log(SOON, "the configuration was read again")?;
        mesh.daemons.insert("office".to_owned(), daemon);
    }
    set_mtu("1390")?;
    mesh.daemon("office")?.kill(Signal::SIGHUP)?;
    wait_for_mtu("1390")?;
    finish(streams)
}

/// A peer whose NAT box changes its port: no record has its endpoint, and WireGuard keeps the one that its packets come
/// from.
#[test]
fn killed_daemon_keeps_the_endpoint_of_a_roamed_peer() -> Result<()> {
    let lab = Lab::new(&Topology::parse(BEHIND_NAT)?)?;
    let mut mesh = Mesh::start(lab, &["office", "barn"])?;
    mesh.serve_lans(&["office", "barn"], false)?;
    mesh.wait_for_lans(&["office-pc", "barn-pc"])?;
    let before = Tunnel::of(&mesh, "office")?;
    let endpoint = before.endpoints.values().next().context("a peer")?;
    ensure!(!endpoint.ends_with(":51820"), "the NAT left the port as it was: {endpoint}");
    let streams = streams(&mesh, "office-pc", "barn-pc")?;
    mesh.daemon("office")?.kill(Signal::SIGKILL)?;
    mesh.daemon("office")?.wait(SOON)?;
    mesh.start_daemon("office")?;
    check_nothing_was_done(&mesh, "office", &before)?;
    finish(streams)
}

/// A topology in which `barn` has no known address, only the port that its NAT box assigns.
const BEHIND_NAT: &str = r#"
[server.coordinator]

[router.office]
lan = "192.168.10.0/24"
lan6 = "fd00:10::/64"
hosts = ["office-pc"]

[nat.isp]
kind = "symmetric"
ipv6 = "none"

[router.barn]
wan = "isp"
lan = "192.168.30.0/24"
lan6 = "fd00:30::/64"
hosts = ["barn-pc"]
"#;

/// Properties of a tunnel that must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Tunnel {
    ifindex: u32,
    /// Process numbers of the userspace WireGuard.
    processes: String,
    endpoints: BTreeMap<String, String>,
}

impl Tunnel {
    fn of(mesh: &Mesh, router: &str) -> Result<Self> {
        let host = mesh.host(router)?;
        Ok(Self {
            ifindex: host.ifindex(INTERFACE)?,
            processes: host.run(&["pidof", "wireguard-go"])?.stdout,
            endpoints: wg::endpoints(&host)?,
        })
    }
}

/// Asserts that the first plan after the start is empty, that the plan after the connection to the coordinator is too,
/// and that no step was applied.
fn check_nothing_was_done(mesh: &Mesh, router: &str, before: &Tunnel) -> Result<()> {
    let plan = eventually(SOON, "the daemon answers", || mesh.plan(router))?;
    assert!(plan.is_empty(), "the first plan: {plan:#?}");
    eventually(SOON, "its control link is up", || -> Result<()> {
        let status = mesh.status(router)?;
        ensure!(status["control"] == "connected", "{}: {}", status["control"], status["control_error"]);
        Ok(())
    })?;
    let plan = mesh.plan(router)?;
    assert!(plan.is_empty(), "the second plan: {plan:#?}");
    let log = mesh.daemon(router)?.log();
    assert!(!log.contains(" step: ") && !log.contains(" steps: "), "it did something:\n{log}");
    assert_eq!(&Tunnel::of(mesh, router)?, before);
    Ok(())
}

/// 100 packets a second in both directions, each there and back, over IPv4 and IPv6.
fn streams(mesh: &Mesh, a: &str, b: &str) -> Result<[UdpStream; 4]> {
    let (a, b) = (mesh.host(a)?, mesh.host(b)?);
    Ok([
        UdpStream::start_echo(&a, &b, b.ip4()?.into(), 100)?,
        UdpStream::start_echo(&b, &a, a.ip4()?.into(), 100)?,
        UdpStream::start_echo(&a, &b, b.ip6()?.into(), 100)?,
        UdpStream::start_echo(&b, &a, a.ip6()?.into(), 100)?,
    ])
}

fn finish(streams: [UdpStream; 4]) -> Result<()> {
    for stream in streams {
        stream.finish()?.assert_lossless();
    }
    Ok(())
}
