//! Attacks that must fail. Each also proves that a well-behaved node does not notice.

use crate::{
    ALICE, AWAY, BOB, Bed, EVE, HOME, client::Client, disconnected, eventually, has_connected, member, net,
    own, raw, within,
};
use gatewrt_coordinator::broker::Event;
use rumqttc::{ConnectReturnCode, ConnectionError, LastWill, QoS};
use rustls::version::{TLS12, TLS13};
use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt, time::Duration};
use tokio::net::TcpStream;

pub(crate) fn is_refused(answer: &Result<Client, ConnectionError>) -> bool {
    matches!(answer, Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)))
}

#[tokio::test]
async fn publish_to_a_foreign_topic_is_refused() {
    let mut bed = Bed::new().await;
    let mut victim = bed.connect(ALICE).await;
    for filter in [net(HOME, "#"), own(ALICE, "assignment"), own(ALICE, "command")] {
        assert!(victim.subscribe(&filter).await, "{filter}");
    }
    let mut attacker = bed.connect(BOB).await;
    let topics = [
        net(HOME, "roster"),
        net(HOME, "policy"),
        member(HOME, ALICE),
        member(HOME, BOB),
        own(ALICE, "assignment"),
        own(ALICE, "command"),
        own(ALICE, "report"),
        own(ALICE, "presence"),
        own(BOB, "assignment"),
        own(BOB, "report/more"),
        net(AWAY, "roster"),
        "$SYS/broker/uptime".into(),
        "$delayed/1/gatewrt/v1/net/homenetwork22222/roster".into(),
        "anything".into(),
    ];
    for retain in [false, true] {
        for topic in &topics {
            attacker.publish(topic, "planted", retain).await;
        }
    }
    assert_eq!(bed.broker.counters().refused_publishes, 2 * topics.len() as u64);

    bed.publish(&own(ALICE, "command"), "marker", false).await;
    assert_eq!(victim.until(&own(ALICE, "command"), "marker").await, []);
    assert_eq!(bed.retained(ALICE, &net(HOME, "#")).await, []);
    assert_eq!(bed.retained(EVE, &net(AWAY, "#")).await, []);
    attacker.publish(&own(BOB, "report"), "true", false).await;
    let published = bed.event_where(|event| matches!(event, Event::Published { .. })).await;
    assert!(matches!(published, Event::Published { node, .. } if node == BOB));
}

#[tokio::test]
async fn subscribe_to_a_foreign_topic_is_refused() {
    let bed = Bed::new().await;
    let secrets = [net(HOME, "roster"), own(ALICE, "assignment"), own(EVE, "assignment")];
    for topic in &secrets {
        bed.publish(topic, "secret", true).await;
    }
    let mut attacker = bed.connect(EVE).await;
    let filters = [
        "#".into(),
        "+/#".into(),
        "+/+/#".into(),
        "gatewrt/#".into(),
        "gatewrt/v1/#".into(),
        "gatewrt/v1/net/+/roster".into(),
        "gatewrt/v1/node/+/assignment".into(),
        "$SYS/#".into(),
        "$SYS/broker/clients/#".into(),
        "$share/group/#".into(),
        format!("$share/group/{}", net(HOME, "#")),
        format!("$share/group/{}", net(AWAY, "#")),
        format!("$exclusive/{}", net(HOME, "#")),
        format!("$limit/9/{}", net(HOME, "#")),
        net(HOME, "#"),
        net(HOME, "roster"),
        member(HOME, ALICE),
        member(HOME, EVE),
        own(ALICE, "assignment"),
        own(ALICE, "report"),
        own(EVE, "report"),
        own(EVE, "+"),
        own(EVE, "#"),
        "gatewrt/v1/+/awaynetwork33333/roster".into(),
    ];
    for filter in &filters {
        assert!(!attacker.subscribe(filter).await, "{filter}");
    }
    assert_eq!(bed.broker.counters().refused_subscribes, filters.len() as u64);

    assert!(attacker.subscribe(&own(EVE, "command")).await);
    for topic in &secrets {
        bed.publish(topic, "secret", true).await;
    }
    bed.publish(&own(EVE, "command"), "marker", false).await;
    assert_eq!(attacker.until(&own(EVE, "command"), "marker").await, []);
}

