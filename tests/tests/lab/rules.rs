//! Access rules, tried with packets. Each table of probes lists the attempt, the expected outcome and the actual one,
//! and the coordinator's own answer (`check`) has to agree with the packets.

use crate::common::check_obeys;
use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Download, Host, Lab, Topology, UdpStream, Whoami, connects, connects_within, eventually, ping},
    mesh::{Mesh, NETWORK},
    phone::{Phone, edited},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
/// Longest time from an admin's command to its effect on packets.
const EFFECT: Duration = Duration::from_secs(2);
/// Number of rules in the test with many rules.
const MANY: usize = 1000;

/// A topology in which `hub` has two ranges behind it, and is in two networks, with `alpha` in the one and `beta` in
/// the other.
const TWO_NETWORKS: &str = r#"
[server.coordinator]

[router.hub]
lan = "192.168.10.0/24"
lan6 = "fd00:10::/64"
hosts = ["range-a"]
lans.vault = { lan = "192.168.11.0/24", lan6 = "fd00:11::/64", hosts = ["range-b"] }

[router.alpha]
lan = "192.168.20.0/24"
lan6 = "fd00:20::/64"
hosts = ["alpha-pc"]

[router.beta]
lan = "192.168.30.0/24"
lan6 = "fd00:30::/64"
hosts = ["beta-pc"]
"#;

/// One attempt to open a TCP connection, and its expected outcome.
struct Probe {
    from: Host,
    to: String,
    address: IpAddr,
    port: u16,
    is_allowed: bool,
    /// Network and source address for the coordinator's `check`; `None` if it is not asked.
    check: Option<(&'static str, IpAddr)>,
}

/// Two networks on one egress router, which serves both ranges to each, and each may reach only one of them: both
/// directions, IPv4 and IPv6.
#[test]
fn two_networks_on_one_egress_reach_only_their_own_range() -> Result<()> {
    const OTHER: &str = "other";
    let mut mesh = Mesh::start(Lab::new(&Topology::parse(TWO_NETWORKS)?)?, &["hub", "alpha"])?;
    mesh.admin(&["network", "create", OTHER])?;
    mesh.start_daemon("beta")?;
    for router in ["hub", "beta"] {
        let code = mesh.admin(&["code", "create", OTHER])?.stdout;
        mesh.gatewrt(router, &["join", code.trim(), "--name", router])?;
    }
    let ranges = [["192.168.10.0/24", "fd00:10::/64"], ["192.168.11.0/24", "fd00:11::/64"]];
    let serve = |network: &str, router: &str, prefix: &str| {
        mesh.admin(&["egress", "set", network, router, prefix, "--nat", "off"]).map(drop)
    };
    for (network, router, range) in [(NETWORK, "alpha", 0), (OTHER, "beta", 1)] {
        ranges.iter().flatten().try_for_each(|prefix| serve(network, "hub", prefix))?;
        mesh.lans(router)?.iter().try_for_each(|prefix| serve(network, router, prefix))?;
        mesh.admin(&["network", "set", network, "--access", "deny"])?;
        mesh.admin(&["group", "set", network, "range", ranges[range][0], ranges[range][1]])?;
        let site = format!("site:{router}");
        allow(&mesh, network, &site, "group:range", &[])?;
        allow(&mesh, network, "group:range", &site, &[])?;
    }
    let hosts = ["range-a", "range-b", "alpha-pc", "beta-pc"];
    let hosts = hosts.map(|name| mesh.host(name)).into_iter().collect::<Result<Vec<_>>>()?;
    let _servers = hosts.iter().map(Whoami::start).collect::<Result<Vec<_>>>()?;
    let allowed = [("alpha-pc", "range-a", NETWORK), ("beta-pc", "range-b", OTHER)];
    let refused = [("alpha-pc", "range-b", NETWORK), ("beta-pc", "range-a", OTHER)];
    let mut probes = Vec::new();
    for (pairs, is_allowed) in [(allowed, true), (refused, false)] {
        for (one, another, network) in pairs {
            for (from, to) in [(one, another), (another, one)] {
                probes.extend(both_families(&mesh, from, to, 80, is_allowed, Some(network))?);
            }
        }
    }
    probes.extend(both_families(&mesh, "alpha-pc", "beta-pc", 80, false, None)?);
    eventually(SOON, "all that is allowed passes", || {
        try_all(&probes.iter().filter(|probe| probe.is_allowed).collect::<Vec<_>>())
    })?;
    hold_to(&mesh, &probes)
}

/// “Phones may reach nas:443 at home”, and nothing else, in a network that denies by default. A phone whose file was
/// changed to send everything through the tunnel reaches no more.
#[test]
fn phone_with_a_changed_file_reaches_only_what_it_may() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let file = mesh.add_client("phone", "office", &["--tag", "phones"])?;
    let phone = mesh.phone_with("phone", "office", &file)?;
    let _laptop = mesh.phone("laptop", "office", &["--reachable"])?;
    let servers =
        [("nas", 443), ("nas", 80), ("home-pc", 443), ("office-pc", 443), ("phone", 443), ("web", 443)];
    let servers = servers.map(|(name, port)| Whoami::start_on(&mesh.host(name)?, port));
    let _servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
    let _node = Whoami::start_on(&mesh.host("home")?, 443)?;

