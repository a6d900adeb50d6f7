//! Test of the admin's custom certificate.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{Router, chain_of},
};
use std::path::Path;

/// Writes a new certificate for this host, as a renewal does. Returns it.
fn renew(host: &str, cert: &Path, key: &Path) -> String {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(cert, made.cert.pem()).unwrap();
    made.cert.pem()
}

#[test]
fn browsers_get_the_custom_certificate_and_routers_ours() {
    let mut coordinator = Coordinator::with_home();
    coordinator.terminate();
    let url = coordinator.url();
    let at = url.trim_start_matches("https://");
    let host = at.rsplit_once(':').unwrap().0;
    let given_at = format!("{host}:9443");
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let paths = [&cert, &key].map(|path| path.to_str().unwrap().to_owned());
    coordinator.options =
        ["--cert", &paths[0], "--key", &paths[1], "--cert-https", &given_at].map(str::to_owned).to_vec();
    let without = coordinator.serve().output().unwrap();
    assert_eq!(without.status.code(), Some(1));
    let said = String::from_utf8(without.stderr).unwrap();
    assert!(said.contains("cert.pem") && said.contains("for HTTPS"), "{said}");

    let first = renew(host, &cert, &key);
    coordinator.start_again();
    assert!(coordinator.banner.contains(&given_at), "{}", coordinator.banner);
    let ca = text(&coordinator.data().join("ca.crt"));
    assert_eq!(chain_of(&given_at, &first).len(), 1);
    assert_eq!(chain_of(at, &ca).len(), 2, "the port of routers shows our CA");
    Router::new(1, "office").join(&coordinator.code(&[]), &ca).unwrap();

    // A file system may keep times by the hundredth of a second.
    let renewed = eventually("another time on the files", || {
        let before = std::fs::metadata(&cert).unwrap().modified().unwrap();
        let renewed = renew(host, &cert, &key);
        (std::fs::metadata(&cert).unwrap().modified().unwrap() != before).then_some(renewed)
    });
    assert_eq!(chain_of(&given_at, &renewed).len(), 1);
    std::fs::write(&cert, "broken").unwrap();
    assert_eq!(chain_of(&given_at, &renewed).len(), 1, "a broken file changes nothing");
}
