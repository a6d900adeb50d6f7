//! Ingress: a router that admits external clients.

use super::world::{NET, S, World, assignment_of, member, name, policy, prefix, update, wire_bytes};
use gatewrt::{
    config::Config,
    core::{Input, LinkEvent, Output, Uplink},
    kernel::fake::FakeKernel,
    model::{ForeignRoute, IfName, RouteKind, SysctlPath, WgCounters, WgDevice},
    plan::{PeerChange, Step},
};
use gatewrt_protocol::{
    Assignment, ClientReport, Ingress, IngressClient, Member, MemberUpdate, PresharedKey, WgPublicKey,
};
use proptest::{collection::vec, prelude::*};
use std::time::Duration;

fn gw() -> IfName {
    IfName::new("gw-home").expect("a name")
}

fn key(number: u8) -> WgPublicKey {
    WgPublicKey([100 + number; 32])
}

/// The client with this number; its addresses are of the block 10.90.1.0/24.
fn client(number: u8) -> IngressClient {
    IngressClient {
        key: key(number),
        addresses: vec![
            format!("10.90.1.{number}").parse().expect("v4"),
            format!("fd90::1:{number}").parse().expect("v6"),
        ],
        psk: Some(PresharedKey([number; 32])),
        prefixes: Vec::new(),
        internet: false,
        reachable: false,
    }
}

fn clients(rev: u64, clients: &[IngressClient]) -> (String, String) {
    assignment_of(|assignment| Assignment {
        rev,
        ingress: Some(Ingress { clients: clients.to_vec() }),
        ..assignment
    })
}

/// This router's own record, with a block of each family.
fn block() -> (String, String) {
    let clients = vec![prefix("10.90.1.0/24"), prefix("fd90::1:0/112")];
    update(&MemberUpdate::Member(Member { clients, ..member(1, 1) }))
}

fn kernel() -> FakeKernel {
    let mut kernel = World::new().kernel;
    kernel.link_sysctls.insert("net/ipv4/conf/*/forwarding".into(), "0".into());
    for path in ["net/ipv4/conf/wan/forwarding", "net/ipv6/conf/all/forwarding"] {
        kernel.state.sysctls.insert(SysctlPath(path.into()), "0".into());
    }
    let lan = ForeignRoute { prefix: prefix("192.168.7.0/24"), link: IfName::new("lan"), on_link: true };
    kernel.state.main_routes.push(lan);
    kernel
}

/// A gateway that admits these clients, and a peer, node 2.
fn gateway(admitted: &[IngressClient]) -> World {
    let mut world = World::on(kernel());
    world.start(&[2]);
    world.connect();
    world.message(block());
    world.message(clients(2, admitted));
    world.run(10 * S);
    assert!(world.core.is_settled(), "{:?}", world.kernel.journal.last());
    world.applied.clear();
    world
}

fn device(world: &World) -> &WgDevice {
    &world.kernel.state.devices[&gw()]
}

fn failures(world: &World) -> Vec<String> {
    let status = world.core.status(world.now);
    status.networks[0].failures.iter().map(|failure| format!("{}: {}", failure.what, failure.why)).collect()
}

fn value<'a>(world: &'a World, path: &str) -> &'a str {
    &world.kernel.state.sysctls[&SysctlPath(path.into())]
}

#[test]
fn client_is_a_peer_without_endpoint() {
    let behind = IngressClient { prefixes: vec![prefix("192.168.50.0/24")], ..client(1) };
    let world = gateway(&[behind, client(2)]);
    let one = &device(&world).peers[&key(1)];
    let expected = ["10.90.1.1/32", "192.168.50.0/24", "fd90::1:1/128"].map(prefix);
    assert_eq!(one.allowed, expected.into_iter().collect());
    assert_eq!((one.endpoint, one.keepalive, one.psk), (None, 0, Some(PresharedKey([1; 32]))));
    let behind = world.kernel.state.routes.iter().find(|route| route.prefix == prefix("192.168.50.0/24"));
    assert_eq!(behind.map(|route| &route.kind), Some(&RouteKind::Device(gw())));
    assert!(failures(&world).is_empty());
    assert_eq!(value(&world, "net/ipv4/conf/gw-home/forwarding"), "1");
    assert_eq!(value(&world, "net/ipv4/conf/wan/forwarding"), "0");
    assert_eq!(value(&world, "net/ipv6/conf/all/forwarding"), "1");
}

