use super::*;
use litemap::LiteMap;
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// Interval at which counters are read.
const OBSERVE_INTERVAL: Duration = S;

fn node(number: u8) -> NodeId {
    NodeId::from_entropy([number; 10])
}

fn scope() -> Service {
    Service::Scope("lan".parse().expect("a tag"))
}

fn prefix() -> Service {
    Service::Prefix("192.168.7.0/24".parse().expect("a prefix"))
}

/// A simulated node.
#[derive(Debug, Clone, Copy)]
struct Peer {
    dead: bool,
    rtt: Duration,
    v4: bool,
    v6: bool,
    /// Packets come in from it and go out to it.
    traffic: bool,
    rx: u64,
    tx: u64,
}

/// Gateways with a clock and nodes that answer.
struct World {
    gateways: Gateways,
    peers: LiteMap<NodeId, Peer>,
    /// Answers on their way.
    coming: Vec<(Now, Probe, Answer)>,
    now: Now,
    look: Now,
    /// Lost packets of 100.
    loss: u32,
    seed: u64,
    probes: usize,
    changes: Vec<(Now, Option<NodeId>)>,
    service: Service,
}

impl World {
    /// A world with nodes 1, 2, … of these ranks.
    fn new(service: Service, ranks: &[u32]) -> Self {
        let candidate = |(at, rank): (usize, &u32)| Candidate { rank: *rank, node: node(at as u8 + 1) };
        let candidates: Vec<Candidate> = ranks.iter().enumerate().map(candidate).collect();
        let peer = Peer { dead: false, rtt: 20 * MS, v4: true, v6: true, traffic: false, rx: 0, tx: 0 };
        let mut world = Self {
            gateways: Gateways::default(),
            peers: candidates.iter().map(|candidate| (candidate.node, peer)).collect(),
            coming: Vec::new(),
            now: S,
            look: S,
            loss: 0,
            seed: 7,
            probes: 0,
            changes: Vec::new(),
            service: service.clone(),
        };
        world.gateways.handle_services([(service, candidates)].into_iter().collect(), world.now);
        world.note();
        world
    }

    fn peer(&mut self, number: u8) -> &mut Peer {
        self.peers.get_mut(&node(number)).expect("a peer")
    }

    fn chosen(&self) -> Option<NodeId> {
        self.gateways.choice(&self.service)
    }

    fn note(&mut self) {
        let chosen = self.chosen();
        if self.changes.last().is_none_or(|(_, before)| *before != chosen) {
            self.changes.push((self.now, chosen));
        }
    }

    fn is_lost(&mut self) -> bool {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) as u32 % 100 < self.loss
    }

    fn look(&mut self) {
        for (node, peer) in &mut self.peers {
            if peer.traffic {
                peer.tx += 1000;
                peer.rx += if peer.dead { 0 } else { 1000 };
            }
            self.gateways.handle_counters(*node, peer.rx, peer.tx, self.now);
        }
        self.look = self.now + OBSERVE_INTERVAL;
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.gateways.poll_timeout().map(|(at, _)| at);
            let coming = self.coming.iter().map(|(at, ..)| *at).min();
            let next = [due, coming, Some(self.look)].into_iter().flatten().min().expect("a look");
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.step();
            let later = self.gateways.poll_timeout().is_none_or(|(at, _)| at > self.now);
            assert!(later, "nothing is due twice at {:?}", self.now);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let (arrived, coming) = self.coming.drain(..).partition(|(at, ..)| *at <= now);
        self.coming = coming;
        let arrived: Vec<(Now, Probe, Answer)> = arrived;
        arrived.into_iter().for_each(|(_, probe, answer)| self.gateways.handle_answer(probe, answer, now));
        self.note();
        if self.look <= now {
            self.look();
        }
        for probe in self.gateways.poll(now) {
            self.probes += 1;
            let lost = self.is_lost() || self.is_lost();
            let peer = self.peers[&probe.node];
            if !peer.dead && !lost {
                let answer = Answer::Reply { v4: peer.v4, v6: peer.v6 };
                self.coming.push((now + peer.rtt, probe, answer));
            }
        }
        self.note();
    }
}

