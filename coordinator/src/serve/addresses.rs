//! Advertised addresses: the names and addresses by which routers reach the coordinator.

mod host;
mod own;

use super::{ServeConfig, ServeError};
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
    /// Chooses the advertised names: the configured ones; without any, the listen addresses; without any, the addresses of
    /// this machine that others can reach.
    pub fn new(config: &ServeConfig) -> Result<Self, ServeError> {
        let listen = [config.https.ip(), config.mqtt.ip()].map(|addr| addr.to_canonical());
        let listen = listen.into_iter().filter(|addr| !addr.is_unspecified()).collect();
        let mut hosts: Vec<String> = Vec::new();
        for given in &config.advertise {
            let host =
                host::checked(given).map_err(|why| ServeError::Advertise { host: given.clone(), why })?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            hosts = default_hosts(&listen);
            tracing::warn!(
                "routers get bare addresses of this coordinator: {}. They lose it when these change; give a name that can move: --advertise gw.example.org",
                hosts.join(", ")
            );
        }
        Ok(Self { hosts, listen })
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

fn default_hosts(listen: &BTreeSet<IpAddr>) -> Vec<String> {
    let addrs = if listen.is_empty() { own::addresses() } else { listen.iter().copied().collect() };
    let mut hosts: Vec<_> = addrs.iter().map(IpAddr::to_string).collect();
    if hosts.is_empty() {
        tracing::warn!("this machine has no address that others could reach: advertising 127.0.0.1");
        hosts.push(Ipv4Addr::LOCALHOST.to_string());
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(https: &str, advertise: &[&str]) -> ServeConfig {
        ServeConfig {
            data: "/nonexistent".into(),
            https: https.parse().unwrap(),
            mqtt: "[::]:8883".parse().unwrap(),
            advertise: advertise.iter().map(|&host| host.to_owned()).collect(),
            custom_certificate: None,
        }
    }

    #[test]
    fn names_are_advertised_once_each_in_their_order() {
        let given = ["GW.example.org.", "gw.example.org", "[2001:db8::1]", "2001:0db8::1", "192.0.2.1"];
        let advertised = Advertised::new(&config("[::]:8443", &given)).unwrap();
        assert_eq!(advertised.brokers(1), ["gw.example.org:1", "[2001:db8::1]:1", "192.0.2.1:1"]);
        assert_eq!(advertised.url(2), "https://gw.example.org:2");
    }

    #[test]
    fn text_that_is_no_host_is_refused_with_the_reason() {
        let error = Advertised::new(&config("[::]:8443", &["gw.example.org", "gw:8443"])).unwrap_err();
        assert!(
            error.to_string().contains("“gw:8443” can't be advertised: give it without a port"),
            "{error}"
        );
    }

    #[test]
    fn listen_addresses_are_advertised_where_no_name_is_given() {
        let advertised = Advertised::new(&config("[::ffff:192.0.2.7]:8443", &[])).unwrap();
        assert_eq!(advertised.brokers(1), ["192.0.2.7:1"]);
    }
}
