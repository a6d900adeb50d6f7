//! What in a kernel is ours, said once. Whatever does not match is foreign: never changed, flushed or
//! reordered. The numbers stay clear of those of other policy-routing software: pbr (mask 0x00ff0000), mwan3
//! (mask 0x3f00, rules 1001-3254), Tailscale (0xff0000, rules 5210-5270), NetBird (0x1bd00, rules 105 and
//! 110), wg-quick (51820, rules 32764-32765). All can be set in UCI.

/// Every interface of ours is called this and the network's name.
pub const INTERFACE_PREFIX: &str = "gw-";

/// The interface of an exit that is used beside another of the same network is called this and the first
/// [`EXIT_ID`] characters of its node's id. No network's name has a “~”: whatever is called so is ours.
pub const EXIT_PREFIX: &str = "gw-~";
/// See [`EXIT_PREFIX`].
pub const EXIT_ID: usize = 11;

/// Stands on every route and rule of ours (`rtm_protocol`, `FRA_PROTOCOL`), and on addresses where the
/// kernel keeps it (`IFA_PROTO`, since Linux 5.18). Not among the numbers of `linux/rtnetlink.h`.
pub const PROTOCOL: u8 = 103;

/// The UDP port at which a node answers whether it works, at its overlay addresses only.
pub const PROBE_PORT: u16 = 51799;

/// The nftables table of ours, of family `inet`.
pub const NFT_TABLE: &str = "gatewrt";

/// Numbers that the router's owner may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Routing table with the prefixes of our networks. Default 26487, which is “gw” in ASCII.
    pub table: u32,
    /// Priority of the rule that leads there: before mwan3's (1001), so that marked traffic for a network still
    /// reaches it.
    pub priority: u32,
    /// Metric of routes of ours in that table.
    pub metric: u32,
    /// The bits of packet and connection marks that are ours.
    pub mask: u32,
    /// Packets that must never enter a network: the tunnels' own and the control plane's. Within `mask`.
    pub bypass: u32,
    /// Connections that came in from a network for a prefix with NAT on. Within `mask`.
    pub masquerade: u32,
    /// Routing table of the first scope of Internet traffic; the others follow it, two for each scope of the router and
    /// its LANs. Default 26500.
    pub exit_table: u32,
    /// Priority of the rules of the first scope; each after it has the next two or four, and what skips all of them is 64
    /// further. Default 910: after that of the networks' prefixes, before mwan3's (1001).
    pub exit_priority: u32,
}

impl Numbers {
    /// Packets and connections that came in from outside while there are scopes: they are no scope's, but may well be
    /// for a network. Another number than `bypass` and `masquerade`, within `mask`, since those two differ.
    pub fn outside(&self) -> u32 {
        self.bypass ^ self.masquerade
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            table: 26487,
            priority: 900,
            metric: 512,
            mask: 0x0f00_0000,
            bypass: 0x0100_0000,
            masquerade: 0x0200_0000,
            exit_table: 26500,
            exit_priority: 910,
        }
    }
}
