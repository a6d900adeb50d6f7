//! Internet traffic that leaves through another site: the source address that servers see, over IPv4 and IPv6, and all
//! other traffic, which stays as it was.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Partners, TrafficGenerator, UdpStream, Way, Whoami, connects, eventually, fetch, ping},
    mesh::{
        NETWORK,
        exits::{EFFECT, Exits, HOME, NOBODY, Seen},
    },
};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};

/// All hosts at `home`.
const ALL: [&str; 4] = ["home-pc", "home-tv", "guest-pc", HOME];
/// A port of `home` that its owner forwards to a host.
const FORWARDED: u16 = 8080;

/// Traffic generators on all hosts at `home`.
struct Generators<'a> {
    exits: &'a Exits,
    generators: Vec<TrafficGenerator>,
}

impl<'a> Generators<'a> {
    fn new(exits: &'a Exits) -> Result<Self> {
        let generators = exits.generators(&ALL)?;
        let all = Self { exits, generators };
        all.wait_until(&[])?;
        Ok(all)
    }

    /// Waits until the named hosts are seen with these addresses, and all others as if there were no exits.
    fn wait_until(&self, elsewhere: &[(&str, Seen)]) -> Result<()> {
        let seen = |name: &str| match elsewhere.iter().find(|(who, _)| *who == name) {
            Some((_, seen)) => Ok(*seen),
            None => self.exits.direct(name),
        };
        let wanted = self.generators.iter().zip(ALL).map(|(generator, name)| Ok((generator, seen(name)?)));
        TrafficGenerator::wait_for_all(EFFECT, &wanted.collect::<Result<Vec<_>>>()?)
    }
}

/// Scopes of prefixes, a device, a host, the router itself, and everything: exactly that traffic leaves through the
/// exit. Traffic between sites and LANs loses no packet.
#[test]
fn each_scope_leaves_through_its_exit_and_nothing_else_does() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    exits.mesh.serve_lans(&[HOME, "farm"], false)?;
    exits.mesh.wait_for_lans(&["home-pc", "farm-pc"])?;
    let all = Generators::new(&exits)?;
    let between = [stream(&exits, "home-pc", "farm-pc")?, stream(&exits, "home-pc", "guest-pc")?];
    let farm = exits.through("farm")?;
    let home = exits.host(HOME)?;
    let tv = exits.host("home-tv")?;
    let scopes = [
        (json!(home.prefixes("lan")?), &["home-pc", "home-tv"][..]),
        (json!(["dev:guest"]), &["guest-pc"]),
        (json!([tv.ip4()?, tv.ip6()?]), &["home-tv"]),
        (json!(["router"]), &[HOME]),
        (json!(["all"]), &ALL),
    ];
    for (of, hosts) in scopes {
        eprintln!("--- {of}");
        exits.set_scope("some", &json!({ "of": of, "exits": ["farm"] }))?;
        all.wait_until(&hosts.iter().map(|host| (*host, farm)).collect::<Vec<_>>())?;
        exits.mesh.wait_until_settled(HOME)?;
        exits.unset_scope("some")?;
        all.wait_until(&[])?;
    }
    for stream in between.into_iter().flatten() {
        let report = stream.finish()?;
        report.assert_lossless();
        let own = exits.host("home-pc")?;
        let own: [IpAddr; 2] = [own.ip4()?.into(), own.ip6()?.into()];
        ensure!(report.sources.iter().all(|source| own.contains(source)), "not direct: {:?}", report.sources);
    }
    Ok(())
}

fn stream(exits: &Exits, from: &str, to: &str) -> Result<[UdpStream; 2]> {
    let (from, to) = (exits.host(from)?, exits.host(to)?);
    Ok([
        UdpStream::start(&from, &to, to.ip4()?.into(), 100)?,
        UdpStream::start(&from, &to, to.ip6()?.into(), 100)?,
    ])
}