#[test]
fn dead_node_under_traffic_fails_over_within_three_and_a_half_seconds() {
    let mut waits = Vec::new();
    for offset in 0..10 {
        let mut world = World::new(scope(), &[0, 1, 2]);
        world.peer(1).traffic = true;
        world.run(60 * S + offset * 100 * MS);
        assert_eq!(world.chosen(), Some(node(1)));
        world.peer(1).rx += 100;
        world.peer(1).dead = true;
        let died = world.now;
        world.run(10 * S);
        assert_eq!(world.chosen(), Some(node(2)));
        waits.push(world.changes.last().expect("a change").0 - died);
    }
    assert!(waits.iter().all(|wait| (1200 * MS..3500 * MS).contains(wait)), "{waits:?}");
}

#[test]
fn dead_idle_node_fails_over_within_the_interval() {
    let mut world = World::new(scope(), &[0, 1]);
    world.run(60 * S);
    world.peer(1).dead = true;
    world.run(REST + 2 * S);
    assert_eq!(world.chosen(), Some(node(2)));
}

#[test]
fn nodes_that_die_together_are_skipped() {
    let mut world = World::new(scope(), &[0, 1, 2]);
    world.peer(1).traffic = true;
    world.run(60 * S);
    (world.peer(1).dead, world.peer(2).dead) = (true, true);
    world.run(5 * S);
    assert_eq!(world.chosen(), Some(node(3)));
    world.peer(3).traffic = true;
    world.peer(3).dead = true;
    world.run(5 * S);
    assert_eq!(world.chosen(), None);
    let troubles = world.gateways.troubles(&scope());
    assert!(troubles.len() == 3 && troubles.iter().all(|(_, why)| matches!(why, Trouble::Silent(_))));
}

#[test]
fn dead_node_that_answers_for_ten_seconds_serves_again() {
    let mut world = World::new(scope(), &[0, 1]);
    world.peer(1).traffic = true;
    world.run(60 * S);
    world.peer(1).dead = true;
    world.run(60 * S);
    world.peer(1).dead = false;
    let back = world.now;
    world.run(9 * S);
    assert_eq!(world.chosen(), Some(node(2)));
    world.run(REST + 3 * S);
    assert_eq!(world.chosen(), Some(node(1)));
    let (at, _) = *world.changes.last().expect("a change");
    assert!(at - back >= 10 * S, "after {:?}", at - back);
}

#[test]
fn recovering_node_that_falls_silent_starts_over() {
    let mut world = World::new(scope(), &[0, 1]);
    world.peer(1).traffic = true;
    world.run(20 * S);
    for _ in 0..10 {
        world.peer(1).dead = true;
        world.run(REST);
        assert_eq!(world.chosen(), Some(node(2)));
        world.peer(1).dead = false;
        world.run(8 * S);
    }
    assert_eq!(world.changes.len(), 2);
}

#[test]
fn only_node_recovers_soon() {
    let mut world = World::new(scope(), &[0]);
    world.peer(1).traffic = true;
    world.run(20 * S);
    world.peer(1).dead = true;
    world.run(20 * S);
    assert_eq!(world.chosen(), None);
    world.peer(1).dead = false;
    world.run(5 * S);
    assert_eq!(world.chosen(), Some(node(1)));
}

#[test]
fn prefix_stays_while_no_candidate_is_alive() {
    let mut world = World::new(prefix(), &[0, 0]);
    world.peer(2).rtt = MS;
    world.peer(1).rtt = 50 * MS;
    world.run(60 * S);
    assert_eq!(world.chosen(), Some(node(2)));
    (world.peer(1).dead, world.peer(2).dead) = (true, true);
    world.run(60 * S);
    assert_eq!(world.gateways.health(node(1)).map(|health| health.alive), Some(false));
    assert_eq!(world.changes.len(), 2, "{:?}", world.changes);
}

#[test]
fn equal_ranks_compete_by_latency() {
    for (ranks, chosen) in [([5, 5, 5], 3), ([0, 1, 1], 1)] {
        let mut world = World::new(scope(), &ranks);
        (world.peer(1).rtt, world.peer(2).rtt, world.peer(3).rtt) = (80 * MS, 60 * MS, 20 * MS);
        world.run(300 * S);
        assert_eq!(world.chosen(), Some(node(chosen)));
    }
}

