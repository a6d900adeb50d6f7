//! Probes in the tunnel: asks other nodes whether they work, and answers those that ask. A question and its answer
//! are one UDP packet of [`LENGTH`] bytes each, so that nothing is gained by a forged sender; the answer repeats the
//! random token of the question. What follows from an answer is decided elsewhere.

use crate::{
    core::{
        gateways::{Answer, Probe},
        serving::{Aim, Says},
    },
    identity::nonce,
    log,
    ownership::PROBE_PORT,
    sorted::SortedSet,
    task,
};
use gatewrt_protocol::NetworkName;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
    sync::mpsc,
    time::timeout,
};

/// Content of a question and of an answer, in bytes.
pub const LENGTH: usize = 16;
/// What a question begins with.
const QUESTION: [u8; 4] = *b"gwQ1";
/// What an answer begins with.
const ANSWER: [u8; 4] = *b"gwA1";
/// Bits of an answer's byte of flags.
const V4: u8 = 1;
const V6: u8 = 2;
const CONTROL: u8 = 4;
/// How long an answer is awaited: longer than it is of use.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers that wait to be taken.
const TAKEN: usize = 16;

/// Chosen anew for each question. Only who is at the other end of the tunnel sees it, and is heard.
type Token = [u8; 8];

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to a probe.
    Answered(NetworkName, Probe, Answer),
    /// A question.
    Asked(Question),
}

/// Someone asks at an address of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// There.
    pub to: IpAddr,
    /// The sender.
    pub from: SocketAddr,
    token: Token,
}

/// Sends and answers.
#[derive(Debug)]
pub struct Probes {
    answers: mpsc::Sender<Event>,
    answered: mpsc::Receiver<Event>,
    listening: Vec<(IpAddr, UdpSocket)>,
}

impl Default for Probes {
    fn default() -> Self {
        let (answers, answered) = mpsc::channel(TAKEN);
        Self { answers, answered, listening: Vec::new() }
    }
}

impl Probes {
    /// Asks. One that can't be sent is one that is not answered.
    pub fn send(&mut self, network: NetworkName, probe: Probe, aim: &Aim) {
        match ask(aim) {
            Ok((token, socket)) => {
                let answers = self.answers.clone();
                task::spawn(async move {
                    if let Ok(Some(answer)) = timeout(PATIENCE, answer_to(token, socket)).await {
                        let _ = answers.send(Event::Answered(network, probe, answer)).await;
                    }
                });
            }
            Err(error) => log::debug!("{network}: no probe to {} over {}: {error}", aim.to, aim.link),
        }
    }

    /// Answers at these addresses from now on, there or not yet, and at no others.
    pub fn listen(&mut self, addresses: &SortedSet<IpAddr>) {
        self.listening.retain(|(address, _)| addresses.contains(address));
        for address in addresses {
            if self.listening.iter().any(|(known, _)| known == address) {
                continue;
            }
            match listener(*address) {
                Ok(socket) => self.listening.push((*address, socket)),
                Err(error) => log::warn!("can't answer probes at {address} port {PROBE_PORT}: {error}"),
            }
        }
    }

    /// Answers a question.
    pub fn answer(&self, question: &Question, says: Says) {
        let Some((_, socket)) = self.listening.iter().find(|(address, _)| *address == question.to) else {
            return;
        };
        if let Err(error) = socket.try_send_to(&answer(question.token, says), question.from) {
            log::debug!("no answer to {}: {error}", question.from);
        }
    }

    /// What comes next.
    pub async fn next(&mut self) -> Event {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(Some(answered)) = self.answered.poll_recv(context) {
            return Poll::Ready(answered);
        }
        let mut asked = self.listening.iter().filter_map(|(to, socket)| poll_question(*to, socket, context));
        asked.next().map_or(Poll::Pending, |question| Poll::Ready(Event::Asked(question)))
    }
}

