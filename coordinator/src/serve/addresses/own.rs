//! Addresses of this machine that routers may reach: those of interfaces that lead out of it. Bridges and links of
//! containers and virtual machines, tunnels and the like don't.

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

/// Interfaces, as the kernel shows them (sysfs-class-net).
const INTERFACES: &str = "/sys/class/net";
/// Largest number of interfaces below each other: a VLAN on a bond on a port, say.
const DEPTH: u8 = 4;
/// Flags of an IPv6 address that will not last: temporary, its duplicate found, deprecated (linux/if_addr.h).
const PASSING: u32 = 0x01 | 0x08 | 0x20;
/// Flag of a route that leads nowhere (linux/route.h, RTF_REJECT).
const REJECT: u32 = 0x200;

/// Interface that is up, and its addresses that others may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    addrs: Vec<IpAddr>,
    /// A default route leads over it.
    has_default_route: bool,
    /// It is a device, or consists of some: a VLAN, a bond, a bridge with a port.
    is_device: bool,
    is_bridge: bool,
}

/// Addresses of this machine that routers may reach, best first: those with a default route. The others are named in the
/// log, with the reason.
pub(super) fn addresses() -> Vec<IpAddr> {
    let all = interfaces();
    let (chosen, others) = choose(&all);
    for other in others {
        tracing::info!(
            "{} is not advertised: {} has neither a default route nor a network device; if routers reach it, name it by --advertise",
            other.addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
            other.name,
        );
    }
    chosen
}

/// Addresses to advertise, and interfaces that were passed over. Where nothing leads out, as in a container, each that is no
/// bridge may.
fn choose(all: &[Interface]) -> (Vec<IpAddr>, Vec<&Interface>) {
    let leads_out = |interface: &Interface| interface.has_default_route || interface.is_device;
    let any = all.iter().any(leads_out);
    let (mut chosen, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|interface| if any { leads_out(interface) } else { !interface.is_bridge });
    chosen.sort_by_key(|interface| !interface.has_default_route);
    (chosen.iter().flat_map(|interface| interface.addrs.iter().copied()).collect(), others)
}

/// Interfaces of this machine that are up, in the kernel's order, without loopback and overlay interfaces.
fn interfaces() -> Vec<Interface> {
    let routed = default_routes(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
    let passing = passing_addresses(&read("/proc/net/if_inet6"));
    let mut found: Vec<(String, Vec<IpAddr>)> = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let is_up = interface.flags.contains(InterfaceFlags::IFF_UP);
        // An address may have a label, such as eth0:1.
        let name = interface.interface_name.split(':').next().unwrap_or_default().to_owned();
        if !is_up || interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) || name.starts_with("gw-") {
            continue;
        }
        let addr = interface.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        let Some(addr) = addr.filter(|addr| is_routable(addr) && !passing.contains(addr)) else { continue };
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, addrs)) => addrs.push(addr),
            None => found.push((name, vec![addr])),
        }
    }
    let known = |(name, addrs): (String, Vec<IpAddr>)| Interface {
        has_default_route: routed.contains(&name),
        is_device: is_device(Path::new(INTERFACES), &name, DEPTH),
        is_bridge: Path::new(INTERFACES).join(&name).join("bridge").exists(),
        name,
        addrs,
    };
    found.into_iter().map(known).collect()
}

fn is_routable(addr: &IpAddr) -> bool {
    let is_link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !is_link_local && !addr.is_loopback() && !addr.is_unspecified()
}

/// True if an interface is a device, or one is below it.
fn is_device(root: &Path, name: &str, depth: u8) -> bool {
    let dir = root.join(name);
    if dir.join("device").exists() {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut lower = names.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned));
    lower.any(|lower| is_device(root, &lower, depth))
}

/// Interfaces over which a default route leads, from the kernel's tables of IPv4 and IPv6 routes.
fn default_routes(v4: &str, v6: &str) -> BTreeSet<String> {
    let leads = |flags: &str| u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT == 0);
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …
    let v4 = v4.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, to, flags, mask) = (words.first()?, words.get(1)?, words.get(3)?, words.get(7)?);
        (*to == "00000000" && *mask == "00000000" && leads(flags)).then(|| (*name).to_owned())
    });
    // Destination, its length, source, its length, next hop, metric, counters, flags, interface.
    let v6 = v6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (to, length, flags, name) = (words.first()?, words.get(1)?, words.get(8)?, words.get(9)?);
        let is_default = to.bytes().all(|byte| byte == b'0') && *length == "00" && *name != "lo";
        (is_default && leads(flags)).then(|| (*name).to_owned())
    });
    v4.chain(v6).collect()
}

/// IPv6 addresses that will not last, from the kernel's table: address, index, length, scope, flags, interface.
fn passing_addresses(table: &str) -> BTreeSet<IpAddr> {
    let passing = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bits = u128::from_str_radix(words.first()?, 16).ok()?;
        let flags = u32::from_str_radix(words.get(4)?, 16).ok()?;
        (flags & PASSING != 0).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
    });
    passing.collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addr: &str) -> Interface {
        Interface {
            name: name.into(),
            addrs: vec![addr.parse().unwrap()],
            has_default_route: false,
            is_device: false,
            is_bridge: false,
        }
    }

    fn chosen(all: &[Interface]) -> Vec<String> {
        choose(all).0.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn bridge_of_containers_is_passed_over() {
        let docker = Interface { is_bridge: true, ..interface("docker0", "172.17.0.1") };
        let eth0 = Interface { is_device: true, ..interface("eth0", "192.0.2.1") };
        let eth1 =
            Interface { is_device: true, has_default_route: true, ..interface("eth1", "198.51.100.1") };
        let vpn = interface("tun0", "10.8.0.1");
        let all = [docker.clone(), eth0, vpn, eth1];
        assert_eq!(chosen(&all), ["198.51.100.1", "192.0.2.1"], "the one with the default route first");
        let others: Vec<_> = choose(&all).1.iter().map(|other| other.name.as_str()).collect();
        assert_eq!(others, ["docker0", "tun0"]);
        let veth = interface("eth0", "10.0.3.2");
        assert_eq!(chosen(&[docker.clone(), veth.clone()]), ["10.0.3.2"], "in a container");
        let uplink = Interface { has_default_route: true, ..interface("eth0", "10.0.3.2") };
        assert_eq!(chosen(&[veth, uplink]).len(), 1);
        assert!(chosen(&[docker]).is_empty());
    }

    #[test]
    fn device_is_found_below_a_bridge_or_vlan() {
        let root = tempfile::tempdir().unwrap();
        for dir in [
            "eth0/device",
            "eth0.5/lower_eth0",
            "br0/lower_eth0.5",
            "br0/bridge",
            "docker0/lower_veth1",
            "veth1",
        ] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let is_device = |name| is_device(root.path(), name, DEPTH);
        assert!(is_device("eth0") && is_device("eth0.5") && is_device("br0"));
        assert!(!is_device("docker0") && !is_device("veth1") && !is_device("gone"));
    }

    #[test]
    fn tables_of_the_kernel_are_read() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     wan\n\
            20010db8000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001    lan0\n\
            {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200      lo\n"
        );
        assert_eq!(default_routes(v4, &v6), ["eth0", "wan"].map(str::to_owned).into());
        let table = "20010db8000000000000000000000001 02 40 00 80     eth0\n\
            20010db8000000000000000000000002 02 40 00 01     eth0\n\
            fe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(passing_addresses(table), ["2001:db8::2".parse().unwrap()].into());
    }
}
