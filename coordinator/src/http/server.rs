//! HTTPS server of the API. Whatever one host does, others are answered: see [`crate::admission`].
//!
//! Memory of a connection is bounded by the buffers named here. A pipelined request is not handled before the kernel
//! has taken the answers to those before it, so that they don't pile up for a peer that reads nothing.

use super::{
    Remote,
    custom_certificate::{self, CustomCertificate},
    tls::{self, HttpsError},
};
use crate::{
    admission::{Room, Rooms, Stage, WhenFull},
    listen::{Connection, Listener, Outflow},
};
use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Timeout of the TLS handshake, and of each request's head: also the longest time without a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a connection ends whose peer takes no byte of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request in bytes, and about the most that is buffered of an answer that was not made at once.
const HTTP_BUFFER: usize = 16 * 1024;
/// Bytes of an answer that TLS buffers, besides one record.
const TLS_BUFFER: usize = 16 * 1024;
/// Room for connections without a token. A whole fleet behind one address may join at once (see
/// [`super::RateLimits`]), and a browser opens six connections: the share of an address is more than both.
const ANYONE: Room = Room { total: 512, per_source: 256, when_full: WhenFull::CloseOldest };
/// Room for connections with a token. It has no shares: they are of admins, perhaps of many behind one proxy.
const ADMINS: Room = Room { total: 512, per_source: 512, when_full: WhenFull::CloseOldest };

/// HTTPS server of the API: a bound listener with its certificate.
pub struct HttpsServer {
    listener: Listener,
    tls: TlsAcceptor,
}

impl HttpsServer {
    /// Binds the server to an address, with the certificate of the coordinator's CA. Nothing is answered before
    /// [`HttpsServer::spawn`].
    pub fn bind(addr: SocketAddr, cert: &Path, key: &Path) -> Result<Self, HttpsError> {
        Self::listen(addr, tls::config(cert, key)?)
    }

    /// Binds the server to an address, with a custom certificate.
    pub fn bind_custom(addr: SocketAddr, certificate: CustomCertificate) -> Result<Self, HttpsError> {
        Self::listen(addr, custom_certificate::tls_config(certificate)?)
    }

    fn listen(addr: SocketAddr, tls: ServerConfig) -> Result<Self, HttpsError> {
        let tls = TlsAcceptor::from(Arc::new(tls));
        let rooms = Rooms { handshake: ANYONE, anonymous: ANYONE, authenticated: ADMINS };
        let listener = Listener::bind("HTTPS", addr, rooms, Some(WRITE_TIMEOUT));
        let listener = listener.map_err(|source| HttpsError::Listen { addr, source })?;
        Ok(Self { listener, tls })
    }

    /// Address that the server listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves the API in a task until the task is aborted; its connections end with it.
    pub fn spawn(self, router: Router) -> JoinHandle<()> {
        tokio::spawn(self.accept(router))
    }

    async fn accept(self, router: Router) {
        let mut connections = JoinSet::new();
        loop {
            let connection = self.listener.accept(|| ()).await;
            while connections.try_join_next().is_some() {}
            let (tls, router) = (self.tls.clone(), router.clone());
            connections.spawn(async move {
                let permit = connection.permit();
                tokio::select! {
                    () = permit.closed() => {}
                    () = serve(connection, tls, router) => {}
                }
            });
        }
    }
}

async fn serve(connection: Connection, tls: TlsAcceptor, router: Router) {
    let (peer, permit, outflow) = (connection.peer(), connection.permit(), connection.outflow());
    let handshake = tls.accept_with(connection, |session| session.set_buffer_limit(Some(TLS_BUFFER)));
    let stream = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::info!(service = "HTTPS", from = %peer.ip(), "no TLS handshake: {error}");
        }
        Err(_) => {
            return tracing::info!(service = "HTTPS", from = %peer.ip(), "no TLS handshake in time");
        }
    };
    if let Err(error) = permit.rise_to(Stage::Anonymous) {
        return tracing::warn!(service = "HTTPS", from = %peer.ip(), "connection refused: {error}");
    }
    let prepare = move |request: &mut Request<Incoming>| {
        request.extensions_mut().insert(Remote(peer));
        request.extensions_mut().insert(permit.clone());
    };
    if let Err(error) = serve_http(stream, router, outflow, prepare).await {
        tracing::debug!(%peer, "HTTPS connection ended: {error}");
    }
}

/// Serves HTTP on a connection until it ends. `prepare` adds to each request what is known of its sender.
pub(super) async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    outflow: Arc<Outflow>,
    prepare: impl Fn(&mut Request<Incoming>),
) -> hyper::Result<()> {
    let service = service_fn(|mut request: Request<Incoming>| {
        prepare(&mut request);
        let (router, outflow) = (router.clone(), outflow.clone());
        async move {
            outflow.unblocked().await;
            router.oneshot(request).await
        }
    });
    let mut http = Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).max_buf_size(HTTP_BUFFER);
    http.serve_connection(TokioIo::new(stream), service).await
}
