//! Networks: made, listed, deleted.

use super::{Moment, Outcome, Overlap, Owner, Registry, RegistryError, Row, address};
use gatewrt_protocol::{NetworkId, NetworkName, Prefix, Verdict};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Never changes.
    pub id: NetworkId,
    /// Unique among networks.
    pub name: NetworkName,
    /// IPv4 overlay addresses come from it.
    pub prefix4: Prefix,
    /// IPv6 overlay addresses come from it.
    pub prefix6: Prefix,
    /// Of the WireGuard interfaces, in bytes.
    pub mtu: u16,
    /// Seconds between keepalive packets; 0 for none.
    pub keepalive: u16,
    /// DNS domain.
    #[serde(default)]
    pub domain: String,
    /// What becomes of connections that no rule fits.
    #[serde(default)]
    pub access: Verdict,
    /// Resolvers that external clients are told of, unless they have their own.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Blocks that were ever given to nodes for their clients.
    #[serde(default)]
    pub blocks: BTreeSet<Prefix>,
    /// Index of the addresses that the next node gets; only grows.
    pub next: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Network {
    /// Both overlay prefixes, IPv4 first.
    pub fn prefixes(&self) -> [Prefix; 2] {
        [self.prefix4, self.prefix6]
    }
}

/// What an admin asks of a new network; what is left out is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkWish {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NetworkName,
    /// Default: a free 10.x.0.0/16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub prefix4: Option<Prefix>,
    /// Default: a random unique-local /64 (RFC 4193).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub prefix6: Option<Prefix>,
    /// Default: 1420, the largest that fits WireGuard over IPv6 on Ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Default: 25 s, shorter than the UDP timeout of common NAT routers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u16>,
}

/// What an admin changes about a network; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkPatch {
    /// What becomes of connections that no rule fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access: Option<Verdict>,
    /// Resolvers that external clients are told of; none takes them away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
}

/// Resolvers a network may have: a phone asks the first two or three.
const RESOLVERS: usize = 8;

const MTU: u16 = 1420;
const KEEPALIVE: u16 = 25;

impl Registry {
    /// Makes a network.
    pub fn create_network(&self, wish: &NetworkWish, moment: &Moment) -> Outcome<Network> {
        if self.networks().any(|network| network.name == wish.name) {
            return Err(RegistryError::NameTaken { what: "a network", name: wish.name.to_string() });
        }
        let (mtu, keepalive) = (wish.mtu.unwrap_or(MTU), wish.keepalive.unwrap_or(KEEPALIVE));
        check_range("MTU", mtu, 1280, 1420, "1280 to 1420 bytes")?;
        check_range("keepalive", keepalive, 0, 3600, "0 (none) to 3600 seconds")?;
        let network = Network {
            id: NetworkId::from_entropy(moment.bytes(0)),
            name: wish.name.clone(),
            prefix4: self.chosen(&wish.name, wish.prefix4, true, moment)?,
            prefix6: self.chosen(&wish.name, wish.prefix6, false, moment)?,
            mtu,
            keepalive,
            domain: format!("{}.gw.internal", wish.name),
            access: Verdict::Allow,
            dns: Vec::new(),
            blocks: BTreeSet::new(),
            next: address::FIRST,
            created: moment.now,
        };
        Ok((vec![Row::Network(network.id, Some(network.clone()))], network))
    }

    /// Changes what can change about a network.
    pub fn change_network(&self, net: &str, patch: &NetworkPatch) -> Outcome<Network> {
        let network = self.find_network(net)?;
        let dns = patch.dns.clone().unwrap_or_else(|| network.dns.clone());
        if dns.len() > RESOLVERS {
            let (what, value) = ("the number of resolvers", dns.len() as u64);
            return Err(RegistryError::OutOfRange { what, value, range: "0 to 8" });
        }
        if let Some(addr) = dns.iter().copied().find(|addr| is_special(*addr)) {
            let why = "a resolver has an address that can be reached from elsewhere";
            return Err(RegistryError::BadPrefix { prefix: Prefix::host(addr), why });
        }
        let changed = Network { access: patch.access.unwrap_or(network.access), dns, ..network.clone() };
        let rows = if changed == *network {
            Vec::new()
        } else {
            vec![Row::Network(network.id, Some(changed.clone()))]
        };
        Ok((rows, changed))
    }

