//! The embedded MQTT broker: how records reach nodes and reports come back, with nothing else installed.
//!
//! It knows certificates, topics and bytes. What a record says, who is in which network, and what of it
//! is kept on disk is its user's, who answers as a [`Directory`] and listens to [`Event`]s.
//!
//! ```text
//! router ── TLS 1.3, client certificate ──▶ front ── loopback ──▶ engine (rmqtt) ──▶ hooks ──▶ Event
//!                                             │                      │                 │
//!                                           links ◀──── whose? ── hooks ── may it? ──▶ Directory, access
//! ```

mod counters;
mod front;
mod hooks;
mod retained;
mod router;
mod state;
mod tls;

pub use counters::{ByKind, Counters, Kind, Sessions, Tally};

use crate::{access, listen};
use bytes::Bytes;
use bytestring::ByteString;
use retained::Retained;
use rmqtt::{
    codec::types::Publish as Packet,
    context::ServerContext,
    net::Builder,
    router::DefaultRouter,
    server::MqttServer,
    types::{From as Author, Id, Publish, QoS, Retain},
};
use router::OneAtATime;
use state::State;
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

/// How long sessions may take to end, when kicked, replaced or stopped.
const END_OF_SESSION: Duration = Duration::from_secs(2);
/// Packet bytes allowed beyond the payload: topic, header; for a CONNECT also client id and will topic.
const PACKET_MARGIN: usize = 1024;
/// Messages sent to a node and not acknowledged yet.
const IN_FLIGHT: NonZeroU16 = NonZeroU16::new(64).expect("64 is not 0");
/// The engine's name for its one listener.
const LISTENER: u16 = 1;

/// Where the broker listens, and with what.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where routers connect; port 0 takes a free one, see [`Broker::local_addr`].
    pub listen: SocketAddr,
    /// PEM, the server's certificate first, then what is needed up to what routers trust.
    pub cert: PathBuf,
    /// PEM, the certificate's key.
    pub key: PathBuf,
    /// PEM, the CA that issues client certificates.
    pub client_ca: PathBuf,
    /// How much of everything.
    pub limits: Limits,
}

/// Bounds of what the broker takes and keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a payload that a node sends.
    pub payload: usize,
    /// Bytes of a payload that [`Broker::publish`] takes: what nodes accept.
    pub own_payload: usize,
    /// Connections open at the same time, those in handshake included. Each takes three file descriptors.
    pub connections: usize,
    /// Connections one certificate may have open at the same time (one session; the rest are on their way
    /// in or out).
    pub links_per_node: usize,
    /// Messages waiting for one node; beyond that the oldest is dropped. At least the records of its networks,
    /// which all come when it subscribes.
    pub queue: usize,
    /// Subscriptions of one node.
    pub subscriptions: usize,
    /// Events waiting to be taken.
    pub events: usize,
    /// For the TLS handshake, and again from there to an accepted CONNECT.
    pub connect_timeout: Duration,
    /// The longest keepalive a node may ask for, in whole seconds; a longer one and none at all are refused.
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload: gatewrt_protocol::MAX_RECORD,
            own_payload: gatewrt_protocol::MAX_ASSIGNMENT,
            connections: 10_000,
            links_per_node: 4,
            queue: 10_000,
            subscriptions: 256,
            events: 1024,
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(3600),
        }
    }
}

/// Who exists and is in which network, asked anew at every connect, publish, subscribe and delivery.
pub trait Directory: Send + Sync + 'static {
    /// Ids of the networks a node is in; None for a node that is unknown or removed.
    fn networks_of(&self, node: &str) -> Option<BTreeSet<String>>;
}

/// What happened on the broker. [`Broker::online`] is always right; events are lost (and counted) if nobody
/// takes them for seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node has a session; also when that takes the place of an older one.
    Connected {
        /// Its id.
        node: String,
        /// Where it connects from, as the coordinator sees it; `None` if it is gone again already.
        from: Option<SocketAddr>,
    },
    /// A node has no session any more.
    Disconnected {
        /// Its id.
        node: String,
    },
    /// A node, or its will, has published, and was allowed to.
    Published {
        /// Its id.
        node: String,
        /// One of its own topics.
        topic: String,
        /// As sent.
        payload: Bytes,
        /// Whether it stays for later subscribers.
        retain: bool,
    },
}

