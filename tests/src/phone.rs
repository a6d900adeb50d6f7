//! A phone or laptop as a client: it has the real `wg-quick` with a userspace WireGuard and the generated file, and
//! nothing else of ours.

use crate::lab::Host;
use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use std::net::IpAddr;

/// Name of the tunnel interface, which is that of the file.
pub const TUNNEL: &str = "gatewrt";
/// Folder with a copy of `wg-quick`, which looks for programs there first, and a `resolvconf` that records its input.
const BIN: &str = "/etc/wireguard/bin";
const FILE: &str = "/etc/wireguard/gatewrt.conf";
const RESOLVCONF: &str = "#!/bin/sh\n\
    mkdir -p /run/resolvconf\n\
    case $1 in\n-a) cat >\"/run/resolvconf/$2\" ;;\n-d) rm -f \"/run/resolvconf/$2\" ;;\nesac\n";

/// A device with a tunnel up. The tunnel stays up when this value is dropped.
pub struct Phone {
    host: Host,
    file: String,
}

impl Phone {
    /// Writes a generated file to the host and brings its tunnel up.
    pub fn up(host: &Host, file: &str) -> Result<Self> {
        host.write_file(&format!("{BIN}/resolvconf"), RESOLVCONF)?;
        host.write_file(FILE, file)?;
        host.shell(&format!("cp \"$(command -v wg-quick)\" {BIN}; chmod 755 {BIN}/*; chmod 600 {FILE}"))?;
        wg_quick(host, "up")?;
        Ok(Self { host: host.clone(), file: file.to_owned() })
    }

    /// Takes the tunnel down; nothing of it is left.
    pub fn down(self) -> Result<Host> {
        wg_quick(&self.host, "down")?;
        Ok(self.host)
    }

    /// Host of the lab that stands for the device.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Addresses of the device in the network: IPv4, then IPv6.
    pub fn addresses(&self) -> Result<[IpAddr; 2]> {
        let values = values(&self.file, "Address");
        let addresses = values.iter().map(|text| address(text)).collect::<Result<Vec<_>>>()?;
        let of = |is_wanted: fn(&IpAddr) -> bool| addresses.iter().copied().find(is_wanted);
        Ok([of(IpAddr::is_ipv4).context("an IPv4 address")?, of(IpAddr::is_ipv6).context("an IPv6 address")?])
    }

    /// DNS servers that `wg-quick` has entered on the device.
    pub fn dns(&self) -> Result<Vec<IpAddr>> {
        let entered = self.host.read_file(&format!("/run/resolvconf/{TUNNEL}"))?;
        let servers = entered.lines().filter_map(|line| line.strip_prefix("nameserver "));
        servers.map(|server| server.parse().with_context(|| format!("{server} is no address"))).collect()
    }

    /// Time of the last handshake with the gateway, in seconds since 1970; 0 for never.
    pub fn handshake(&self) -> Result<u64> {
        let said = self.host.run(&["wg", "show", TUNNEL, "latest-handshakes"])?.stdout;
        let time = said.split_whitespace().nth(1).context("a peer")?;
        Ok(time.parse()?)
    }
}

/// Checks a file with wireguard-tools alone: `wg setconf` must accept the output of `wg-quick strip` and then have the
/// values of the file.
pub fn check_file(host: &Host, file: &str) -> Result<()> {
    const PROBE: &str = "probe0";
    host.write_file(&format!("/run/{PROBE}.conf"), file)?;
    let script = format!(
        "chmod 600 /run/{PROBE}.conf
         ip link add dev {PROBE} type wireguard 2>/dev/null || wireguard-go {PROBE} >/dev/null 2>&1; \
         wg-quick strip /run/{PROBE}.conf | wg setconf {PROBE} /dev/stdin; wg showconf {PROBE}; ip link del {PROBE}"
    );
    let taken = host.shell(&script)?.stdout;
    for key in ["PrivateKey", "PublicKey", "PresharedKey", "Endpoint", "PersistentKeepalive"] {
        ensure!(values(file, key) == values(&taken, key), "{key} is not as in the file");
    }
    let sorted = |text: &str| {
        let mut nets = values(text, "AllowedIPs");
        nets.sort_unstable();
        nets
    };
    ensure!(sorted(file) == sorted(&taken), "allowed IPs {:?}, not {:?}", sorted(&taken), sorted(file));
    Ok(())
}

/// Values of a key, from all lines that have it.
pub fn values(file: &str, key: &str) -> Vec<String> {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.to_owned())
    };
    let texts: Vec<String> = file.lines().filter_map(value).collect();
    texts.iter().flat_map(|text| text.split(',')).map(|one| one.trim().to_owned()).collect()
}

/// Copy of the file with another value for a key, as its owner may edit it.
pub fn edited(file: &str, key: &str, value: &str) -> String {
    let edit = |line: &str| match line.split_once('=') {
        Some((name, _)) if name.trim() == key => format!("{key} = {value}\n"),
        _ => format!("{line}\n"),
    };
    file.lines().map(edit).collect()
}

fn wg_quick(host: &Host, what: &str) -> Result<()> {
    let command = host.command(&[&format!("{BIN}/wg-quick"), what, FILE]);
    command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-go").run().map(drop)
}

fn address(text: &str) -> Result<IpAddr> {
    let with_length = text.parse::<IpNet>().map(|net| net.addr());
    with_length.or_else(|_| text.parse()).with_context(|| format!("{text} is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "[Interface]\nPrivateKey = a=\nAddress = 10.0.0.2/32, fd00::2/128\n\n[Peer]\nAllowedIPs=10.0.0.0/8\n";

    #[test]
    fn a_file_is_read_and_edited() {
        assert_eq!(values(FILE, "Address"), ["10.0.0.2/32", "fd00::2/128"]);
        assert_eq!(values(FILE, "PrivateKey"), ["a="]);
        let all = edited(FILE, "AllowedIPs", "0.0.0.0/0, ::/0");
        assert_eq!(values(&all, "AllowedIPs"), ["0.0.0.0/0", "::/0"]);
        assert_eq!(values(&all, "Address"), values(FILE, "Address"));
    }
}
