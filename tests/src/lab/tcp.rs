//! A long-lived TCP connection with a steady stream of numbered records, to notice when it breaks.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream as Socket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::host::Host;

/// Time limit for a connection to come up and for a write; a read may take twice as long.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// A connection between two hosts, opened by the first.
pub struct TcpStream {
    what: String,
    source: IpAddr,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<u64, String>>>,
    receiver: Option<JoinHandle<Received>>,
}

struct Received {
    records: u64,
    longest_gap: Duration,
    broken: Option<String>,
}

/// Report on a connection.
#[derive(Clone, Debug)]
pub struct TcpReport {
    what: String,
    /// Source address that the accepting host saw.
    pub source: IpAddr,
    /// Records of 8 bytes sent.
    pub sent: u64,
    /// Records received, each the successor of the one before.
    pub received: u64,
    /// Longest time between two arrivals: TCP hides a loss, but not the wait for the retransmission.
    pub longest_gap: Duration,
    /// Error that broke the connection or a mismatch in its records, if there was one.
    pub broken: Option<String>,
}

impl TcpStream {
    /// Connects and sends `rate` records a second, until [`TcpStream::finish`].
    pub fn start(from: &Host, to: &Host, address: IpAddr, rate: u32) -> Result<Self> {
        ensure!(rate > 0, "a stream of 0 records a second never starts");
        let listener = to.in_netns(|| TcpListener::bind("[::]:0"))?.context("listen")?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        let what = format!("TCP {} -> {} ({target}), {rate}/s", from.name(), to.name());
        let out =
            from.in_netns(|| Socket::connect_timeout(&target, PATIENCE))?.with_context(|| what.clone())?;
        out.set_nodelay(true)?;
        out.set_write_timeout(Some(PATIENCE))?;
        let (incoming, source) = accept(&listener)?;
        incoming.set_read_timeout(Some(PATIENCE * 2))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let sender = std::thread::spawn(move || send(out, rate, &until));
        let receiver = std::thread::spawn(move || receive(incoming));
        let source = source.ip().to_canonical();
        Ok(Self { what, source, stop, sender: Some(sender), receiver: Some(receiver) })
    }

    /// Source address that the accepting host saw.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Ends the connection and reports on it.
    pub fn finish(mut self) -> Result<TcpReport> {
        let gone = "a thread of the stream is gone";
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take().context(gone)?.join().ok().context(gone)?;
        let Received { records, longest_gap, broken } =
            self.receiver.take().context(gone)?.join().ok().context(gone)?;
        let (sent, broken) = match sent {
            Ok(count) if count != records => {
                (count, broken.or(Some(format!("{records} of {count} records came"))))
            }
            Ok(count) => (count, broken),
            Err(error) => (records, Some(error)),
        };
        Ok(TcpReport {
            what: self.what.clone(),
            source: self.source,
            sent,
            received: records,
            longest_gap,
            broken,
        })
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.sender.take().map(JoinHandle::join);
    }
}

impl TcpReport {
    /// Fails the test with the whole report when the connection broke or lost a record.
    #[track_caller]
    pub fn assert_unbroken(&self) {
        assert!(self.broken.is_none() && self.received > 0, "the connection broke: {self:#?}");
        eprintln!("{}: {} records, longest gap {:?}", self.what, self.received, self.longest_gap);
    }
}

pub(crate) fn accept(listener: &TcpListener) -> Result<(Socket, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((socket, source)) => {
                socket.set_nonblocking(false)?;
                return Ok((socket, source));
            }
            Err(error) if start.elapsed() > PATIENCE => bail!("no connection came: {error}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn send(mut socket: Socket, rate: u32, stop: &AtomicBool) -> Result<u64, String> {
    let mut next = Instant::now();
    let mut count: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        socket.write_all(&count.to_be_bytes()).map_err(|error| format!("send record {count}: {error}"))?;
        count += 1;
        next += Duration::from_secs(1) / rate;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(count)
}

fn receive(mut socket: Socket) -> Received {
    let mut received = Received { records: 0, longest_gap: Duration::ZERO, broken: None };
    let mut last_arrival = Instant::now();
    let mut record = [0; 8];
    loop {
        match socket.read_exact(&mut record) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return received,
            Err(error) => {
                received.broken = Some(format!("receive record {}: {error}", received.records));
                return received;
            }
        }
        let number = u64::from_be_bytes(record);
        if number != received.records {
            received.broken = Some(format!("record {number} came instead of {}", received.records));
            return received;
        }
        received.longest_gap = received.longest_gap.max(last_arrival.elapsed());
        last_arrival = Instant::now();
        received.records += 1;
    }
}