    mesh.admin(&["network", "set", NETWORK, "--access", "deny"])?;
    let (nas, phones) = (mesh.host("nas")?, phone.addresses()?);
    mesh.admin(&["group", "set", NETWORK, "nas", &nas.ip4()?.to_string(), &nas.ip6()?.to_string()])?;
    allow(&mesh, NETWORK, "tag:phones", "group:nas", &["tcp/443"])?;
    let probes = || -> Result<Vec<Probe>> {
        let mut probes = both_families(&mesh, "phone", "nas", 443, true, Some(NETWORK))?;
        for (to, port) in [("nas", 80), ("home-pc", 443), ("office-pc", 443)] {
            probes.extend(both_families(&mesh, "phone", to, port, false, Some(NETWORK))?);
        }
        for address in mesh.overlay("home")? {
            probes.push(probe(&mesh, "phone", "home", address, 443, false, Some(NETWORK))?);
        }
        for (probe, source) in probes.iter_mut().zip(phones.iter().cycle()) {
            probe.check = probe.check.map(|(network, _)| (network, *source));
        }
        for (from, to) in [("home-pc", "office-pc"), ("office-pc", "nas")] {
            probes.extend(both_families(&mesh, from, to, 443, false, Some(NETWORK))?);
        }
        for address in phones {
            probes.push(probe(&mesh, "nas", "phone", address, 443, false, None)?);
        }
        Ok(probes)
    };
    eventually(SOON, "the phone reaches nas:443", || try_all(&probes()?.iter().take(2).collect::<Vec<_>>()))?;
    hold_to(&mesh, &probes()?)?;

    phone.down()?;
    let greedy = edited(&file, "AllowedIPs", "0.0.0.0/0, ::/0");
    let _greedy = Phone::up(&mesh.host("phone")?, &greedy)?;
    eventually(SOON, "the phone reaches nas:443", || try_all(&probes()?.iter().take(2).collect::<Vec<_>>()))?;
    let mut more = probes()?;
    let web = mesh.host("web")?;
    for address in [web.ip4()?.into(), web.ip6()?.into()] {
        more.push(probe(&mesh, "phone", "web", address, 443, false, None)?);
    }
    hold_to(&mesh, &more)
}

/// A rule is removed, or added: connections that are denied now are cut; those that are allowed lose nothing.
#[test]
fn changed_rule_cuts_only_the_connections_it_denies() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let phone = mesh.phone("phone", "office", &["--tag", "phones"])?;
    let (nas, pc) = (mesh.host("nas")?, mesh.host("office-pc")?);
    mesh.admin(&["network", "set", NETWORK, "--access", "deny"])?;
    let tcp = allow(&mesh, NETWORK, "tag:phones", "site:home", &["tcp"])?;
    allow(&mesh, NETWORK, "tag:phones", "site:home", &["udp", "icmp"])?;
    allow(&mesh, NETWORK, "site:office", "site:home", &[])?;
    for host in [phone.host(), &pc] {
        eventually(SOON, &format!("{} reaches the nas", host.name()), || ping(host, nas.ip4()?.into()))?;
    }
    let bystanders = [
        UdpStream::start_echo(phone.host(), &nas, nas.ip4()?.into(), 100)?,
        UdpStream::start_echo(&pc, &nas, nas.ip6()?.into(), 100)?,
    ];
    let other = Download::start(&pc, &nas, nas.ip4()?.into())?;

    let download = Download::start(phone.host(), &nas, nas.ip4()?.into())?;
    let start = Instant::now();
    mesh.admin(&["rule", "disable", NETWORK, &tcp])?;
    download.wait_until_cut(start, EFFECT).context("a rule less")?;

    mesh.admin(&["rule", "enable", NETWORK, &tcp])?;
    let download =
        eventually(SOON, "a new download", || Download::start(phone.host(), &nas, nas.ip6()?.into()))?;
    let start = Instant::now();
    let wish = ["--from", "tag:phones", "--to", "site:home", "--service", "tcp"];
    mesh.admin(&[["rule", "add", NETWORK, "deny"].as_slice(), &wish].concat())?;
    download.wait_until_cut(start, EFFECT).context("a rule that denies")?;

    other.wait_for_progress()?;
    for stream in bystanders {
        stream.finish()?.assert_lossless();
    }
    Ok(())
}

