//! Control link: one connection to one broker, from its opening to its first error. It ends at messages: the core
//! decides when to open the next link and what a message means.
//!
//! rumqttc reads and writes the packets. Its event loop is not used: it can't mark its socket, it keeps state
//! over reconnects in ways that can block for ever, and its TLS links a second copy of webpki. A link here is
//! used up by any error and holds a bounded amount of memory whatever either side does: [`EVENTS`] events and
//! [`PUBLISHES`] messages wait at most, and when the consumer is slow, the broker waits.

mod connection;
mod driver;
mod inbox;
mod session;

use crate::{task, tls::TlsFailure};
use rustls::ClientConfig;
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time};

/// Maximum number of events that wait for the consumer.
pub const EVENTS: usize = 8;
/// Maximum number of messages that wait to be published.
pub const PUBLISHES: usize = 8;
/// Maximum number of published messages without acknowledgement.
pub const IN_FLIGHT: usize = 4;
/// Longest packet in bytes; longer ones are dropped and reported.
pub const LONGEST: usize = gatewrt_protocol::MAX_ASSIGNMENT + 4096;
/// Time for connecting, from the name to the broker's CONNACK.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Time without a byte from a broker that owes an answer, after which the link is dead.
pub const SILENCE: Duration = Duration::from_secs(15);

/// Options of an MQTT link to one broker.
#[derive(Clone)]
pub struct Options {
    /// `host:port`, an IPv6 address in brackets.
    pub broker: String,
    /// Addresses to try when the name can't be resolved.
    pub known: Vec<SocketAddr>,
    /// The node's id, which is its MQTT client id too.
    pub client_id: String,
    /// See [`crate::tls::for_broker`].
    pub tls: Arc<ClientConfig>,
    /// Message that the broker publishes when the link breaks.
    pub will: Message,
    /// Topic filters to subscribe to, all at QoS 1.
    pub filters: Vec<String>,
    /// Interval of pings on an idle link; the broker gives up after one and a half times this.
    pub keepalive: Duration,
    /// The bypass mark.
    pub mark: u32,
}

/// MQTT message to be published at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Content.
    pub payload: Vec<u8>,
    /// True for a message that the broker retains.
    pub retain: bool,
}

/// Event of an MQTT link, such as the arrival of a message.
#[derive(Debug)]
pub enum Event {
    /// Acceptance of the node and of every subscription. Messages may have arrived before.
    Connected,
    /// Message that arrived.
    Message {
        /// Topic.
        topic: String,
        /// Content, at most [`LONGEST`] bytes.
        payload: Vec<u8>,
    },
    /// Message of more than [`LONGEST`] bytes, which was dropped.
    TooLong {
        /// Topic.
        topic: String,
        /// Length of the packet in bytes.
        bytes: usize,
    },
    /// Acknowledgement of a message of ours: the link delivers.
    Acked,
    /// End of the link, and the last event.
    Lost(LinkError),
}

/// Refusal of an MQTT link to take a message for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// [`PUBLISHES`] messages wait already.
    Full,
    /// The link is over.
    Over,
}

/// Reason for the end of an MQTT link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Address of a broker that is no `host:port`.
    #[error("“{0}” is no host:port of a broker")]
    Address(String),
    /// Name of a broker without an address.
    #[error("the broker's name has no address")]
    Name(#[source] io::Error),
    /// Addresses that take no connection, each with the error of the system.
    #[error("the broker can't be reached{}", attempts(.0))]
    Connect(Vec<(SocketAddr, io::Error)>),
    /// Broker that takes the connection and then does not answer.
    #[error("the broker does not answer within {} seconds", CONNECT.as_secs())]
    Slow,
    /// Broker that is not to be trusted, or does not trust us.
    #[error("the broker: {0}")]
    Tls(TlsFailure),
    /// Refusal of the node, in words.
    #[error("the broker refuses this node: {0}")]
    Refused(&'static str),
    /// Refusal of this subscription.
    #[error("the broker does not let this node read {0}")]
    Subscription(String),
    /// Silence of the broker for [`SILENCE`].
    #[error("nothing came from the broker for {} seconds", SILENCE.as_secs())]
    Silent,
    /// End of the connection by the broker.
    #[error("the broker closed the connection")]
    Closed,
    /// Break of the connection.
    #[error("the connection to the broker broke")]
    Broken(#[source] io::Error),
    /// Bytes that are no MQTT, or not valid at that moment; in words.
    #[error("what answers there does not speak MQTT properly: {0}")]
    Protocol(String),
    /// End of the connection by this side.
    #[error("closed from this side")]
    Left,
}

fn attempts(tried: &[(SocketAddr, io::Error)]) -> String {
    tried.iter().map(|(addr, error)| format!("; {addr}: {error}")).collect()
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match TlsFailure::of(&error) {
            Some(failure) => Self::Tls(failure),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Broken(error),
        }
    }
}

/// MQTT link to one broker, or an attempt at one. Dropping it cuts the connection, and the broker publishes the will.
#[derive(Debug)]
pub struct Link {
    publishes: mpsc::Sender<Message>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts one attempt at a link to a broker, as a task of the current runtime.
    pub fn open(options: Options) -> Self {
        let (publishes, to_publish) = mpsc::channel(PUBLISHES);
        let (happened, events) = mpsc::channel(EVENTS);
        let task = task::spawn(driver::drive(options, to_publish, happened));
        Self { publishes, events, task }
    }

    /// Queues a message for publishing; it is sent when the link is up and there is room in flight.
    pub fn try_publish(&self, message: Message) -> Result<(), NotTaken> {
        self.publishes.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Full,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Over,
        })
    }

    /// Waits for the next event of the link; `None` after [`Event::Lost`]. Cancel-safe: no event is lost with a dropped
    /// future.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Polls for the next event of the link, as [`Link::event`], to wait on many links at once.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }

    /// Closes the link: sends the queued messages, disconnects so that the broker does not publish the will, and ends;
    /// within `patience`. Messages that still arrive are dropped.
    pub async fn close(mut self, patience: Duration) {
        let (gone, _) = mpsc::channel(1);
        self.publishes = gone;
        let drained = async { while self.events.recv().await.is_some() {} };
        let _ = time::timeout(patience, drained).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
