//! Netlink socket for requests that wait for their answers: bounded in time, one request at a time.

use super::attr::{Message, Received, attrs, messages, text, u32_at};
use crate::kernel::KernelError;
use netlink_sys::SocketAddr;
use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike},
    },
};
use std::{fmt, io};

/// Size in bytes up to which the kernel fills a dump's datagrams, if the reader takes as much.
const BUFFER: usize = 32 * 1024;
/// Seconds that the kernel may take to answer.
const PATIENCE: i64 = 5;
/// Maximum number of attempts at a dump whose objects change meanwhile.
const DUMP_ATTEMPTS: usize = 10;
/// `NLMSGERR_ATTR_MSG`, the text of an extended acknowledgement.
const ATTR_MSG: u16 = 1;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Failure of a netlink request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(*errno, text.as_deref()))]
pub struct NetlinkError {
    /// `errno`.
    pub errno: i32,
    /// Text of the kernel beyond that.
    pub text: Option<String>,
}

impl NetlinkError {
    fn plain(errno: i32) -> Self {
        Self { errno, text: None }
    }

    /// True if the `errno` of the failure is one of these.
    pub fn is(&self, errnos: &[i32]) -> bool {
        errnos.contains(&self.errno)
    }

    /// Turns a netlink failure into a [`KernelError`], with what was tried.
    pub fn at(self, what: impl fmt::Display) -> KernelError {
        match self.errno {
            libc::EPERM | libc::EACCES => KernelError::Permission(what.to_string()),
            _ => KernelError::Refused(format!("{what}: {self}")),
        }
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::plain(errno),
            None => Self { errno: libc::EIO, text: Some(error.to_string()) },
        }
    }
}

fn describe(errno: i32, text: Option<&str>) -> String {
    let said = Errno::from_raw(errno).desc();
    match (text, errno) {
        (Some(text), _) => format!("{text} ({said})"),
        (None, libc::EAGAIN) => format!("no answer from the kernel within {PATIENCE} s"),
        (None, _) => said.to_owned(),
    }
}

/// Netlink socket to one part of the kernel, such as rtnetlink.
pub struct Socket {
    inner: netlink_sys::Socket,
    protocol: isize,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Socket {
    /// Opens a netlink socket of `protocol`, such as `NETLINK_ROUTE`, in the network namespace of the calling thread.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { inner: connect(protocol)?, protocol, sequence: 0, buffer })
    }

    /// Sends a netlink request that changes something, and waits until it is acknowledged.
    pub fn change(&mut self, message: &Message) -> Result<(), NetlinkError> {
        self.exchange(message, &mut |_| ()).map(|_| ())
    }

    /// Sends a netlink request for one object (with `NLM_F_ACK`), or for all (with `NLM_F_DUMP`), and gives what
    /// `parse` makes of the answers. A dump that was overtaken by a change is begun anew.
    pub fn read<T>(
        &mut self,
        message: &Message,
        mut parse: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            if self.exchange(message, &mut |received| found.extend(parse(received)))? {
                return Ok(found);
            }
        }
        Err(NetlinkError { errno: libc::EINTR, text: Some("it changes all the time".into()) })
    }

    /// Sends one netlink request and takes the answers; true if they are consistent. After an error that may leave
    /// answers behind, the socket is replaced.
    fn exchange(
        &mut self,
        message: &Message,
        take: &mut dyn FnMut(Received<'_>),
    ) -> Result<bool, NetlinkError> {
        let outcome = self.send(message).and_then(|()| self.receive(take));
        match outcome {
            Ok(Answer { whole, end }) => end.map(|()| whole),
            Err(broken) => {
                self.inner = connect(self.protocol)?;
                Err(broken.into())
            }
        }
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.inner.send(&message.bytes(self.sequence), 0).map(|_| ())
    }

    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> io::Result<Answer> {
        let mut whole = true;
        loop {
            let len = match self.inner.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let Some(datagram) = self.buffer.get(..len) else {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            };
            for received in messages(datagram).filter(|m| m.sequence == self.sequence) {
                whole &= received.flags & NLM_F_DUMP_INTR == 0;
                match i32::from(received.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return Ok(Answer { whole, end: verdict(received) });
                    }
                    libc::NLMSG_NOOP => (),
                    _ => take(received),
                }
            }
        }
    }
}

struct Answer {
    whole: bool,
    end: Result<(), NetlinkError>,
}

fn connect(protocol: isize) -> io::Result<netlink_sys::Socket> {
    let mut socket = netlink_sys::Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    // Older kernels lack these: errors say less then, and filters are ours alone.
    let _ = socket.set_cap_ack(true);
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_netlink_get_strict_chk(true);
    Ok(socket)
}

/// Outcome in a message `NLMSG_ERROR` or `NLMSG_DONE`, which begins with 0 or a negative `errno`.
fn verdict(received: Received<'_>) -> Result<(), NetlinkError> {
    let code = u32_at(received.body, 0).unwrap_or(0) as i32;
    if code >= 0 {
        return Ok(());
    }
    Err(NetlinkError { errno: code.wrapping_neg(), text: said(received) })
}

/// Text of the kernel in an extended acknowledgement (`netlink_ack_tlv_fill` in the kernel).
fn said(received: Received<'_>) -> Option<String> {
    if received.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = u32_at(received.body, 4)? as usize;
    let skip = match i32::from(received.kind) == libc::NLMSG_DONE {
        true => 4,
        false if received.flags & NLM_F_CAPPED != 0 => 4 + 16,
        false => 4 + echoed.next_multiple_of(4),
    };
    attrs(received.body.get(skip..)?).value(ATTR_MSG).and_then(text).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(flags: u16, body: &[u8]) -> Received<'_> {
        Received { kind: libc::NLMSG_ERROR as u16, flags, sequence: 1, body }
    }

    #[test]
    fn extended_acknowledgement_is_read() {
        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend([0; 16]);
        body.extend([9u16.to_ne_bytes(), ATTR_MSG.to_ne_bytes()].concat());
        body.extend(b"no!!\0\0\0\0");
        let error = verdict(received(NLM_F_CAPPED | NLM_F_ACK_TLVS, &body)).expect_err("an errno");
        assert_eq!(error, NetlinkError { errno: libc::EINVAL, text: Some("no!!".into()) });
        assert_eq!(error.to_string(), "no!! (Invalid argument)");
    }

    #[test]
    fn zero_errno_is_success_and_invalid_reply_no_panic() {
        assert_eq!(verdict(received(0, &[0; 20])), Ok(()));
        assert_eq!(verdict(received(NLM_F_ACK_TLVS, &[])), Ok(()));
        let short = i32::MIN.to_ne_bytes();
        assert!(verdict(received(NLM_F_ACK_TLVS, &short)).is_err());
    }

    #[test]
    fn missing_permission_is_its_own_error() {
        let error = NetlinkError::plain(libc::EPERM).at("add a route");
        assert_eq!(error, KernelError::Permission("add a route".into()));
    }
}
