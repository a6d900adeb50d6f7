//! Routes and policy rules.

use super::IfName;
use gatewrt_protocol::Prefix;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Address family, IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Address family of a prefix.
    pub fn of(prefix: &Prefix) -> Self {
        if prefix.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Address family of an IP address.
    pub fn of_addr(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Type of a route of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Packets leave by this interface.
    Device(IfName),
    /// The lookup goes on with the next rule (`RTN_THROW`): the main table has a better route.
    Throw,
    /// Packets are dropped without an error (`RTN_BLACKHOLE`): a program that retries gets through once there is a
    /// way again.
    Blackhole,
}

/// Route of ours in a routing table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Routing table.
    pub table: u32,
    /// Destinations.
    pub prefix: Prefix,
    /// Metric; the lowest wins.
    pub metric: u32,
    /// Type.
    pub kind: RouteKind,
}

/// Unicast route of another program, in the main table unless said otherwise. If such a route is more specific than
/// ours, it keeps its traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRoute {
    /// Destinations.
    pub prefix: Prefix,
    /// Outgoing interface; absent for multipath and unreachable routes.
    pub link: Option<IfName>,
    /// No gateway: the hosts are on the link itself.
    pub on_link: bool,
}

/// Routing policy rule of ours: “packets without the bypass mark look here”.
///
/// The rule of a scope matches packets that have none of our marks: `mark` 0, with our `mask`. (`invert` negates the whole
/// rule and not only the mark, so it can't be combined with `iif` or `from`.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Family.
    pub family: Family,
    /// Priority (`pref` of `ip rule`); the lowest is looked at first.
    pub priority: u32,
    /// Mark.
    pub mark: u32,
    /// Mask of the mark.
    pub mask: u32,
    /// Matches packets that do *not* have the mark.
    pub invert: bool,
    /// Table to look up. From [`SKIP`](Self::SKIP) on there is none: the lookup goes on with the rule of priority
    /// `table - SKIP`, or with the next rule while that one does not exist (`FR_ACT_GOTO`).
    pub table: u32,
    /// Only packets that come in by this interface; `lo` stands for the router's own (`FRA_IIFNAME`).
    pub iif: Option<IfName>,
    /// Only packets from these sources.
    pub from: Option<Prefix>,
}

impl Rule {
    /// Smallest `table` of a rule that jumps; see [`Rule::table`].
    pub const SKIP: u32 = 1 << 31;

    /// Priority that the policy rule jumps to; `None` when it looks up a table.
    pub fn skips_to(&self) -> Option<u32> {
        self.table.checked_sub(Self::SKIP)
    }
}

/// Policy rule of another program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRule {
    /// Parts of the rule that a rule of ours could have too.
    pub rule: Rule,
    /// True if the rule has further selectors, or an action other than a table lookup.
    pub more: bool,
    /// Prefixes of at most this length are ignored in its table (`FRA_SUPPRESS_PREFIXLEN`).
    pub suppress: Option<u32>,
    /// Program that made it (`FRA_PROTOCOL`).
    pub protocol: u8,
}
