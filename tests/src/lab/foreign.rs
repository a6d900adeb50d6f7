//! Foreign objects on a router, look-alikes of ours among them, and the check that nobody touches them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::host::Host;
use super::wait::eventually;

/// Route protocol of the foreign routes; no known program uses it.
const PROTOCOL: &str = "77";
/// Priorities of the foreign rules, among them some of mwan3 (1001, 2001), Tailscale (5210) and pbr (30000).
const PRIORITIES: [u32; 5] = [100, 1001, 2001, 5210, 30000];
/// Tables in which others keep their routes: the first of mwan3, the first of pbr, and Tailscale's.
const TABLES: [u32; 3] = [1, 256, 52];

/// Builder for foreign objects on a router; [`ForeignKit::place`] creates them.
#[derive(Clone)]
pub struct ForeignKit {
    router: Host,
    interface: Option<String>,
    tables: Vec<u32>,
    priorities: Vec<u32>,
    alike: Vec<(u32, String)>,
}

/// Foreign objects on a router. A reboot of the router removes them: place them again.
pub struct Foreign {
    router: Host,
    objects: Vec<Object>,
}

/// One foreign object: the command that shows it, and that command's output when the object was placed.
struct Object {
    name: String,
    probe: String,
    seen: String,
}

impl Foreign {
    /// Places the usual kit: routes in main and in others' tables, rules, the interface `gw-foreign`, the nft tables
    /// `inet gatewrt2`, `ip gatewrt` and `inet fw4`.
    pub fn place(router: &Host) -> Result<Self> {
        Self::kit(router).place()
    }

    /// Kit with the usual objects, to be extended.
    pub fn kit(router: &Host) -> ForeignKit {
        let (tables, priorities) = (TABLES.to_vec(), PRIORITIES.to_vec());
        ForeignKit { router: router.clone(), interface: None, tables, priorities, alike: Vec::new() }
    }

    /// Places addresses on, and routes through, an interface of ours that is up, and nothing else.
    pub fn on_interface(router: &Host, ifname: &str) -> Result<Self> {
        let (mut script, mut probes) = (String::new(), Vec::new());
        add_on_interface(ifname, &mut script, &mut probes);
        router.shell(&script).with_context(|| format!("place foreign objects on {ifname}"))?;
        Self::seen(router, probes)
    }

    /// Records the present output of these probes.
    fn seen(router: &Host, probes: Vec<(String, String)>) -> Result<Self> {
        let seen = observe(router, probes.iter().map(|(_, probe)| probe.as_str()))?;
        let objects =
            probes.into_iter().zip(seen).map(|((name, probe), seen)| Object { name, probe, seen }).collect();
        Ok(Self { router: router.clone(), objects })
    }

    /// Fails the test unless every object is byte for byte what it was, nft handles included.
    #[track_caller]
    pub fn assert_untouched(&self) {
        match self.changes() {
            Ok(changes) => {
                assert!(changes.is_empty(), "foreign objects were touched:\n{}", changes.join("\n"))
            }
            Err(error) => panic!("foreign objects on {}: {error:#}", self.router.name()),
        }
    }

    /// Objects that were touched, each with its output before and now.
    pub fn changes(&self) -> Result<Vec<String>> {
        let now = observe(&self.router, self.objects.iter().map(|o| o.probe.as_str()))?;
        let touched = self.objects.iter().zip(now).filter(|(object, now)| object.seen != *now);
        Ok(touched
            .map(|(o, now)| format!("{} ({})\n  was: {}\n  is:  {now}", o.name, o.probe, o.seen))
            .collect())
    }

    /// Removes the usual kit: the device with its routes, the rules and the nft tables.
    pub fn remove(self) -> Result<()> {
        let tables = TABLES_OF_OTHERS.map(|(table, _)| format!("nft delete table {table}\n")).concat();
        let rule = |family| {
            format!(
                "ip {family} rule flush protocol {PROTOCOL}
                while ip {family} rule del fwmark 0x5a000000/0xff000000 2>/dev/null; do :; done\n"
            )
        };
        let rules = ["-4", "-6"].map(rule).concat();
        self.router.shell(&format!("ip link del gw-foreign\n{rules}{tables}")).map(drop)
    }

    /// Stops expecting the addresses and routes on an interface, for when it is removed on purpose.
    pub fn forget_interface(&mut self, ifname: &str) {
        self.objects.retain(|object| !object.name.ends_with(&format!(" on {ifname}")));
    }
}

impl ForeignKit {
    /// Adds an address on, and routes through, an interface of ours that exists.
    pub fn on_interface(mut self, ifname: &str) -> Self {
        self.interface = Some(ifname.to_owned());
        self
    }

    /// Adds a route in a table, such as our own.
    pub fn in_table(mut self, table: u32) -> Self {
        self.tables.push(table);
        self
    }

    /// Adds a rule with a priority, such as one next to ours or equal to ours.
    pub fn with_rule(mut self, priority: u32) -> Self {
        self.priorities.push(priority);
        self
    }

    /// Adds rules of both families like ours (`rule` as `ip rule add` takes it), but for packets from one interface
    /// only.
    pub fn with_rule_like(mut self, priority: u32, rule: &str) -> Self {
        self.alike.push((priority, rule.to_owned()));
        self
    }

