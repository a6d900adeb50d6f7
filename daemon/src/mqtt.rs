//! The control link: one connection to one broker, from its opening to its first error. It ends at messages:
//! when to open the next link is for the core, what a message means too.
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
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time};

/// How many events wait for the consumer at most.
pub const EVENTS: usize = 8;
/// How many messages wait to be published at most.
pub const PUBLISHES: usize = 8;
/// How many published messages may be without acknowledgement.
pub const IN_FLIGHT: usize = 4;
/// Packets above this many bytes are dropped and told of.
pub const LONGEST: usize = gatewrt_protocol::MAX_ASSIGNMENT + 4096;
/// For everything up to the broker's consent.
pub const CONNECT: Duration = Duration::from_secs(10);
/// When something was sent that must be answered and nothing at all arrives for so long, the link is dead.
pub const SILENCE: Duration = Duration::from_secs(15);

/// What a link is opened with.
#[derive(Clone)]
pub struct Options {
    /// `host:port`, an IPv6 address in brackets.
    pub broker: String,
    /// Addresses to try when its name leads nowhere.
    pub known: Vec<SocketAddr>,
    /// The node's id, which is its MQTT client id too.
    pub client_id: String,
    /// See [`crate::tls::for_broker`].
    pub tls: Arc<ClientConfig>,
    /// Published by the broker when the link breaks.
    pub will: Message,
    /// What is subscribed to, all at QoS 1.
    pub filters: Vec<String>,
    /// An idle link is probed this often; the broker gives up after one and a half times this.
    pub keepalive: Duration,
    /// The bypass mark.
    pub mark: u32,
}

/// A message to be published at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Content.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// What happens on a link.
#[derive(Debug)]
pub enum Event {
    /// The broker accepted the node and every subscription. Messages may have come before.
    Connected,
    /// A message arrived.
    Message {
        /// Topic.
        topic: String,
        /// Content, at most [`LONGEST`] bytes.
        payload: Vec<u8>,
    },
    /// A message of more than [`LONGEST`] bytes arrived and was dropped.
    TooLong {
        /// Topic.
        topic: String,
        /// Length of the packet in bytes.
        bytes: usize,
    },
    /// The broker acknowledged a message of ours: the link delivers.
    Acked,
    /// The link is over. The last event there is.
    Lost(LinkError),
}

/// Why a message was not taken for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// [`PUBLISHES`] wait already.
    Full,
    /// The link is over.
    Over,
}

/// Why a link is over.
#[derive(Debug)]
pub enum LinkError {
    /// The broker's address is no `host:port`.
    Address(String),
    /// The broker's name has no address.
    Name(io::Error),
    /// No address takes a connection; each with what the system said.
    Connect(Vec<(SocketAddr, io::Error)>),
    /// The broker takes the connection, then not a step more.
    Slow,
    /// The broker can't be trusted, or does not trust us.
    Tls(TlsFailure),
    /// The broker refuses the node; in words.
    Refused(&'static str),
    /// The broker refuses this subscription.
    Subscription(String),
    /// Nothing arrives any more.
    Silent,
    /// The broker closed the connection.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// The broker sends what is no MQTT, or not at that moment; in words.
    Protocol(String),
    /// Closed from this side.
    Left,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(broker) => write!(f, "“{broker}” is no host:port of a broker"),
            Self::Name(error) => write!(f, "the broker's name has no address: {error}"),
            Self::Connect(tried) => {
                f.write_str("the broker can't be reached")?;
                tried.iter().try_for_each(|(addr, error)| write!(f, "; {addr}: {error}"))
            }
            Self::Slow => write!(f, "the broker does not answer within {} seconds", CONNECT.as_secs()),
            Self::Tls(failure) => write!(f, "the broker: {failure}"),
            Self::Refused(why) => write!(f, "the broker refuses this node: {why}"),
            Self::Subscription(filter) => write!(f, "the broker does not let this node read {filter}"),
            Self::Silent => write!(f, "nothing came from the broker for {} seconds", SILENCE.as_secs()),
            Self::Closed => f.write_str("the broker closed the connection"),
            Self::Broken(error) => write!(f, "the connection to the broker broke: {error}"),
            Self::Protocol(what) => write!(f, "what answers there does not speak MQTT properly: {what}"),
            Self::Left => f.write_str("closed from this side"),
        }
    }
}
impl std::error::Error for LinkError {}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match TlsFailure::of(&error) {
            Some(failure) => Self::Tls(failure),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Broken(error),
        }
    }
}

/// A link, or an attempt at one. Dropped, it is cut, and the broker publishes the will.
#[derive(Debug)]
pub struct Link {
    publishes: mpsc::Sender<Message>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts one attempt, as a task of its own of the runtime this is called in.
    pub fn open(options: Options) -> Self {
        let (publishes, to_publish) = mpsc::channel(PUBLISHES);
        let (happened, events) = mpsc::channel(EVENTS);
        let task = task::spawn(driver::drive(options, to_publish, happened));
        Self { publishes, events, task }
    }

    /// Hands over a message; it goes out when the link is up and an earlier one is acknowledged.
    pub fn try_publish(&self, message: Message) -> Result<(), NotTaken> {
        self.publishes.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Full,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Over,
        })
    }

    /// The next event; `None` after [`Event::Lost`]. Nothing is lost when the future is dropped.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// As [`Link::event`], for waiting on many links at once.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }

    /// Sends what waits, takes leave so that the broker does not publish the will, and is over; at most
    /// `patience`. Messages that still arrive are dropped.
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
