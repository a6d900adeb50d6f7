//! Nodes that were removed: each reads its own tombstone, nothing else, and writes nothing.

use crate::{
    ALICE, AWAY, BOB, Bed, EVE, HOME, attacks::is_refused, client::Client, disconnected, eventually,
    has_connected, member, net, own,
};
use gatewrt_coordinator::broker::{Event, Limits};
use rumqttc::{LastWill, MqttOptions, QoS};
use std::time::Duration;

/// All that is retained, by topic and text, for every network and node.
const SECRET: &str = "secret";
const END: &str = "the end of Bob";

/// A broker that has a retained message on every topic there is, and Bob's tombstone.
async fn bed() -> Bed {
    let mut topics = Vec::new();
    for network in [HOME, AWAY] {
        topics.extend(["roster", "policy", "news", "recent"].map(|what| net(network, what)));
        topics.extend([ALICE, EVE].map(|node| member(network, node)));
        topics.push(net(network, "page/7"));
    }
    topics.push(member(AWAY, BOB));
    for node in [ALICE, BOB, EVE] {
        topics.extend(["assignment", "command", "report", "reply", "presence"].map(|what| own(node, what)));
    }
    let mut retained: Vec<_> = topics.into_iter().map(|topic| (topic, SECRET.into())).collect();
    retained.push((member(HOME, BOB), END.into()));
    let bed = Bed::with(Limits::default(), retained).await;
    bed.people.expel(BOB, HOME);
    bed
}

/// As a daemon connects that doesn't know yet.
fn unaware(bed: &Bed) -> MqttOptions {
    let mut options = bed.options(BOB);
    options.set_last_will(LastWill::new(own(BOB, "presence"), "offline", QoS::AtLeastOnce, true));
    options
}

/// Waits until Bob has acknowledged his tombstone. He may acknowledge his last member record before.
async fn told(bed: &mut Bed) {
    bed.event_where(|event| matches!(event, Event::Told { node, record } if node == BOB && record == END))
        .await;
}

#[tokio::test]
async fn removed_node_connects_as_before_and_reads_its_tombstone_alone() {
    let mut bed = bed().await;
    let mut removed = Client::connect(unaware(&bed)).await.unwrap();
    for filter in [net(HOME, "#"), own(BOB, "assignment"), own(BOB, "command")] {
        assert!(removed.subscribe(&filter).await, "a daemon takes a refusal for a fault: {filter}");
    }
    removed.publish(&own(BOB, "presence"), "online", true).await;
    removed.publish(&own(BOB, "report"), "report", true).await;
    let first = removed.receive().await;
    assert_eq!((first.topic.as_str(), &first.payload[..]), (member(HOME, BOB).as_str(), END.as_bytes()));
    told(&mut bed).await;

    // Whatever is published from now on, only its tombstone comes.
    for topic in [net(HOME, "roster"), member(HOME, ALICE), own(BOB, "assignment"), own(BOB, "command")] {
        bed.publish(&topic, "more", true).await;
    }
    bed.publish(&member(HOME, BOB), "again", true).await;
    assert_eq!(removed.until(&member(HOME, BOB), "again").await, []);
    removed.die().await;
    eventually("presence, report and will are refused", || bed.broker.counters().refused_publishes == 3)
        .await;
    assert!(!bed.retained(ALICE, &net(HOME, "#")).await.is_empty());
}

#[tokio::test]
async fn removed_node_that_asks_for_more_gets_no_more() {
    let bed = bed().await;
    let mut removed = bed.connect(BOB).await;
    let inside = [
        net(HOME, "#"),
        net(HOME, "+"),
        net(HOME, "roster"),
        net(HOME, "policy"),
        net(HOME, "news"),
        net(HOME, "recent"),
        net(HOME, "page/+"),
        net(HOME, "page/7"),
        net(HOME, "member/#"),
        net(HOME, "member/+"),
        member(HOME, ALICE),
        member(HOME, BOB),
        own(BOB, "assignment"),
        own(BOB, "command"),
    ];
    for filter in &inside {
        assert!(removed.subscribe(filter).await, "{filter}");
    }
    let outside = [
        "#".into(),
        "gatewrt/#".into(),
        "gatewrt/v1/net/+/member/+".into(),
        "gatewrt/v1/net/+/#".into(),
        "$SYS/#".into(),
        format!("$share/group/{}", net(HOME, "#")),
        format!("$share/group/{}", member(HOME, BOB)),
        format!("$exclusive/{}", net(HOME, "#")),
        net(AWAY, "#"),
        member(AWAY, BOB),
        own(BOB, "report"),
        own(BOB, "+"),
        own(BOB, "#"),
        own(ALICE, "assignment"),
        own(ALICE, "report"),
    ];
    for filter in &outside {
        assert!(!removed.subscribe(filter).await, "{filter}");
    }
    bed.publish(&member(HOME, BOB), "marker", true).await;
    let others: Vec<_> = removed.until(&member(HOME, BOB), "marker").await;
    assert!(others.iter().all(|(topic, text)| *topic == member(HOME, BOB) && text == END), "{others:?}");
    assert!(
        bed.broker.delivered_to(BOB).len() == 1,
        "one kind of message: {:?}",
        bed.broker.delivered_to(BOB)
    );
}

