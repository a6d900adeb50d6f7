//! Layout of a lab, computed from its topology: hosts, cables, addresses, routes, rule sets. Pure.
//!
//! Attachment N to the core has 198.18.N.0/24 and 2001:db8:N::/64, with the core at .1 and ::1. Behind a NAT box, IPv4
//! is 100.64.N.0/24 instead. LAN hosts are connected to a bridge in a namespace of the lab's own, the fabric, so that
//! they keep their link when their router reboots.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::topology::{CORE, Forward, Nat, NatIpv6, NatKind, Router, Topology};

/// Name of the node that holds the bridges of the LANs.
pub(crate) const FABRIC: &str = "fabric";

/// Kind of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The Internet itself.
    Core,
    /// A host with nothing behind it, directly on the Internet or behind a NAT box.
    Server,
    /// A NAT box.
    Nat,
    /// A site router.
    Router,
    /// A host on the LAN of a router.
    Host,
}

/// One host to build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) forwarding: bool,
    pub(crate) rp_filter: u8,
    pub(crate) ruleset: String,
}

/// A route that belongs to one end of a cable: it exists as long as the link does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteVia {
    pub(crate) to: IpNet,
    pub(crate) via: IpAddr,
}

/// One end of a cable.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) node: String,
    pub(crate) ifname: String,
    pub(crate) mac: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<RouteVia>,
    pub(crate) bridge: Option<String>,
}

/// A veth pair. The upper end is nearer to the core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cable {
    pub(crate) upper: End,
    pub(crate) lower: End,
}

/// All hosts, cables and bridges to build.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) cables: Vec<Cable>,
    pub(crate) bridges: Vec<String>,
    next_subnet: u8,
}

/// The addresses on one cable towards the core.
pub(crate) struct Subnet {
    pub(crate) upper: Vec<IpNet>,
    pub(crate) lower: Vec<IpNet>,
    pub(crate) defaults: Vec<RouteVia>,
}

impl Layout {
    /// Computes the layout of a checked topology.
    pub(crate) fn new(topology: &Topology) -> Result<Self> {
        let mut layout = Self { next_subnet: 1, ..Self::default() };
        layout.add_node(CORE, Kind::Core, true, 0, String::new());
        for (name, server) in &topology.server {
            layout.add_node(name, Kind::Server, false, 0, String::new());
            layout.attach(name, "eth0", &server.wan, has_ipv6(topology, &server.wan))?;
        }
        for (name, nat) in &topology.nat {
            layout.add_node(name, Kind::Nat, true, 0, String::new());
            layout.attach(name, "wan", &nat.wan, has_ipv6(topology, &nat.wan))?;
        }
        for (name, router) in &topology.router {
            layout.add_node(name, Kind::Router, router.forwarding, router.rp_filter, router_rules(router));
            layout.attach(name, "wan", &router.wan, has_ipv6(topology, &router.wan))?;
            layout.add_lans(name, router)?;
        }
        for (name, nat) in &topology.nat {
            let rules = nat_rules(nat, &layout)?;
            layout.nodes.get_mut(name).context("a NAT box has a node")?.ruleset = rules;
        }
        for (name, nat) in &topology.nat {
            layout.route_ipv6_to(name, nat);
        }
        Ok(layout)
    }

    /// End of a cable at an interface of a host.
    pub(crate) fn end(&self, node: &str, ifname: &str) -> Option<&End> {
        self.ends().find(|end| end.node == node && end.ifname == ifname)
    }

    /// The cable that leads towards the core.
    pub(crate) fn uplink(&self, node: &str) -> Option<&Cable> {
        self.cables.iter().find(|cable| cable.lower.node == node && is_uplink(&cable.lower))
    }

    /// The text of /etc/hosts: each host with its addresses towards the core.
    pub(crate) fn names(&self) -> String {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for cable in self.cables.iter().filter(|cable| is_uplink(&cable.lower)) {
            for address in &cable.lower.addresses {
                let _ = writeln!(text, "{} {}", address.addr(), cable.lower.node);
            }
        }
        text
    }

    /// The host directly on the core through which a host reaches the Internet: itself, its router or a NAT box.
    pub(crate) fn edge(&self, node: &str) -> Result<String> {
        let cable = self.uplink(node).with_context(|| format!("{node} has no way to the core"))?;
        match cable.upper.node.as_str() {
            CORE => Ok(node.to_owned()),
            FABRIC => {
                let bridge = &cable.upper.bridge;
                let on_lan =
                    |c: &&Cable| c.upper.bridge == *bridge && self.nodes[&c.lower.node].kind == Kind::Router;
                let router = self.cables.iter().find(on_lan).context("a LAN has a router")?;
                self.edge(&router.lower.node)
            }
            nat => self.edge(nat),
        }
    }