#[test]
fn slightly_nearer_node_does_not_take_over() {
    for (far, near, moves) in [(20, 12, false), (200, 170, false), (200, 150, true), (12, 1, true)] {
        let mut world = World::new(scope(), &[0, 0]);
        (world.peer(1).rtt, world.peer(2).rtt) = (far * MS, near * MS);
        world.run(300 * S);
        assert_eq!(world.chosen() == Some(node(2)), moves, "{far} {near}");
    }
}

#[test]
fn swinging_latencies_change_nothing() {
    let mut world = World::new(scope(), &[0, 0]);
    for turn in 0..100u32 {
        let (one, two) = if turn % 2 == 0 { (40, 20) } else { (20, 40) };
        (world.peer(1).rtt, world.peer(2).rtt) = (one * MS, two * MS);
        world.run(REST);
    }
    assert!(world.changes.len() <= 2, "{:?}", world.changes);
}

#[test]
fn five_percent_loss_changes_nothing() {
    for traffic in [false, true] {
        let mut world = World::new(scope(), &[0, 1, 2]);
        world.loss = 5;
        world.peer(1).traffic = traffic;
        world.run(4 * 3600 * S);
        assert_eq!(world.changes.len(), 1, "{:?}", world.changes);
    }
}

#[test]
fn node_without_internet_serves_prefixes_but_no_exit() {
    for (service, chosen) in [(scope(), 2), (prefix(), 1)] {
        let mut world = World::new(service.clone(), &[0, 1]);
        (world.peer(1).v4, world.peer(1).v6) = (false, false);
        world.run(5 * S);
        assert_eq!(world.chosen(), Some(node(chosen)));
        if chosen == 2 {
            assert_eq!(world.gateways.troubles(&service), vec![(node(1), Trouble::NoUplink)]);
        }
        world.peer(1).v4 = true;
        world.run(REST + S);
        assert_eq!(world.chosen(), Some(node(1)), "it comes back with its uplink");
    }
}

#[test]
fn ipv6_only_node_serves_when_no_other_does() {
    let mut world = World::new(scope(), &[0, 1]);
    world.peer(1).v4 = false;
    world.run(5 * S);
    assert_eq!(world.chosen(), Some(node(2)));
    world.peer(2).dead = true;
    world.run(60 * S);
    assert_eq!(world.chosen(), Some(node(1)));
}

#[test]
fn changed_uplink_of_a_node_is_reported() {
    let mut world = World::new(scope(), &[0]);
    world.run(5 * S);
    world.gateways.take_changes();
    world.run(REST);
    assert_eq!(world.gateways.take_changes(), None);
    world.peer(1).v6 = false;
    world.run(REST);
    assert_eq!(world.gateways.take_changes(), Some(Vec::new()));
    assert_eq!(world.gateways.health(node(1)).and_then(|health| health.v6), Some(false));
}

#[test]
fn refused_probe_is_a_sign_of_life() {
    let mut world = World::new(scope(), &[0]);
    for _ in 0..600 {
        world.now += S;
        for probe in world.gateways.poll(world.now) {
            world.gateways.handle_answer(probe, Answer::Refused, world.now);
        }
    }
    assert_eq!(world.gateways.health(node(1)).map(|health| (health.alive, health.v4)), Some((true, None)));
}

#[test]
fn unexpected_answer_is_ignored() {
    let mut world = World::new(scope(), &[0]);
    world.peer(1).dead = true;
    world.run(60 * S);
    assert_eq!(world.chosen(), None);
    for id in 0..1000 {
        let answer = Answer::Reply { v4: true, v6: true };
        world.gateways.handle_answer(Probe { node: node(9), id }, answer, world.now);
        world.gateways.handle_answer(Probe { node: node(1), id: id + 1_000_000 }, answer, world.now);
    }
    assert_eq!(world.chosen(), None);
}

#[test]
fn node_that_serves_at_the_start_keeps_serving() {
    let mut gateways = Gateways::default();
    let candidates = [1, 2].map(|number| Candidate { rank: 0, node: node(number) }).to_vec();
    gateways.handle_services([(scope(), candidates)].into_iter().collect(), S);
    assert_eq!(gateways.choice(&scope()), Some(node(1)));
    gateways.handle_found(&scope(), &[node(2), node(3)]);
    gateways.handle_found(&scope(), &[node(3)]);
    assert_eq!(gateways.choice(&scope()), Some(node(2)));
    let first = gateways.poll(S)[0];
    gateways.handle_answer(first, Answer::Reply { v4: true, v6: true }, S + 10 * MS);
    gateways.handle_found(&scope(), &[node(1)]);
    assert_eq!(gateways.choice(&scope()), Some(node(2)));
}

