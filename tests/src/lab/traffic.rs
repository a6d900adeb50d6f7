//! Traffic generator: a host sends to the Internet without end over UDP, DNS and TCP. The answers say under which
//! address the host is seen; the generator records them, and also when nobody answers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::answers::{DNS, ECHO, at, dns_query, dns_source};
use super::host::Host;
use super::wait::eventually;

/// Time between two questions of one kind.
const INTERVAL: Duration = Duration::from_millis(50);
/// Time an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// Number of equal outcomes in a row that a wait needs.
const IN_A_ROW: usize = 4;

/// Kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// UDP packets from one port without end.
    Udp,
    /// DNS queries, each from another port.
    Dns,
    /// HTTP requests, each a connection of its own.
    Tcp,
}

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Servers that a host sends to, IPv4 and IPv6.
#[derive(Clone, Copy, Debug)]
pub struct Partners {
    /// Asked over UDP and TCP.
    pub web: [IpAddr; 2],
    /// Asked over DNS.
    pub resolver: [IpAddr; 2],
}

/// Answers that a host got over one kind of traffic and one family.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Questions asked.
    pub asked: u64,
    /// Answers, by the address that the other side had seen.
    pub seen: BTreeMap<IpAddr, u64>,
    last: VecDeque<Option<IpAddr>>,
}

type All = BTreeMap<(Way, Family), Heard>;

/// Traffic generator on a host, which stops when dropped. Drop it before the host reboots.
pub struct TrafficGenerator {
    name: String,
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<All>>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
        })
    }
}

impl Family {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Value of this family in a pair, IPv4 first.
    pub fn of<T: Copy>(self, pair: &[T; 2]) -> T {
        pair[usize::from(self == Self::V6)]
    }
}

impl TrafficGenerator {
    /// Starts to send, 20 times a second over each kind of traffic and each family.
    pub fn start(from: &Host, to: Partners) -> Result<Self> {
        Self::start_in(from, to, &[Way::Udp, Way::Dns, Way::Tcp])
    }

    /// Starts to send over some kinds of traffic only.
    pub fn start_in(from: &Host, to: Partners, ways: &[Way]) -> Result<Self> {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(All::new())));
        let mut generator = Self {
            name: from.name().to_owned(),
            stop: stop.clone(),
            heard: heard.clone(),
            threads: Vec::new(),
        };
        for way in ways.iter().copied() {
            for family in Family::BOTH {
                lock(&heard).insert((way, family), Heard::default());
                let (stop, heard) = (stop.clone(), heard.clone());
                // Threads that are started in a host's network stay in it.
                let thread =
                    from.in_netns(|| std::thread::spawn(move || talk((way, family), to, &stop, &heard)))?;
                generator.threads.push(thread);
            }
        }
        Ok(generator)
    }

    /// Forgets all answers so far.
    pub fn forget(&self) {
        lock(&self.heard).values_mut().for_each(|heard| *heard = Heard::default());
    }

    /// Answers since the start, or since [`TrafficGenerator::forget`].
    pub fn heard(&self) -> BTreeMap<(Way, Family), Heard> {
        lock(&self.heard).clone()
    }

    /// Waits until the host is seen under these addresses (IPv4, IPv6) over each kind of traffic; for `None`, until
    /// nobody answers.
    pub fn wait_until_seen_as(&self, deadline: Duration, wanted: [Option<IpAddr>; 2]) -> Result<()> {
        self.listen_anew();
        self.wait_for_outcomes(deadline, wanted)
    }

    /// Waits as [`TrafficGenerator::wait_until_seen_as`] does, for several generators with one deadline.
    pub fn wait_for_all(deadline: Duration, generators: &[(&Self, [Option<IpAddr>; 2])]) -> Result<()> {
        generators.iter().for_each(|(generator, _)| generator.listen_anew());
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        generators.iter().try_for_each(|(generator, wanted)| generator.wait_for_outcomes(left(), *wanted))
    }

    fn listen_anew(&self) {
        lock(&self.heard).values_mut().for_each(|heard| heard.last.clear());
    }

    fn wait_for_outcomes(&self, deadline: Duration, wanted: [Option<IpAddr>; 2]) -> Result<()> {
        let words = wanted.map(|one| one.map_or("nobody".to_owned(), |address| address.to_string()));
        let what = format!("{} is seen as {} and {}", self.name, words[0], words[1]);
        eventually(deadline, &what, || self.check(wanted))
    }

    fn check(&self, wanted: [Option<IpAddr>; 2]) -> Result<()> {
        let wrong = |((way, family), heard): (&(Way, Family), &Heard)| {
            let is_so =
                heard.last.len() == IN_A_ROW && heard.last.iter().all(|one| *one == family.of(&wanted));
            (!is_so).then(|| format!("{way} {family:?}: {:?}", heard.last))
        };
        let wrong: Vec<String> = lock(&self.heard).iter().filter_map(wrong).collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

impl Drop for TrafficGenerator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn talk(key: (Way, Family), to: Partners, stop: &AtomicBool, heard: &Mutex<All>) {
    let (way, family) = key;
    let (web, resolver) = (family.of(&to.web), family.of(&to.resolver));
    let steady = udp(web);
    for number in 0_u16.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let next = Instant::now() + INTERVAL;
        let seen = match way {
            Way::Udp => steady.as_ref().ok().and_then(|socket| echo(socket, at(web, ECHO), number)),
            Way::Dns => udp(resolver).ok().and_then(|socket| query(&socket, at(resolver, DNS), number)),
            Way::Tcp => request(at(web, 80)).ok(),
        };
        if let Some(heard) = lock(heard).get_mut(&key) {
            heard.note(seen);
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

impl Heard {
    fn note(&mut self, seen: Option<IpAddr>) {
        self.asked += 1;
        self.last.push_back(seen);
        if self.last.len() > IN_A_ROW {
            self.last.pop_front();
        }
        if let Some(address) = seen {
            *self.seen.entry(address).or_default() += 1;
        }
    }
}

fn udp(like: IpAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr =
        if like.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0_u16; 8], 0)) };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Source address that the UDP server saw; skips late answers to earlier questions.
fn echo(socket: &UdpSocket, to: SocketAddr, number: u16) -> Option<IpAddr> {
    let question = number.to_be_bytes();
    socket.send_to(&question, to).ok()?;
    answer(socket, |answer| {
        let (echoed, source) = answer.split_first_chunk()?;
        (*echoed == question).then(|| std::str::from_utf8(source).ok()?.parse().ok()).flatten()
    })
}

fn query(socket: &UdpSocket, to: SocketAddr, number: u16) -> Option<IpAddr> {
    socket.send_to(&dns_query(number, to.is_ipv6()), to).ok()?;
    answer(socket, |answer| dns_source(answer, number))
}

fn answer(socket: &UdpSocket, read: impl Fn(&[u8]) -> Option<IpAddr>) -> Option<IpAddr> {
    let end = Instant::now() + PATIENCE;
    let mut packet = [0; 2048];
    while Instant::now() < end {
        let (length, _) = socket.recv_from(&mut packet).ok()?;
        if let Some(source) = read(&packet[..length]) {
            return Some(source);
        }
    }
    None
}

fn request(to: SocketAddr) -> Result<IpAddr> {
    let mut socket = TcpStream::connect_timeout(&to, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text.lines().last().context("an answer")?.parse()?)
}

fn lock(heard: &Mutex<All>) -> MutexGuard<'_, All> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
