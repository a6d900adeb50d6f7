//! Resolvers of the uplink, read from the file in which the system keeps them. The file is never changed.

use gatewrt_protocol::is_public;
use std::{fs, net::IpAddr};

/// Maximum number of resolvers returned.
pub const MOST: usize = 3;

/// Candidate files, of which the first that exists is read: netifd's, with the resolvers of the provider (`resolv.conf`
/// on OpenWrt names the router's own dnsmasq), else the system's.
const FILES: [&str; 3] = ["/tmp/resolv.conf.d/resolv.conf.auto", "/tmp/resolv.conf.auto", "/etc/resolv.conf"];

/// DNS resolvers of the uplink that others can reach through this router: neither the router itself nor private
/// addresses behind another NAT.
pub fn of_uplink() -> Vec<IpAddr> {
    let text = FILES.iter().find_map(|file| fs::read_to_string(file).ok());
    public(&text.unwrap_or_default())
}

/// Public addresses of DNS resolvers in lines `nameserver <address>`, as in resolv.conf(5).
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
    fn file_of_netifd_gives_its_resolvers() {
        let text = "# Interface wan\nnameserver 198.51.100.53\nsearch isp.example\n# Interface wan6\n\
                    nameserver 2001:db8::53\nnameserver 198.51.100.53\n";
        assert_eq!(found(text), ["198.51.100.53", "2001:db8::53"]);
    }

    #[test]
    fn private_resolvers_are_left_out() {
        let text = "nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.168.1.1\nnameserver 100.64.0.1\n\
                    nameserver fe80::1%eth1\nnameserver fd00::1\nnameserver\noptions edns0\n";
        assert!(found(text).is_empty());
    }

    #[test]
    fn long_list_is_cut_to_the_most() {
        let text: String = (1..9).map(|n| format!("nameserver 198.51.100.{n}\n")).collect();
        assert_eq!(found(&text).len(), MOST);
    }
}
