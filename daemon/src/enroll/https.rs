//! One POST over HTTPS: ureq's HTTP over a connection of our own, so that it has the bypass mark, the one TLS
//! configuration of this program, and errors that say which address failed how.

use crate::{dns, socket, tls::TlsFailure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};
use ureq::{
    Agent, Error,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

/// For each address of the host.
const CONNECT: Duration = Duration::from_secs(5);
/// What a look-up takes at most, see [`dns`].
const RESOLVE: Duration = Duration::from_secs(8);
/// From the resolved name to the last byte of the answer.
const TOTAL: Duration = Duration::from_secs(20);
const HTTPS: u16 = 443;
const LONGEST_ANSWER: u64 = 64 * 1024;
const BUFFER: usize = 8 * 1024;

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No address of the host takes a connection.
    NoConnection(Vec<(SocketAddr, io::Error)>),
    /// The name has no address, or the connection broke; in words.
    Broken(String),
    /// Out of time.
    Slow,
    /// Not to be trusted.
    Tls(TlsFailure),
    /// It speaks, but not HTTP as expected; in words.
    Nonsense(String),
}

/// Posts `body` to `url`.
pub(super) fn post(
    url: &str,
    content_type: &str,
    body: Vec<u8>,
    tls: Arc<ClientConfig>,
    mark: u32,
) -> Result<Reply, Trouble> {
    let config = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("gatewrt/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(RESOLVE + TOTAL))
        .timeout_resolve(Some(RESOLVE))
        .build();
    let agent = Agent::with_parts(config, MarkedTls { tls, mark }, MarkedResolver(mark));
    let mut response = agent.post(url).content_type(content_type).send(body)?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec()?;
    Ok(Reply { status, body })
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Other(inner) => match inner.downcast::<Self>() {
                Ok(trouble) => *trouble,
                Err(inner) => Self::Broken(inner.to_string()),
            },
            Error::Timeout(ureq::Timeout::Resolve) => Self::Broken("no name server answers".to_owned()),
            Error::Timeout(_) => Self::Slow,
            Error::Io(error) => match TlsFailure::of(&error) {
                Some(failure) => Self::Tls(failure),
                None => Self::Broken(error.to_string()),
            },
            other => Self::Nonsense(other.to_string()),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
impl std::error::Error for Trouble {}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        Self::Other(Box::new(trouble))
    }
}

/// Looks names up past any exit.
#[derive(Debug)]
struct MarkedResolver(u32);

impl Resolver for MarkedResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let found = dns::resolve(host, uri.port_u16().unwrap_or(HTTPS), self.0);
        let found = found.map_err(|error| Trouble::Broken(error.to_string()))?;
        let mut all = self.empty();
        found.into_iter().for_each(|addr| all.push(addr));
        Ok(all)
    }
}

struct MarkedTls {
    tls: Arc<ClientConfig>,
    mark: u32,
}

impl fmt::Debug for MarkedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MarkedTls({:#x})", self.mark)
    }
}

impl Connector for MarkedTls {
    type Out = TlsTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<TlsTransport>, Error> {
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Trouble::Broken(format!("“{host}” is neither a name nor an address")))?;
        let deadline = Instant::now() + details.timeout.not_zero().map_or(TOTAL, |left| (*left).min(TOTAL));
        let mut socket = self.connect_any(&details.addrs, deadline)?;
        let mut session = ClientConnection::new(self.tls.clone(), name)
            .map_err(|error| Trouble::Tls(TlsFailure::from(&error)))?;
        socket.set_read_timeout(Some(CONNECT))?;
        socket.set_write_timeout(Some(CONNECT))?;
        while session.is_handshaking() {
            if Instant::now() >= deadline {
                return Err(Trouble::Slow.into());
            }
            session.complete_io(&mut socket).map_err(slow_or)?;
        }
        let buffers = LazyBuffers::new(BUFFER, BUFFER);
        Ok(Some(TlsTransport { stream: StreamOwned::new(session, socket), buffers }))
    }
}

impl MarkedTls {
    fn connect_any(&self, addrs: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Trouble> {
        let mut tried = Vec::new();
        for addr in addrs.iter().take(socket::MAX_ADDRESSES) {
            let left = deadline.saturating_duration_since(Instant::now()).min(CONNECT);
            if left.is_zero() {
                break;
            }
            match socket::connect(*addr, self.mark, left) {
                Ok(stream) => return Ok(stream),
                Err(error) => tried.push((*addr, error)),
            }
        }
        Err(Trouble::NoConnection(tried))
    }
}

fn slow_or(error: io::Error) -> Error {
    if is_timeout(&error) { Trouble::Slow.into() } else { Error::Io(error) }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

struct TlsTransport {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffers: LazyBuffers,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsTransport({:?})", self.stream.sock)
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let written =
            self.stream.write_all(&self.buffers.output()[..amount]).and_then(|()| self.stream.flush());
        written.map_err(slow_or)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let read = self.stream.read(self.buffers.input_append_buf()).map_err(slow_or)?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// One request a connection: none is ever taken up again.
    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}
