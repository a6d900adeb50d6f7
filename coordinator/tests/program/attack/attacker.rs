//! Host that does its worst to a listener of the coordinator: it holds as many connections as it can.

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Connections that an attacker opens before it looks after those that it has.
const BATCH: usize = 32;
/// The same once it has opened all: the attack is to hold what it can, not to take the processor from all other tests.
const AGAIN: usize = 4;
/// Pause after each batch.
const PAUSE: Duration = Duration::from_millis(20);
/// Time for the coordinator's part of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Bytes of requests sent at a time on a connection whose answers are not read.
const PIPELINED: usize = 64 * 1024;

/// What an attacker does with a connection that it has opened.
#[derive(Debug, Clone, Copy)]
pub enum Worst {
    /// Nothing.
    Idle,
    /// Begins a TLS handshake and doesn't finish it.
    HalfHandshake,
    /// Sends the head of a request byte by byte.
    SlowHead,
    /// Sends the body of a request byte by byte.
    SlowBody,
    /// Sends requests, again and again, and reads no answer.
    UnreadAnswers,
    /// The same with answers that have no body.
    UnreadHeads,
}

/// Attack from one address, until it is dropped.
pub struct Attacker {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    count: usize,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    /// Begins to hold `count` connections from an address. If it is stubborn, it opens another for each that is closed.
    pub fn start(from: Ipv4Addr, is_stubborn: bool, to: &str, ca: &str, worst: Worst, count: usize) -> Self {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let target = Target { from, to: to.parse().unwrap(), tls: tls_config(ca) };
        let thread = std::thread::spawn({
            let (stop, opened) = (stop.clone(), opened.clone());
            move || {
                let mut held = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let so_far = opened.load(Ordering::Relaxed);
                    let has = if is_stubborn { held.len() } else { so_far };
                    let batch = if so_far < count { BATCH } else { AGAIN };
                    for _ in 0..batch.min(count - has) {
                        // Refused ones are tried again.
                        if let Ok(connection) = target.open(worst) {
                            opened.fetch_add(1, Ordering::Relaxed);
                            held.push(connection);
                        }
                    }
                    held.retain_mut(|connection: &mut Held| connection.go_on(worst));
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Self { stop, opened, count, thread: Some(thread) }
    }

    /// True once it has opened as many connections as it holds.
    pub fn is_complete(&self) -> bool {
        self.opened() >= self.count
    }

    /// Number of connections opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().expect("taken here only").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the attack failed");
    }
}

struct Target {
    from: Ipv4Addr,
    to: SocketAddrV4,
    tls: Arc<ClientConfig>,
}

struct Held {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
}

impl Target {
    fn open(&self, worst: Worst) -> std::io::Result<Held> {
        let mut tcp = connect(self.from, self.to)?;
        tcp.set_read_timeout(Some(HANDSHAKE))?;
        tcp.set_write_timeout(Some(HANDSHAKE))?;
        let mut tls = None;
        if !matches!(worst, Worst::Idle) {
            let name = std::net::IpAddr::from(*self.to.ip()).into();
            let mut session = ClientConnection::new(self.tls.clone(), name).unwrap();
            if matches!(worst, Worst::HalfHandshake) {
                session.write_tls(&mut tcp)?;
            } else {
                while session.is_handshaking() {
                    session.complete_io(&mut tcp)?;
                }
                session.writer().write_all(match worst {
                    Worst::SlowBody => b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n",
                    _ => b"",
                })?;
            }
            tls = Some(session);
        }
        tcp.set_nonblocking(true)?;
        Ok(Held { tcp, tls })
    }
}

impl Held {
    /// Does the next bit of the worst. Returns false if the other side has closed.
    fn go_on(&mut self, worst: Worst) -> bool {
        let requests = |request: &str| request.repeat(PIPELINED / request.len()).into_bytes();
        let more = match worst {
            Worst::Idle | Worst::HalfHandshake => return !self.is_closed(),
            Worst::SlowHead | Worst::SlowBody => b"x".to_vec(),
            Worst::UnreadAnswers => requests("GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"),
            Worst::UnreadHeads => requests("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        let tls = self.tls.as_mut().expect("all others use TLS");
        if !tls.wants_write() {
            tls.writer().write_all(&more).unwrap();
        }
        while tls.wants_write() {
            match tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        // Who reads nothing only notices a reset.
        matches!(worst, Worst::UnreadAnswers | Worst::UnreadHeads) || !self.is_closed()
    }

    fn is_closed(&mut self) -> bool {
        loop {
            match self.tcp.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

fn connect(from: Ipv4Addr, to: SocketAddrV4) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket,
        sockopt::IpBindAddressNoPort,
    };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(socket))
}

fn tls_config(ca: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
