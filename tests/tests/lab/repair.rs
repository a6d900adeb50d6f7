//! Repair of our objects: when someone deletes or changes one on a router, the daemon restores it and touches nothing
//! else.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, eventually},
    mesh::Mesh,
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Longest time from the deed until all is restored, traffic included.
const SOON: Duration = Duration::from_secs(2);
/// The same for a new interface, which needs a new handshake.
const WITH_HANDSHAKE: Duration = Duration::from_secs(2);

/// Time over which the daemon is watched while other programs run.
const WATCHED: Duration = Duration::from_secs(10);

/// All that is ours on a router, as the system's own programs show it. Chains are sorted: one that was added later is
/// listed last, until the table is written whole.
const OURS: &str = r#"
exec 2>&1
for family in -4 -6; do
    ip $family route show table 26487 proto 103 | sort
    ip $family rule show priority 900 | grep 'proto 103'
done
ip -o address show dev gw-home scope global | grep -v -e ' 192\.0\.2\.' -e ' 2001:db8:' | cut -d' ' -f2- | sort
ip -o link show dev gw-home | grep -o -e ',UP' -e 'mtu [0-9]*'
nft list table inet gatewrt | sed '1d;$d' | awk -v RS= '{ gsub(/\n/, "\r"); print }' | sort | tr '\r' '\n'
for what in private-key listen-port fwmark allowed-ips persistent-keepalive; do
    wg show gw-home $what | tr ' ' '\n' | sort
done
sysctl net.ipv4.conf.all.src_valid_mark net.ipv4.conf.lan.forwarding net.ipv6.conf.all.forwarding"#;

/// A site whose router's objects are changed by others, and a host in it that reaches another site.
struct Site {
    mesh: Mesh,
    router: Host,
    pc: Host,
    beyond: [IpAddr; 2],
    whole: String,
}

impl Site {
    fn new() -> Result<Self> {
        let mesh = Mesh::two_sites()?;
        mesh.wait_until_settled("office")?;
        let (router, pc, other) = (mesh.host("office")?, mesh.host("office-pc")?, mesh.host("home-pc")?);
        let beyond = [other.ip4()?.into(), other.ip6()?.into()];
        let whole = look(&router)?;
        Ok(Self { mesh, router, pc, beyond, whole })
    }

    /// Runs a deed against our objects, and waits until the daemon has restored them.
    fn meddle(&self, deadline: Duration, what: &str, deed: &str) -> Result<()> {
        let (start, plans) = (Instant::now(), self.plans()?);
        self.router.shell(deed).with_context(|| what.to_owned())?;
        eventually(deadline.saturating_sub(start.elapsed()), &format!("{what}: all is back"), || {
            let now = look(&self.router).map_err(|error| error.to_string())?;
            let answered = self.plans().map_err(|error| error.to_string())? > plans;
            if now == self.whole && answered { Ok(()) } else { Err(difference(&self.whole, &now)) }
        })?;
        let back = start.elapsed();
        for address in self.beyond {
            let what = format!("{what}: {address} answers");
            eventually(deadline.saturating_sub(start.elapsed()), &what, || self.reaches(address))?;
        }
        let (back, traffic) = (back.as_secs_f64(), start.elapsed().as_secs_f64());
        println!("{what}: back in {back:.3} s, traffic in {traffic:.3} s");
        self.mesh.wait_until_settled("office")?;
        self.mesh.assert_foreign_untouched();
        Ok(())
    }

    /// Number of plans that the daemon has applied.
    fn plans(&self) -> Result<usize> {
        let log = self.mesh.daemon("office")?.log();
        Ok(log.lines().filter(|line| line.contains(" step: ") || line.contains(" steps: ")).count())
    }

    /// Runs a deed that also deletes other programs' objects on the interface; these are placed again afterwards.
    fn meddle_with_interface(&mut self, what: &str, deed: &str) -> Result<()> {
        self.mesh.forget_interface("office");
        self.meddle(WITH_HANDSHAKE, what, deed)?;
        self.mesh.place_foreign_on_interface("office")
    }

    /// Runs a script for a while, and returns the number of plans that the daemon applied meanwhile and its processor
    /// time.
    fn watch_against(&self, script: &str) -> Result<(usize, Duration)> {
        let daemon = self.mesh.daemon("office")?;
        let (plans, used) = (self.plans()?, daemon.cpu_time()?);
        let program = self.router.spawn(&["sh", "-c", script])?;
        std::thread::sleep(WATCHED);
        let measured = (self.plans()? - plans, daemon.cpu_time()? - used);
        ensure!(program.is_running(), "it ended by itself");
        Ok(measured)
    }

    /// Waits until all objects are there again, without a deed of the test.
    fn is_whole_again(&self) -> Result<()> {
        eventually(SOON, "all is back", || {
            let now = look(&self.router).map_err(|error| error.to_string())?;
            if now == self.whole { Ok(()) } else { Err(difference(&self.whole, &now)) }
        })
    }

    fn reaches(&self, address: IpAddr) -> Result<()> {
        self.pc.run(&["ping", "-n", "-c", "1", "-W", "0.2", &address.to_string()]).map(drop)
    }
}

fn look(router: &Host) -> Result<String> {
    Ok(router.output(&["sh", "-c", OURS])?.stdout)
}

