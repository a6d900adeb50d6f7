//! A certificate that the admin brings, for browsers: on a port of its own, since routers that join pin our CA
//! and have to be shown its certificate, under whatever name they come. Read again when the files change, as
//! they do with each renewal.

use super::server::{HttpsError, TLS13};
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

/// Where the certificate with its chain, and its key, are (PEM).
#[derive(Debug, Clone)]
pub struct GivenCert {
    /// The certificate, then those that lead to a root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A server with it, which looks at the files at each handshake.
pub(super) fn tls_config(given: GivenCert) -> Result<ServerConfig, HttpsError> {
    let provider = Arc::new(default_provider());
    let current = (given.changed(), Arc::new(given.load(&provider)?));
    let shown = Shown { given, provider: provider.clone(), current: Mutex::new(current) };
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(TLS13);
    let config = config.expect("ring has TLS 1.3").with_no_client_auth();
    Ok(config.with_cert_resolver(Arc::new(shown)))
}

impl GivenCert {
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
struct Shown {
    given: GivenCert,
    provider: Arc<CryptoProvider>,
    current: Mutex<([Option<SystemTime>; 2], Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().expect("no holder of this lock panics");
        let changed = self.given.changed();
        if changed != current.0 {
            current.0 = changed;
            match self.given.load(&self.provider) {
                Ok(renewed) => {
                    tracing::info!("took in the renewed certificate");
                    current.1 = Arc::new(renewed);
                }
                // Between the writing of one file and the other, as a rule.
                Err(error) => tracing::warn!("goes on with the certificate it has: {error}"),
            }
        }
        Some(current.1.clone())
    }
}
