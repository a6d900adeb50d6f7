//! A host that talks to the Internet without end, in each way in which hosts do, and what it hears of itself: as whom it is
//! seen, or nothing.

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

/// Between two questions of one kind.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long an answer is awaited.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many outcomes in a row say how things stand.
const IN_A_ROW: usize = 4;

/// A way to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// UDP packets from one port without end.
    Udp,
    /// DNS queries, each from another port.
    Dns,
    /// HTTP requests, each a connection of its own.
    Tcp,
}

/// Over IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whom a host talks to, IPv4 and IPv6.
#[derive(Clone, Copy, Debug)]
pub struct Partners {
    /// Asked over UDP and TCP.
    pub web: [IpAddr; 2],
    /// Asked over DNS.
    pub resolver: [IpAddr; 2],
}

/// What a host heard, in one way.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Questions asked.
    pub asked: u64,
    /// Answers, by the address that the other side had seen.
    pub seen: BTreeMap<IpAddr, u64>,
    last: VecDeque<Option<IpAddr>>,
}

type All = BTreeMap<(Way, Family), Heard>;

/// A host that talks; silent when dropped. Before its reboot, drop it.
pub struct Talker {
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
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Of the pair, IPv4 first.
    pub fn of<T: Copy>(self, pair: &[T; 2]) -> T {
        pair[usize::from(self == Self::V6)]
    }
}

impl Talker {
    /// Starts to talk, 20 times a second in each way.
    pub fn start(from: &Host, to: Partners) -> Result<Self> {
        Self::start_in(from, to, &[Way::Udp, Way::Dns, Way::Tcp])
    }

    /// The same in some ways only.
    pub fn start_in(from: &Host, to: Partners, ways: &[Way]) -> Result<Self> {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(All::new())));
        let mut talker = Self {
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
                talker.threads.push(thread);
            }
        }
        Ok(talker)
    }

    /// Forgets what was heard so far.
    pub fn forget(&self) {
        lock(&self.heard).values_mut().for_each(|heard| *heard = Heard::default());
    }

    /// What was heard since the start, or since [`Talker::forget`].
    pub fn heard(&self) -> BTreeMap<(Way, Family), Heard> {
        lock(&self.heard).clone()
    }

    /// Waits until the host is seen as these addresses (IPv4, IPv6), whatever way it talks; with `None` instead of an
    /// address, until nobody answers.
    pub fn wait_until_seen_as(&self, deadline: Duration, wanted: [Option<IpAddr>; 2]) -> Result<()> {
        self.listen_anew();
        self.wait_for_outcomes(deadline, wanted)
    }

    /// The same for several at once.
    pub fn wait_for_all(deadline: Duration, talkers: &[(&Self, [Option<IpAddr>; 2])]) -> Result<()> {
        talkers.iter().for_each(|(talker, _)| talker.listen_anew());
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        talkers.iter().try_for_each(|(talker, wanted)| talker.wait_for_outcomes(left(), *wanted))
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

impl Drop for Talker {
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

/// Late answers to earlier questions are not taken for one.
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
