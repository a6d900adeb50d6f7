//! The core on its own: records in any order, a kernel in memory, a clock that is only a number.

#[path = "core/confirm.rs"]
mod confirm;
#[path = "core/guard.rs"]
mod guard;
#[path = "core/ingress.rs"]
mod ingress;
#[path = "core/scopes.rs"]
mod scopes;
#[path = "core/serving.rs"]
mod serving;
#[path = "core/world.rs"]
mod world;

use gatewrt::{
    config::Config,
    core::{
        Input, LinkEvent, Output, Uplink,
        directory::{Change, Directory, Refusal},
    },
    kernel::fake::Faults,
    model::{IfName, RouteKind},
    plan::Step,
    store::Records,
};
use gatewrt_protocol::{Member, MemberUpdate, NetworkId, Policy, RecordError, Signer, Tombstone, Topic};
use proptest::{collection::vec, prelude::*};
use world::{
    NET, S, World, assignment, member, membership, name, node, policy, prefix, roster, signer, update,
    wire_bytes,
};

fn directory() -> Directory {
    Directory::new(NET, node(1), signer().public())
}

fn accept(directory: &mut Directory, (topic, token): &(String, String)) -> Result<(), Refusal> {
    directory.accept(topic, token.as_bytes()).map(drop)
}

