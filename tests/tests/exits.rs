//! Internet traffic that leaves through another site: as whom it is seen, over IPv4 and IPv6, and that all else stays as it
//! was.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Partners, Talker, UdpStream, Way, Whoami, connects, eventually, fetch, ping},
    mesh::{
        NETWORK,
        exits::{EFFECT, Exits, HOME, NOBODY, Seen},
    },
};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};

/// Everyone at `home`.
const ALL: [&str; 4] = ["home-pc", "home-tv", "guest-pc", HOME];
/// A port of `home` that its owner forwards to a host.
const FORWARDED: u16 = 8080;

/// Who talks, and as whom everyone is to be seen.
struct Crowd<'a> {
    exits: &'a Exits,
    talkers: Vec<Talker>,
}

impl<'a> Crowd<'a> {
    fn new(exits: &'a Exits) -> Result<Self> {
        let talkers = exits.talkers(&ALL)?;
        let crowd = Self { exits, talkers };
        crowd.wait_until(&[])?;
        Ok(crowd)
    }

    /// Those who are named are seen as leaving there, and all others as if there were no exits.
    fn wait_until(&self, elsewhere: &[(&str, Seen)]) -> Result<()> {
        let seen = |name: &str| match elsewhere.iter().find(|(who, _)| *who == name) {
            Some((_, seen)) => Ok(*seen),
            None => self.exits.direct(name),
        };
        let wanted = self.talkers.iter().zip(ALL).map(|(talker, name)| Ok((talker, seen(name)?)));
        Talker::wait_for_all(EFFECT, &wanted.collect::<Result<Vec<_>>>()?)
    }
}

/// Prefixes, a device, a host, the router itself, everything: exactly those leave through the exit. What sites and LANs
/// say to each other is at no moment lost.
#[test]
fn each_scope_leaves_through_its_exit_and_nothing_else_does() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    exits.mesh.serve_lans(&[HOME, "farm"], false)?;
    exits.mesh.wait_for_lans(&["home-pc", "farm-pc"])?;
    let crowd = Crowd::new(&exits)?;
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
        crowd.wait_until(&hosts.iter().map(|host| (*host, farm)).collect::<Vec<_>>())?;
        exits.mesh.wait_until_settled(HOME)?;
        exits.unset_scope("some")?;
        crowd.wait_until(&[])?;
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

/// Each LAN through an exit of its own at the same time, then both through one; what the Internet asks of the router and,
/// by its port forward, of a host in a scope is answered all along, where packets are filtered strictly.
#[test]
fn two_lans_leave_through_two_exits_and_who_calls_from_outside_is_answered() -> Result<()> {
    let exits = Exits::start(&["farm", "office"])?;
    let crowd = Crowd::new(&exits)?;
    let (farm, office) = (exits.through("farm")?, exits.through("office")?);
    let calls = Calls::open(&exits)?;
    calls.are_answered()?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"] }))?;
    crowd.wait_until(&[("home-pc", farm), ("home-tv", farm)])?;
    exits.set_scope("guest", &json!({ "of": ["dev:guest"], "exits": ["office"] }))?;
    crowd.wait_until(&[("home-pc", farm), ("home-tv", farm), ("guest-pc", office)])?;
    calls.are_answered()?;
    exits.mesh.wait_until_settled(HOME)?;

    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["office"] }))?;
    crowd.wait_until(&[("home-pc", office), ("home-tv", office), ("guest-pc", office)])?;
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

/// Servers of `home` that the Internet calls.
struct Calls {
    web: Host,
    to: Vec<SocketAddr>,
    _servers: [Whoami; 2],
}

impl Calls {
    /// The router's own, and one behind a port forward; the host has a public IPv6 address.
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

/// IPv6 of an exit without it goes nowhere, or stays where it was on purpose; never by accident.
#[test]
fn an_exit_without_ipv6_takes_ipv4_alone() -> Result<()> {
    let exits = Exits::start(&["barn"])?;
    let pc = exits.talker("home-pc")?;
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

/// What is excluded is reached as before; names are asked of the exit's resolver, whomever the host asks; without
/// `allow_lan` a host has nothing but its exit.
#[test]
fn destinations_resolvers_and_neighbours_are_as_the_admin_wants() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    exits.mesh.serve_lans(&[HOME, "farm"], false)?;
    exits.mesh.wait_for_lans(&["home-pc", "farm-pc"])?;
    let (farm, direct) = (exits.through("farm")?, exits.direct("home-pc")?);
    let (pc, partners) = (exits.host("home-pc")?, exits.partners()?);
    let ways = [Way::Udp, Way::Tcp];
    let web = Talker::start_in(&pc, partners, &ways)?;
    // Nobody answers queries there: the provider's end of the line, and the router itself.
    let (core, home) = (exits.host("core")?, exits.host(HOME)?);
    let provider: [IpAddr; 2] = [core.address4(HOME)?.into(), core.address6(HOME)?.into()];
    let router: [IpAddr; 2] = [home.lan4()?.into(), home.lan6()?.into()];
    let ask = |resolver| Talker::start_in(&pc, Partners { resolver, ..partners }, &[Way::Dns]);
    let queries = [ask(provider)?, ask(router)?];

    let wish = json!({ "of": ["dev:lan"], "exits": ["farm"] });
    exits.set_scope("lan", &wish)?;
    let [provider, router] = &queries;
    Talker::wait_for_all(EFFECT, &[(&web, farm), (provider, farm), (router, farm)])?;
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
    Talker::wait_for_all(EFFECT, &[(&web, farm), (provider, NOBODY), (router, NOBODY)])?;
    with("exclude", json!([format!("{}/32", partners.web[0]), format!("{}/128", partners.web[1])]))?;
    Talker::wait_for_all(EFFECT, &[(&web, direct), (provider, farm), (router, farm)])?;
    with("allow_lan", json!(false))?;
    for to in [guest.ip4()?.into(), guest.ip6()?.into(), far.ip4()?.into(), IpAddr::from(far.ip6()?)] {
        eventually(EFFECT, &format!("{to} is out of reach"), || ping(&pc, to).is_err())?;
    }
    Talker::wait_for_all(EFFECT, &[(&web, farm), (provider, farm)])?;
    exits.mesh.admin(&["exit", "unset", NETWORK, "farm", "--force"])?;
    Talker::wait_for_all(EFFECT, &[(&web, NOBODY)])?;
    for to in [guest.ip4()?.into(), far.ip4()?.into(), IpAddr::from(far.ip6()?)] {
        ensure!(ping(&pc, to).is_err(), "{to} is reached while there is no exit");
    }
    Ok(())
}

/// A phone that leaves through the router it is let in by goes on doing so, whatever the router's own traffic does.
#[test]
fn a_phone_leaves_where_it_is_let_in() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    exits.mesh.admin(&["ingress", "set", NETWORK, HOME])?;
    let phone = exits.mesh.phone("phone", HOME, &["--full"])?;
    let home: Seen = [Some(exits.host(HOME)?.ip4()?.into()), Some(exits.host(HOME)?.ip6()?.into())];
    let talks = Talker::start(phone.host(), exits.partners()?)?;
    talks.wait_until_seen_as(EFFECT, home)?;
    let (pc, farm) = (exits.talker("home-pc")?, exits.through("farm")?);
    for of in ["dev:lan", "all"] {
        exits.set_scope("some", &json!({ "of": [of], "exits": ["farm"] }))?;
        Talker::wait_for_all(EFFECT, &[(&pc, farm), (&talks, home)])?;
    }
    Ok(())
}
