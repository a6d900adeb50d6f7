//! Userspace WireGuard over its socket (<https://www.wireguard.com/xplatform/>): bounded in time and size.

use super::{Action, PeerOrder};
use crate::model::{NO_PSK, WgCounters, WgDevice, WgPeer, WgSecret, WgSettings};
use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket,
            sockopt::{ReceiveTimeout, SendTimeout},
        },
        time::{TimeVal, TimeValLike},
    },
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, SocketAddrV6},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};
use wireguard_uapi::xplatform::set;

/// Seconds for one read or write; twice that for a whole answer.
const PATIENCE: i64 = 3;
/// Longest answer in bytes: about twenty thousand peers.
const MOST_BYTES: usize = 8 << 20;

/// Failure to read or set a userspace implementation of WireGuard.
#[derive(Debug, thiserror::Error)]
pub enum UapiError {
    /// No process at the socket, or none that answers.
    #[error("{}", io_text(.0))]
    Io(io::Error),
    /// Invalid answer, with the part at fault.
    #[error("it answers nonsense: {0}")]
    Nonsense(String),
    /// Refusal with this `errno`.
    #[error("it refused: {}", Errno::from_raw(.0.wrapping_abs()).desc())]
    Refused(i32),
    /// Implementation that does not show its private key, so that its settings can't be compared (`boringtun-cli` 0.7,
    /// which also panics when a peer changes).
    #[error("it can't be told how it is set, only set; use wireguard-go")]
    Unfit,
}

impl UapiError {
    /// True if the implementation of WireGuard is dead: no socket, or one that its process left behind.
    pub fn is_dead(&self) -> bool {
        let Self::Io(error) = self else { return false };
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    }
}

impl From<io::Error> for UapiError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads a WireGuard interface from the socket of its userspace implementation. Its `backend` is for the caller to
/// fill.
pub fn read(path: &Path) -> Result<WgDevice, UapiError> {
    parse(&ask(path, "get=1\n\n")?)
}

/// Sends one update of a WireGuard interface to the socket of its userspace implementation.
pub fn set(path: &Path, device: &set::Device) -> Result<(), UapiError> {
    match errno(&ask(path, &format!("set=1\n{device}\n"))?)? {
        0 => Ok(()),
        errno => Err(UapiError::Refused(errno)),
    }
}

/// Update of a WireGuard interface from `before` to `settings`, without an unchanged port: to set it again would close
/// and open it.
pub fn device(settings: &WgSettings, before: Option<&WgSettings>) -> set::Device {
    let differs = |same: &dyn Fn(&WgSettings) -> bool| !before.is_some_and(same);
    set::Device {
        private_key: differs(&|b| b.secret == settings.secret).then_some(settings.secret.0),
        listen_port: differs(&|b| b.port == settings.port).then_some(settings.port),
        fwmark: differs(&|b| b.mark == settings.mark).then_some(settings.mark),
        ..set::Device::default()
    }
}

/// Update of one WireGuard peer, as userspace implementations take it.
pub fn peer(order: &PeerOrder) -> set::Peer {
    let allowed = |prefix: &Prefix| set::AllowedIp { ipaddr: prefix.addr(), cidr_mask: prefix.len() };
    set::Peer {
        endpoint: order.endpoint,
        persistent_keepalive_interval: order.keepalive,
        preshared_key: order.psk.map(|psk| psk.0),
        allowed_ips: order.allowed.iter().map(allowed).collect(),
        ..set::Peer::from_public_key(order.key.0)
    }
    .remove(order.action == Action::Remove)
    .update_only(order.action == Action::Update)
    .replace_allowed_ips(order.replace)
}

fn ask(path: &Path, request: &str) -> Result<String, UapiError> {
    let mut stream = open(path)?;
    stream.write_all(request.as_bytes())?;
    let deadline = Instant::now() + 2 * Duration::from_secs(PATIENCE as u64);
    let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
    // The connection stays open for more requests: an empty line ends an answer.
    while !answer.ends_with(b"\n\n") {
        let len = match stream.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        answer.extend_from_slice(&buffer[..len]);
        if answer.len() > MOST_BYTES || Instant::now() > deadline {
            return Err(UapiError::Nonsense("no end".into()));
        }
    }
    String::from_utf8(answer).map_err(|_| UapiError::Nonsense("no text".into()))
}

