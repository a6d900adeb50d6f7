//! Diagnosis of a system: checks what the daemon needs, and changes nothing.

use super::{
    conntrack,
    firewall::{Backend, iptables::Iptables},
    linux::Options,
    process::{ask, find, run},
    wireguard::userspace::PROGRAMS,
};
use crate::{
    config::{Config, WireGuard},
    model::Family,
};
use std::{fs, path::Path, process::Command, time::Duration};

/// Time a program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Result of the check of one thing that the daemon needs, such as WireGuard or the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the requirement.
    pub what: &'static str,
    /// State that was found.
    pub found: String,
    /// Advice when that is not enough.
    pub problem: Option<String>,
}

/// Checks a router for everything that the daemon needs.
pub fn diagnose(config: &Config) -> Vec<Finding> {
    let mut all = vec![privileges(), wireguard(config), connections(), ipv6()];
    let Options { nft, iptables, .. } = Options::default();
    all.extend(match Backend::new(config.firewall, nft, iptables, &config.run_dir).by_iptables() {
        Some(programs) => Family::ALL.map(|family| self::iptables(programs, family)).into(),
        None => vec![
            self::nft(),
            exits(EXITS, "install kmod-nft-nat and kmod-nft-fib"),
            exits(EXITS_V6, "install kmod-nf-nat6; without it IPv4 alone"),
        ],
    });
    all
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), problem: None }
}

fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), problem: Some(advice.into()) }
}

/// Checks for the capability CAP_NET_ADMIN, bit 12 of the effective capabilities (`linux/capability.h`).
fn privileges() -> Finding {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    match capabilities & CAP_NET_ADMIN {
        0 => bad("privileges", "no CAP_NET_ADMIN", "run it as root"),
        _ => good("privileges", "CAP_NET_ADMIN"),
    }
}

fn wireguard(config: &Config) -> Finding {
    if in_kernel() {
        return good("WireGuard", "in the kernel");
    }
    let install = "install kmod-wireguard (or wireguard-go, which is slower)";
    if config.wireguard == WireGuard::Kernel {
        return bad("WireGuard", "not in the kernel, and the configuration wants no other", install);
    }
    let named = match &config.wireguard {
        WireGuard::Program(program) => vec![program.as_str()],
        _ => PROGRAMS.to_vec(),
    };
    let found = named.iter().find_map(|program| find(program));
    let tun = Path::new("/dev/net/tun").exists();
    match (found, tun) {
        (Some(path), true) => good("WireGuard", format!("in userspace: {}", path.display())),
        (Some(path), false) => {
            bad("WireGuard", format!("{}, but no /dev/net/tun", path.display()), "install kmod-tun")
        }
        (None, _) => {
            bad("WireGuard", format!("neither in the kernel nor as {}", named.join(" or ")), install)
        }
    }
}

/// True if the kernel has WireGuard: loaded, or as a module that it loads when it is asked for such an interface.
fn in_kernel() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(release.trim());
    let listed =
        || fs::read_to_string(modules.join("modules.dep")).is_ok_and(|all| all.contains("/wireguard.ko"));
    Path::new("/sys/module/wireguard").exists() || modules.join("wireguard.ko").exists() || listed()
}

fn nft() -> Finding {
    let program = Options::default().nft;
    let Some(path) = find(&program) else {
        return bad("firewall", "no program nft", "install nftables");
    };
    let listed = Command::new(&path).args(["list", "tables"]).output();
    match listed {
        Ok(output) if output.status.success() => good("firewall", format!("{}", path.display())),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            bad("firewall", said, "run it as root; install kmod-nft-core")
        }
        Err(error) => bad("firewall", error.to_string(), "install nftables anew"),
    }
}

fn connections() -> Finding {
    match conntrack::check() {
        Ok(()) => good("connections", "are cut when they are forbidden"),
        Err(error) => bad("connections", error.to_string(), "install kmod-nf-conntrack-netlink"),
    }
}

