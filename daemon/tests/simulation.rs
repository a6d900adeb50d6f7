//! The whole core on a kernel in memory, with exits that answer probes or don't, through long random histories: exits
//! die, recover and lose their uplink, the WAN and the coordinator come and go, the assignment changes, the daemon is
//! killed and restarted with its stored records, and other programs delete our objects. After two minutes without
//! events, a packet of each scope must leave by an exit that works, by the first of them where they have an order;
//! where none works, it must go nowhere, or over the WAN if the scope is open. A closed scope's packets never leave
//! over the WAN.
//!
//! `GATEWRT_EVENTS` is the number of events of a run, `GATEWRT_SEED` its first seed. A seed that failed goes into
//! `simulation/corpus`, which is run each time.
#![allow(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

#[path = "core/world.rs"]
#[allow(dead_code, reason = "what the core's other tests need of it is not needed here")]
mod world;

use self::world::{S, World, assignment_of, member, membership, name, node, policy, prefix, roster, update};
use gatewrt::{
    core::{Input, LinkEvent, Output, gateways::Probe, health::Answer},
    kernel::Kernel,
    model::{Address, Family, ForeignRoute, IfName, RouteKind, SysctlPath, WgCounters},
    plan::Step,
};
use gatewrt_protocol::{ExitOffer, ExitScope, MemberUpdate, NodeId, Traffic};
use std::{
    collections::VecDeque,
    iter,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// Number of events between two quiet periods.
const BATCH: usize = 40;
/// Length of a quiet period: a change on trial is rolled back after 60 s, and an idle exit's death or recovery is
/// noticed in less than another 60 s.
const STILL: Duration = Duration::from_secs(130);
/// Time after which the daemon has observed a change.
const LOOKED: Duration = Duration::from_millis(1000);
/// Nodes that are exits.
const EXITS: [u8; 3] = [2, 3, 4];
/// Longest round trip of a probe.
const RTT: Duration = Duration::from_millis(20);

/// Fate of a packet: through an exit, nowhere, or over the WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Through(u8),
    Nowhere,
    Wan,
}

#[derive(Debug, Clone, Copy)]
struct Exit {
    lives: bool,
    uplink: bool,
    traffic: bool,
}

