use super::*;
use crate::tls::testing::{Certified, TestCa};
use gatewrt_protocol::{NetworkId, NodeId, Signer};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

const RECORD_SEED: [u8; 32] = [9; 32];
const NET: [u8; 10] = [1; 10];
const NODE: [u8; 10] = [2; 10];

fn facts() -> Facts {
    let name = "router".parse().unwrap();
    Facts { name, board: "test board".into(), port: 51820, endpoints: Vec::new(), interfaces: Vec::new() }
}

fn code(ca: &TestCa, port: u16) -> JoinCode {
    let record_key = Signer::from_seed(&RECORD_SEED).public();
    JoinCode {
        network: "home".parse().unwrap(),
        url: format!("https://127.0.0.1:{port}"),
        ca: ca.hash(),
        record_key,
        secret: [3; 16],
    }
}

fn policy() -> Policy {
    Policy {
        net: NetworkId::from_entropy(NET),
        rev: 1,
        name: "home".parse().unwrap(),
        prefixes: vec!["10.200.0.0/16".parse().unwrap()],
        mtu: 1420,
        keepalive: 25,
        domain: String::new(),
        brokers: Vec::new(),
    }
}

fn assignment() -> Assignment {
    Assignment {
        net: NetworkId::from_entropy(NET),
        node: NodeId::from_entropy(NODE),
        rev: 1,
        name: "router".parse().unwrap(),
        addresses: vec!["10.200.0.1".parse().unwrap()],
        egress: Vec::new(),
        ingress: None,
        exit: None,
        scopes: Vec::new(),
        confirm_s: None,
        attempt: 0,
        access: gatewrt_protocol::Access::default(),
        control: Vec::new(),
    }
}

fn answer(ca: &TestCa, keys: &Keys) -> JoinAnswer {
    let signer = Signer::from_seed(&RECORD_SEED);
    JoinAnswer {
        net: NetworkId::from_entropy(NET),
        node: NodeId::from_entropy(NODE),
        network: "home".parse().unwrap(),
        name: "router".parse().unwrap(),
        brokers: vec!["127.0.0.1:8883".into()],
        ca: ca.pem(),
        certificate: ca.node("aiba", keys),
        policy: signer.sign(&policy()).unwrap(),
        assignment: signer.sign(&assignment()).unwrap(),
    }
}

/// Takes one request over TLS, gives this status and body, and returns what was asked.
fn coordinator(certified: Certified, status: u16, body: Vec<u8>) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let (stream, _) = listener.accept().unwrap();
        talk(stream, &certified, status, &body).unwrap_or_default()
    };
    (port, thread::spawn(serve))
}

