//! Task of a link: carries bytes and packets until the first error.

use super::{
    CONNECT, Event, LinkError, Message, Options, SILENCE,
    connection::{self, Connection},
    inbox::{Inbox, Incoming},
    session::{Reaction, Session},
};
use crate::{identity, task};
use bytes::BytesMut;
use rumqttc::Packet;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    select,
    sync::mpsc,
    time::{self, Instant},
};
use tokio_rustls::client::TlsStream;

/// Number of unsent bytes above which nothing more is read: a broker that does not read gets no answers.
const MOST_UNSENT: usize = 4096;
const ONE_READ: usize = 4096;

/// Opens an MQTT link, serves it, and reports why it ended.
pub(super) async fn drive(options: Options, publishes: mpsc::Receiver<Message>, events: mpsc::Sender<Event>) {
    // TLS waits for what a router that has just booted may have to gather for a while: not in the thread that does all else.
    let _ = task::block(identity::random::<1>).await;
    let error = match time::timeout(CONNECT, connection::open(&options)).await {
        Ok(Ok(connection)) => Driver::new(connection, options, publishes, events.clone()).run().await,
        Ok(Err(error)) => error,
        Err(_) => LinkError::Slow,
    };
    // The consumer may have gone; then there is nobody to tell.
    let _ = events.send(Event::Lost(error)).await;
}

enum Happened {
    /// Room for an event at the consumer.
    Room,
    /// Number of bytes that arrived.
    Read(usize),
    /// Bytes were sent.
    Sent,
    /// Message to publish; `None` when the link is to be closed.
    Publish(Option<Message>),
    /// Deadline of the keepalive or of an owed answer.
    Time,
}

struct Driver {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    inbox: Inbox,
    /// Packet that waits until the consumer has room for its event.
    arrived: Option<Incoming>,
    unsent: BytesMut,
    unflushed: bool,
    session: Session,
    publishes: mpsc::Receiver<Message>,
    events: mpsc::Sender<Event>,
    leaving: bool,
    keepalive: Duration,
    last_sent: Instant,
    /// Time since which the broker owes an answer and sent nothing.
    owed_since: Option<Instant>,
}

impl Driver {
    fn new(
        connection: Connection,
        options: Options,
        publishes: mpsc::Receiver<Message>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(connection.stream);
        let (session, subscribe) = Session::new(options.filters);
        let mut driver = Self {
            reader,
            writer,
            inbox: connection.inbox,
            arrived: None,
            unsent: BytesMut::new(),
            unflushed: false,
            session,
            publishes,
            events,
            leaving: false,
            keepalive: options.keepalive,
            last_sent: Instant::now(),
            owed_since: None,
        };
        driver.send(&subscribe);
        driver
    }

    async fn run(mut self) -> LinkError {
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    async fn step(&mut self) -> Result<(), LinkError> {
        if self.arrived.is_none() {
            self.arrived = self.inbox.take().map_err(|error| LinkError::Protocol(error.to_string()))?;
        }
        if self.leaving && self.session.is_idle() && !self.is_unsent() {
            return Err(self.take_leave().await);
        }
        match self.wait().await? {
            Happened::Room => self.handle_arrived()?,
            Happened::Read(0) => return Err(LinkError::Closed),
            Happened::Read(_) => self.owed_since = None,
            Happened::Sent => {}
            Happened::Publish(Some(message)) => {
                let packet = self.session.publish(message);
                self.send(&packet);
            }
            Happened::Publish(None) => self.leaving = true,
            Happened::Time => self.check_time()?,
        }
        let since = self.owed_since.unwrap_or_else(Instant::now);
        self.owed_since = self.session.is_owed().then_some(since);
        Ok(())
    }

    /// Waits for the next thing that happens on the link, such as bytes that arrive or a deadline. Cancel-safe: the
    /// others lose nothing when they are dropped.
    async fn wait(&mut self) -> Result<Happened, LinkError> {
        let (wakes, is_unsent, has_arrived) = (self.wakes(), self.is_unsent(), self.arrived.is_some());
        let may_read = !has_arrived && self.unsent.len() < MOST_UNSENT;
        let may_publish = !self.leaving && self.session.has_room() && self.unsent.is_empty();
        if may_read {
            self.inbox.buffer.reserve(ONE_READ);
        }
        Ok(select! {
            room = self.events.reserve(), if has_arrived => room.map(|_| Happened::Room).map_err(|_| LinkError::Left)?,
            read = self.reader.read_buf(&mut self.inbox.buffer), if may_read => Happened::Read(read?),
            sent = push(&mut self.writer, &mut self.unsent), if is_unsent => {
                self.unflushed = sent?;
                Happened::Sent
            }
            message = self.publishes.recv(), if may_publish => Happened::Publish(message),
            () = time::sleep_until(wakes) => Happened::Time,
        })
    }

    /// Handles the packet that arrived from the broker. There is room for one event, since this task alone fills the
    /// channel.
    fn handle_arrived(&mut self) -> Result<(), LinkError> {
        let Some(arrived) = self.arrived.take() else { return Ok(()) };
        let Reaction { reply, event } = self.session.handle(arrived)?;
        if let Some(reply) = reply {
            self.send(&reply);
        }
        event.map_or(Ok(()), |event| self.events.try_send(event)).map_err(|_| LinkError::Left)
    }

    fn is_unsent(&self) -> bool {
        self.unflushed || !self.unsent.is_empty()
    }

    fn send(&mut self, packet: &Packet) {
        packet.write(&mut self.unsent, usize::MAX).expect("no packet of ours is 256 MB long");
        self.last_sent = Instant::now();
    }

    fn wakes(&self) -> Instant {
        let ping = self.last_sent + self.keepalive;
        self.owed_since.map_or(ping, |since| ping.min(since + SILENCE))
    }

    fn check_time(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.arrived.is_some() {
            // The consumer is slow: it is not the broker that is silent.
            self.owed_since = None;
        } else if self.owed_since.is_some_and(|since| now >= since + SILENCE) {
            return Err(LinkError::Silent);
        }
        if now >= self.last_sent + self.keepalive {
            let ping = self.session.ping();
            self.send(&ping);
        }
        Ok(())
    }

    async fn take_leave(&mut self) -> LinkError {
        self.send(&Packet::Disconnect);
        let said = async {
            self.writer.write_all_buf(&mut self.unsent).await?;
            self.writer.shutdown().await
        };
        said.await.map_or_else(LinkError::from, |()| LinkError::Left)
    }
}

/// Writes unsent bytes to the broker, or flushes when all are written; true while there is more to flush.
async fn push(writer: &mut WriteHalf<TlsStream<TcpStream>>, unsent: &mut BytesMut) -> io::Result<bool> {
    if unsent.is_empty() {
        writer.flush().await.map(|()| false)
    } else {
        writer.write_buf(unsent).await.map(|_| true)
    }
}
