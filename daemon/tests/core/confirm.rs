//! Changes that could cut the control link: confirmed over it, or rolled back.

use super::world::{
    S, World, assignment, assignment_of, member, membership, name, node, policy, policy_of, prefix, update,
};
use gatewrt::{
    core::{Input, LinkEvent, Output, Uplink, status::NetworkStatus},
    kernel::fake::Faults,
    model::RouteKind,
};
use gatewrt_protocol::{
    Assignment, Egress, Ingress, IngressClient, MemberUpdate, Policy, Report, Topic, WgPublicKey,
};
use proptest::{collection::vec, prelude::*};

const LAN: &str = "192.168.1.0/24";

/// Assignment with a served prefix, which could cut the link and is on trial for 10 seconds.
fn risky(rev: u64) -> (String, String) {
    let egress = vec![Egress { prefix: prefix(LAN), nat: true, metric: 0 }];
    assignment_of(|assignment| Assignment { rev, egress, confirm_s: Some(10), ..assignment })
}

impl World {
    fn network(&self) -> NetworkStatus {
        self.core.status(self.now).networks[0].clone()
    }

    fn is_risky_in_effect(&self) -> bool {
        self.table().contains(LAN)
    }

    /// A router with peers whose control link is up and has nothing outstanding.
    fn linked() -> Self {
        let mut world = Self::joined(&[2]);
        world.connect();
        world.run(5 * S);
        world.ack_all();
        world.said.clear();
        world
    }

    /// Acknowledges all published messages.
    fn ack_all(&mut self) {
        loop {
            let waits = self.said.iter().filter(|said| matches!(said, Output::Publish(..))).count();
            self.said.retain(|said| !matches!(said, Output::Publish(..)));
            if waits == 0 {
                return;
            }
            (0..waits).for_each(|_| self.ack());
        }
    }

    fn ack(&mut self) {
        self.feed(Input::Link(name(), LinkEvent::Acked));
    }

    fn lose(&mut self) {
        self.feed(Input::Link(name(), LinkEvent::Lost("reset by peer".to_owned())));
    }

    fn report(&self) -> Option<Report> {
        self.said.iter().rev().find_map(|said| match said {
            Output::Publish(_, Uplink::Report(report)) => Some((**report).clone()),
            _ => None,
        })
    }

    /// Restarts the daemon from the records on disk.
    fn restarted(self) -> Self {
        let disk = self.disk.expect("something was saved");
        let mut world = Self::on(self.kernel);
        world.disk = Some(disk.clone());
        world.feed(Input::Started(Box::default(), vec![membership(disk)]));
        world.run(S);
        world
    }
}

#[test]
fn change_that_keeps_the_link_is_confirmed() {
    let mut world = World::linked();
    world.message(risky(2));
    world.run(S / 2);
    assert!(world.is_risky_in_effect(), "at once");
    assert!(world.network().trial_s.is_some_and(|left| (8..=10).contains(&left)));
    let report = world.report().expect("something to acknowledge is sent at once");
    assert_eq!(report.applied.assignment, 2);
    assert!(world.disk.as_ref().expect("saved").contains_key("trial"));
    world.ack_all();
    assert_eq!(world.network().trial_s, None);
    assert!(
        !world.disk.as_ref().expect("saved").keys().any(|key| key.starts_with("confirmed") || key == "trial")
    );
    world.run(100 * S);
    assert!(world.is_risky_in_effect() && world.network().rolled_back.is_none());
}

#[test]
fn change_that_cuts_the_link_is_rolled_back_and_reported() {
    let mut world = World::linked();
    let before = world.kernel.state.clone();
    world.message(risky(2));
    world.run(9 * S);
    assert!(world.is_risky_in_effect());
    world.said.clear();
    world.run(2 * S);
    assert_eq!(world.kernel.state, before);
    let taken = world.network().rolled_back.expect("told");
    assert_eq!(taken.assignment, 2);
    for part in ["egress", "nothing for 10 s", "went back to revision 1", "node retry home one"] {
        assert!(taken.why.contains(part), "{part}: {}", taken.why);
    }
    assert_eq!(world.flushes(), 1);
    let reconnects = world
        .said
        .iter()
        .filter(|said| matches!(said, Output::Disconnect(_) | Output::Connect { .. }))
        .count();
    assert_eq!(reconnects, 2, "the link is opened anew at once");
    world.said.clear();
    world.connect();
    world.run(S);
    let report = world.report().expect("a report");
    assert_eq!(report.rolled_back, Some(taken));
    assert_eq!(report.applied.assignment, 1);
}

