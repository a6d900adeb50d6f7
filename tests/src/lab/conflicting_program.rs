//! Conflicting programs: other policy routers, as they install themselves on a router, rebuilt from the numbers they
//! document and the rules they write. Each one routes some destinations its own way, to a device behind which nobody
//! answers.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::host::Host;

/// Program to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Mark mask 0x3f00; rules 1001 (incoming interface), 2001 (its marks), 2061-2062 (blackhole, unreachable), 3001
    /// (no falling through).
    Mwan3,
    /// Mark mask 0xff0000; rules from 30000 downwards; tables from 256.
    Pbr,
    /// Mark mask 0xff0000; rules 5210-5270; table 52.
    Tailscale,
}

/// Conflicting program that is set up on a router until [`ConflictingProgram::remove`].
pub struct ConflictingProgram {
    router: Host,
    program: Program,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 3] = [Self::Mwan3, Self::Pbr, Self::Tailscale];

    /// One IPv4 and one IPv6 address that the program routes its own way.
    pub fn destinations(self) -> [&'static str; 2] {
        match self {
            Self::Tailscale => ["100.100.7.7", "fd7a:115c:a1e0::7"],
            Self::Mwan3 | Self::Pbr => ["198.19.7.7", "2001:db8:7777::7"],
        }
    }

    /// IPv4 and IPv6 prefix that the program routes its own way.
    pub fn prefixes(self) -> [&'static str; 2] {
        match self {
            Self::Tailscale => ["100.64.0.0/10", "fd7a:115c:a1e0::/48"],
            Self::Mwan3 | Self::Pbr => ["198.19.0.0/16", "2001:db8:7777::/48"],
        }
    }

    /// Device that the program routes these prefixes to.
    pub fn device(self) -> &'static str {
        if self == Self::Tailscale { "tailscale0" } else { "wanb" }
    }

    /// Policy rules, as arguments of `ip [-6] rule add`.
    fn rules(self) -> &'static [&'static str] {
        match self {
            Self::Mwan3 => &[
                "pref 1001 iif wan lookup 1",
                "pref 1002 iif wanb lookup 2",
                "pref 2001 fwmark 0x100/0x3f00 lookup 1",
                "pref 2002 fwmark 0x200/0x3f00 lookup 2",
                "pref 2061 fwmark 0x3d00/0x3f00 blackhole",
                "pref 2062 fwmark 0x3e00/0x3f00 unreachable",
                "pref 3001 fwmark 0x100/0x3f00 unreachable",
                "pref 3002 fwmark 0x200/0x3f00 unreachable",
            ],
            Self::Pbr => &[
                "pref 29998 lookup main suppress_prefixlength 1",
                "pref 29999 fwmark 0x20000/0xff0000 lookup 257",
                "pref 30000 fwmark 0x10000/0xff0000 lookup 256",
            ],
            Self::Tailscale => &[
                "pref 5210 fwmark 0x80000/0xff0000 lookup main",
                "pref 5230 fwmark 0x80000/0xff0000 lookup default",
                "pref 5250 fwmark 0x80000/0xff0000 unreachable",
                "pref 5270 lookup 52",
            ],
        }
    }

    /// Routes, as arguments of `ip [-6] route add`; `gateway` is the WAN's.
    fn routes(self, gateway: &str, prefix: &str) -> Vec<String> {
        match self {
            Self::Mwan3 => {
                vec![format!("default via {gateway} dev wan table 1"), "default dev wanb table 2".to_owned()]
            }
            Self::Pbr => {
                vec![
                    format!("default via {gateway} dev wan table 256"),
                    "default dev wanb table 257".to_owned(),
                ]
            }
            Self::Tailscale => vec![format!("{prefix} dev tailscale0 table 52")],
        }
    }

    fn firewall(self) -> &'static str {
        match self {
            Self::Mwan3 => MWAN3,
            Self::Pbr => PBR,
            Self::Tailscale => TAILSCALE,
        }
    }
}

