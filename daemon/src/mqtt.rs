//! The control link: one connection to one broker, from its opening to its first error. It ends at messages:
//! when to open the next link is for the core, what a message means too.
//!
//! rumqttc reads and writes the packets. Its event loop is not used: it can't mark its socket, it keeps state
//! over reconnects in ways that can block for ever, and its TLS links a second copy of webpki. A link here is
//! used up by any error and holds a bounded amount of memory whatever either side does: [`PUBLISHES`] messages wait at
//! most, and when the consumer is slow, the broker waits. It never blocks: whoever holds a link waits for what
//! [`Link::enlist`] says, then asks for the [`Link::poll`] event.

mod connection;
mod driver;
mod inbox;
mod session;

use crate::{tls::TlsFailure, wait::Wait};
use connection::Connecting;
use driver::Driver;
use rustls::ClientConfig;
use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

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
pub struct Link {
    options: Options,
    stage: Stage,
    /// Until then the broker has to consent.
    by: Instant,
    publishes: VecDeque<Message>,
    leaving: bool,
}

enum Stage {
    Begun,
    Connecting(Box<Connecting>),
    Open(Box<Driver>),
    Over,
}

impl Link {
    /// Starts one attempt.
    pub fn open(options: Options) -> Self {
        let by = Instant::now() + CONNECT;
        Self { options, stage: Stage::Begun, by, publishes: VecDeque::new(), leaving: false }
    }

    /// Hands over a message; it goes out when the link is up and an earlier one is acknowledged.
    pub fn try_publish(&mut self, message: Message) -> Result<(), NotTaken> {
        if self.leaving || self.is_over() {
            return Err(NotTaken::Over);
        }
        if self.publishes.len() == PUBLISHES {
            return Err(NotTaken::Full);
        }
        self.publishes.push_back(message);
        Ok(())
    }

    /// Does what can be done without waiting, up to the next event.
    pub fn poll(&mut self) -> Option<Event> {
        self.advance().unwrap_or_else(|error| {
            self.stage = Stage::Over;
            Some(Event::Lost(error))
        })
    }

    /// Adds what to wait for before the next event can come.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        match &self.stage {
            Stage::Connecting(connecting) => connecting.enlist(wait),
            Stage::Open(driver) => driver.enlist(wait),
            Stage::Begun | Stage::Over => {}
        }
        if !self.has_consent() {
            wait.no_longer(self.by);
        }
    }

    /// From now on it sends what waits, takes leave so that the broker does not publish the will, and is over.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether it had its last event.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    fn has_consent(&self) -> bool {
        matches!(&self.stage, Stage::Open(driver) if driver.has_consent())
    }

    fn advance(&mut self) -> Result<Option<Event>, LinkError> {
        if let Stage::Begun = self.stage {
            self.stage = Stage::Connecting(Box::new(Connecting::start(&self.options)?));
        }
        if let Stage::Connecting(connecting) = &mut self.stage
            && let Some((stream, name)) = connecting.advance(&self.options)?
        {
            self.stage = Stage::Open(Box::new(Driver::new(stream, name, &self.options)?));
        }
        if let Stage::Open(driver) = &mut self.stage
            && let Some(event) = driver.advance(&mut self.publishes, self.leaving)?
        {
            return Ok(Some(event));
        }
        let is_late = !self.is_over() && !self.has_consent() && self.by <= Instant::now();
        if is_late { Err(LinkError::Slow) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests;
