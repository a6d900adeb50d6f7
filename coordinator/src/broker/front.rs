//! Network side of the broker: TLS, and one link to the engine for each connection.
//!
//! The engine speaks plain MQTT on a loopback port of its own. A link is a connection to that port, made here
//! for a router whose certificate was verified. It is registered by its source address before its first byte:
//! so the engine can look up its owner, and refuses anybody else who finds the port. (The TLS of the engine
//! itself is not used: it accepts TLS 1.2, brings a second crypto library, and can't close a connection.)

use super::{
    BrokerError,
    links::{OpenLink, Owner},
    state::BrokerState,
    tls,
};
use crate::{
    admission::{Room, Rooms, Stage, WhenFull},
    listen::{Connection, Listener},
};
use rustls::ServerConfig;
use std::{future::pending, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt, copy, split},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Receive buffer of a link. It bounds what the kernel buffers for a router that doesn't read.
const LINK_BUFFER: u32 = 64 * 1024;
/// Time for either side to finish after the other has closed.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Room for connections without a verified certificate. After the coordinator's restart all routers connect at once, those of
/// a site from one address; each needs a fraction of a second.
const HANDSHAKES: Room = Room { total: 1024, per_source: 256, when_full: WhenFull::CloseOldest };

/// Binds the listener of the broker. Connections with a verified certificate have no shares: [`super::Limits::links_per_node`]
/// bounds each node's.
pub(super) fn bind(addr: SocketAddr, connections: usize) -> io::Result<Listener> {
    let routers = Room { total: connections, per_source: connections, when_full: WhenFull::Refuse };
    let rooms = Rooms { handshake: HANDSHAKES, anonymous: HANDSHAKES, authenticated: routers };
    Listener::bind("MQTT", addr, rooms, None)
}

/// Checks that the engine's port on the loopback interface can be reached. It is down in a new network namespace.
pub(super) async fn probe(engine: SocketAddr) -> Result<(), BrokerError> {
    TcpStream::connect(engine).await.map(drop).map_err(BrokerError::Loopback)
}

/// Accepts connections of routers until the future is dropped; they end with it.
pub(super) async fn accept(
    listener: Listener,
    tls: Arc<ServerConfig>,
    engine: SocketAddr,
    state: Arc<BrokerState>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let refused = || state.count(|counters| counters.refused_connects += 1);
        let connection = listener.accept(refused).await;
        while connections.try_join_next().is_some() {}
        let (acceptor, state) = (acceptor.clone(), state.clone());
        connections.spawn(async move {
            let (peer, permit) = (connection.peer(), connection.permit());
            let served = tokio::select! {
                () = permit.closed() => Err(io::Error::other("closed to make room for others")),
                served = serve(connection, acceptor, engine, &state) => served,
            };
            if let Err(e) = served {
                if !permit.is_closed() {
                    tracing::info!(service = "MQTT", from = %peer.ip(), "connection refused: {e}");
                }
                state.count(|counters| counters.refused_connects += 1);
            }
        });
    }
}

/// Serves one connection of a router from the TLS handshake to its end. An error means that it was never linked.
async fn serve(
    connection: Connection,
    acceptor: TlsAcceptor,
    engine: SocketAddr,
    state: &BrokerState,
) -> io::Result<()> {
    let (peer, permit) = (connection.peer(), connection.permit());
    let handshake = timeout(state.limits.connect_timeout, acceptor.accept(connection)).await;
    let stream = handshake.map_err(|_| io::Error::other("no TLS handshake in time"))??;
    let chain = stream.get_ref().1.peer_certificates();
    let node =
        tls::common_name(chain).ok_or_else(|| io::Error::other("the certificate's common name is no id"))?;
    let owner = Owner { node, peer, identity: tls::identity(chain) };
    permit.rise_to(Stage::Authenticated).map_err(io::Error::other)?;

    let link = TcpSocket::new_v4()?;
    link.set_recv_buffer_size(LINK_BUFFER)?;
    let link = link.connect(engine).await?;
    link.set_nodelay(true)?;
    let at = link.local_addr()?;
    let closed = state.links.add(at, owner);
    let closed = closed.ok_or_else(|| io::Error::other("the node has too many connections"))?;
    let open = OpenLink { links: &state.links, at };
    relay(stream, link, closed, &open, state.limits.connect_timeout).await;
    Ok(())
}

/// Relays bytes between a router and the engine until either side ends, the link is closed, or no session was accepted
/// in time.
async fn relay(
    stream: TlsStream<Connection>,
    link: TcpStream,
    closed: oneshot::Receiver<()>,
    open: &OpenLink<'_>,
    session_timeout: Duration,
) {
    let (mut from_router, mut to_router) = split(stream);
    let (mut from_engine, mut to_engine) = link.into_split();
    let mut up = pin!(async {
        let _ = copy(&mut from_router, &mut to_engine).await;
        let _ = to_engine.shutdown().await;
    });
    let mut down = pin!(async {
        let _ = copy(&mut from_engine, &mut to_router).await;
        let _ = timeout(DRAIN_TIME, to_router.shutdown()).await;
    });
    let idle = async {
        sleep(session_timeout).await;
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
    // The engine may drop what the router sent last, such as the DISCONNECT that withdraws its will, if
    // nobody reads its own answers until then.
    let _ = timeout(DRAIN_TIME, down).await;
}