fn talk(socket: TcpStream, certified: &Certified, status: u16, body: &[u8]) -> std::io::Result<String> {
    let chain = CertificateDer::pem_slice_iter(certified.chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
    let mut asked = Vec::new();
    while !is_whole(&asked) {
        let mut part = [0; 4096];
        let read = stream.read(&mut part)?;
        asked.extend_from_slice(&part[..read]);
    }
    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(String::from_utf8(asked).unwrap())
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// Outcome of joining when the coordinator gives a changed answer.
fn join_with(change: impl FnOnce(&mut JoinAnswer)) -> Result<(Identity, JoinAnswer), EnrollError> {
    let (ca, keys) = (TestCa::new(), Keys::generate().unwrap());
    let mut answer = answer(&ca, &keys);
    change(&mut answer);
    let (port, _served) = coordinator(ca.server(&["127.0.0.1"]), 200, serde_json::to_vec(&answer).unwrap());
    join(&code(&ca, port), &keys, facts(), 0)
}

fn join_against(status: u16, body: &[u8]) -> EnrollError {
    let ca = TestCa::new();
    let (port, _served) = coordinator(ca.server(&["127.0.0.1"]), status, body.to_vec());
    join(&code(&ca, port), &Keys::generate().unwrap(), facts(), 0).expect_err("refused")
}

#[test]
fn router_joins_and_proves_its_key() {
    let (ca, keys) = (TestCa::new(), Keys::generate().unwrap());
    let expected = answer(&ca, &keys);
    let (port, served) = coordinator(ca.server(&["127.0.0.1"]), 200, serde_json::to_vec(&expected).unwrap());
    let code = code(&ca, port);
    let (identity, answer) = join(&code, &keys, facts(), 0x0100_0000).unwrap();
    assert_eq!(answer, expected);
    assert_eq!((identity.node, identity.port, &identity.keys), (expected.node, 51820, &keys));
    assert_eq!((identity.coordinator, identity.record_key), (code.url.clone(), code.record_key));

    let asked = served.join().unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/join HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/jose"), "{head}");
    let request: JoinRequest = jws::open(body.as_bytes(), &keys.signer().public()).unwrap();
    assert_eq!((request.secret, request.key), (code.secret_text(), keys.wireguard_public()));
}

#[test]
fn answer_the_code_does_not_vouch_for_is_refused() {
    let forged = Signer::from_seed(&[8; 32]);
    let elsewhere = Assignment { node: NodeId::from_entropy([7; 10]), ..assignment() };
    let other_name = Policy { name: "other".parse().unwrap(), ..policy() };
    let signer = Signer::from_seed(&RECORD_SEED);
    type Change = Box<dyn FnOnce(&mut JoinAnswer)>;
    let cases: [(&str, Change); 8] = [
        ("its policy: signed with a key", Box::new(move |a| a.policy = forged.sign(&policy()).unwrap())),
        ("its assignment: a record of another kind", Box::new(|a| a.assignment = a.policy.clone())),
        ("for another network or node", Box::new(move |a| a.assignment = signer.sign(&elsewhere).unwrap())),
        (
            "for another network or node",
            Box::new(move |a| a.policy = Signer::from_seed(&RECORD_SEED).sign(&other_name).unwrap()),
        ),
        ("its CA is not that of the join code", Box::new(|a| a.ca = TestCa::new().pem())),
        (
            "not for this router's key",
            Box::new(|a| a.certificate = TestCa::new().node("x", &Keys::generate().unwrap())),
        ),
        ("“mqtt” is no host:port", Box::new(|a| a.brokers = vec!["mqtt".into()])),
        ("it names no broker", Box::new(|a| a.brokers.clear())),
    ];
    for (words, change) in cases {
        let error = join_with(change).expect_err(words);
        assert!(
            matches!(error, EnrollError::BadAnswer { .. }) && error.to_string().contains(words),
            "{error}"
        );
    }
}

#[test]
fn refusal_is_reported_in_the_coordinators_words() {
    let problem =
        br#"{"status":410,"type":"code-used","title":"this join code was used","detail":"make a new one"}"#;
    let error = join_against(410, problem);
    assert_eq!(error.to_string(), "the coordinator refuses: this join code was used; make a new one");
    assert!(error.is_final());
    assert!(!join_against(503, br#"{"status":503,"type":"busy","title":"Busy"}"#).is_final());
}

#[test]
fn unreadable_answer_is_an_error_in_words() {
    for (status, body, words) in [
        (200, b"{}".to_vec(), "missing field"),
        (200, b"<html>".to_vec(), "expected value at line 1 column 1"),
        (404, b"<html>".to_vec(), "HTTP status 404"),
        (302, b"".to_vec(), "HTTP status 302"),
        (200, vec![b' '; 70 * 1024], "larger than"),
    ] {
        let error = join_against(status, &body).to_string();
        assert!(
            error.contains(words) && error.contains("no coordinator that this version understands"),
            "{error}"
        );
    }
}

#[test]
fn coordinator_of_another_ca_gets_no_request() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (port, served) = coordinator(other.server(&["127.0.0.1"]), 200, Vec::new());
    let error = join(&code(&ca, port), &Keys::generate().unwrap(), facts(), 0).expect_err("foreign");
    assert!(error.to_string().contains("is not the one the join code was made by"), "{error}");
    assert!(error.is_final());
    assert_eq!(served.join().unwrap(), "");
}

#[test]
fn unreachable_coordinator_is_reported_with_address_and_reason() {
    let ca = TestCa::new();
    let port = 1; // below 1024, and assigned to a protocol that no one runs
    let error = join(&code(&ca, port), &Keys::generate().unwrap(), facts(), 0).expect_err("nobody there");
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}: Connection refused")) && !error.is_final(), "{text}");

    let code = JoinCode { url: "https://nowhere.invalid:8443".into(), ..code(&ca, 1) };
    let error = join(&code, &Keys::generate().unwrap(), facts(), 0).expect_err("no such name");
    assert!(matches!(error, EnrollError::Unreachable { .. }), "{error}");
}

#[test]
fn server_without_tls_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = stream.read(&mut [0; 1024]);
    });
    let error =
        join(&code(&TestCa::new(), port), &Keys::generate().unwrap(), facts(), 0).expect_err("not TLS");
    assert!(error.to_string().contains("is it the right port?"), "{error}");
    server.join().unwrap();
}

#[test]
fn silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let started = Instant::now();
    let error =
        join(&code(&TestCa::new(), port), &Keys::generate().unwrap(), facts(), 0).expect_err("silent");
    assert!(matches!(error, EnrollError::Slow { .. }) && started.elapsed().as_secs() < 25, "{error}");
}