#[test]
fn rolled_back_revision_is_not_tried_again() {
    let mut world = World::linked();
    world.message(risky(2));
    world.run(15 * S);
    for _ in 0..3 {
        world.connect();
        world.message(risky(2));
        world.run(30 * S);
        assert!(!world.is_risky_in_effect());
        world.message(assignment(1, &[]));
        assert_eq!(world.network().refused["old-revision"], 1, "the newest is still known");
        world = world.restarted();
        assert_eq!(world.network().rolled_back.expect("told").assignment, 2);
        world.message(update(&MemberUpdate::Member(member(3, 1))));
    }
    world.connect();
    world.message(risky(3));
    world.run(S);
    assert!(world.is_risky_in_effect() && world.network().rolled_back.is_none());
    world.ack_all();
    world.run(30 * S);
    assert!(world.is_risky_in_effect() && world.network().rolled_back.is_none());
}

#[test]
fn acknowledgement_of_an_earlier_message_confirms_nothing() {
    let mut world = World::linked();
    world.message(assignment(2, &[]));
    world.run(5 * S);
    let waits = world.said.iter().filter(|said| matches!(said, Output::Publish(..))).count();
    assert!(waits > 0, "there is something outstanding");
    world.message(risky(3));
    world.run(S);
    (0..waits).for_each(|_| world.ack());
    assert!(world.network().trial_s.is_some());
    world.ack();
    assert!(world.network().trial_s.is_none());
}

#[test]
fn link_reopened_in_time_confirms() {
    let mut world = World::linked();
    world.message(risky(2));
    world.run(2 * S);
    world.lose();
    world.run(3 * S);
    world.said.clear();
    world.connect();
    assert!(world.network().trial_s.is_some(), "to be let in is not enough: it may have been before");
    world.ack_all();
    assert!(world.network().trial_s.is_none() && world.is_risky_in_effect());
}

#[test]
fn unsent_message_confirms_nothing() {
    let mut world = World::linked();
    world.message(risky(2));
    world.run(S / 2);
    world.said.clear();
    world.feed(Input::Link(name(), LinkEvent::Unsent));
    world.connect();
    world.ack_all();
    assert!(world.network().trial_s.is_none());
}

#[test]
fn daemon_started_during_a_trial_rolls_back() {
    let mut world = World::linked();
    let before = world.kernel.state.clone();
    world.message(risky(2));
    world.run(S);
    assert!(world.is_risky_in_effect());
    let mut world = world.restarted();
    assert_eq!(world.kernel.state, before);
    let taken = world.network().rolled_back.expect("told");
    assert!(taken.assignment == 2 && taken.why.contains("restarted"), "{}", taken.why);
    world.connect();
    world.message(risky(2));
    world.run(30 * S);
    assert_eq!(world.kernel.state, before);
    let again = world.restarted();
    assert_eq!(again.network().rolled_back, Some(taken));
}

#[test]
fn stored_or_harmless_change_is_not_on_trial() {
    let mut world = World::new();
    let records = [policy(1), risky(1)].into_iter().collect();
    world.feed(Input::Started(Box::default(), vec![membership(records)]));
    world.run(600 * S);
    assert!(world.is_risky_in_effect() && world.network().trial_s.is_none());
    world.connect();
    world.message(risky(2));
    world.message(update(&MemberUpdate::Member(member(3, 1))));
    assert!(world.network().trial_s.is_none(), "only its revision differs");
}