#[tokio::test]
async fn connection_with_will_on_a_foreign_topic_is_refused() {
    let bed = Bed::new().await;
    for topic in [net(HOME, "roster"), own(ALICE, "presence"), own(BOB, "assignment"), "$SYS/x".into()] {
        let mut options = bed.options(BOB);
        options.set_last_will(LastWill::new(&topic, "planted", QoS::AtLeastOnce, true));
        assert!(is_refused(&Client::connect(options).await), "{topic}");
    }
    assert_eq!(bed.broker.counters().refused_connects, 4);
    assert_eq!(bed.retained(ALICE, &net(HOME, "#")).await, []);
}

#[tokio::test]
async fn client_id_other_than_the_certificates_is_refused() {
    let bed = Bed::new().await;
    let victim = bed.connect(ALICE).await;
    for name in [ALICE, "nobodyaaaaaaaaaa", "coordinator", "*"] {
        let mut options = bed.options(BOB);
        options = rumqttc::MqttOptions::new(name, options.broker_address().0, options.broker_address().1);
        options.set_transport(bed.pki.client(BOB));
        assert!(is_refused(&Client::connect(options).await), "{name}");
    }
    assert!(victim.is_alive(), "the real one keeps its session");
    assert_eq!(bed.broker.online(), [ALICE.to_owned()].into());
}

#[tokio::test]
async fn connection_without_certificate_of_our_ca_is_refused() {
    let bed = Bed::new().await;
    let at = bed.broker.local_addr();
    for (case, transport) in [
        ("none", bed.pki.anonymous()),
        ("another CA's", bed.pki.forged(ALICE)),
        ("no name", bed.pki.named(&[])),
        ("two names", bed.pki.named(&[ALICE, BOB])),
        ("a wildcard", bed.pki.named(&["+"])),
    ] {
        let answer = Client::connect(crate::client::options(at, ALICE, transport)).await;
        assert!(answer.is_err(), "{case}");
    }
    eventually("all five are counted", || bed.broker.counters().refused_connects == 5).await;
    let no_tls = Client::connect(crate::client::options(at, ALICE, rumqttc::Transport::Tcp)).await;
    assert!(no_tls.is_err());
    assert!(bed.broker.online().is_empty());
    bed.connect(ALICE).await;
}

#[tokio::test]
async fn forgotten_node_is_disconnected_and_refused() {
    let mut bed = Bed::new().await;
    let mut options = bed.options(BOB);
    options.set_last_will(LastWill::new(own(BOB, "presence"), "offline", QoS::AtLeastOnce, true));
    let mut removed = Client::connect(options.clone()).await.unwrap();
    assert!(removed.subscribe(&net(HOME, "#")).await);
    let mut neighbour = bed.connect(ALICE).await;
    assert!(neighbour.subscribe(&net(HOME, "#")).await);

    bed.people.remove(BOB);
    bed.publish(&net(HOME, "roster"), "after", false).await;
    assert_eq!(&neighbour.receive().await.payload[..], b"after");
    eventually("it is withheld from Bob", || bed.broker.counters().withheld == 1).await;
    removed.publish(&own(BOB, "report"), "late", true).await;
    assert_eq!(bed.broker.counters().refused_publishes, 1);

    bed.broker.kick(BOB).await;
    assert_eq!(bed.broker.online(), [ALICE.to_owned()].into());
    removed.ended().await;
    assert!(is_refused(&Client::connect(options).await));
    assert!(is_refused(&Client::connect(bed.options(BOB)).await), "nor without a will");
    // The will was refused as the report was: the only event is that the node disconnected.
    assert!(has_connected(&bed.event().await, BOB));
    assert!(has_connected(&bed.event().await, ALICE));
    assert_eq!(bed.event().await, disconnected(BOB));
    assert_eq!(bed.broker.counters().refused_publishes, 2);
}

#[tokio::test]
async fn node_moved_out_of_a_network_gets_no_more_of_it() {
    let bed = Bed::new().await;
    let mut node = bed.connect(ALICE).await;
    assert!(node.subscribe(&net(HOME, "#")).await);
    assert!(node.subscribe(&own(ALICE, "assignment")).await);
    bed.people.put(ALICE, &[]);
    bed.publish(&net(HOME, "roster"), "secret", true).await;
    bed.publish(&own(ALICE, "assignment"), "marker", false).await;
    assert_eq!(node.until(&own(ALICE, "assignment"), "marker").await, []);
    assert!(!node.subscribe(&net(HOME, "#")).await);
}

