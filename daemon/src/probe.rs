//! Probes in the tunnel: asks other nodes whether they work, and answers those that ask. A question and its answer
//! are one UDP packet of [`LENGTH`] bytes each, so that nothing is gained by a forged sender; the answer repeats the
//! random token of the question. What follows from an answer is decided elsewhere.

use crate::{
    core::{
        gateways::{Answer, Probe},
        serving::{Aim, Says},
    },
    identity::random,
    log,
    ownership::PROBE_PORT,
    sorted::SortedSet,
    wait::Wait,
};
use gatewrt_protocol::NetworkName;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
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

/// Chosen anew for each question.
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
#[derive(Debug, Default)]
pub struct Probes {
    unanswered: Vec<Unanswered>,
    listening: Vec<(IpAddr, UdpSocket)>,
}

/// A probe whose answer may still come.
#[derive(Debug)]
struct Unanswered {
    network: NetworkName,
    probe: Probe,
    token: Token,
    socket: UdpSocket,
    by: Instant,
}

impl Probes {
    /// Asks. One that can't be sent is one that is not answered.
    pub fn send(&mut self, network: NetworkName, probe: Probe, aim: &Aim) {
        match ask(aim) {
            Ok((token, socket)) => {
                let by = Instant::now() + PATIENCE;
                self.unanswered.push(Unanswered { network, probe, token, socket, by });
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
        if let Err(error) = socket.send_to(&answer(question.token, says), question.from) {
            log::debug!("no answer to {}: {error}", question.from);
        }
    }

    /// What came next, if anything did.
    pub fn poll(&mut self) -> Option<Event> {
        let outcome = |(at, it): (usize, &Unanswered)| Some((at, it.outcome()?));
        while let Some((at, answer)) = self.unanswered.iter().enumerate().find_map(outcome) {
            let Unanswered { network, probe, .. } = self.unanswered.swap_remove(at);
            if let Some(answer) = answer {
                return Some(Event::Answered(network, probe, answer));
            }
        }
        self.listening.iter().find_map(|(to, socket)| question_at(*to, socket)).map(Event::Asked)
    }

    /// Adds what to wait for.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        for Unanswered { socket, by, .. } in &self.unanswered {
            wait.to_read(socket.as_fd());
            wait.no_longer(*by);
        }
        self.listening.iter().for_each(|(_, socket)| wait.to_read(socket.as_fd()));
    }
}

impl Unanswered {
    /// The answer; none when there will be none; nothing while that is not known.
    fn outcome(&self) -> Option<Option<Answer>> {
        let mut bytes = [0; LENGTH + 1];
        loop {
            match self.socket.recv(&mut bytes) {
                Ok(length) => {
                    if let Some(Says { v4, v6, .. }) = parse_answer(&bytes[..length], self.token) {
                        return Some(Some(Answer::Says { v4, v6 }));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (self.by <= Instant::now()).then_some(None);
                }
                Err(error) => {
                    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    return Some(is_refused.then_some(Answer::Refused));
                }
            }
        }
    }
}

/// What is no question is passed over.
fn question_at(to: IpAddr, socket: &UdpSocket) -> Option<Question> {
    let mut bytes = [0; LENGTH + 1];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).ok()?;
        if let Some(token) = parse_question(&bytes[..length]) {
            return Some(Question { to, from, token });
        }
    }
}

fn ask(aim: &Aim) -> io::Result<(Token, UdpSocket)> {
    let token = random::<8>().map_err(io::Error::other)?;
    let socket = socket(aim.to)?;
    socket.bind_device(Some(aim.link.as_str().as_bytes()))?;
    socket.bind(&SocketAddr::new(aim.from, 0).into())?;
    socket.connect(&SocketAddr::new(aim.to, PROBE_PORT).into())?;
    socket.send(&question(token))?;
    Ok((token, socket.into()))
}

fn listener(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = socket(address)?;
    match address {
        IpAddr::V4(_) => socket.set_freebind_v4(true)?,
        IpAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&SocketAddr::new(address, PROBE_PORT).into())?;
    Ok(socket.into())
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

    fn next(probes: &mut Probes) -> Event {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = probes.poll() {
                return event;
            }
            assert!(Instant::now() < until, "an event");
            let mut wait = Wait::until(until);
            probes.enlist(&mut wait);
            wait.wait();
        }
    }

    #[test]
    fn a_question_is_answered_to_whom_it_is_said() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(1).to].into());
        here.send(home(), PROBE, &aim(1));
        let Event::Asked(asked) = next(&mut there) else { panic!("a question") };
        assert_eq!((asked.to, asked.from.ip()), (aim(1).to, aim(1).from));
        there.answer(&asked, SAYS);
        let answer = Answer::Says { v4: true, v6: false };
        assert_eq!(next(&mut here), Event::Answered(home(), PROBE, answer));
    }

    #[test]
    fn where_nobody_listens_any_more_the_kernel_says_so() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(2).to, aim(3).to].into());
        there.listen(&[aim(3).to].into());
        here.send(home(), PROBE, &aim(2));
        assert_eq!(next(&mut here), Event::Answered(home(), PROBE, Answer::Refused));
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_listened_at() {
        let mut there = Probes::default();
        there.listen(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into());
        assert_eq!(there.listening.len(), 2);
    }
}
