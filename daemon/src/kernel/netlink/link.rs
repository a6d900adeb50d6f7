//! Interfaces over rtnetlink (`linux/if_link.h`).

use super::{
    attr::{Message, Received, attrs, attrs_after, text, u32_at},
    socket::{NetlinkError, Socket},
};
use crate::model::{IfName, Link, LinkKind};
use nix::libc::{self, AF_UNSPEC, IFF_UP, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

const HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER: u16 = 33;
const IFLA_INFO_KIND: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// Network interface as rtnetlink lists it, with data that only this driver needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLink {
    /// Name of the interface.
    pub name: IfName,
    /// Data for the plan.
    pub link: Link,
    /// True if something is attached: a program to a TUN device, a cable to a port.
    pub carrier: bool,
}

/// Lists every network interface.
pub fn links(socket: &mut Socket) -> Result<Vec<FoundLink>, NetlinkError> {
    let mut message = Message::new(libc::RTM_GETLINK, NLM_F_DUMP, &header(0, 0, 0));
    message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    socket.read(&message, parse)
}

/// Looks for the network interface of this name; `None` when there is none.
pub fn link(socket: &mut Socket, name: &IfName) -> Result<Option<FoundLink>, NetlinkError> {
    let mut message = Message::new(libc::RTM_GETLINK, NLM_F_ACK, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name.as_str()).u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    match socket.read(&message, parse) {
        Err(error) if error.is(&[libc::ENODEV]) => Ok(None),
        found => Ok(found?.pop()),
    }
}

/// Makes a kernel WireGuard interface. `EOPNOTSUPP`: this kernel has none.
pub fn add_wireguard(socket: &mut Socket, name: &IfName, mtu: u32) -> Result<(), NetlinkError> {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWLINK, flags, &header(0, 0, 0));
    message.text(IFLA_IFNAME, name.as_str()).u32(IFLA_MTU, mtu);
    message.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "wireguard");
    });
    socket.change(&message)
}

/// Removes the network interface of this index.
pub fn delete(socket: &mut Socket, index: u32) -> Result<(), NetlinkError> {
    socket.change(&Message::new(libc::RTM_DELLINK, NLM_F_ACK, &header(index, 0, 0)))
}

/// Sets the MTU of a network interface, in bytes.
pub fn set_mtu(socket: &mut Socket, index: u32, mtu: u32) -> Result<(), NetlinkError> {
    let mut message = Message::new(libc::RTM_NEWLINK, NLM_F_ACK, &header(index, 0, 0));
    socket.change(message.u32(IFLA_MTU, mtu))
}

/// Sets a network interface up.
pub fn set_up(socket: &mut Socket, index: u32) -> Result<(), NetlinkError> {
    let up = IFF_UP as u32;
    socket.change(&Message::new(libc::RTM_NEWLINK, NLM_F_ACK, &header(index, up, up)))
}

/// Header of an interface message: `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0] = AF_UNSPEC as u8;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn parse(received: Received<'_>) -> Option<FoundLink> {
    let body = received.body;
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let (mut name, mut mtu, mut kind, mut carrier) = (None, 0, LinkKind::Other, false);
    for (attr, payload) in attrs_after(body, HEADER) {
        match attr {
            IFLA_IFNAME => name = text(payload).and_then(IfName::new),
            IFLA_MTU => mtu = u32_at(payload, 0)?,
            IFLA_CARRIER => carrier = payload.first() == Some(&1),
            IFLA_LINKINFO => kind = kind_of(payload),
            _ => (),
        }
    }
    let up = flags & IFF_UP as u32 != 0;
    Some(FoundLink { name: name?, link: Link { index, kind, up, mtu }, carrier })
}

fn kind_of(info: &[u8]) -> LinkKind {
    match attrs(info).value(IFLA_INFO_KIND).and_then(text) {
        Some("wireguard") => LinkKind::WireGuard,
        Some("tun") => LinkKind::Tun,
        _ => LinkKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::attr::messages;

    #[test]
    fn interface_message_is_read() {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &header(7, IFF_UP as u32, 0));
        message.text(IFLA_IFNAME, "gw-home").u32(IFLA_MTU, 1420).u8(IFLA_CARRIER, 1);
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "wireguard");
        });
        let bytes = message.bytes(1);
        let found = messages(&bytes).find_map(parse).expect("a link");
        let link = Link { index: 7, kind: LinkKind::WireGuard, up: true, mtu: 1420 };
        assert_eq!(found, FoundLink { name: IfName::new("gw-home").expect("valid"), link, carrier: true });
    }
}
