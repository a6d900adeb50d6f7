//! Sockets that listen for both address families, as `[::]` does on Linux unless `net.ipv6.bindv6only` is
//! set, and their connections. A listener accepts at once, whatever its callers do: see [`crate::admission`].

use crate::admission::{Admission, Permit, Rooms, Source, Stage};
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::{unconstrained, yield_now},
    time::sleep,
};

/// Send buffer of a connection in the kernel, in bytes (it doubles them). Otherwise it grows to megabytes for a peer that
/// reads nothing.
const SEND_BUFFER: u32 = 128 * 1024;
/// Receive buffer of a connection in the kernel, in bytes (it doubles them).
const RECEIVE_BUFFER: u32 = 64 * 1024;
/// Connections that the kernel holds ready until they are accepted; it cuts this to `net.core.somaxconn`. When it is
/// full, the kernel drops what sound callers send first, and they try again only after a second.
const BACKLOG: u32 = 4096;
/// Pause after a failed accept, mostly for want of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// TCP listener that admits connections.
pub struct Listener {
    socket: TcpListener,
    admission: Arc<Admission>,
}

impl Listener {
    /// Binds a listener to an address. `[::]` means every address, also on a machine without IPv6. With a write timeout
    /// the kernel ends a connection whose peer takes no byte of what is sent for that long: it is gone, or reads nothing.
    pub fn bind(
        service: &'static str,
        addr: SocketAddr,
        rooms: Rooms,
        write_timeout: Option<Duration>,
    ) -> io::Result<Self> {
        let socket = match bound(addr, write_timeout) {
            Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
                bound((Ipv4Addr::UNSPECIFIED, addr.port()).into(), write_timeout)
            }
            bound => bound,
        }?;
        Ok(Self { socket, admission: Admission::new(service, rooms) })
    }

    /// Address that the listener is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts the next connection that there is room for. Others are closed at once; `refused` is told.
    pub async fn accept(&self, refused: impl Fn()) -> Connection {
        loop {
            while self.admission.is_behind() {
                yield_now().await;
            }
            // Without pauses for other tasks: these may be thousands of handshakes, while the backlog overflows.
            let (stream, peer) = match unconstrained(self.socket.accept()).await {
                Ok((stream, peer)) => (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())),
                Err(error) => {
                    tracing::warn!("can't accept a connection: {error}");
                    self.admission.close_one();
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.admission.admit(Source::of(peer.ip()), Stage::Handshake) {
                Ok(permit) => return Connection::new(stream, peer, permit),
                Err(error) => {
                    tracing::warn!(from = %peer.ip(), "connection refused: {error}");
                    refused();
                }
            }
        }
    }
}

fn bound(addr: SocketAddr, write_timeout: Option<Duration>) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // All of these pass to each connection.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if let Some(timeout) = write_timeout {
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&socket, TcpUserTimeout, &millis)?;
    }
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Accepted TCP connection. If it has to make room, it is reset, so that the kernel does not go on to offer a peer that
/// reads nothing what was not sent yet.
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    permit: Arc<Permit>,
    outflow: Arc<Outflow>,
}

impl Connection {
    fn new(stream: TcpStream, peer: SocketAddr, permit: Permit) -> Self {
        // Fails only if the peer is gone already.
        let _ = stream.set_nodelay(true);
        Self { stream, peer, permit: permit.into(), outflow: Arc::default() }
    }

    /// Address of the peer; one of IPv4 over an IPv6 socket is an IPv4 address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Permit of the connection.
    pub fn permit(&self) -> Arc<Permit> {
        self.permit.clone()
    }