struct Simulation {
    world: World,
    exits: [Exit; 3],
    wan: bool,
    coordinator: bool,
    rev: u64,
    answers: Vec<(Duration, Probe, Answer)>,
    random: u64,
    seed: u64,
    events: usize,
    log: VecDeque<String>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        for (link, address) in [("wan", "198.51.100.1"), ("lan", "192.168.1.1")] {
            let link = IfName::new(link).unwrap();
            world.kernel.add_foreign_link(&link);
            world.kernel.state.addresses.push(Address { link, addr: address.parse().unwrap(), len: 24 });
        }
        for path in ["ipv4/fwmark_reflect", "ipv4/tcp_fwmark_accept", "ipv6/fwmark_reflect"] {
            world.kernel.state.sysctls.insert(SysctlPath(format!("net/{path}")), "0".into());
        }
        world.kernel.link_sysctls.insert("net/ipv4/conf/*/rp_filter".into(), "1".into());
        let lan = ForeignRoute { prefix: prefix("192.168.1.0/24"), link: IfName::new("lan"), on_link: true };
        world.kernel.state.main_routes.push(lan);
        let mut records = vec![policy(1), assignment_of(|assignment| assignment)];
        let offer = ExitOffer { v4: true, ..ExitOffer::default() };
        let members = EXITS.map(|exit| {
            MemberUpdate::Member(gatewrt_protocol::Member { exit: Some(offer.clone()), ..member(exit, 1) })
        });
        records.extend(members.iter().map(update));
        records.push(roster(1, &[(1, 1), (2, 1), (3, 1), (4, 1)]));
        records.push(update(&MemberUpdate::Member(member(1, 1))));
        world.disk = Some(records.into_iter().collect());
        let exit = Exit { lives: true, uplink: true, traffic: false };
        let mut simulation = Self {
            world,
            exits: [exit; 3],
            wan: true,
            coordinator: true,
            rev: 1,
            answers: Vec::new(),
            random: seed,
            seed,
            events: 0,
            log: VecDeque::new(),
        };
        simulation.start();
        simulation
    }

    /// Random number below `bound` (splitmix64).
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    fn start(&mut self) {
        let stored = self.world.disk.clone().expect("records from the beginning");
        self.feed(Input::Started(Box::default(), vec![membership(stored)]));
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.count();
            for output in self.world.core.handle(input, self.world.now) {
                inputs.extend(self.carry_out(output));
            }
        }
        self.world.applied.clear();
        self.world.said.clear();
        self.world.kernel.journal.clear();
    }

    fn carry_out(&mut self, output: Output) -> Option<Input> {
        let link = |event| Some(Input::Link(name(), event));
        match output {
            Output::Connect { .. } if self.coordinator => return link(LinkEvent::Connected),
            Output::Connect { .. } => return link(LinkEvent::Lost("nobody is there".into())),
            Output::Publish(..) if self.coordinator => return link(LinkEvent::Acked),
            Output::Probe(_, probe, _) => {
                let exit = self.exit(probe.node).filter(|exit| exit.lives && self.wan);
                if let Some(exit) = exit {
                    let answer = Answer::Reply { v4: exit.uplink, v6: false };
                    self.answers.push((self.world.now + RTT, probe, answer));
                }
            }
            other => return self.world.carry_out(other),
        }
        None
    }

    fn exit(&self, of: NodeId) -> Option<Exit> {
        EXITS.iter().zip(self.exits).find(|(number, _)| node(**number) == of).map(|(_, exit)| exit)
    }

    /// Counts bytes in both directions through the exits that have traffic.
    fn count(&mut self) {
        let (now, wan) = (self.world.now, self.wan);
        for (number, exit) in EXITS.iter().zip(self.exits).filter(|(_, exit)| exit.traffic) {
            let key = gatewrt_protocol::WgPublicKey([*number; 32]);
            for (_, device) in self.world.kernel.state.devices.iter_mut() {
                if device.peers.contains_key(&key) {
                    let sent = now.as_millis() as u64;
                    let counters = device.counters.entry(key).or_insert(WgCounters::default());
                    counters.rx += if exit.lives && wan { sent - counters.tx.min(sent) } else { 0 };
                    counters.tx = sent;
                }
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        loop {
            let due = self.world.core.poll_timeout().map(|(at, _)| at);
            let next = self.answers.iter().map(|(at, ..)| *at).chain(due).min().unwrap_or(end);
            if next > end {
                self.world.now = end;
                return;
            }
            self.world.now = self.world.now.max(next);
            let now = self.world.now;
            match self.answers.iter().position(|(at, ..)| *at <= now) {
                Some(place) => {
                    let (_, probe, answer) = self.answers.remove(place);
                    self.feed(Input::Probed(name(), probe, answer));
                }
                None => self.feed(Input::Tick),
            }
        }
    }

    fn event(&mut self) {
        self.events += 1;
        let kind = self.below(12);
        let exit = self.below(EXITS.len());
        match kind {
            0 | 1 => self.exits[exit].lives ^= true,
            2 => self.exits[exit].uplink ^= true,
            3 => self.exits[exit].traffic ^= true,
            4 => self.switch_wan(),
            5 => {
                self.coordinator ^= true;
                if !self.coordinator {
                    self.feed(Input::Link(name(), LinkEvent::Lost("gone".into())));
                }
            }
            6 | 7 => self.assign(),
            8 => self.restart(),
            _ => self.delete(),
        }
        let exits: String =
            self.exits.iter().map(|exit| if exit.lives && exit.uplink { '+' } else { '-' }).collect();
        self.log
            .push_back(format!("{:?} event {kind}/{exit}: exits {exits} wan {}", self.world.now, self.wan));
        if self.log.len() > 2 * BATCH {
            self.log.pop_front();
        }
    }

    fn switch_wan(&mut self) {
        self.wan ^= true;
        let route = ForeignRoute { prefix: prefix("0.0.0.0/0"), link: IfName::new("wan"), on_link: false };
        if self.wan {
            self.world.kernel.state.main_routes.push(route);
        } else {
            self.world.kernel.state.main_routes.remove_item(&route);
        }
        self.feed(Input::Changed);
    }

    fn assign(&mut self) {
        if !self.coordinator {
            return;
        }
        let scopes = self.scopes();
        self.rev += 1;
        let rev = self.rev;
        let (topic, token) =
            assignment_of(|assignment| gatewrt_protocol::Assignment { rev, scopes, ..assignment });
        self.feed(Input::Link(name(), LinkEvent::Message(topic, token.into_bytes())));
    }

    fn scopes(&mut self) -> Vec<ExitScope> {
        let mut scopes = Vec::new();
        for (scope, of) in [("lan", Traffic::Prefix(prefix("192.168.1.0/24"))), ("own", Traffic::Router)] {
            if self.below(3) == 0 {
                continue;
            }
            let mut exits: Vec<NodeId> = EXITS.iter().map(|exit| node(*exit)).collect();
            exits.rotate_left(self.below(3));
            exits.truncate(self.below(4));
            let auto = exits.is_empty() || self.below(2) == 0;
            let open = self.below(2) == 0;
            scopes.push(ExitScope { exits, auto, open, ..ExitScope::auto(scope.parse().unwrap(), vec![of]) });
        }
        scopes
    }

    /// Kills the daemon and starts it from its stored records.
    fn restart(&mut self) {
        let (now, disk) = (self.world.now, self.world.disk.take());
        let kernel = std::mem::take(&mut self.world.kernel);
        self.world = World { now, disk, ..World::on(kernel) };
        self.answers.clear();
        self.start();
    }

    fn delete(&mut self) {
        let what = self.below(5);
        let (rules, routes) = (self.world.kernel.state.rules.len(), self.world.kernel.state.routes.len());
        let (rule, route) = (self.below(rules.max(1)), self.below(routes.max(1)));
        let state = &mut self.world.kernel.state;
        match what {
            0 => drop(state.rules.get(rule).cloned().map(|rule| state.rules.remove_item(&rule))),
            1 => drop(state.routes.get(route).cloned().map(|route| state.routes.remove_item(&route))),
            2 => state.rules.clear(),
            3 => state.ruleset = None,
            _ => {
                let ours = state.links.keys().find(|link| link.as_str().starts_with("gw-")).cloned();
                ours.map(|link| self.world.kernel.execute(&Step::DeleteTunnel(link)));
            }
        }
        self.feed(Input::Changed);
    }

    /// Fate of a packet for the Internet, by the kernel's rules and routes.
    fn fate(&self, iif: &str, source: IpAddr) -> Fate {
        let state = &self.world.kernel.state;
        let iif = IfName::new(iif).unwrap();
        let is_of = |rule: &&gatewrt::model::Rule| {
            let marked = !rule.invert && rule.mark != 0;
            let from = rule.from.is_none_or(|from| from.contains(source));
            rule.family == Family::V4 && !marked && from && rule.iif.as_ref().is_none_or(|link| *link == iif)
        };
        let mut rules: Vec<_> = state.rules.iter().filter(is_of).collect();
        rules.sort_by_key(|rule| rule.priority);
        let target: IpAddr = [192, 0, 2, 1].into();
        for rule in rules {
            let routes =
                state.routes.iter().filter(|it| it.table == rule.table && it.prefix.contains(target));
            let best = routes.min_by_key(|route| (u8::MAX - route.prefix.len(), route.metric));
            match best.map(|route| &route.kind) {
                Some(RouteKind::Blackhole) => return Fate::Nowhere,
                Some(RouteKind::Device(link)) => {
                    let peers = state.devices.get(link).map(|device| device.peers.iter());
                    let holds = |peer: &gatewrt::model::WgPeer| peer.allowed.contains(&prefix("0.0.0.0/0"));
                    let holder = peers.into_iter().flatten().find(|(_, peer)| holds(peer));
                    return holder.map_or(Fate::Nowhere, |(key, _)| Fate::Through(key.0[0]));
                }
                Some(RouteKind::Throw) | None => {}
            }
        }
        Fate::Wan
    }

    fn check(&self) {
        let all = self.world.core.networks();
        let scopes = &all[&name()].directory.assignment().unwrap().scopes;
        for (scope, iif, source) in [("lan", "lan", [192, 168, 1, 5]), ("own", "lo", [198, 51, 100, 1])] {
            let scope = scopes.iter().find(|asked| asked.name.as_str() == scope);
            let fate = self.fate(iif, source.into());
            let right = scope.map_or(fate == Fate::Wan, |scope| self.is_right(scope, fate));
            let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
            assert!(
                right,
                "seed {}, event {}: {fate:?} of {scope:?}\n{}\nrules {:#?}\nroutes {:#?}",
                self.seed,
                self.events,
                log.join("\n"),
                self.world.kernel.state.rules,
                self.world.kernel.state.routes,
            );
        }
        let (settled, plan) = (self.world.core.is_settled(), self.world.core.plan());
        assert!(settled, "seed {}, event {}: not settled: {plan:?}", self.seed, self.events);
    }

    /// Asserts that no closed scope leaves over the WAN, unless the core still has to react to a change.
    fn check_closed(&self) {
        if !self.world.core.is_settled() {
            return;
        }
        let all = self.world.core.networks();
        let scopes = &all[&name()].directory.assignment().unwrap().scopes;
        for (scope, iif, source) in [("lan", "lan", [192, 168, 1, 5]), ("own", "lo", [198, 51, 100, 1])] {
            let closed = scopes.iter().any(|asked| asked.name.as_str() == scope && !asked.open);
            let leaks = closed && self.fate(iif, source.into()) == Fate::Wan;
            let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
            assert!(!leaks, "seed {}, event {}: {scope} leaks\n{}", self.seed, self.events, log.join("\n"));
        }
    }

    fn is_right(&self, scope: &ExitScope, fate: Fate) -> bool {
        let works =
            |exit: &NodeId| self.wan && self.exit(*exit).is_some_and(|exit| exit.lives && exit.uplink);
        let named = scope.exits.iter().find(|exit| works(exit));
        let others = EXITS.iter().filter(|number| scope.auto && works(&node(**number)));
        match (fate, named) {
            (Fate::Through(number), Some(first)) => node(number) == *first,
            (Fate::Through(number), None) => others.into_iter().any(|other| *other == number),
            (_, Some(_)) => false,
            (fate, None) if others.clone().next().is_none() => {
                fate == if scope.open { Fate::Wan } else { Fate::Nowhere }
            }
            _ => false,
        }
    }
}

fn simulate(seed: u64, events: usize) {
    let mut simulation = Simulation::new(seed);
    while simulation.events < events {
        for _ in 0..BATCH {
            simulation.event();
            let pause = S * simulation.below(3000) as u32 / 1000;
            simulation.run(pause);
            if pause >= LOOKED {
                simulation.check_closed();
            }
        }
        simulation.run(STILL);
        simulation.check();
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Number of events of one seed's history, before the next seed begins.
const HISTORY: usize = 1000;

#[test]
fn packets_go_the_right_way_after_any_history() {
    let corpus = include_str!("simulation/corpus");
    let seeds = corpus.lines().filter(|line| !line.starts_with('#')).map(|line| line.trim().parse().unwrap());
    seeds.for_each(|seed| simulate(seed, HISTORY));
    let (events, first) = (number("GATEWRT_EVENTS", 4000), number("GATEWRT_SEED", 1));
    let end = first + events.div_ceil(HISTORY as u64);
    println!("{events} events, seeds {first} to {}", end - 1);
    let next = AtomicU64::new(first);
    let seeds = || iter::from_fn(|| Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < end));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| seeds().for_each(|seed| simulate(seed, HISTORY)));
        }
    });
}
