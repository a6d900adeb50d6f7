//! HTTPS server of the API.

use super::{
    Remote,
    custom_certificate::{self, CustomCertificate},
    tls::{self, HttpsError},
};
use crate::listen;
use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Timeout of the TLS handshake, and of each request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number of open connections.
const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// HTTPS server of the API: a bound listener with its certificate.
pub struct HttpsServer {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl HttpsServer {
    /// Binds the server to an address, with the certificate of the coordinator's CA. Nothing is answered before
    /// [`HttpsServer::spawn`].
    pub async fn bind(addr: SocketAddr, cert: &Path, key: &Path) -> Result<Self, HttpsError> {
        Self::listen(addr, tls::config(cert, key)?).await
    }

    /// Binds the server to an address, with a custom certificate.
    pub async fn bind_custom(addr: SocketAddr, certificate: CustomCertificate) -> Result<Self, HttpsError> {
        Self::listen(addr, custom_certificate::tls_config(certificate)?).await
    }

    async fn listen(addr: SocketAddr, tls: ServerConfig) -> Result<Self, HttpsError> {
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = listen::bind(addr).await.map_err(|source| HttpsError::Listen { addr, source })?;
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
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let permit = room.clone().acquire_owned().await.expect("never closed");
            let (stream, remote) = match listen::accept(&self.listener).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("can't accept a connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (tls, router) = (self.tls.clone(), router.clone());
            connections.spawn(async move {
                let _permit = permit;
                if let Err(error) = serve(stream, remote, tls, router).await {
                    tracing::debug!(%remote, "HTTPS connection ended: {error}");
                }
            });
        }
    }
}

async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    tls: TlsAcceptor,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
    let service = TowerToHyperService::new(router.layer(axum::Extension(Remote(remote))));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    Ok(http.serve_connection(TokioIo::new(stream), service).await?)
}
