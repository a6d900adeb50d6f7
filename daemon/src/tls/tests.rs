use super::{testing::*, *};
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection, server::WebPkiClientVerifier};

const NODE: &str = "aaaaaaaaaaaaaaaa";

/// Outcome of a handshake in memory between a client with `config` and a server with this certificate at `name`.
fn shake(
    config: Arc<ClientConfig>,
    server: ServerConfig,
    name: &str,
) -> Result<(), (TlsFailure, &'static str)> {
    let mut client = ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        let server_error = server.process_new_packets().err();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| (TlsFailure::from(&error), "client"))?;
        if let Some(error) = server_error {
            return Err((TlsFailure::from(&error), "server"));
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(())
}

fn stock() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(stock()).with_safe_default_protocol_versions().unwrap()
}

fn chain_and_key(certified: &Certified) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = certificates("chain", &certified.chain).unwrap();
    (chain, PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap())
}

fn server(certified: &Certified) -> ServerConfig {
    let (chain, key) = chain_and_key(certified);
    server_builder().with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// A server that asks for a certificate of `ca`.
fn broker(certified: &Certified, ca: &TestCa) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificates("ca", &ca.pem()).unwrap().remove(0)).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), stock()).build().unwrap();
    let (chain, key) = chain_and_key(certified);
    server_builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
}

fn verify(trust: Trust, certified: &Certified, name: &str, seconds: u64) -> Result<(), TlsFailure> {
    let (chain, _) = chain_and_key(certified);
    let (name, now) =
        (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    let verified = PinnedCaVerifier(trust).verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
    verified.map(drop).map_err(|error| TlsFailure::from(&error))
}

#[test]
fn joining_trusts_the_ca_of_the_code_alone() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    for name in ["gw.example", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(shake(for_joining(ca.hash()), server(&ca.server(&[name])), name), Ok(()), "{name}");
    }
    let foreign = shake(for_joining(ca.hash()), server(&other.server(&["gw.example"])), "gw.example");
    assert_eq!(foreign, Err((TlsFailure::Foreign, "client")));
    let elsewhere = shake(for_joining(ca.hash()), server(&ca.server(&["gw.example"])), "192.0.2.1");
    assert_eq!(elsewhere, Err((TlsFailure::WrongName, "client")));
}

#[test]
fn foreign_certificate_beside_the_right_ca_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let mut forged = other.server(&["gw.example"]);
    forged.chain += &ca.pem();
    let trusted = shake(for_joining(ca.hash()), server(&forged), "gw.example");
    assert_eq!(trusted, Err((TlsFailure::Foreign, "client")));
}

#[test]
fn broker_and_node_authenticate_by_the_ca() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let keys = Keys::generate().unwrap();
    let config = for_broker(&ca.pem(), &ca.node(NODE, &keys), &keys).unwrap();
    assert_eq!(shake(config.clone(), broker(&ca.server(&["192.0.2.1"]), &ca), "192.0.2.1"), Ok(()));
    let foreign = shake(config, broker(&other.server(&["192.0.2.1"]), &ca), "192.0.2.1");
    assert_eq!(foreign, Err((TlsFailure::Foreign, "client")));
}

#[test]
fn refused_node_sees_the_refusal() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let keys = Keys::generate().unwrap();
    let config = for_broker(&ca.pem(), &other.node(NODE, &keys), &keys).unwrap();
    assert_eq!(shake(config, broker(&ca.server(&["gw"]), &ca), "gw"), Err((TlsFailure::Refused, "client")));
}

#[test]
fn certificate_without_its_key_is_refused() {
    let ca = TestCa::new();
    let (keys, other) = (Keys::generate().unwrap(), Keys::generate().unwrap());
    let config = for_broker(&ca.pem(), &ca.node(NODE, &other), &keys).unwrap();
    assert!(shake(config, broker(&ca.server(&["gw"]), &ca), "gw").is_err());
}

#[test]
fn router_with_clock_behind_connects() {
    let ca = TestCa::new();
    let made_later = ca.server_in(&["gw"], 2031..2040);
    let (year_2000, year_2041) = (946_684_800, 2_240_524_800);
    for seconds in [0, year_2000, FLOOR.as_secs()] {
        assert_eq!(verify(Trust::Hash(ca.hash()), &made_later, "gw", seconds), Ok(()), "{seconds}");
    }
    assert_eq!(verify(Trust::Hash(ca.hash()), &made_later, "gw", year_2041), Err(TlsFailure::Expired));
    let long_gone = ca.server_in(&["gw"], 2020..2021);
    assert_eq!(verify(Trust::Hash(ca.hash()), &long_gone, "gw", 0), Err(TlsFailure::Expired));
}

#[test]
fn text_without_a_certificate_is_an_error() {
    let (ca, keys) = (TestCa::new(), Keys::generate().unwrap());
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (roots, own) in
        [("", &*ca.node(NODE, &keys)), ("x", ""), (broken, &ca.node(NODE, &keys)), (&ca.pem(), "")]
    {
        assert!(for_broker(roots, own, &keys).is_err(), "{roots}/{own}");
    }
}

#[test]
fn tls_failure_is_found_in_an_io_error() {
    let wrapped =
        io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(AlertDescription::UnknownCA));
    assert_eq!(TlsFailure::of(&wrapped), Some(TlsFailure::Refused));
    assert_eq!(TlsFailure::of(&io::ErrorKind::ConnectionReset.into()), None);
}