#[test]
fn full_tunnel_forwards_to_the_internet_and_restores_settings() {
    let mut world = gateway(&[IngressClient { internet: true, ..client(1) }]);
    assert_eq!(value(&world, "net/ipv4/conf/wan/forwarding"), "1");
    world.message(clients(3, &[]));
    world.run(3 * S);
    assert_eq!(value(&world, "net/ipv4/conf/wan/forwarding"), "0");
    assert_eq!(value(&world, "net/ipv6/conf/all/forwarding"), "0");
    assert!(world.kernel.state.saved_sysctls.keys().all(|path| path.0.ends_with("src_valid_mark")));
}

#[test]
fn client_block_of_another_gateway_leads_to_it() {
    let mut world = World::joined(&[2, 3]);
    let block = |number, blocks: &[&str]| {
        let clients = blocks.iter().map(|block| prefix(block)).collect();
        update(&MemberUpdate::Member(Member { clients, ..member(number, 2) }))
    };
    world.message(block(2, &["10.90.2.0/24", "192.168.0.0/16", "0.0.0.0/0"]));
    world.message(block(3, &["10.90.2.0/24"]));
    world.run(3 * S);
    let allowed = |number| device(&world).peers[&WgPublicKey([number; 32])].allowed.clone();
    assert_eq!(
        allowed(2),
        ["10.90.0.2/32", "10.90.2.0/24", "192.168.2.0/24"].map(prefix).into_iter().collect()
    );
    assert_eq!(
        allowed(3),
        ["10.90.0.3/32", "192.168.3.0/24"].map(prefix).into_iter().collect(),
        "it is 2's already"
    );
    assert!(world.core.is_settled());
}

#[test]
fn forbidden_ingress_is_not_done_but_reported() {
    let mut world = gateway(&[client(1)]);
    let text = b"config network 'home'\n\toption allow_ingress '0'\n";
    world.feed(Input::Configured(Box::new(Config::parse("test", text).expect("sound"))));
    world.run(S);
    assert_eq!(device(&world).peers.len(), 1);
    assert!(failures(&world)[0].contains("allow_ingress is 0"), "{:?}", failures(&world));
    assert_eq!(value(&world, "net/ipv4/conf/gw-home/forwarding"), "0");
}

#[test]
fn client_takes_no_address_or_prefix_of_others() {
    let with = |number, addresses: &[&str], prefixes: &[&str]| IngressClient {
        addresses: addresses.iter().map(|addr| addr.parse().expect("an address")).collect(),
        prefixes: prefixes.iter().map(|text| prefix(text)).collect(),
        ..client(number)
    };
    let world = gateway(&[
        IngressClient { key: WgPublicKey([2; 32]), ..client(9) },
        IngressClient { key: WgPublicKey([1; 32]), ..client(8) },
        with(1, &["10.90.0.2"], &[]),
        with(2, &["10.90.0.1", "fd90::1:2"], &[]),
        with(3, &["192.0.2.1"], &[]),
        with(
            4,
            &["10.90.1.4"],
            &["0.0.0.0/0", "10.90.7.0/24", "192.168.7.128/25", "192.168.0.0/16", "10.1.0.0/16"],
        ),
        with(5, &["10.90.1.4"], &[]),
        with(6, &["10.90.1.6"], &["10.1.0.0/16"]),
        with(7, &["10.90.1.7"], &["192.168.2.0/24"]),
    ]);
    let peers = &device(&world).peers;
    let allowed = |key| peers.get(&key).map(|peer| peer.allowed.clone());
    assert_eq!(allowed(WgPublicKey([2; 32])), Some([prefix("10.90.0.2/32")].into_iter().collect()));
    assert_eq!(allowed(key(2)), Some([prefix("fd90::1:2/128")].into_iter().collect()));
    assert_eq!(allowed(key(4)), Some(["10.1.0.0/16", "10.90.1.4/32"].map(prefix).into_iter().collect()));
    assert_eq!(allowed(key(6)), Some([prefix("10.90.1.6/32")].into_iter().collect()));
    // A node offers the prefix too, but a client of this router comes first.
    assert_eq!(allowed(key(7)), Some(["10.90.1.7/32", "192.168.2.0/24"].map(prefix).into_iter().collect()));
    assert_eq!(peers.len(), 5);
    let said = failures(&world);
    assert_eq!(said.len(), 11, "{said:#?}");
    assert!(said.iter().any(|text| text.contains("192.168.7.128/25") && text.contains("192.168.7.0/24")));
}

