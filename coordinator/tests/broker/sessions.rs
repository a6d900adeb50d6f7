//! Presence: it is right however a node disconnects.

use crate::{ALICE, BOB, Bed, HOME, client::Client, disconnected, has_connected, net, own, raw, within};
use gatewrt_coordinator::broker::{Event, Limits};
use rumqttc::{LastWill, MqttOptions, QoS};
use rustls::version::TLS13;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

fn with_will(bed: &Bed, node: &str) -> MqttOptions {
    let mut options = bed.options(node);
    options.set_last_will(LastWill::new(own(node, "presence"), "offline", QoS::AtLeastOnce, true));
    options
}

fn presence(node: &str, payload: &'static str) -> Event {
    Event::Published {
        node: node.into(),
        topic: own(node, "presence"),
        payload: payload.into(),
        retain: true,
    }
}

#[tokio::test]
async fn will_of_a_dead_node_is_an_event() {
    let mut bed = Bed::new().await;
    let mut node = Client::connect(with_will(&bed, ALICE)).await.unwrap();
    node.publish(&own(ALICE, "presence"), "online", true).await;
    assert!(has_connected(&bed.event().await, ALICE));
    assert_eq!(bed.event().await, presence(ALICE, "online"));
    node.die().await;
    assert_eq!([bed.event().await, bed.event().await], [presence(ALICE, "offline"), disconnected(ALICE)]);
    assert!(bed.broker.online().is_empty());
}

/// Also when it closes while the broker is still busy with what it said before.
#[tokio::test]
async fn node_that_disconnects_leaves_no_will() {
    const REPORTS: u8 = 100;
    let mut bed = Bed::new().await;
    for _ in 0..5 {
        let mut node = raw::tls(&bed, ALICE, &TLS13).await.unwrap();
        let connect = raw::connect_with_will(ALICE, &own(ALICE, "presence"), "offline");
        assert_eq!(raw::answer(&mut node, &connect).await, Some(0));
        assert!(has_connected(&bed.event().await, ALICE));
        let reports = (1..=REPORTS).map(|n| raw::publish(n, &own(ALICE, "report"), &n.to_string()));
        let everything = reports.chain([raw::DISCONNECT.to_vec()]).collect::<Vec<_>>().concat();
        node.write_all(&everything).await.unwrap();
        node.shutdown().await.unwrap();
        for n in 1..=REPORTS {
            let event = bed.event().await;
            let Event::Published { payload, .. } = &event else { panic!("report {n} is lost: {event:?}") };
            assert_eq!(*payload, n.to_string());
        }
        assert_eq!(bed.event().await, disconnected(ALICE));
        raw::end(&mut node).await;
    }
}

#[tokio::test]
async fn silent_node_is_disconnected_after_its_keepalive() {
    let mut bed = Bed::new().await;
    let mut silent = raw::tls(&bed, ALICE, &TLS13).await.unwrap();
    let connect = raw::connect(raw::V3_1_1, raw::CLEAN, 1, ALICE);
    assert_eq!(raw::answer(&mut silent, &connect).await, Some(0));
    assert!(has_connected(&bed.event().await, ALICE));
    let began = Instant::now();
    assert_eq!(bed.event().await, disconnected(ALICE));
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    raw::end(&mut silent).await;
}

#[tokio::test]
async fn newer_connection_takes_over_after_the_older_ends() {
    let mut bed = Bed::new().await;
    let mut older = Client::connect(with_will(&bed, ALICE)).await.unwrap();
    assert!(has_connected(&bed.event().await, ALICE));
    for _ in 0..20 {
        let mut newer = Client::connect(with_will(&bed, ALICE)).await.unwrap();
        older.ended().await;
        newer.publish(&own(ALICE, "presence"), "online", true).await;
        assert_eq!([bed.event().await, bed.event().await], [presence(ALICE, "offline"), disconnected(ALICE)]);
        assert!(has_connected(&bed.event().await, ALICE));
        assert_eq!(bed.event().await, presence(ALICE, "online"));
        assert_eq!(bed.broker.online(), [ALICE.to_owned()].into());
        older = newer;
    }
}

