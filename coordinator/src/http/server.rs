//! TLS 1.3 in front of the API.

use super::{Remote, given::GivenCert};
use crate::listen;
use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Nothing older: routers and browsers have had it for years.
pub(super) const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// For the TLS handshake, and for each request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections open at the same time.
const CONNECTIONS: usize = 1024;
/// Pause after a failed accept (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why HTTPS can't be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The address is taken or not ours.
    #[error("can't listen for HTTPS on {addr}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Certificate or key can't be used.
    #[error("can't use {} for HTTPS: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A bound listener with its certificate.
pub struct HttpsServer {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl HttpsServer {
    /// Takes the address; nothing is answered before [`HttpsServer::spawn`].
    pub async fn bind(addr: SocketAddr, cert: &Path, key: &Path) -> Result<Self, HttpsError> {
        Self::listen(addr, tls_config(cert, key)?).await
    }

    /// The same with a certificate that the admin brings.
    pub async fn bind_given(addr: SocketAddr, given: GivenCert) -> Result<Self, HttpsError> {
        Self::listen(addr, super::given::tls_config(given)?).await
    }

    async fn listen(addr: SocketAddr, tls: ServerConfig) -> Result<Self, HttpsError> {
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = listen::bind(addr).await.map_err(|source| HttpsError::Listen { addr, source })?;
        Ok(Self { listener, tls })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the task is aborted; its connections end with it.
    pub fn spawn(self, router: Router) -> JoinHandle<()> {
        tokio::spawn(self.accept(router))
    }

    async fn accept(self, router: Router) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
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
    let stream = timeout(PATIENCE, tls.accept(stream)).await??;
    let service = TowerToHyperService::new(router.layer(axum::Extension(Remote(remote))));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    Ok(http.serve_connection(TokioIo::new(stream), service).await?)
}

fn tls_config(cert: &Path, key: &Path) -> Result<ServerConfig, HttpsError> {
    let fault =
        |path: &Path, why: &dyn ToString| HttpsError::File { path: path.into(), why: why.to_string() };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| fault(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(TLS13);
    let config = config.expect("ring has TLS 1.3").with_no_client_auth();
    config.with_single_cert(chain, private).map_err(|error| fault(cert, &error))
}