/// Why the broker can't start or publish.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is taken, not ours, or not allowed.
    #[error("can't listen for MQTT on {addr}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A certificate or key is missing or wrong.
    #[error("can't use {} as {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The loopback interface, over which the broker's two halves talk, is down.
    #[error("127.0.0.1 can't be reached (is the loopback interface up?)")]
    Loopback(#[source] io::Error),
    /// A topic outside ours, or with a wildcard.
    #[error("“{0}” is no topic to publish to")]
    Topic(String),
    /// A payload over the limit.
    #[error("{size} bytes for {topic} are over the limit of {limit}")]
    TooLarge {
        /// For where.
        topic: String,
        /// Bytes.
        size: usize,
        /// Bytes.
        limit: usize,
    },
    /// The engine refused.
    #[error("the MQTT engine failed")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
}

/// A running broker. Dropping it ends it without waiting; [`Broker::stop`] lets sessions end first.
pub struct Broker {
    addr: SocketAddr,
    engine: ServerContext,
    /// Whose name the coordinator's own messages bear.
    author: Id,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

impl Broker {
    /// Returns once it listens, with `retained` (topic and payload) as its retained messages. Any number of
    /// brokers can run in one process.
    pub async fn start(
        config: BrokerConfig,
        directory: Arc<dyn Directory>,
        retained: Vec<(String, Bytes)>,
    ) -> Result<(Self, mpsc::Receiver<Event>), BrokerError> {
        let tls = tls::server_config(&config)?;
        let listen_fault = |source| BrokerError::Listen { addr: config.listen, source };
        let listener = listen::bind(config.listen).await.map_err(listen_fault)?;
        let addr = listener.local_addr().map_err(listen_fault)?;
        let retained = checked(retained, config.limits.own_payload)?;

        let (state, events) = State::new(config.limits, directory);
        let engine = ServerContext::new().busy_check_enable(false).build().await;
        let author = Id::from(engine.node.id(), ByteString::from_static("coordinator"));
        let retained = Retained::new(state.clone(), &author, retained).map_err(engine_fault)?;
        *engine.extends.retain_mut().await = Box::new(retained);
        let router = OneAtATime::new(DefaultRouter::new(Some(engine.clone())));
        *engine.extends.router_mut().await = Box::new(router);
        hooks::install(&engine, &state).await;

        let inner = listener_of_engine(&state.limits).bind().map_err(engine_fault)?;
        let inner_addr = inner.local_addr().map_err(engine_fault)?;
        let server = MqttServer::new(engine.clone()).listener_by_id(inner, LISTENER).build();
        front::probe(inner_addr).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(e) = server.run().await {
                tracing::error!("the MQTT engine failed: {e}");
            }
        });
        tasks.spawn(front::accept(listener, tls, inner_addr, state.clone()));
        tracing::info!(%addr, "MQTT broker listens");
        Ok((Self { addr, engine, author, state, tasks }, events))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Publishes as the coordinator, with QoS 1, to every node that has subscribed and may read it. An empty
    /// retained payload clears. What was published first arrives first, retained messages included.
    pub async fn publish(&self, topic: &str, payload: Bytes, retain: bool) -> Result<(), BrokerError> {
        check(topic, &payload, self.state.limits.own_payload)?;
        self.state.count(|all| counters::count(&mut all.published, topic, &payload));
        let publish = message(topic, payload, retain);
        let from = Author::from_admin(self.author.clone());
        // Held to the end: a subscriber that is being served the retained messages gets the old one first.
        let retained = self.engine.extends.retain_mut().await;
        if retain {
            let kept = Retain { msg_id: None, from: from.clone(), publish: publish.clone() };
            retained.set(&publish.topic, kept, None).await.map_err(engine_fault)?;
        }
        let forwarded = self.engine.extends.shared().await.forwards(None, from, publish).await;
        if let Err((_, gone)) = forwarded {
            tracing::debug!(topic, "{} subscribers are gone", gone.len());
        }
        Ok(())
    }