/// Peers that the applied steps changed, one list for each step.
fn named(world: &World) -> Vec<Vec<WgPublicKey>> {
    let messages = world.applied.iter().flatten().filter_map(|step| match step {
        Step::SetPeers(_, changes) => Some(changes.iter().map(|(key, _)| *key).collect()),
        _ => None,
    });
    messages.collect()
}

#[test]
fn each_new_client_is_one_step() {
    let mut world = gateway(&[]);
    let all: Vec<_> = (1..100).map(client).collect();
    for (rev, count) in (3..).zip(1..100) {
        world.message(clients(rev, &all[..count]));
    }
    world.run(3 * S);
    assert_eq!(named(&world), (1..100).map(|number| vec![key(number)]).collect::<Vec<_>>());
    assert!(world.core.is_settled());
    let psk = Some(PresharedKey([77; 32]));
    let mut changed = all.clone();
    changed[4].psk = psk;
    world.applied.clear();
    world.message(clients(200, &changed));
    assert_eq!(named(&world), [[key(5)]]);
    assert_eq!(world.applied.concat().len(), 1, "{:?}", world.applied);
    assert_eq!(device(&world).peers[&key(5)].psk, psk);
}

/// A burst of changes takes a few reconcile rounds, and the first round is not delayed.
#[test]
fn changes_in_a_row_share_a_round() {
    const TEN_MS: Duration = Duration::from_millis(10);
    let mut world = gateway(&[]);
    let many: Vec<_> = (1..=100).map(client).collect();
    for count in 1..=many.len() {
        world.message(clients(2 + count as u64, &many[..count]));
        world.run(TEN_MS);
        assert!(!world.applied.is_empty(), "the first is applied at once");
    }
    world.run(10 * TEN_MS);
    assert_eq!(device(&world).peers.len(), 1 + many.len());
    assert!(world.applied.len() <= 12, "{} rounds in {:?}", world.applied.len(), TEN_MS * 110);
}

/// A slow router spends at most half of its time on observing, however many changes come.
#[test]
fn slow_router_collects_changes_for_as_long_as_a_round_takes() {
    const TEN_MS: Duration = Duration::from_millis(10);
    let mut world = gateway(&[]);
    world.slowness = 30 * TEN_MS;
    let many: Vec<_> = (1..=100).map(client).collect();
    for count in 1..=many.len() {
        world.message(clients(2 + count as u64, &many[..count]));
        world.run(TEN_MS);
    }
    world.run(10 * S);
    assert_eq!(device(&world).peers.len(), 1 + many.len());
    assert!(world.applied.len() <= 5, "{} rounds", world.applied.len());
}

