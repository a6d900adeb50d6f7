//! Raw bytes on the wire, which a proper client never sends.

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
    body.extend(text(client_id));
    packet(0x10, &body)
}

/// CONNECT of a clean session with a will of QoS 1.
pub fn connect_with_will(client_id: &str, topic: &str, message: &str) -> Vec<u8> {
    const WILL_QOS_1: u8 = 0x0c;
    let mut body = connect(V3_1_1, CLEAN | WILL_QOS_1, 60, client_id).split_off(2);
    body.extend([text(topic), text(message)].concat());
    packet(0x10, &body)
}

/// PUBLISH of QoS 1.
pub fn publish(id: u8, topic: &str, payload: &str) -> Vec<u8> {
    packet(0x32, &[&text(topic)[..], &[0, id], payload.as_bytes()].concat())
}

/// SUBSCRIBE of QoS 0.
pub fn subscribe(filter: &str) -> Vec<u8> {
    packet(0x82, &[&[0, 1][..], &text(filter), &[0]].concat())
}

/// DISCONNECT.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

fn text(text: &str) -> Vec<u8> {
    [&[0, text.len() as u8], text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128, "one byte of length is enough here");
    [&[kind, body.len() as u8], body].concat()
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
