//! TCP connections of the daemon's own: they carry the bypass mark, so that they never enter a network of
//! ours, and they notice a dead path in seconds.

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// At most so many addresses of a host are tried.
pub const MAX_ADDRESSES: usize = 4;
/// Sent but unacknowledged for so long, a connection is dead (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle time before the first probe, and time between probes; together with [`USER_TIMEOUT`] an idle
/// connection over a dead path ends within 20 seconds.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A TCP socket for connecting to `addr`, marked.
pub fn new(addr: SocketAddr, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    self::mark(&socket, mark)?;
    tune(SockRef::from(&socket))?;
    Ok(socket)
}

/// Marks a socket. The mark is left out where the process may not set one (no CAP_NET_ADMIN): then there is no tunnel of
/// ours to keep out of either.
pub fn mark(socket: &Socket, mark: u32) -> io::Result<()> {
    match socket.set_mark(mark) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

fn tune(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(3),
    )
}

/// Connects, blocking for at most `timeout`.
pub fn connect(addr: SocketAddr, mark: u32, timeout: Duration) -> io::Result<TcpStream> {
    let socket = new(addr, mark)?;
    socket.connect_timeout(&SockAddr::from(addr), timeout)?;
    Ok(socket.into())
}

/// `host:port` or `[v6]:port` as its two parts, without brackets; `None` when it is neither.
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!bare.is_empty()).then_some((bare, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, parts) in [
            ("gw.example:8883", Some(("gw.example", 8883))),
            ("192.0.2.1:1", Some(("192.0.2.1", 1))),
            ("[2001:db8::1]:8883", Some(("2001:db8::1", 8883))),
            ("2001:db8::1", None),
            ("2001:db8::1:8883", None),
            ("gw.example", None),
            ("gw.example:0", None),
            ("gw.example:65536", None),
            (":1", None),
            ("[]:1", None),
            ("[::1:1", None),
            ("", None),
        ] {
            assert_eq!(split_host_port(text), parts, "{text}");
        }
    }

    #[test]
    fn a_connection_carries_the_mark_and_notices_a_dead_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect(listener.local_addr().unwrap(), 0x0100_0000, Duration::from_secs(1)).unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.mark().unwrap(), 0x0100_0000);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert!(socket.keepalive().unwrap());
    }
}