    /// Creates all objects, waits up to 5 s until the interface is settled, and records them.
    pub fn place(&self) -> Result<Foreign> {
        let mut script = String::from(DEVICE);
        let mut probes = vec![
            ("link gw-foreign".to_owned(), "ip -j -d link show dev gw-foreign".to_owned()),
            ("addresses of gw-foreign".to_owned(), "ip -j addr show dev gw-foreign".to_owned()),
        ];
        self.add_routes(&mut script, &mut probes);
        self.add_rules(&mut script, &mut probes);
        if let Some(ifname) = &self.interface {
            add_on_interface(ifname, &mut script, &mut probes);
        }
        for (table, _) in TABLES_OF_OTHERS {
            probes.push((format!("nft table {table}"), format!("nft -a list table {table}")));
        }
        self.router.shell(&script).context("place foreign objects")?;
        let rules: String =
            TABLES_OF_OTHERS.iter().map(|(name, body)| format!("table {name} {{{body}}}\n")).collect();
        self.router.nft(&rules).context("place foreign nft tables")?;
        eventually(Duration::from_secs(5), "the foreign interface is up", || -> Result<()> {
            let state = self.router.run(&["ip", "addr", "show", "dev", "gw-foreign"])?.stdout;
            // The kernel settles the state and the link-local address of a new link some time later.
            let is_settled = state.contains("state UP") && state.contains("fe80::");
            ensure!(is_settled && !state.contains("tentative"), state);
            Ok(())
        })?;
        Foreign::seen(&self.router, probes)
    }

    fn add_routes(&self, script: &mut String, probes: &mut Vec<(String, String)>) {
        for table in self.tables.iter().map(u32::to_string).chain(["main".to_owned()]) {
            for (family, net) in [("-4", "203.0.113.0/24"), ("-6", "2001:db8:f0f0::/48")] {
                *script +=
                    &format!("ip {family} route add {net} dev gw-foreign proto {PROTOCOL} table {table}\n");
                let probe = format!("ip {family} -d route show {net} dev gw-foreign table {table}");
                probes.push((format!("route {net} in table {table}"), probe));
            }
        }
    }

    fn add_rules(&self, script: &mut String, probes: &mut Vec<(String, String)>) {
        for priority in &self.priorities {
            for family in ["-4", "-6"] {
                *script += &format!(
                    "ip {family} rule add priority {priority} fwmark 0x5a000000/0xff000000 table {}\n",
                    TABLES[0]
                );
                let probe =
                    format!("ip {family} -d rule show priority {priority} fwmark 0x5a000000/0xff000000");
                probes.push((format!("rule {family} {priority}"), probe));
            }
        }
        for (priority, rule) in &self.alike {
            for family in ["-4", "-6"] {
                let selector = format!("priority {priority} iif foreign-peer");
                *script += &format!("ip {family} rule add {selector} {rule} protocol {PROTOCOL}\n");
                let probe = format!("ip {family} -d rule show {selector}");
                probes.push((format!("rule {family} {priority} like ours"), probe));
            }
        }
    }
}

/// Commands that make a veth pair named like one of our interfaces.
const DEVICE: &str = "ip link add gw-foreign type veth peer name foreign-peer
ip link set foreign-peer up
ip link set gw-foreign up
ip addr add 192.0.2.77/26 dev gw-foreign
ip addr add 192.0.2.130/26 dev gw-foreign
ip addr add 2001:db8:77::77/64 dev gw-foreign nodad
";

/// Nft tables with names near ours, and the one of OpenWrt's own firewall.
const TABLES_OF_OTHERS: [(&str, &str); 3] = [
    (
        "inet gatewrt2",
        "
  set peers { type ipv4_addr; flags interval; elements = { 192.0.2.0/26, 198.51.100.7 } }
  chain forward { type filter hook forward priority filter; policy accept; ip saddr @peers mark 0x77 accept; }
",
    ),
    (
        "ip gatewrt",
        "\n  chain postrouting { type nat hook postrouting priority srcnat; oifname \"nowhere\" masquerade; }\n",
    ),
    (
        "inet fw4",
        "
  set blocked { type ipv6_addr; elements = { 2001:db8:dead::1 } }
  chain input { type filter hook input priority filter; policy accept; ip6 saddr @blocked drop; }
  chain forward { type filter hook forward priority filter; policy accept; jump forward_lan; }
  chain forward_lan { iifname \"gw-*\" mark 0x1234 accept comment \"!fw4: a zone\"; }
",
    ),
];

/// Adds addresses and routes to an interface of ours. A daemon that cleans the interface up sees them there, but they
/// are not its own.
fn add_on_interface(ifname: &str, script: &mut String, probes: &mut Vec<(String, String)>) {
    for (family, address, net) in
        [("-4", "192.0.2.200/32", "198.51.100.128/25"), ("-6", "2001:db8:200::1/128", "2001:db8:201::/48")]
    {
        let nodad = if family == "-6" { " nodad" } else { "" };
        *script += &format!("ip {family} addr replace {address} dev {ifname}{nodad}\n");
        *script += &format!("ip {family} route replace {net} dev {ifname} proto {PROTOCOL}\n");
        let probe = format!("ip {family} -o addr show dev {ifname} to {address}");
        probes.push((format!("address {address} on {ifname}"), probe));
        let probe = format!("ip {family} -d route show {net} dev {ifname}");
        probes.push((format!("route {net} on {ifname}"), probe));
    }
}

/// Runs all probes in one script; a probe that fails yields its error text.
fn observe<'a>(router: &Host, probes: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let script: String = probes.map(|probe| format!("{probe} 2>&1 || true; echo =====\n")).collect();
    let output = router.shell(&script)?.stdout;
    let mut seen: Vec<String> = output.split("=====\n").map(str::to_owned).collect();
    seen.pop();
    Ok(seen)
}
