//! The resolvers of the uplink, read from the file in which the system keeps them. That file is never changed.

use crate::core::desired::is_public;
use std::{fs, net::IpAddr};

/// So many are of use.
pub const MOST: usize = 3;

/// The first that there is: what OpenWrt's netifd learned from the provider (`resolv.conf` there names the router's own
/// dnsmasq), else everyone's.
const FILES: [&str; 3] = ["/tmp/resolv.conf.d/resolv.conf.auto", "/tmp/resolv.conf.auto", "/etc/resolv.conf"];

/// Those that can be asked by others through this router: not the router itself, nor what is behind another NAT box.
pub fn of_uplink() -> Vec<IpAddr> {
    let text = FILES.iter().find_map(|file| fs::read_to_string(file).ok());
    public(&text.unwrap_or_default())
}

/// Lines as in resolv.conf(5): `nameserver <address>`.
fn public(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let named = (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten();
        if let Some(addr) = named.filter(|addr| is_public(*addr) && !found.contains(addr)) {
            found.push(addr);
        }
    }
    found.truncate(MOST);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        public(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_as_netifd_writes_it() {
        let text = "# Interface wan\nnameserver 198.51.100.53\nsearch isp.example\n# Interface wan6\n\
                    nameserver 2001:db8::53\nnameserver 198.51.100.53\n";
        assert_eq!(found(text), ["198.51.100.53", "2001:db8::53"]);
    }

    #[test]
    fn what_others_can_not_ask_is_left_out() {
        let text = "nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.168.1.1\nnameserver 100.64.0.1\n\
                    nameserver fe80::1%eth1\nnameserver fd00::1\nnameserver\noptions edns0\n";
        assert!(found(text).is_empty());
    }

    #[test]
    fn there_are_few() {
        let text: String = (1..9).map(|n| format!("nameserver 198.51.100.{n}\n")).collect();
        assert_eq!(found(&text).len(), MOST);
    }
}
