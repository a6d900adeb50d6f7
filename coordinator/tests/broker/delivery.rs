//! Delivery of records: to the right nodes, complete, in order, and as long as they are valid.

use crate::{
    ALICE, BOB, Bed, HOME, People, client, client::Client, disconnected, has_connected, member, net, own,
    pki::Pki, start,
};
use bytes::Bytes;
use gatewrt_coordinator::broker::{BrokerError, Event, Limits, MessageKind, Tally};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

fn text(payload: &Bytes) -> &str {
    std::str::from_utf8(payload).unwrap()
}

/// A node that has all that is retained: one whose subscription is being served may get what is published
/// meanwhile twice.
async fn served(bed: &Bed, node: &str) -> Client {
    let mut client = bed.connect(node).await;
    assert!(client.subscribe(&net(HOME, "#")).await);
    assert_eq!(client.receive().await.topic, net(HOME, "roster"));
    client
}

#[tokio::test]
async fn late_subscriber_gets_the_newest_retained_record() {
    let bed = Bed::new().await;
    let (alice, bob) = (member(HOME, ALICE), member(HOME, BOB));
    for (topic, payload) in [(&alice, "1"), (&bob, "1"), (&alice, "2")] {
        bed.publish(topic, payload, true).await;
    }
    bed.publish(&net(HOME, "policy"), "not retained", false).await;
    let mut client = bed.connect(BOB).await;
    assert!(client.subscribe(&net(HOME, "member/+")).await);
    let mut got = [client.receive().await, client.receive().await];
    got.sort_by(|a, b| a.topic.cmp(&b.topic));
    assert_eq!(
        got.each_ref().map(|p| (&*p.topic, text(&p.payload), p.retain)),
        [(&*alice, "2", true), (&*bob, "1", true)]
    );

    bed.publish(&alice, "3", true).await;
    let live = client.receive().await;
    assert_eq!((&*live.topic, text(&live.payload), live.retain), (&*alice, "3", false));

    bed.publish(&alice, "", true).await;
    assert_eq!(text(&client.receive().await.payload), "");
    assert_eq!(bed.retained(BOB, &net(HOME, "#")).await, [(bob, "1".to_owned())]);
}

#[tokio::test]
async fn message_of_a_node_is_an_event_and_counted() {
    let mut bed = Bed::new().await;
    let mut node = bed.connect(ALICE).await;
    assert!(has_connected(&bed.event().await, ALICE));
    for (what, retain) in [("report", true), ("reply", false), ("presence", true)] {
        node.publish(&own(ALICE, what), what, retain).await;
        let (node, topic) = (ALICE.to_owned(), own(ALICE, what));
        assert_eq!(bed.event().await, Event::Published { node, topic, payload: what.into(), retain });
    }
    let report = Tally { messages: 1, bytes: (own(ALICE, "report").len() + 6) as u64 };
    assert_eq!(bed.broker.counters().received[&MessageKind::Report], report);
    node.leave().await;
    assert_eq!(bed.event().await, disconnected(ALICE));
}

#[tokio::test]
async fn change_is_published_once_and_delivered_once_to_each() {
    let bed = Bed::with(Limits::default(), vec![(net(HOME, "roster"), "first".into())]).await;
    let mut nodes = [served(&bed, ALICE).await, served(&bed, BOB).await];
    let topic = member(HOME, "carolaaaaaaaaaaa");
    bed.publish(&topic, "record", true).await;
    bed.publish(&net(HOME, "roster"), "marker", true).await;
    for node in &mut nodes {
        assert_eq!(node.until(&net(HOME, "roster"), "marker").await, [(topic.clone(), "record".to_owned())]);
    }
    let once = Tally { messages: 1, bytes: (topic.len() + 6) as u64 };
    for node in [ALICE, BOB] {
        assert_eq!(bed.broker.delivered_to(node)[&MessageKind::Member], once);
    }
    let counters = bed.broker.counters();
    assert_eq!(counters.published[&MessageKind::Member], once);
    assert_eq!(counters.delivered[&MessageKind::Member].messages, 2);
    assert_eq!(counters.dropped, 0);
}

