//! Kernel WireGuard over generic netlink (`linux/wireguard.h`). The messages are built here: the library for it logs
//! them, keys included, and gives up silently on a dump that changes.

use super::{Action, PeerOrder};
use crate::{
    kernel::{
        KernelError,
        netlink::{
            attr::{Message, Received, addr, attrs, attrs_after, u16_at, u32_at, u64_at},
            socket::{NetlinkError, Socket},
        },
    },
    model::{IfName, NO_PSK, WgCounters, WgDevice, WgPeer, WgSecret, WgSettings},
};
use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use nix::libc::{self, AF_INET, AF_INET6, ENODEV, ENOENT, NLM_F_ACK, NLM_F_DUMP};
use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

const GENL_HEADER: usize = 4;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;

const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_FWMARK: u16 = 7;
const DEVICE_PEERS: u16 = 8;

const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;

const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDR: u16 = 2;
const ALLOWED_LEN: u16 = 3;

const REMOVE_ME: u32 = 1;
const REPLACE_ALLOWED_IPS: u32 = 2;
const UPDATE_ONLY: u32 = 4;

/// Longest list of peers in one message, in bytes: the attribute that holds it has a length of 16 bits.
const MOST_BYTES: usize = 60_000;
/// Upper bounds in bytes for one allowed IP, and for one peer without allowed IPs.
const ALLOWED_BYTES: usize = 40;
const PEER_BYTES: usize = 180;

/// Connection to the kernel's WireGuard, over generic netlink.
pub struct Genl {
    socket: Socket,
    family: u16,
}

impl Genl {
    /// Connects to the kernel's WireGuard; fails when this kernel has none.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Socket::open(netlink_sys::protocols::NETLINK_GENERIC);
        let mut socket = socket.map_err(|e| e.at("open generic netlink"))?;
        match family(&mut socket) {
            Ok(family) => Ok(Self { socket, family }),
            Err(error) if error.is(&[ENOENT]) => {
                Err(KernelError::Missing("this kernel has no WireGuard: install kmod-wireguard".into()))
            }
            Err(error) => Err(error.at("look for WireGuard in the kernel")),
        }
    }

    /// Reads a WireGuard interface of the kernel; `None` when there is none of that name.
    pub fn read(&mut self, name: &IfName) -> Result<Option<WgDevice>, KernelError> {
        let mut message = self.message(WG_CMD_GET_DEVICE, NLM_F_DUMP);
        message.text(DEVICE_IFNAME, name.as_str());
        match self.socket.read(&message, part) {
            Err(error) if error.is(&[ENODEV]) => Ok(None),
            parts => Ok(Some(merge(parts.map_err(|e| e.at(format_args!("read WireGuard of {name}")))?))),
        }
    }

    /// Sets private key, port and mark of a WireGuard interface of the kernel; the peers stay.
    pub fn set_device(&mut self, name: &IfName, settings: &WgSettings) -> Result<(), KernelError> {
        let mut message = self.message(WG_CMD_SET_DEVICE, NLM_F_ACK);
        fill_device(&mut message, name, settings);
        self.socket.change(&message).map_err(|e| e.at(format_args!("set up WireGuard on {name}")))
    }

    /// Changes peers of a WireGuard interface of the kernel as `orders` say, in one message, or as few as they fit in.
    pub fn set_peers(&mut self, name: &IfName, orders: &[PeerOrder]) -> Result<(), KernelError> {
        for batch in batches(orders) {
            let mut message = self.message(WG_CMD_SET_DEVICE, NLM_F_ACK);
            fill_peers(&mut message, name, &batch);
            let outcome = self.socket.change(&message);
            outcome.map_err(|e| e.at(format_args!("set peers of {name}")))?;
        }
        Ok(())
    }

    fn message(&self, command: u8, flags: i32) -> Message {
        Message::new(self.family, flags, &[command, 1, 0, 0])
    }
}

fn family(socket: &mut Socket) -> Result<u16, NetlinkError> {
    let mut message = Message::new(GENL_ID_CTRL, NLM_F_ACK, &[CTRL_CMD_GETFAMILY, 2, 0, 0]);
    message.text(CTRL_ATTR_FAMILY_NAME, "wireguard");
    let found = socket.read(&message, |received| {
        let mut attrs = attrs_after(received.body, GENL_HEADER);
        attrs.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID).and_then(|(_, payload)| u16_at(payload, 0))
    })?;
    found.first().copied().ok_or(NetlinkError { errno: ENOENT, text: None })
}

