//! A network without its coordinator: it goes on, and its routers reconnect once the coordinator is back.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, UdpStream, Whoami, eventually, fetch},
    mesh::{Mesh, NETWORK},
};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Longest time from the daemon's start to packets in both directions.
const BOOT: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(10);
/// Longest time until routers reconnect: their backoff grows while the coordinator is away.
const COMES_BACK: Duration = Duration::from_secs(20);

/// Coordinator and broker are gone: streams lose nothing, and routers that reboot are back within seconds.
#[test]
fn router_without_coordinator_boots_into_the_network() -> Result<()> {
    let mut mesh = Mesh::three_sites()?;
    let streams = echoes(&mesh, "home-pc", "barn-pc")?;
    stop_coordinator(&mesh, &["office", "home", "barn"])?;
    reboot(&mut mesh, "office", "office-pc", "home-pc")?;
    finish(streams)?;
    let streams = echoes(&mesh, "home-pc", "office-pc")?;
    reboot(&mut mesh, "barn", "barn-pc", "office-pc")?;
    finish(streams)
}

/// The coordinator was away for longer than the first attempts to reach it: the routers reconnect, and a later change
/// arrives.
#[test]
fn coordinator_that_returns_is_heard() -> Result<()> {
    let mesh = Mesh::two_sites()?;
    let streams = echoes(&mesh, "home-pc", "office-pc")?;
    stop_coordinator(&mesh, &["office", "home"])?;
    mesh.coordinator.restart()?;
    let start = Instant::now();
    eventually(SOON, "the coordinator answers", || mesh.admin(&["status"]))?;
    wait_for_control(&mesh, &["office", "home"], COMES_BACK)?;
    eprintln!("all control links are up {:?} after the coordinator's start", start.elapsed());
    finish(streams)?;
    check_change_arrives(&mesh)
}

/// Routers have no clock battery. A router whose clock says 1970 joins, boots into the network, and connects to its
/// coordinator. When it boots, its kernel lacks randomness at first: neither tunnels nor clients of the daemon's socket
/// wait for it. Only the daemon's clock can be set here: its userspace WireGuard has the machine's.
#[test]
fn router_with_unset_clock_takes_part() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &["home"])?;
    let office = mesh.host("office")?;
    start_in_1970(&mut mesh, &office)?;
    let code = mesh.code(1)?;
    mesh.gatewrt("office", &["join", &code, "--name", "office"])?;
    mesh.serve_lans(&["office", "home"], false)?;
    mesh.wait_for_lans(&["office-pc", "home-pc"])?;

    office.reboot()?;
    mesh.place_foreign("office")?;
    let streams = both_ways(&mesh, "office-pc", "home-pc")?;
    office.write_file(NO_RANDOMNESS, "")?;
    let start = Instant::now();
    start_in_1970(&mut mesh, &office)?;
    wait_for_packets(&streams, start + BOOT)?;
    eprintln!("office booted in 1970: packets in both directions after {:?}", start.elapsed());
    ensure!(mesh.status("office")?["control"] != "connected", "TLS needs randomness");
    mesh.gatewrt("office", &["stop"])?;
    ensure!(mesh.daemon("office")?.wait(SOON)?.success(), "it ended in order");
    start_in_1970(&mut mesh, &office)?;
    office.remove(NO_RANDOMNESS)?;
    wait_for_control(&mesh, &["office"], SOON)?;
    check_change_arrives(&mesh)
}

/// Kills the coordinator, and waits until every router has noticed and its retries have failed.
fn stop_coordinator(mesh: &Mesh, routers: &[&str]) -> Result<()> {
    mesh.coordinator.kill(Signal::SIGKILL)?;
    mesh.coordinator.wait(SOON)?;
    for router in routers {
        eventually(SOON, &format!("{router} has tried in vain three times"), || {
            let lost = mesh.daemon(router).map(|daemon| daemon.log().matches("control link lost").count())?;
            ensure!(lost >= 3, "lost {lost} times");
            Ok(())
        })?;
    }
    Ok(())
}

/// Reboots a router once its flash has the latest records, and measures the time from the start of its daemon until a
/// host on its LAN and one of another site reach each other, over IPv4 and IPv6.
fn reboot(mesh: &mut Mesh, router: &str, inside: &str, outside: &str) -> Result<()> {
    let host = mesh.host(router)?;
    let newer = format!("/var/run/gatewrt/{NETWORK}/records");
    eventually(SOON, "nothing is newer than what is on flash", || -> Result<()> {
        ensure!(!host.exists(&newer)?, "{newer} is there");
        Ok(())
    })?;
    host.reboot()?;
    mesh.place_foreign(router)?;
    let streams = both_ways(mesh, inside, outside)?;
    let start = Instant::now();
    mesh.start_daemon(router)?;
    wait_for_packets(&streams, start + BOOT)?;
    eprintln!("{router} booted with no coordinator: packets in both directions after {:?}", start.elapsed());
    ensure!(mesh.status(router)?["control"] != "connected", "there is a coordinator");
    Ok(())
}