    /// All ends of all cables.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &End> {
        self.cables.iter().flat_map(|cable| [&cable.upper, &cable.lower])
    }

    /// The cables that touch a host.
    pub(crate) fn cables_of(&self, node: &str) -> impl Iterator<Item = &Cable> {
        self.cables.iter().filter(move |cable| cable.upper.node == node || cable.lower.node == node)
    }

    /// Moves the uplink of a host to an unused subnet and returns the cable before and after.
    pub(crate) fn renumber(&mut self, node: &str) -> Result<(Cable, Cable)> {
        let old = self.uplink(node).with_context(|| format!("{node} has no WAN"))?.clone();
        let ipv6 = old.lower.addresses.iter().any(|a| matches!(a, IpNet::V6(_)));
        let subnet = self.subnet(&old.upper.node, ipv6)?;
        let cable =
            self.cables.iter_mut().find(|c| c.lower.node == node && c.lower.ifname == old.lower.ifname);
        let cable = cable.context("the uplink was just found")?;
        let via = |to: &IpNet| subnet.lower.iter().find(|a| is_ipv4(a) == is_ipv4(to)).map(IpNet::addr);
        let moved = |route: &RouteVia| Some(RouteVia { to: route.to, via: via(&route.to)? });
        cable.upper.routes = old.upper.routes.iter().filter_map(moved).collect();
        cable.upper.addresses = subnet.upper;
        cable.lower.addresses = subnet.lower;
        cable.lower.routes = subnet.defaults;
        Ok((old, cable.clone()))
    }

    fn add_node(&mut self, name: &str, kind: Kind, forwarding: bool, rp_filter: u8, ruleset: String) {
        self.nodes.insert(name.to_owned(), Node { kind, forwarding, rp_filter, ruleset });
    }

    /// Connects a host to the core or to a NAT box.
    fn attach(&mut self, name: &str, ifname: &str, upstream: &str, ipv6: bool) -> Result<()> {
        let subnet = self.subnet(upstream, ipv6)?;
        let upper =
            End { node: upstream.into(), ifname: name.into(), addresses: subnet.upper, ..End::default() };
        let lower = End {
            node: name.into(),
            ifname: ifname.into(),
            addresses: subnet.lower,
            routes: subnet.defaults,
            ..End::default()
        };
        self.connect(upper, lower);
        Ok(())
    }

    fn connect(&mut self, mut upper: End, mut lower: End) {
        // Fixed MAC addresses, as hardware has them: neighbours need not relearn one after a reboot.
        let number = self.cables.len();
        upper.mac = format!("02:00:00:{:02x}:{:02x}:01", number >> 8, number & 0xff);
        lower.mac = format!("02:00:00:{:02x}:{:02x}:02", number >> 8, number & 0xff);
        self.cables.push(Cable { upper, lower });
    }

    fn subnet(&mut self, upstream: &str, ipv6: bool) -> Result<Subnet> {
        let n = self.next_subnet;
        ensure!(n < 250, "no more than 249 attachments and WAN changes in one lab");
        self.next_subnet += 1;
        let v4 = |host: u8| if upstream == CORE { [198, 18, n, host] } else { [100, 64, n, host] };
        let v4 = |host: u8| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from(v4(host)), 24));
        let v6 = |host: u16| IpNet::from(Ipv6Net::new_assert(wan6(n, host), 64));
        let both =
            |host: u8| std::iter::once(v4(host)).chain(ipv6.then(|| v6(host.into()))).collect::<Vec<_>>();
        let defaults = both(1).iter().map(|gw| RouteVia { to: default_route(gw), via: gw.addr() }).collect();
        Ok(Subnet { upper: both(1), lower: both(2), defaults })
    }

    fn add_lans(&mut self, router: &str, spec: &Router) -> Result<()> {
        for (ifname, lan) in spec.all_lans() {
            let nets: Vec<IpNet> =
                lan.lan.map(IpNet::from).into_iter().chain(lan.lan6.map(IpNet::from)).collect();
            if nets.is_empty() {
                continue;
            }
            let bridge = format!("lan{}", self.bridges.len());
            self.bridges.push(bridge.clone());
            let gateways = nets.iter().map(|net| nth(net, 1)).collect::<Result<Vec<_>>>()?;
            self.plug(
                &bridge,
                End { node: router.into(), ifname, addresses: gateways.clone(), ..End::default() },
            );
            self.route_public_lan(router, &nets);
            for (name, number) in lan.hosts.iter().zip(10..) {
                self.add_node(name, Kind::Host, false, 0, String::new());
                let addresses = nets.iter().map(|net| nth(net, number)).collect::<Result<Vec<_>>>()?;
                let routes = gateways.iter().map(|gw| RouteVia { to: default_route(gw), via: gw.addr() });
                let routes = routes.collect();
                self.plug(
                    &bridge,
                    End { node: name.into(), ifname: "eth0".into(), addresses, routes, ..End::default() },
                );
            }
        }
        Ok(())
    }

    fn plug(&mut self, bridge: &str, lower: End) {
        let ifname = format!("p{}", self.cables.len());
        let upper = End { node: FABRIC.into(), ifname, bridge: Some(bridge.into()), ..End::default() };
        self.connect(upper, lower);
    }

    /// Routes the public IPv6 prefix (2000::/3) of a LAN to its router, as a provider does, and nothing else.
    fn route_public_lan(&mut self, router: &str, nets: &[IpNet]) {
        for net in nets {
            if matches!(net, IpNet::V6(v6) if v6.addr().segments()[0] & 0xe000 == 0x2000) {
                self.route_down(router, *net);
            }
        }
    }

    /// Routes a prefix from the core down to a host, through the NAT boxes on the way.
    fn route_down(&mut self, node: &str, net: IpNet) {
        let mut below = node.to_owned();
        while let Some(cable) = self.cables.iter_mut().find(|c| c.lower.node == below && is_uplink(&c.lower))
        {
            let via = cable.lower.addresses.iter().find(|a| is_ipv4(a) == is_ipv4(&net)).map(IpNet::addr);
            let Some(via) = via else { return };
            cable.upper.routes.push(RouteVia { to: net.trunc(), via });
            below = cable.upper.node.clone();
        }
    }

    /// Routes the IPv6 subnets behind a NAT box, which are public, to the box.
    fn route_ipv6_to(&mut self, name: &str, nat: &Nat) {
        if nat.ipv6 == NatIpv6::None {
            return;
        }
        let behind = self.cables.iter().filter(|c| c.upper.node == name).flat_map(|c| &c.upper.addresses);
        let nets: Vec<IpNet> = behind.filter(|a| !is_ipv4(a)).map(IpNet::trunc).collect();
        nets.into_iter().for_each(|net| self.route_down(name, net));
    }
}

