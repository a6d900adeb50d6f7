//! The package on a router, under busybox' ash with stand-ins for OpenWrt's own scripts: the files after installation,
//! upgrade and removal, also when these are repeated, and the service's calls to procd and the firewall. `make package`
//! checks that its programs start; the tests in a virtual machine check the rest.

use anyhow::{Result, ensure};
use router::{ARCH, Files, Router, here, ipk, packages, run};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

mod router;

/// All that the package puts on a router: path, mode or link.
const CONTENT: [(&str, &str); 9] = [
    ("/etc/capabilities/gatewrt.json", "644"),
    ("/etc/config/gatewrt", "600"),
    ("/etc/init.d/gatewrt", "755"),
    ("/etc/init.d/gatewrt-guard", "755"),
    ("/etc/uci-defaults/90-gatewrt", "755"),
    ("/lib/upgrade/keep.d/gatewrt", "644"),
    ("/usr/libexec/rpcd/gatewrt", "-> ../../sbin/gatewrt"),
    ("/usr/sbin/gatewrt", "755"),
    ("/usr/sbin/gatewrtd", "-> gatewrt"),
];
/// Files that its scripts create or change: the services are enabled, the firewall has a zone.
const MADE: [(&str, &str); 4] = [
    ("/etc/config/firewall", "changed"),
    ("/etc/rc.d/K10gatewrt", "-> ../init.d/gatewrt"),
    ("/etc/rc.d/S18gatewrt-guard", "-> ../init.d/gatewrt-guard"),
    ("/etc/rc.d/S95gatewrt", "-> ../init.d/gatewrt"),
];
const ZONE: &str = "
config zone 'gatewrt'
\toption name 'gatewrt'
\tlist device 'gw-+'
\toption input 'ACCEPT'
\toption output 'ACCEPT'
\toption forward 'ACCEPT'
config forwarding 'gatewrt_in'
\toption src 'gatewrt'
\toption dest 'lan'
config forwarding 'gatewrt_out'
\toption src 'lan'
\toption dest 'gatewrt'
";

struct Bed {
    dist: PathBuf,
    router: Router,
    before: Files,
}

impl Bed {
    fn new() -> Result<Self> {
        let router = Router::new()?;
        let before = router.files()?;
        Ok(Self { dist: packages()?, router, before })
    }

    fn installed() -> Result<Self> {
        let bed = Self::new()?;
        bed.router.install(&ipk(&bed.dist))?;
        Ok(bed)
    }

    /// Files that differ from those of the router without the package.
    fn changes(&self) -> Result<Vec<(String, String)>> {
        let mut files = self.router.files()?;
        files.retain(|path, content| self.before.get(path) != Some(content));
        let short = |(path, content): (String, String)| {
            let known = self.before.contains_key(&path).then(|| "changed".to_owned());
            let mode = content.split(' ').next().unwrap_or_default().to_owned();
            (path, known.unwrap_or(if mode == "->" { content } else { mode }))
        };
        Ok(files.into_iter().map(short).collect())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dist);
    }
}

fn table(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let rows: BTreeSet<_> =
        rows.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect();
    rows.into_iter().collect()
}

#[test]
fn installed_package_adds_its_files_a_zone_and_services() -> Result<()> {
    let bed = Bed::installed()?;
    // A first-boot script is gone once it has run.
    let content = CONTENT.into_iter().filter(|(path, _)| !path.contains("uci-defaults"));
    assert_eq!(bed.changes()?, table(&content.chain(MADE).collect::<Vec<_>>()));
    let firewall = bed.router.read("/etc/config/firewall")?;
    assert_eq!(
        firewall.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>()[12..],
        ZONE.trim().lines().collect::<Vec<_>>()
    );
    let calls = bed.router.calls();
    for expected in ["firewall reload", "procd set gatewrt"] {
        ensure!(calls.iter().any(|call| call == expected), "no {expected}: {calls:?}");
    }
    ensure!(!calls.iter().any(|call| call.starts_with("gatewrt")), "the guard is for boot alone: {calls:?}");
    Ok(())
}

