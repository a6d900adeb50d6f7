//! Marks of ownership: the names and numbers by which an object in the kernel is ours. Any other object is foreign:
//! never changed, flushed or reordered. The numbers stay clear of those of other policy-routing software: pbr (mask
//! 0x00ff0000), mwan3 (mask 0x3f00, rules 1001-3254), Tailscale (0xff0000, rules 5210-5270), NetBird (0x1bd00, rules
//! 105 and 110), wg-quick (51820, rules 32764-32765). All can be set in UCI.

/// Prefix of our interfaces, before the network's name.
pub const INTERFACE_PREFIX: &str = "gw-";

/// Prefix of secondary exit interfaces, before the first [`EXIT_ID`] characters of the exit's node id. No network's
/// name has a “~”, so every interface of this prefix is ours.
pub const EXIT_PREFIX: &str = "gw-~";
/// Number of characters of a node id after [`EXIT_PREFIX`].
pub const EXIT_ID: usize = 11;

/// Protocol number of our routes and rules (`rtm_protocol`, `FRA_PROTOCOL`), and of our addresses where the kernel
/// keeps it (`IFA_PROTO`, since Linux 5.18). Not among the numbers of `linux/rtnetlink.h`.
pub const PROTOCOL: u8 = 103;

/// UDP port of health probes, on overlay addresses only.
pub const PROBE_PORT: u16 = 51799;

/// Name of our nftables table, of family `inet`.
pub const NFT_TABLE: &str = "gatewrt";

/// Packet marks, routing tables and rule priorities that are reserved for us, which the router's owner may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedNumbers {
    /// Routing table with the prefixes of our networks. Default 26487, which is “gw” in ASCII.
    pub table: u32,
    /// Priority of the rule that leads there: before mwan3's (1001), so that marked traffic for a network still
    /// reaches it.
    pub priority: u32,
    /// Metric of routes of ours in that table.
    pub metric: u32,
    /// Bits of packet and connection marks that are ours.
    pub mask: u32,
    /// Mark of packets that must never enter a network: the tunnels' own and the control plane's. Within `mask`.
    pub bypass: u32,
    /// Mark of connections that came in from a network for a prefix with NAT on. Within `mask`.
    pub masquerade: u32,
    /// Routing table of the first scope of Internet traffic; the others follow it, two for each scope of the router and
    /// its LANs. Default 26500.
    pub exit_table: u32,
    /// Priority of the rules of the first scope; each after it has the next two or four, and what skips all of them is 64
    /// further. Default 910: after that of the networks' prefixes, before mwan3's (1001).
    pub exit_priority: u32,
}

impl ReservedNumbers {
    /// Mark of packets and connections that came in from outside while there are scopes: they are no scope's, but may
    /// be for a network. Another number than `bypass` and `masquerade`, within `mask`, since those two differ.
    pub fn outside(&self) -> u32 {
        self.bypass ^ self.masquerade
    }
}

impl Default for ReservedNumbers {
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