/// Four one-way streams: from one host to the other and back, over IPv4 and IPv6.
fn both_ways(mesh: &Mesh, a: &str, b: &str) -> Result<[UdpStream; 4]> {
    let (a, b) = (mesh.host(a)?, mesh.host(b)?);
    Ok([
        UdpStream::start(&a, &b, b.ip4()?.into(), 100)?,
        UdpStream::start(&a, &b, b.ip6()?.into(), 100)?,
        UdpStream::start(&b, &a, a.ip4()?.into(), 100)?,
        UdpStream::start(&b, &a, a.ip6()?.into(), 100)?,
    ])
}

fn wait_for_packets(streams: &[UdpStream], by: Instant) -> Result<()> {
    eventually(by.saturating_duration_since(Instant::now()), "packets of all streams arrive", || {
        let arrived: Vec<u64> = streams.iter().map(UdpStream::arrived).collect();
        ensure!(!arrived.contains(&0), "{arrived:?}");
        Ok(())
    })
}

fn echoes(mesh: &Mesh, a: &str, b: &str) -> Result<[UdpStream; 2]> {
    let (a, b) = (mesh.host(a)?, mesh.host(b)?);
    let echo = UdpStream::start_echo;
    Ok([echo(&a, &b, b.ip4()?.into(), 100)?, echo(&b, &a, a.ip6()?.into(), 100)?])
}

fn finish(streams: [UdpStream; 2]) -> Result<()> {
    for stream in streams {
        stream.finish()?.assert_lossless();
    }
    Ok(())
}

fn wait_for_control(mesh: &Mesh, routers: &[&str], deadline: Duration) -> Result<()> {
    eventually(deadline, &format!("the control links of {routers:?} are up"), || {
        for router in routers {
            let status = mesh.status(router)?;
            ensure!(status["control"] == "connected", "{router}: {}", status["control_error"]);
        }
        Ok(())
    })
}

/// Turns NAT on at `office`, and waits until a host there sees it.
fn check_change_arrives(mesh: &Mesh) -> Result<()> {
    let (server, client) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let _server = Whoami::start(&server)?;
    let (url, router) = (format!("http://{}/", server.ip4()?), mesh.host("office")?.lan4()?.to_string());
    mesh.admin(&["egress", "set", NETWORK, "office", &mesh.lans("office")?[0], "--nat", "on"])?;
    eventually(SOON, "office masquerades", || -> Result<()> {
        let seen = fetch(&client, &url)?;
        ensure!(seen == router, "seen from {seen}");
        Ok(())
    })
}

/// Starts the daemon with a clock that begins at 1970.
fn start_in_1970(mesh: &mut Mesh, router: &Host) -> Result<()> {
    mesh.place_foreign(router.name())?;
    router.command(&["cc", "-shared", "-fPIC", "-o", "/tmp/boot.so", "-xc", "-"]).stdin(BOOTED).run()?;
    let year = router.command(&["date", "+%Y"]).env("LD_PRELOAD", "/tmp/boot.so").run()?.stdout;
    ensure!(year.trim() == "1970", "the year is {year}");
    let daemon = router.command(&["gatewrtd"]).env("LD_PRELOAD", "/tmp/boot.so").spawn()?;
    daemon.wait_for_log(SOON, "is running").context("with a clock of its own")?;
    mesh.daemons.insert(router.name().to_owned(), daemon);
    Ok(())
}

/// While this file exists, a program that asks the kernel for secure randomness has to wait.
const NO_RANDOMNESS: &str = "/tmp/no-randomness";

/// A library that has the clock begin in 1970 at its first use, and that stands for a kernel which may lack randomness.
const BOOTED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long raw(long n, long a, long b, long c, long d, long e, long f) {
    static long (*next)(long, ...);
    if (!next) next = (long (*)(long, ...)) dlsym(RTLD_NEXT, "syscall");
    return next(n, a, b, c, d, e, f);
}

static void wait_for_randomness(long flags) {
    while (!flags && !access("/tmp/no-randomness", F_OK)) usleep(10000);
}

long syscall(long n, ...) {
    long of[6];
    va_list list;
    va_start(list, n);
    for (int i = 0; i < 6; i++) of[i] = va_arg(list, long);
    va_end(list);
    if (n == SYS_getrandom) wait_for_randomness(of[2]);
    return raw(n, of[0], of[1], of[2], of[3], of[4], of[5]);
}

ssize_t getrandom(void *buffer, size_t length, unsigned flags) {
    wait_for_randomness(flags);
    return raw(SYS_getrandom, (long) buffer, length, flags, 0, 0, 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static long start;
    int failed = raw(SYS_clock_gettime, clock, (long) now, 0, 0, 0, 0);
    if (failed || clock != CLOCK_REALTIME) return failed;
    if (!start) start = now->tv_sec;
    now->tv_sec -= start;
    return 0;
}
"#;
