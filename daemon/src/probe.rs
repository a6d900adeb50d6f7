//! Probes in the tunnel: asks other nodes whether they work, and replies to theirs. A probe and its reply are one UDP
//! packet of [`LENGTH`] bytes each; the reply repeats the random token of the probe. [`crate::core`] decides what follows
//! from a reply.
//!
//! A node that has lost its coordinator sets a flag, and the network's policy follows in the reply, as the coordinator
//! signed it. Only the tunnel's peers are answered, at the overlay address that WireGuard holds them to, so that nobody
//! else can have such a reply sent to a third.

use crate::{
    core::{
        gateways::Probe,
        health::Answer,
        serving::{ProbeReply, ProbeTarget},
    },
    identity::nonce,
    ownership::PROBE_PORT,
    task,
};
use gatewrt_protocol::NetworkName;
use socket2::{Domain, Protocol, Socket, Type};
use sorted_vec::SortedSet;
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

/// Length of a probe and of a reply, in bytes.
pub const LENGTH: usize = 16;
/// First bytes of a probe.
const QUESTION: [u8; 4] = *b"gwQ1";
/// First bytes of a reply.
const ANSWER: [u8; 4] = *b"gwA1";
/// Bits of a reply's byte of flags.
const V4: u8 = 1;
const V6: u8 = 2;
const CONTROL: u8 = 4;
/// Flag of a probe: the policy is to follow in the reply.
const POLICY: u8 = 1;
/// Maximum length of a reply with a policy, in bytes.
const LONGEST: usize = 4096;
/// Time a reply is awaited: longer than it is of use.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of replies that wait to be read.
const TAKEN: usize = 16;

/// Random token of a health probe, new for each. Only the other end of the tunnel sees it, so only its reply counts.
type Token = [u8; 8];

/// What a probe asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Whether the node works.
    Health(Probe),
    /// The policy of the network.
    Policy,
}

/// Event of the probe sockets: a reply to a probe of ours, or a probe of another node.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Reply to a probe of ours.
    Answered(NetworkName, Probe, Answer),
    /// Signed policy of a network, as another node has it.
    Told(NetworkName, Vec<u8>),
    /// Probe of another node.
    Asked(Question),
}

/// Probe of another node that arrived at an address of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// Address it arrived at.
    pub to: IpAddr,
    /// The sender.
    pub from: SocketAddr,
    token: Token,
    wants_policy: bool,
}

/// Sockets that send probes to other nodes and reply to theirs.
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
    /// Sends a probe to another node through a network. One that can't be sent counts as one without a reply.
    pub fn send(&mut self, network: NetworkName, asked: Ask, aim: &ProbeTarget) {
        match ask(asked, aim) {
            Ok((token, socket)) => {
                let answers = self.answers.clone();
                task::spawn(async move {
                    let mut bytes = vec![0; if asked == Ask::Policy { LONGEST } else { LENGTH + 1 }];
                    let Ok(Some(answer)) = timeout(PATIENCE, answer_to(token, socket, &mut bytes)).await
                    else {
                        return;
                    };
                    let event = match asked {
                        Ask::Health(probe) => Event::Answered(network, probe, answer),
                        Ask::Policy => Event::Told(network, bytes),
                    };
                    let _ = answers.send(event).await;
                });
            }
            Err(error) => log::debug!("{network}: no probe to {} over {}: {error}", aim.to, aim.link),
        }
    }

    /// Listens for probes of other nodes at these addresses from now on, present or not yet, and at no others.
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

    /// Replies to a probe of another node, with the signed `policy` if it asked for that.
    pub fn answer(&self, question: &Question, reply: ProbeReply, policy: &str) {
        let Some((_, socket)) = self.listening.iter().find(|(address, _)| *address == question.to) else {
            return;
        };
        let mut packet = answer(question.token, reply).to_vec();
        if question.wants_policy && packet.len() + policy.len() <= LONGEST {
            packet.extend_from_slice(policy.as_bytes());
        }
        if let Err(error) = socket.try_send_to(&packet, question.from) {
            log::debug!("no answer to {}: {error}", question.from);
        }
    }

    /// Waits for the next event: a reply to a probe of ours, or a probe of another node.
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