#[tokio::test]
async fn session_other_than_clean_mqtt_3_over_tls_1_3_is_refused() {
    const NOT_AUTHORISED: [Option<u8>; 2] = [Some(5), Some(0x87)];
    let bed = Bed::new().await;
    for (case, packet) in [
        ("MQTT 5", raw::connect(raw::V5, raw::CLEAN, 60, ALICE)),
        ("a persistent session", raw::connect(raw::V3_1_1, 0, 60, ALICE)),
    ] {
        let mut stream = raw::tls(&bed, ALICE, &TLS13).await.unwrap();
        let answer = raw::answer(&mut stream, &packet).await;
        assert!(NOT_AUTHORISED.contains(&answer), "{case}: {answer:?}");
    }
    let mut forever = raw::tls(&bed, ALICE, &TLS13).await.unwrap();
    let answer = raw::answer(&mut forever, &raw::connect(raw::V3_1_1, raw::CLEAN, 0, ALICE)).await;
    assert_ne!(answer, Some(0), "without keepalive a dead node is never noticed");
    assert!(raw::tls(&bed, ALICE, &TLS12).await.is_err());
    let mut good = raw::tls(&bed, ALICE, &TLS13).await.unwrap();
    assert_eq!(raw::answer(&mut good, &raw::connect(raw::V3_1_1, raw::CLEAN, 60, ALICE)).await, Some(0));
}

#[tokio::test]
async fn engine_port_refuses_foreign_connections() {
    let bed = Bed::new().await;
    let mut refused = 0;
    for port in own_listeners() {
        // Ports of other tests are among them, and may be closed by now.
        let Ok(mut stream) = TcpStream::connect(port).await else { continue };
        let answer = raw::answer(&mut stream, &raw::connect(raw::V3_1_1, raw::CLEAN, 60, ALICE)).await;
        assert_ne!(answer, Some(0), "{port}");
        refused += usize::from(answer == Some(5));
    }
    assert!(refused > 0, "the port was found, and spoke MQTT");
    assert!(bed.broker.online().is_empty());
}

/// Loopback ports this process listens on.
fn own_listeners() -> Vec<SocketAddr> {
    let sockets = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::metadata(fd.ok()?.path()).ok());
    let inodes: Vec<u64> = sockets.map(|socket| socket.ino()).collect();
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let listener = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port = fields[1].strip_prefix("0100007F:").and_then(|port| u16::from_str_radix(port, 16).ok())?;
        let ours = fields[3] == "0A" && inodes.contains(&fields[9].parse().ok()?);
        ours.then(|| SocketAddr::from(([127, 0, 0, 1], port)))
    };
    table.lines().skip(1).filter_map(listener).collect()
}

#[tokio::test]
async fn oversized_message_ends_only_its_session() {
    let mut bed = Bed::new().await;
    let neighbour = bed.connect(ALICE).await;
    let mut attacker = bed.connect(BOB).await;
    attacker.publish(&own(BOB, "report"), &"x".repeat(16 * 1024), false).await;
    attacker.throw(&own(BOB, "report"), &vec![0; 256 * 1024]).await;
    attacker.ended().await;
    bed.event_where(|event| *event == disconnected(BOB)).await;
    assert!(neighbour.is_alive());
}

#[tokio::test]
async fn connection_without_session_is_closed() {
    let limits = gatewrt_coordinator::broker::Limits {
        connect_timeout: Duration::from_millis(300),
        links_per_node: 2,
        ..Default::default()
    };
    let bed = Bed::with(limits, vec![]).await;
    let mut silents = vec![];
    for _ in 0..3 {
        let mut silent = raw::tls(&bed, BOB, &TLS13).await.unwrap();
        silents.push(tokio::spawn(async move { raw::end(&mut silent).await }));
    }
    eventually("one too many is turned away", || bed.broker.counters().refused_connects == 1).await;
    for silent in silents {
        silent.await.unwrap();
    }
    within("a proper connection", bed.connect(BOB)).await;
}
