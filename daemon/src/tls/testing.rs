//! Certificate authority for tests, with certificates for servers and nodes.

use crate::identity::Keys;
use gatewrt_protocol::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};
use ring::digest;

/// A CA as the coordinator has one.
pub(crate) struct TestCa(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain with its key, PEM.
pub(crate) struct Certified {
    /// Leaf first, the CA last.
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        digest::digest(&digest::SHA256, self.0.der()).as_ref().try_into().expect("32 bytes")
    }

    /// A server's certificate for these names and addresses, valid in these years.
    pub(crate) fn server_in(&self, names: &[&str], years: std::ops::Range<i32>) -> Certified {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("sound names");
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Certified { chain: certificate.pem() + &self.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self, names: &[&str]) -> Certified {
        self.server_in(names, 2020..2090)
    }

    /// A node's certificate for its own key, PEM.
    pub(crate) fn node(&self, name: &str, keys: &Keys) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&NodeKey(keys.signer().public()), &self.0).expect("a certificate").pem()
    }
}

struct NodeKey(PublicKey);

impl PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
