//! From a broker's address to a TCP connection.

use super::{LinkError, Options};
use crate::{dns, socket, task::Job, wait::Wait};
use rustls::pki_types::ServerName;
use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// For one address, where the host has several.
const ONE_ADDRESS: Duration = Duration::from_secs(4);

/// For looking a name up: half of what an attempt may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// On the way to a broker.
pub(super) struct Connecting {
    name: ServerName<'static>,
    looking_up: Option<(Job<io::Result<Vec<SocketAddr>>>, Instant)>,
    /// The next address last.
    left: Vec<SocketAddr>,
    /// The address that is tried now, until when.
    trying: Option<(SocketAddr, TcpStream, Instant)>,
    tried: Vec<(SocketAddr, io::Error)>,
}

impl Connecting {
    /// An address needs no resolver; a name is looked up at each connection.
    pub(super) fn start(options: &Options) -> Result<Self, LinkError> {
        let no_address = || LinkError::Address(options.broker.clone());
        let (host, port) = socket::split_host_port(&options.broker).ok_or_else(no_address)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| no_address())?;
        let (mut looking_up, mut left) = (None, Vec::new());
        if let Ok(addr) = host.parse() {
            left.push(SocketAddr::new(addr, port));
        } else {
            let (host, mark) = (host.to_owned(), options.mark);
            let job = Job::start(move || dns::resolve(&host, port, mark)).map_err(LinkError::Name)?;
            looking_up = Some((job, Instant::now() + LOOK_UP));
        }
        Ok(Self { name, looking_up, left, trying: None, tried: Vec::new() })
    }

    /// The connection, and the name to expect there, once it is made.
    pub(super) fn advance(
        &mut self,
        options: &Options,
    ) -> Result<Option<(TcpStream, ServerName<'static>)>, LinkError> {
        if !self.has_addresses(options)? {
            return Ok(None);
        }
        loop {
            if let Some((addr, stream, by)) = self.trying.take() {
                match socket::outcome(&stream) {
                    Some(Ok(())) => return Ok(Some((stream, self.name.clone()))),
                    Some(Err(error)) => self.tried.push((addr, error)),
                    None if by <= Instant::now() => {
                        self.tried.push((addr, io::ErrorKind::TimedOut.into()));
                    }
                    None => {
                        self.trying = Some((addr, stream, by));
                        return Ok(None);
                    }
                }
            }
            let Some(addr) = self.left.pop() else {
                return Err(LinkError::Connect(std::mem::take(&mut self.tried)));
            };
            match socket::begin(addr, options.mark) {
                Ok(stream) => self.trying = Some((addr, stream, Instant::now() + ONE_ADDRESS)),
                Err(error) => self.tried.push((addr, error)),
            }
        }
    }

    /// Adds what to wait for.
    pub(super) fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        if let Some((job, by)) = &self.looking_up {
            job.enlist(wait);
            wait.no_longer(*by);
        }
        if let Some((_, stream, by)) = &self.trying {
            wait.to_write(stream.as_fd());
            wait.no_longer(*by);
        }
    }

    /// Where the broker is: looked up, or else where it was. Whether that is known now.
    fn has_addresses(&mut self, options: &Options) -> Result<bool, LinkError> {
        let Some((job, by)) = &self.looking_up else { return Ok(true) };
        self.left = match job.outcome() {
            None if Instant::now() < *by => return Ok(false),
            Some(Ok(found)) => found,
            _ if !options.known.is_empty() => options.known.clone(),
            other => {
                let late = || Err(io::ErrorKind::TimedOut.into());
                return other.unwrap_or_else(late).map(|_| true).map_err(LinkError::Name);
            }
        };
        self.left.reverse();
        self.looking_up = None;
        Ok(true)
    }
}
