//! Brokers that fail: silent ones, ones that hang up, ones that crash again and again.

use super::{ROUTERS, broker::Hostile};
use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, UdpStream, eventually},
    mesh::Mesh,
};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener},
    time::{Duration, Instant},
};

/// Most memory that many connections may leave in use, in KiB: pages that the allocator keeps.
const GROWTH: u64 = 512;
/// The routers whose WANs flap, and the number of flaps of each: 201 connections in all.
const FLAPPING: [&str; 3] = ["office", "home", "barn"];
const FLAPS: usize = 67;
/// Flaps before memory is measured; an even number, so that each WAN has its first address again.
const WARM_UP: usize = 8;

/// A broker that accepts connections and sends nothing is given up, retried, and used again once it answers.
#[test]
fn silent_broker_is_detected_and_used_again_when_it_speaks() -> Result<()> {
    let mesh = Mesh::start(Lab::two_sites()?, &ROUTERS)?;
    let mut hostile = Hostile::take_over(&mesh)?;
    let before = resident(&mesh)?;
    hostile.process.kill(Signal::SIGSTOP)?;
    for router in ROUTERS {
        // The link is given up at the latest when the keepalive of an idle link, sent every 30 s, is not answered for
        // 15 s.
        eventually(Duration::from_secs(50), &format!("{router} gives the silent link up"), || {
            is_connected(&mesh, router, false)
        })?;
        eventually(Duration::from_secs(30), &format!("{router} says what is wrong"), || {
            let error = mesh.status(router)?["control_error"].to_string();
            ensure!(error.contains("does not answer"), "{error}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    hostile.process.kill(Signal::SIGCONT)?;
    for router in ROUTERS {
        eventually(Duration::from_secs(60), &format!("{router} is back"), || {
            is_connected(&mesh, router, true)
        })?;
    }
    hostile.wait_for_routers()?;
    let after = resident(&mesh)?;
    println!("{before} KiB before, {after} KiB after");
    ensure!(after <= before + GROWTH, "{before} KiB grew to {after} KiB");
    Ok(())
}

/// A broker that hangs up at once is retried with backoff, and the coordinator's is used once it is back.
#[test]
fn broker_that_hangs_up_is_retried_with_backoff() -> Result<()> {
    let mesh = Mesh::two_sites()?;
    mesh.coordinator.stop()?;
    let lost = Instant::now();
    let attempts = Hanger::start(&mesh.host("coordinator")?)?.attempts(3)?;
    for (router, at) in &attempts {
        let (first, last) = (at[0] - lost, at[2] - at[1]);
        println!(
            "{router}: tried again after {first:?}, then after {:?}, then after {last:?}",
            at[1] - at[0]
        );
        ensure!(last > first && last > Duration::from_millis(1900), "{router}: {first:?}, {last:?}");
    }
    mesh.coordinator.restart()?;
    for router in ROUTERS {
        eventually(Duration::from_secs(20), &format!("{router} is back"), || {
            is_connected(&mesh, router, true)
        })?;
    }
    Ok(())
}

/// A broker that accepts everyone and then crashes is retried with backoff, too.
#[test]
fn broker_that_crashes_repeatedly_is_retried_with_backoff() -> Result<()> {
    let mesh = Mesh::two_sites()?;
    let mut hostile = Hostile::take_over(&mesh)?;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        hostile.process.restart()?;
        hostile = hostile.reconnect(&mesh)?;
        waits.push(start.elapsed());
    }
    println!("{waits:?} until both routers were back");
    ensure!(waits[2] > waits[0] && waits[2] > Duration::from_millis(3500), "{waits:?}");
    Ok(())
}

/// Three routers on flapping WANs reconnect two hundred times: no memory leaks, and no packet is lost.
#[test]
fn two_hundred_reconnects_leak_no_memory() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let mut hostile = Hostile::take_over(&mesh)?;
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&from, &to, to.ip4()?.into(), 100)?;
    for router in FLAPPING {
        mesh.host(router)?.run(&["ip", "address", "add", ADDRESSES[0], "dev", "wan"])?;
        hostile.wait_for_report(router, "its second address", |report| {
            let mut prefixes = report.interfaces.iter().flat_map(|interface| &interface.prefixes);
            prefixes.any(|prefix| prefix.to_string() == ADDRESSES[0])
        })?;
    }
    flap(&mesh, &mut hostile, WARM_UP)?;
    let memory = || FLAPPING.iter().map(|router| mesh.daemon(router)?.own_kib()).collect::<Result<Vec<_>>>();
    let (before, start) = (memory()?, Instant::now());
    flap(&mesh, &mut hostile, FLAPS)?;
    let after = memory()?;
    println!(
        "{} reconnects in {:?}: {before:?} KiB before, {after:?} KiB after",
        FLAPS * FLAPPING.len(),
        start.elapsed()
    );
    let kept = before.iter().zip(&after).all(|(before, after)| *after <= before + GROWTH / 4);
    ensure!(kept, "{before:?} KiB grew to {after:?} KiB");
    stream.finish()?.assert_lossless();
    Ok(())
}

const ADDRESSES: [&str; 2] = ["100.64.77.1/32", "100.64.77.2/32"];

/// Replaces a second address of each WAN so many times, and waits each time until every router has reconnected.
fn flap(mesh: &Mesh, hostile: &mut Hostile, times: usize) -> Result<()> {
    for step in 0..times {
        let (new, old) = (ADDRESSES[(step + 1) % 2], ADDRESSES[step % 2]);
        let mut wanted = Vec::new();
        for router in FLAPPING {
            wanted.push(hostile.presence(router)?.session + 1);
            let exchange = format!("ip address add {new} dev wan; ip address del {old} dev wan");
            mesh.host(router)?.shell(&exchange)?;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        for (router, wanted) in FLAPPING.iter().zip(wanted) {
            while hostile.presence(router)?.session < wanted {
                ensure!(Instant::now() < deadline, "{router} made no connection number {wanted} in 20 s");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Ok(())
}

fn is_connected(mesh: &Mesh, router: &str, wanted: bool) -> Result<()> {
    let status = mesh.status(router)?;
    ensure!(
        (status["control"] == "connected") == wanted,
        "{} {}",
        status["control"],
        status["control_error"]
    );
    Ok(())
}

fn resident(mesh: &Mesh) -> Result<u64> {
    mesh.daemon("office")?.own_kib()
}

/// A listener on the broker's port that accepts connections and closes them at once.
struct Hanger {
    listener: TcpListener,
}

impl Hanger {
    fn start(on: &Host) -> Result<Self> {
        let address = (on.ip4()?, 8883);
        let listen = || on.in_netns(|| TcpListener::bind(address))?.context("listen");
        let listener = eventually(Duration::from_secs(5), "the broker's port is free", listen)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Times of the first `wanted` attempts of each router.
    fn attempts(self, wanted: usize) -> Result<BTreeMap<IpAddr, Vec<Instant>>> {
        let mut attempts: BTreeMap<IpAddr, Vec<Instant>> = BTreeMap::new();
        while attempts.len() < ROUTERS.len() || attempts.values().any(|at| at.len() < wanted) {
            let (_, from) = eventually(Duration::from_secs(30), "a router tries", || self.listener.accept())?;
            attempts.entry(from.ip()).or_default().push(Instant::now());
        }
        Ok(attempts)
    }
}
