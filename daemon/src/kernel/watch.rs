//! Tells when something changed that a plan looks at: links, addresses, routes, rules, firewall tables. What
//! changed is for the next observation to find out; here nothing is kept.

use super::{KernelError, netlink::attr::messages};
use crate::ownership::{INTERFACE_PREFIX, PROTOCOL};
use netlink_sys::{
    Socket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::{
    errno::Errno,
    libc,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
};
use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use super::netlink::attr::{Received, attrs_after, text};

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`, `_IPV6_RULE`.
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// `NFNLGRP_NFTABLES`
const GROUP_NFTABLES: u32 = 7;
/// So that a burst, such as a routing daemon's, does not overrun it. The kernel allows less by default, and
/// says so with an overrun.
const QUEUE: i32 = 512 * 1024;
const BUFFER: usize = 32 * 1024;
/// At most this many datagrams at once: a storm must not hold up the rest of the daemon.
const MOST: usize = 2000;

const IFLA_IFNAME: u16 = 3;
const IFLA_WIRELESS: u16 = 11;
const IFA_PROTO: u16 = 11;

/// What changed since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// A link, address, route or rule, ours or foreign.
    pub network: bool,
    /// Of those, a link, address or route that is not ours: the way to the Internet may be another.
    pub wan: bool,
    /// A firewall table.
    pub firewall: bool,
    /// Events were lost: anything may have changed.
    pub overrun: bool,
}

impl Changes {
    /// Whether anything changed.
    pub fn any(&self) -> bool {
        self.network || self.firewall || self.overrun
    }
}

/// Readable when something changed; for an event loop (`AsRawFd`, never blocks).
pub struct Watch {
    ready: Epoll,
    route: Socket,
    /// `None` on a kernel without nftables.
    firewall: Option<Socket>,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Begins in the network namespace of the thread that calls.
    pub fn open() -> Result<Self, KernelError> {
        Self::begin().map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => KernelError::Permission("watch the kernel".into()),
            _ => KernelError::Refused(format!("watch the kernel: {error}")),
        })
    }

    fn begin() -> io::Result<Self> {
        let route = subscribe(NETLINK_ROUTE, &GROUPS)?;
        let firewall = match subscribe(NETLINK_NETFILTER, &[GROUP_NFTABLES]) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => None,
            other => Some(other?),
        };
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for socket in [Some(&route), firewall.as_ref()].into_iter().flatten() {
            ready.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(Self { ready, route, firewall, buffer: vec![0; BUFFER].into_boxed_slice() })
    }

    /// Reads all that is there. Never blocks; in a storm it stops after a while. What is left then is older
    /// than the next observation.
    pub fn drain(&mut self) -> Changes {
        let mut changes = Changes::default();
        read_all(&self.route, &mut self.buffer, &mut changes, note_network);
        if let Some(firewall) = &self.firewall {
            read_all(firewall, &mut self.buffer, &mut changes, |changes, _| changes.firewall = true);
        }
        changes
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.ready.0.as_raw_fd()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.set_non_blocking(true)?;
    socket.bind_auto()?;
    // Numbers beyond 31 have no bit in the address.
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    let _ = socket.set_rx_buf_sz(QUEUE);
    Ok(socket)
}

fn read_all(socket: &Socket, buffer: &mut [u8], changes: &mut Changes, note: fn(&mut Changes, Received<'_>)) {
    for _ in 0..MOST {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(len) => messages(&buffer[..len.min(buffer.len())]).for_each(|m| note(changes, m)),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // ENOBUFS, and whatever else: look at everything.
            Err(error) => {
                changes.overrun = true;
                if error.raw_os_error() != Some(Errno::ENOBUFS as i32) {
                    return;
                }
            }
        }
    }
}

fn note_network(changes: &mut Changes, received: Received<'_>) {
    let Some(ours) = relevant(received) else { return };
    changes.network = true;
    changes.wan |= !ours && !matches!(received.kind, libc::RTM_NEWRULE | libc::RTM_DELRULE);
}

/// Whether it is about something of ours; `None` for what no plan looks at: routes of a cache, local and
/// multicast ones, a bridge's ports, a radio's scans.
fn relevant(received: Received<'_>) -> Option<bool> {
    let body = received.body;
    match received.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let mut name = None;
            for (kind, payload) in attrs_after(body, 16) {
                match kind {
                    IFLA_IFNAME => name = text(payload),
                    IFLA_WIRELESS => return None,
                    _ => (),
                }
            }
            let bridge = *body.first()? == libc::AF_BRIDGE as u8;
            (!bridge).then_some(name?.starts_with(INTERFACE_PREFIX))
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            Some(attrs_after(body, 8).value(IFA_PROTO) == Some(&[PROTOCOL]))
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let (protocol, kind) = (*body.get(5)?, *body.get(7)?);
            let flags = super::netlink::attr::u32_at(body, 8)?;
            let packets = matches!(
                kind,
                libc::RTN_UNICAST
                    | libc::RTN_BLACKHOLE
                    | libc::RTN_UNREACHABLE
                    | libc::RTN_PROHIBIT
                    | libc::RTN_THROW
            );
            (packets && flags & libc::RTM_F_CLONED == 0).then_some(protocol == PROTOCOL)
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(false),
        _ => None,
    }
}