#[test]
fn package_installed_twice_is_as_once() -> Result<()> {
    let bed = Bed::installed()?;
    let once = bed.router.files()?;
    bed.router.install(&ipk(&bed.dist))?;
    assert_eq!(bed.router.files()?, once);
    bed.router.shell("for i in 1 2; do /etc/init.d/gatewrt start; /etc/init.d/gatewrt reload; /etc/init.d/gatewrt enable; done")?;
    assert_eq!(bed.router.files()?, once);
    Ok(())
}

#[test]
fn package_upgrade_keeps_configuration_and_state_and_stops_nothing() -> Result<()> {
    let bed = Bed::installed()?;
    bed.router.write("/etc/config/gatewrt", "config gatewrt 'main'\n\toption log_level 'debug'\n")?;
    bed.router.write("/etc/gatewrt/home/identity.json", "{\n  \"port\": 51820\n}\n")?;
    bed.router.shell("/etc/init.d/gatewrt disable; uci set firewall.gatewrt.input=REJECT")?;
    let before = bed.router.files()?;
    bed.router.calls();
    bed.router.upgrade(&ipk(&bed.dist))?;
    assert_eq!(bed.router.files()?, before);
    let calls = bed.router.calls();
    ensure!(!calls.iter().any(|call| call.contains("teardown")), "{calls:?}");
    let (last, stopped) =
        (calls.last().map(String::as_str), calls.iter().any(|call| call == "procd delete gatewrt"));
    ensure!(stopped && last == Some("procd set gatewrt"), "the new program is started: {calls:?}");
    Ok(())
}

#[test]
fn removed_package_leaves_the_router_as_before() -> Result<()> {
    let bed = Bed::installed()?;
    bed.router.write("/etc/gatewrt/home/identity.json", "{}")?;
    bed.router.calls();
    bed.router.remove()?;
    assert_eq!(bed.router.files()?, bed.before);
    ensure!(!bed.router.exists("/etc/gatewrt"), "keys stay behind");
    let calls = bed.router.calls();
    ensure!(calls.iter().any(|call| call == "gatewrt stop --teardown"), "{calls:?}");
    let place = |what: &str| calls.iter().position(|call| call == what);
    ensure!(
        place("procd delete gatewrt") < place("gatewrt stop --teardown"),
        "procd would undo it: {calls:?}"
    );
    ensure!(!calls.iter().any(|call| call.starts_with("gatewrtd")), "no second daemon: {calls:?}");
    Ok(())
}

/// A removal that can't take down what runs says so, and leaves what is needed to try again.
#[test]
fn removal_that_fails_to_take_down_says_so_and_keeps_the_keys() -> Result<()> {
    let bed = Bed::installed()?;
    bed.router.write("/etc/gatewrt/home/identity.json", "{}")?;
    bed.router.write("/usr/sbin/gatewrt", "#!/bin/sh\nexit 1\n")?;
    let error = bed.router.remove().expect_err("it failed").to_string();
    ensure!(error.contains("gatewrt: not everything could be taken down"), "{error}");
    ensure!(bed.router.exists("/etc/gatewrt/home/identity.json"), "the keys are gone");
    ensure!(bed.router.read("/etc/config/firewall")?.contains("zone 'gatewrt'"), "the zone is gone");
    Ok(())
}

#[test]
fn removed_package_keeps_what_the_owner_wrote() -> Result<()> {
    let bed = Bed::installed()?;
    bed.router.write("/etc/config/gatewrt", "config gatewrt 'main'\n")?;
    bed.router.shell("uci set firewall.guests=forwarding; uci set firewall.guests.dest=gatewrt")?;
    bed.router.remove()?;
    assert_eq!(bed.changes()?, table(&[("/etc/config/firewall", "changed"), ("/etc/config/gatewrt", "600")]));
    let firewall = bed.router.read("/etc/config/firewall")?;
    ensure!(firewall.contains("config forwarding 'guests'\n\toption dest 'gatewrt'"), "{firewall}");
    ensure!(!firewall.contains("zone 'gatewrt'"), "{firewall}");
    Ok(())
}

