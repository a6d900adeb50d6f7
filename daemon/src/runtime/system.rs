//! Machine that the daemon runs on.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
};

/// Port of packets whose arrival does not matter (RFC 863).
const DISCARD: u16 = 9;

/// Sends a packet to each overlay address, so that it goes through its tunnel. The result of the send does not matter.
pub fn send_keepalive(addresses: &[IpAddr]) {
    let send = |local: IpAddr, to: SocketAddr| {
        UdpSocket::bind((local, 0)).and_then(|socket| socket.send_to(&[0], to))
    };
    for address in addresses {
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let local = any[usize::from(address.is_ipv6())];
        if let Err(error) = send(local, SocketAddr::new(*address, DISCARD)) {
            log::debug!("no packet to {address}: {error}");
        }
    }
}

/// Makes OpenWrt's service read again on which ports networks listen, so that the firewall accepts them. Does not wait.
pub fn networks_changed() {
    if Path::new("/etc/init.d/gatewrt").exists() {
        let reload = "/etc/init.d/gatewrt reload </dev/null >/dev/null 2>&1 &";
        let _ = Command::new("sh").args(["-c", reload]).status();
    }
}

/// Ends OpenWrt's service, which would start another daemon for one that ends. Waits for the service, not for the
/// daemon.
pub fn stop_service() {
    let script = "/etc/init.d/gatewrt";
    if Path::new(script).exists() {
        let _ = Command::new(script).arg("stop").stdin(Stdio::null()).stdout(Stdio::null()).status();
    }
}

/// Resident memory of this process in KiB; 0 where it can't be read.
pub fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Model of this machine, from the device tree or DMI, or else the kernel's type.
pub fn board() -> String {
    let files = ["/tmp/sysinfo/model", "/proc/device-tree/model", "/sys/class/dmi/id/product_name"];
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok());
    let text = text.or_else(|| fs::read_to_string("/proc/sys/kernel/ostype").ok()).unwrap_or_default();
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars().take(64).collect()
}