/// Lines that are missing (`-`), and lines that are new (`+`).
fn difference(whole: &str, now: &str) -> String {
    let only = |a: &str, b: &str, sign: char| -> String {
        a.lines()
            .filter(|line| !b.lines().any(|other| other == *line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    only(whole, now, '-') + &only(now, whole, '+')
}

#[test]
fn deleted_routes_rules_and_addresses_are_restored() -> Result<()> {
    let site = Site::new()?;
    for family in ["-4", "-6"] {
        let routes = format!("ip {family} route flush table 26487 proto 103");
        site.meddle(SOON, &format!("routes {family}"), &routes)?;
        let rule = format!("ip {family} rule del priority 900 protocol 103");
        site.meddle(SOON, &format!("rule {family}"), &rule)?;
    }
    for address in site.mesh.overlay("office")? {
        let delete = format!("ip address del {address} dev gw-home");
        site.meddle(SOON, &format!("address {address}"), &delete)?;
    }
    Ok(())
}

#[test]
fn damaged_firewall_table_is_restored_whole() -> Result<()> {
    let site = Site::new()?;
    site.meddle(SOON, "table", "nft delete table inet gatewrt")?;
    let delete = "nft -a list table inet gatewrt |
        sed -n 's/^\\tchain \\(.*\\) {.*/\\1/; t keep; s/.*not served.*# handle //; t found; d; :keep h; d; :found H; x; s/\\n/ handle /p' |
        sed 's/^/delete rule inet gatewrt /' | nft -f -";
    site.meddle(SOON, "a rule of the table", delete)?;
    site.meddle(SOON, "a rule put into the table", "nft insert rule inet gatewrt forward counter drop")?;
    site.meddle(SOON, "a flushed table", "nft flush table inet gatewrt")
}

#[test]
fn changed_peers_and_their_settings_are_restored() -> Result<()> {
    let site = Site::new()?;
    let peer = "$(wg show gw-home peers | head -n 1)";
    site.meddle(SOON, "peer", &format!("wg set gw-home peer {peer} remove"))?;
    site.meddle(SOON, "allowed IPs", &format!("wg set gw-home peer {peer} allowed-ips 192.0.2.5/32"))?;
    site.meddle(SOON, "keepalive", &format!("wg set gw-home peer {peer} persistent-keepalive off"))?;
    let stranger = "wg set gw-home peer $(wg genkey | wg pubkey) allowed-ips 192.0.2.5/32";
    site.meddle(SOON, "a stranger among the peers", stranger)?;
    site.meddle(SOON, "port", "wg set gw-home listen-port 4444")?;
    site.meddle(SOON, "mark", "wg set gw-home fwmark 0")?;
    site.meddle(SOON, "private key", "wg genkey > /tmp/key; wg set gw-home private-key /tmp/key")
}

#[test]
fn deleted_interface_is_restored() -> Result<()> {
    let mut site = Site::new()?;
    site.meddle(SOON, "MTU", "ip link set dev gw-home mtu 1300")?;
    site.meddle_with_interface("link down", "ip link set dev gw-home down")?;
    site.meddle_with_interface("interface deleted", "ip link del dev gw-home")?;
    // Each host sees its own processes only.
    site.meddle_with_interface("wireguard-go killed", "pkill -9 -x wireguard-go")
}

#[test]
fn changed_kernel_settings_are_restored() -> Result<()> {
    let site = Site::new()?;
    site.meddle(SOON, "src_valid_mark", "sysctl -q -w net.ipv4.conf.all.src_valid_mark=0")?;
    site.meddle(SOON, "IPv4 forwarding", "sysctl -q -w net.ipv4.conf.lan.forwarding=0")?;
    site.meddle(SOON, "IPv6 forwarding", "sysctl -q -w net.ipv6.conf.all.forwarding=0")
}

/// A script does as OpenWrt's `network restart` and `firewall stop`, to our objects and to foreign ones alike.
#[test]
fn network_restart_restores_everything() -> Result<()> {
    let mut site = Site::new()?;
    site.mesh.remove_foreign("office")?;
    let flush = "
        nft flush ruleset
        for family in -4 -6; do
            ip $family route flush table 26487
            ip $family rule del priority 900
        done
        ip address flush dev gw-home";
    site.meddle(SOON, "all at once", flush)?;
    site.mesh.place_foreign("office")?;
    site.mesh.place_foreign_on_interface("office")
}

/// An object that a program deletes again and again is restored with backoff, and soon once the program has ended.
#[test]
fn repeated_deletion_backs_off_and_costs_little() -> Result<()> {
    let site = Site::new()?;
    let program = "while :; do ip rule del priority 900 protocol 103 2>/dev/null; done";
    let (plans, used) = site.watch_against(program)?;
    println!("against a conflicting program: {plans} plans in {WATCHED:?}, {used:?} of processor time");
    ensure!((5..=20).contains(&plans), "{plans} plans in {WATCHED:?}");
    site.is_whole_again()
}

/// Changes that other programs make to their own objects are observed, but at a limited rate.
#[test]
fn foreign_changes_cost_little() -> Result<()> {
    let site = Site::new()?;
    let busy = "while :; do
        ip address add 192.0.2.99/32 dev foreign-peer
        ip address del 192.0.2.99/32 dev foreign-peer
        nft add table inet busy
        nft delete table inet busy
    done";
    let (plans, used) = site.watch_against(busy)?;
    println!("beside others at work: {plans} plans in {WATCHED:?}, {used:?} of processor time");
    ensure!(plans == 0, "{plans} plans in {WATCHED:?}");
    site.is_whole_again()
}
