//! A connection to a broker: carries bytes and packets until the first error.

use super::{
    Event, LinkError, Message, Options, SILENCE,
    inbox::Inbox,
    session::{self, Session},
};
use crate::{tls::TlsFailure, wait::Wait};
use bytes::BytesMut;
use rumqttc::Packet;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    time::{Duration, Instant},
};

const ONE_READ: usize = 4096;

pub(super) struct Driver {
    /// Never blocks. What it could not write yet goes out before it reads: a broker that does not read gets no answers.
    stream: StreamOwned<ClientConnection, TcpStream>,
    inbox: Inbox,
    session: Session,
    keepalive: Duration,
    last_sent: Instant,
    /// Since when the broker owes an answer and nothing arrived.
    owed_since: Option<Instant>,
}

impl Driver {
    /// Asks for consent, as soon as the broker has shown who it is.
    pub(super) fn new(
        stream: TcpStream,
        name: ServerName<'static>,
        options: &Options,
    ) -> Result<Self, LinkError> {
        let tls = ClientConnection::new(options.tls.clone(), name);
        let mut tls = tls.map_err(|error| LinkError::Tls(TlsFailure::from(&error)))?;
        // Bounded by what is sent when.
        tls.set_buffer_limit(None);
        let mut driver = Self {
            stream: StreamOwned::new(tls, stream),
            inbox: Inbox::default(),
            session: Session::new(options.filters.clone()),
            keepalive: options.keepalive,
            last_sent: Instant::now(),
            owed_since: None,
        };
        driver.send(&session::connect(options))?;
        Ok(driver)
    }

    /// Whether the broker has consented to the node.
    pub(super) fn has_consent(&self) -> bool {
        self.session.has_consent()
    }

    /// Does what can be done without waiting, up to the next event. Messages to publish are taken as there is room.
    pub(super) fn advance(
        &mut self,
        publishes: &mut VecDeque<Message>,
        leaving: bool,
    ) -> Result<Option<Event>, LinkError> {
        loop {
            while let Some(arrived) = self.inbox.take().map_err(unsound)? {
                let session::Reaction { reply, event } = self.session.handle(arrived)?;
                if let Some(reply) = reply {
                    self.send(&reply)?;
                }
                if event.is_some() {
                    return Ok(event);
                }
            }
            // What is published goes out with the next read.
            let has_read = self.read()?;
            if !self.publish(publishes)? && !has_read {
                break;
            }
        }
        self.check_time()?;
        let is_done = publishes.is_empty() && self.session.is_idle() && !self.is_unsent();
        if leaving && is_done && self.has_consent() { Err(self.take_leave()) } else { Ok(None) }
    }

    /// Adds what to wait for.
    pub(super) fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        let socket = self.stream.sock.as_fd();
        if self.is_unsent() {
            wait.to_write(socket)
        } else {
            wait.to_read(socket)
        }
        if self.has_consent() {
            wait.no_longer(self.last_sent + self.keepalive);
        }
        if let Some(since) = self.owed_since {
            wait.no_longer(since + SILENCE);
        }
    }

    fn is_unsent(&self) -> bool {
        self.stream.conn.wants_write()
    }

    /// Takes one message, when all that was sent before is out. Whether there was one.
    fn publish(&mut self, publishes: &mut VecDeque<Message>) -> Result<bool, LinkError> {
        if self.is_unsent() || !self.session.has_room() {
            return Ok(false);
        }
        let Some(message) = publishes.pop_front() else { return Ok(false) };
        let packet = self.session.publish(message);
        self.send(&packet)?;
        Ok(true)
    }

    fn send(&mut self, packet: &Packet) -> Result<(), LinkError> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).map_err(unsound)?;
        self.last_sent = Instant::now();
        Ok(self.stream.conn.writer().write_all(&bytes)?)
    }

    /// Writes what waits to be sent, then reads. Whether something came.
    fn read(&mut self) -> Result<bool, LinkError> {
        let mut part = [0; ONE_READ];
        match self.stream.read(&mut part) {
            Ok(0) => Err(LinkError::Closed),
            Ok(length) => {
                self.inbox.buffer.extend_from_slice(&part[..length]);
                self.owed_since = None;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// After reading, so that a slow consumer is not taken for a broker that is silent.
    fn check_time(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.owed_since.is_some_and(|since| now >= since + SILENCE) {
            return Err(LinkError::Silent);
        }
        if self.has_consent() && now >= self.last_sent + self.keepalive {
            let ping = self.session.ping();
            self.send(&ping)?;
        }
        let since = self.owed_since.unwrap_or(now);
        self.owed_since = self.session.is_owed().then_some(since);
        Ok(())
    }

    fn take_leave(&mut self) -> LinkError {
        let said = self.send(&Packet::Disconnect);
        self.stream.conn.send_close_notify();
        said.and_then(|()| Ok(self.stream.flush()?)).map_or_else(|error| error, |()| LinkError::Left)
    }
}

fn unsound(error: rumqttc::Error) -> LinkError {
    LinkError::Protocol(error.to_string())
}
