//! Tests against a real Mosquitto, and against brokers that misbehave.

use super::*;
use crate::{
    identity::Keys,
    tls::{
        self,
        testing::{Certified, TestCa},
    },
};
use rumqttc::{Packet, SubAck, SubscribeReasonCode};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Instant,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);
const ONE: &str = "aaaaaaaaaaaaaaaa";
const TWO: &str = "bbbbbbbbbbbbbbbb";

/// A Mosquitto with TLS and client certificates; killed when dropped.
struct Broker {
    ca: TestCa,
    /// host:port
    at: String,
    dir: TempDir,
    child: Option<Child>,
}

impl Broker {
    fn start() -> Self {
        Self::with("use_identity_as_username true")
    }

    fn with(setting: &str) -> Self {
        Self::named(&own_address().to_string(), setting)
    }

    /// Starts a broker with a certificate for `name`.
    fn named(name: &str, setting: &str) -> Self {
        static STARTED: AtomicU16 = AtomicU16::new(18883);
        let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());
        let (host, port) = (own_address(), STARTED.fetch_add(1, Ordering::Relaxed));
        let Certified { chain, key } = ca.server(&[name]);
        for (name, content) in [("ca", ca.pem()), ("chain", chain), ("key", key)] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let files = dir.path().display();
        let config = format!(
            "user root\nlistener {port} {host}\ncafile {files}/ca\ncertfile {files}/chain\nkeyfile {files}/key\n\
             require_certificate true\nallow_anonymous false\npersistence false\n{setting}\n"
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        let mut broker = Self { ca, at: format!("{host}:{port}"), dir, child: None };
        broker.run();
        broker
    }

    fn run(&mut self) {
        let config = self.dir.path().join("config");
        let child = Command::new("mosquitto").arg("-c").arg(config).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("mosquitto is installed"));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(&self.at).is_err() {
            assert!(Instant::now() < until, "mosquitto does not start");
            thread::yield_now();
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn options(&self, id: &str) -> Options {
        options(&self.ca, &self.ca, id, self.at.clone())
    }

    async fn connect(&self, id: &str) -> Link {
        let mut link = Link::open(self.options(id));
        assert!(matches!(next(&mut link).await, Event::Connected));
        link
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback address for this process alone, so that a port is still free when the broker starts again; on 127.0.0.1
/// another process could take it.
fn own_address() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 128, 0, 0).to_bits() + std::process::id())
}

/// A node that trusts `ca` and has a certificate of `own`.
fn options(ca: &TestCa, own: &TestCa, id: &str, broker: String) -> Options {
    let keys = Keys::generate().unwrap();
    Options {
        broker,
        known: Vec::new(),
        client_id: id.into(),
        tls: tls::for_broker(&ca.pem(), &own.node(id, &keys), &keys).unwrap(),
        will: message(&format!("gone/{id}"), b"will"),
        filters: vec![format!("to/{id}/#"), "gone/#".into()],
        keepalive: Duration::from_secs(30),
        mark: 0x0100_0000,
    }
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message { topic: topic.into(), payload: payload.into(), retain: false }
}

async fn next(link: &mut Link) -> Event {
    time::timeout(PATIENCE, link.event()).await.expect("an event in time").expect("the link is not over")
}

/// Reason for the end of a link; earlier events are skipped.
async fn end(mut link: Link, patience: Duration) -> LinkError {
    let lost = async {
        loop {
            if let Event::Lost(error) = link.event().await.expect("a last event") {
                return error;
            }
        }
    };
    let error = time::timeout(patience, lost).await.expect("the link ends in time");
    assert!(link.event().await.is_none());
    error
}

