//! The choice among several nodes that serve a prefix: probes are sent, the first that works is used, and peers' probes
//! are answered.

use super::world::*;
use gatewrt::{
    core::{
        Input, Output,
        gateways::Probe,
        health::Answer,
        serving::{ProbeReply, ProbeTarget},
    },
    model::IfName,
};
use gatewrt_protocol::{Member, MemberUpdate, ServedPrefix, WgPublicKey};

/// A prefix that nodes 2 and 3 serve, 2 first.
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

fn probes(world: &mut World) -> Vec<(Probe, ProbeTarget)> {
    let probe = |output: Output| match output {
        Output::Probe(_, probe, aim) => Some((probe, aim)),
        _ => None,
    };
    world.said.drain(..).filter_map(probe).collect()
}

/// The peer that WireGuard has for the shared prefix.
fn holder(world: &World) -> Option<WgPublicKey> {
    let device = &world.kernel.state.devices[&IfName::new("gw-home").expect("a name")];
    let mut peers = device.peers.iter().filter(|(_, peer)| peer.allowed.contains(&prefix(SHARED)));
    let first = peers.next().map(|(key, _)| *key);
    assert!(peers.next().is_none(), "one peer has it");
    first
}

#[test]
fn prefix_fails_over_to_the_node_that_answers() {
    let mut world = world();
    world.run(S / 5);
    assert_eq!(holder(&world), Some(WgPublicKey([2; 32])));
    let aims: Vec<(u8, ProbeTarget)> = probes(&mut world)
        .into_iter()
        .map(|(probe, aim)| (if probe.node == node(2) { 2 } else { 3 }, aim))
        .collect();
    assert!(!aims.is_empty());
    for (number, aim) in aims {
        let link = IfName::new("gw-home").expect("a name");
        let to = format!("10.90.0.{number}").parse().expect("v4");
        assert_eq!(aim, ProbeTarget { link, from: "10.90.0.1".parse().expect("v4"), to });
    }
    for _ in 0..60 {
        world.run(S / 10);
        for (probe, _) in probes(&mut world).into_iter().filter(|(probe, _)| probe.node == node(3)) {
            world.feed(Input::Probed(name(), probe, Answer::Reply { v4: true, v6: true }));
        }
    }
    assert_eq!(holder(&world), Some(WgPublicKey([3; 32])));
    let network = &world.core.networks()[&name()];
    assert_eq!(network.gateways.serving().collect::<Vec<_>>(), [(prefix(SHARED), node(3))]);
}

#[test]
fn only_candidate_is_not_probed() {
    let mut world = World::joined(&[2, 3]);
    world.run(S * 120);
    assert_eq!(probes(&mut world), []);
}

#[test]
fn restarted_daemon_keeps_the_serving_node() {
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
fn probe_is_answered_to_members_only() {
    let mut world = World::joined(&[2]);
    world.run(S / 5);
    let (own, other) = ("10.90.0.1".parse().expect("v4"), "10.90.0.2".parse().expect("v4"));
    let reply = ProbeReply { v4: true, v6: false, control: false };
    let signed = policy(1).1;
    assert_eq!(world.core.probe_reply(own, other), Some((reply, signed.as_str())));
    assert_eq!(world.core.probe_reply(own, "10.90.0.9".parse().expect("v4")), None, "a stranger");
    assert_eq!(world.core.probe_reply(other, other), None, "not our address");
    let listens = world.said.iter().filter_map(|output| match output {
        Output::Listen(addresses) => Some(addresses.len()),
        _ => None,
    });
    assert_eq!(listens.collect::<Vec<_>>(), [2], "once, at both addresses");
}