#[test]
fn owners_zone_is_left_alone_and_missing_firewall_is_not_created() -> Result<()> {
    let run_again = "cp /tmp/first-boot /etc/uci-defaults/90-gatewrt; cd /etc/uci-defaults; (. ./90-gatewrt)";
    let bed = Bed::new()?;
    let first_boot = fs::read_to_string(here("../uci-defaults/90-gatewrt"))?;
    bed.router.write("/tmp/first-boot", &first_boot)?;
    bed.router.shell("mkdir -p /etc/uci-defaults")?;
    for device in ["option device 'gw-home'", "list device 'br-x'\n\tlist device 'gw-+'"] {
        let own = format!("config zone 'mesh'\n\toption name 'mesh'\n\t{device}\n");
        bed.router.write("/etc/config/firewall", &own)?;
        bed.router.shell(run_again)?;
        assert_eq!(bed.router.read("/etc/config/firewall")?, own);
    }
    bed.router.shell(&format!("rm /etc/config/firewall; {run_again}; [ ! -e /etc/config/firewall ]"))?;
    Ok(())
}

fn firewall_of(bed: &Bed) -> Result<Value> {
    bed.router.shell("/etc/init.d/gatewrt reload")?;
    let procd = bed.router.procd()?;
    let openings = procd["instance"]["data"]["firewall"].clone();
    for rule in openings.as_array().into_iter().flatten() {
        ensure!(
            rule["target"] == "ACCEPT" && rule["type"] == "rule",
            "firewall4 would make nothing of {rule}"
        );
    }
    Ok(openings)
}

fn listens(port: u16) -> Value {
    json!({"type": "rule", "src": "*", "proto": "udp", "dest_port": port.to_string(), "target": "ACCEPT"})
}

fn leaves(from: &str, to: &str) -> Value {
    json!({"type": "rule", "src": from, "dest": to, "proto": "all", "target": "ACCEPT"})
}

#[test]
fn firewall_admits_listen_ports_and_lets_out_what_the_owner_allows() -> Result<()> {
    let bed = Bed::installed()?;
    assert_eq!(firewall_of(&bed)?, json!([]));
    for (network, port) in [("home", 51820), ("site-2", 40123), ("off", 7)] {
        let identity = format!("{{\n  \"name\": \"x\",\n  \"port\": {port}\n}}\n");
        bed.router.write(&format!("/etc/gatewrt/{network}/identity.json"), &identity)?;
    }
    let config = "config network 'site_2'\n\toption listen_port '51999'\nconfig network 'off'\n\toption enabled '0'\n\toption allow_exit '1'\n";
    bed.router.write("/etc/config/gatewrt", config)?;
    assert_eq!(firewall_of(&bed)?, json!([listens(51820), listens(51999)]));
    // A port that can't be used is none to firewall4: the last usable one is, or that of the network.
    for port in ["seventy", "0", "65536", "5 6"] {
        let wrong = config.replace("51999", port);
        bed.router.write("/etc/config/gatewrt", &wrong)?;
        assert_eq!(firewall_of(&bed)?, json!([listens(40123), listens(51820)]), "{port}");
    }
    bed.router
        .write("/etc/gatewrt/last_config", "config network 'site_2'\n\toption listen_port '51888'\n")?;
    assert_eq!(firewall_of(&bed)?, json!([listens(51820), listens(51888)]));

    let exit = format!("{config}config network 'home'\n\toption allow_exit '1'\n");
    bed.router.write("/etc/config/gatewrt", &exit)?;
    bed.router
        .shell("uci set firewall.dsl=zone; uci set firewall.dsl.name=dsl; uci set firewall.dsl.masq=1")?;
    let [home, second] = [listens(51820), listens(51999)];
    assert_eq!(firewall_of(&bed)?, json!([home, second, leaves("gatewrt", "dsl"), leaves("gatewrt", "wan")]));
    bed.router.shell("uci delete firewall.gatewrt; uci set firewall.m=zone; uci set firewall.m.name=mesh; uci set firewall.m.device=gw-home")?;
    assert_eq!(firewall_of(&bed)?, json!([home, second, leaves("mesh", "dsl"), leaves("mesh", "wan")]));
    Ok(())
}

