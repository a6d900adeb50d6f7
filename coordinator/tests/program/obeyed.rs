//! Changes, and the routers that obey them, do so late, or not at all.

use crate::{
    api::client::Api,
    coordinator::{Coordinator, run, text},
    eventually,
    router::{Link, Router},
};
use gatewrt_protocol::{Assignment, Failure, JoinAnswer, Policy, Record, Report, RolledBack, Roster, Topic};
use serde_json::{Value, json};
use std::{
    process::Output,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Longer than any answer may take, and shorter than the longest wait: who still waits then does so in vain.
const IN_TIME: Duration = Duration::from_secs(15);

struct Node {
    router: Router,
    answer: JoinAnswer,
    link: Link,
    seq: AtomicU64,
}

impl Node {
    fn rev<T: Record>(&self, topic: Topic, rev: impl Fn(&T) -> u64) -> u64 {
        self.link.record::<T>(topic).map_or(0, |record| rev(&record))
    }

    /// Revisions of policy, assignment and roster that it has received.
    fn received(&self) -> [u64; 3] {
        let JoinAnswer { net, node, .. } = self.answer;
        [
            self.rev(Topic::Policy(net), |policy: &Policy| policy.rev),
            self.rev(Topic::Assignment(node), |assignment: &Assignment| assignment.rev),
            self.rev(Topic::Roster(net), |roster: &Roster| roster.rev),
        ]
    }

    /// Reports that revisions are in effect.
    fn report(&self, [policy, assignment, roster]: [u64; 3], change: impl FnOnce(&mut Report)) {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let mut report = self.router.report(&self.answer, seq);
        (report.applied.policy, report.applied.assignment, report.applied.roster) =
            (policy, assignment, roster);
        change(&mut report);
        self.link.report(&report);
    }

    /// Obeys all that comes, until the end.
    fn obey(&self, has_ended: &AtomicBool) {
        let mut last = [0; 3];
        while !has_ended.load(Ordering::Relaxed) {
            let received = self.received();
            if received != last {
                self.report(received, |_| ());
                last = received;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Home {
    coordinator: Coordinator,
    api: Api,
    office: Node,
    cabin: Node,
}

impl Home {
    /// Nodes `office`, with a client and a prefix, and `cabin`. Both are online, and have reported that they obey.
    fn new() -> Self {
        let coordinator = Coordinator::with_home();
        let (code, ca) = (coordinator.code(&["--uses", "9"]), text(&coordinator.data().join("ca.crt")));
        let join = |number, name| {
            let (router, answer, link) = Router::online(number, name, &code, &ca);
            Node { router, answer, link, seq: AtomicU64::new(0) }
        };
        let (office, cabin) = (join(1, "office"), join(2, "cabin"));
        coordinator.ok(&["ingress", "set", "home", "office"]);
        coordinator.ok(&["egress", "set", "home", "office", "192.168.1.0/24"]);
        coordinator.ok(&["client", "add", "home", "phone", "--gateway", "office"]);
        let home = Self { api: Api::of(&coordinator), coordinator, office, cabin };
        for (name, node) in [("office", &home.office), ("cabin", &home.cabin)] {
            eventually("all records", || {
                let current = home.coordinator.node(name)["current"].clone();
                let current = ["policy", "assignment", "roster"].map(|what| current[what].as_u64().unwrap());
                (node.received() == current).then_some(())
            });
            node.report(node.received(), |_| ());
            eventually("its report", || {
                let status = home.coordinator.node(name);
                (status["online"] == true && status["report"].is_object()).then_some(())
            });
        }
        home
    }

    /// Runs while some nodes obey all that comes.
    fn while_obeying<T>(&self, nodes: &[&Node], run: impl FnOnce() -> T) -> T {
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            nodes.iter().for_each(|node| drop(scope.spawn(|| node.obey(&has_ended))));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            has_ended.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run(&self, command: &str) -> (Output, String, String) {
        let output = self.coordinator.command(&command.split(' ').collect::<Vec<_>>());
        let [said, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into());
        (output, said, error)
    }

    /// Lets the office serve one more prefix.
    fn serve(&self, prefix: u8, query: &str) -> Value {
        let spec = json!({"prefix": format!("172.30.{prefix}.0/24")});
        let path = format!("/v1/networks/home/nodes/office/egress{query}");
        let answer = self.api.call("PUT", &path, &[], Some(&spec));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().unwrap_or_else(|| panic!("{list}")).iter();
    items.map(|item| item["node"].as_str().or(item.as_str()).unwrap()).collect()
}

fn why(answer: &Value, node: &str) -> String {
    let pending = answer["pending"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let one = pending.iter().find(|one| one["node"] == node).unwrap_or_else(|| panic!("{node}: {answer}"));
    one["why"].as_str().unwrap().to_owned()
}

/// The changes that print success while a router refuses them, and what they print.
const CHANGES: [(&str, &str); 4] = [
    ("client disable home phone", "client phone is cut off"),
    ("egress unset home office 192.168.1.0/24", "office no longer serves 192.168.1.0/24"),
    ("network set home --access deny", "connections that match no rule are denied"),
    ("node remove home cabin", "removed node cabin"),
];

#[test]
fn router_that_refuses_a_change_is_named_with_its_reason() {
    let home = Home::new();
    let old = home.office.received();
    home.office.report(old, |report| {
        let what = "take in the settings of this node".into();
        report.failures = vec![Failure { what, why: "its signature is not the coordinator's".into() }];
    });
    eventually("its failure", || {
        home.coordinator.node("office")["report"]["failures"].is_array().then_some(())
    });
    home.while_obeying(&[&home.cabin], || {
        for (change, done) in CHANGES {
            let (output, said, error) = home.run(&format!("{change} --wait 1"));
            let line = "not yet: office: could not take in the settings of this node: \
                        its signature is not the coordinator's";
            assert!(said.contains(done), "{change}: {said}");
            assert_eq!(error.trim(), line, "{change}: others obey, or are removed");
            assert_eq!(output.status.code(), Some(5), "{change}");
        }
    });
}

#[test]
fn router_that_says_nothing_is_named_and_the_change_is_made() {
    let home = Home::new();
    for (change, done) in CHANGES {
        let (output, said, error) = home.run(&format!("{change} --no-wait"));
        assert!(said.contains(done), "{change}: {said}");
        assert!(error.contains("office: has not confirmed it yet"), "{change}: {error}");
        assert!(!error.contains("gatewrt/"), "{change}: {error}");
        assert_eq!(output.status.code(), Some(0), "{change}: it is stored");
    }
    assert_eq!(home.coordinator.json(&["network", "show", "home"])["access"], "deny");
    let shown = home.coordinator.json(&["network", "set", "home", "--access", "allow", "--no-wait"]);
    assert_eq!((shown["access"].as_str(), names(&shown["pending"])), (Some("allow"), vec!["office"]));
}

#[test]
fn change_waits_a_moment_by_default() {
    let home = Home::new();
    let data = home.coordinator.data();
    let began = Instant::now();
    let change = ["network", "set", "home", "--access", "deny"];
    let output = run(&change, &["--data", data.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not yet: cabin, office: has not confirmed"));
    assert!((3..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn change_that_all_obey_is_answered_when_they_do() {
    let home = Home::new();
    home.while_obeying(&[&home.office, &home.cabin], || {
        for (change, done) in CHANGES {
            let began = Instant::now();
            let (output, said, error) = home.run(&format!("{change} --wait"));
            assert!(said.contains(done) && output.status.success(), "{change}: {said} {error}");
            assert_eq!(error, "", "{change}");
            assert!(began.elapsed() < IN_TIME, "{change}: it waited in vain");
        }
    });
}

#[test]
fn change_is_answered_when_the_last_router_confirms_late() {
    let home = Home::new();
    let [policy, assignment, roster] = home.office.received();
    let of_cabin = home.cabin.received()[1];
    std::thread::scope(|scope| {
        let change = scope.spawn(|| home.serve(1, "?wait=60"));
        eventually("the change", || (home.office.received()[1] > assignment).then_some(()));
        home.cabin.report([policy, of_cabin, roster + 1], |_| ());
        // A report that does not have it ends nothing.
        home.office.report([policy, assignment, roster], |_| ());
        eventually("the report", || (home.coordinator.node("office")["report"]["seq"] == 2).then_some(()));
        assert!(!change.is_finished(), "not all obey");
        home.office.report([policy, assignment + 1, roster + 1], |_| ());
        let began = Instant::now();
        let answer = change.join().unwrap();
        assert!(began.elapsed() < IN_TIME, "it waited in vain");
        assert_eq!((names(&answer["applied"]), &answer["pending"]), (vec!["cabin", "office"], &json!([])));
    });
}

#[test]
fn offline_router_is_named_and_not_waited_for() {
    let home = Home::new();
    home.cabin.link.cut();
    eventually("it to be offline", || (home.coordinator.node("cabin")["online"] == false).then_some(()));
    home.while_obeying(&[&home.office], || {
        let began = Instant::now();
        let answer = home.serve(1, "?wait=60");
        assert!(began.elapsed() < IN_TIME, "it waited in vain");
        assert_eq!(names(&answer["applied"]), ["office"]);
        let why = why(&answer, "cabin");
        assert!(why.starts_with("offline since ") && why.ends_with("it obeys when it is back"), "{why}");
    });
}

#[test]
fn removed_router_is_pending_until_it_has_read_its_end() {
    let home = Home::new();
    home.cabin.link.cut();
    eventually("it to be offline", || (home.coordinator.node("cabin")["online"] == false).then_some(()));
    home.while_obeying(&[&home.office], || {
        let began = Instant::now();
        let (output, said, error) = home.run("node remove home cabin --wait");
        assert!(said.contains("removed node cabin"), "{said}");
        assert!(error.contains("not yet: cabin: offline since ") && error.contains("its removal"), "{error}");
        assert_eq!(output.status.code(), Some(5));
        let (output, said, error) = home.run("network delete home --force --wait --json");
        assert_eq!((output.status.code(), error.as_str()), (Some(0), ""), "{said}");
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((names(&answer["applied"]), &answer["pending"]), (vec!["office"], &json!([])));
        assert!(began.elapsed() < 2 * IN_TIME, "it waited in vain");
    });
}

#[test]
fn router_that_rolled_back_or_failed_is_named() {
    let home = Home::new();
    let [policy, assignment, roster] = home.office.received();
    // One that is waited for would be in the way.
    home.cabin.link.cut();
    eventually("it to be offline", || (home.coordinator.node("cabin")["online"] == false).then_some(()));
    std::thread::scope(|scope| {
        let change = scope.spawn(|| home.serve(1, "?wait=60"));
        eventually("the change", || (home.office.received()[1] > assignment).then_some(()));
        home.office.report([policy, assignment + 1, roster + 1], |report| {
            report.rolled_back =
                Some(RolledBack { assignment: assignment + 1, why: "the control link was lost".into() });
        });
        let answer = change.join().unwrap();
        assert_eq!(why(&answer, "office"), "rolled it back: the control link was lost");
        let change = scope.spawn(|| home.serve(2, "?wait=60"));
        eventually("the change", || (home.office.received()[1] > assignment + 1).then_some(()));
        home.office.report([policy, assignment + 2, roster + 2], |report| {
            report.failures = vec![Failure { what: "serve 172.30.2.0/24".into(), why: "no such LAN".into() }];
        });
        let answer = change.join().unwrap();
        assert_eq!(why(&answer, "office"), "could not serve 172.30.2.0/24: no such LAN");
    });
}

#[test]
fn change_without_records_and_dry_run_name_nobody() {
    let home = Home::new();
    let is_silent = |answer: &Value| answer["applied"].is_null() && answer["pending"].is_null();
    assert!(is_silent(&home.serve(1, "?dry_run=true&wait=60")));
    assert!(!is_silent(&home.serve(1, "?wait=0")));
    assert!(is_silent(&home.serve(1, "?wait=60")), "the same again is no change");
    let labelled =
        home.api.call("PATCH", "/v1/networks/home/nodes/office?wait=60", &[], Some(&json!({"label": "x"})));
    assert!(labelled.status == 200 && is_silent(&labelled.body), "{labelled:?}");
    let token = home.api.post("/v1/tokens?wait=60", &json!({"name": "ci", "rights": "read"}));
    assert!(token.status == 201 && is_silent(&token.body), "{token:?}");
    for wrong in ["61", "-1", "x", ""] {
        let path = format!("/v1/networks/home?wait={wrong}");
        assert_eq!(home.api.call("PATCH", &path, &[], Some(&json!({}))).status, 400, "{wrong}");
    }
    let quickest = (10..13).map(|prefix| {
        let began = Instant::now();
        home.serve(prefix, "?wait=0");
        began.elapsed()
    });
    assert!(quickest.min().unwrap() < Duration::from_secs(2), "0 does not wait");
}

#[test]
fn coordinator_stops_while_a_change_waits() {
    let mut home = Home::new();
    let (api, spec) = (home.api.clone(), json!({"access": "deny"}));
    let change = std::thread::spawn(move || {
        drop(api.try_call("PATCH", "/v1/networks/home?wait=60", &[], Some(&spec)));
    });
    eventually("the change", || {
        (home.coordinator.json(&["network", "show", "home"])["access"] == "deny").then_some(())
    });
    let began = Instant::now();
    assert_eq!(home.coordinator.terminate(), Some(0));
    assert!(began.elapsed() < IN_TIME);
    change.join().unwrap();
}

#[test]
fn answer_to_each_change_is_described_with_who_obeys() {
    let coordinator = Coordinator::start();
    let document = Api::of(&coordinator).get("/v1/openapi.json").body;
    let obeyed = &document["components"]["schemas"]["Obeyed"];
    assert!(obeyed["properties"]["applied"].is_object() && obeyed["properties"]["pending"].is_object());
    assert!(obeyed["required"].is_null(), "changes without records have none of it: {obeyed}");
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let takes = |name: &str| {
                operation["parameters"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["name"] == name))
            };
            let answers = ["200", "201"].map(|status| &operation["responses"][status]["content"]);
            let answers: Vec<_> = answers.into_iter().filter(|answer| answer.is_object()).collect();
            // A logout is no change of a resource.
            let is_change = takes("dry_run") && path != "/v1/logout";
            assert_eq!(takes("wait"), is_change, "{method} {path}");
            assert!(!is_change || !answers.is_empty(), "{method} {path}");
            for answer in answers {
                let parts = &answer["application/json"]["schema"]["allOf"];
                let has_obeyed = parts
                    .as_array()
                    .is_some_and(|parts| parts.contains(&json!({"$ref": "#/components/schemas/Obeyed"})));
                assert_eq!(has_obeyed, is_change, "{method} {path}: {answer}");
            }
            count += usize::from(is_change);
        }
    }
    assert!(count >= 30, "{count}");
}
