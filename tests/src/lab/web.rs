//! A web server that answers with the source address it saw, the real `curl` to ask it, and `ping`.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;

/// How long a client may take with its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The server, on port 80 of a host, for both families; gone when dropped. A reboot of the host ends it too.
pub struct Whoami {
    local: SocketAddr,
    host: Host,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Whoami {
    /// Starts it on a host.
    pub fn start(host: &Host) -> Result<Self> {
        let bind = host.in_netns(|| TcpListener::bind("[::]:80"))?;
        let listener = bind.with_context(|| format!("on {}: listen on port 80", host.name()))?;
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || serve(&listener, &until));
        Ok(Self { local, host: host.clone(), stop, thread: Some(thread) })
    }
}

impl Drop for Whoami {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A last connection wakes the thread up; after a reboot of the host there is none to be had.
        let woken = self.host.in_netns(|| TcpStream::connect_timeout(&self.local, PATIENCE).is_ok());
        if woken.unwrap_or(false) {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

/// Serves on port `port` of where the caller is, for ever.
pub fn serve_whoami(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("::", port)).with_context(|| format!("listen on port {port}"))?;
    serve(&listener, &AtomicBool::new(false));
    Ok(())
}

/// Fetches a URL with the real `curl` and returns the body without its last line end.
pub fn fetch(from: &Host, url: &str) -> Result<String> {
    let curl =
        ["curl", "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", "--max-time", "5", url];
    Ok(from.run(&curl)?.stdout.trim_end().to_owned())
}

/// One echo request with the real `ping`, answered within a second.
pub fn ping(from: &Host, to: IpAddr) -> Result<()> {
    from.run(&["ping", "-n", "-c", "1", "-W", "1", &to.to_string()]).map(drop)
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    for connection in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // A client that goes away in the middle is its own business.
        let _ = connection.map(|client| std::thread::spawn(move || answer(client)));
    }
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let source = client.peer_addr()?.ip().to_canonical();
    let mut request = BufReader::new(client.try_clone()?).lines();
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = format!("{source}\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    write!(client, "{head} {}\r\n\r\n{body}", body.len())?;
    client.shutdown(Shutdown::Write)
}