#[test]
fn disabled_client_is_cut_off_at_once() {
    let mut world = gateway(&[client(1), client(2)]);
    world.message(clients(3, &[client(2)]));
    let steps = world.applied.concat();
    let removal = Step::SetPeers(gw(), vec![(key(1), PeerChange::Remove)]);
    let removed = steps.iter().position(|step| *step == removal).expect("removed");
    let cut = steps.iter().position(|step| matches!(step, Step::CutFlows(_))).expect("cut");
    assert!(removed < cut, "{steps:?}");
    assert_eq!(named(&world).len(), 1);
    assert_eq!(world.flushes(), 1, "no power cut lets it in again");
    world.run(3 * S);
    assert!(world.core.is_settled());
    world.message(clients(4, &[client(2), client(3)]));
    assert_eq!(world.flushes(), 1);
}

#[test]
fn restarted_daemon_keeps_all_clients() {
    let world = gateway(&[client(1), client(2)]);
    let mut world = World::on(world.kernel);
    // A new process does not know the policy that connections were last checked against.
    world.kernel.state.flows = None;
    let mut stored: gatewrt::store::Records =
        [policy(1), block(), clients(2, &[client(1), client(2)])].into_iter().collect();
    stored.extend([update(&MemberUpdate::Member(member(2, 1)))]);
    world.feed(Input::Started(Box::default(), vec![super::world::membership(stored)]));
    world.run(S);
    assert!(matches!(world.applied.concat()[..], [Step::CutFlows(_)]), "{:?}", world.applied);
    assert!(world.core.is_settled());
}

#[test]
fn changed_marks_are_in_the_table_at_once() {
    let mut world = gateway(&[client(1)]);
    let text = b"config gatewrt 'main'\n\toption mask '0x00000f00'\n";
    world.feed(Input::Configured(Box::new(Config::parse("test", text).expect("sound"))));
    let table = world.table();
    assert!(table.contains("0x00000f00") && !table.contains("0x0f000000"), "{table}");
}

/// Lets a client make a handshake now.
fn come(world: &mut World, number: u8) {
    let counters = WgCounters { handshake: Some(world.now + Duration::from_nanos(1)), rx: 5, tx: 6 };
    world.kernel.state.devices.get_mut(&gw()).expect("there").counters.insert(key(number), counters);
}

fn last_clients(world: &World) -> Vec<ClientReport> {
    let report = |output: &Output| match output {
        Output::Publish(_, Uplink::Report(report)) => Some(report.clients.clone()),
        _ => None,
    };
    world.said.iter().rev().find_map(report).expect("a report")
}

fn acked(world: &mut World, span: Duration) {
    world.run(span);
    world.feed(Input::Link(name(), LinkEvent::Acked));
}

#[test]
fn client_that_comes_or_goes_is_reported_soon() {
    let mut world = gateway(&[client(1), client(2)]);
    acked(&mut world, 10 * S);
    assert!(last_clients(&world).is_empty());
    come(&mut world, 1);
    acked(&mut world, 4 * S);
    let [one] = &last_clients(&world)[..] else { panic!("one client") };
    assert_eq!((one.key, one.rx, one.tx), (key(1), 5, 6));
    let reports = world.reports();
    world.kernel.state.devices.get_mut(&gw()).expect("there").counters.get_mut(&key(1)).expect("there").rx =
        99;
    acked(&mut world, 10 * S);
    assert_eq!(world.reports(), reports);
    for _ in 0..20 {
        acked(&mut world, 10 * S);
    }
    assert_eq!(last_clients(&world)[0].rx, 99);
    let status = world.core.status(world.now);
    let clients = &status.networks[0].clients;
    assert_eq!((clients.len(), clients[0].rx, clients[1].handshake_s), (2, 99, None));
}

#[test]
fn reports_of_roaming_clients_stay_cheap() {
    let mut world = gateway(&(1..60).map(client).collect::<Vec<_>>());
    world.said.clear();
    for step in 0..3600 / 5 {
        come(&mut world, (step % 60) as u8 + 1);
        acked(&mut world, 5 * S);
    }
    let bytes: usize = world.said.iter().filter_map(wire_bytes).sum();
    assert!((20_000..400_000).contains(&bytes), "{bytes} bytes an hour");
    let mut world = gateway(&(1..60).map(client).collect::<Vec<_>>());
    (1..60).for_each(|number| come(&mut world, number));
    world.said.clear();
    for step in 0..3600 / 5 {
        if step % 20 == 0 {
            (1..60).for_each(|number| come(&mut world, number));
        }
        acked(&mut world, 5 * S);
    }
    let bytes: usize = world.said.iter().filter_map(wire_bytes).sum();
    assert!((20_000..70_000).contains(&bytes), "{bytes} bytes an hour");
}

