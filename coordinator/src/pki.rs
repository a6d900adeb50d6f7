//! Keys of the coordinator: the CA, which routers pin by its hash; the server certificate; client
//! certificates of nodes; the key that signs records.
//!
//! All certificates are valid from 1975 to 4096: a router does not know the date after a power cut, so dates
//! can't end trust. A client certificate is revoked by removing its node from the directory of nodes.

use crate::data_dir::{DataDir, DirError};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gatewrt_protocol::{NodeId, PublicKey, Signer};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm,
};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc};

/// File with the CA certificate, which is public.
pub const CA_CERT: &str = "ca.crt";
pub(crate) const CA_KEY: &str = "ca.key";
pub(crate) const SERVER_CERT: &str = "server.crt";
pub(crate) const SERVER_KEY: &str = "server.key";
pub(crate) const SERVER_NAMES: &str = "server.names";
pub(crate) const RECORD_KEY: &str = "record.key";
/// Files that are made once, and that routers trust from then on.
pub const TRUSTED: [&str; 3] = [CA_KEY, CA_CERT, RECORD_KEY];
/// File with the admin token, which grants all rights.
pub const ADMIN_TOKEN: &str = "admin.token";

/// Keys and certificates of the coordinator. See the module.
pub struct Pki {
    ca_pem: String,
    ca_hash: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
    signer: Arc<Signer>,
    server: (PathBuf, PathBuf),
    ca_path: PathBuf,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pki({})", self.ca_hash_text())
    }
}

impl Pki {
    /// Reads the keys of the coordinator, or creates them at the first start. A new server certificate is issued when
    /// `names` have changed.
    pub fn open(dir: &DataDir, names: &BTreeSet<String>) -> Result<Self, DirError> {
        let key = dir.read_or_make(CA_KEY, || new_key().serialize_pem())?;
        let key = KeyPair::from_pem(&key).map_err(|error| dir.damaged(CA_KEY, error))?;
        let ca_pem = dir.read_or_make(CA_CERT, || new_ca(&key))?;
        let ca_der = der(&ca_pem).ok_or_else(|| dir.damaged(CA_CERT, "not a certificate in PEM"))?;
        let ca_hash = digest::digest(&digest::SHA256, &ca_der);
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|error| dir.damaged(CA_CERT, error))?;
        let seed = dir.read_or_make(RECORD_KEY, || BASE64URL_NOPAD.encode(&random::<32>()) + "\n")?;
        let seed = decode_seed(&seed).ok_or_else(|| dir.damaged(RECORD_KEY, "not 32 bytes in base64url"))?;
        let pki = Self {
            ca_pem,
            ca_hash: ca_hash.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            issuer,
            signer: Arc::new(Signer::from_seed(&seed)),
            server: (dir.file(SERVER_CERT), dir.file(SERVER_KEY)),
            ca_path: dir.file(CA_CERT),
        };
        pki.keep_server_certificate(dir, names)?;
        Ok(pki)
    }

    /// CA certificate of the coordinator (PEM).
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Path of the coordinator's CA certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.ca_path.clone()
    }

    /// SHA-256 of the CA certificate (DER), as pinned by join codes.
    pub fn ca_hash(&self) -> [u8; 32] {
        self.ca_hash
    }

    /// SHA-256 of the CA certificate (DER), in hexadecimal.
    pub fn ca_hash_text(&self) -> String {
        HEXLOWER.encode(&self.ca_hash)
    }

    /// Signer of the coordinator's records.
    pub fn signer(&self) -> Arc<Signer> {
        self.signer.clone()
    }

    /// Paths of the server certificate and its key.
    pub fn server_files(&self) -> (PathBuf, PathBuf) {
        self.server.clone()
    }

    /// Client certificate (PEM) of a node: the common name is the node's id, the key is the node's own.
    pub fn client_certificate(&self, node: NodeId, identity: &PublicKey) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&NodeKey(*identity), &self.issuer)?.pem())
    }

    fn keep_server_certificate(&self, dir: &DataDir, names: &BTreeSet<String>) -> Result<(), DirError> {
        let wanted: String = names.iter().map(|name| format!("{name}\n")).collect();
        let whole = dir.file(SERVER_CERT).exists() && dir.file(SERVER_KEY).exists();
        if whole && dir.read(SERVER_NAMES)?.as_deref() == Some(&wanted) {
            return Ok(());
        }
        let key = new_key();
        let certificate = self.server_certificate(names, &key);
        let certificate = certificate.map_err(|error| dir.damaged(CA_KEY, error))?;
        // The names are cleared first and written last: after a crash in between, key and certificate are
        // issued again, so that a key is never used with another key's certificate.
        dir.write(SERVER_NAMES, "")?;
        dir.write(SERVER_KEY, &key.serialize_pem())?;
        // The chain includes the CA: a router that joins knows only its hash.
        dir.write(SERVER_CERT, &(certificate + &self.ca_pem))?;
        dir.write(SERVER_NAMES, &wanted)?;
        tracing::info!(?names, "issued a server certificate");
        Ok(())
    }

    fn server_certificate(&self, names: &BTreeSet<String>, key: &KeyPair) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "GateWRT coordinator");
        params.subject_alt_names = names.iter().map(|name| san(name)).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// Public key of a node, whose private half is on the router.
struct NodeKey(PublicKey);

impl PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has randomness");
    bytes
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the kernel has randomness")
}

fn new_ca(key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "GateWRT CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.self_signed(key).expect("the parameters are constants").pem()
}

fn san(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse::<IpAddr>() {
        Ok(addr) => Ok(SanType::IpAddress(addr)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

pub(crate) fn der(pem: &str) -> Option<Vec<u8>> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

pub(crate) fn decode_seed(text: &str) -> Option<[u8; 32]> {
    BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok()?.try_into().ok()
}