#[tokio::test]
async fn published_message_is_acknowledged_and_delivered() {
    let broker = Broker::start();
    let (mut one, mut two) = (broker.connect(ONE).await, broker.connect(TWO).await);
    one.try_publish(message(&format!("to/{TWO}/x"), b"hello")).unwrap();
    assert!(matches!(next(&mut one).await, Event::Acked));
    match next(&mut two).await {
        Event::Message { topic, payload } => {
            assert_eq!((topic, payload), (format!("to/{TWO}/x"), b"hello".to_vec()))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn cut_link_publishes_the_will_and_closed_one_does_not() {
    let broker = Broker::start();
    let mut watcher = broker.connect(TWO).await;
    drop(broker.connect(ONE).await);
    assert!(matches!(next(&mut watcher).await, Event::Message { payload, .. } if payload == b"will"));

    let closing = broker.connect(ONE).await;
    closing.try_publish(message(&format!("gone/{ONE}"), b"goodbye")).unwrap();
    closing.close(PATIENCE).await;
    assert!(matches!(next(&mut watcher).await, Event::Message { payload, .. } if payload == b"goodbye"));
    watcher.try_publish(message(&format!("to/{TWO}/end"), b"")).unwrap();
    let follows = next(&mut watcher).await;
    assert!(matches!(&follows, Event::Acked | Event::Message { .. }), "{follows:?}");
    assert!(!matches!(&follows, Event::Message { payload, .. } if payload == b"will"));
}

#[tokio::test]
async fn killed_broker_ends_the_link_and_the_next_one_reconnects() {
    let mut broker = Broker::start();
    let link = broker.connect(ONE).await;
    broker.kill();
    let error = end(link, PATIENCE).await;
    assert!(matches!(error, LinkError::Closed | LinkError::Broken(_)), "{error}");
    let error = end(Link::open(broker.options(ONE)), PATIENCE).await;
    assert!(error.to_string().contains(&format!("{}: Connection refused", broker.at)), "{error}");
    broker.run();
    broker.connect(ONE).await;
}

#[tokio::test]
async fn frozen_broker_ends_the_link() {
    let broker = Broker::start();
    let link = broker.connect(ONE).await;
    broker.signal("-STOP");
    let since = Instant::now();
    link.try_publish(message("x", b"")).unwrap();
    let error = end(link, SILENCE + PATIENCE).await;
    broker.signal("-CONT");
    assert!(matches!(error, LinkError::Silent), "{error}");
    assert!(since.elapsed() >= SILENCE);
}

#[tokio::test]
async fn frozen_idle_broker_is_noticed_by_a_ping() {
    let broker = Broker::start();
    let mut link = Link::open(Options { keepalive: Duration::from_secs(1), ..broker.options(ONE) });
    assert!(matches!(next(&mut link).await, Event::Connected));
    assert!(time::timeout(Duration::from_secs(4), link.event()).await.is_err(), "pings are answered");
    broker.signal("-STOP");
    let error = end(link, SILENCE + PATIENCE).await;
    broker.signal("-CONT");
    assert!(matches!(error, LinkError::Silent), "{error}");
}

#[tokio::test]
async fn too_long_message_is_dropped_and_the_link_stays() {
    let broker = Broker::start();
    let (one, mut two) = (broker.connect(ONE).await, broker.connect(TWO).await);
    let topic = format!("to/{TWO}/x");
    for length in [16 * 1024, 17 * 1024, 200_000, 5] {
        one.try_publish(message(&topic, &vec![b'x'; length])).unwrap();
    }
    for length in [16 * 1024, 17 * 1024] {
        assert!(matches!(next(&mut two).await, Event::Message { payload, .. } if payload.len() == length));
    }
    assert!(
        matches!(next(&mut two).await, Event::TooLong { topic: t, bytes } if t == topic && bytes > 200_000)
    );
    assert!(matches!(next(&mut two).await, Event::Message { payload, .. } if payload.len() == 5));
}

#[tokio::test]
async fn slow_consumer_makes_the_broker_wait_and_loses_nothing() {
    const MANY: usize = 400;
    let broker = Broker::start();
    let (mut one, mut two) = (broker.connect(ONE).await, broker.connect(TWO).await);
    let (mut sent, mut acked) = (0, 0);
    while acked < MANY {
        while sent < MANY
            && one.try_publish(message(&format!("to/{TWO}/x"), sent.to_string().as_bytes())).is_ok()
        {
            sent += 1;
        }
        assert!(matches!(next(&mut one).await, Event::Acked));
        acked += 1;
    }
    assert!(two.events.len() <= EVENTS);
    for n in 0..MANY {
        let expected = n.to_string().into_bytes();
        assert!(matches!(next(&mut two).await, Event::Message { payload, .. } if payload == expected), "{n}");
    }
}

#[tokio::test]
async fn refusal_names_its_reason() {
    let (broker, other) = (Broker::start(), TestCa::new());
    let elsewhere = Broker::named("elsewhere.example", "use_identity_as_username true");
    let strict = Broker::with("use_identity_as_username false");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (options, words) in [
        (options(&broker.ca, &other, ONE, broker.at.clone()), "it refuses this node's certificate"),
        (options(&other, &broker.ca, ONE, broker.at.clone()), "its certificate is from another CA"),
        (elsewhere.options(ONE), "another name or address"),
        (
            options(&broker.ca, &broker.ca, ONE, "nowhere.invalid:1".into()),
            "the broker's name has no address",
        ),
        (options(&broker.ca, &broker.ca, ONE, "nonsense".into()), "“nonsense” is no host:port"),
        (options(&broker.ca, &broker.ca, ONE, silent.local_addr().unwrap().to_string()), "within 10 seconds"),
        (strict.options(ONE), "not authorised; was the node removed"),
    ] {
        let error = end(Link::open(options), CONNECT + PATIENCE).await.to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn broker_with_lost_name_is_reached_at_its_last_address() {
    let broker = Broker::named("gw.invalid", "use_identity_as_username true");
    let at: SocketAddr = broker.at.parse().unwrap();
    let named =
        Options { broker: format!("gw.invalid:{}", at.port()), known: vec![at], ..broker.options(ONE) };
    let mut link = Link::open(named);
    let event = time::timeout(CONNECT + PATIENCE, link.event()).await.expect("in time");
    assert!(matches!(event, Some(Event::Connected)), "{event:?}");
}

/// Starts a broker of our own that accepts one connection and then runs a script. Returns its address.
fn scripted(
    ca: &TestCa,
    script: impl FnOnce(StreamOwned<ServerConnection, TcpStream>) + Send + 'static,
) -> String {
    let Certified { chain, key } = ca.server(&["127.0.0.1"]);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
        let _connect = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"\x20\x02\x00\x00").unwrap();
        let _subscribe = stream.read(&mut [0; 1024]).unwrap();
        script(stream);
    });
    addr
}

fn suback(codes: [SubscribeReasonCode; 2]) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    Packet::SubAck(SubAck::new(1, codes.into())).write(&mut bytes, 1000).unwrap();
    bytes.to_vec()
}

const YES: SubscribeReasonCode = SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce);