#[test]
fn report_of_many_clients_fits_a_record() {
    let mut world = World::on(kernel());
    world.start(&(2..90).collect::<Vec<_>>());
    world.message(clients(2, &(1..100).map(client).collect::<Vec<_>>()));
    world.run(S);
    let device = world.kernel.state.devices.get_mut(&gw()).expect("there");
    for (number, (key, peer)) in device.peers.iter_mut().enumerate() {
        peer.endpoint = format!("[2001:db8:1111:2222:3333:4444:5555:{number:x}]:51820").parse().ok();
        let counters = WgCounters { handshake: Some(Duration::from_nanos(1)), rx: 1 << 60, tx: 1 << 60 };
        device.counters.insert(*key, counters);
    }
    world.connect();
    world.run(10 * S);
    // A report that was too long could not be signed.
    assert!(world.said.iter().filter_map(wire_bytes).any(|bytes| bytes > 12_000));
    assert!(last_clients(&world).len() > 10);
}

#[test]
fn report_has_the_freshest_clients() {
    let mut world = gateway(&(1..100).map(client).collect::<Vec<_>>());
    for number in [7, 3, 90, 55].into_iter().chain((1..100).filter(|n| ![7, 3, 90, 55].contains(n))) {
        come(&mut world, number);
        acked(&mut world, S);
    }
    for _ in 0..30 {
        acked(&mut world, 10 * S);
    }
    let keys: Vec<_> = last_clients(&world).iter().map(|client| client.key).collect();
    let expected: Vec<_> = (1..100).rev().filter(|number| *number != 90).map(key).take(24).collect();
    assert_eq!(keys, expected);
}

fn any_client() -> impl Strategy<Value = IngressClient> {
    let addr = prop_oneof!["10\\.90\\.[01]\\.[1-4]", "fd90::1:[1-4]", "192\\.0\\.2\\.[12]"];
    let behind = prop::sample::select(vec!["10.1.0.0/16", "10.1.2.0/24", "192.168.2.0/24", "192.168.7.0/24"]);
    (1..5u8, vec(addr, 1..3), vec(behind, 0..3), any::<(bool, bool)>(), prop::option::of(0..3u8)).prop_map(
        |(number, addresses, prefixes, (internet, reachable), psk)| IngressClient {
            key: key(number),
            addresses: addresses.iter().map(|addr| addr.parse().expect("an address")).collect(),
            prefixes: prefixes.into_iter().map(prefix).collect(),
            internet,
            reachable,
            psk: psk.map(|n| PresharedKey([n; 32])),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Arbitrary clients come and go: each change takes one round, no prefix has two peers, and no client loses an
    /// address.
    #[test]
    fn arbitrary_clients_are_let_in_at_once(histories in vec(vec(any_client(), 0..5), 1..5)) {
        let mut world = gateway(&[]);
        for (rev, admitted) in (3..).zip(&histories) {
            world.applied.clear();
            world.message(clients(rev, admitted));
            prop_assert!(world.core.plan().is_empty(), "{}", world.core.plan());
            prop_assert!(world.applied.len() <= 1, "{:?}", world.applied);
            let peers = &device(&world).peers;
            let mut all: Vec<_> = peers.values().flat_map(|peer| &peer.allowed).collect();
            let count = all.len();
            all.sort();
            all.dedup();
            prop_assert_eq!(all.len(), count);
            prop_assert!(peers[&WgPublicKey([2; 32])].allowed.contains(&prefix("10.90.0.2/32")));
            prop_assert_eq!(NET, world.core.networks()[&name()].membership.net);
        }
    }
}
