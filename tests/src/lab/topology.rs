//! Topology file: the hosts and how they are connected. Parsing and checking, nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Value of a `wan` key for "directly on the Internet"; also the name of the host that is the Internet.
pub const CORE: &str = "core";
/// Longest name in bytes. Interface names are made of host names, and the kernel takes 15 bytes.
const LONGEST_NAME: usize = 15;

/// An emulated Internet as a person writes it down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Hosts with nothing behind them.
    #[serde(default)]
    pub server: BTreeMap<String, Server>,
    /// NAT boxes of an ISP or a home, in front of routers and servers.
    #[serde(default)]
    pub nat: BTreeMap<String, Nat>,
    /// Site routers with their LANs.
    #[serde(default)]
    pub router: BTreeMap<String, Router>,
}

/// A host with nothing behind it: a server directly on the Internet, a phone behind the NAT box of its provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `core` or a NAT box.
    #[serde(default = "core")]
    pub wan: String,
}

/// Source port selection of a NAT box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatKind {
    /// Keeps the port where it can: one mapping for all destinations.
    #[default]
    Easy,
    /// A new random port for every destination.
    Symmetric,
}

/// IPv6 behind a NAT box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatIpv6 {
    /// Routed, with public addresses behind the box.
    #[default]
    Routed,
    /// No IPv6.
    None,
}

/// A NAT box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nat {
    /// `core` or another NAT box.
    #[serde(default = "core")]
    pub wan: String,
    /// Source port selection.
    #[serde(default)]
    pub kind: NatKind,
    /// Static forwards, written `51820/udp=barn` (or `51820/udp=barn:4500` for another port inside).
    #[serde(default)]
    pub forward: Vec<String>,
    /// IPv6 through the box.
    #[serde(default)]
    pub ipv6: NatIpv6,
}

/// A site router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// `core` or the NAT box it sits behind.
    #[serde(default = "core")]
    pub wan: String,
    /// IPv4 prefix of the interface `lan`.
    pub lan: Option<Ipv4Net>,
    /// IPv6 prefix of the interface `lan`; one within 2000::/3 is routed to the router by the core.
    pub lan6: Option<Ipv6Net>,
    /// Hosts on the LAN.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// More LANs, by interface name.
    #[serde(default)]
    pub lans: BTreeMap<String, Lan>,
    /// True if the router forwards at boot; if not, the daemon has to turn forwarding on.
    #[serde(default = "yes")]
    pub forwarding: bool,
    /// True if the router masquerades its LANs towards its WAN for IPv4, as any home router does.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// `net.ipv4.conf.*.rp_filter`: 0 off, 1 strict, 2 loose.
    #[serde(default)]
    pub rp_filter: u8,
}

/// One more LAN of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lan {
    /// IPv4 prefix.
    pub lan: Option<Ipv4Net>,
    /// IPv6 prefix.
    pub lan6: Option<Ipv6Net>,
    /// Hosts on the LAN, up to 200.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// One entry of `forward`, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Port on the box's WAN address.
    pub port: u16,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// Router behind the box.
    pub to: String,
    /// Port on the router.
    pub to_port: u16,
}

impl Topology {
    /// Reads and checks a file; an error names the file and the key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read topology {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("topology {}", path.display()))
    }

    /// Parses and checks the text of a topology file.
    pub fn parse(text: &str) -> Result<Self> {
        let topology: Self = toml::from_str(text)?;
        topology.check()?;
        Ok(topology)
    }

    /// Every host name with the key that defines it.
    fn names(&self) -> impl Iterator<Item = (&str, String)> {
        let servers = self.server.keys().map(|n| (n.as_str(), format!("server.{n}")));
        let nats = self.nat.keys().map(|n| (n.as_str(), format!("nat.{n}")));
        let routers = self.router.iter().flat_map(|(name, router)| {
            let own = std::iter::once((name.as_str(), format!("router.{name}")));
            own.chain(router_hosts(router).map(move |h| (h, format!("router.{name}.hosts"))))
        });
        servers.chain(nats).chain(routers)
    }

    fn check(&self) -> Result<()> {
        let mut seen = BTreeMap::new();
        for (name, key) in self.names() {
            check_name(name).with_context(|| key.clone())?;
            if let Some(first) = seen.insert(name.to_owned(), key.clone()) {
                bail!("{key}: the name {name} is already taken by {first}");
            }
        }
        for (name, server) in &self.server {
            self.check_wan(name, &server.wan).with_context(|| format!("server.{name}.wan"))?;
        }
        for (name, nat) in &self.nat {
            self.check_wan(name, &nat.wan).with_context(|| format!("nat.{name}.wan"))?;
            for text in &nat.forward {
                self.check_forward(name, text).with_context(|| format!("nat.{name}.forward: {text:?}"))?;
            }
        }
        for (name, router) in &self.router {
            self.check_wan(name, &router.wan).with_context(|| format!("router.{name}.wan"))?;
            ensure!(router.rp_filter <= 2, "router.{name}.rp_filter: 0, 1 or 2, not {}", router.rp_filter);
            check_lans(router).with_context(|| format!("router.{name}"))?;
        }
        Ok(())
    }

    /// Checks that a WAN leads to the core, through NAT boxes that are not behind themselves.
    fn check_wan(&self, name: &str, wan: &str) -> Result<()> {
        let mut at = wan;
        let mut passed = BTreeSet::from([name]);
        while at != CORE {
            let Some(nat) = self.nat.get(at) else {
                bail!("{at:?} is neither \"core\" nor a NAT box of this file");
            };
            ensure!(passed.insert(at), "the NAT box {at} is behind itself");
            at = &nat.wan;
        }
        Ok(())
    }

    fn check_forward(&self, nat: &str, text: &str) -> Result<()> {
        let to = Forward::parse(text)?.to;
        let behind = self.router.get(&to).map(|r| &r.wan).or_else(|| self.nat.get(&to).map(|n| &n.wan));
        ensure!(behind.is_some_and(|wan| wan == nat), "{to} is not behind {nat}");
        Ok(())
    }
}

