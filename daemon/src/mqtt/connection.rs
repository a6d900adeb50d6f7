//! Connecting: from a broker's address to a connection on which it has accepted the node.

use super::{
    LinkError, Options,
    inbox::{Inbox, Incoming},
    session,
};
use crate::{dns, model, socket, task, tls::TlsFailure};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Time for one address, where the host has several.
const ONE_ADDRESS: Duration = Duration::from_secs(4);

/// Time to look a name up: half of an attempt's.
const LOOK_UP: Duration = Duration::from_secs(5);

/// TLS connection to a broker, with the bytes already read from it.
pub(super) struct Connection {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) inbox: Inbox,
}

/// Connects to a broker, and waits for it to accept the node.
pub(super) async fn open(options: &Options) -> Result<Connection, LinkError> {
    let no_address = || LinkError::Address(options.broker.clone());
    let (host, port) = model::split_host_port(&options.broker).ok_or_else(no_address)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| no_address())?;
    let tcp = connect_any(&addresses(host, port, options).await?, options.mark).await?;
    let mut stream = TlsConnector::from(options.tls.clone()).connect(name, tcp).await?;
    let mut hello = BytesMut::new();
    session::connect(options)
        .write(&mut hello, usize::MAX)
        .map_err(|error| LinkError::Protocol(error.to_string()))?;
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let mut inbox = Inbox::default();
    session::consent(first_packet(&mut stream, &mut inbox).await?)?;
    Ok(Connection { stream, inbox })
}

/// Addresses of a broker: looked up, else the last known.
async fn addresses(host: &str, port: u16, options: &Options) -> Result<Vec<SocketAddr>, LinkError> {
    let found = time::timeout(LOOK_UP, resolve(host, port, options.mark)).await;
    let found = found.unwrap_or_else(|_| Err(LinkError::Name(io::ErrorKind::TimedOut.into())));
    match found {
        Err(LinkError::Name(_)) if !options.known.is_empty() => Ok(options.known.clone()),
        found => found,
    }
}

/// Resolves the name of a broker at each connection, in a thread for blocking jobs; an address needs no resolver.
async fn resolve(host: &str, port: u16, mark: u32) -> Result<Vec<SocketAddr>, LinkError> {
    if let Ok(addr) = host.parse() {
        return Ok(vec![SocketAddr::new(addr, port)]);
    }
    let host = host.to_owned();
    let looked_up = task::block(move || dns::resolve(&host, port, mark)).await;
    looked_up.ok_or(LinkError::Left)?.map_err(LinkError::Name)
}

async fn connect_any(addrs: &[SocketAddr], mark: u32) -> Result<TcpStream, LinkError> {
    let mut tried = Vec::new();
    for addr in addrs {
        match time::timeout(ONE_ADDRESS, connect(*addr, mark)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => tried.push((*addr, error)),
            Err(_) => tried.push((*addr, io::ErrorKind::TimedOut.into())),
        }
    }
    Err(LinkError::Connect(tried))
}

async fn connect(addr: SocketAddr, mark: u32) -> io::Result<TcpStream> {
    let socket = socket::new(addr, mark)?;
    socket.set_nonblocking(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(addr).await
}

async fn first_packet(
    stream: &mut TlsStream<TcpStream>,
    inbox: &mut Inbox,
) -> Result<rumqttc::Packet, LinkError> {
    loop {
        match inbox.take().map_err(|error| LinkError::Protocol(error.to_string()))? {
            Some(Incoming::Packet(packet)) => return Ok(packet),
            Some(Incoming::TooLong { .. }) => {
                return Err(LinkError::Protocol("its first packet is too long".to_owned()));
            }
            None if stream.read_buf(&mut inbox.buffer).await? == 0 => return Err(LinkError::Closed),
            None => {}
        }
    }
}

impl From<&rustls::Error> for LinkError {
    fn from(error: &rustls::Error) -> Self {
        Self::Tls(TlsFailure::from(error))
    }
}