/// A subscriber that comes in the middle of changes must never get an older record after a newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn late_subscriber_never_gets_an_older_record_last() {
    const NODES: usize = 300;
    const LAST: u32 = 30;
    let record = |n: usize| member(HOME, &format!("member{n}"));
    let bed =
        Arc::new(Bed::with(Limits::default(), (0..NODES).map(|n| (record(n), "0".into())).collect()).await);
    let publisher = tokio::spawn({
        let bed = bed.clone();
        async move {
            for revision in 1..=LAST {
                for n in 0..NODES {
                    bed.publish(&record(n), &revision.to_string(), true).await;
                }
            }
        }
    });
    let mut client = bed.connect(BOB).await;
    let mut round = 0;
    while !publisher.is_finished() {
        round += 1;
        assert!(client.subscribe(&net(HOME, "#")).await, "again, so that the retained ones come again");
        let mut newest = BTreeMap::new();
        for _ in 0..NODES {
            let record = client.receive().await;
            let revision = text(&record.payload).parse::<u32>().unwrap();
            let before = newest.insert(record.topic.clone(), revision);
            assert!(before <= Some(revision), "round {round}: {before:?}, {revision} on {}", record.topic);
        }
        client = bed.connect(BOB).await;
    }
    publisher.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_node_gets_a_thousand_records() {
    const NODES: usize = 1000;
    let record = |n: usize| (member(HOME, &format!("member{n}")), Bytes::from(vec![b'x'; 700]));
    let bed = Bed::with(Limits::default(), (0..NODES).map(record).collect()).await;
    let mut client = bed.connect(ALICE).await;
    let began = Instant::now();
    assert!(client.subscribe(&net(HOME, "#")).await);
    let mut topics = BTreeSet::new();
    while topics.len() < NODES {
        let publish = client.receive().await;
        assert_eq!(publish.payload.len(), 700);
        topics.insert(publish.topic);
    }
    println!("{NODES} retained records to a new node: {} ms", began.elapsed().as_millis());
    assert_eq!(bed.broker.counters().dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publish_reaches_two_hundred_nodes() {
    const NODES: usize = 200;
    let bed = Bed::with(Limits::default(), vec![(net(HOME, "roster"), "first".into())]).await;
    let mut nodes = vec![];
    for n in 0..NODES {
        let name = format!("node{n}");
        bed.people.put(&name, &[HOME]);
        nodes.push(served(&bed, &name).await);
    }
    assert_eq!(bed.broker.online().len(), NODES);
    let began = Instant::now();
    bed.publish(&member(HOME, ALICE), &"x".repeat(700), true).await;
    let published = began.elapsed();
    for node in &mut nodes {
        assert_eq!(node.receive().await.payload.len(), 700);
    }
    println!(
        "one record to {NODES} nodes: published in {} µs, all have it after {} ms",
        published.as_micros(),
        began.elapsed().as_millis()
    );
    assert_eq!(bed.broker.counters().published[&MessageKind::Member].messages, 1);
    assert_eq!(bed.broker.counters().delivered[&MessageKind::Member].messages, NODES as u64);
}

#[tokio::test]
async fn restarted_broker_has_the_refilled_retained_records() {
    let bed = Bed::with(Limits::default(), vec![(net(HOME, "roster"), "1".into())]).await;
    let at = bed.broker.local_addr();
    let before = bed.connect(ALICE).await;
    assert_eq!(bed.retained(BOB, &net(HOME, "#")).await, [(net(HOME, "roster"), "1".to_owned())]);
    let Bed { broker, mut events, people, pki } = bed;
    broker.stop().await;
    before.ended().await;
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::Disconnected { .. })), "events end when the sessions have");

    let refilled = vec![(net(HOME, "roster"), "2".into()), (own(ALICE, "assignment"), "mine".into())];
    let (broker, events) = start(&pki, at, Limits::default(), people.clone(), refilled).await.unwrap();
    let bed = Bed { broker, events, people, pki };
    assert_eq!(bed.retained(BOB, &net(HOME, "#")).await, [(net(HOME, "roster"), "2".to_owned())]);
}

#[tokio::test]
async fn brokers_in_one_process_are_independent() {
    let (one, two) = (Bed::new().await, Bed::new().await);
    let mut clients = [one.connect(ALICE).await, two.connect(ALICE).await];
    for client in &mut clients {
        assert!(client.subscribe(&net(HOME, "#")).await);
    }
    one.publish(&net(HOME, "roster"), "one", true).await;
    two.publish(&net(HOME, "roster"), "two", true).await;
    assert_eq!(text(&clients[0].receive().await.payload), "one");
    assert_eq!(text(&clients[1].receive().await.payload), "two");
    one.broker.kick(ALICE).await;
    assert!(clients[1].is_alive() && two.broker.online().contains(ALICE));
    let foreign = client::options(two.broker.local_addr(), ALICE, one.pki.client(ALICE));
    assert!(Client::connect(foreign).await.is_err(), "the CA of the one is nothing to the other");
}

#[tokio::test]
async fn invalid_config_or_message_is_refused_with_the_reason() {
    let bed = Bed::new().await;
    let again = |pki: &Pki| {
        let (at, people) = (bed.broker.local_addr(), Arc::new(People::default()));
        let (cert, key, client_ca) = pki.server();
        let limits = Limits::default();
        let config = gatewrt_coordinator::broker::BrokerConfig { listen: at, cert, key, client_ca, limits };
        gatewrt_coordinator::broker::Broker::start(config, people, vec![])
    };
    let taken = again(&bed.pki).await.err().unwrap();
    assert_eq!(taken.to_string(), format!("can't listen for MQTT on {}", bed.broker.local_addr()));

    let pki = Pki::new();
    std::fs::write(pki.path("server.key"), "no key").unwrap();
    let broken = again(&pki).await.err().unwrap();
    assert!(broken.to_string().ends_with("server.key as the broker's key"), "{broken}");

    for topic in ["", "#", "gatewrt/v1", "gatewrt/v1/net/+/roster", "gatewrt/v1/net//roster", "other/v1/x"] {
        let refused = bed.broker.publish(topic, Bytes::new(), false).await;
        assert!(matches!(refused, Err(BrokerError::Topic(_))), "{topic}");
    }
    let large = bed.broker.publish(&net(HOME, "roster"), vec![0; 128 * 1024 + 1].into(), true).await;
    assert!(matches!(large, Err(BrokerError::TooLarge { size: 131_073, limit: 131_072, .. })));
}
