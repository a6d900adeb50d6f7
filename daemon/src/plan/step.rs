//! Step of a plan: one change of one object, with its text for `gatewrt plan` and the log. No text ever holds a private key.
//! A step is known by its [key](super::StepKey), never by its text.

use super::TableUpdate;
use crate::model::{
    Address, Family, Flows, IfName, NO_PSK, Route, RouteKind, Rule, Short, SysctlPath, WgPeer, WgSettings,
};
use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use sorted_vec::SortedSet;
use std::{fmt, net::SocketAddr, sync::Arc};

/// Step of a plan, which changes one object of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create an interface: kernel WireGuard, or a userspace implementation where the kernel has none. A dead userspace
    /// interface of this name (a TUN device without a WireGuard process) is replaced.
    AddTunnel {
        /// Name.
        link: IfName,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Delete an interface, with its userspace implementation if it has one.
    DeleteTunnel(IfName),
    /// Set the MTU in bytes.
    SetMtu(IfName, u32),
    /// Set the interface up.
    SetUp(IfName),
    /// Set a device's own key, port and mark; peers stay as they are.
    SetDevice(IfName, WgSettings),
    /// Set peers, in one message and in this order. Other peers stay as they are, except for a prefix that one of these takes
    /// from them. There is more than one only where a prefix moves from a peer that must be named itself: the gaining peer
    /// comes first, so that the prefix always has a peer.
    SetPeers(IfName, Vec<(WgPublicKey, PeerChange)>),
    /// Add an address, with our protocol number where the kernel keeps it.
    AddAddress(Address),
    /// Delete an address.
    DeleteAddress(Address),
    /// Add a route, with our protocol number; never replaces one.
    AddRoute(Route),
    /// Change the type of a route of ours, in place.
    ReplaceRoute(Route),
    /// Delete a route of ours.
    DeleteRoute(Route),
    /// Add a rule, with our protocol number.
    AddRule(Rule),
    /// Delete a rule of ours.
    DeleteRule(Rule),
    /// Write our firewall table, in one transaction.
    WriteRuleset(TableUpdate),
    /// Delete our firewall table.
    DeleteRuleset,
    /// Delete the established connections that are forbidden: their next packet is checked as a new connection.
    CutFlows(Arc<Flows>),
    /// Set a setting to this value. Its value before our first change is kept in the run-time directory.
    SetSysctl(SysctlPath, String),
    /// Restore a setting to its value before; a value that another program set since stays.
    RestoreSysctl(SysctlPath),
}

/// Change of one WireGuard peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// Add the peer. Its allowed IPs are taken from the peers that have them.
    Add(WgPeer),
    /// Change these parts of an existing peer.
    Update(PeerUpdate),
    /// Remove the peer.
    Remove,
}

/// Parts of an existing WireGuard peer that change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerUpdate {
    /// New endpoint; `None` leaves it.
    pub endpoint: Option<SocketAddr>,
    /// Allowed IPs it gains, taken from the peers that have them; its others stay (no `WGPEER_F_REPLACE_ALLOWEDIPS`, so
    /// that it never lacks one, not even for a moment).
    pub gains: SortedSet<Prefix>,
    /// All its allowed IPs, `gains` among them; set only when it loses some that no other peer takes.
    pub allowed: Option<SortedSet<Prefix>>,
    /// New keepalive in seconds; `None` leaves it.
    pub keepalive: Option<u16>,
    /// New preshared key; [`NO_PSK`] removes the one there is; `None` leaves it.
    pub psk: Option<PresharedKey>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTunnel { link, mtu } => write!(f, "add interface {link}, MTU {mtu}"),
            Self::DeleteTunnel(link) => write!(f, "delete interface {link}"),
            Self::SetMtu(link, mtu) => write!(f, "{link}: set MTU {mtu}"),
            Self::SetUp(link) => write!(f, "{link}: set up"),
            Self::SetDevice(link, settings) => {
                write!(f, "{link}: set private key, port {}, mark {:#x}", settings.port, settings.mark)
            }
            Self::SetPeers(link, changes) => set_peers(f, link, changes),
            Self::AddAddress(address) => write!(f, "{}: add address {}", address.link, Cidr(address)),
            Self::DeleteAddress(address) => write!(f, "{}: delete address {}", address.link, Cidr(address)),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::ReplaceRoute(route) => write!(f, "change route to {route}"),
            Self::DeleteRoute(route) => write!(f, "delete route {route}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::DeleteRule(rule) => write!(f, "delete rule {rule}"),
            Self::WriteRuleset(_) => f.write_str("write firewall table"),
            Self::DeleteRuleset => f.write_str("delete firewall table"),
            Self::CutFlows(_) => f.write_str("end the connections that are forbidden now"),
            Self::SetSysctl(path, value) => write!(f, "set {path} = {value}"),
            Self::RestoreSysctl(path) => write!(f, "put back {path}"),
        }
    }
}

fn set_peers(
    f: &mut fmt::Formatter<'_>,
    link: &IfName,
    changes: &[(WgPublicKey, PeerChange)],
) -> fmt::Result {
    write!(f, "{link}: ")?;
    for (i, (key, change)) in changes.iter().enumerate() {
        let between = if i == 0 { "" } else { "; " };
        let verb = match change {
            PeerChange::Add(_) => "add",
            PeerChange::Update(_) => "set",
            PeerChange::Remove => "remove",
        };
        write!(f, "{between}{verb} peer {}{change}", Short(key))?;
    }
    Ok(())
}

