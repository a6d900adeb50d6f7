//! A web server that answers with the source address it saw, the real `curl` to ask it, and `ping`.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;

/// Time limit for reading a client's request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval at which the server looks for a client and checks the stop flag.
const LOOK_UP: Duration = Duration::from_millis(3);

/// Time after which a connection that nobody answers counts as failed.
const UNANSWERED: Duration = Duration::from_millis(1500);

/// Server on one port of a host, for both families; stops when dropped. After a reboot of the host, start another.
pub struct Whoami {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Whoami {
    /// Starts a server on port 80 of a host.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_on(host, 80)
    }

    /// Starts a server on another port.
    pub fn start_on(host: &Host, port: u16) -> Result<Self> {
        let listener = host.in_netns(|| listen(port))?.with_context(|| format!("on {}", host.name()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || serve(&listener, &until));
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Whoami {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Serves on port `port` of the caller's network namespace, for ever.
pub fn serve_whoami(port: u16) -> Result<()> {
    serve(&listen(port)?, &AtomicBool::new(false))
}

/// Fetches a URL with the real `curl` and returns the body without its last line end.
pub fn fetch(from: &Host, url: &str) -> Result<String> {
    let curl =
        ["curl", "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", "--max-time", "5", url];
    Ok(from.run(&curl)?.stdout.trim_end().to_owned())
}

/// True if a TCP connection opens within 1.5 s; false if it is dropped or refused.
pub fn connects(from: &Host, to: SocketAddr) -> Result<bool> {
    connects_within(from, to, UNANSWERED)
}

/// Tries a connection as [`connects`] does, for `patience`. A short one shows when connections begin to open: the
/// kernel repeats an unanswered attempt only after a second.
pub fn connects_within(from: &Host, to: SocketAddr, patience: Duration) -> Result<bool> {
    Ok(from.in_netns(|| TcpStream::connect_timeout(&to, patience))?.is_ok())
}

/// Sends one echo request with the real `ping`; no answer within a second is an error.
pub fn ping(from: &Host, to: IpAddr) -> Result<()> {
    from.run(&["ping", "-n", "-c", "1", "-W", "1", &to.to_string()]).map(drop)
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind(("::", port)).with_context(|| format!("listen on port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that goes away in the middle is its own business.
            Ok((client, _)) => drop(std::thread::spawn(move || answer(client))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(LOOK_UP),
            Err(error) => return Err(error).context("accept a connection"),
        }
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let source = client.peer_addr()?.ip().to_canonical();
    let mut request = BufReader::new(client.try_clone()?).lines();
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = format!("{source}\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    write!(client, "{head} {}\r\n\r\n{body}", body.len())?;
    client.shutdown(Shutdown::Write)
}
