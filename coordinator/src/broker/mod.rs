//! Embedded MQTT broker: carries records to nodes and reports back, with nothing else to install.
//!
//! It knows certificates, topics and bytes. Its user knows the meaning of records, the network of each node
//! and what is stored: it implements [`Directory`] and receives [`Event`]s.
//!
//! ```text
//! router ── TLS 1.3, client certificate ──▶ front ── loopback ──▶ engine (rmqtt) ──▶ hooks ──▶ Event
//!                                             │                      │                 │
//!                                           links ◀──── whose? ── hooks ── may it? ──▶ Directory, access
//! ```

mod counters;
mod front;
mod hooks;
mod links;
mod retained;
mod router;
mod state;
mod tls;

pub use crate::access::Standing;
pub use counters::{ByKind, Counters, MessageKind, Sessions, Tally};

use crate::access;
use bytes::Bytes;
use bytestring::ByteString;
use gatewrt_protocol::PublicKey;
use retained::Retained;
use rmqtt::{
    codec::types::Publish as Packet,
    context::ServerContext,
    net::Builder,
    router::DefaultRouter,
    server::MqttServer,
    types::{From as Author, Id, Publish, QoS, Retain},
};
use router::SerialRouter;
use state::BrokerState;
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

/// Time for sessions to end, when they are kicked, replaced or stopped.
const END_OF_SESSION: Duration = Duration::from_secs(2);
/// Packet bytes allowed beyond the payload: topic, header; for a CONNECT also client id and will topic.
const PACKET_MARGIN: usize = 1024;
/// Largest number of messages sent to a node and not acknowledged yet.
const IN_FLIGHT: NonZeroU16 = NonZeroU16::new(64).expect("64 is not 0");
/// Id of the engine's only listener.
const LISTENER: u16 = 1;

/// Configuration of the broker: its listen address, certificates and limits.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Address where routers connect; port 0 takes a free one, see [`Broker::local_addr`].
    pub listen: SocketAddr,
    /// Certificate chain of the server (PEM), its own certificate first.
    pub cert: PathBuf,
    /// Private key of the certificate (PEM).
    pub key: PathBuf,
    /// CA that issues client certificates (PEM).
    pub client_ca: PathBuf,
    /// Limits of the broker.
    pub limits: Limits,
}

/// Limits of what the broker accepts and stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload that a node may send, in bytes, but for records of the coordinator itself.
    pub payload: usize,
    /// Largest payload that [`Broker::publish`] accepts, in bytes: the limit of the nodes. One may send it back.
    pub own_payload: usize,
    /// Connections with a verified certificate open at the same time. Each takes three file descriptors.
    pub connections: usize,
    /// Connections open at the same time with one certificate: one session, others being opened or closed.
    pub links_per_node: usize,
    /// Messages queued for one node; beyond that the oldest is dropped. It must hold all records of a
    /// network, which a node gets at once when it subscribes.
    pub queue: usize,
    /// Subscriptions of one node.
    pub subscriptions: usize,
    /// Events waiting to be received.
    pub events: usize,
    /// Time for the TLS handshake, and again until an accepted CONNECT.
    pub connect_timeout: Duration,
    /// Longest session of a node that was removed: it has one record to read.
    pub removed_session: Duration,
    /// Longest keepalive that a node may request, in whole seconds. A longer one, or none, is refused.
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
            removed_session: Duration::from_secs(30),
            keepalive: Duration::from_secs(3600),
        }
    }
}

/// Directory of nodes and their networks. It is asked at every connect, publish, subscribe and delivery.
pub trait Directory: Send + Sync + 'static {
    /// Standing of a node; `None` for one that is unknown, or was removed too long ago.
    fn standing_of(&self, node: &str) -> Option<Standing>;
}

/// Event of the broker: a session that began or ended, or a message of a node. Events are lost, and counted, if nobody
/// receives them for seconds; [`Broker::online`] is always right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node has a session. A newer session replaces the older one.
    Connected {
        /// Id of the node.
        node: String,
        /// Address of the router as the coordinator sees it; `None` if it is gone already.
        from: Option<SocketAddr>,
        /// Identity key in its certificate.
        identity: Option<PublicKey>,
    },
    /// A node has no session any more.
    Disconnected {
        /// Id of the node.
        node: String,
    },
    /// A node, or its will, has published a message that is allowed.
    Published {
        /// Id of the node.
        node: String,
        /// Topic, one of the node's own.
        topic: String,
        /// Payload as it was sent.
        payload: Bytes,
        /// Set if the message is retained for later subscribers.
        retain: bool,
    },
    /// A node that was removed has acknowledged the record on the topic of its tombstone.
    Told {
        /// Id of the node.
        node: String,
        /// Record as it was sent; its last member record, if that was still on its way.
        record: Bytes,
    },
}