    /// Flow of what is sent.
    pub fn outflow(&self) -> Arc<Outflow> {
        self.outflow.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.permit.is_closed() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Flow of what is sent on a connection: it is blocked while the kernel's buffer is full, because the peer doesn't read.
#[derive(Debug, Default)]
pub struct Outflow {
    blocked: AtomicBool,
    unblocked: Notify,
}

impl Outflow {
    /// Waits until the kernel has taken what was sent so far.
    pub async fn unblocked(&self) {
        loop {
            let unblocked = self.unblocked.notified();
            if !self.blocked.load(Ordering::Acquire) {
                return;
            }
            unblocked.await;
        }
    }

    fn saw<T>(&self, written: Poll<T>) -> Poll<T> {
        self.blocked.store(written.is_pending(), Ordering::Release);
        if written.is_ready() {
            self.unblocked.notify_waiters();
        }
        written
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.outflow.saw(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.outflow.saw(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Room, WhenFull};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    const ROOM: Room = Room { total: 4, per_source: 2, when_full: WhenFull::CloseOldest };
    const ROOMS: Rooms = Rooms { handshake: ROOM, anonymous: ROOM, authenticated: ROOM };
    const PATIENCE: Duration = Duration::from_secs(20);

    fn listener(addr: &str, write_timeout: Option<Duration>) -> Listener {
        Listener::bind("test", addr.parse().unwrap(), ROOMS, write_timeout).unwrap()
    }

    /// Connects from an address that is no proxy's.
    async fn connected(listener: &Listener) -> (TcpStream, Connection) {
        let client = TcpSocket::new_v4().unwrap();
        client.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept(|| ()).await)
    }

    /// Writes until the kernel takes no more.
    async fn fill(connection: &mut Connection) {
        while timeout(Duration::from_millis(200), connection.write_all(&[0; 4096])).await.is_ok() {}
    }

    #[tokio::test]
    async fn socket_on_unspecified_address_accepts_both_families() {
        let listener = listener("[::]:0", None);
        let port = listener.local_addr().unwrap().port();
        for from in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((from, port)).await.unwrap();
            assert_eq!(listener.accept(|| ()).await.peer(), client.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn peer_that_reads_nothing_is_cut_off_after_the_write_timeout() {
        let listener = listener("127.0.0.1:0", Some(Duration::from_secs(1)));
        let (_client, mut connection) = connected(&listener).await;
        let written = async { while connection.write_all(&[0; 4096]).await.is_ok() {} };
        timeout(PATIENCE, written).await.expect("writing fails in the end");
    }

    #[tokio::test]
    async fn idle_peer_is_not_cut_off_by_the_write_timeout() {
        let listener = listener("127.0.0.1:0", Some(Duration::from_millis(100)));
        let (mut client, mut connection) = connected(&listener).await;
        for _ in 0..3 {
            sleep(Duration::from_millis(300)).await;
            connection.write_all(b"event").await.unwrap();
            timeout(PATIENCE, client.read_exact(&mut [0; 5])).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn outflow_is_blocked_until_the_peer_reads() {
        let listener = listener("127.0.0.1:0", None);
        let (mut client, mut connection) = connected(&listener).await;
        let outflow = connection.outflow();
        outflow.unblocked().await;
        fill(&mut connection).await;
        assert!(timeout(Duration::from_millis(100), outflow.unblocked()).await.is_err());
        let reader = tokio::spawn(async move { tokio::io::copy(&mut client, &mut tokio::io::sink()).await });
        timeout(PATIENCE, connection.write_all(&[0])).await.unwrap().unwrap();
        timeout(PATIENCE, outflow.unblocked()).await.unwrap();
        reader.abort();
    }

    #[tokio::test]
    async fn connection_that_makes_room_is_reset_with_all_that_is_unsent() {
        let listener = listener("127.0.0.1:0", None);
        let (mut client, mut connection) = connected(&listener).await;
        let _others = [connected(&listener).await, connected(&listener).await];
        timeout(PATIENCE, connection.permit().closed()).await.expect("it is closed");
        fill(&mut connection).await;
        drop(connection);
        let mut rest = Vec::new();
        let error = timeout(PATIENCE, client.read_to_end(&mut rest)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
