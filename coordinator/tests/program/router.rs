//! Router as the coordinator sees it: keys, a join request, an MQTT client with a certificate.

use crate::eventually;
use gatewrt_protocol::{
    Applied, EndpointKind, InterfaceKind, InterfaceReport, JoinAnswer, JoinCode, JoinRequest, MemberUpdate,
    NetworkId, NodeId, Presence, Problem, PublicKey, Report, Signer, Topic, WgPublicKey, jws,
};
use ring::digest::{SHA256, digest};
use rumqttc::{
    Client, Event, LastWill, MqttOptions, Packet, QoS, RecvTimeoutError, TlsConfiguration, Transport,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The CA comes with the first answer; its hash is in the code, and compared before anything is believed.
fn pinned_agent(ca_pem: &str, code: &JoinCode) -> ureq::Agent {
    let ca = ureq::tls::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    assert_eq!(digest(&SHA256, ca.der()).as_ref(), code.ca, "the code pins this CA");
    let tls = ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]))
        .build();
    let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(10))).build().into()
}

pub struct Router {
    seed: [u8; 32],
    pub request: JoinRequest,
}

impl Router {
    /// Keys are those of the number.
    pub fn new(number: u8, name: &str) -> Self {
        let seed = *digest(&SHA256, &[number]).as_ref().first_chunk().unwrap();
        let request = JoinRequest {
            secret: String::new(),
            key: WgPublicKey([number; 32]),
            identity: Signer::from_seed(&seed).public(),
            name: name.parse().unwrap(),
            board: "test board".into(),
            version: "0.1.0".into(),
            port: 51820,
            endpoints: vec![gatewrt_protocol::Endpoint {
                addr: format!("203.0.113.{number}:51820").parse().unwrap(),
                kind: EndpointKind::Wan,
            }],
            interfaces: vec![InterfaceReport {
                name: "br-lan".into(),
                kind: InterfaceKind::Lan,
                prefixes: vec![format!("192.168.{number}.0/24").parse().unwrap()],
            }],
        };
        Self { seed, request }
    }

    pub fn signer(&self) -> Signer {
        Signer::from_seed(&self.seed)
    }

    pub fn join(&self, code: &str, ca_pem: &str) -> Result<JoinAnswer, Problem> {
        self.try_join(code, ca_pem).expect("the coordinator answers")
    }

    /// Fails without an answer.
    pub fn try_join(&self, code: &str, ca_pem: &str) -> Result<Result<JoinAnswer, Problem>, ureq::Error> {
        let code: JoinCode = code.parse().unwrap();
        let request = JoinRequest { secret: code.secret_text(), ..self.request.clone() };
        let body = self.signer().sign(&request).unwrap();
        try_post_join(&code, ca_pem, &body)
    }

    /// A router that has joined with this code, and is connected.
    pub fn online(number: u8, name: &str, code: &str, ca_pem: &str) -> (Self, JoinAnswer, Link) {
        let router = Self::new(number, name);
        let answer = router.join(code, ca_pem).unwrap();
        let link = router.connect(&answer, code.parse::<JoinCode>().unwrap().record_key);
        (router, answer, link)
    }

    /// Report of a router on which nothing has changed since the join.
    pub fn report(&self, answer: &JoinAnswer, seq: u64) -> Report {
        Report {
            net: answer.net,
            node: answer.node,
            boot: "boot-1".into(),
            seq,
            version: self.request.version.clone(),
            board: self.request.board.clone(),
            uptime_s: 1,
            memory_kib: 4000,
            wireguard: "kernel".into(),
            port: self.request.port,
            interfaces: self.request.interfaces.clone(),
            endpoints: self.request.endpoints.clone(),
            peers: Vec::new(),
            peer_count: 0,
            clients: Vec::new(),
            exit: None,
            scopes: Vec::new(),
            gateways: BTreeMap::new(),
            rolled_back: None,
            applied: Applied { policy: 1, assignment: 1, roster: 2 },
            failures: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    pub fn connect(&self, answer: &JoinAnswer, record_key: PublicKey) -> Link {
        Link::new(self, answer, record_key)
    }

    fn transport(&self, answer: &JoinAnswer) -> Transport {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(answer.ca.as_bytes()).unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(answer.certificate.as_bytes()).unwrap();
        // RFC 8410: a PKCS #8 head for Ed25519, then the seed.
        let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from([&head[..], &self.seed].concat()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let config =
            config.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key).unwrap();
        Transport::Tls(TlsConfiguration::Rustls(Arc::new(config)))
    }
}

pub fn post_join(code: &JoinCode, ca_pem: &str, body: &str) -> Result<JoinAnswer, Problem> {
    try_post_join(code, ca_pem, body).expect("the coordinator answers")
}

fn try_post_join(code: &JoinCode, ca: &str, body: &str) -> Result<Result<JoinAnswer, Problem>, ureq::Error> {
    let answer = pinned_agent(ca, code).post(format!("{}/v1/join", code.url)).send(body)?;
    let sound = answer.status().is_success();
    let text = answer.into_body().read_to_string()?;
    Ok(if sound {
        Ok(serde_json::from_str(&text).unwrap())
    } else {
        Err(serde_json::from_str(&text).unwrap())
    })
}

/// The certificates that a TLS server shows.
pub fn chain_of(addr: &str, ca_pem: &str) -> Vec<CertificateDer<'static>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = addr.rsplit_once(':').unwrap().0.to_owned().try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = std::net::TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp).unwrap();
    }
    tls.peer_certificates().unwrap().iter().map(|certificate| certificate.clone().into_owned()).collect()
}