/// The history of one topic: every revision that was ever published on it. A tombstone is the last.
fn history(number: u8, last: u64, removed: bool) -> Vec<(String, String)> {
    let record = |rev| {
        update(&match removed && rev == last {
            true => MemberUpdate::Tombstone(Tombstone { net: NET, node: node(number), rev }),
            false => MemberUpdate::Member(member(number, rev)),
        })
    };
    (1..=last).map(record).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Records are lost, duplicated, delayed and reordered: after a resync (each topic's last record, in any order) two
    /// routers know the same.
    #[test]
    fn records_in_any_order_end_in_the_same_state(
        revisions in vec((1..5u64, any::<bool>()), 1..5),
        arrivals in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        order in any::<u64>(),
    ) {
        let mut topics: Vec<Vec<(String, String)>> =
            (2u8..).zip(&revisions).map(|(number, (last, removed))| history(number, *last, *removed)).collect();
        topics.push((1..4).map(policy).collect());
        topics.push((1..4).map(|rev| assignment(rev, &[("192.168.1.0/24", rev % 2 == 0)])).collect());
        let mut disturbed = directory();
        for (topic, rev) in &arrivals {
            let _ = accept(&mut disturbed, rev.get(topic.get(&topics).as_slice()));
        }
        let mut last: Vec<_> = topics.iter().filter_map(|history| history.last().cloned()).collect();
        let mut straight = directory();
        for record in &last {
            prop_assert_eq!(accept(&mut straight, record), Ok(()));
        }
        let shift = order as usize % last.len();
        last.rotate_left(shift);
        for record in &last {
            prop_assert_eq!(accept(&mut disturbed, record), Ok(()));
        }
        prop_assert_eq!(straight.stored(), disturbed.stored());
    }

    #[test]
    fn arbitrary_message_is_accepted_or_refused(topic in "gatewrt/v1/(net|node)/[a-z]{16}/[a-z/]{0,20}|.{0,30}", payload in vec(any::<u8>(), 0..200)) {
        let mut directory = directory();
        prop_assert!(directory.accept(&topic, &payload).is_err());
        prop_assert!(directory.stored().is_empty());
    }
}

#[test]
fn hostile_records_are_refused_and_change_nothing() {
    let mut directory = directory();
    for record in [policy(1), update(&MemberUpdate::Member(member(2, 5)))] {
        accept(&mut directory, &record).expect("sound");
    }
    let before = directory.stored();
    let other = Signer::from_seed(&[8; 32]);
    let forged = other.sign(&member(2, 9)).expect("short");
    let elsewhere =
        signer().sign(&Member { net: NetworkId::from_entropy([9; 10]), ..member(2, 9) }).expect("short");
    let topic = Topic::Member(NET, node(2)).to_string();
    let conflict = signer().sign(&Member { addresses: Vec::new(), ..member(2, 5) }).expect("short");
    let sound = signer().sign(&member(2, 9)).expect("short");
    let cases = [
        (topic.clone(), forged, "bad-signature"),
        (topic.clone(), elsewhere, "for-another"),
        (topic.clone(), update(&MemberUpdate::Member(member(2, 4))).1, "old-revision"),
        (topic.clone(), conflict, "conflict"),
        (topic.clone(), sound[..sound.len() / 2].to_owned(), "malformed"),
        (topic.clone(), "x".repeat(140_000), "too-long"),
        (topic.clone(), "x".repeat(20_000), "malformed"),
        (topic.clone(), policy(9).1, "wrong-kind"),
        (Topic::Member(NET, node(3)).to_string(), sound.clone(), "for-another"),
        (Topic::Assignment(node(2)).to_string(), assignment(1, &[]).1, "unknown-topic"),
        (Topic::Member(NetworkId::from_entropy([9; 10]), node(2)).to_string(), sound, "unknown-topic"),
    ];
    for (topic, token, reason) in cases {
        let refusal = directory.accept(&topic, token.as_bytes()).expect_err(reason);
        assert_eq!(refusal.reason(), reason, "{refusal}");
        assert_eq!(directory.stored(), before, "{reason}");
    }
    let refusal = directory.accept(&topic, b"a.b.c").expect_err("nonsense");
    assert_eq!(refusal, Refusal::Record(RecordError::Malformed));
    assert_eq!(directory.accept(&topic, b""), Ok(Change::Nothing), "the broker forgets, we don't");
    assert_eq!(directory.stored(), before);
}

#[test]
fn router_without_coordinator_comes_up_from_disk() {
    let world = World::joined(&[2, 3]);
    assert!(world.core.is_settled());
    let device = &world.kernel.state.devices[&IfName::new("gw-home").expect("a name")];
    assert_eq!(device.peers.len(), 2);
    assert!(world.kernel.state.ruleset.is_some());
    assert_eq!(world.kernel.state.rules.len(), 2);
}

#[test]
fn restarted_daemon_changes_nothing() {
    let mut world = World::on(World::joined(&[2, 3]).kernel);
    world.start(&[2, 3]);
    assert!(world.core.is_settled());
    assert!(world.applied.is_empty(), "{:?}", world.applied);
}

/// The records on disk are damaged: the running interface and its routes stay until the coordinator has sent all
/// records again.
#[test]
fn running_tunnel_stays_while_records_are_missing() {
    let mut before = World::joined(&[2, 3]);
    before.run(S);
    let mut world = World::new();
    world.kernel = before.kernel.clone();
    world.feed(Input::Started(Box::default(), vec![membership(Records::default())]));
    world.run(10 * S);
    world.connect();
    world.message(policy(1));
    world.message(assignment(1, &[]));
    world.message(update(&MemberUpdate::Member(member(2, 1))));
    world.message(roster(1, &[(2, 1), (3, 1)]));
    world.run(3 * S);
    assert!(world.applied.is_empty() && world.core.plan().is_empty() && !world.core.is_settled());
    world.message(update(&MemberUpdate::Member(member(3, 1))));
    world.run(3 * S);
    assert!(world.core.is_settled());
    assert_eq!(world.kernel.state, before.kernel.state);
}

/// Another network's identity is damaged on disk: that network stays as it runs until it is left, and this one goes on.
#[test]
fn unreadable_network_is_left_alone_until_its_owner_leaves() {
    let mut world = World::joined(&[2]);
    let other = IfName::new("gw-other").expect("a name");
    let tunnel = world.kernel.state.links[&IfName::from(&name())].clone();
    world.kernel.state.links.insert(other.clone(), tunnel);
    let mut route = world.kernel.state.routes.iter().next().expect("a route").clone();
    route.prefix = prefix("192.168.99.0/24");
    route.kind = RouteKind::Device(other.clone());
    world.kernel.state.routes.push(route.clone());
    let mut world = World::on(world.kernel);
    world.core.leave_alone("other".parse().expect("a name"), "damaged".to_owned());
    world.start(&[2, 3]);
    assert_eq!(world.core.status(world.now).unreadable.len(), 1);
    assert_eq!(world.applied.len(), 1, "{:?}", world.applied);
    assert_eq!(world.kernel.state.devices[&IfName::from(&name())].peers.len(), 2);
    assert!(world.kernel.state.routes.contains(&route) && !world.core.is_settled());
    world.feed(Input::Leave("other".parse().expect("a name")));
    world.run(3 * S);
    assert!(!world.kernel.state.links.contains_key(&other) && !world.kernel.state.routes.contains(&route));
    assert!(world.said.iter().any(|said| matches!(said, Output::Forget(name) if name.as_str() == "other")));
    assert!(world.core.is_settled() && world.core.status(world.now).unreadable.is_empty());
}

#[test]
fn new_node_is_one_step() {
    let mut world = World::joined(&[2, 3]);
    world.connect();
    world.run(10 * S);
    world.applied.clear();
    world.message(update(&MemberUpdate::Member(Member { prefixes: Vec::new(), ..member(4, 1) })));
    world.run(S / 2);
    world.meet();
    world.run(10 * S);
    assert_eq!(world.applied.len(), 1, "{:?}", world.applied);
    let [Step::SetPeers(_, peers)] = world.applied[0].as_slice() else { panic!("{:?}", world.applied) };
    assert_eq!(peers.len(), 1);
}

#[test]
fn deleted_peer_is_back_within_two_seconds() {
    let mut world = World::joined(&[2, 3]);
    let link = IfName::new("gw-home").expect("a name");
    world.kernel.state.devices.get_mut(&link).expect("a device").peers.clear();
    world.run(2 * S);
    assert_eq!(world.kernel.state.devices[&link].peers.len(), 2);
    assert!(world.core.is_settled());
}

#[test]
fn left_network_is_taken_down_then_forgotten() {
    let mut world = World::joined(&[2]);
    world.feed(Input::Leave(name()));
    world.run(5 * S);
    assert!(world.said.iter().any(|output| matches!(output, Output::Forget(_))));
    assert!(world.kernel.state.devices.is_empty() && world.kernel.state.rules.is_empty());
    assert!(world.kernel.state.ruleset.is_none() && world.kernel.state.routes.is_empty());
}

#[test]
fn stopped_daemon_leaves_tunnels_up_without_teardown() {
    let mut world = World::joined(&[2]);
    world.feed(Input::Stop { teardown: false });
    assert!(world.said.iter().any(|output| matches!(output, Output::Stopped)));
    assert_eq!(world.kernel.state.devices.len(), 1);
    let mut world = World::joined(&[2]);
    world.feed(Input::Stop { teardown: true });
    world.run(5 * S);
    assert!(world.said.iter().any(|output| matches!(output, Output::Stopped)));
    assert!(world.kernel.state.devices.is_empty());
}

#[test]
fn removed_node_takes_its_tunnel_down() {
    let mut world = World::joined(&[2]);
    world.connect();
    world.message(update(&MemberUpdate::Tombstone(Tombstone { net: NET, node: node(1), rev: 9 })));
    world.run(5 * S);
    assert!(world.kernel.state.devices.is_empty());
    assert_eq!(world.core.status(world.now).networks[0].control, "removed");
    assert_eq!(world.flushes(), 1);
}

#[test]
fn removal_of_a_known_node_is_on_disk_at_once() {
    let mut world = World::joined(&[2]);
    world.connect();
    let tombstone =
        |number, rev| update(&MemberUpdate::Tombstone(Tombstone { net: NET, node: node(number), rev }));
    world.message(tombstone(3, 9));
    assert_eq!(world.flushes(), 0);
    world.message(tombstone(2, 9));
    world.message(tombstone(2, 9));
    assert_eq!(world.flushes(), 1);
}

#[test]
fn removed_node_never_comes_back() {
    let mut directory = directory();
    for record in history(2, 3, true) {
        accept(&mut directory, &record).expect("sound");
    }
    let back = update(&MemberUpdate::Member(member(2, 9)));
    assert_eq!(accept(&mut directory, &back), Err(Refusal::Removed));
    assert_eq!(directory.pop_untold(), history(2, 3, true).pop().map(|(_, token)| token));
}

/// Records that the coordinator was told of, until it was told of all.
fn told(world: &mut World) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        world.said.clear();
        world.feed(Input::Link(name(), LinkEvent::Acked));
        let known = world.said.iter().find_map(|output| match output {
            Output::Publish(_, Uplink::Known(token)) => Some(token.clone()),
            _ => None,
        });
        match known {
            Some(token) => told.push(token),
            None => return told,
        }
    }
}

