//! TLS 1.3 with client certificates of the coordinator's CA.

use super::{BrokerConfig, BrokerError};
use crate::access::is_id;
use gatewrt_protocol::PublicKey;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use std::{error::Error, path::Path, sync::Arc};
use x509_parser::{oid_registry::OID_SIG_ED25519, parse_x509_certificate, prelude::X509Certificate};

/// Creates the TLS configuration of the broker, which requires client certificates of the coordinator's CA. The crypto
/// provider is explicit, as several may be linked into one process.
pub(super) fn server_config(config: &BrokerConfig) -> Result<Arc<ServerConfig>, BrokerError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&config.cert, "the broker's certificate")?;
    let key_fault = |source| unusable(&config.key, "the broker's key", source);
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|e| key_fault(e.into()))?;

    let ca_fault = |source| unusable(&config.client_ca, "the CA of client certificates", source);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.client_ca, "the CA of client certificates")? {
        roots.add(certificate).map_err(|e| ca_fault(e.into()))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| ca_fault(e.into()))?;

    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|e| key_fault(e.into()))?;
    Ok(Arc::new(server))
}

/// Node id in a verified client certificate: its only common name. `None` if there is none, more than one, or
/// it is not valid as an id.
pub(super) fn common_name(chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(chain?.first()?).ok()?;
    only_common_name(&certificate).filter(|name| is_id(name)).map(str::to_owned)
}

/// Ed25519 key of a verified client certificate: the node's identity key (RFC 8410).
pub(super) fn identity(chain: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    let (_, certificate) = parse_x509_certificate(chain?.first()?).ok()?;
    let key = certificate.public_key();
    let is_ed25519 = key.algorithm.algorithm == OID_SIG_ED25519;
    is_ed25519.then(|| key.subject_public_key.data.as_ref().try_into().ok().map(PublicKey)).flatten()
}

fn only_common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    names.next().is_none().then_some(name)
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(path, what, "there is no certificate in it".into())),
        Ok(found) => Ok(found),
        Err(e) => Err(unusable(path, what, e.into())),
    }
}

fn unusable(path: &Path, what: &'static str, source: Box<dyn Error + Send + Sync>) -> BrokerError {
    BrokerError::File { path: path.to_owned(), what, source }
}
