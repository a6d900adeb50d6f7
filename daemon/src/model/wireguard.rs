//! WireGuard devices and peers.

use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Preshared key of zeros, by which WireGuard says that there is none.
pub const NO_PSK: PresharedKey = PresharedKey([0; 32]);

/// WireGuard private key. It has no `Display`, and its `Debug` hides the key.
#[derive(Clone, PartialEq, Eq)]
#[repr(align(4))]
pub struct WgSecret(pub [u8; 32]);

impl fmt::Debug for WgSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WgSecret(…)")
    }
}

/// Start of a WireGuard public key, for texts: enough to tell keys apart.
pub struct Short<'a>(pub &'a WgPublicKey);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.8}…", self.0.to_string())
    }
}

/// Settings of a WireGuard device itself, without its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgSettings {
    /// Private key.
    pub secret: WgSecret,
    /// UDP port. Desired: 0 accepts the port that the kernel chose.
    pub port: u16,
    /// Mark on the encrypted packets.
    pub mark: u32,
}

/// Settings of a WireGuard peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgPeer {
    /// Endpoint. Observed: the current one, which the peer may have changed by roaming. Desired: `None` leaves it as it
    /// is.
    pub endpoint: Option<SocketAddr>,
    /// Allowed IPs.
    pub allowed: SortedSet<Prefix>,
    /// Seconds between keepalives; 0 sends none.
    pub keepalive: u16,
    /// Preshared key; never [`NO_PSK`].
    pub psk: Option<PresharedKey>,
}

/// Byte counters and last handshake of a WireGuard peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WgCounters {
    /// Time of the last handshake since the Unix epoch, by the router's clock; `None` before the first.
    pub handshake: Option<Duration>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
}

impl WgCounters {
    /// Age of the peer's last handshake at `wall`, the router's clock; `None` before the first. A clock that was set
    /// back makes it zero.
    pub fn handshake_age(&self, wall: Duration) -> Option<Duration> {
        Some(wall.saturating_sub(self.handshake?))
    }
}

/// WireGuard device with its peers, as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgDevice {
    /// Settings; `None` while it has no private key.
    pub settings: Option<WgSettings>,
    /// Peers.
    pub peers: LiteMap<WgPublicKey, WgPeer>,
    /// Counters of the peers.
    pub counters: LiteMap<WgPublicKey, WgCounters>,
    /// `kernel`, or the name of the userspace implementation where it is known.
    pub backend: String,
}

/// WireGuard interface of ours with its addresses and peers, as desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// MTU in bytes.
    pub mtu: u32,
    /// Device settings.
    pub settings: WgSettings,
    /// Overlay addresses.
    pub addresses: SortedSet<IpAddr>,
    /// Peers by key. No prefix is in the `allowed` of two peers.
    pub peers: LiteMap<WgPublicKey, WgPeer>,
}