    /// Drops a node's connections at once and returns when its session is over. It comes back only if the
    /// directory still knows it: take it out there first.
    pub async fn kick(&self, node: &str) {
        let session = self.state.sessions.borrow().get(node).cloned();
        self.state.links.close(node);
        self.state.forget_delivered(node);
        let Some(session) = session else { return };
        let mut sessions = self.state.sessions.subscribe();
        let over = sessions.wait_for(|sessions| sessions.get(node) != Some(&session));
        let _ = timeout(END_OF_SESSION, over).await;
    }

    /// The nodes that have a session now.
    pub fn online(&self) -> BTreeSet<String> {
        self.state.sessions.borrow().keys().cloned().collect()
    }

    /// The nodes that have a session now, and what was delivered to each.
    pub fn sessions(&self) -> Sessions {
        let delivered = |node: String| (node.clone(), self.delivered_to(&node));
        self.online().into_iter().map(delivered).collect()
    }

    /// Everything counted since the start.
    pub fn counters(&self) -> Counters {
        self.state.counters()
    }

    /// What was delivered to one node since the start, or since it was last kicked.
    pub fn delivered_to(&self, node: &str) -> ByKind {
        self.state.delivered_to(node)
    }

    /// Closes every connection and waits for the sessions to end; wills are still seen as events, then the
    /// events end. (The engine keeps a little memory until the process ends.)
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.state.links.close_all();
        let mut sessions = self.state.sessions.subscribe();
        let _ = timeout(END_OF_SESSION, sessions.wait_for(BTreeMap::is_empty)).await;
        self.state.end_events();
        tracing::info!(addr = %self.addr, "MQTT broker stopped");
    }
}

fn listener_of_engine(limits: &Limits) -> Builder {
    let packet = u32::try_from(limits.payload + PACKET_MARGIN).unwrap_or(u32::MAX);
    Builder::new()
        .name("gatewrt")
        .laddr((Ipv4Addr::LOCALHOST, 0).into())
        .nodelay(true)
        .tcp_keepalive(false)
        .allow_anonymous(false)
        .max_connections(limits.connections)
        .max_packet_size(packet)
        .max_keepalive(u16::try_from(limits.keepalive.as_secs()).unwrap_or(u16::MAX))
        .allow_zero_keepalive(false)
        .max_inflight(IN_FLIGHT)
        .handshake_timeout(limits.connect_timeout)
        .max_mqueue_len(limits.queue)
        .max_clientid_len(64)
        .max_qos_allowed(QoS::AtLeastOnce)
        .max_topic_levels(16)
        .max_subscriptions(limits.subscriptions)
        .max_topic_aliases(0)
        .session_expiry_interval(Duration::ZERO)
        // TCP repeats what is lost, and a record is true until the next one.
        .message_retry_interval(Duration::ZERO)
        .message_expiry_interval(Duration::ZERO)
}

fn message(topic: &str, payload: Bytes, retain: bool) -> Publish {
    let (topic, qos) = (ByteString::from(topic), QoS::AtLeastOnce);
    Packet { dup: false, retain, qos, topic, packet_id: None, properties: None, payload }.into()
}

fn checked(messages: Vec<(String, Bytes)>, limit: usize) -> Result<BTreeMap<String, Bytes>, BrokerError> {
    for (topic, payload) in &messages {
        check(topic, payload, limit)?;
    }
    Ok(messages.into_iter().collect())
}

fn check(topic: &str, payload: &Bytes, limit: usize) -> Result<(), BrokerError> {
    let levels = topic.strip_prefix(access::PREFIX).and_then(|rest| rest.strip_prefix('/'));
    if !levels.is_some_and(|levels| levels.split('/').all(access::is_id)) {
        return Err(BrokerError::Topic(topic.to_owned()));
    }
    if payload.len() > limit {
        return Err(BrokerError::TooLarge { topic: topic.to_owned(), size: payload.len(), limit });
    }
    Ok(())
}

fn engine_fault(source: rmqtt::Error) -> BrokerError {
    BrokerError::Engine(source.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const NODE: &str = "aaaaaaaaaaaaaaaa";

    /// Knows one node, which is in no network.
    pub(super) struct Known;

    impl Directory for Known {
        fn networks_of(&self, node: &str) -> Option<BTreeSet<String>> {
            (node == NODE).then(BTreeSet::new)
        }
    }
}