#[test]
fn coordinator_that_was_set_back_is_told_what_it_signed() {
    let mut world = World::joined(&[2]);
    world.connect();
    let newest = [assignment(7, &[]), update(&MemberUpdate::Member(member(2, 7))), policy(7)];
    newest.iter().for_each(|record| world.message(record.clone()));
    assert_eq!(told(&mut world), Vec::<String>::new());
    for record in [assignment(3, &[]), update(&MemberUpdate::Member(member(2, 3))), policy(7)] {
        world.message(record.clone());
        world.message(record);
    }
    let is_told = |world: &World| !world.core.status(world.now).networks[0].failures.is_empty();
    assert!(is_told(&world), "an older record is a failure");
    let mut told = told(&mut world);
    told.sort();
    let mut expected: Vec<_> = newest[..2].iter().map(|(_, token)| token.clone()).collect();
    expected.sort();
    assert_eq!(told, expected);
    world.message(assignment(8, &[]));
    world.message(update(&MemberUpdate::Member(member(2, 8))));
    assert!(!is_told(&world), "a failure that is over vanishes");
}

/// Where the router connects next after it was cut off.
fn next_broker(world: &mut World) -> String {
    world.said.clear();
    world.feed(Input::Link(name(), LinkEvent::Lost("cut".to_owned())));
    world.run(70 * S);
    let to = world.said.iter().find_map(|output| match output {
        Output::Connect { broker, .. } => Some(broker.clone()),
        _ => None,
    });
    to.expect("it connects")
}

