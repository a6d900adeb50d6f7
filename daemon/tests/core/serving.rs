//! Who serves what several could: probes go out, the one that works is used, and others' probes are answered.

use super::world::*;
use gatewrt::{
    core::{
        Input, Output,
        gateways::{Answer, Probe},
        serving::{Aim, Says},
    },
    model::IfName,
};
use gatewrt_protocol::{Assignment, Egress, ExitOffer, Member, MemberUpdate, ServedPrefix, WgPublicKey};

/// Nodes 2 and 3 serve this, 2 first.
const SHARED: &str = "192.168.77.0/24";

fn world() -> World {
    let mut world = World::joined(&[2, 3]);
    world.connect();
    for (number, metric) in [(2, 0), (3, 10)] {
        let prefixes = vec![ServedPrefix { prefix: prefix(SHARED), metric }];
        world.message(update(&MemberUpdate::Member(Member { prefixes, ..member(number, 2) })));
    }
    world
}

fn probes(world: &mut World) -> Vec<(Probe, Aim)> {
    let probe = |output: Output| match output {
        Output::Probe(_, probe, aim) => Some((probe, aim)),
        _ => None,
    };
    world.said.drain(..).filter_map(probe).collect()
}

/// Whom the kernel gives what goes there.
fn holder(world: &World) -> Option<WgPublicKey> {
    let device = &world.kernel.state.devices[&IfName::new("gw-home").expect("a name")];
    let mut peers = device.peers.iter().filter(|(_, peer)| peer.allowed.contains(&prefix(SHARED)));
    let first = peers.next().map(|(key, _)| *key);
    assert!(peers.next().is_none(), "one peer has it");
    first
}

#[test]
fn a_prefix_moves_to_the_one_that_answers() {
    let mut world = world();
    world.run(S / 5);
    assert_eq!(holder(&world), Some(WgPublicKey([2; 32])));
    let aims: Vec<(u8, Aim)> = probes(&mut world)
        .into_iter()
        .map(|(probe, aim)| (if probe.node == node(2) { 2 } else { 3 }, aim))
        .collect();
    assert!(!aims.is_empty());
    for (number, aim) in aims {
        let link = IfName::new("gw-home").expect("a name");
        let to = format!("10.90.0.{number}").parse().expect("v4");
        assert_eq!(aim, Aim { link, from: "10.90.0.1".parse().expect("v4"), to });
    }
    for _ in 0..60 {
        world.run(S / 10);
        for (probe, _) in probes(&mut world).into_iter().filter(|(probe, _)| probe.node == node(3)) {
            world.feed(Input::Probed(name(), probe, Answer::Says { v4: true, v6: true }));
        }
    }
    assert_eq!(holder(&world), Some(WgPublicKey([3; 32])));
    let network = &world.core.networks()[&name()];
    assert_eq!(network.gateways.serving().collect::<Vec<_>>(), [(prefix(SHARED), node(3))]);
}

#[test]
fn where_one_alone_serves_nobody_is_probed() {
    let mut world = World::joined(&[2, 3]);
    world.run(S * 120);
    assert_eq!(probes(&mut world), []);
}

#[test]
fn a_daemon_that_begins_again_goes_on_with_whom_it_finds() {
    let mut world = world();
    for _ in 0..60 {
        world.run(S / 10);
        for (probe, _) in probes(&mut world).into_iter().filter(|(probe, _)| probe.node == node(3)) {
            world.feed(Input::Probed(name(), probe, Answer::Refused));
        }
    }
    let stored = world.core.networks()[&name()].directory.stored();
    let mut again = World::on(world.kernel);
    again.now = world.now;
    again.feed(Input::Started(Box::default(), vec![membership(stored)]));
    again.run(S / 5);
    assert_eq!(holder(&again), Some(WgPublicKey([3; 32])));
    assert!(again.applied.is_empty(), "{:?}", again.applied);
}

#[test]
fn only_one_that_serves_answers_and_only_members() {
    let mut world = World::joined(&[2]);
    let (own, other) = ("10.90.0.1".parse().expect("v4"), "10.90.0.2".parse().expect("v4"));
    assert_eq!(world.core.says(own, other), None);
    let egress = vec![Egress { prefix: prefix("192.168.5.0/24"), nat: true, metric: 0 }];
    let exit = Some(ExitOffer { v4: true, ..ExitOffer::default() });
    for (rev, egress, exit) in [(2, egress, None), (3, Vec::new(), exit)] {
        world.message(assignment_of(|assignment| Assignment { rev, egress, exit, ..assignment }));
        world.run(S / 5);
        assert_eq!(world.core.says(own, other), Some(Says { v4: true, v6: false, control: false }));
        assert_eq!(world.core.says(own, "10.90.0.9".parse().expect("v4")), None, "a stranger");
        assert_eq!(world.core.says(other, other), None, "not our address");
    }
    let listens = world.said.iter().filter_map(|output| match output {
        Output::Listen(addresses) => Some(addresses.len()),
        _ => None,
    });
    assert_eq!(listens.collect::<Vec<_>>(), [2], "once, at both addresses");
    world.message(assignment_of(|assignment| Assignment { rev: 4, ..assignment }));
    world.run(S / 5);
    assert_eq!(world.core.says(own, other), None);
}