/// Two LANs use an exit each at the same time, then both use one. Requests from the Internet to the router and, by a
/// port forward, to a host in a scope are answered throughout, also with strict reverse path filters.
#[test]
fn two_lans_leave_through_two_exits_and_answer_calls_from_outside() -> Result<()> {
    let exits = Exits::start(&["farm", "office"])?;
    let all = Generators::new(&exits)?;
    let (farm, office) = (exits.through("farm")?, exits.through("office")?);
    let calls = Calls::open(&exits)?;
    calls.are_answered()?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"] }))?;
    all.wait_until(&[("home-pc", farm), ("home-tv", farm)])?;
    exits.set_scope("guest", &json!({ "of": ["dev:guest"], "exits": ["office"] }))?;
    all.wait_until(&[("home-pc", farm), ("home-tv", farm), ("guest-pc", office)])?;
    calls.are_answered()?;
    exits.mesh.wait_until_settled(HOME)?;

    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["office"] }))?;
    all.wait_until(&[("home-pc", office), ("home-tv", office), ("guest-pc", office)])?;
    exits.mesh.wait_until_settled(HOME)?;
    let links = exits.host(HOME)?.run(&["ip", "-o", "link"])?.stdout;
    ensure!(!links.contains("gw-~"), "one interface does: {links}");

    exits.unset_scope("lan")?;
    exits.unset_scope("guest")?;
    exits.set_scope("everything", &json!({ "of": ["all"], "auto": true }))?;
    eventually(EFFECT, "everything leaves through one of them", || -> Result<()> {
        ensure!(exits.mesh.scopes(HOME)?.to_string().contains("exit"));
        Ok(())
    })?;
    calls.are_answered()?;
    Ok(())
}

/// Servers of `home` that get connections from the Internet.
struct Calls {
    web: Host,
    to: Vec<SocketAddr>,
    _servers: [Whoami; 2],
}

impl Calls {
    /// Starts a server on the router and one behind a port forward; the host has a public IPv6 address.
    fn open(exits: &Exits) -> Result<Self> {
        let (home, pc) = (exits.host(HOME)?, exits.host("home-pc")?);
        home.nft(&format!(
            "table ip forwards {{
               chain dstnat {{
                 type nat hook prerouting priority dstnat
                 iifname \"wan\" tcp dport {FORWARDED} dnat to {}:80
               }}
             }}",
            pc.ip4()?
        ))?;
        let to = [
            SocketAddr::new(home.ip4()?.into(), 22),
            SocketAddr::new(home.ip6()?.into(), 22),
            SocketAddr::new(home.ip4()?.into(), FORWARDED),
            SocketAddr::new(pc.ip6()?.into(), 80),
        ];
        let servers = [Whoami::start_on(&home, 22)?, Whoami::start(&pc)?];
        Ok(Self { web: exits.host("web")?, to: to.to_vec(), _servers: servers })
    }

    fn are_answered(&self) -> Result<()> {
        for to in &self.to {
            ensure!(connects(&self.web, *to)?, "{to} is not answered");
            let seen = fetch(&self.web, &format!("http://{to}/"))?;
            let own: [IpAddr; 2] = [self.web.ip4()?.into(), self.web.ip6()?.into()];
            ensure!(own.contains(&seen.parse()?), "{to} sees {seen}");
        }
        Ok(())
    }
}

/// An exit without IPv6: a scope's IPv6 traffic is blocked, or stays on the WAN if that is set; never by accident.
#[test]
fn exit_without_ipv6_carries_ipv4_alone() -> Result<()> {
    let exits = Exits::start(&["barn"])?;
    let pc = exits.generator("home-pc")?;
    let (barn, direct) = (exits.through("barn")?, exits.direct("home-pc")?);
    pc.wait_until_seen_as(EFFECT, direct)?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["barn"] }))?;
    pc.wait_until_seen_as(EFFECT, [barn[0], None])?;
    let capture = exits.leaks()?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["barn"], "exclude": ["192.0.2.0/24"] }))?;
    pc.wait_until_seen_as(EFFECT, [barn[0], None])?;
    ensure!(capture.count() == 0, "{:#?}", capture.lines());
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["barn"], "ipv6": "wan" }))?;
    pc.wait_until_seen_as(EFFECT, [barn[0], direct[1]])
}

