//! Servers on the Internet that answer with the source address they saw: over HTTP ([`Whoami`]), to a UDP packet, and
//! to any DNS query.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;
use super::web::Whoami;

/// UDP port that sends a packet back with its sender's address appended.
pub(crate) const ECHO: u16 = 7;
/// Port that answers DNS queries over UDP; over TCP a [`Whoami`] listens on it.
pub(crate) const DNS: u16 = 53;
/// Time a server waits for a packet before it checks the stop flag again.
const LOOK_UP: Duration = Duration::from_millis(50);
/// Length of a DNS header in bytes; the name that is asked for comes after it.
const HEAD: usize = 12;

/// All of these servers on one host; they stop when this value is dropped. After a reboot of the host, start new ones.
pub struct Answers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _web: [Whoami; 2],
}

impl Answers {
    /// Starts the servers, for IPv4 and IPv6.
    pub fn start(on: &Host) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let serve = |port: u16, answer: fn(&[u8], IpAddr) -> Option<Vec<u8>>| -> Result<JoinHandle<()>> {
            let socket = on.in_netns(|| UdpSocket::bind(("::", port)))?;
            let socket = socket.with_context(|| format!("on {}: UDP port {port}", on.name()))?;
            socket.set_read_timeout(Some(LOOK_UP))?;
            let stop = stop.clone();
            Ok(std::thread::spawn(move || answer_all(&socket, answer, &stop)))
        };
        let threads = vec![serve(ECHO, with_source)?, serve(DNS, dns_answer)?];
        Ok(Self { stop, threads, _web: [Whoami::start(on)?, Whoami::start_on(on, DNS)?] })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn answer_all(socket: &UdpSocket, answer: fn(&[u8], IpAddr) -> Option<Vec<u8>>, stop: &AtomicBool) {
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, source)) = socket.recv_from(&mut packet) else { continue };
        if let Some(answer) = answer(&packet[..length], source.ip().to_canonical()) {
            let _ = socket.send_to(&answer, source);
        }
    }
}

fn with_source(packet: &[u8], source: IpAddr) -> Option<Vec<u8>> {
    Some([packet, source.to_string().as_bytes()].concat())
}

/// DNS query for the A or AAAA record of `probe.example` (RFC 1035, 4.1).
pub(crate) fn dns_query(id: u16, is_ipv6: bool) -> Vec<u8> {
    let head = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    let name = b"\x05probe\x07example\0";
    let kind = [if is_ipv6 { 28_u16 } else { 1 }, 1].map(u16::to_be_bytes).concat();
    [head.as_slice(), name, &kind].concat()
}

/// Source address that the answer to [`dns_query`] reports; none if it answers another query.
pub(crate) fn dns_source(answer: &[u8], id: u16) -> Option<IpAddr> {
    let count = u16::from_be_bytes(*answer.get(6..)?.first_chunk()?);
    if answer.first_chunk() != Some(&id.to_be_bytes()) || count != 1 {
        return None;
    }
    let at = answer.len().checked_sub(16)?;
    let length_of_ipv6 = answer.get(at - 2..at).is_some_and(|length| length == [0, 16]);
    if length_of_ipv6 {
        return Some(Ipv6Addr::from(*answer.last_chunk::<16>()?).into());
    }
    Some(Ipv4Addr::from(*answer.last_chunk::<4>()?).into())
}

fn dns_answer(query: &[u8], source: IpAddr) -> Option<Vec<u8>> {
    let head = query.first_chunk::<HEAD>()?;
    let (kind, data) = match source {
        IpAddr::V4(v4) => (1_u16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (28, v6.octets().to_vec()),
    };
    let length = u16::try_from(data.len()).ok()?;
    let record = [0xc00c, kind, 1, 0, 0, length].map(u16::to_be_bytes).concat();
    let answered = [&head[..2], b"\x81\x80\0\x01\0\x01\0\0\0\0", &query[HEAD..], &record, &data];
    Some(answered.concat())
}

/// Socket address of a server.
pub(crate) fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_with_who_asked() {
        for source in ["192.0.2.7", "2001:db8::7"] {
            let source: IpAddr = source.parse().unwrap();
            let answer = dns_answer(&dns_query(77, source.is_ipv6()), source).unwrap();
            assert_eq!(dns_source(&answer, 77), Some(source));
            assert_eq!(dns_source(&answer, 78), None, "the answer to another query");
        }
    }
}