/// Reconnect as after a power cut or a change of address: the broker may not have noticed yet, or just now.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn node_reconnects_at_once_after_its_connection_broke() {
    let bed = Bed::new().await;
    for round in 0..100 {
        let node = Client::connect(with_will(&bed, ALICE)).await;
        let node = node.unwrap_or_else(|e| panic!("refused in round {round}: {e}"));
        node.die().await;
    }
}

#[tokio::test]
async fn kicked_node_is_disconnected_and_reconnects_if_known() {
    let mut bed = Bed::new().await;
    let mut node = bed.connect(ALICE).await;
    assert!(node.subscribe(&net(HOME, "#")).await);
    let neighbour = bed.connect(BOB).await;
    let began = Instant::now();
    bed.broker.kick(ALICE).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(bed.broker.online(), [BOB.to_owned()].into());
    node.ended().await;
    bed.event_where(|event| *event == disconnected(ALICE)).await;
    bed.broker.kick(ALICE).await;
    bed.broker.kick("nobodyaaaaaaaaaa").await;

    let mut back = bed.connect(ALICE).await;
    assert!(back.subscribe(&net(HOME, "#")).await);
    bed.publish(&net(HOME, "roster"), "hello", false).await;
    assert_eq!(&back.receive().await.payload[..], b"hello");
    assert!(neighbour.is_alive());
}

#[tokio::test]
async fn kicked_node_that_does_not_read_is_disconnected_as_fast() {
    stuck_until(End::Kicked).await;
}

#[tokio::test]
async fn node_that_does_not_read_is_replaced_as_fast() {
    stuck_until(End::Replaced).await;
}

enum End {
    Kicked,
    Replaced,
}

async fn stuck_until(end: End) {
    let bed = Bed::new().await;
    let mut stuck = raw::tls(&bed, ALICE, &TLS13).await.unwrap();
    let connect = raw::connect(raw::V3_1_1, raw::CLEAN, 60, ALICE);
    assert_eq!(raw::answer(&mut stuck, &connect).await, Some(0));
    let filter = net(HOME, "#");
    let suback = raw::answer_of(&mut stuck, &raw::subscribe(&filter), 5).await.unwrap();
    assert_eq!(suback[0], 0x90);
    let mut neighbour = bed.connect(BOB).await;
    assert!(neighbour.subscribe(&filter).await);
    for n in 0..2000 {
        bed.publish(&net(HOME, "roster"), &format!("{n:016000}"), false).await;
    }
    bed.publish(&net(HOME, "roster"), "marker", false).await;
    within("the neighbour to get everything", neighbour.until(&net(HOME, "roster"), "marker")).await;
    let began = Instant::now();
    match end {
        End::Kicked => bed.broker.kick(ALICE).await,
        End::Replaced => drop(bed.connect(ALICE).await),
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(bed.broker.online().contains(ALICE), matches!(end, End::Replaced));
}

#[tokio::test]
async fn full_event_queue_delays_only_the_sender() {
    let limits = Limits { events: 1, ..Default::default() };
    let mut bed = Bed::with(limits, vec![]).await;
    let mut talker = bed.connect(ALICE).await;
    assert!(has_connected(&bed.event().await, ALICE));
    let mut listener = bed.connect(BOB).await;
    assert!(has_connected(&bed.event().await, BOB));
    assert!(listener.subscribe(&net(HOME, "#")).await);
    for n in 0..10 {
        talker.throw(&own(ALICE, "report"), n.to_string().as_bytes()).await;
    }
    let began = Instant::now();
    bed.publish(&net(HOME, "roster"), "still here", false).await;
    assert_eq!(&listener.receive().await.payload[..], b"still here");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for n in 0..10 {
        let Event::Published { payload, .. } = bed.event().await else { panic!("only reports are left") };
        assert_eq!(payload, n.to_string());
    }
    assert_eq!(bed.broker.counters().events_lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscription_survives_others_to_the_same_filter() {
    let bed = Bed::new().await;
    for round in 0..40 {
        let leaving = bed.connect(BOB).await;
        let (_, mut staying) = tokio::join!(leaving.die(), bed.connect(ALICE));
        assert!(staying.subscribe(&net(HOME, "#")).await);
        bed.publish(&net(HOME, "roster"), &round.to_string(), false).await;
        assert_eq!(&staying.receive().await.payload[..], round.to_string().as_bytes());
        staying.die().await;
    }
}