#[test]
fn changed_network_prefixes_are_on_trial() {
    let mut world = World::linked();
    let prefixes = vec![prefix("10.90.0.0/16"), prefix("10.91.0.0/16")];
    let before = world.kernel.state.clone();
    world.message(policy_of(|policy| Policy { rev: 2, prefixes, ..policy }));
    world.run(59 * S);
    assert_ne!(world.kernel.state.routes, before.routes);
    world.run(2 * S);
    assert_eq!(world.kernel.state, before);
    assert!(world.network().rolled_back.expect("told").why.contains("prefixes"));
    let world = world.restarted();
    assert_eq!(world.kernel.state, before);
}

#[test]
fn second_unconfirmed_change_rolls_back_to_the_confirmed_one() {
    let mut world = World::linked();
    let before = world.kernel.state.clone();
    world.message(risky(2));
    world.run(8 * S);
    let more = |rev| {
        let of = |text| Egress { prefix: prefix(text), nat: false, metric: 0 };
        let egress = vec![of(LAN), of("172.20.0.0/16")];
        assignment_of(|assignment| Assignment { rev, egress, confirm_s: Some(10), ..assignment })
    };
    world.message(more(3));
    world.run(8 * S);
    assert!(world.is_risky_in_effect());
    world.run(3 * S);
    assert_eq!(world.kernel.state, before);
    assert_eq!(world.network().rolled_back.expect("told").assignment, 3);
    // The admin reverts the change, and no trial is left.
    world.connect();
    world.message(assignment(4, &[]));
    world.run(S);
    assert_eq!((world.network().rolled_back, world.network().trial_s), (None, None));
    assert_eq!(world.network().applied.assignment, 4);
}

#[test]
fn rollback_keeps_revoked_clients_out() {
    let with = |rev: u64, clients: &[u8], egress: &[&str]| {
        let client = |number: &u8| IngressClient {
            key: WgPublicKey([*number; 32]),
            addresses: vec![format!("10.90.1.{number}").parse().expect("v4")],
            prefixes: Vec::new(),
            psk: None,
            internet: false,
            reachable: false,
        };
        let ingress = Some(Ingress { clients: clients.iter().map(client).collect() });
        let egress = egress.iter().map(|text| Egress { prefix: prefix(text), nat: true, metric: 0 });
        let egress = egress.collect();
        assignment_of(|assignment| Assignment { rev, ingress, egress, confirm_s: Some(5), ..assignment })
    };
    let has = |world: &World, number: u8| {
        let mut devices = world.kernel.state.devices.iter();
        devices.any(|(_, device)| device.peers.contains_key(&WgPublicKey([number; 32])))
    };
    let mut world = World::new();
    let own = gatewrt_protocol::Member { clients: vec![prefix("10.90.1.0/24")], ..member(1, 1) };
    let records = [policy(1), with(1, &[51, 52], &[]), update(&MemberUpdate::Member(own))];
    world.feed(Input::Started(Box::default(), vec![membership(records.into_iter().collect())]));
    world.run(S);
    world.connect();
    world.run(S);
    assert!(has(&world, 51) && has(&world, 52));
    world.message(with(2, &[52], &[LAN]));
    world.run(10 * S);
    assert!(!world.is_risky_in_effect() && world.network().rolled_back.is_some());
    assert!(!has(&world, 51) && has(&world, 52));
    let world = world.restarted();
    assert!(!has(&world, 51) && has(&world, 52));
}

/// A step that always fails neither causes a rollback nor prolongs the trial.
#[test]
fn failing_step_does_not_prolong_the_trial() {
    for confirmed in [true, false] {
        let mut world = World::linked();
        world.kernel.faults = Faults::At((0..100_000).collect());
        world.message(risky(2));
        world.run(5 * S);
        if confirmed {
            world.ack_all();
        }
        world.run(20 * S);
        assert_eq!((world.network().rolled_back.is_none(), world.network().trial_s), (confirmed, None));
    }
}

