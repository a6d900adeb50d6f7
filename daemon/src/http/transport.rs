//! Connections under [`super::agent`]: our resolver, our marked socket and our TLS in the places that ureq has for them.
//! Each connection has one deadline, for the handshake, the request and the answer together; ureq's own timeouts are not
//! set, since those would count the look-up of the name as well.

use super::HttpError;
use crate::{dns, model, socket, tls::TlsFailure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};
use ureq::{
    Error,
    config::Config,
    http::{Uri, uri::Scheme},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

/// Time for each address of the host.
const CONNECT: Duration = Duration::from_secs(5);

/// Resolver of host names in URLs, by queries that carry the bypass mark.
#[derive(Debug)]
pub(super) struct MarkedResolver {
    pub(super) mark: u32,
}

impl Resolver for MarkedResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = host(uri)?;
        server_name(host)?;
        let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let found = dns::resolve(host, uri.port_u16().unwrap_or(default_port), self.mark)
            .map_err(|error| HttpError::Broken(error.to_string()))?;
        let mut addrs = self.empty();
        for addr in found.into_iter().take(model::MAX_ADDRESSES) {
            addrs.push(addr);
        }
        Ok(addrs)
    }
}

/// Connector of HTTP connections over sockets that carry the bypass mark, with TLS where it is configured.
pub(super) struct MarkedConnector {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) mark: u32,
    /// Time from connecting to the last byte of the answer.
    pub(super) timeout: Duration,
}

impl Connector for MarkedConnector {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        let deadline = Instant::now() + self.timeout;
        let socket = connect(&details.addrs, self.mark, deadline)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => Box::new(handshake(tls, host(details.uri)?, socket)?),
            None => Box::new(socket),
        };
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        let buffers = LazyBuffers::new(input, output);
        Ok(Some(Connection { stream, is_tls: self.tls.is_some(), buffers }))
    }
}

impl fmt::Debug for MarkedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkedConnector")
    }
}

/// Host of a URL without the brackets of an IPv6 address.
fn host(uri: &Uri) -> Result<&str, HttpError> {
    let host = uri.host().ok_or(HttpError::Url)?;
    Ok(host.trim_start_matches('[').trim_end_matches(']'))
}

fn server_name(host: &str) -> Result<ServerName<'static>, HttpError> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| HttpError::Broken(format!("“{host}” is neither a name nor an address")))
}

fn connect(addrs: &[SocketAddr], mark: u32, deadline: Instant) -> Result<TimedStream, HttpError> {
    let mut tried = Vec::new();
    for addr in addrs {
        let left = deadline.saturating_duration_since(Instant::now()).min(CONNECT);
        if left.is_zero() {
            break;
        }
        match socket::connect(*addr, mark, left) {
            Ok(socket) => return Ok(TimedStream { socket, deadline }),
            Err(error) => tried.push((*addr, error)),
        }
    }
    Err(HttpError::Connect(tried))
}

type TlsStream = StreamOwned<ClientConnection, TimedStream>;

fn handshake(tls: &Arc<ClientConfig>, host: &str, mut socket: TimedStream) -> Result<TlsStream, HttpError> {
    let session = ClientConnection::new(tls.clone(), server_name(host)?);
    let mut session = session.map_err(|error| HttpError::Tls(TlsFailure::from(&error)))?;
    session.complete_io(&mut socket)?;
    Ok(StreamOwned::new(session, socket))
}

/// TCP socket whose reads and writes end at a deadline, however often they are repeated.
struct TimedStream {
    socket: TcpStream,
    deadline: Instant,
}

impl TimedStream {
    fn time_left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for TimedStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(self.time_left()?))?;
            match self.socket.read(into) {
                // A socket with a timeout is not read again by the kernel after a signal (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.time_left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

trait Stream: Read + Write + Send + Sync {}
impl<T: Read + Write + Send + Sync> Stream for T {}

/// Connection that carries one HTTP request and its answer, with or without TLS.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    is_tls: bool,
    buffers: LazyBuffers,
}

/// Errors are [`HttpError`]s, never plain ones of `io`: ureq takes a connection that breaks for the end of an answer without
/// a length.
impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let written = self.stream.write_all(&self.buffers.output()[..amount]);
        Ok(written.and_then(|()| self.stream.flush()).map_err(HttpError::from)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let read = self.stream.read(self.buffers.input_append_buf()).map_err(HttpError::from)?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// False: a connection is closed after one request.
    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
