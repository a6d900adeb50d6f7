//! Scopes of exits: the precedence of UCI, the owner's commands and the coordinator, the status, and refused settings.

use crate::world::{S, World, assignment_of, member, membership, name, node, policy, update};
use gatewrt::{
    config::{Config, OwnScope},
    core::{
        Input,
        scopes::{ConfigSource, asked, choice, config_source},
    },
    kernel::fake::FakeKernel,
    model::{Address, ForeignRoute, IfName, Link, LinkKind},
};
use gatewrt_protocol::{ExitOffer, ExitScope, Failure, Member, MemberUpdate, NodeId, ScopeState, Traffic};

pub fn link(text: &str) -> IfName {
    IfName::new(text).expect("sound")
}

/// A router with a WAN and two LANs.
pub fn kernel() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    let wan =
        ForeignRoute { prefix: "0.0.0.0/0".parse().expect("sound"), link: Some(link("wan")), on_link: false };
    kernel.state.main_routes.push(wan);
    for (index, (name, addr)) in
        (2..).zip([("wan", "198.51.100.1"), ("br-lan", "192.168.1.1"), ("br-guest", "192.168.2.1")])
    {
        kernel.state.links.insert(link(name), Link { index, kind: LinkKind::Other, up: true, mtu: 1500 });
        let address = Address { link: link(name), addr: addr.parse().expect("sound"), len: 24 };
        kernel.state.addresses.push(address);
    }
    kernel
}

fn offering(number: u8, v6: bool) -> Member {
    let offer = ExitOffer { v4: true, v6, dns: vec!["9.9.9.9".parse().expect("sound")] };
    Member { exit: Some(offer), prefixes: Vec::new(), ..member(number, 1) }
}

/// A world in which nodes 2 and 3 are exits, node 3 of IPv4 alone, and node 4 is none.
pub fn world(scopes: Vec<ExitScope>, config: &str, chosen: Option<Vec<OwnScope>>) -> World {
    world_on(kernel(), scopes, config, chosen)
}

pub fn world_on(
    kernel: FakeKernel,
    scopes: Vec<ExitScope>,
    config: &str,
    chosen: Option<Vec<OwnScope>>,
) -> World {
    let mut world = World::on(kernel);
    let members = [offering(2, true), offering(3, false), member(4, 1)];
    let mut records =
        vec![policy(1), assignment_of(|assignment| gatewrt_protocol::Assignment { scopes, ..assignment })];
    records.extend(members.into_iter().map(|member| update(&MemberUpdate::Member(member))));
    let membership = gatewrt::core::Membership { chosen, ..membership(records.into_iter().collect()) };
    let config = Config::parse("test", config.as_bytes()).expect("sound");
    world.feed(Input::Started(Box::new(config), vec![membership]));
    world.run(S);
    world
}

fn own(exits: &[&str], auto: bool) -> OwnScope {
    let scope = ExitScope { auto, ..ExitScope::auto("home".parse().expect("sound"), Vec::new()) };
    OwnScope { exits: exits.iter().map(|name| name.parse().expect("sound")).collect(), lan: true, scope }
}

pub fn of_coordinator() -> ExitScope {
    ExitScope { exits: vec![node(2)], ..ExitScope::auto("told".parse().expect("sound"), vec![Traffic::All]) }
}

/// The scopes that are asked for, and the failures of those that can't be set up.
fn asked_of(world: &World, config: &str) -> (Vec<ExitScope>, Vec<Failure>) {
    let config = Config::parse("test", config.as_bytes()).expect("sound");
    let mut failures = Vec::new();
    let network = &world.core.networks()[&name()];
    (asked(&config, &name(), network, &mut failures), failures)
}

fn voice_of(world: &World, config: &str) -> ConfigSource {
    let config = Config::parse("test", config.as_bytes()).expect("sound");
    config_source(&config, &name(), &world.core.networks()[&name()])
}

fn exits(scopes: &[ExitScope]) -> Vec<(String, Vec<NodeId>)> {
    scopes.iter().map(|scope| (scope.name.to_string(), scope.exits.clone())).collect()
}

