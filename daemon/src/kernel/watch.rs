//! Watch for changes of anything that a plan looks at: links, addresses, routes, rules, firewall tables. It only tells that
//! something changed: the next observation finds out what.

use super::{
    KernelError,
    netlink::attr::{Received, attrs_after, messages, u32_at},
};
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

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`, `_IPV6_RULE`.
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// `NFNLGRP_NFTABLES`
const GROUP_NFTABLES: u32 = 7;
/// Size in bytes of the socket's queue, so that a burst, such as a routing daemon's, does not overrun it. The kernel's
/// default is less, and an overrun is reported as an error.
const QUEUE: i32 = 512 * 1024;
const BUFFER: usize = 32 * 1024;
/// Maximum number of datagrams read at once: a storm must not hold up the rest of the daemon.
const MOST: usize = 2000;

const IFLA_IFNAME: u16 = 3;
const IFLA_WIRELESS: u16 = 11;

/// Watch for changes in the kernel, readable when there was one; for an event loop (`AsRawFd`, never blocks).
pub struct Watch {
    ready: Epoll,
    route: Socket,
    /// `None` on a kernel without nftables.
    firewall: Option<Socket>,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Opens a watch for changes in the kernel, in the network namespace of the calling thread.
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

    /// Reads all pending events of the kernel; true if one of them was a change. It never blocks, and in a storm it
    /// stops after a while: what is left then is older than the next observation.
    pub fn drain(&mut self) -> bool {
        let network = read_all(&self.route, &mut self.buffer, is_relevant);
        let firewall = self.firewall.as_ref().is_some_and(|it| read_all(it, &mut self.buffer, |_| true));
        network || firewall
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
    // ReservedNumbers beyond 31 have no bit in the address.
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    let _ = socket.set_rx_buf_sz(QUEUE);
    Ok(socket)
}

/// Reads the pending events of a netlink socket; true if one of them counts. Lost events do: anything may have changed.
fn read_all(socket: &Socket, buffer: &mut [u8], counts: fn(&Received<'_>) -> bool) -> bool {
    let mut changed = false;
    for _ in 0..MOST {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(len) => changed |= messages(&buffer[..len.min(buffer.len())]).any(|event| counts(&event)),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // ENOBUFS says that events were lost, and more may be pending. After any other error there is nothing to read.
            Err(error) => {
                changed = true;
                if error.raw_os_error() != Some(Errno::ENOBUFS as i32) {
                    break;
                }
            }
        }
    }
    changed
}

/// True if a plan reads the object of a kernel event. Cached, local and multicast routes, a bridge's ports and a
/// radio's scans are not among these objects.
fn is_relevant(event: &Received<'_>) -> bool {
    let body = event.body;
    match event.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let is_bridge = body.first().is_none_or(|family| *family == libc::AF_BRIDGE as u8);
            let has = |kind| attrs_after(body, 16).value(kind).is_some();
            !is_bridge && has(IFLA_IFNAME) && !has(IFLA_WIRELESS)
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => is_route(body).unwrap_or_default(),
        libc::RTM_NEWADDR | libc::RTM_DELADDR | libc::RTM_NEWRULE | libc::RTM_DELRULE => true,
        _ => false,
    }
}

/// True if a route message is about a route that forwards or blocks packets; `None` when the message is truncated.
fn is_route(body: &[u8]) -> Option<bool> {
    let flags = u32_at(body, 8)?;
    let kinds =
        [libc::RTN_UNICAST, libc::RTN_BLACKHOLE, libc::RTN_UNREACHABLE, libc::RTN_PROHIBIT, libc::RTN_THROW];
    Some(kinds.contains(body.get(7)?) && flags & libc::RTM_F_CLONED == 0)
}