/// Excluded destinations are reached as before. DNS queries go to the exit's resolver, whichever resolver the host
/// asks. Without `allow_lan` a host reaches nothing but its exit.
#[test]
fn exit_settings_apply_to_destinations_resolvers_and_neighbours() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    exits.mesh.serve_lans(&[HOME, "farm"], false)?;
    exits.mesh.wait_for_lans(&["home-pc", "farm-pc"])?;
    let (farm, direct) = (exits.through("farm")?, exits.direct("home-pc")?);
    let (pc, partners) = (exits.host("home-pc")?, exits.partners()?);
    let ways = [Way::Udp, Way::Tcp];
    let web = TrafficGenerator::start_in(&pc, partners, &ways)?;
    // No resolver runs at these addresses: the provider's end of the line, and the router itself.
    let (core, home) = (exits.host("core")?, exits.host(HOME)?);
    let provider: [IpAddr; 2] = [core.address4(HOME)?.into(), core.address6(HOME)?.into()];
    let router: [IpAddr; 2] = [home.lan4()?.into(), home.lan6()?.into()];
    let ask = |resolver| TrafficGenerator::start_in(&pc, Partners { resolver, ..partners }, &[Way::Dns]);
    let queries = [ask(provider)?, ask(router)?];

    let wish = json!({ "of": ["dev:lan"], "exits": ["farm"] });
    exits.set_scope("lan", &wish)?;
    let [provider, router] = &queries;
    TrafficGenerator::wait_for_all(EFFECT, &[(&web, farm), (provider, farm), (router, farm)])?;
    let (guest, far) = (exits.host("guest-pc")?, exits.host("farm-pc")?);
    for to in [guest.ip4()?.into(), guest.ip6()?.into(), far.ip4()?.into(), IpAddr::from(far.ip6()?)] {
        ping(&pc, to).with_context(|| format!("{to} is reached"))?;
    }

    let with = |key: &str, value: serde_json::Value| {
        let mut wish = wish.clone();
        wish[key] = value;
        exits.set_scope("lan", &wish)
    };
    with("redirect_dns", json!(false))?;
    TrafficGenerator::wait_for_all(EFFECT, &[(&web, farm), (provider, NOBODY), (router, NOBODY)])?;
    with("exclude", json!([format!("{}/32", partners.web[0]), format!("{}/128", partners.web[1])]))?;
    TrafficGenerator::wait_for_all(EFFECT, &[(&web, direct), (provider, farm), (router, farm)])?;
    with("allow_lan", json!(false))?;
    for to in [guest.ip4()?.into(), guest.ip6()?.into(), far.ip4()?.into(), IpAddr::from(far.ip6()?)] {
        eventually(EFFECT, &format!("{to} is out of reach"), || ping(&pc, to).is_err())?;
    }
    TrafficGenerator::wait_for_all(EFFECT, &[(&web, farm), (provider, farm)])?;
    exits.mesh.admin(&["exit", "unset", NETWORK, "farm", "--force"])?;
    TrafficGenerator::wait_for_all(EFFECT, &[(&web, NOBODY)])?;
    for to in [guest.ip4()?.into(), far.ip4()?.into(), IpAddr::from(far.ip6()?)] {
        ensure!(ping(&pc, to).is_err(), "{to} is reached while there is no exit");
    }
    Ok(())
}

/// A phone that leaves through its ingress router still does so when the router's own traffic uses an exit.
#[test]
fn phone_leaves_through_its_ingress() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    exits.mesh.admin(&["ingress", "set", NETWORK, HOME])?;
    let phone = exits.mesh.phone("phone", HOME, &["--full"])?;
    let home: Seen = [Some(exits.host(HOME)?.ip4()?.into()), Some(exits.host(HOME)?.ip6()?.into())];
    let talks = TrafficGenerator::start(phone.host(), exits.partners()?)?;
    talks.wait_until_seen_as(EFFECT, home)?;
    let (pc, farm) = (exits.generator("home-pc")?, exits.through("farm")?);
    for of in ["dev:lan", "all"] {
        exits.set_scope("some", &json!({ "of": [of], "exits": ["farm"] }))?;
        TrafficGenerator::wait_for_all(EFFECT, &[(&pc, farm), (&talks, home)])?;
    }
    Ok(())
}