#[test]
fn former_candidate_no_longer_serves() {
    let mut world = World::new(scope(), &[0, 1]);
    world.run(5 * S);
    let rest = vec![Candidate { rank: 1, node: node(2) }];
    world.gateways.handle_services([(scope(), rest)].into_iter().collect(), world.now);
    assert_eq!((world.chosen(), world.gateways.health(node(1))), (Some(node(2)), None));
    world.gateways.handle_services(LiteMap::new(), world.now);
    assert_eq!((world.chosen(), world.gateways.poll_timeout()), (None, None));
}

/// Bytes of a probe and its answer on the wire, over IPv4.
const BYTES: usize = 2 * (48 + 32 + 28);

#[test]
fn quiet_day_costs_what_the_module_says() {
    for (nodes, most) in [(1, 650_000), (8, 5_100_000), (9, 5_100_000), (40, 5_100_000)] {
        let mut world = World::new(scope(), &vec![0; nodes]);
        world.run(24 * 3600 * S);
        let bytes = world.probes * BYTES;
        assert!(bytes <= most, "{nodes} nodes: {bytes} bytes a day");
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Die(u8),
    Live(u8),
    Uplink(u8, bool, bool),
    Far(u8, u16),
    Traffic(u8, bool),
    Loss(u8),
    Want(u8, u8),
    Moved,
    Run(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let peer = 1u8..5;
    prop_oneof![
        peer.clone().prop_map(Event::Die),
        peer.clone().prop_map(Event::Live),
        (peer.clone(), any::<bool>(), any::<bool>()).prop_map(|(peer, v4, v6)| Event::Uplink(peer, v4, v6)),
        (peer.clone(), 1u16..900).prop_map(|(peer, rtt)| Event::Far(peer, rtt)),
        (peer, any::<bool>()).prop_map(|(peer, on)| Event::Traffic(peer, on)),
        (0u8..30).prop_map(Event::Loss),
        (0u8..5, 0u8..4).prop_map(|(count, step)| Event::Want(count, step)),
        Just(Event::Moved),
        (1u16..20_000).prop_map(Event::Run),
    ]
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Die(number) => world.peer(number).dead = true,
        Event::Live(number) => world.peer(number).dead = false,
        Event::Uplink(number, v4, v6) => (world.peer(number).v4, world.peer(number).v6) = (v4, v6),
        Event::Far(number, rtt) => world.peer(number).rtt = MS * u32::from(rtt),
        Event::Traffic(number, on) => world.peer(number).traffic = on,
        Event::Loss(percent) => world.loss = percent.into(),
        Event::Want(count, step) => {
            let rank = |number: u8| Candidate { rank: u32::from(number * step), node: node(number) };
            let service = world.service.clone();
            world.gateways.handle_services(
                [(service, (1..=count).map(rank).collect())].into_iter().collect(),
                world.now,
            );
        }
        Event::Moved => world.gateways.handle_wan_changed(),
        Event::Run(ms) => world.run(MS * ms.into()),
    }
}

proptest! {
    /// Arbitrary events: the chosen node is always a candidate that counts as alive and does not report a missing
    /// uplink. Once all is quiet, the first working candidate serves.
    #[test]
    fn choice_is_sound_and_ends_at_the_first_alive_node(events in proptest::collection::vec(event(), 1..40)) {
        let mut world = World::new(scope(), &[0, 1, 2, 3]);
        for event in events {
            happen(&mut world, event);
            if let Some(chosen) = world.chosen() {
                let health = world.gateways.health(chosen).expect("a candidate");
                prop_assert!(health.alive && (health.v4 != Some(false) || health.v6 == Some(true)));
            }
        }
        world.loss = 0;
        happen(&mut world, Event::Want(4, 1));
        world.run(120 * S);
        let works = |peer: &Peer| !peer.dead && peer.v4;
        let last_resort = |peer: &Peer| !peer.dead && peer.v6;
        let first = world.peers.iter().find(|(_, peer)| works(peer));
        let first = first.or_else(|| world.peers.iter().find(|(_, peer)| last_resort(peer)));
        prop_assert_eq!(world.chosen(), first.map(|(node, _)| *node));
    }
}