/// The coordinator refuses a prefix that contains its own address. If one comes all the same, the route to the
/// coordinator stays.
#[test]
fn prefix_around_the_coordinator_does_not_capture_it() {
    let mut world = World::linked();
    let control = vec!["192.168.2.7:8883".parse().expect("v4"), "192.0.2.1:8883".parse().expect("v4")];
    world.message(assignment_of(|assignment| Assignment { rev: 2, control, ..assignment }));
    world.run(S);
    world.ack_all();
    let kinds = |text: &str| {
        let routes = world.kernel.state.routes.iter().filter(|route| route.prefix == prefix(text));
        routes.map(|route| route.kind.clone()).collect::<Vec<_>>()
    };
    assert!(matches!(kinds("192.168.2.0/24")[..], [RouteKind::Device(_)]));
    assert_eq!(kinds("192.168.2.7/32"), [RouteKind::Throw]);
    assert_eq!(kinds("192.0.2.1/32"), [], "it is in nobody's prefix");
}

#[derive(Debug, Clone)]
enum Event {
    Risky,
    Harmless,
    Same,
    Ack,
    AckAll,
    Lose,
    Connect,
    Wait(u8),
    Crash,
    Refuse(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Risky),
        Just(Event::Harmless),
        Just(Event::Same),
        Just(Event::Ack),
        Just(Event::AckAll),
        Just(Event::Lose),
        Just(Event::Connect),
        (0u8..20).prop_map(Event::Wait),
        (0u8..20).prop_map(Event::Wait),
        Just(Event::Crash),
        any::<bool>().prop_map(Event::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any events in any order end in one of two states: the newest records are in effect and confirmed, or the last
    /// confirmed records are in effect and on disk beside the newest, which are reported as rolled back. A mixture
    /// never occurs.
    #[test]
    fn events_in_any_order_end_confirmed_or_rolled_back(events in vec(event(), 0..40)) {
        let mut world = World::linked();
        let mut rev = 1;
        let mut is_risky = false;
        world.message(assignment(1, &[]));
        for event in events {
            match event {
                Event::Risky | Event::Harmless => {
                    rev += 1;
                    is_risky = matches!(event, Event::Risky);
                    let record = if is_risky { risky(rev) } else { assignment(rev, &[]) };
                    world.message(record);
                }
                Event::Same => world.message(if is_risky { risky(rev) } else { assignment(rev, &[]) }),
                Event::Ack => world.ack(),
                Event::AckAll => world.ack_all(),
                Event::Lose => world.lose(),
                Event::Connect => world.connect(),
                Event::Wait(seconds) => world.run(S * u32::from(seconds)),
                Event::Crash if world.disk.is_some() => world = world.restarted(),
                Event::Crash => {}
                Event::Refuse(true) => world.kernel.faults = Faults::At((0..100_000).collect()),
                Event::Refuse(false) => world.kernel.faults = Faults::default(),
            }
            let risky_now = world.core.networks()[&name()].directory.assignment().expect("one").rev;
            prop_assert!(risky_now <= rev);
        }
        world.kernel.faults = Faults::default();
        world.run(120 * S);
        let network = world.network();
        prop_assert_eq!(network.trial_s, None);
        prop_assert!(world.core.is_settled());
        let disk = world.disk.clone();
        match &network.rolled_back {
            Some(taken) => {
                prop_assert_eq!(taken.assignment, rev);
                prop_assert!(network.applied.assignment < rev);
                let disk = disk.expect("saved");
                let key = format!("confirmed:{}", Topic::Assignment(node(1)));
                prop_assert!(disk.contains_key(&key) && disk.contains_key("rolled-back"));
            }
            None => {
                prop_assert_eq!(network.applied.assignment, rev);
                prop_assert_eq!(world.is_risky_in_effect(), is_risky);
                let marks = disk.iter().flat_map(|disk| disk.keys()).filter(|key| !key.starts_with("gatewrt/"));
                prop_assert_eq!(marks.count(), 0);
            }
        }
        // After a restart, the records on disk are in effect.
        if world.disk.is_some() {
            let kernel = world.kernel.state.clone();
            let after = world.restarted();
            prop_assert_eq!(&after.network().rolled_back, &network.rolled_back);
            prop_assert_eq!(after.kernel.state, kernel);
        }
    }
}
