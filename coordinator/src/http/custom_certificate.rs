//! Custom certificate of the admin, for browsers. It has a port of its own: routers that join pin the
//! coordinator's CA and need its certificate, whatever name they use. The files are read again when they
//! change, as they do with each renewal.

use super::tls::{HttpsError, TLS13};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

/// Custom certificate of the API: the paths of its chain and its key (PEM).
#[derive(Debug, Clone)]
pub struct CustomCertificate {
    /// Certificate chain, the server's certificate first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Creates the TLS configuration of a custom certificate, whose files are checked for changes at each handshake.
pub(super) fn tls_config(certificate: CustomCertificate) -> Result<ServerConfig, HttpsError> {
    let provider = Arc::new(default_provider());
    let current = (certificate.changed(), Arc::new(certificate.load(&provider)?));
    let resolver =
        ReloadingResolver { certificate, provider: provider.clone(), current: Mutex::new(current) };
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(TLS13);
    let config = config.expect("ring has TLS 1.3").with_no_client_auth();
    Ok(config.with_cert_resolver(Arc::new(resolver)))
}

impl CustomCertificate {
    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, HttpsError> {
        let fault =
            |path: &Path, why: &dyn ToString| HttpsError::File { path: path.into(), why: why.to_string() };
        let chain = CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect);
        let chain = chain.map_err(|error| fault(&self.cert, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| fault(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| fault(&self.cert, &error))
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
        let when = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        [when(&self.cert), when(&self.key)]
    }
}

#[derive(Debug)]
struct ReloadingResolver {
    certificate: CustomCertificate,
    provider: Arc<CryptoProvider>,
    current: Mutex<([Option<SystemTime>; 2], Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for ReloadingResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().expect("no holder of this lock panics");
        let changed = self.certificate.changed();
        if changed != current.0 {
            current.0 = changed;
            match self.certificate.load(&self.provider) {
                Ok(renewed) => {
                    tracing::info!("loaded the renewed certificate");
                    current.1 = Arc::new(renewed);
                }
                // Mostly because only one of the two files is written yet.
                Err(error) => tracing::warn!("keeps the old certificate: {error}"),
            }
        }
        Some(current.1.clone())
    }
}