#[tokio::test]
async fn removed_node_writes_nothing() {
    let mut bed = bed().await;
    let mut victim = bed.connect(ALICE).await;
    assert!(victim.subscribe(&net(HOME, "#")).await);
    assert!(victim.subscribe(&own(ALICE, "command")).await);
    let mut removed = bed.connect(BOB).await;
    let topics = [
        own(BOB, "report"),
        own(BOB, "reply"),
        own(BOB, "presence"),
        own(BOB, "assignment"),
        own(ALICE, "command"),
        member(HOME, BOB),
        member(HOME, ALICE),
        net(HOME, "roster"),
    ];
    for retain in [false, true] {
        for topic in &topics {
            removed.publish(topic, "planted", retain).await;
        }
    }
    assert_eq!(bed.broker.counters().refused_publishes, 2 * topics.len() as u64);
    let foreign = LastWill::new(own(ALICE, "presence"), "planted", QoS::AtLeastOnce, true);
    let mut options = bed.options(BOB);
    options.set_last_will(foreign);
    assert!(is_refused(&Client::connect(options).await));
    bed.publish(&own(ALICE, "command"), "marker", false).await;
    let read = victim.until(&own(ALICE, "command"), "marker").await;
    assert!(read.iter().all(|(_, text)| text != "planted"), "{read:?}");
    removed.leave().await;
    let last = bed
        .event_where(|event| *event == disconnected(BOB) || matches!(event, Event::Published { .. }))
        .await;
    assert_eq!(last, disconnected(BOB), "none of it is an event");
}

/// It was connected when it was removed, and subscribed to everything.
#[tokio::test]
async fn node_removed_while_connected_reads_nothing_but_its_tombstone_from_then_on() {
    let mut bed = Bed::new().await;
    let mut removed = Client::connect(unaware(&bed)).await.unwrap();
    assert!(has_connected(&bed.event().await, BOB));
    assert!(removed.subscribe(&net(HOME, "#")).await);
    bed.publish(&member(HOME, BOB), "member record", true).await;
    assert_eq!(&removed.receive().await.payload[..], b"member record");

    bed.people.expel(BOB, HOME);
    bed.publish(&net(HOME, "roster"), SECRET, true).await;
    bed.publish(&member(HOME, ALICE), SECRET, true).await;
    bed.publish(&member(HOME, BOB), END, true).await;
    assert_eq!(removed.until(&member(HOME, BOB), END).await, []);
    told(&mut bed).await;
    removed.publish(&own(BOB, "report"), "late", true).await;
    bed.broker.kick(BOB).await;
    removed.ended().await;

    // It comes back as often as it likes, and always reads the same.
    for _ in 0..3 {
        let mut again = Client::connect(unaware(&bed)).await.unwrap();
        assert!(again.subscribe(&net(HOME, "#")).await);
        let read = again.receive().await;
        assert_eq!((read.topic, &read.payload[..]), (member(HOME, BOB), END.as_bytes()));
        told(&mut bed).await;
        again.leave().await;
    }
    bed.people.remove(BOB);
    assert!(is_refused(&Client::connect(unaware(&bed)).await), "its time is over");
}

#[tokio::test]
async fn all_nodes_of_a_deleted_network_read_their_own_tombstones() {
    let bed = Bed::new().await;
    let tombstone = |node: &str| format!("the end of {node}");
    let mut clients = Vec::new();
    for node in [ALICE, BOB] {
        let mut client = bed.connect(node).await;
        assert!(client.subscribe(&net(HOME, "#")).await);
        clients.push((node, client));
    }
    for node in [ALICE, BOB] {
        bed.people.expel(node, HOME);
    }
    for node in [ALICE, BOB] {
        bed.publish(&member(HOME, node), &tombstone(node), true).await;
    }
    for topic in ["roster", "policy"] {
        bed.publish(&net(HOME, topic), "", true).await;
    }
    for (node, mut client) in clients {
        bed.publish(&member(HOME, node), "marker", false).await;
        let read = client.until(&member(HOME, node), "marker").await;
        assert_eq!(read, [(member(HOME, node), tombstone(node))]);
    }
}

#[tokio::test]
async fn removed_node_that_stays_is_disconnected() {
    let limits = Limits { removed_session: Duration::from_millis(300), ..Limits::default() };
    let bed = Bed::with(limits, vec![]).await;
    let neighbour = bed.connect(ALICE).await;
    bed.people.expel(BOB, HOME);
    bed.connect(BOB).await.ended().await;
    bed.connect(BOB).await.ended().await;
    assert!(neighbour.is_alive());
}

#[tokio::test]
async fn removed_node_that_has_read_its_tombstone_is_disconnected_and_its_next_session_is_not() {
    let bed = bed().await;
    let mut first = bed.connect(BOB).await;
    assert!(first.subscribe(&net(HOME, "#")).await);
    assert_eq!(&first.receive().await.payload[..], END.as_bytes());
    let mut second = bed.connect(BOB).await;
    first.ended().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(second.is_alive(), "the end of the first session is not that of the second");
    assert!(second.subscribe(&net(HOME, "#")).await);
    assert_eq!(&second.receive().await.payload[..], END.as_bytes());
    second.ended().await;
}

/// Others are served as fast, and nothing of it stays.
#[tokio::test]
async fn removed_node_that_floods_connects_disturbs_nobody() {
    let mut bed = bed().await;
    let mut neighbour = bed.connect(ALICE).await;
    assert!(neighbour.subscribe(&own(ALICE, "command")).await);
    neighbour.until(&own(ALICE, "command"), SECRET).await;
    for round in 0..100 {
        let mut removed = Client::connect(unaware(&bed)).await.unwrap();
        assert!(removed.subscribe(&net(HOME, "#")).await);
        removed.throw(&own(BOB, "report"), b"report").await;
        let text = round.to_string();
        bed.publish(&own(ALICE, "command"), &text, false).await;
        assert_eq!(neighbour.until(&own(ALICE, "command"), &text).await, []);
        removed.die().await;
        while bed.events.try_recv().is_ok() {}
    }
    eventually("it is gone", || bed.broker.online() == [ALICE.to_owned()].into()).await;
    assert!(neighbour.is_alive());
    assert_eq!(bed.broker.counters().events_lost, 0);
}
