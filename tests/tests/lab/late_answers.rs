//! Late answers after a host's traffic moved to an exit: a server that still sends to the host's old address does not
//! pull the host's side of the conversation back to the WAN.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Download, Host, until},
    mesh::exits::{EFFECT, Exits},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Intervals of the server's and of the host's packets: the server sends much more often, so that the first packet
/// after any change is the server's.
const PUSH: Duration = Duration::from_millis(10);
const SPEAK: Duration = Duration::from_millis(300);
/// Duration of the check that the server hears no other address.
const STEADY: Duration = Duration::from_secs(3);

/// A server that keeps sending to every address that it ever heard from, and a host that sends to it from one port.
struct Push {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<BTreeSet<IpAddr>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Push {
    fn start(host: &Host, server: &Host, address: IpAddr) -> Result<Self> {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let pushing = server.in_netns(|| UdpSocket::bind("[::]:0"))?.context("bind the server")?;
        pushing.set_read_timeout(Some(PUSH))?;
        let to = SocketAddr::new(address, pushing.local_addr()?.port());
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let speaking = host.in_netns(|| UdpSocket::bind(any))?.context("bind the host")?;
        let (until_push, until_speak, seen) = (stop.clone(), stop.clone(), Arc::clone(&heard));
        let threads = vec![
            thread::spawn(move || push(&pushing, &until_push, &seen)),
            thread::spawn(move || speak(&speaking, to, &until_speak)),
        ];
        Ok(Self { stop, heard, threads })
    }

    fn heard(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the servers hear their hosts with these addresses, and asserts that they hear no others from then on.
fn wait_until_heard_as(pushes: &[Push], addresses: [IpAddr; 2]) -> Result<()> {
    for (push, address) in pushes.iter().zip(addresses) {
        push.heard().clear();
        until(EFFECT, &format!("the server hears {address}"), || push.heard().contains(&address))?;
    }
    pushes.iter().for_each(|push| push.heard().clear());
    let start = Instant::now();
    until(STEADY * 2, "hosts have spoken on", || start.elapsed() >= STEADY)?;
    for (push, address) in pushes.iter().zip(addresses) {
        let heard = push.heard().clone();
        ensure!(heard == BTreeSet::from([address]), "heard as {heard:?}, not as {address} alone");
    }
    Ok(())
}

impl Drop for Push {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn push(socket: &UdpSocket, stop: &AtomicBool, heard: &Mutex<BTreeSet<IpAddr>>) {
    let (mut packet, mut known) = ([0; 64], BTreeSet::new());
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut packet) {
            known.insert(from);
            heard.lock().unwrap_or_else(PoisonError::into_inner).insert(from.ip().to_canonical());
        }
        known.iter().for_each(|to| drop(socket.send_to(b"more", to)));
    }
}

fn speak(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let _ = socket.send_to(b"hello", to);
        thread::sleep(SPEAK);
    }
}

/// Over IPv6 hosts have public addresses, and this router accepts connections to them, so a packet of an old
/// conversation looks like a new connection.
#[test]
fn late_answers_do_not_pull_a_conversation_back_to_the_wan() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    let (pc, web, home) = (exits.host("home-pc")?, exits.host("web")?, exits.host("home")?);
    let direct: [IpAddr; 2] = [home.ip4()?.into(), pc.ip6()?.into()];
    let farm = exits.through("farm")?.map(|address| address.expect("both families"));
    let pushes =
        [Push::start(&pc, &web, web.ip4()?.into())?, Push::start(&pc, &web, IpAddr::from(web.ip6()?))?];
    wait_until_heard_as(&pushes, direct)?;
    let downloads =
        [Download::start(&pc, &web, web.ip4()?.into())?, Download::start(&pc, &web, web.ip6()?.into())?];

    let start = Instant::now();
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"] }))?;
    wait_until_heard_as(&pushes, farm)?;
    for download in &downloads {
        download.wait_until_cut(start, EFFECT)?;
    }
    // Conntrack entries hold late answers off; they do not block the host's own traffic once it leaves directly again.
    exits.unset_scope("lan")?;
    wait_until_heard_as(&pushes, direct)
}