/// Connects to the socket of a userspace implementation, bounded in time as a whole: a full backlog would hold a plain
/// `connect`.
fn open(path: &Path) -> io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, SendTimeout, &TimeVal::seconds(PATIENCE))?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

fn errno(answer: &str) -> Result<i32, UapiError> {
    let value = answer.lines().rev().find_map(|line| line.strip_prefix("errno="));
    let number = value.and_then(|v| v.parse().ok());
    number.ok_or_else(|| UapiError::Nonsense("it ends too early".into()))
}

fn parse(answer: &str) -> Result<WgDevice, UapiError> {
    match errno(answer)? {
        0 => (),
        errno => return Err(UapiError::Refused(errno)),
    }
    let mut reader = Reader::default();
    for line in answer.lines().filter(|line| !line.is_empty()) {
        let known = line.split_once('=').and_then(|(key, value)| reader.take(key, value));
        if known.is_none() {
            let key = line.split('=').next().unwrap_or_default();
            return Err(UapiError::Nonsense(format!("{:?}", key.chars().take(40).collect::<String>())));
        }
    }
    if reader.secret.is_none() && reader.has_key { Err(UapiError::Unfit) } else { Ok(reader.finish()) }
}

#[derive(Default)]
struct Reader {
    secret: Option<[u8; 32]>,
    /// True for a device with a key, shown or not.
    has_key: bool,
    port: u16,
    mark: u32,
    peers: Vec<(WgPublicKey, WgPeer, WgCounters)>,
}

impl Reader {
    /// Takes one line of an implementation's answer; `None` when the value is no value of that key. Keys that we don't
    /// know are let pass.
    fn take(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "private_key" => self.secret = Some(hex(value)?).filter(|key| *key != [0; 32]),
            "own_public_key" => self.has_key = true,
            "listen_port" => self.port = value.parse().ok()?,
            "fwmark" => self.mark = value.parse().ok()?,
            "public_key" => {
                let peer = WgPeer { endpoint: None, allowed: Default::default(), keepalive: 0, psk: None };
                self.peers.push((WgPublicKey(hex(value)?), peer, WgCounters::default()));
            }
            _ => {
                if let Some((_, peer, counters)) = self.peers.last_mut() {
                    return of_peer(peer, counters, key, value);
                }
            }
        }
        Some(())
    }

    fn finish(self) -> WgDevice {
        let Self { secret, port, mark, peers, .. } = self;
        let settings = secret.map(|secret| WgSettings { secret: WgSecret(secret), port, mark });
        let counters = peers.iter().map(|(key, _, counters)| (*key, *counters)).collect();
        let peers = peers.into_iter().map(|(key, peer, _)| (key, peer)).collect();
        WgDevice { settings, peers, counters, backend: String::new() }
    }
}

fn of_peer(peer: &mut WgPeer, counters: &mut WgCounters, key: &str, value: &str) -> Option<()> {
    match key {
        "endpoint" => peer.endpoint = endpoint(value),
        "preshared_key" => peer.psk = Some(PresharedKey(hex(value)?)).filter(|psk| *psk != NO_PSK),
        "persistent_keepalive_interval" => peer.keepalive = value.parse().ok()?,
        "allowed_ip" => {
            let (addr, len) = value.split_once('/')?;
            peer.allowed.push(Prefix::containing(addr.parse().ok()?, len.parse().ok()?).ok()?);
        }
        "rx_bytes" => counters.rx = value.parse().ok()?,
        "tx_bytes" => counters.tx = value.parse().ok()?,
        "last_handshake_time_sec" => add_time(counters, Duration::from_secs(value.parse().ok()?)),
        "last_handshake_time_nsec" => add_time(counters, Duration::from_nanos(value.parse().ok()?)),
        _ => (),
    }
    Some(())
}

fn add_time(counters: &mut WgCounters, more: Duration) {
    let since = counters.handshake.unwrap_or_default().saturating_add(more);
    counters.handshake = (!since.is_zero()).then_some(since);
}

/// Parses an endpoint; a link-local one may carry its interface's name.
fn endpoint(value: &str) -> Option<SocketAddr> {
    if let Ok(endpoint) = value.parse() {
        return Some(endpoint);
    }
    let (addr, rest) = value.strip_prefix('[')?.split_once('%')?;
    let (zone, port) = rest.split_once("]:")?;
    let scope = nix::net::if_::if_nametoindex(zone).ok()?;
    Some(SocketAddrV6::new(addr.parse().ok()?, port.parse().ok()?, 0, scope).into())
}

