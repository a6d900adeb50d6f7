//! Connection of commands to the coordinator on this machine: HTTP over the unix socket in its data directory.

use crate::http::LOCAL_SOCKET;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};
use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

/// Connector to the unix socket of a coordinator, whatever the URL says.
#[derive(Debug)]
pub(super) struct LocalConnector {
    path: PathBuf,
}

impl LocalConnector {
    /// Connector to the coordinator that runs on a data directory; `None` if none can be reached there.
    pub(super) fn find(data: &Path) -> Option<Self> {
        let path = data.join(LOCAL_SOCKET);
        UnixStream::connect(&path).is_ok().then_some(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Connector for LocalConnector {
    type Out = LocalTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<LocalTransport>, Error> {
        let stream = UnixStream::connect(&self.path)?;
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(LocalTransport { stream, buffers: LazyBuffers::new(input, output) }))
    }
}

/// Resolver for a connector that needs no address.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addrs = self.empty();
        addrs.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        Ok(addrs)
    }
}

/// Connection that carries one request and its answer.
#[derive(Debug)]
pub(super) struct LocalTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for LocalTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(|error| fault(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let read = self.stream.read(self.buffers.input_append_buf());
        let read = read.map_err(|error| fault(error, timeout))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// False: a connection is closed after one request.
    fn is_open(&mut self) -> bool {
        false
    }
}

fn fault(error: std::io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