fn fill_device(message: &mut Message, name: &IfName, settings: &WgSettings) {
    message.text(DEVICE_IFNAME, name.as_str()).attr(DEVICE_PRIVATE_KEY, &settings.secret.0);
    message.u16(DEVICE_LISTEN_PORT, settings.port).u32(DEVICE_FWMARK, settings.mark);
}

fn fill_peers(message: &mut Message, name: &IfName, orders: &[PeerOrder]) {
    message.text(DEVICE_IFNAME, name.as_str()).nest(DEVICE_PEERS, |peers| {
        for order in orders {
            peers.nest(0, |peer| fill_peer(peer, order));
        }
    });
}

fn fill_peer(peer: &mut Message, order: &PeerOrder) {
    let action = match order.action {
        Action::Make => 0,
        Action::Update => UPDATE_ONLY,
        Action::Remove => REMOVE_ME,
    };
    let replace = if order.replace { REPLACE_ALLOWED_IPS } else { 0 };
    peer.attr(PEER_PUBLIC_KEY, &order.key.0).u32(PEER_FLAGS, action | replace);
    if let Some(endpoint) = order.endpoint {
        peer.attr(PEER_ENDPOINT, &sockaddr(endpoint));
    }
    if let Some(psk) = order.psk {
        peer.attr(PEER_PRESHARED_KEY, &psk.0);
    }
    if let Some(keepalive) = order.keepalive {
        peer.u16(PEER_KEEPALIVE, keepalive);
    }
    if !order.allowed.is_empty() {
        peer.nest(PEER_ALLOWED_IPS, |list| {
            order.allowed.iter().for_each(|prefix| fill_allowed(list, prefix))
        });
    }
}

fn fill_allowed(list: &mut Message, prefix: &Prefix) {
    let family = if prefix.is_ipv4() { AF_INET } else { AF_INET6 };
    list.nest(0, |allowed| {
        allowed.u16(ALLOWED_FAMILY, family as u16).addr(ALLOWED_ADDR, prefix.addr());
        allowed.u8(ALLOWED_LEN, prefix.len());
    });
}