/// Rule set of mwan3: restores its mark, marks connections that came in over the WAN, leaves connected networks alone,
/// applies its policies, saves its mark.
const MWAN3: &str = "table inet other {
    chain prerouting { type filter hook prerouting priority mangle; jump mwan3_hook; }
    chain output { type route hook output priority mangle; jump mwan3_hook; }
    chain mwan3_hook {
        ct mark & 0x3f00 vmap { 0x100 : jump mwan3_one, 0x200 : jump mwan3_two, 0x3f00 : jump mwan3_default }
        meta mark & 0x3f00 == 0 iifname \"wan\" jump mwan3_one
        meta mark & 0x3f00 == 0 ip daddr { 127.0.0.0/8, 192.168.0.0/16, 224.0.0.0/3 } jump mwan3_default
        meta mark & 0x3f00 == 0 ip6 daddr { fe80::/10, fd00::/8, ff00::/8, 2001:db8:2020::/47 } jump mwan3_default
        meta mark & 0x3f00 == 0 ip daddr 198.19.0.0/16 jump mwan3_two
        meta mark & 0x3f00 == 0 ip6 daddr 2001:db8:7777::/48 jump mwan3_two
        meta mark & 0x3f00 == 0 jump mwan3_one
    }
    chain mwan3_one { meta mark set meta mark & 0xffffc0ff | 0x100; ct mark set ct mark & 0xffffc0ff | 0x100; }
    chain mwan3_two { meta mark set meta mark & 0xffffc0ff | 0x200; ct mark set ct mark & 0xffffc0ff | 0x200; }
    chain mwan3_default { meta mark set meta mark & 0xffffc0ff | 0x3f00; ct mark set ct mark & 0xffffc0ff | 0x3f00; }
}";

/// Rule set of pbr: a policy by destination, for forwarded packets and for the router's own.
const PBR: &str = "table inet other {
    chain prerouting { type filter hook prerouting priority mangle; jump policies; }
    chain output { type route hook output priority mangle; jump policies; }
    chain policies {
        ip daddr 198.19.0.0/16 goto pbr_two
        ip6 daddr 2001:db8:7777::/48 goto pbr_two
    }
    chain pbr_two { meta mark set meta mark & 0xff00ffff | 0x20000; return; }
}";

/// Rule set of Tailscale: marks forwarded packets that come from its network, and masquerades marked ones.
const TAILSCALE: &str = "table inet other {
    chain forward {
        type filter hook forward priority filter
        iifname \"tailscale0\" meta mark set meta mark & 0xff00ffff | 0x40000
        oifname \"tailscale0\" ip saddr 100.64.0.0/10 drop
    }
    chain postrouting { type nat hook postrouting priority srcnat; meta mark & 0xff0000 == 0x40000 masquerade; }
}";

impl ConflictingProgram {
    /// Sets a program up on a router.
    pub fn place(router: &Host, program: Program) -> Result<Self> {
        let device = program.device();
        let mut script = format!(
            "ip link add {device} type veth peer name other-peer
            ip link set other-peer up
            ip link set {device} arp off up
            ip addr add 100.100.1.1/32 dev {device}
            ip addr add fd7a:115c:a1e0::1/128 dev {device} nodad\n"
        );
        for (family, prefix) in ["-4", "-6"].into_iter().zip(program.prefixes()) {
            let gateway = match family {
                "-4" => Ipv4Addr::from(u32::from(router.ip4()?) - 1).to_string(),
                _ => format!("{}1", router.ip6()?.to_string().trim_end_matches('2')),
            };
            for route in program.routes(&gateway, prefix) {
                script += &format!("ip {family} route add {route}\n");
            }
            if program == Program::Mwan3 {
                script += &format!(
                    "ip {family} route show table main | grep -v -e ^default -e gw-home | while read -r route; do
                        for table in 1 2; do ip {family} route add $route table $table || true; done
                    done\n"
                );
            }
            for rule in program.rules() {
                script += &format!("ip {family} rule add {rule}\n");
            }
        }
        router.shell(&script).with_context(|| format!("{program:?}"))?;
        router.nft(program.firewall()).with_context(|| format!("{program:?}"))?;
        Ok(Self { router: router.clone(), program })
    }

    /// Rules, routes and nft table of the program as they are now, as text to compare.
    pub fn look(&self) -> Result<String> {
        let tables = ["1", "2", "52", "256", "257"];
        let routes = tables.map(|table| format!("ip -4 route show table {table} 2>/dev/null || true; ip -6 route show table {table} 2>/dev/null || true"));
        let script = format!(
            "for family in -4 -6; do ip $family rule | grep -v 'proto 103' || true; done\n{}\nnft list table inet other",
            routes.join("\n")
        );
        Ok(self.router.shell(&script)?.stdout)
    }

    /// Removes the program's rules, routes, nft table and device.
    pub fn remove(self) -> Result<()> {
        let rule = |rule: &&str| {
            let words = rule.split(' ').take(2).collect::<Vec<_>>().join(" ");
            format!("ip -4 rule del {words}\nip -6 rule del {words}\n")
        };
        let rules: String = self.program.rules().iter().map(rule).collect();
        let flush = ["1", "256"].map(|table| {
            format!("ip -4 route flush table {table} || true; ip -6 route flush table {table} || true\n")
        });
        let script = format!(
            "{rules}{}nft delete table inet other; ip link del {}",
            flush.concat(),
            self.program.device()
        );
        self.router.shell(&script).map(drop)
    }
}