/// An MQTT session: what it received by topic, every message in `count`.
pub struct Link {
    client: Client,
    state: Arc<Mutex<Received>>,
    presence: Presence,
    signer: Signer,
    pub record_key: PublicKey,
}

#[derive(Default)]
struct Received {
    last: BTreeMap<String, Vec<u8>>,
    count: BTreeMap<String, u64>,
    ended: bool,
    /// Ends the session without a DISCONNECT, as a power cut does.
    cut: bool,
}

impl Link {
    fn new(router: &Router, answer: &JoinAnswer, record_key: PublicKey) -> Self {
        let (host, port) = answer.brokers[0].rsplit_once(':').unwrap();
        let mut options = MqttOptions::new(answer.node.to_string(), host, port.parse().unwrap());
        options.set_transport(router.transport(answer)).set_keep_alive(Duration::from_secs(30));
        options.set_max_packet_size(1 << 18, 1 << 16);
        let presence =
            Presence { net: answer.net, node: answer.node, boot: "boot-1".into(), session: 1, online: true };
        let gone = router.signer().sign(&Presence { online: false, ..presence.clone() }).unwrap();
        let topic = Topic::Presence(answer.node).to_string();
        options.set_last_will(LastWill::new(&topic, gone, QoS::AtLeastOnce, true));
        let (client, mut connection) = Client::new(options, 64);
        let state = Arc::new(Mutex::new(Received::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            while !shared.lock().unwrap().cut {
                match connection.recv_timeout(Duration::from_millis(50)) {
                    Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                        let mut state = shared.lock().unwrap();
                        *state.count.entry(publish.topic.clone()).or_default() += 1;
                        state.last.insert(publish.topic, publish.payload.to_vec());
                    }
                    Ok(Ok(_)) | Err(RecvTimeoutError::Timeout) => {}
                    // A router would reconnect; here the test waits for the end.
                    Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            drop(connection);
            shared.lock().unwrap().ended = true;
        });
        for filter in Topic::filters_of(answer.net, answer.node) {
            // A link that was refused has ended by now: its state shows the result.
            let _ = client.subscribe(filter, QoS::AtLeastOnce);
        }
        let link = Self { client, state, presence, signer: router.signer(), record_key };
        link.publish(Topic::Presence(answer.node), &link.signer.sign(&link.presence).unwrap());
        link
    }

    pub fn publish(&self, topic: Topic, signed: &str) {
        let _ = self.client.publish(topic.to_string(), QoS::AtLeastOnce, topic.is_retained(), signed);
    }

    pub fn report(&self, report: &Report) {
        self.publish(Topic::Report(report.node), &self.signer.sign(report).unwrap());
    }

    /// Verified record of a topic, unless it was withdrawn.
    pub fn record<T: gatewrt_protocol::Record>(&self, topic: Topic) -> Option<T> {
        let state = self.state.lock().unwrap();
        let signed = state.last.get(&topic.to_string()).filter(|signed| !signed.is_empty())?;
        Some(jws::open(signed, &self.record_key).unwrap())
    }

    pub fn wait_for<T: gatewrt_protocol::Record>(&self, topic: Topic, holds: impl Fn(&T) -> bool) -> T {
        eventually(&format!("the record wanted on {topic}"), || self.record(topic).filter(&holds))
    }

    /// The members of a network as received, with their revisions.
    pub fn members(&self, net: NetworkId) -> BTreeMap<NodeId, u64> {
        let topics: Vec<String> = self.state.lock().unwrap().last.keys().cloned().collect();
        let topics = topics.iter().filter_map(|topic| topic.parse().ok());
        let topics = topics.filter(|topic| matches!(topic, Topic::Member(of, _) if *of == net));
        let updates = topics.filter_map(|topic| self.record::<MemberUpdate>(topic));
        let members = updates.filter(|update| matches!(update, MemberUpdate::Member(_)));
        members.map(|update| (update.about().1, update.about().2)).collect()
    }

    /// Signed records as received last, by topic, that are not withdrawn.
    pub fn all(&self) -> BTreeMap<String, String> {
        let state = self.state.lock().unwrap();
        let texts = state.last.iter().filter(|(_, payload)| !payload.is_empty());
        texts.map(|(topic, payload)| (topic.clone(), String::from_utf8(payload.clone()).unwrap())).collect()
    }

    /// Number of received messages by topic.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state.lock().unwrap().count.clone()
    }

    /// Ends without a word, as by a power cut.
    pub fn cut(&self) {
        self.state.lock().unwrap().cut = true;
        eventually("the connection to be cut", || self.has_ended().then_some(()));
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().unwrap().ended
    }
}