/// `None` when the socket is of no use any more.
async fn answer_to(token: Token, socket: UdpSocket) -> Option<Answer> {
    let mut bytes = [0; LENGTH + 1];
    loop {
        // A refusal is an error, and makes nothing readable.
        if socket.ready(Interest::READABLE | Interest::ERROR).await.ok()?.is_error() {
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            return socket.take_error().ok()?.is_some_and(refused).then_some(Answer::Refused);
        }
        match socket.try_recv(&mut bytes) {
            Ok(length) => {
                if let Some(Says { v4, v6, .. }) = parse_answer(&bytes[..length], token) {
                    return Some(Answer::Says { v4, v6 });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

fn poll_question(to: IpAddr, socket: &UdpSocket, context: &mut Context<'_>) -> Option<Question> {
    let mut bytes = [0; LENGTH + 1];
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        match socket.poll_recv_from(context, &mut buffer) {
            Poll::Pending => return None,
            Poll::Ready(Ok(from)) => match parse_question(buffer.filled()) {
                Some(token) => return Some(Question { to, from, token }),
                None => continue,
            },
            Poll::Ready(Err(_)) => continue,
        }
    }
}

fn ask(aim: &Aim) -> io::Result<(Token, UdpSocket)> {
    let token = nonce::<8>().map_err(io::Error::other)?;
    let socket = socket(aim.to)?;
    socket.bind_device(Some(aim.link.as_str().as_bytes()))?;
    socket.bind(&SocketAddr::new(aim.from, 0).into())?;
    socket.connect(&SocketAddr::new(aim.to, PROBE_PORT).into())?;
    socket.send(&question(token))?;
    Ok((token, UdpSocket::from_std(socket.into())?))
}

fn listener(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = socket(address)?;
    match address {
        IpAddr::V4(_) => socket.set_freebind_v4(true)?,
        IpAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&SocketAddr::new(address, PROBE_PORT).into())?;
    UdpSocket::from_std(socket.into())
}

/// It carries no mark: it shall go the way of the network's packets.
fn socket(like: IpAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(like, 0)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn question(token: Token) -> [u8; LENGTH] {
    packet(QUESTION, token, 0)
}

fn answer(token: Token, says: Says) -> [u8; LENGTH] {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    packet(ANSWER, token, flag(says.v4, V4) | flag(says.v6, V6) | flag(says.control, CONTROL))
}

/// Kind, token, flags, three bytes for later.
fn packet(kind: [u8; 4], token: Token, flags: u8) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[..4].copy_from_slice(&kind);
    packet[4..12].copy_from_slice(&token);
    packet[12] = flags;
    packet
}

fn parse(packet: &[u8], kind: [u8; 4]) -> Option<(Token, u8)> {
    let rest: &[u8; LENGTH - 4] = packet.strip_prefix(&kind)?.try_into().ok()?;
    Some((*rest.first_chunk()?, rest[8]))
}

fn parse_question(packet: &[u8]) -> Option<Token> {
    parse(packet, QUESTION).map(|(token, _)| token)
}

fn parse_answer(packet: &[u8], token: Token) -> Option<Says> {
    let (repeated, flags) = parse(packet, ANSWER)?;
    let is_set = |flag| flags & flag != 0;
    let says = Says { v4: is_set(V4), v6: is_set(V6), control: is_set(CONTROL) };
    (repeated == token).then_some(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IfName;
    use gatewrt_protocol::NodeId;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const PROBE: Probe = Probe { node: NodeId::from_entropy([1; 10]), id: 7 };
    const SAYS: Says = Says { v4: true, v6: false, control: true };

    fn home() -> NetworkName {
        "home".parse().unwrap()
    }

    /// Loopback addresses stand for those in a tunnel.
    fn aim(last: u8) -> Aim {
        let to = Ipv4Addr::new(127, 0, 51, last).into();
        Aim { link: IfName::new("lo").unwrap(), from: Ipv4Addr::LOCALHOST.into(), to }
    }

    #[test]
    fn what_is_sent_is_read_back() {
        for bits in 0..8u8 {
            let says = Says { v4: bits & 1 != 0, v6: bits & 2 != 0, control: bits & 4 != 0 };
            assert_eq!(parse_answer(&answer([3; 8], says), [3; 8]), Some(says));
            assert_eq!(parse_answer(&answer([3; 8], says), [4; 8]), None, "of another question");
        }
        assert_eq!(parse_question(&question([3; 8])), Some([3; 8]));
        assert_eq!(parse_question(&answer([3; 8], SAYS)), None, "an answer is never answered");
        assert_eq!(parse_answer(&question([3; 8]), [3; 8]), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_neither(packet in proptest::collection::vec(any::<u8>(), 0..40)) {
            let is_question = packet.len() == LENGTH && packet.starts_with(&QUESTION);
            prop_assert_eq!(parse_question(&packet).is_some(), is_question);
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_to_whom_it_is_said() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(1).to].into());
        here.send(home(), PROBE, &aim(1));
        let Event::Asked(asked) = there.next().await else { panic!("a question") };
        assert_eq!((asked.to, asked.from.ip()), (aim(1).to, aim(1).from));
        there.answer(&asked, SAYS);
        let answer = Answer::Says { v4: true, v6: false };
        assert_eq!(here.next().await, Event::Answered(home(), PROBE, answer));
    }

    #[tokio::test]
    async fn where_nobody_listens_any_more_the_kernel_says_so() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(2).to, aim(3).to].into());
        there.listen(&[aim(3).to].into());
        here.send(home(), PROBE, &aim(2));
        assert_eq!(here.next().await, Event::Answered(home(), PROBE, Answer::Refused));
    }

    #[tokio::test]
    async fn an_address_that_is_not_there_yet_is_listened_at() {
        let mut there = Probes::default();
        there.listen(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into());
        assert_eq!(there.listening.len(), 2);
    }
}
