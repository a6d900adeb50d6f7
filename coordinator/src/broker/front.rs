//! What faces the network: TLS, and one link to the engine for each connection.
//!
//! The engine speaks plain MQTT on a loopback port of its own. A link is a connection to that port that this
//! file made for a router whose certificate was verified, and it is known by its source address before its
//! first byte: so the engine can ask whose it is, and whoever else finds the port is refused. (The engine has
//! TLS of its own; it takes TLS 1.2 too, brings a second crypto library, and can't cut a connection off.)

use super::{BrokerError, state::State, tls};
use crate::listen;
use rustls::ServerConfig;
use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, copy, split},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Bounds what the kernel keeps for a router that doesn't read.
const LINK_BUFFER: u32 = 64 * 1024;
/// How long either side may take to finish once the other has gone.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause after a failed accept (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The links by the source address that the engine sees. A link that is taken out is closed at once.
pub(super) struct Links {
    per_node: usize,
    open: Mutex<BTreeMap<SocketAddr, Link>>,
}

struct Link {
    node: String,
    peer: SocketAddr,
    admitted: bool,
    /// Never sent on: its end is the signal.
    _close: oneshot::Sender<()>,
}

impl Links {
    pub(super) fn new(per_node: usize) -> Self {
        Self { per_node, open: Mutex::default() }
    }

    /// Whose link this is, and where from.
    pub(super) fn owner(&self, link: SocketAddr) -> Option<(String, SocketAddr)> {
        self.open().get(&link).map(|link| (link.node.clone(), link.peer))
    }

    /// Closes a node's links except this, which is its newest: where a router connects anew, the older
    /// connection is dead, whatever TCP thinks of it.
    pub(super) fn close_older(&self, node: &str, newest: SocketAddr) {
        self.open().retain(|at, link| link.node != node || *at == newest);
    }

    /// The engine has accepted the session on it.
    pub(super) fn admit(&self, link: SocketAddr) {
        if let Some(link) = self.open().get_mut(&link) {
            link.admitted = true;
        }
    }

    /// Closes every link of a node.
    pub(super) fn close(&self, node: &str) {
        self.open().retain(|_, link| link.node != node);
    }

    /// Closes every link.
    pub(super) fn close_all(&self) {
        self.open().clear();
    }

    /// None if the node has as many as it may.
    fn add(&self, at: SocketAddr, node: String, peer: SocketAddr) -> Option<oneshot::Receiver<()>> {
        let mut open = self.open();
        if open.values().filter(|link| link.node == node).count() >= self.per_node {
            return None;
        }
        let (close, closed) = oneshot::channel();
        open.insert(at, Link { node, peer, admitted: false, _close: close });
        Some(closed)
    }

    fn is_admitted(&self, link: SocketAddr) -> bool {
        self.open().get(&link).is_some_and(|link| link.admitted)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Link>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

/// Takes the link out before its address can belong to anyone else.
struct Open<'a> {
    links: &'a Links,
    at: SocketAddr,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.links.open().remove(&self.at);
    }
}

/// Fails where the loopback interface is down (a network namespace just made).
pub(super) async fn probe(engine: SocketAddr) -> Result<(), BrokerError> {
    TcpStream::connect(engine).await.map(drop).map_err(BrokerError::Loopback)
}

/// Accepts until it is dropped; its connections end with it.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    engine: SocketAddr,
    state: Arc<State>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(state.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listen::accept(&listener).await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("can't accept a connection: {e}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "refused: {} connections are open", state.limits.connections);
            state.count(|counters| counters.refused_connects += 1);
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), state.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(e) = serve(stream, peer, acceptor, engine, &state).await {
                tracing::debug!(%peer, "connection refused: {e}");
                state.count(|counters| counters.refused_connects += 1);
            }
        });
    }
}

/// One connection from handshake to end. An error means it was never linked.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    engine: SocketAddr,
    state: &State,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(state.limits.connect_timeout, acceptor.accept(stream)).await??;
    let name = tls::common_name(stream.get_ref().1.peer_certificates());
    let node = name.ok_or_else(|| io::Error::other("the certificate's common name is no id"))?;

    let link = TcpSocket::new_v4()?;
    link.set_recv_buffer_size(LINK_BUFFER)?;
    let link = link.connect(engine).await?;
    link.set_nodelay(true)?;
    let at = link.local_addr()?;
    let closed = state.links.add(at, node, peer);
    let closed = closed.ok_or_else(|| io::Error::other("the node has too many connections"))?;
    let open = Open { links: &state.links, at };
    relay(stream, link, closed, &open, state.limits.connect_timeout).await;
    Ok(())
}

/// Carries bytes until either side ends, somebody closes the link, or no session came of it in time.
async fn relay(
    stream: TlsStream<TcpStream>,
    link: TcpStream,
    closed: oneshot::Receiver<()>,
    open: &Open<'_>,
    patience: Duration,
) {
    let (mut from_router, mut to_router) = split(stream);
    let (mut from_engine, mut to_engine) = link.into_split();
    let mut up = pin!(async {
        let _ = copy(&mut from_router, &mut to_engine).await;
        let _ = to_engine.shutdown().await;
    });
    let mut down = pin!(async {
        let _ = copy(&mut from_engine, &mut to_router).await;
        let _ = timeout(LAST_WORDS, to_router.shutdown()).await;
    });
    let idle = async {
        sleep(patience).await;
        if open.links.is_admitted(open.at) {
            pending().await
        }
    };
    tokio::select! {
        _ = closed => return,
        () = idle => return,
        () = &mut down => return,
        () = &mut up => {}
    }
    // The engine reads what the router sent last (a DISCONNECT, which withdraws its will) only if its own
    // answers find somebody until then.
    let _ = timeout(LAST_WORDS, down).await;
}