/// Rules that exits and exit clients need of the firewall. Nothing of it is loaded: see `nft --check`.
const EXITS: (&str, &str) = (
    "exits",
    "table inet gatewrt-check {\n\
     chain queries { type nat hook prerouting priority -105; fib daddr type local return; meta nfproto ipv4 udp dport 53 dnat ip to 192.0.2.1; }\n\
     chain answers { type nat hook output priority -105; meta nfproto ipv4 udp dport 53 dnat ip to 192.0.2.1; }\n\
     chain leave { type nat hook postrouting priority 100; meta nfproto ipv4 masquerade; }\n\
     chain marks { type route hook output priority -150; ct mark and 0x1 == 0x1 meta mark set 0x1; }\n}\n",
);
const EXITS_V6: (&str, &str) = (
    "exits for IPv6",
    "table ip6 gatewrt-check {\n\
     chain queries { type nat hook prerouting priority -105; udp dport 53 dnat to 2001:db8::1; }\n\
     chain leave { type nat hook postrouting priority 100; masquerade; }\n}\n",
);

fn exits((what, rules): (&'static str, &str), install: &str) -> Finding {
    let mut nft = Command::new(find(&Options::default().nft).unwrap_or_default());
    nft.args(["--check", "--file", "-"]);
    match run(nft, rules, PATIENCE) {
        Ok(finished) if finished.success => good(what, "the firewall can do what they need"),
        Ok(finished) => bad(what, finished.stderr.lines().next().unwrap_or("nft refuses"), install),
        Err(error) => bad(what, error.to_string(), "install nftables"),
    }
}

/// Rules that our table needs of iptables beyond the basics, exits included. Nothing of it is loaded.
const CHAINS: &str = "*filter\n:gwrt-check - [0:0]\n-A gwrt-check -m conntrack --ctstate NEW -j REJECT\n\
    -A gwrt-check -p tcp --tcp-flags SYN SYN -j TCPMSS --clamp-mss-to-pmtu\n\
    -A gwrt-check -j CONNMARK --set-xmark 0x1/0x1\nCOMMIT\n\
    *mangle\n:gwrt-check - [0:0]\n-A gwrt-check -m addrtype --src-type LOCAL -j RETURN\n\
    -A gwrt-check -m connmark --mark 0x1/0x1 -j MARK --set-xmark 0x1/0x1\nCOMMIT\n\
    *nat\n:gwrt-check - [0:0]\n-A gwrt-check -j MASQUERADE\nCOMMIT\n";

fn iptables(programs: &Iptables, family: Family) -> Finding {
    let (what, install) = match family {
        Family::V4 => ("firewall", "install nftables, or iptables with iptables-mod-extra and kmod-ipt-nat"),
        Family::V6 => ("firewall for IPv6", "install ip6tables and kmod-ipt-nat6; without it IPv4 alone"),
    };
    let program = programs.restore(family);
    match ask(&program, &["--noflush", "--test"], CHAINS, "iptables") {
        Ok(_) => good(what, format!("{program} (no nftables in use)")),
        Err(error) => bad(what, error.to_string(), install),
    }
}

fn ipv6() -> Finding {
    match fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6") {
        Ok(value) if value.trim() == "0" => good("IPv6", "on"),
        Ok(_) => bad(
            "IPv6",
            "switched off by sysctl",
            "networks work with IPv4 alone; set net.ipv6.conf.all.disable_ipv6 to 0",
        ),
        Err(_) => bad("IPv6", "not in the kernel", "networks work with IPv4 alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iptables_findings_name_each_family() {
        let there = Iptables::new("iptables-legacy".to_owned(), Path::new("/nowhere"));
        let missing = Iptables::new("/nowhere/iptables".to_owned(), Path::new("/nowhere"));
        for family in Family::ALL {
            let finding = iptables(&there, family);
            assert_eq!(finding.problem, None, "{finding:?}");
            let finding = iptables(&missing, family);
            assert!(finding.problem.is_some_and(|advice| advice.contains("install")), "{}", finding.found);
        }
    }

    #[test]
    fn missing_firewall_feature_is_reported_with_advice() {
        let finding = exits(("exits", "table inet x { chain y { no such thing } }"), "install it");
        assert_eq!(finding.problem.as_deref(), Some("install it"));
        assert!(finding.found.contains("rror"), "{finding:?}");
    }
}
