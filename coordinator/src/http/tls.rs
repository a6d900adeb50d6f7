//! TLS of the HTTPS API: configuration with the coordinator's own certificate, and errors of HTTPS.

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Only TLS version that is accepted: routers and browsers have supported it for years.
pub(super) const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Error of starting the HTTPS server.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The address can't be listened on.
    #[error("can't listen for HTTPS on {addr}")]
    Listen {
        /// Address that can't be listened on.
        addr: SocketAddr,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The certificate or key can't be used.
    #[error("can't use {} for HTTPS: {why}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Reason why the file can't be used.
        why: String,
    },
}

/// Creates the TLS configuration of the HTTPS server with a certificate chain and its key (PEM).
pub(super) fn config(cert: &Path, key: &Path) -> Result<ServerConfig, HttpsError> {
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
