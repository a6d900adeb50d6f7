//! A download at a bounded rate, to measure when it is cut.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::host::Host;
use super::tcp::accept;
use super::wait::{eventually, until};

/// Limit for the connection to come up and for more bytes to arrive. Reads and writes time out after a fiftieth of it
/// (100 ms), to check the stop flag.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pieces of [`PIECE`] that the server sends in a second.
const PIECES_A_SECOND: u32 = 50;
const PIECE: [u8; 1024] = [0x5a; 1024];
/// Time without a byte, fifty times the usual gap, after which the download counts as cut.
const QUIET: Duration = Duration::from_secs(1);

/// An endless file that one host fetches from another, at 50 KB a second.
pub struct Download {
    what: String,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

struct Progress {
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl Download {
    /// Connects the client to an address of the server; returns once the first bytes have arrived.
    pub fn start(client: &Host, server: &Host, address: IpAddr) -> Result<Self> {
        let listener = server.in_netns(|| TcpListener::bind("[::]:0"))?.context("listen")?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        let what = format!("download {} <- {} ({target})", client.name(), server.name());
        let from = client.in_netns(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let from = from.with_context(|| what.clone())?;
        from.set_read_timeout(Some(PATIENCE / 50))?;
        let (out, _) = accept(&listener)?;
        out.set_write_timeout(Some(PATIENCE / 50))?;

        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress { bytes: AtomicU64::new(0), last: Mutex::new(Instant::now()) });
        let (until_send, until_receive, seen) = (stop.clone(), stop.clone(), progress.clone());
        let threads = vec![
            std::thread::spawn(move || send(out, &until_send)),
            std::thread::spawn(move || receive(from, &until_receive, &seen)),
        ];
        let download = Self { what, stop, progress, threads };
        download.wait_for_progress()?;
        Ok(download)
    }

    /// Number of bytes received so far.
    pub fn received(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Waits up to 5 s for more bytes than had arrived at the time of the call.
    pub fn wait_for_progress(&self) -> Result<()> {
        let before = self.received();
        until(PATIENCE, &format!("{} goes on", self.what), || self.received() > before)
    }

    /// Waits until the download is cut and returns the time from `since` to the last byte. Fails if that is longer than
    /// `deadline`; waits until a second after it at most.
    pub fn wait_until_cut(&self, since: Instant, deadline: Duration) -> Result<Duration> {
        let limit = deadline.saturating_sub(since.elapsed()) + QUIET;
        eventually(limit, &format!("{} stands still", self.what), || {
            let quiet = self.last().elapsed();
            if quiet >= QUIET { Ok(()) } else { Err(format!("{} bytes, and more come", self.received())) }
        })?;
        let took = self.last().saturating_duration_since(since);
        eprintln!("{}: the last byte came {took:?} after the command", self.what);
        ensure!(took <= deadline, "{}: cut after {took:?}, {deadline:?} allowed", self.what);
        Ok(took)
    }

    fn last(&self) -> Instant {
        *self.progress.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn send(mut socket: TcpStream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // A full buffer means that the client can't be reached now; it may be again later.
        match socket.write(&PIECE) {
            Err(error) if !is_timeout(&error) => return,
            _ => std::thread::sleep(Duration::from_secs(1) / PIECES_A_SECOND),
        }
    }
}

fn receive(mut socket: TcpStream, stop: &AtomicBool, progress: &Progress) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                progress.bytes.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
                *progress.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
