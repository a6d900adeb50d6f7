//! Networks: create, change, delete.

use super::{
    Moment, Outcome, Overlap, Owner, Registry, RegistryError, Row, address,
    range::{check_count, check_range},
};
use gatewrt_protocol::{NetworkId, NetworkName, Prefix, Verdict};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Network (overlay) as the registry stores it: name, prefixes, DNS domain and defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Id; never changes.
    pub id: NetworkId,
    /// Name, unique among networks.
    pub name: NetworkName,
    /// Prefix of its IPv4 overlay addresses.
    pub prefix4: Prefix,
    /// Prefix of its IPv6 overlay addresses.
    pub prefix6: Prefix,
    /// MTU of the WireGuard interfaces, in bytes.
    pub mtu: u16,
    /// Interval of keepalive packets, in seconds; 0 for none.
    pub keepalive: u16,
    /// DNS domain.
    #[serde(default)]
    pub domain: String,
    /// Verdict on connections that match no rule.
    #[serde(default)]
    pub access: Verdict,
    /// Resolvers for external clients that have none of their own.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// All blocks that were ever allocated to nodes for their clients.
    #[serde(default)]
    pub blocks: BTreeSet<Prefix>,
    /// Index of the next node's addresses; it only grows.
    pub next: u64,
    /// Creation time, in seconds since 1970.
    pub created: u64,
}

impl Network {
    /// Both overlay prefixes of the network, IPv4 first.
    pub fn prefixes(&self) -> [Prefix; 2] {
        [self.prefix4, self.prefix6]
    }
}

/// Spec of a new network; defaults are chosen for fields that are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkSpec {
    /// Name of the network.
    #[schema(value_type = String)]
    pub name: NetworkName,
    /// IPv4 prefix. Default: a free 10.x.0.0/16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub prefix4: Option<Prefix>,
    /// IPv6 prefix. Default: a random unique-local /64 (RFC 4193).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub prefix6: Option<Prefix>,
    /// MTU in bytes. Default: 1420, the largest that fits WireGuard over IPv6 on Ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Keepalive interval in seconds. Default: 25, shorter than the UDP timeout of common NAT routers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u16>,
}

/// Changes to a network; fields that are left out stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkPatch {
    /// Verdict on connections that match no rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access: Option<Verdict>,
    /// Resolvers for external clients; an empty list removes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
}

/// Largest number of resolvers of a network: a phone asks the first two or three.
const RESOLVERS: usize = 8;

const MTU: u16 = 1420;
const KEEPALIVE: u16 = 25;

impl Registry {
    /// Creates a network.
    pub fn create_network(&self, spec: &NetworkSpec, moment: &Moment) -> Outcome<Network> {
        if self.networks().any(|network| network.name == spec.name) {
            return Err(RegistryError::NameTaken { what: "a network", name: spec.name.to_string() });
        }
        let (mtu, keepalive) = (spec.mtu.unwrap_or(MTU), spec.keepalive.unwrap_or(KEEPALIVE));
        check_range("MTU", mtu.into(), 1280..=1420, "1280 to 1420 bytes")?;
        check_range("keepalive", keepalive.into(), 0..=3600, "0 (none) to 3600 seconds")?;
        let network = Network {
            id: NetworkId::from_entropy(moment.bytes(0)),
            name: spec.name.clone(),
            prefix4: self.chosen(&spec.name, spec.prefix4, true, moment)?,
            prefix6: self.chosen(&spec.name, spec.prefix6, false, moment)?,
            mtu,
            keepalive,
            domain: format!("{}.gw.internal", spec.name),
            access: Verdict::Allow,
            dns: Vec::new(),
            blocks: BTreeSet::new(),
            next: address::FIRST,
            created: moment.now,
        };
        Ok((vec![Row::Network(network.id, Some(network.clone()))], network))
    }

