//! Cables as text for `ip -batch`: creation, addresses and their removal. Pure; the lab runs it.

use std::fmt::Write;

use super::layout::{Cable, End, Layout};

/// Commands that make a veth pair between two hosts, given the process that holds each.
pub(crate) fn create(cable: &Cable, upper_pid: i32, lower_pid: i32) -> String {
    let Cable { upper, lower } = cable;
    format!(
        "link add dev {} netns {upper_pid} address {} type veth peer name {} netns {lower_pid} address {}\n",
        upper.ifname, upper.mac, lower.ifname, lower.mac
    )
}

/// Commands that make the bridges of the fabric, which forward from the first packet on.
pub(crate) fn bridges(layout: &Layout) -> String {
    layout.bridges.iter().fold(String::new(), |mut text, bridge| {
        let _ = writeln!(text, "link add dev {bridge} type bridge forward_delay 0 mcast_snooping 0");
        let _ = writeln!(text, "link set dev {bridge} up");
        text
    })
}

/// Commands that bring one end up with its addresses and routes; they can be run again, as after a link came back.
pub(crate) fn configure(end: &End) -> String {
    let dev = &end.ifname;
    let mut text = String::new();
    if let Some(bridge) = &end.bridge {
        let _ = writeln!(text, "link set dev {dev} master {bridge}");
    }
    let _ = writeln!(text, "link set dev {dev} up");
    for address in &end.addresses {
        let _ = writeln!(text, "addr replace {address} dev {dev}{}", nodad(address));
    }
    for route in &end.routes {
        let _ = writeln!(text, "route replace {} via {} dev {dev}", route.to, route.via);
    }
    text
}

/// Commands that remove the addresses of an end but leave the link up, as when an address expires, not as when a cable
/// is pulled.
pub(crate) fn unaddress(end: &End) -> String {
    end.addresses.iter().fold(String::new(), |mut text, address| {
        let _ = writeln!(text, "addr del {address} dev {}", end.ifname);
        text
    })
}

fn nodad(address: &ipnet::IpNet) -> &'static str {
    if matches!(address, ipnet::IpNet::V6(_)) { " nodad" } else { "" }
}