/// A coordinator moves: it names its new address while the old one works, then the old one goes.
#[test]
fn router_tries_the_brokers_that_the_coordinator_names_and_the_first() {
    let mut world = World::joined(&[2]);
    world.connect();
    let brokers = || vec!["new.example:8883".to_owned(), "gw.example:8883".to_owned()];
    world.message(world::policy_of(|policy| Policy { rev: 2, brokers: brokers(), ..policy }));
    let mut tried: Vec<String> = (0..4).map(|_| next_broker(&mut world)).collect();
    tried.sort();
    tried.dedup();
    let mut all = brokers();
    all.sort();
    assert_eq!(tried, all);
    world.connect();
    let brokers = vec!["new.example:8883".to_owned()];
    world.message(world::policy_of(|policy| Policy { rev: 3, brokers, ..policy }));
    let tried: Vec<String> = (0..4).map(|_| next_broker(&mut world)).collect();
    assert!(tried.contains(&"gw.example:8883".to_owned()), "that of the join is never forgotten: {tried:?}");
    assert!(tried.contains(&"new.example:8883".to_owned()), "{tried:?}");
}

/// A router that slept while its coordinator moved learns from a peer where that is now.
#[test]
fn router_that_lost_its_coordinator_asks_its_peers() {
    let mut world = World::joined(&[2, 3]);
    world.connect();
    world.run(S);
    world.feed(Input::Link(name(), LinkEvent::Lost("cut".to_owned())));
    world.run(20 * S);
    let asked = |world: &World| {
        let asked = world.said.iter().filter_map(|output| match output {
            Output::AskPolicy(_, target) => Some(target.to),
            _ => None,
        });
        asked.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(asked(&world).is_empty(), "a broker that restarts is back in a moment");
    world.run(120 * S);
    assert_eq!(asked(&world).len(), 2, "both peers: {:?}", world.said);

    let moved = |rev| {
        let brokers = vec!["new.example:8883".to_owned()];
        world::policy_of(|policy| Policy { rev, brokers, ..policy }).1.into_bytes()
    };
    let next = |world: &mut World, told: Vec<u8>| {
        world.said.clear();
        world.feed(Input::Told(name(), told));
        world.run(S);
        world.said.iter().find_map(|output| match output {
            Output::Connect { broker, .. } => Some(broker.clone()),
            _ => None,
        })
    };
    // What a peer makes up, or has kept from before, changes nothing.
    let forged = Signer::from_seed(&[8; 32]);
    let forged = forged.sign(&world::policy_record(|policy| Policy { rev: 9, ..policy })).expect("short");
    assert_eq!(next(&mut world, forged.into_bytes()), None);
    assert_eq!(next(&mut world, b"no record".to_vec()), None);
    assert_eq!(next(&mut world, moved(1)), None, "another one of the known revision");
    assert_eq!(next(&mut world, moved(2)).as_deref(), Some("new.example:8883"), "at once");
    world.connect();
    assert_eq!(next(&mut world, moved(3)), None, "a link that works is not cut");
}

/// A coordinator that was restored from a backup may not know this node at all: it then sends none of its records.
#[test]
fn coordinator_that_does_not_know_the_node_is_told_of_it() {
    let mut world = World::joined(&[2]);
    world.connect();
    world.message(update(&MemberUpdate::Member(member(1, 4))));
    world.feed(Input::Link(name(), LinkEvent::Lost("cut".to_owned())));
    world.run(70 * S);
    world.connect();
    world.run(S);
    assert_eq!(told(&mut world), Vec::<String>::new(), "its records may still come");
    world.run(70 * S);
    let told = told(&mut world);
    let own = [update(&MemberUpdate::Member(member(1, 4))).1, assignment(1, &[]).1];
    assert_eq!(told, own, "its member record first, then its assignment");
}

#[test]
fn withheld_record_is_requested_again() {
    let mut world = World::joined(&[2]);
    world.connect();
    world.message(roster(1, &[(2, 1), (3, 1)]));
    world.said.clear();
    world.run(30 * S);
    let asked = world.said.iter().filter(|output| matches!(output, Output::Disconnect(_))).count();
    assert_eq!(asked, 1);
    let status = world.core.status(world.now);
    assert!(status.networks[0].failures.iter().any(|failure| failure.why.contains("withheld")), "{status:?}");
    world.connect();
    world.message(update(&MemberUpdate::Member(member(3, 1))));
    world.run(S);
    assert!(world.core.status(world.now).networks[0].failures.is_empty());
}

#[test]
fn slow_records_do_not_count_as_withheld() {
    let mut world = World::joined(&[2]);
    world.connect();
    world.message(roster(1, &[(2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]));
    world.said.clear();
    for number in 3..=6 {
        world.run(4 * S);
        world.message(update(&MemberUpdate::Member(member(number, 1))));
    }
    for _ in 0..6 {
        world.run(5 * S);
        world.feed(Input::Link(name(), LinkEvent::Acked));
    }
    assert!(!world.said.iter().any(|output| matches!(output, Output::Disconnect(_))));
    assert!(world.core.status(world.now).networks[0].failures.is_empty());
}

#[test]
fn records_that_expired_while_offline_are_forgotten() {
    let mut world = World::joined(&[2, 3]);
    world.connect();
    world.message(update(&MemberUpdate::Member(member(2, 1))));
    world.message(roster(1, &[(2, 1)]));
    world.run(10 * S);
    assert_eq!(world.core.status(world.now).networks[0].peers.len(), 1);
}

#[test]
fn forbidden_role_is_not_done_but_reported() {
    let mut world = World::joined(&[2]);
    let text = b"config network 'home'\n\toption allow_egress '0'\n";
    let config = Config::parse("test", text).expect("sound");
    world.feed(Input::Configured(Box::new(config)));
    world.connect();
    world.message(assignment(2, &[("192.168.1.0/24", true)]));
    world.run(5 * S);
    let failures = &world.core.status(world.now).networks[0].failures;
    assert!(failures[0].why.contains("allow_egress"), "{failures:?}");
    assert!(world.table().contains("not served") && !world.table().contains("192.168.1.0/24"));
}

#[test]
fn setting_that_is_not_in_effect_is_a_failure_of_its_network() {
    let mut world = World::joined(&[2]);
    world.connect();
    let text = b"config network 'home'\n\toption mtu '1500'\nconfig network 'nett'\n\toption mtu '1'\n";
    world.feed(Input::Configured(Box::new(Config::read("test", text, &[]).0)));
    world.run(5 * S);
    let status = world.core.status(world.now);
    let failures = &status.networks[0].failures;
    assert!(failures.len() == 1 && failures[0].what == "use test:2", "{failures:?}");
    assert!(failures[0].why.starts_with("option mtu: “1500” can't be used"), "{failures:?}");
    let [other, unknown] = status.config.as_slice() else { panic!("{:?}", status.config) };
    assert!(other.starts_with("test:4: option mtu: “1”"), "{other}");
    assert!(unknown.starts_with("network nett: this router has not joined"), "{unknown}");
}

/// Routes to a peer stay while the peer is removed from WireGuard and added again.
#[test]
fn peer_without_handshake_is_reset_once() {
    let mut world = World::joined(&[2, 3]);
    let routes = world.kernel.state.routes.clone();
    world.applied.clear();
    world.run(60 * S);
    let [gone, back] = world.applied.as_slice() else { panic!("{:?}", world.applied) };
    for steps in [gone, back] {
        assert!(steps.iter().all(|step| matches!(step, Step::SetPeers(..))), "{steps:?}");
    }
    assert_eq!((&world.kernel.state.routes, world.core.is_settled()), (&routes, true));
    assert_eq!(world.kernel.state.devices[&IfName::from(&name())].peers.len(), 2);
}

#[test]
fn changed_listen_port_is_in_effect_at_once() {
    let mut world = World::joined(&[2]);
    world.connect();
    let text = b"config network 'home'\n\toption listen_port '51999'\n";
    world.feed(Input::Configured(Box::new(Config::parse("test", text).expect("sound"))));
    world.run(5 * S);
    assert_eq!(world.core.status(world.now).networks[0].port, 51999);
    let device = &world.kernel.state.devices[&IfName::new("gw-home").expect("a name")];
    assert_eq!(device.settings.as_ref().map(|settings| settings.port), Some(51999));
}

#[test]
fn idle_hour_sends_little() {
    let mut world = World::joined(&[2, 3]);
    world.meet();
    world.connect();
    world.said.clear();
    world.applied.clear();
    world.handled = 0;
    for _ in 0..3600 {
        world.run(S);
        world.feed(Input::Link(name(), LinkEvent::Acked));
    }
    assert!(world.applied.is_empty());
    assert!((50..=62).contains(&world.reports()), "{} reports", world.reports());
    assert!(world.handled < 3 * 3600 + 3600, "{} inputs", world.handled);
}

#[test]
fn new_roster_is_reported_at_once_in_a_small_network() {
    for (peers, is_small) in [(3, true), (40, false)] {
        let all: Vec<u8> = (2..2 + peers).collect();
        let revs = |changed: u64| {
            all.iter().map(|peer| (*peer, if *peer == 2 { changed } else { 1 })).collect::<Vec<_>>()
        };
        let mut world = World::joined(&all);
        world.connect();
        world.message(roster(1, &revs(1)));
        world.run(5 * S);
        world.said.clear();
        world.message(update(&MemberUpdate::Member(member(2, 2))));
        world.message(roster(2, &revs(2)));
        world.run(10 * S);
        let has_it = |output: &Output| matches!(output, Output::Publish(_, Uplink::Report(report)) if report.applied.roster == 2);
        assert_eq!(world.said.iter().any(has_it), is_small, "{peers} peers");
    }
}

#[test]
fn idle_reports_with_many_peers_stay_cheap() {
    for peers in [0, 8, 60] {
        let mut world = World::joined(&(2..2 + peers).collect::<Vec<_>>());
        world.connect();
        for _ in 0..3600 / 5 {
            world.run(5 * S);
            world.feed(Input::Link(name(), LinkEvent::Acked));
        }
        let bytes: usize = world.said.iter().filter_map(wire_bytes).sum();
        assert!((20_000..60_000).contains(&bytes), "{peers} peers: {bytes} bytes an hour");
    }
}

#[test]
fn refused_step_backs_off() {
    let mut refused = World::joined(&[2]);
    refused.kernel.faults = Faults::At((0..100_000).collect());
    refused.applied.clear();
    refused.message(update(&MemberUpdate::Member(member(5, 1))));
    refused.run(600 * S);
    assert!((5..60).contains(&refused.applied.len()), "{} plans", refused.applied.len());
    let failures = &refused.core.status(refused.now).networks[0].failures;
    assert!(!failures.is_empty());
    refused.kernel.faults = Default::default();
    refused.run(60 * S);
    assert!(refused.core.is_settled());
    assert!(refused.core.status(refused.now).networks[0].failures.is_empty());
}

#[test]
fn reverted_step_backs_off_and_delays_no_other() {
    let mut world = World::joined(&[2]);
    let rules = world.kernel.state.rules.clone();
    world.applied.clear();
    for _ in 0..200 {
        world.kernel.state.rules.clear();
        world.feed(Input::Changed);
        world.run(S / 20);
    }
    assert!((5..15).contains(&world.applied.len()), "{} plans", world.applied.len());
    world.kernel.state.rules.clear();
    let routes = std::mem::take(&mut world.kernel.state.routes);
    world.feed(Input::Changed);
    world.run(S / 5);
    assert_eq!(world.kernel.state.routes, routes);
    world.run(2 * S);
    assert_eq!(world.kernel.state.rules, rules);
}

#[test]
fn foreign_changes_are_observed_ever_more_rarely() {
    let mut world = World::joined(&[2]);
    world.meet();
    world.applied.clear();
    world.looks = 0;
    for _ in 0..1000 {
        world.feed(Input::Changed);
        world.run(S / 100);
    }
    assert!((10..25).contains(&world.looks), "{} looks", world.looks);
    world.run(3 * S);
    world.looks = 0;
    world.feed(Input::Changed);
    world.run(S / 5);
    assert_eq!((world.looks, world.applied.len()), (1, 0));
}