/// A thousand rules become a few firewall rules and a set on the node, and one more takes effect as soon as the first
/// did. They take effect together: their groups have no member on any node until the groups are set.
#[test]
fn thousand_rules_take_effect_at_once() -> Result<()> {
    let mesh = Mesh::two_sites()?;
    let (pc, nas) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let _servers = [Whoami::start(&nas)?, Whoami::start_on(&nas, 3000)?];
    let opens = |port: u16| {
        let target = SocketAddr::new(nas.ip4()?.into(), port);
        connects_within(&pc, target, Duration::from_millis(100))
    };
    let wait = |what: &str, port: u16, is_open: bool| {
        let start = Instant::now();
        eventually(EFFECT, what, || opens(port).is_ok_and(|opens| opens == is_open))?;
        eprintln!("{what}: {:?} after the command", start.elapsed());
        Ok::<_, anyhow::Error>(())
    };
    let group = |name: &str, members: [String; 2]| {
        mesh.admin(&["group", "set", NETWORK, name, &members[0], &members[1]]).map(drop)
    };
    let one_more = |what: &str| -> Result<()> {
        let rule = allow(&mesh, NETWORK, "site:office", "site:home", &["tcp/80"])?;
        wait(what, 80, true)?;
        mesh.admin(&["rule", "delete", NETWORK, &rule])?;
        wait("its end", 80, false)
    };
    mesh.admin(&["network", "set", NETWORK, "--access", "deny"])?;
    wait("nothing is allowed", 80, false)?;
    one_more("the first rule")?;

    group("callers", ["203.0.113.1", "2001:db8:ffff::1"].map(str::to_owned))?;
    group("servers", ["203.0.113.2", "2001:db8:ffff::2"].map(str::to_owned))?;
    let start = Instant::now();
    // Every other port, so that no two merge into a range; 3000 is in the middle of them.
    let script = format!(
        "seq {MANY} | xargs -P 2 -I N sh -c 'gatewrt-coordinator --no-wait --json rule add {NETWORK} allow \
           --from group:callers --to group:servers --service tcp/$((N * 2 + 2000)) >/dev/null'"
    );
    mesh.host("coordinator")?.command(&["sh", "-ec", &script]).timeout(SOON * 18).run()?;
    eprintln!("{MANY} rules added in {:?}", start.elapsed());
    group("callers", mesh.lans("office")?)?;
    group("servers", mesh.lans("home")?)?;
    wait("a thousand rules at once", 3000, true)?;
    for router in ["office", "home"] {
        mesh.wait_until_settled(router)?;
        let table = mesh.host(router)?.run(&["nft", "-nn", "list", "table", "inet", "gatewrt"])?.stdout;
        let verdicts = ["accept", "drop", "jump", "return"];
        let rules = table.lines().filter(|line| verdicts.iter().any(|verdict| line.contains(verdict)));
        let (rules, sets) = (rules.count(), table.matches("\tset ").count());
        eprintln!("{router}: {MANY} rules are {rules} nft rules, {sets} sets, {} bytes", table.len());
        ensure!(rules < 100, "{rules} nft rules");
        ensure!(table.len() > 10 * MANY, "they are not all there");
    }
    one_more("one more than a thousand")
}

