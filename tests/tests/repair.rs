//! Whatever of ours someone deletes or changes on a router comes back by itself, and nothing else is touched.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, eventually},
    mesh::Mesh,
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// From the deed to everything being as it was, traffic included.
const SOON: Duration = Duration::from_secs(2);
/// An interface that was made anew has to shake hands anew.
const WITH_HANDSHAKE: Duration = Duration::from_secs(2);

/// How long the daemon is watched while others are at work.
const WATCHED: Duration = Duration::from_secs(10);

/// All that is ours on a router, as the system's own programs show it.
const OURS: &str = r"
exec 2>&1
for family in -4 -6; do
    ip $family route show table 26487 proto 103 | sort
    ip $family rule show priority 900 | grep 'proto 103'
done
ip -o address show dev gw-home scope global | grep -v -e ' 192\.0\.2\.' -e ' 2001:db8:' | cut -d' ' -f2- | sort
ip -o link show dev gw-home | grep -o -e ',UP' -e 'mtu [0-9]*'
nft list table inet gatewrt
for what in private-key listen-port fwmark allowed-ips persistent-keepalive; do
    wg show gw-home $what | tr ' ' '\n' | sort
done
sysctl net.ipv4.conf.all.src_valid_mark net.ipv4.conf.lan.forwarding net.ipv6.conf.all.forwarding";

/// A site whose router is meddled with, and a host in it that reaches another site.
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

    /// Does something to what is ours, and sees it undone by the daemon in time.
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

    /// How often the daemon has changed something.
    fn plans(&self) -> Result<usize> {
        let log = self.mesh.daemon("office")?.log();
        Ok(log.lines().filter(|line| line.contains(" step: ") || line.contains(" steps: ")).count())
    }

    /// The same where what others have on the interface goes with it.
    fn meddle_with_interface(&mut self, what: &str, deed: &str) -> Result<()> {
        self.mesh.forget_interface("office");
        self.meddle(WITH_HANDSHAKE, what, deed)?;
        self.mesh.place_foreign_on_interface("office")
    }

    /// Runs a script for a while; gives how often the daemon changed something meanwhile, and what that cost.
    fn watch_against(&self, script: &str) -> Result<(usize, Duration)> {
        let daemon = self.mesh.daemon("office")?;
        let (plans, used) = (self.plans()?, daemon.cpu_time()?);
        let rival = self.router.spawn(&["sh", "-c", script])?;
        std::thread::sleep(WATCHED);
        let measured = (self.plans()? - plans, daemon.cpu_time()? - used);
        ensure!(rival.is_running(), "it ended by itself");
        Ok(measured)
    }

    /// Nothing has to happen for it.
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

/// What of it is missing (`-`), and what is there instead (`+`).
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
fn routes_rules_and_addresses_come_back() -> Result<()> {
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
fn the_firewall_table_comes_back_whole() -> Result<()> {
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
fn peers_and_their_settings_come_back() -> Result<()> {
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
fn the_interface_comes_back() -> Result<()> {
    let mut site = Site::new()?;
    site.meddle(SOON, "MTU", "ip link set dev gw-home mtu 1300")?;
    site.meddle_with_interface("link down", "ip link set dev gw-home down")?;
    site.meddle_with_interface("interface deleted", "ip link del dev gw-home")?;
    // Processes of other hosts are not seen from here.
    site.meddle_with_interface("wireguard-go killed", "pkill -9 -x wireguard-go")
}

#[test]
fn settings_come_back() -> Result<()> {
    let site = Site::new()?;
    site.meddle(SOON, "src_valid_mark", "sysctl -q -w net.ipv4.conf.all.src_valid_mark=0")?;
    site.meddle(SOON, "IPv4 forwarding", "sysctl -q -w net.ipv4.conf.lan.forwarding=0")?;
    site.meddle(SOON, "IPv6 forwarding", "sysctl -q -w net.ipv6.conf.all.forwarding=0")
}

/// What `network restart` and `firewall stop` do on OpenWrt, to ours and foreign objects alike.
#[test]
fn everything_comes_back_after_a_network_restart() -> Result<()> {
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

/// Puts back ever more rarely what a program deletes again and again, and soon enough once that is gone.
#[test]
fn a_tug_of_war_costs_little() -> Result<()> {
    let site = Site::new()?;
    let rival = "while :; do ip rule del priority 900 protocol 103 2>/dev/null; done";
    let (plans, used) = site.watch_against(rival)?;
    println!("against a rival: {plans} plans in {WATCHED:?}, {used:?} of processor time");
    ensure!((5..=20).contains(&plans), "{plans} plans in {WATCHED:?}");
    site.is_whole_again()
}

/// What others do to what is theirs is looked at, but not again and again.
#[test]
fn others_at_work_cost_little() -> Result<()> {
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