impl Router {
    /// All LANs by interface name, `lan` first.
    pub fn all_lans(&self) -> Vec<(String, Lan)> {
        let first = Lan { lan: self.lan, lan6: self.lan6, hosts: self.hosts.clone() };
        let more = self.lans.iter().map(|(name, lan)| (name.clone(), lan.clone()));
        std::iter::once(("lan".to_owned(), first)).chain(more).collect()
    }
}

impl Forward {
    /// Parses `PORT/PROTOCOL=HOST[:PORT]`.
    pub fn parse(text: &str) -> Result<Self> {
        const FORM: &str = "write it as 51820/udp=barn or 51820/udp=barn:4500";
        let (outside, inside) = text.split_once('=').context(FORM)?;
        let (port, protocol) = outside.split_once('/').context(FORM)?;
        let (to, to_port) = inside.split_once(':').unwrap_or((inside, port));
        ensure!(["udp", "tcp"].contains(&protocol), "{protocol} is neither udp nor tcp; {FORM}");
        let number = |text: &str| text.parse().with_context(|| format!("{text} is not a port; {FORM}"));
        Ok(Self { port: number(port)?, protocol: protocol.into(), to: to.into(), to_port: number(to_port)? })
    }
}

fn router_hosts(router: &Router) -> impl Iterator<Item = &str> {
    router.hosts.iter().chain(router.lans.values().flat_map(|lan| &lan.hosts)).map(String::as_str)
}

fn check_lans(router: &Router) -> Result<()> {
    for (name, lan) in router.all_lans() {
        ensure!(!["wan", "lo", "eth0"].contains(&name.as_str()), "lans.{name}: the name is taken");
        check_name(&name).with_context(|| format!("lans.{name}"))?;
        let addressed = lan.lan.is_some() || lan.lan6.is_some();
        ensure!(lan.hosts.is_empty() || addressed, "{name} has hosts but neither lan nor lan6");
        ensure!(lan.hosts.len() <= 200, "{name} has more than 200 hosts");
        ensure!(lan.lan.is_none_or(|net| net.prefix_len() <= 24), "{name}: lan must be a /24 or larger");
        ensure!(lan.lan6.is_none_or(|net| net.prefix_len() <= 64), "{name}: lan6 must be a /64 or larger");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty() && name.len() <= LONGEST_NAME,
        "the name {name:?} must have 1 to {LONGEST_NAME} letters"
    );
    ensure!(name.chars().all(plain), "the name {name:?} may hold a-z, 0-9 and - only");
    ensure!(!name.starts_with('-'), "the name {name:?} starts with -");
    ensure!(![CORE, "fabric", "bin", "target", "all"].contains(&name), "the name {name:?} is the lab's own");
    Ok(())
}

fn core() -> String {
    CORE.to_owned()
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = Topology::parse(text).expect_err("a wrong topology");
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }

    #[test]
    fn the_built_in_ones_are_valid() {
        assert_eq!(Topology::three_sites().expect("valid").router.len(), 3);
        assert_eq!(Topology::two_sites().expect("valid").router.len(), 2);
        assert_eq!(Topology::phones().expect("valid").server.len(), 3);
        assert_eq!(Topology::exits().expect("valid").router.len(), 4);
    }

    #[test]
    fn an_error_names_the_key() {
        refused("[router.a]\nwan = 'nowhere'", "router.a.wan: \"nowhere\" is neither");
        refused("[server.a]\nwan = 'nowhere'", "server.a.wan: \"nowhere\" is neither");
        refused("[router.a]\nlan = '10.0.0.0'", "lan");
        refused("[router.a]\nrouter = 1", "unknown field `router`");
        refused("[router.a]\nhosts = ['pc']", "router.a: lan has hosts but neither lan nor lan6");
        refused(
            "[router.a]\nlan = '10.0.0.0/24'\nhosts = ['a']",
            "router.a.hosts: the name a is already taken by router.a",
        );
        refused("[server.core]", "server.core: the name \"core\" is the lab's own");
        refused("[server.a_b]", "may hold a-z");
        refused(
            "[nat.n]\nforward = ['51820=a']\n[router.a]\nwan = 'n'",
            "nat.n.forward: \"51820=a\": write it as",
        );
        refused("[nat.n]\nforward = ['1/udp=a']\n[router.a]", "a is not behind n");
        refused("[nat.a]\nwan = 'b'\n[nat.b]\nwan = 'a'", "is behind itself");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Topology::load("/nowhere.toml").expect_err("there is none");
        assert!(error.to_string().contains("/nowhere.toml"), "{error}");
    }

    #[test]
    fn a_forward_may_name_another_port() {
        let forward = Forward::parse("443/tcp=web:8443").expect("a forward");
        assert_eq!((forward.port, forward.to.as_str(), forward.to_port), (443, "web", 8443));
    }
}