/// Text after the peer's name: it begins with a space, or is empty.
impl fmt::Display for PeerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(peer) => {
                write!(f, " {}", Prefixes(&peer.allowed))?;
                via(f, peer.endpoint)?;
                if peer.keepalive > 0 {
                    write!(f, ", keepalive {} s", peer.keepalive)?;
                }
                f.write_str(if peer.psk.is_some() { ", preshared key" } else { "" })
            }
            Self::Update(update) => update.fmt(f),
            Self::Remove => Ok(()),
        }
    }
}

impl fmt::Display for PeerUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(allowed) = &self.allowed {
            write!(f, " now {}", Prefixes(allowed))?;
        } else if !self.gains.is_empty() {
            write!(f, " also {}", Prefixes(&self.gains))?;
        }
        via(f, self.endpoint)?;
        self.keepalive.map_or(Ok(()), |seconds| write!(f, " keepalive {seconds} s"))?;
        f.write_str(match &self.psk {
            Some(psk) if *psk == NO_PSK => " no preshared key",
            Some(_) => " another preshared key",
            None => "",
        })
    }
}

fn via(f: &mut fmt::Formatter<'_>, endpoint: Option<SocketAddr>) -> fmt::Result {
    endpoint.map_or(Ok(()), |endpoint| write!(f, " via {endpoint}"))
}

struct Prefixes<'a>(&'a SortedSet<Prefix>);

impl fmt::Display for Prefixes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no prefix");
        }
        let texts: Vec<String> = self.0.iter().map(Prefix::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

struct Cidr<'a>(&'a Address);

impl fmt::Display for Cidr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.addr, self.0.len)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RouteKind::Device(link) => write!(f, "{} dev {link}", self.prefix)?,
            RouteKind::Throw => write!(f, "throw {}", self.prefix)?,
            RouteKind::Blackhole => write!(f, "blackhole {}", self.prefix)?,
        }
        write!(f, " table {} metric {}", self.table, self.metric)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let not = if self.invert { " not" } else { "" };
        let Self { priority, mark, mask, table, .. } = self;
        write!(f, "{priority} {family}{not} fwmark {mark:#x}/{mask:#x}")?;
        self.iif.iter().try_for_each(|iif| write!(f, " iif {iif}"))?;
        self.from.iter().try_for_each(|from| write!(f, " from {from}"))?;
        match self.skips_to() {
            Some(priority) => write!(f, " goto {priority}"),
            None => write!(f, " lookup {table}"),
        }
    }
}

impl fmt::Display for SysctlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WgSecret;

    const KEY: WgPublicKey = WgPublicKey([7; 32]);

    fn link() -> IfName {
        IfName::new("gw-home").unwrap()
    }

    fn prefixes(texts: &[&str]) -> SortedSet<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn step_text_names_object_and_change() {
        let peer = WgPeer {
            endpoint: Some("198.51.100.7:51820".parse().unwrap()),
            allowed: prefixes(&["10.9.0.3/32", "192.168.20.0/24"]),
            keepalive: 25,
            psk: None,
        };
        let update = |update| Step::SetPeers(link(), vec![(KEY, PeerChange::Update(update))]);
        let route = |kind| Route { table: 26487, prefix: "10.9.0.3/32".parse().unwrap(), metric: 512, kind };
        let rule = Rule {
            family: Family::V6,
            priority: 900,
            mark: 0x0100_0000,
            mask: 0x0f00_0000,
            invert: true,
            table: 26487,
            iif: None,
            from: None,
        };
        for (step, text) in [
            (
                Step::SetPeers(link(), vec![(KEY, PeerChange::Add(peer)), (KEY, PeerChange::Remove)]),
                "gw-home: add peer BwcHBwcH… 10.9.0.3/32, 192.168.20.0/24 via 198.51.100.7:51820, keepalive 25 s; \
                 remove peer BwcHBwcH…",
            ),
            (
                update(PeerUpdate {
                    endpoint: Some("[2001:db8::7]:51820".parse().unwrap()),
                    ..Default::default()
                }),
                "gw-home: set peer BwcHBwcH… via [2001:db8::7]:51820",
            ),
            (
                update(PeerUpdate {
                    gains: prefixes(&["10.1.0.0/16"]),
                    keepalive: Some(0),
                    ..Default::default()
                }),
                "gw-home: set peer BwcHBwcH… also 10.1.0.0/16 keepalive 0 s",
            ),
            (
                update(PeerUpdate { allowed: Some(prefixes(&[])), ..Default::default() }),
                "gw-home: set peer BwcHBwcH… now no prefix",
            ),
            (
                Step::AddRoute(route(RouteKind::Device(link()))),
                "add route 10.9.0.3/32 dev gw-home table 26487 metric 512",
            ),
            (
                Step::DeleteRoute(route(RouteKind::Throw)),
                "delete route throw 10.9.0.3/32 table 26487 metric 512",
            ),
            (Step::AddRule(rule), "add rule 900 IPv6 not fwmark 0x1000000/0xf000000 lookup 26487"),
            (
                Step::SetSysctl(SysctlPath("net/ipv4/ip_forward".into()), "1".into()),
                "set net/ipv4/ip_forward = 1",
            ),
        ] {
            assert_eq!(step.to_string(), text);
        }
    }

    #[test]
    fn no_step_shows_a_private_key() {
        let settings = WgSettings { secret: WgSecret([0xab; 32]), port: 51820, mark: 0x0100_0000 };
        let step = Step::SetDevice(link(), settings);
        assert_eq!(step.to_string(), "gw-home: set private key, port 51820, mark 0x1000000");
        assert!(!format!("{step:?}").contains("171"), "{step:?}");
    }
}