#[test]
fn service_respawns_for_ever_reloads_by_signal_and_holds_two_capabilities() -> Result<()> {
    let bed = Bed::installed()?;
    let told = bed.router.procd()?;
    let mut instance = told["instance"].clone();
    instance.as_object_mut().map(|fields| fields.remove("data"));
    assert_eq!(
        instance,
        json!({
            "command": ["/usr/sbin/gatewrtd"],
            "respawn": ["3600", "5", "0"],
            "term_timeout": ["10"],
            "stdout": ["1"],
            "stderr": ["1"],
            "file": ["/etc/config/gatewrt"],
            "reload_signal": ["HUP"],
            "jail": "gatewrt",
            "capabilities": ["/etc/capabilities/gatewrt.json"],
            "no_new_privs": ["1"],
        })
    );
    assert_eq!(told["triggers"]["reload_trigger"], "gatewrt");
    let sets: Value = serde_json::from_str(&bed.router.read("/etc/capabilities/gatewrt.json")?)?;
    for set in ["bounding", "effective", "ambient", "permitted", "inheritable"] {
        assert_eq!(sets[set], json!(["CAP_NET_ADMIN", "CAP_NET_RAW"]), "{set}");
    }
    // An older procd would refuse a jail for capabilities alone.
    bed.router.shell("sed -i 's/capabilities//' /lib/functions/procd.sh; /etc/init.d/gatewrt start")?;
    assert_eq!(bed.router.procd()?["instance"]["jail"], Value::Null);
    Ok(())
}

#[test]
fn boot_lockdown_precedes_the_network_and_disabled_service_does_not_start() -> Result<()> {
    let bed = Bed::installed()?;
    bed.router.calls();
    // Boot scripts run in the order of their names, as under procd. OpenWrt's firewall is S19, its network S20.
    bed.router.shell("for script in /etc/rc.d/S1*gatewrt*; do $script boot; done")?;
    assert_eq!(bed.router.calls(), ["gatewrt guard"]);
    bed.router.shell("/etc/rc.d/S95gatewrt boot")?;
    assert_eq!(bed.router.calls(), ["procd set gatewrt"]);
    bed.router.shell("uci set gatewrt.main.enabled=0; /etc/rc.d/S95gatewrt boot")?;
    assert_eq!(bed.router.calls(), Vec::<String>::new());
    Ok(())
}

#[test]
fn package_built_twice_is_identical_and_both_kinds_hold_the_same() -> Result<()> {
    let (first, second) = (packages()?, packages()?);
    let names = [format!("gatewrt_0.1.0-1_{ARCH}.ipk"), format!("gatewrt-0.1.0-r1_{ARCH}.apk")];
    for name in &names {
        ensure!(fs::read(first.join(name))? == fs::read(second.join(name))?, "{name} differs");
    }
    let [ipk, apk] = names.map(|name| first.join(name));
    let shown = run(Command::new(here("../openwrt-package/show")).arg(&ipk))?;
    let described: Vec<_> =
        shown.lines().filter_map(|line| line.split_once(' ')).map(|(mode, path)| (path, mode)).collect();
    let expected = CONTENT.map(|(path, mode)| match mode.strip_prefix("-> ") {
        Some(target) => (format!("{path} -> {target}"), "link".to_owned()),
        None => (path.to_owned(), mode.to_owned()),
    });
    for (path, mode) in &expected {
        ensure!(
            described.iter().any(|(shown, is)| shown.starts_with(path) && is == mode),
            "{mode} {path}: {shown}"
        );
    }
    assert_eq!(described.len(), CONTENT.len(), "{shown}");
    let same = |line: &&str| !line.contains(" /lib/apk/packages/");
    let of_apk = run(Command::new(here("../openwrt-package/show")).arg(&apk))?;
    assert_eq!(of_apk.lines().filter(same).collect::<Vec<_>>(), shown.lines().collect::<Vec<_>>());
    [first, second].iter().for_each(|dist| drop(fs::remove_dir_all(dist)));
    Ok(())
}