/// Waits on a socket for the reply to the probe with this token, and leaves in `bytes` what follows it; `None` when the
/// socket is of no use any more.
async fn answer_to(token: Token, socket: UdpSocket, bytes: &mut Vec<u8>) -> Option<Answer> {
    loop {
        // A refusal is an error, and makes nothing readable.
        if socket.ready(Interest::READABLE | Interest::ERROR).await.ok()?.is_error() {
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            return socket.take_error().ok()?.is_some_and(refused).then_some(Answer::Refused);
        }
        match socket.try_recv(bytes) {
            Ok(length) => {
                let fits = length < bytes.len();
                let answer = bytes[..length].split_at_checked(LENGTH).filter(|_| fits);
                if let Some(ProbeReply { v4, v6, .. }) =
                    answer.and_then(|(head, _)| parse_answer(head, token))
                {
                    bytes.truncate(length);
                    bytes.drain(..LENGTH);
                    return Some(Answer::Reply { v4, v6 });
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
                Some((token, flags)) => {
                    return Some(Question { to, from, token, wants_policy: flags & POLICY != 0 });
                }
                None => continue,
            },
            Poll::Ready(Err(_)) => continue,
        }
    }
}

fn ask(asked: Ask, aim: &ProbeTarget) -> io::Result<(Token, UdpSocket)> {
    let token = nonce::<8>().map_err(io::Error::other)?;
    let socket = socket(aim.to)?;
    socket.bind_device(Some(aim.link.as_str().as_bytes()))?;
    socket.bind(&SocketAddr::new(aim.from, 0).into())?;
    socket.connect(&SocketAddr::new(aim.to, PROBE_PORT).into())?;
    socket.send(&question(token, asked))?;
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

/// UDP socket for probes, without a mark: probes must go the way of the network's packets.
fn socket(like: IpAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(like, 0)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn question(token: Token, asked: Ask) -> [u8; LENGTH] {
    packet(QUESTION, token, if asked == Ask::Policy { POLICY } else { 0 })
}

fn answer(token: Token, reply: ProbeReply) -> [u8; LENGTH] {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    packet(ANSWER, token, flag(reply.v4, V4) | flag(reply.v6, V6) | flag(reply.control, CONTROL))
}

/// Packet of a probe or a reply: kind, token, flags and three reserved bytes.
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

fn parse_question(packet: &[u8]) -> Option<(Token, u8)> {
    parse(packet, QUESTION)
}

fn parse_answer(packet: &[u8], token: Token) -> Option<ProbeReply> {
    let (repeated, flags) = parse(packet, ANSWER)?;
    let is_set = |flag| flags & flag != 0;
    let reply = ProbeReply { v4: is_set(V4), v6: is_set(V6), control: is_set(CONTROL) };
    (repeated == token).then_some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IfName;
    use gatewrt_protocol::NodeId;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const PROBE: Probe = Probe { node: NodeId::from_entropy([1; 10]), id: 7 };
    const REPLY: ProbeReply = ProbeReply { v4: true, v6: false, control: true };

    fn home() -> NetworkName {
        "home".parse().unwrap()
    }

    /// Loopback addresses stand for those in a tunnel.
    fn aim(last: u8) -> ProbeTarget {
        let to = Ipv4Addr::new(127, 0, 51, last).into();
        ProbeTarget { link: IfName::new("lo").unwrap(), from: Ipv4Addr::LOCALHOST.into(), to }
    }

    #[test]
    fn probe_packet_is_read_back() {
        for bits in 0..8u8 {
            let reply = ProbeReply { v4: bits & 1 != 0, v6: bits & 2 != 0, control: bits & 4 != 0 };
            assert_eq!(parse_answer(&answer([3; 8], reply), [3; 8]), Some(reply));
            assert_eq!(parse_answer(&answer([3; 8], reply), [4; 8]), None, "of another question");
        }
        assert_eq!(parse_question(&question([3; 8], Ask::Health(PROBE))), Some(([3; 8], 0)));
        assert_eq!(parse_question(&question([3; 8], Ask::Policy)), Some(([3; 8], POLICY)));
        assert_eq!(parse_question(&answer([3; 8], REPLY)), None, "an answer is never answered");
        assert_eq!(parse_answer(&question([3; 8], Ask::Policy), [3; 8]), None);
    }

    proptest! {
        #[test]
        fn invalid_packet_is_neither_probe_nor_reply(packet in proptest::collection::vec(any::<u8>(), 0..40)) {
            let is_question = packet.len() == LENGTH && packet.starts_with(&QUESTION);
            prop_assert_eq!(parse_question(&packet).is_some(), is_question);
        }
    }

    #[tokio::test]
    async fn probe_is_answered_to_its_sender() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(1).to].into_iter().collect());
        here.send(home(), Ask::Health(PROBE), &aim(1));
        let Event::Asked(asked) = there.next().await else { panic!("a question") };
        assert_eq!((asked.to, asked.from.ip()), (aim(1).to, aim(1).from));
        there.answer(&asked, REPLY, "a policy nobody asked for");
        let answer = Answer::Reply { v4: true, v6: false };
        assert_eq!(here.next().await, Event::Answered(home(), PROBE, answer));
    }

    #[tokio::test]
    async fn policy_follows_in_the_reply_to_who_asks_for_it() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(4).to].into_iter().collect());
        for (policy, told) in [("signed", "signed"), ("", ""), (&"x".repeat(LONGEST), "")] {
            here.send(home(), Ask::Policy, &aim(4));
            let Event::Asked(asked) = there.next().await else { panic!("a question") };
            there.answer(&asked, REPLY, policy);
            assert_eq!(here.next().await, Event::Told(home(), told.as_bytes().to_vec()));
        }
    }

    #[tokio::test]
    async fn probe_to_a_closed_port_is_reported() {
        let (mut here, mut there) = (Probes::default(), Probes::default());
        there.listen(&[aim(2).to, aim(3).to].into_iter().collect());
        there.listen(&[aim(3).to].into_iter().collect());
        here.send(home(), Ask::Health(PROBE), &aim(2));
        assert_eq!(here.next().await, Event::Answered(home(), PROBE, Answer::Refused));
    }

    #[tokio::test]
    async fn missing_address_is_listened_at_in_advance() {
        let mut there = Probes::default();
        there.listen(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into_iter().collect());
        assert_eq!(there.listening.len(), 2);
    }
}
