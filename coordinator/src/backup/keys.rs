//! Checks that the keys and certificates of a coordinator fit each other.

use crate::pki::{self, CA_CERT, CA_KEY, RECORD_KEY, SERVER_CERT, SERVER_KEY};
use data_encoding::HEXLOWER;
use gatewrt_protocol::{PublicKey, Signer};
use rcgen::{KeyPair, PublicKeyData};
use ring::digest;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::parse_x509_certificate;

/// What the keys of a coordinator are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFacts {
    /// SHA-256 of the CA certificate (DER), in hexadecimal.
    pub ca_sha256: String,
    /// Public key of its records.
    pub record_key: PublicKey,
}

/// File that does not fit, and why.
pub(super) type Misfit = (&'static str, String);

/// Checks the files that routers trust. `file` gives the text of a file.
pub(super) fn check<'a>(file: impl Fn(&str) -> Option<&'a str>) -> Result<KeyFacts, Misfit> {
    let text = |name: &'static str| file(name).ok_or_else(|| (name, "it is missing".to_owned()));
    let key = KeyPair::from_pem(text(CA_KEY)?).map_err(|error| (CA_KEY, error.to_string()))?;
    let ca = pki::der(text(CA_CERT)?).ok_or_else(|| (CA_CERT, "not a certificate in PEM".to_owned()))?;
    if !certifies(&ca, &key) {
        return Err((CA_CERT, format!("it is not of the key in {CA_KEY}")));
    }
    let seed = pki::decode_seed(text(RECORD_KEY)?);
    let seed = seed.ok_or_else(|| (RECORD_KEY, "not 32 bytes in base64url".to_owned()))?;
    Ok(KeyFacts {
        ca_sha256: HEXLOWER.encode(digest::digest(&digest::SHA256, &ca).as_ref()),
        record_key: Signer::from_seed(&seed).public(),
    })
}

/// True if server certificate and server key are one pair, issued by the CA. A coordinator issues them anew where they are
/// missing, and while it does, they are not.
pub(super) fn server_fits<'a>(file: impl Fn(&str) -> Option<&'a str>) -> bool {
    let fits = || {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(file(SERVER_CERT)?.as_bytes()).collect::<Result<_, _>>().ok()?;
        let [server, ca] = &chain[..] else { return None };
        let key = KeyPair::from_pem(file(SERVER_KEY)?).ok()?;
        Some(certifies(server, &key) && Some(ca.to_vec()) == pki::der(file(CA_CERT)?))
    };
    fits().unwrap_or(false)
}

fn certifies(certificate: &[u8], key: &KeyPair) -> bool {
    let parsed = parse_x509_certificate(certificate);
    parsed.is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}