fn is_uplink(end: &End) -> bool {
    end.ifname == "wan" || end.ifname == "eth0"
}

fn has_ipv6(topology: &Topology, wan: &str) -> bool {
    let nat = topology.nat.get(wan);
    nat.is_none_or(|nat| nat.ipv6 == NatIpv6::Routed && has_ipv6(topology, &nat.wan))
}

fn wan6(subnet: u8, host: u16) -> Ipv6Addr {
    // Written in decimal digits, so that 2001:db8:12::1 goes with 198.18.12.1.
    let digits = u16::from_str_radix(&subnet.to_string(), 16).expect("decimal digits are hexadecimal ones");
    Ipv6Addr::new(0x2001, 0xdb8, digits, 0, 0, 0, 0, host)
}

fn nth(net: &IpNet, number: u8) -> Result<IpNet> {
    let net = net.trunc();
    let address = match net.addr() {
        IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from(u32::from(v4) + u32::from(number))),
        // Host 10 is ::10, as in IPv4.
        IpAddr::V6(v6) => {
            let digits =
                u128::from_str_radix(&number.to_string(), 16).expect("decimal digits are hexadecimal ones");
            IpAddr::from(Ipv6Addr::from(u128::from(v6) + digits))
        }
    };
    Ok(IpNet::new(address, net.prefix_len())?)
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn default_route(gateway: &IpNet) -> IpNet {
    if is_ipv4(gateway) { IpNet::from(Ipv4Net::default()) } else { IpNet::from(Ipv6Net::default()) }
}

/// Rule set of a home router's own firewall, which is not ours and must stay as it is.
fn router_rules(router: &Router) -> String {
    let nets: Vec<String> =
        router.all_lans().iter().filter_map(|(_, l)| l.lan).map(|n| n.trunc().to_string()).collect();
    if !router.masquerade || nets.is_empty() {
        return String::new();
    }
    format!(
        "table inet fw4like {{\n chain srcnat {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
         oifname \"wan\" ip saddr {{ {} }} masquerade\n }}\n}}\n",
        nets.join(", ")
    )
}

fn nat_rules(nat: &Nat, layout: &Layout) -> Result<String> {
    let mut forwards = String::new();
    for text in &nat.forward {
        let Forward { port, protocol, to, to_port } = Forward::parse(text)?;
        let inside = layout.end(&to, "wan").and_then(|end| end.addresses.iter().find(|a| is_ipv4(a)));
        let inside = inside.with_context(|| format!("{to} has no IPv4 WAN address"))?.addr();
        writeln!(forwards, "  iifname \"wan\" {protocol} dport {port} dnat ip to {inside}:{to_port}")?;
    }
    let ports = match nat.kind {
        NatKind::Easy => "",
        NatKind::Symmetric => " random,fully-random",
    };
    Ok(format!(
        "table inet isp {{\n chain dstnat {{\n  type nat hook prerouting priority dstnat; policy accept;\n{forwards} }}\n \
         chain srcnat {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
         meta nfproto ipv4 oifname \"wan\" masquerade{ports}\n }}\n \
         chain forward {{\n  type filter hook forward priority filter; policy accept;\n  \
         meta nfproto ipv4 iifname \"wan\" ct state new ct status & dnat == 0 drop\n }}\n}}\n"
    ))
}

#[cfg(test)]
mod tests;