/// Cuts changes of peers into batches where a message would be too long; what is left of a peer then only adds to it.
fn batches(orders: &[PeerOrder]) -> Vec<Vec<PeerOrder>> {
    let (mut batches, mut batch, mut room) = (Vec::new(), Vec::new(), MOST_BYTES);
    for order in orders {
        let mut rest = order.clone();
        while PEER_BYTES + rest.allowed.len() * ALLOWED_BYTES > room {
            let fits = room.saturating_sub(PEER_BYTES) / ALLOWED_BYTES;
            if fits > 0 && fits < rest.allowed.len() {
                let later = rest.allowed.drain(fits..).collect();
                batch.push(rest);
                rest = PeerOrder {
                    key: order.key,
                    action: Action::Update,
                    endpoint: None,
                    keepalive: None,
                    psk: None,
                    replace: false,
                    allowed: later,
                };
            }
            batches.push(std::mem::take(&mut batch));
            room = MOST_BYTES;
        }
        room -= PEER_BYTES + rest.allowed.len() * ALLOWED_BYTES;
        batch.push(rest);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Endpoint as `struct sockaddr_in` or `sockaddr_in6`: the family in the machine's order, the port in the network's.
fn sockaddr(endpoint: SocketAddr) -> Vec<u8> {
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(v4) => {
            let family = (AF_INET as u16).to_ne_bytes();
            [&family[..], &port, &v4.ip().octets(), &[0; 8]].concat()
        }
        SocketAddr::V6(v6) => {
            let (family, scope) = ((AF_INET6 as u16).to_ne_bytes(), v6.scope_id().to_ne_bytes());
            [&family[..], &port, &[0; 4], &v6.ip().octets(), &scope].concat()
        }
    }
}

fn endpoint(sockaddr: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(sockaddr.get(2..4)?.try_into().ok()?);
    match i32::from(u16_at(sockaddr, 0)?) {
        libc::AF_INET => Some(SocketAddr::new(addr(sockaddr.get(4..8)?)?, port)),
        libc::AF_INET6 => {
            let IpAddr::V6(ip) = addr(sockaddr.get(8..24)?)? else { return None };
            Some(SocketAddrV6::new(ip, port, 0, u32_at(sockaddr, 24)?).into())
        }
        _ => None,
    }
}

/// Parsed message of a dump of a WireGuard interface.
#[derive(Debug, Default)]
struct Part {
    secret: Option<[u8; 32]>,
    port: u16,
    mark: u32,
    peers: Vec<PeerPart>,
}

/// WireGuard peer as far as one message has it: one with many allowed IPs goes on in the next, by its key.
#[derive(Debug)]
struct PeerPart {
    key: WgPublicKey,
    peer: WgPeer,
    counters: WgCounters,
}

fn part(received: Received<'_>) -> Option<Part> {
    let mut part = Part::default();
    for (kind, payload) in attrs_after(received.body, GENL_HEADER) {
        match kind {
            DEVICE_PRIVATE_KEY => part.secret = payload.try_into().ok().filter(|key| *key != [0; 32]),
            DEVICE_LISTEN_PORT => part.port = u16_at(payload, 0)?,
            DEVICE_FWMARK => part.mark = u32_at(payload, 0)?,
            DEVICE_PEERS => part.peers = attrs(payload).filter_map(|(_, peer)| peer_part(peer)).collect(),
            _ => (),
        }
    }
    Some(part)
}

fn peer_part(bytes: &[u8]) -> Option<PeerPart> {
    let (mut key, mut counters) = (None, WgCounters::default());
    let mut peer = WgPeer { endpoint: None, allowed: Default::default(), keepalive: 0, psk: None };
    for (kind, payload) in attrs(bytes) {
        match kind {
            PEER_PUBLIC_KEY => key = payload.try_into().ok().map(WgPublicKey),
            PEER_PRESHARED_KEY => {
                let psk = payload.try_into().ok().map(PresharedKey);
                peer.psk = psk.filter(|psk| *psk != NO_PSK);
            }
            PEER_ENDPOINT => peer.endpoint = endpoint(payload),
            PEER_KEEPALIVE => peer.keepalive = u16_at(payload, 0)?,
            PEER_LAST_HANDSHAKE => counters.handshake = handshake(payload),
            PEER_RX_BYTES => counters.rx = u64_at(payload, 0)?,
            PEER_TX_BYTES => counters.tx = u64_at(payload, 0)?,
            PEER_ALLOWED_IPS => peer.allowed.extend(attrs(payload).filter_map(|(_, ip)| allowed(ip))),
            _ => (),
        }
    }
    Some(PeerPart { key: key?, peer, counters })
}

/// Time of a peer's last handshake, since 1970, from `struct __kernel_timespec`: 64 bits each, on every machine. All
/// zero: never.
fn handshake(payload: &[u8]) -> Option<Duration> {
    let (seconds, nanoseconds) = (u64_at(payload, 0)?, u64_at(payload, 8)?);
    let since = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds));
    (!since.is_zero()).then_some(since)
}

fn allowed(bytes: &[u8]) -> Option<Prefix> {
    let (mut address, mut len) = (None, None);
    for (kind, payload) in attrs(bytes) {
        match kind {
            ALLOWED_ADDR => address = addr(payload),
            ALLOWED_LEN => len = payload.first().copied(),
            _ => (),
        }
    }
    Prefix::containing(address?, len?).ok()
}

/// Merges the messages of a dump into one WireGuard interface: the first has its settings; a peer's first part has all
/// but the rest of its allowed IPs.
fn merge(parts: Vec<Part>) -> WgDevice {
    let mut device = WgDevice {
        settings: None,
        peers: Default::default(),
        counters: Default::default(),
        backend: "kernel".to_owned(),
    };
    for part in parts {
        let Part { secret, port, mark, peers } = part;
        if let Some(secret) = secret {
            device.settings = Some(WgSettings { secret: WgSecret(secret), port, mark });
        }
        for PeerPart { key, peer, counters } in peers {
            device.counters.entry(key).or_insert(counters);
            match device.peers.get_mut(&key) {
                Some(known) => known.allowed.extend(peer.allowed),
                None => drop(device.peers.insert(key, peer)),
            }
        }
    }
    device
}

#[cfg(test)]
mod tests;
