//! A steady stream of numbered UDP packets, and a report on the packets that were lost, doubled or reordered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::host::Host;

/// Longest wait for late packets, from the end of sending.
const LINGER: Duration = Duration::from_secs(1);
/// Time a receiver waits for a packet before it checks the stop flag again.
const LOOK_UP: Duration = Duration::from_millis(20);
/// Payload of a packet in bytes: that of a small voice packet.
const PAYLOAD: usize = 160;

/// A stream between two hosts.
pub struct UdpStream {
    what: String,
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<Received>>,
    echo: Option<JoinHandle<()>>,
}

/// Report on the packets of a stream.
#[derive(Clone, Debug)]
pub struct UdpReport {
    what: String,
    /// Packets sent, those that the sender's kernel refused included.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Numbers (from 0) of the packets that never came.
    pub lost: Vec<u64>,
    /// Packets that came more than once.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Longest time between two arrivals, or from the start to the first.
    pub longest_gap: Duration,
    /// Source addresses that the receiver saw: with NAT the router's, without the sender's own.
    pub sources: BTreeSet<IpAddr>,
    /// Errors of the sending system call, with how often each came.
    pub send_errors: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Sent {
    count: u64,
    errors: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Received {
    seen: BTreeMap<u64, u64>,
    reordered: u64,
    longest_gap: Duration,
    sources: BTreeSet<IpAddr>,
}

impl UdpStream {
    /// Sends `rate` packets a second from a host to an address of another, one way. The first one goes out at once:
    /// check first that the path works, with [`super::ping`].
    pub fn start(from: &Host, to: &Host, address: IpAddr, rate: u32) -> Result<Self> {
        let sink = receiver_socket(to)?;
        let source = from.in_netns(|| UdpSocket::bind(any(address)))?.context("bind the sender")?;
        let target = SocketAddr::new(address, sink.local_addr()?.port());
        Self::launch(from, to, source, target, sink, None, rate)
    }

    /// Starts a stream whose packets the other host sends back: a packet counts as lost if it did not make the round
    /// trip.
    pub fn start_echo(from: &Host, to: &Host, address: IpAddr, rate: u32) -> Result<Self> {
        let echo = receiver_socket(to)?;
        let source = from.in_netns(|| UdpSocket::bind(any(address)))?.context("bind the sender")?;
        source.set_read_timeout(Some(LOOK_UP))?;
        let target = SocketAddr::new(address, echo.local_addr()?.port());
        let back = source.try_clone()?;
        Self::launch(from, to, source, target, back, Some(echo), rate)
    }

    /// Number of different packets that have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Ends the stream, waits up to a second for late packets, and reports on it.
    pub fn finish(mut self) -> Result<UdpReport> {
        let gone = "a thread of the stream is gone";
        self.stop_sending.store(true, Ordering::Relaxed);
        let sent = self.sender.take().context(gone)?.join().ok().context(gone)?;
        let end = Instant::now() + LINGER;
        while self.arrived() < sent.count && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.stop_receiving.store(true, Ordering::Relaxed);
        let received = self.receiver.take().context(gone)?.join().ok().context(gone)?;
        Ok(report(&self.what, sent, received))
    }

    fn launch(
        from: &Host,
        to: &Host,
        source: UdpSocket,
        target: SocketAddr,
        sink: UdpSocket,
        echo: Option<UdpSocket>,
        rate: u32,
    ) -> Result<Self> {
        ensure!(rate > 0, "a stream of 0 packets a second never starts");
        let (stop_sending, stop_receiving) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let arrived = Arc::new(AtomicU64::new(0));
        let (stop, count) = (stop_receiving.clone(), arrived.clone());
        let receiver = std::thread::spawn(move || receive(&sink, &stop, &count));
        let stop = stop_receiving.clone();
        let echo = echo.map(|socket| std::thread::spawn(move || send_back(&socket, &stop)));
        let stop = stop_sending.clone();
        let sender = std::thread::spawn(move || send(&source, target, rate, &stop));
        let what = format!("UDP {} -> {} ({target}), {rate}/s", from.name(), to.name());
        let (sender, receiver) = (Some(sender), Some(receiver));
        Ok(Self { what, stop_sending, stop_receiving, arrived, sender, receiver, echo })
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.stop_sending.store(true, Ordering::Relaxed);
        self.stop_receiving.store(true, Ordering::Relaxed);
        let _ = self.sender.take().map(JoinHandle::join);
        let _ = self.receiver.take().map(JoinHandle::join);
        let _ = self.echo.take().map(JoinHandle::join);
    }
}

impl UdpReport {
    /// Fails the test with the whole report unless every packet came exactly once.
    #[track_caller]
    pub fn assert_lossless(&self) {
        let whole =
            self.lost.is_empty() && self.duplicates == 0 && self.send_errors.is_empty() && self.sent > 0;
        assert!(whole, "packets lost, doubled or refused: {self:#?}");
        eprintln!(
            "{}: {} of {} packets, longest gap {:?}",
            self.what, self.received, self.sent, self.longest_gap
        );
    }
}

fn report(what: &str, sent: Sent, received: Received) -> UdpReport {
    let Received { seen, reordered, longest_gap, sources } = received;
    UdpReport {
        what: what.to_owned(),
        sent: sent.count,
        received: u64::try_from(seen.len()).unwrap_or(u64::MAX),
        lost: (0..sent.count).filter(|number| !seen.contains_key(number)).collect(),
        duplicates: seen.values().map(|times| times - 1).sum(),
        reordered,
        longest_gap,
        sources,
        send_errors: sent.errors,
    }
}

/// Unspecified address of the same family, with any free port.
fn any(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) }
}

/// A socket for both families on a free port.
fn receiver_socket(on: &Host) -> Result<UdpSocket> {
    let socket = on.in_netns(|| UdpSocket::bind("[::]:0"))?.context("bind the receiver")?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, target: SocketAddr, rate: u32, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut packet = [0; PAYLOAD];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        packet[..8].copy_from_slice(&sent.count.to_be_bytes());
        if let Err(error) = socket.send_to(&packet, target) {
            *sent.errors.entry(error.to_string()).or_default() += 1;
        }
        sent.count += 1;
        next += Duration::from_secs(1) / rate;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, arrived: &AtomicU64) -> Received {
    let mut received = Received::default();
    let mut last_arrival = Instant::now();
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, source)) = socket.recv_from(&mut packet) else { continue };
        let Some(number) = packet[..length].first_chunk().copied().map(u64::from_be_bytes) else { continue };
        received.longest_gap = received.longest_gap.max(last_arrival.elapsed());
        last_arrival = Instant::now();
        received.reordered +=
            u64::from(received.seen.last_key_value().is_some_and(|(last, _)| number < *last));
        *received.seen.entry(number).or_default() += 1;
        received.sources.insert(source.ip().to_canonical());
        arrived.store(u64::try_from(received.seen.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    received
}

fn send_back(socket: &UdpSocket, stop: &AtomicBool) {
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, source)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&packet[..length], source);
        }
    }
}
