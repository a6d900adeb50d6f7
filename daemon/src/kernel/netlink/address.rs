//! Addresses over rtnetlink (`linux/if_addr.h`).

use super::{
    attr::{Message, Received, addr, attrs_after, u32_at},
    socket::{NetlinkError, Socket},
};
use crate::{model::Address, ownership::PROTOCOL};
use nix::libc::{self, AF_INET, AF_INET6, AF_UNSPEC, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use std::net::IpAddr;

const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
/// No duplicate address detection: on a tunnel nobody else can have the address, and it is usable at once.
const IFA_F_NODAD: u32 = 0x02;
/// No route of the kernel's own beside ours.
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// Address of a network interface as rtnetlink lists it, with the interface's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAddress {
    /// `ifindex`.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
    /// Prefix length.
    pub len: u8,
    /// Carries our protocol number.
    pub ours: bool,
}

/// Lists the addresses of every network interface, or of one.
pub fn addresses(socket: &mut Socket, index: Option<u32>) -> Result<Vec<FoundAddress>, NetlinkError> {
    let header = header(AF_UNSPEC as u8, 0, index.unwrap_or(0));
    let found = socket.read(&Message::new(libc::RTM_GETADDR, NLM_F_DUMP, &header), parse)?;
    Ok(found.into_iter().filter(|a| index.is_none_or(|index| a.index == index)).collect())
}

/// Adds an address of ours to the interface of this index.
pub fn add(socket: &mut Socket, index: u32, address: &Address) -> Result<(), NetlinkError> {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = request(libc::RTM_NEWADDR, flags, index, address);
    message.u8(IFA_PROTO, PROTOCOL);
    if address.addr.is_ipv6() {
        message.u32(IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
    }
    socket.change(&message)
}

/// Deletes an address from the interface of this index.
pub fn delete(socket: &mut Socket, index: u32, address: &Address) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_DELADDR, NLM_F_ACK, index, address))
}

fn request(kind: u16, flags: i32, index: u32, address: &Address) -> Message {
    let family = if address.addr.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut message = Message::new(kind, flags, &header(family as u8, address.len, index));
    message.addr(IFA_LOCAL, address.addr).addr(IFA_ADDRESS, address.addr);
    message
}

/// Header of an address message: `struct ifaddrmsg`.
fn header(family: u8, len: u8, index: u32) -> [u8; HEADER] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, len, 0, 0, a, b, c, d]
}

fn parse(received: Received<'_>) -> Option<FoundAddress> {
    let body = received.body;
    let (len, index) = (*body.get(1)?, u32_at(body, 4)?);
    let (mut address, mut local, mut ours) = (None, None, false);
    for (attr, payload) in attrs_after(body, HEADER) {
        match attr {
            IFA_ADDRESS => address = addr(payload),
            IFA_LOCAL => local = addr(payload),
            IFA_PROTO => ours = payload.first() == Some(&PROTOCOL),
            _ => (),
        }
    }
    // With a peer's address, IFA_ADDRESS is the peer's.
    Some(FoundAddress { index, addr: local.or(address)?, len, ours })
}
