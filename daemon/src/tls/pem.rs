//! Certificates as text (RFC 7468).

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;

/// Certificates of a PEM text, which may contain other lines between them; `None` when one is damaged.
pub fn certificates(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    let mut all = Vec::new();
    for part in text.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let (body, _) = part.split_once("-----END CERTIFICATE-----")?;
        let body: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        all.push(BASE64.decode(&body).ok()?.into());
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::TestCa, certificates};
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    #[test]
    fn certificates_are_read_as_by_rustls_pki_types() {
        let (one, other) = (TestCa::new().pem(), TestCa::new().pem());
        for text in [
            String::new(),
            "nothing".to_owned(),
            one.clone(),
            format!("one:\n{one}\nand another\n{other}"),
            one.replace('\n', "\r\n"),
        ] {
            let reference = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
            assert_eq!(certificates(&text), Some(reference.unwrap()), "{text}");
        }
        for damaged in [&one[..one.len() / 2], &one.replace("MII", "M-I")] {
            assert_eq!(certificates(damaged), None, "{damaged}");
        }
    }
}