const UCI: &str = "config network 'home'\n option exit_client 'n3'\n";

#[test]
fn owner_overrides_router_and_router_overrides_coordinator() {
    let told = world(vec![of_coordinator()], "", None);
    assert_eq!(exits(&asked_of(&told, "").0), [("told".to_owned(), vec![node(2)])]);
    assert_eq!(voice_of(&told, ""), ConfigSource::Coordinator);
    let said = world(vec![of_coordinator()], "", Some(vec![own(&["n2"], false)]));
    assert_eq!(exits(&asked_of(&said, "").0), [("home".to_owned(), vec![node(2)])]);
    assert_eq!(voice_of(&said, ""), ConfigSource::Router);
    assert_eq!(exits(&asked_of(&said, UCI).0), [("home".to_owned(), vec![node(3)])]);
    assert_eq!(voice_of(&said, UCI), ConfigSource::Owner);
}

#[test]
fn empty_scopes_override_the_coordinator() {
    let said = world(vec![of_coordinator()], "", Some(Vec::new()));
    assert_eq!(asked_of(&said, ""), (Vec::new(), Vec::new()));
    let none = "config network 'home'\n option exit_client '0'\n";
    let said = world(vec![of_coordinator()], "", Some(vec![own(&["n2"], false)]));
    assert_eq!(asked_of(&said, none), (Vec::new(), Vec::new()));
}

#[test]
fn lan_scope_has_every_lan_that_no_other_names() {
    let guests = OwnScope {
        lan: false,
        scope: ExitScope::auto(
            "guests".parse().expect("sound"),
            vec!["dev:br-guest".parse().expect("sound")],
        ),
        ..own(&[], true)
    };
    let alone = world(Vec::new(), "", Some(vec![own(&[], true)]));
    let of = |world: &World| asked_of(world, "").0[0].of.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(of(&alone), ["dev:br-guest", "dev:br-lan"]);
    assert_eq!(of(&world(Vec::new(), "", Some(vec![own(&[], true), guests]))), ["dev:br-lan"]);
}

#[test]
fn unfit_exit_is_never_replaced() {
    for (exit, why) in [
        ("n9", "there is no node of this name in the network"),
        ("n4", "it offers no exit"),
        ("one", "it is this router itself"),
    ] {
        let world = world(Vec::new(), "", Some(vec![own(&[exit], false)]));
        let (scopes, failures) = asked_of(&world, "");
        assert_eq!((scopes[0].exits.len(), scopes[0].auto), (0, false), "{exit}");
        assert_eq!(failures.iter().map(|failure| failure.why.as_str()).collect::<Vec<_>>(), [why]);
        let status = world.core.status(world.now);
        let scope = &status.networks[0].scopes[0];
        assert_eq!(scope.state, ScopeState::Blocked, "{exit}");
        assert_eq!(scope.why, "no exit is named that could be one");
    }
}

#[test]
fn scope_set_on_the_router_is_in_effect_at_once() {
    let mut world = world(Vec::new(), "", None);
    world.feed(Input::Chosen(name(), Some(vec![own(&["n3"], false)])));
    world.run(S);
    let status = world.core.status(world.now);
    let home = &status.networks[0];
    assert_eq!(
        (home.scopes_by, home.scopes[0].exit.as_ref().expect("sound").as_str()),
        (ConfigSource::Router, "n3")
    );
    assert_eq!(home.scopes[0].dns, ["9.9.9.9".parse::<std::net::IpAddr>().expect("sound")]);
    assert_eq!(home.scopes[0].why, "n3 leads to IPv4 alone: IPv6 goes nowhere");
    let used: Vec<_> = home.exits.iter().map(|exit| (exit.name.as_str(), exit.used_by.len())).collect();
    assert_eq!(used, [("n2", 0), ("n3", 1)]);
    world.feed(Input::Chosen(name(), None));
    world.run(S);
    assert!(world.core.status(world.now).networks[0].scopes.is_empty());
}

