//! SIGKILL at any moment of a stream of changes: each acknowledged change is stored, none by half, and
//! nothing is allocated twice.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::Router,
};
use gatewrt_protocol::{Assignment, JoinAnswer, JoinCode, PublicKey, Roster, Topic, jws};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const ROUNDS: u32 = 6;

#[test]
fn killed_coordinator_loses_no_acknowledged_change() {
    let mut coordinator = Coordinator::start();
    coordinator.ok(&["network", "create", "home", "--prefix4", "10.9.0.0/16"]);
    let code = coordinator.code(&["--uses", "1000"]);
    let record_key = code.parse::<JoinCode>().unwrap().record_key;
    let ca = text(&coordinator.data().join("ca.crt"));
    let mut joined: BTreeMap<String, JoinAnswer> = BTreeMap::new();
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    let mut revs: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let changes = Stream::start(&coordinator, code.clone(), ca.clone(), round);
        // This does not wait for anything: the moment of the kill differs in each round.
        std::thread::sleep(Duration::from_millis(150 + u64::from(round * 137 % 400)));
        coordinator.kill();
        let acknowledged = changes.stop();
        coordinator.start_again();
        for answer in acknowledged {
            for addr in addresses(&answer, &record_key) {
                assert!(given.insert(addr), "{addr} was given twice");
            }
            joined.insert(answer.name.to_string(), answer);
        }
        check(&coordinator, &joined, &mut revs);
    }
    assert!(joined.len() > ROUNDS as usize, "the stream was real: {}", joined.len());
    check_retained(&joined, &revs, record_key);
}

/// Records that a node reads after all that: every record that was stored, also where the end came before it was
/// published.
fn check_retained(
    joined: &BTreeMap<String, JoinAnswer>,
    revs: &BTreeMap<String, u64>,
    record_key: PublicKey,
) {
    let answer = joined.values().next().expect("some joined");
    let number = answer.name.as_str().trim_start_matches('n').parse().expect("named by its number");
    let link = Router::new(number, answer.name.as_str()).connect(answer, record_key);
    let rev = revs[&format!("roster of {}", answer.name)];
    let roster: Roster = link.wait_for(Topic::Roster(answer.net), |roster: &Roster| roster.rev == rev);
    eventually("all member records", || roster.describes(&link.members(answer.net)).then_some(()));
}

fn addresses(answer: &JoinAnswer, key: &PublicKey) -> Vec<IpAddr> {
    jws::open::<Assignment>(answer.assignment.as_bytes(), key).unwrap().addresses
}

fn check(coordinator: &Coordinator, joined: &BTreeMap<String, JoinAnswer>, revs: &mut BTreeMap<String, u64>) {
    let status = coordinator.json(&["status", "home"]);
    let nodes = status["networks"][0]["nodes"].as_array().unwrap();
    let by_name: BTreeMap<_, _> = nodes.iter().map(|node| (node["name"].as_str().unwrap(), node)).collect();
    for (name, answer) in joined {
        let node =
            by_name.get(name.as_str()).unwrap_or_else(|| panic!("{name} was acknowledged and is gone"));
        assert_eq!(node["id"], answer.node.to_string());
    }
    let used = coordinator.json(&["code", "list", "home"])[0]["used"].as_u64().unwrap();
    assert_eq!(used, nodes.len() as u64, "a node and the use of its code are one change");
    let distinct: BTreeSet<String> = nodes.iter().map(|node| node["addresses"].to_string()).collect();
    assert_eq!(distinct.len(), nodes.len(), "addresses are distinct");
    for node in nodes {
        check_revs(node, revs);
    }
}

/// Every node has all its records, and no revision went back.
fn check_revs(node: &Value, revs: &mut BTreeMap<String, u64>) {
    let name = node["name"].as_str().unwrap();
    let parts = [
        ("member", &node["rev"]),
        ("assignment", &node["current"]["assignment"]),
        ("roster of", &node["current"]["roster"]),
    ];
    for (what, rev) in parts {
        let rev = rev.as_u64().unwrap();
        assert!(rev > 0, "{what} {name} is missing");
        let known = revs.entry(format!("{what} {name}")).or_default();
        assert!(rev >= *known, "{what} {name} went from {known} back to {rev}");
        *known = rev;
    }
    // Set in one change with the assignment: there by both or by neither.
    let egress = node["egress"].as_array().unwrap().len() as u64;
    assert_eq!(node["rev"].as_u64().unwrap(), 1 + egress, "{node}");
    assert_eq!(node["current"]["assignment"].as_u64().unwrap(), 1 + egress, "{node}");
}

/// Joins and egress changes as fast as they are acknowledged.
struct Stream {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<JoinAnswer>>,
}

impl Stream {
    fn start(coordinator: &Coordinator, code: String, ca: String, round: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ended, data) = (over.clone(), coordinator.data());
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for step in 0..30 {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let number = u8::try_from(round * 30 + step + 1).unwrap();
                let router = Router::new(number, &format!("n{number}"));
                let Ok(Ok(answer)) = router.try_join(&code, &ca) else { continue };
                acknowledged.push(answer);
                let prefix = format!("172.16.{number}.0/24");
                let mut egress = Command::new(crate::coordinator::PROGRAM);
                egress.args(["egress", "set", "home", &format!("n{number}"), &prefix, "--data"]).arg(&data);
                let _ = egress.output();
            }
            acknowledged
        });
        Self { over, thread }
    }

    fn stop(self) -> Vec<JoinAnswer> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
