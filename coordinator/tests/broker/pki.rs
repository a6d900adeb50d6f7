//! CA, certificate of the broker, and valid and invalid client certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rumqttc::{TlsConfiguration, Transport};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use std::{fs, path::PathBuf, sync::Arc};
use tempfile::TempDir;

pub struct Pki {
    folder: TempDir,
    ca: Authority,
}

/// A certificate with its key, as a client holds it.
pub struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Pki {
    pub fn new() -> Self {
        let pki = Self { folder: tempfile::tempdir().unwrap(), ca: Authority::new() };
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (cert, key) = pki.ca.sign(params);
        fs::write(pki.path("ca.pem"), &pki.ca.pem).unwrap();
        fs::write(pki.path("server.pem"), cert).unwrap();
        fs::write(pki.path("server.key"), key).unwrap();
        pki
    }

    /// Paths of the broker's certificate, its key, and the CA of clients.
    pub fn server(&self) -> (PathBuf, PathBuf, PathBuf) {
        (self.path("server.pem"), self.path("server.key"), self.path("ca.pem"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// TLS as node `name` does it.
    pub fn client(&self, name: &str) -> Transport {
        transport(self.tls(Some(self.ca.client(&[name])), &TLS13))
    }

    /// TLS of a client with these common names in its certificate.
    pub fn named(&self, names: &[&str]) -> Transport {
        transport(self.tls(Some(self.ca.client(names)), &TLS13))
    }

    /// TLS of a client whose certificate says `name`, but by a CA of its own.
    pub fn forged(&self, name: &str) -> Transport {
        transport(self.tls(Some(Authority::new().client(&[name])), &TLS13))
    }

    /// TLS of a client without a certificate.
    pub fn anonymous(&self) -> Transport {
        transport(self.tls(None, &TLS13))
    }

    /// TLS configuration of a raw connection.
    pub fn config(&self, name: &str, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        self.tls(Some(self.ca.client(&[name])), version)
    }

    fn tls(&self, leaf: Option<Leaf>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match leaf {
            Some(leaf) => builder.with_client_auth_cert(leaf.chain, leaf.key).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = named(&["a CA"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn client(&self, names: &[&str]) -> Leaf {
        let mut params = named(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (cert, key) = self.sign(params);
        Leaf {
            chain: vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        }
    }

    fn sign(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn named(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (at, name) in names.iter().enumerate() {
        // The second goes in under another type of the same meaning: rcgen keeps one of each.
        let kind = if at == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
        params.distinguished_name.push(kind, *name);
    }
    params
}

fn transport(config: Arc<ClientConfig>) -> Transport {
    Transport::Tls(TlsConfiguration::Rustls(config))
}