/// Error of starting the broker or publishing a message.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address can't be listened on.
    #[error("can't listen for MQTT on {addr}")]
    Listen {
        /// Address that can't be listened on.
        addr: SocketAddr,
        /// Error of the kernel.
        source: io::Error,
    },
    /// A certificate or key is missing or wrong.
    #[error("can't use {} as {what}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Purpose of the file.
        what: &'static str,
        /// Reason why the file can't be used.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The loopback interface, which connects the front with the engine, is down.
    #[error("127.0.0.1 can't be reached (is the loopback interface up?)")]
    Loopback(#[source] io::Error),
    /// The topic is not one of ours, or has a wildcard.
    #[error("“{0}” is no topic to publish to")]
    Topic(String),
    /// The payload is over the limit.
    #[error("{size} bytes for {topic} are over the limit of {limit}")]
    TooLarge {
        /// Topic of the message.
        topic: String,
        /// Size of the payload in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The engine failed.
    #[error("the MQTT engine failed")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
}

/// Running MQTT broker. Dropping it stops it at once; [`Broker::stop`] lets sessions end first.
pub struct Broker {
    addr: SocketAddr,
    engine: ServerContext,
    /// Author of the coordinator's own messages.
    author: Id,
    state: Arc<BrokerState>,
    tasks: JoinSet<()>,
}

impl Broker {
    /// Starts a broker, with `retained` (topic and payload) as its retained messages. Returns when it listens. Several
    /// brokers can run in one process.
    pub async fn start(
        config: BrokerConfig,
        directory: Arc<dyn Directory>,
        retained: Vec<(String, Bytes)>,
    ) -> Result<(Self, mpsc::Receiver<Event>), BrokerError> {
        let tls = tls::server_config(&config)?;
        let listen_fault = |source| BrokerError::Listen { addr: config.listen, source };
        let listener = front::bind(config.listen, config.limits.connections).map_err(listen_fault)?;
        let addr = listener.local_addr().map_err(listen_fault)?;
        let retained = checked(retained, config.limits.own_payload)?;

        let (state, events) = BrokerState::new(config.limits, directory);
        let engine = ServerContext::new().busy_check_enable(false).build().await;
        let author = Id::from(engine.node.id(), ByteString::from_static("coordinator"));
        let retained = Retained::new(state.clone(), &author, retained).map_err(engine_fault)?;
        *engine.extends.retain_mut().await = Box::new(retained);
        let router = SerialRouter::new(DefaultRouter::new(Some(engine.clone())));
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

    /// Address that the broker listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Publishes a message as the coordinator, with QoS 1, to every node that has subscribed to its topic and may read
    /// it. An empty retained payload clears the topic. Messages arrive in the order of publishing, including retained
    /// ones.
    pub async fn publish(&self, topic: &str, payload: Bytes, retain: bool) -> Result<(), BrokerError> {
        check(topic, &payload, self.state.limits.own_payload)?;
        self.state.count(|all| counters::count(&mut all.published, topic, &payload));
        let publish = message(topic, payload, retain);
        let from = Author::from_admin(self.author.clone());
        // The lock is held to the end: a subscriber that is just getting the retained messages gets the old
        // one first.
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

    /// Closes a node's connections at once. Returns when its session has ended. Remove the node from the
    /// directory first, or it reconnects.
    pub async fn kick(&self, node: &str) {
        let session = self.state.sessions.borrow().get(node).cloned();
        self.state.links.close(node);
        self.state.forget_delivered(node);
        let Some(session) = session else { return };
        let mut sessions = self.state.sessions.subscribe();
        let over = sessions.wait_for(|sessions| sessions.get(node) != Some(&session));
        let _ = timeout(END_OF_SESSION, over).await;
    }

    /// Ids of the nodes that have an MQTT session now.
    pub fn online(&self) -> BTreeSet<String> {
        self.state.sessions.borrow().keys().cloned().collect()
    }

    /// Nodes that have an MQTT session now, and the messages that were delivered to each.
    pub fn sessions(&self) -> Sessions {
        let delivered = |node: String| (node.clone(), self.delivered_to(&node));
        self.online().into_iter().map(delivered).collect()
    }

    /// All counters of the broker, since its start.
    pub fn counters(&self) -> Counters {
        self.state.counters()
    }

    /// Tallies of the messages delivered to one node since the broker's start, or since the node was last kicked.
    pub fn delivered_to(&self, node: &str) -> ByKind {
        self.state.delivered_to(node)
    }

    /// Stops the broker: closes every connection and waits for the sessions to end. Wills still arrive as events, then
    /// the events end. (The engine frees a little memory only when the process ends.)
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
    let packet = u32::try_from(limits.own_payload + PACKET_MARGIN).unwrap_or(u32::MAX);
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
        // TCP resends what is lost, and a record is valid until the next one.
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

    /// Directory with one node, which is in no network.
    pub(super) struct Known;

    impl Directory for Known {
        fn standing_of(&self, node: &str) -> Option<Standing> {
            (node == NODE).then(|| Standing::Member(BTreeSet::new()))
        }
    }
}
