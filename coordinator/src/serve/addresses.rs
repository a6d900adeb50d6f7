//! Advertised addresses: the names and addresses by which routers reach the coordinator.

use super::{ServeConfig, ServeError};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Names and addresses under which the coordinator is advertised, best first, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    hosts: Vec<String>,
    listen: BTreeSet<IpAddr>,
}

impl Advertised {
    /// Chooses the advertised names: the configured ones; without any, the listen addresses; without any, all addresses
    /// of this machine.
    pub fn new(config: &ServeConfig) -> Result<Self, ServeError> {
        let listen =
            [config.https.ip(), config.mqtt.ip()].into_iter().filter(|addr| !addr.is_unspecified()).collect();
        let hosts = config.advertise.iter().map(|host| checked(host)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { hosts: if hosts.is_empty() { default_hosts(&listen) } else { hosts }, listen })
    }

    /// Names in the coordinator's server certificate, including the loopback names that local commands use.
    pub fn certificate_names(&self) -> BTreeSet<String> {
        let listen = self.listen.iter().map(IpAddr::to_string);
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self.hosts.iter().cloned().chain(listen).chain(local).collect()
    }

    /// URL of the API under the best advertised name, for join codes.
    pub fn url(&self, port: u16) -> String {
        format!("https://{}", self.at(port).next().expect("at least one host"))
    }

    /// Addresses of the MQTT broker under all advertised names.
    pub fn brokers(&self, port: u16) -> Vec<String> {
        self.at(port).collect()
    }

    /// Resolves every address and port of the coordinator, for assignments. If a name does not resolve now, the
    /// addresses of the last start are kept.
    pub async fn resolve(&self, https: u16, mqtt: u16, last: &[SocketAddr]) -> BTreeSet<SocketAddr> {
        let mut addrs = BTreeSet::new();
        for host in &self.hosts {
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(found) => addrs.extend(found.map(|found| found.ip())),
                Err(error) => {
                    tracing::warn!(host, "an advertised name does not resolve here: {error}");
                    addrs.extend(last.iter().map(SocketAddr::ip));
                }
            }
        }
        addrs.iter().flat_map(|addr| [SocketAddr::new(*addr, https), SocketAddr::new(*addr, mqtt)]).collect()
    }

    fn at(&self, port: u16) -> impl Iterator<Item = String> {
        self.hosts.iter().map(move |host| match host.parse() {
            Ok(addr) => SocketAddr::new(addr, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        })
    }
}

/// URL of the API for commands on the same machine.
pub(super) fn local_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

fn checked(host: &str) -> Result<String, ServeError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Ok(addr.to_string());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let sound = !host.is_empty() && host.len() <= 253 && host.chars().all(plain);
    sound.then(|| host.to_ascii_lowercase()).ok_or_else(|| ServeError::Advertise(host.to_owned()))
}

fn default_hosts(listen: &BTreeSet<IpAddr>) -> Vec<String> {
    let addrs = if listen.is_empty() { own_addresses() } else { listen.iter().copied().collect() };
    let mut hosts: Vec<_> = addrs.iter().map(IpAddr::to_string).collect();
    if hosts.is_empty() {
        tracing::warn!("this machine has no address that others could reach: advertising 127.0.0.1");
        hosts.push(Ipv4Addr::LOCALHOST.to_string());
    }
    hosts
}

/// Addresses of this machine's interfaces that are up, in the kernel's order, without loopback, link-local and overlay
/// addresses.
fn own_addresses() -> Vec<IpAddr> {
    let all = getifaddrs().into_iter().flatten();
    let up = all.filter(|interface| {
        let flags = interface.flags;
        flags.contains(InterfaceFlags::IFF_UP)
            && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && !interface.interface_name.starts_with("gw-")
    });
    let addr = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let routable = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    up.filter_map(addr).filter(routable).collect()
}
