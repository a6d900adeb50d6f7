//! Tests of the embedded broker with real MQTT clients on 127.0.0.1: its features, and every known way round
//! the access checks of a broker.

#![allow(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

mod attacks;
mod client;
mod delivery;
mod pki;
mod raw;
mod removed;
mod sessions;

use bytes::Bytes;
use client::Client;
use gatewrt_coordinator::broker::{Broker, BrokerConfig, BrokerError, Directory, Event, Limits, Standing};
use pki::Pki;
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const ALICE: &str = "aliceaaaaaaaaaaa";
const BOB: &str = "bobbbbbbbbbbbbbb";
/// Node in another network than the other two.
const EVE: &str = "eveeeeeeeeeeeeee";
const HOME: &str = "homenetwork22222";
const AWAY: &str = "awaynetwork33333";
const PATIENCE: Duration = Duration::from_secs(10);

/// Standing of each node; changed while the broker runs.
#[derive(Default)]
struct People(Mutex<BTreeMap<String, Standing>>);

impl People {
    fn put(&self, node: &str, networks: &[&str]) {
        let networks = networks.iter().map(|network| network.to_string()).collect();
        self.0.lock().unwrap().insert(node.to_owned(), Standing::Member(networks));
    }

    /// Removes a node from a network; it may read its tombstone.
    fn expel(&self, node: &str, network: &str) {
        self.0.lock().unwrap().insert(node.to_owned(), Standing::Removed(network.to_owned()));
    }

    /// Forgets a node.
    fn remove(&self, node: &str) {
        self.0.lock().unwrap().remove(node);
    }
}

impl Directory for People {
    fn standing_of(&self, node: &str) -> Option<Standing> {
        self.0.lock().unwrap().get(node).cloned()
    }
}

/// Broker with Alice and Bob in one network and Eve in another.
struct Bed {
    broker: Broker,
    events: mpsc::Receiver<Event>,
    people: Arc<People>,
    pki: Pki,
}

impl Bed {
    async fn new() -> Self {
        Self::with(Limits::default(), vec![]).await
    }

    async fn with(limits: Limits, retained: Vec<(String, Bytes)>) -> Self {
        let (pki, people) = (Pki::new(), Arc::new(People::default()));
        people.put(ALICE, &[HOME]);
        people.put(BOB, &[HOME]);
        people.put(EVE, &[AWAY]);
        let listen = "127.0.0.1:0".parse().unwrap();
        let (broker, events) = start(&pki, listen, limits, people.clone(), retained).await.unwrap();
        Self { broker, events, people, pki }
    }

    async fn connect(&self, node: &str) -> Client {
        Client::connect(self.options(node)).await.unwrap()
    }

    /// Options of a well-behaved node.
    fn options(&self, node: &str) -> rumqttc::MqttOptions {
        client::options(self.broker.local_addr(), node, self.pki.client(node))
    }

    async fn publish(&self, topic: &str, payload: &str, retain: bool) {
        self.broker.publish(topic, Bytes::copy_from_slice(payload.as_bytes()), retain).await.unwrap();
    }

    async fn event(&mut self) -> Event {
        within("an event", self.events.recv()).await.expect("the broker runs")
    }

    /// Skips to the first that is of interest.
    async fn event_where(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.event().await;
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Retained message of a topic, as a new subscriber gets it.
    async fn retained(&self, reader: &str, filter: &str) -> Vec<(String, String)> {
        let mut client = self.connect(reader).await;
        let marker = own(reader, "assignment");
        assert!(client.subscribe(filter).await);
        assert!(client.subscribe(&marker).await);
        self.publish(&marker, "marker", false).await;
        client.until(&marker, "marker").await
    }
}

async fn start(
    pki: &Pki,
    listen: SocketAddr,
    limits: Limits,
    people: Arc<People>,
    retained: Vec<(String, Bytes)>,
) -> Result<(Broker, mpsc::Receiver<Event>), BrokerError> {
    let (cert, key, client_ca) = pki.server();
    Broker::start(BrokerConfig { listen, cert, key, client_ca, limits }, people, retained).await
}

fn own(node: &str, what: &str) -> String {
    format!("gatewrt/v1/node/{node}/{what}")
}

fn member(net: &str, node: &str) -> String {
    format!("gatewrt/v1/net/{net}/member/{node}")
}

fn net(net: &str, what: &str) -> String {
    format!("gatewrt/v1/net/{net}/{what}")
}

/// Address of this machine.
fn has_connected(event: &Event, node: &str) -> bool {
    let local = |from: &Option<SocketAddr>| from.is_some_and(|from| from.ip().is_loopback());
    matches!(event, Event::Connected { node: who, from, .. } if who == node && local(from))
}

fn disconnected(node: &str) -> Event {
    Event::Disconnected { node: node.into() }
}

async fn within<T>(what: &str, doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, doing).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
