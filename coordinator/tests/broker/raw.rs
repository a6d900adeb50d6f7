//! Bytes on the wire, for what a proper client never sends.

use crate::{Bed, within};
use rustls::{SupportedProtocolVersion, pki_types::ServerName};
use std::io;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// MQTT protocol levels.
pub const V3_1_1: u8 = 4;
pub const V5: u8 = 5;
/// CONNECT flags.
pub const CLEAN: u8 = 0x02;

pub async fn tls(
    bed: &Bed,
    node: &str,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(bed.broker.local_addr()).await?;
    let name = ServerName::from(bed.broker.local_addr().ip());
    TlsConnector::from(bed.pki.config(node, version)).connect(name, stream).await
}

/// CONNECT with nothing but a client id.
pub fn connect(level: u8, flags: u8, keepalive: u8, client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, keepalive];
    if level == V5 {
        body.push(0);
    }
    body.extend([0, client_id.len() as u8]);
    body.extend(client_id.as_bytes());
    [vec![0x10, body.len() as u8], body].concat()
}

/// The return code of the CONNACK that answers, None if the connection ends instead.
pub async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), packet: &[u8]) -> Option<u8> {
    let connack = answer_of(stream, packet, 4).await?;
    (connack[0] == 0x20).then_some(connack[3])
}

/// The first `len` bytes that answer, None if the connection ends instead.
pub async fn answer_of(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    packet: &[u8],
    len: usize,
) -> Option<Vec<u8>> {
    stream.write_all(packet).await.ok()?;
    let mut answer = vec![0; len];
    within("an answer", stream.read_exact(&mut answer)).await.ok()?;
    Some(answer)
}

/// Returns once the other side has closed.
pub async fn end(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = vec![];
    let _ = within("the connection to end", stream.read_to_end(&mut rest)).await;
}
