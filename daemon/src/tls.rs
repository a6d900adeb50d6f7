//! TLS 1.3 to the coordinator and its brokers, and to no one else: one CA is trusted, known by the hash in the
//! join code at first, by itself from then on. No public CA, no name service and no clock has to be right.
//!
//! Thin on purpose: one cipher (ChaCha20: routers have no AES instructions), one curve for the key exchange and the
//! server's certificates (P-256, which RFC 8446, section 9.1, bids all to know), and no RSA.

pub mod pem;

use crate::identity::Keys;
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError,
    SignatureAlgorithm, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
        ring::{cipher_suite, kx_group},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey},
};
use std::{fmt, io, sync::Arc, time::Duration};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithm};

/// Start of 2026. A clock that shows an earlier time was never set: routers have no battery for theirs.
const FLOOR: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));

/// Failure of a TLS connection: the other side is not to be trusted, or does not trust us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    /// Certificate of another CA than the pinned one.
    #[error("it is not the one this router knows: its certificate is from another CA")]
    Foreign,
    /// Certificate for another name or address.
    #[error("its certificate is for another name or address")]
    WrongName,
    /// Expired certificate.
    #[error("its certificate has expired, or this router's clock is ahead")]
    Expired,
    /// Refusal of our client certificate.
    #[error("it refuses this node's certificate: was the node removed from the network?")]
    Refused,
    /// No TLS 1.3 as this program speaks it.
    #[error("what answers there does not speak TLS 1.3 as this router does: is it the right port?")]
    Incompatible,
    /// Any other failure, in words of the TLS library.
    #[error("TLS failed: {0}")]
    Other(String),
}

impl TlsFailure {
    /// TLS failure within an error of a connection; `None` for any other error.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Self::from)
    }
}

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        use AlertDescription as Alert;
        use CertificateError as Bad;
        match error {
            Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer | Bad::BadSignature => Self::Foreign,
                Bad::NotValidForName => Self::WrongName,
                Bad::Expired => Self::Expired,
                _ => Self::Other(error.to_string()),
            },
            Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired,
            ) => Self::Refused,
            Error::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure)
            | Error::PeerIncompatible(_)
            | Error::InvalidMessage(_) => Self::Incompatible,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Error for a text in an identity that should be a certificate and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{which} is no certificate: {why}")]
pub struct BadCertificate {
    /// Name of the certificate.
    pub which: &'static str,
    /// Description of the fault.
    pub why: String,
}

/// TLS configuration for joining: trusts a server that shows a CA certificate with this SHA-256 in its chain, and a
/// certificate of that CA for the host connected to.
pub fn for_joining(ca_hash: [u8; 32]) -> Arc<ClientConfig> {
    Arc::new(finish(builder(Trust::Hash(ca_hash)).with_no_client_auth()))
}

/// TLS configuration for MQTT: trusts certificates that `ca` (PEM) signed, and shows `certificate` (PEM) for the node's
/// own key.
pub fn for_broker(ca: &str, certificate: &str, keys: &Keys) -> Result<Arc<ClientConfig>, BadCertificate> {
    let ca = certificates("the coordinator's CA", ca)?.swap_remove(0);
    anchor_from_trusted_cert(&ca).map_err(|error| bad("the coordinator's CA", error))?;
    let chain = certificates("this node's certificate", certificate)?;
    let key = NodeKey(Arc::new(keys.signer()));
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, Arc::new(key)));
    Ok(Arc::new(finish(builder(Trust::Certificate(ca)).with_client_cert_resolver(Arc::new(resolver)))))
}

fn builder(trust: Trust) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCaVerifier(trust)))
}

/// Switches the resumption of TLS sessions off, as they last for days: a cache of tickets would only cost memory.
fn finish(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

/// Parses the certificates of a PEM text; an error when there is none, or one is damaged.
fn certificates(which: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, BadCertificate> {
    match pem::certificates(pem) {
        Some(all) if all.is_empty() => Err(bad(which, "nothing in it is PEM")),
        all => all.ok_or_else(|| bad(which, "it is damaged")),
    }
}

fn bad(which: &'static str, why: impl fmt::Display) -> BadCertificate {
    BadCertificate { which, why: why.to_string() }
}

#[derive(Debug)]
enum Trust {
    /// The CA whose certificate has this SHA-256.
    Hash([u8; 32]),
    /// This CA.
    Certificate(CertificateDer<'static>),
}

/// Verifier of a server's certificate against one CA, with webpki itself, since rustls' own verifier links revocation
/// lists, which no one here has. Lets no clock that is behind stand in the way.
#[derive(Debug)]
struct PinnedCaVerifier(Trust);

impl PinnedCaVerifier {
    fn ca<'a>(&'a self, chain: &'a [CertificateDer<'_>]) -> Option<&'a CertificateDer<'a>> {
        match &self.0 {
            Trust::Certificate(ca) => Some(ca),
            Trust::Hash(hash) => chain.iter().find(|ca| digest::digest(&digest::SHA256, ca).as_ref() == hash),
        }
    }

    /// Verifies the certificate of a server, for its name, at the time `now`. A certificate that is not valid yet shows
    /// that the clock is behind: then the beginning of its validity counts as now. An attacker who waits for a
    /// certificate to begin gains nothing; a router that waits for NTP may wait for ever.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let ca = self.ca(chain).ok_or(webpki::Error::UnknownIssuer)?;
        let anchors = [anchor_from_trusted_cert(ca)?];
        let certificate = EndEntityCert::try_from(certificate)?;
        let verify = |now| {
            let usage = KeyUsage::server_auth();
            certificate.verify_for_usage(ALGORITHMS.all, &anchors, chain, now, usage, None, None).map(drop)
        };
        let mut verified = verify(now.max(FLOOR));
        for _ in 0..=chain.len() {
            match verified {
                Err(webpki::Error::CertNotValidYet { not_before, .. }) => verified = verify(not_before),
                _ => break,
            }
        }
        verified?;
        certificate.verify_is_valid_for_subject_name(name)
    }
}

/// Turns an error of webpki into the one that rustls reports to the other side, and [`TlsFailure`] to the admin.
fn told(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    })
}

impl ServerCertVerifier for PinnedCaVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate, chain, name, now).map(|()| ServerCertVerified::assertion()).map_err(told)
    }

    /// Refuses any signature of TLS 1.2: unreachable, as that is off.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is off".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[algorithm::ECDSA_P256_SHA256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[algorithm::ECDSA_P256_SHA256])],
};

/// Cryptography for TLS, built part by part: the stock provider would link RSA and more.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
        kx_groups: vec![kx_group::SECP256R1],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: &SystemEntropy,
        key_provider: &NoOtherKeys,
    }
}

#[derive(Debug)]
struct SystemEntropy;

impl SecureRandom for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// Identity key of the node, for TLS: Ed25519, of which the coordinator made the client certificate.
#[derive(Debug, Clone)]
struct NodeKey(Arc<gatewrt_protocol::Signer>);

impl SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.signature(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Loader of keys that refuses all: the node's own key is handed over as it is, and no other is ever loaded.
#[derive(Debug)]
struct NoOtherKeys;

impl KeyProvider for NoOtherKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("no key is loaded from a file here".to_owned()))
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