    /// Deletes a network with its codes, rules, groups, the tokens for it, and clients, whose keys stay dead. One that
    /// still has nodes is refused.
    pub fn delete_network(&self, net: &str, moment: &Moment) -> Outcome<Network> {
        let network = self.find_network(net)?;
        let nodes: Vec<_> = self.live_nodes(network.id).map(|node| node.name.clone()).collect();
        if !nodes.is_empty() {
            return Err(RegistryError::NetworkInUse { network: network.name.clone(), nodes });
        }
        let codes = self.codes(network.id).map(|code| Row::Code(code.id.clone(), None));
        let rules = self.rules(network.id).into_iter().map(|rule| Row::Rule(rule.id, None));
        let groups = self.groups(network.id).map(|group| Row::Group(network.id, group.name.clone(), None));
        let tokens = self.tokens().filter(|token| token.net == Some(network.id));
        let tokens = tokens.map(|token| Row::Token(token.id.clone(), None));
        let clients = self.live_clients(network.id).map(|client| client.deleted_row(moment.now));
        let rows = codes
            .chain(clients)
            .chain(rules)
            .chain(groups)
            .chain(tokens)
            .chain([Row::Network(network.id, None)]);
        Ok((rows.collect(), network.clone()))
    }

    /// Removes every node of a network. A step of its own before the network is deleted, so that the nodes
    /// are told by tombstones.
    pub fn remove_all_nodes(&self, net: &str, moment: &Moment) -> Outcome<()> {
        let network = self.find_network(net)?;
        Ok((self.live_nodes(network.id).map(|node| node.removed_row(moment.now)).collect(), ()))
    }

    fn chosen(
        &self,
        name: &NetworkName,
        wish: Option<Prefix>,
        ipv4: bool,
        moment: &Moment,
    ) -> Result<Prefix, RegistryError> {
        let owner = Owner::Network(name.clone());
        let Some(prefix) = wish else { return self.default_prefix(ipv4, moment) };
        check_overlay(prefix, ipv4)?;
        match self.conflict(prefix, None, None) {
            Some((with, with_owner)) => {
                Err(RegistryError::Overlap(Box::new(Overlap { prefix, owner, with, with_owner })))
            }
            None => Ok(prefix),
        }
    }

    /// The first free default, starting at a random one so that two coordinators seldom choose alike.
    fn default_prefix(&self, ipv4: bool, moment: &Moment) -> Result<Prefix, RegistryError> {
        let candidates =
            (0..=255).map(|step| if ipv4 { default4(moment, step) } else { default6(moment, step) });
        let free =
            |prefix: &Prefix| self.conflict(*prefix, None, None).is_none() && !self.is_on_a_lan(prefix);
        candidates.into_iter().find(free).ok_or(RegistryError::NoFreePrefix)
    }

    fn is_on_a_lan(&self, prefix: &Prefix) -> bool {
        let mut lans = self.nodes().filter(|node| node.is_live()).flat_map(|node| node.facts.lans());
        lans.any(|(_, lan)| lan.overlaps(prefix))
    }
}

/// 10.x.0.0/16 with x from 64 up, wrapping: home routers and clouds crowd the lower ones.
fn default4(moment: &Moment, step: u8) -> Prefix {
    let [start] = moment.bytes(10);
    let second = (start % 192).wrapping_add(64).wrapping_add(step);
    Prefix::containing(Ipv4Addr::new(10, second, 0, 0).into(), 16).expect("16 bits fit IPv4")
}

/// fdxx:xxxx:xxxx:xxxx::/64, RFC 4193 with a random global id.
fn default6(moment: &Moment, step: u8) -> Prefix {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&moment.bytes::<7>(11));
    octets[7] = octets[7].wrapping_add(step);
    Prefix::containing(Ipv6Addr::from(octets).into(), 64).expect("64 bits fit IPv6")
}

fn check_overlay(prefix: Prefix, ipv4: bool) -> Result<(), RegistryError> {
    let bad = |why| Err(RegistryError::BadPrefix { prefix, why });
    let lengths = if ipv4 { 8..=29 } else { 16..=120 };
    match prefix.addr() {
        IpAddr::V4(_) if !ipv4 => bad("an IPv6 prefix belongs here"),
        IpAddr::V6(_) if ipv4 => bad("an IPv4 prefix belongs here"),
        _ if !lengths.contains(&prefix.len()) && ipv4 => bad("a network's IPv4 prefix has length 8 to 29"),
        _ if !lengths.contains(&prefix.len()) => bad("a network's IPv6 prefix has length 16 to 120"),
        addr if is_special(addr) => bad("its addresses are not for hosts of a routed network"),
        _ => Ok(()),
    }
}

/// Addresses no routed host can have: unspecified, loopback, link-local, multicast and above.
pub(super) fn is_special(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0 || v4.is_loopback() || v4.is_link_local() || v4.octets()[0] >= 224
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast()
        }
    }
}

fn check_range(
    what: &'static str,
    value: u16,
    least: u16,
    most: u16,
    range: &'static str,
) -> Result<(), RegistryError> {
    let fits = (least..=most).contains(&value);
    if fits { Ok(()) } else { Err(RegistryError::OutOfRange { what, value: value.into(), range }) }
}