fn enable(world: &World, wish: OwnScope, config: &str) -> Result<(Vec<OwnScope>, String), String> {
    let config = Config::parse("test", config.as_bytes()).expect("sound");
    choice::enable(wish, &config, &name(), &world.core.networks()[&name()])
}

#[test]
fn unworkable_scope_is_refused_before_any_change() {
    let sound = world(Vec::new(), "", None);
    for (exit, said) in [
        ("n9", "n9 can't be the exit: there is no node of this name in the network (exits of home: n2, n3)"),
        ("n4", "n4 can't be the exit: it offers no exit"),
        ("one", "one can't be the exit: it is this router itself"),
    ] {
        let refused = enable(&sound, own(&["n2", exit], true), "").unwrap_err();
        assert!(refused.starts_with(said), "{refused}");
    }
    let refused = enable(&sound, own(&["n2"], false), UCI).unwrap_err();
    assert!(refused.starts_with("/etc/config/gatewrt decides for home"), "{refused}");
    let mut alone = World::on(kernel());
    alone.start(&[4]);
    let refused = enable(&alone, own(&[], true), "").unwrap_err();
    assert!(refused.starts_with("no node of home is an exit"), "{refused}");
}

#[test]
fn new_scope_leaves_the_others_unchanged() {
    let world = world(vec![of_coordinator()], "", None);
    let (scopes, hint) = enable(&world, own(&["n3"], false), "").expect("sound");
    let names: Vec<_> = scopes.iter().map(|own| (own.scope.name.as_str(), own.exits[0].as_str())).collect();
    assert_eq!(names, [("told", "n2"), ("home", "n3")]);
    assert!(hint.starts_with("IPv6 goes nowhere while it goes through n3"), "{hint}");
    assert_eq!(enable(&world, own(&["n2"], false), "").expect("sound").1, "");
    let twice = OwnScope {
        lan: false,
        scope: ExitScope::auto("other".parse().expect("sound"), vec![Traffic::All]),
        ..own(&["n2"], false)
    };
    let refused = enable(&world, twice, "").unwrap_err();
    assert!(
        refused.starts_with("all belongs to the scope told: “gatewrt exit disable told” first"),
        "{refused}"
    );
}

#[test]
fn scopes_are_disabled_one_by_one_or_all() {
    let world = world(vec![of_coordinator()], "", None);
    let network = &world.core.networks()[&name()];
    let disable = |scope: Option<&str>, config: &str| {
        let config = Config::parse("test", config.as_bytes()).expect("sound");
        let scope = scope.map(|text| text.parse().expect("sound"));
        choice::disable(scope.as_ref(), &config, &name(), network)
    };
    assert_eq!(disable(None, ""), Ok(Vec::new()));
    assert_eq!(disable(Some("told"), ""), Ok(Vec::new()));
    assert_eq!(disable(Some("x"), "").unwrap_err(), "home has no scope x here (there is: told)");
    assert!(disable(None, UCI).is_err());
}

#[test]
fn exit_on_a_secondary_interface_is_a_peer_like_any_other() {
    let scope = |name: &str, of, exit| ExitScope {
        exits: vec![node(exit)],
        auto: false,
        ..ExitScope::auto(name.parse().expect("a tag"), vec![of])
    };
    let lan = Traffic::Device("br-lan".into());
    let world = world(vec![scope("own", Traffic::Router, 2), scope("lan", lan, 3)], "", None);
    let secondary = link(&format!("gw-~{:.11}", node(3).to_string()));
    let peers = &world.kernel.state.devices[&secondary].peers;
    assert_eq!(peers.keys().collect::<Vec<_>>(), [&offering(3, false).key]);
    assert!(!world.kernel.state.devices[&link("gw-home")].peers.contains_key(&offering(3, false).key));
    let status = world.core.status(world.now);
    let peer = |name: &str| status.networks[0].peers.iter().find(|peer| peer.name.as_str() == name);
    let [main, seen] = ["n2", "n3"].map(|name| peer(name).expect("a peer"));
    assert_eq!(seen.endpoint, peers.values().next().and_then(|peer| peer.endpoint));
    assert!(seen.endpoint.is_some() && seen.path == main.path, "{seen:?} {main:?}");
}