/// Adds a rule that allows, and returns its id.
fn allow(mesh: &Mesh, network: &str, from: &str, to: &str, services: &[&str]) -> Result<String> {
    let services: Vec<&str> = services.iter().flat_map(|service| ["--service", service]).collect();
    let wish = ["rule", "add", network, "allow", "--from", from, "--to", to];
    let rule = mesh.admin_json(&[wish.as_slice(), &services].concat())?;
    rule["id"].as_str().map(str::to_owned).with_context(|| format!("an id in {rule}"))
}

fn both_families(
    mesh: &Mesh,
    from: &str,
    to: &str,
    port: u16,
    is_allowed: bool,
    network: Option<&'static str>,
) -> Result<Vec<Probe>> {
    let target = mesh.host(to)?;
    let probe = |address| probe(mesh, from, to, address, port, is_allowed, network);
    Ok(vec![probe(target.ip4()?.into())?, probe(target.ip6()?.into())?])
}

fn probe(
    mesh: &Mesh,
    from: &str,
    to: &str,
    address: IpAddr,
    port: u16,
    is_allowed: bool,
    network: Option<&'static str>,
) -> Result<Probe> {
    let from = mesh.host(from)?;
    let source =
        if address.is_ipv4() { from.ip4()?.into() } else { from.ip6().map_or(address, IpAddr::from) };
    let check = network.map(|network| (network, source));
    Ok(Probe { from, to: to.to_owned(), address, port, is_allowed, check })
}

/// Asserts that each probe has its expected outcome.
fn try_all(probes: &[&Probe]) -> Result<()> {
    for (probe, outcome) in probes.iter().zip(outcomes(probes)) {
        ensure!(outcome? == probe.is_allowed, "{} -> {} {}", probe.from.name(), probe.to, probe.address);
    }
    Ok(())
}

fn outcomes(probes: &[&Probe]) -> Vec<Result<bool>> {
    std::thread::scope(|scope| {
        let attempt = |probe: &Probe| connects(&probe.from, SocketAddr::new(probe.address, probe.port));
        let threads: Vec<_> = probes.iter().map(|probe| scope.spawn(move || attempt(probe))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    })
}

/// Waits until all routers obey, prints the table of all probes, and fails if an outcome differs from the expected one or
/// from the coordinator's answer.
fn hold_to(mesh: &Mesh, probes: &[Probe]) -> Result<()> {
    let networks: BTreeSet<&str> = probes.iter().filter_map(|probe| Some(probe.check?.0)).collect();
    for network in networks {
        eventually(SOON, &format!("all routers of {network} obey"), || obey(mesh, network))?;
    }
    let probes: Vec<&Probe> = probes.iter().collect();
    let word = |is_allowed: bool| if is_allowed { "allowed" } else { "refused" };
    let mut wrong = Vec::new();
    for (probe, outcome) in probes.iter().zip(outcomes(&probes)) {
        let (outcome, said) = (outcome?, check(mesh, probe)?);
        let is_right = outcome == probe.is_allowed && said.is_none_or(|said| said == probe.is_allowed);
        let line = format!(
            "{:<10} -> {:<10} {:<18} tcp/{:<4} {}, check: {}{}",
            probe.from.name(),
            probe.to,
            probe.address.to_string(),
            probe.port,
            word(outcome),
            said.map_or("-", word),
            if is_right { "" } else { "   WRONG" }
        );
        eprintln!("{line}");
        wrong.extend((!is_right).then_some(line));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Asserts that all routers of a network have applied what the coordinator shows.
fn obey(mesh: &Mesh, network: &str) -> Result<()> {
    let nodes = mesh.admin_json(&["node", "list", network])?;
    nodes.as_array().context("a list of nodes")?.iter().try_for_each(check_obeys)
}

/// The coordinator's answer for a probe.
fn check(mesh: &Mesh, probe: &Probe) -> Result<Option<bool>> {
    let Some((network, source)) = probe.check else { return Ok(None) };
    let (source, target) = (source.to_string(), probe.address.to_string());
    let service = format!("tcp/{}", probe.port);
    // The exit status may be nonzero when the answer is no.
    let said = mesh.admin_output(&["--json", "check", network, &source, &target, "--service", &service])?;
    let answer = said.json().with_context(|| said.stderr.clone())?;
    answer["allowed"].as_bool().map(Some).with_context(|| format!("an answer in {answer}"))
}