    /// Changes the default verdict or the resolvers of a network.
    pub fn change_network(&self, net: &str, patch: &NetworkPatch) -> Outcome<Network> {
        let network = self.find_network(net)?;
        let dns = patch.dns.clone().unwrap_or_else(|| network.dns.clone());
        check_count("the number of resolvers", dns.len(), RESOLVERS, "0 to 8")?;
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

    /// Deletes a network with its codes, rules, groups, tokens and clients. Keys of its clients are never
    /// accepted again. Its strays are cut off. Refused while it has nodes, unless it is forced: then they are removed,
    /// and their tombstones tell them so although the network is gone.
    pub fn delete_network(&self, net: &str, force: bool, moment: &Moment) -> Outcome<Network> {
        let network = self.find_network(net)?;
        let names: Vec<_> = self.live_nodes(network.id).map(|node| node.name.clone()).collect();
        if !names.is_empty() && !force {
            return Err(RegistryError::NetworkInUse { network: network.name.clone(), nodes: names });
        }
        let nodes = self.live_nodes(network.id).map(|node| node.removed_row(Some(&network.name), moment.now));
        let codes = self.codes(network.id).map(|code| Row::Code(code.id.clone(), None));
        let rules = self.rules(network.id).into_iter().map(|rule| Row::Rule(rule.id, None));
        let groups = self.groups(network.id).map(|group| Row::Group(network.id, group.name.clone(), None));
        let tokens = self.tokens().filter(|token| token.net == Some(network.id));
        let tokens = tokens.map(|token| Row::Token(token.id.clone(), None));
        let clients = self.live_clients(network.id).map(|client| client.deleted_row(moment.now));
        let rows = nodes
            .chain(codes)
            .chain(clients)
            .chain(rules)
            .chain(groups)
            .chain(tokens)
            .chain(self.ended_strays(network.id, moment))
            .chain([Row::Network(network.id, None)]);
        Ok((rows.collect(), network.clone()))
    }

    fn chosen(
        &self,
        name: &NetworkName,
        spec: Option<Prefix>,
        ipv4: bool,
        moment: &Moment,
    ) -> Result<Prefix, RegistryError> {
        let owner = Owner::Network(name.clone());
        let Some(prefix) = spec else { return self.default_prefix(ipv4, moment) };
        check_overlay(prefix, ipv4)?;
        match self.conflict(prefix, None, None) {
            Some((with, with_owner)) => {
                Err(RegistryError::Overlap(Box::new(Overlap { prefix, owner, with, with_owner })))
            }
            None => Ok(prefix),
        }
    }

    /// First free default prefix for a new network, one of which no node says that it is in use there if there is any.
    /// The search starts at a random one, so that two coordinators seldom choose the same.
    fn default_prefix(&self, ipv4: bool, moment: &Moment) -> Result<Prefix, RegistryError> {
        let candidates =
            (0..=255).map(|step| if ipv4 { default4(moment, step) } else { default6(moment, step) });
        let free: Vec<Prefix> =
            candidates.filter(|prefix| self.conflict(*prefix, None, None).is_none()).collect();
        let unclaimed = free.iter().find(|prefix| !self.is_claimed(prefix));
        unclaimed.or(free.first()).copied().ok_or(RegistryError::NoFreePrefix)
    }
}

/// Candidate for the IPv4 prefix of a new network, 10.x.0.0/16, with x from 64 up, wrapping: home routers and clouds
/// use the lower ones.
fn default4(moment: &Moment, step: u8) -> Prefix {
    let [start] = moment.bytes(10);
    let second = (start % 192).wrapping_add(64).wrapping_add(step);
    Prefix::containing(Ipv4Addr::new(10, second, 0, 0).into(), 16).expect("16 bits fit IPv4")
}

/// Candidate for the IPv6 prefix of a new network, fdxx:xxxx:xxxx:xxxx::/64 (RFC 4193), with a random global id.
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

/// True for addresses that no routed host can have: unspecified, loopback, link-local, multicast and above.
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