#[tokio::test]
async fn refused_subscription_is_named() {
    let ca = TestCa::new();
    let addr = scripted(&ca, |mut stream| {
        stream.write_all(&suback([YES, SubscribeReasonCode::Failure])).unwrap();
        let _ = stream.read(&mut [0; 1]);
    });
    let error = end(Link::open(options(&ca, &ca, ONE, addr)), PATIENCE).await;
    assert!(matches!(&error, LinkError::Subscription(filter) if filter == "gone/#"), "{error}");
}

#[tokio::test]
async fn broker_that_stops_reading_fills_a_bounded_queue_and_ends_the_link() {
    let ca = TestCa::new();
    let (done, held) = std::sync::mpsc::channel::<()>();
    let addr = scripted(&ca, move |mut stream| {
        stream.write_all(&suback([YES, YES])).unwrap();
        let _ = held.recv();
    });
    let mut link = Link::open(options(&ca, &ca, ONE, addr));
    assert!(matches!(next(&mut link).await, Event::Connected));
    let mut taken = 0;
    while taken <= PUBLISHES + IN_FLIGHT {
        match link.try_publish(message("x", &[0; 16 * 1024])) {
            Ok(()) => taken += 1,
            Err(NotTaken::Full) if taken == PUBLISHES + IN_FLIGHT => break,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    assert_eq!(taken, PUBLISHES + IN_FLIGHT);
    let error = end(link, SILENCE + PATIENCE).await;
    assert!(matches!(error, LinkError::Silent), "{error}");
    drop(done);
}

#[tokio::test]
async fn invalid_bytes_end_the_link_without_a_panic() {
    for (bytes, words) in [
        (&b"\x40\x02\x00\x09"[..], "acknowledges 9, which was not sent"),
        (b"\x90\x03\x00\x09\x01", "confirms a subscription that was not made"),
        (b"\x90\x03\x00\x01\x01", "confirms a subscription that was not made"),
        (b"\x34\x07\x00\x01a\x00\x01xx", "QoS 2"),
        (b"\x30\x80\x80\x80\x80", "MQTT properly"),
        (b"\xf0\x00", "MQTT properly"),
        (b"\x20\x02\x00\x00", "a packet that belongs nowhere"),
        (b"\xe0\x00", "closed the connection"),
        (b"", "closed the connection"),
    ] {
        let ca = TestCa::new();
        let addr = scripted(&ca, move |mut stream| {
            stream.write_all(bytes).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        });
        let error = end(Link::open(options(&ca, &ca, ONE, addr)), PATIENCE).await.to_string();
        assert!(error.contains(words), "{bytes:?}: {error}");
    }
}