fn hex(value: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if value.len() != 64 || !value.is_ascii() {
        return None;
    }
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(value.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const K: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    #[test]
    fn device_is_read() {
        let answer = format!(
            "private_key={K}\nlisten_port=12912\nfwmark=16777216\npublic_key={K}\npreshared_key={K}\n\
             protocol_version=1\nendpoint=[abcd:23::33%2]:51820\nlast_handshake_time_sec=3\n\
             last_handshake_time_nsec=5\ntx_bytes=9\nrx_bytes=18446744073709551615\n\
             persistent_keepalive_interval=111\nallowed_ip=192.168.4.4/32\nallowed_ip=fd00::/8\nnews=1\n\
             errno=0\n\n"
        );
        let device = parse(&answer).expect("a device");
        let settings = device.settings.expect("a key");
        assert_eq!((settings.port, settings.mark), (12912, 0x0100_0000));
        let key = WgPublicKey(hex(K).expect("hex"));
        let peer = &device.peers[&key];
        assert_eq!(peer.endpoint, "[abcd:23::33%2]:51820".parse().ok());
        assert_eq!((peer.keepalive, peer.allowed.len()), (111, 2));
        assert_eq!(peer.psk, Some(PresharedKey(key.0)));
        let counters = WgCounters { handshake: Some(Duration::new(3, 5)), rx: u64::MAX, tx: 9 };
        assert_eq!(device.counters[&key], counters);
    }

    #[test]
    fn device_without_a_key_has_no_settings() {
        let zero = "0".repeat(64);
        assert_eq!(parse("listen_port=1\nerrno=0\n\n").expect("a device").settings, None);
        assert_eq!(parse(&format!("private_key={zero}\nerrno=0\n\n")).expect("a device").settings, None);
    }

    #[test]
    fn cut_or_refused_reply_is_an_error() {
        assert!(matches!(parse(""), Err(UapiError::Nonsense(_))));
        assert!(matches!(parse("listen_port=1\n"), Err(UapiError::Nonsense(_))));
        assert!(matches!(parse("listen_port=x\nerrno=0\n\n"), Err(UapiError::Nonsense(_))));
        assert!(matches!(parse("errno=-22\n\n"), Err(UapiError::Refused(-22))));
        assert!(matches!(parse(&format!("own_public_key={K}\nerrno=0\n\n")), Err(UapiError::Unfit)));
    }

    #[test]
    fn error_contains_no_key() {
        let error = parse(&format!("private_key={K}ff\nerrno=0\n\n")).expect_err("too long");
        assert!(!error.to_string().contains(K), "{error}");
    }

    #[test]
    fn device_update_names_only_differences() {
        let settings = WgSettings { secret: WgSecret([1; 32]), port: 1, mark: 2 };
        let other = WgSettings { port: 9, ..settings.clone() };
        assert_eq!(device(&settings, Some(&settings)), set::Device::default());
        assert_eq!(device(&settings, Some(&other)).to_string(), "listen_port=1\n");
        assert_eq!(device(&settings, None).to_string().lines().count(), 3);
    }

    #[test]
    fn peer_update_names_only_its_parts() {
        let order = PeerOrder {
            key: WgPublicKey(hex(K).expect("hex")),
            action: Action::Update,
            endpoint: None,
            keepalive: Some(25),
            psk: None,
            replace: false,
            allowed: Default::default(),
        };
        let expected = format!("public_key={K}\nupdate_only=true\npersistent_keepalive_interval=25\n");
        assert_eq!(peer(&order).to_string(), expected);
        let without = PeerOrder { psk: Some(NO_PSK), keepalive: None, ..order.clone() };
        let zero = "0".repeat(64);
        let expected = format!("public_key={K}\nupdate_only=true\npreshared_key={zero}\n");
        assert_eq!(peer(&without).to_string(), expected);
        let gone = PeerOrder { action: Action::Remove, keepalive: None, ..order };
        assert_eq!(peer(&gone).to_string(), format!("public_key={K}\nremove=true\n"));
    }

    proptest! {
        #[test]
        fn any_text_parses_without_a_loop(text in "([a-z_]{1,12}=[0-9a-f/.:%\\[\\]]{0,20}\n){0,12}(errno=0\n\n)?") {
            let _ = parse(&text);
        }
    }
}
