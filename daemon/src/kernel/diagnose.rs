//! What the daemon needs of a system, looked at without changing anything.

use super::{conntrack, linux::Options, process::find, wireguard::userspace::PROGRAMS};
use crate::config::{Config, WireGuard};
use std::{fs, path::Path, process::Command};

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// What to do when that is not enough.
    pub problem: Option<String>,
}

/// Looks at everything the daemon needs.
pub fn diagnose(config: &Config) -> Vec<Finding> {
    vec![privileges(), wireguard(config), nft(), connections(), ipv6()]
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), problem: None }
}

fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what, found: found.into(), problem: Some(advice.into()) }
}

/// Bit 12 of the effective capabilities (`linux/capability.h`).
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

/// Loaded, or a module that the kernel loads when it is asked for such an interface.
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

/// Looked through, but none is cut.
fn connections() -> Finding {
    match conntrack::cut(&mut |_| false) {
        Ok(_) => good("connections", "are cut when they are forbidden"),
        Err(error) => bad("connections", error.to_string(), "install kmod-nf-conntrack-netlink"),
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
