//! Wiring of a machine in place of a host of the lab: the host's cables are bridged to taps, and the machine gets the
//! host's addresses.

use std::fmt::Write;

use anyhow::Result;

use crate::lab::Host;

/// Removes a host's addresses and firewall and bridges its interfaces to taps. Returns QEMU's arguments, one network
/// card for each interface in this order, and the commands that give the machine's interfaces `eth0`, `eth1`… their
/// names, addresses and routes.
pub fn plug(host: &Host, interfaces: &[&str]) -> Result<(Vec<String>, String)> {
    let mut bridges = String::from("nft flush ruleset\nsysctl -qw net.ipv6.conf.all.disable_ipv6=1\n");
    let (mut cards, mut commands) = (Vec::new(), String::new());
    for (number, name) in interfaces.iter().enumerate() {
        let tap = format!("tap-{name}");
        write!(
            bridges,
            "ip addr flush dev {name}\n\
             ip link add dev br-{name} type bridge forward_delay 0 mcast_snooping 0\n\
             ip tuntap add dev {tap} mode tap\n\
             for port in {name} {tap}; do ip link set dev $port master br-{name} up; done\n\
             ip link set dev br-{name} up\n"
        )?;
        cards.extend(["-netdev".into(), format!("tap,id={name},ifname={tap},script=no,downscript=no")]);
        // Differs from the MAC address of the bridge, which is that of its port, the host's interface.
        let mac = format!("52:54:00:{:02x}:00:{number:02x}", host.ip4()?.octets()[2]);
        cards.extend(["-device".into(), format!("virtio-net-pci,netdev={name},mac={mac},romfile=")]);
        write!(commands, "ip link set dev eth{number} name {name}\nip link set dev {name} up\n")?;
        let wiring = host.wiring(name)?;
        for address in &wiring.addresses {
            writeln!(commands, "ip addr add {address} dev {name}")?;
        }
        for (to, via) in &wiring.routes {
            writeln!(commands, "ip route add {to} via {via} dev {name}")?;
        }
    }
    host.shell(&bridges)?;
    Ok((cards, commands))
}
