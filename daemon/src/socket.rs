//! TCP connections of the daemon's own: they carry the bypass mark, so that they never enter a network of
//! ours, and they notice a dead path in seconds.

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Time after which a connection with unacknowledged data is dead (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle time before the first probe, and time between probes; together with [`USER_TIMEOUT`] an idle
/// connection over a dead path ends within 20 seconds.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// TCP socket with the bypass mark, for connecting to `addr`.
pub fn new(addr: SocketAddr, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    self::mark(&socket, mark)?;
    tune(SockRef::from(&socket))?;
    Ok(socket)
}

/// Sets the bypass mark on a socket. Without CAP_NET_ADMIN the mark is left out: then no tunnel of ours exists either,
/// which the socket would have to avoid.
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

/// Connects to `addr` by TCP, with the bypass mark; blocks for at most `timeout`.
pub fn connect(addr: SocketAddr, mark: u32, timeout: Duration) -> io::Result<TcpStream> {
    let socket = new(addr, mark)?;
    socket.connect_timeout(&SockAddr::from(addr), timeout)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connection_has_mark_and_keepalive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect(listener.local_addr().unwrap(), 0x0100_0000, Duration::from_secs(1)).unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.mark().unwrap(), 0x0100_0000);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert!(socket.keepalive().unwrap());
    }
}
