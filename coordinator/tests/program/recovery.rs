//! A coordinator that was set back to a backup: its routers, which refuse what is older, bring it up to date, and nobody gets
//! in silently.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{Link, Router},
};
use gatewrt_protocol::{
    Assignment, JoinAnswer, JoinCode, MemberUpdate, PublicKey, Roster, Signer, Topic, Verdict, WgPublicKey,
    jws,
};
use serde_json::Value;
use std::collections::BTreeMap;
use tempfile::TempDir;

/// A coordinator with routers that remember what it signed.
struct Home {
    coordinator: Coordinator,
    code: String,
    routers: BTreeMap<String, (Router, JoinAnswer)>,
    /// What each router has on flash: signed records by topic.
    flash: BTreeMap<String, BTreeMap<String, String>>,
}

impl Home {
    fn start() -> Self {
        let coordinator = Coordinator::start();
        coordinator.ok(&["network", "create", "home", "--prefix4", "10.9.0.0/16"]);
        let code = coordinator.code(&["--uses", "20"]);
        Self { coordinator, code, routers: BTreeMap::new(), flash: BTreeMap::new() }
    }

    fn key(&self) -> PublicKey {
        self.code.parse::<JoinCode>().unwrap().record_key
    }

    fn join(&mut self, number: u8, name: &str) -> &JoinAnswer {
        let router = Router::new(number, name);
        let answer = router.join(&self.code, &text(&self.coordinator.data().join("ca.crt"))).unwrap();
        &self.routers.entry(name.into()).or_insert((router, answer)).1
    }

    fn answer(&self, name: &str) -> &JoinAnswer {
        &self.routers[name].1
    }

    fn connect(&self, name: &str) -> Link {
        let (router, answer) = &self.routers[name];
        router.connect(answer, self.key())
    }

    /// Lets a router read all records, which it then has on flash.
    fn remember(&mut self, name: &str) {
        let link = self.connect(name);
        let net = self.answer(name).net;
        link.wait_for(Topic::Roster(net), |roster: &Roster| roster.describes(&link.members(net)));
        link.wait_for(Topic::Assignment(self.answer(name).node), |_: &Assignment| true);
        self.flash.insert(name.into(), link.all());
    }

    /// Lets a router connect, which tells of whatever it has that is newer, as a daemon does.
    fn tell(&self, name: &str) -> Link {
        let link = self.connect(name);
        for (topic, newer) in &self.flash[name] {
            let topic: Topic = topic.parse().unwrap();
            if !matches!(topic, Topic::Command(_)) {
                link.publish(Topic::Reply(self.answer(name).node), newer);
            }
        }
        link
    }

    fn report(&self, name: &str, link: &Link, assignment: u64) {
        let (router, answer) = &self.routers[name];
        let mut report = router.report(answer, assignment);
        report.applied.assignment = assignment;
        link.report(&report);
    }

    fn recovery(&self) -> Value {
        self.coordinator.json(&["recovery", "show"])
    }

    fn found(&self, what: &str) -> bool {
        let recovery = self.recovery();
        let findings = recovery["findings"].as_array().cloned().unwrap_or_default();
        findings.iter().any(|finding| finding["what"].as_str().unwrap().contains(what))
    }

    fn back_up(&self) -> TempDir {
        let backup = TempDir::new().unwrap();
        self.coordinator.ok(&["backup", backup.path().join("file").to_str().unwrap()]);
        backup
    }

    fn restore(&mut self, backup: &TempDir) {
        assert_eq!(self.coordinator.terminate(), Some(0));
        self.coordinator.ok(&["restore", backup.path().join("file").to_str().unwrap(), "--force"]);
        self.coordinator.start_again();
    }

    fn assignment(&self, name: &str, link: &Link, holds: impl Fn(&Assignment) -> bool) -> Assignment {
        link.wait_for(Topic::Assignment(self.answer(name).node), holds)
    }
}

fn keys(assignment: &Assignment) -> Vec<WgPublicKey> {
    assignment.ingress.iter().flat_map(|ingress| &ingress.clients).map(|client| client.key).collect()
}

fn key_of(home: &Home, client: &str) -> WgPublicKey {
    home.coordinator.json(&["client", "show", "home", client])["key"].as_str().unwrap().parse().unwrap()
}

#[test]
fn restored_coordinator_is_brought_up_to_date_and_lets_nobody_in_silently() {
    let mut home = Home::start();
    for (number, name) in [(1, "office"), (2, "stolen"), (3, "flat0")] {
        home.join(number, name);
    }
    home.coordinator.ok(&["ingress", "set", "home", "office"]);
    for client in ["phone", "laptop"] {
        home.coordinator.ok(&["client", "add", "home", client, "--gateway", "office"]);
    }
    let backup = home.back_up();

    // Each record changes several times; then a node goes, one comes, a client goes, one comes.
    for step in 0..5 {
        home.coordinator.ok(&["egress", "set", "home", "office", &format!("172.30.{step}.0/24")]);
        let (before, after) = (format!("flat{step}"), format!("flat{}", step + 1));
        home.coordinator.ok(&["node", "rename", "home", &before, &after]);
    }
    home.coordinator.ok(&["node", "remove", "home", "stolen"]);
    home.coordinator.ok(&["client", "disable", "home", "phone"]);
    home.coordinator.ok(&["client", "add", "home", "tablet", "--gateway", "office"]);
    let (phone, laptop, tablet) = (key_of(&home, "phone"), key_of(&home, "laptop"), key_of(&home, "tablet"));
    let tablet_addresses = home.coordinator.json(&["client", "show", "home", "tablet"])["addresses"].clone();
    let late = home.join(4, "late").clone();
    let late_addresses = home.coordinator.node("late")["addresses"].clone();
    for name in ["office", "flat0", "late"] {
        home.remember(name);
    }

    home.restore(&backup);
    let shown = home.coordinator.ok(&["status"]);
    assert!(
        shown.contains("the coordinator was restored at") && shown.contains("from a backup of"),
        "{shown}"
    );
    // The removed node is in again until someone tells, and its record changes often enough to pass its tombstone.
    for step in 0..4 {
        home.coordinator.ok(&["egress", "set", "home", "stolen", &format!("172.29.{step}.0/24")]);
    }
    // A change for a router that was not heard of waits: with enough changes it would overtake what the router has, and
    // let the phone in again.
    let rev = |assignment: &Assignment| assignment.rev;
    for step in 0..12 {
        let set = ["egress", "set", "home", "office", &format!("172.31.{step}.0/24")];
        let pending = home.coordinator.json(&set)["pending"].clone();
        let pending = pending.as_array().unwrap().iter().find(|pending| pending["node"] == "office");
        let why = pending.expect("it is pending")["why"].as_str().unwrap();
        assert!(why.starts_with("waits for its first report"), "{why}");
    }
    let office = home.connect("office");
    let old = home.assignment("office", &office, |_| true);
    let known: Assignment =
        jws::open(home.flash["office"][&Topic::Assignment(old.node).to_string()].as_bytes(), &home.key())
            .unwrap();
    assert!(rev(&old) < rev(&known) && keys(&old).contains(&phone), "the backup's: {}", rev(&old));
    home.report("office", &office, rev(&known));
    assert_eq!(home.recovery()["waiting"], serde_json::json!(["flat0", "office", "stolen"]));
    office.cut();

    // Now it tells.
    let office = home.tell("office");
    let new = home.assignment("office", &office, |assignment| rev(assignment) > rev(&known));
    assert_eq!(keys(&new), [laptop], "the phone stays out, the tablet waits for the admin");
    assert!(new.egress.iter().any(|egress| egress.prefix.to_string() == "172.31.11.0/24"), "{new:?}");
    assert!(home.found("client phone was disabled"), "{}", home.recovery());
    assert!(home.found("node stolen was removed after the backup"), "{}", home.recovery());
    assert_eq!(home.coordinator.json(&["client", "show", "home", "phone"])["state"], "disabled");
    assert!(home.coordinator.refused(&["node", "show", "home", "stolen"]).contains("no node"));

    // Its name is that of the backup again, and higher revisions tell so.
    let flat = home.tell("flat0");
    let net = home.answer("flat0").net;
    let member = Topic::Member(net, home.answer("flat0").node);
    let told: MemberUpdate =
        jws::open(home.flash["flat0"][&member.to_string()].as_bytes(), &home.key()).unwrap();
    flat.wait_for(member, |update: &MemberUpdate| update.about().2 > told.about().2);
    flat.wait_for(Topic::Roster(net), |roster: &Roster| roster.describes(&flat.members(net)));
    assert_eq!(home.coordinator.json(&["recovery", "show"])["waiting"], Value::Null, "{}", home.recovery());

    // A node that the backup does not know can tell of itself, and reads nothing. Its addresses stay its own.
    let stranger = home.tell("late");
    eventually("the stray", || {
        let strays = home.recovery()["strays"].as_array().cloned().unwrap_or_default();
        strays.iter().any(|stray| stray["name"] == "late" && stray["adoptable"] == true).then_some(())
    });
    assert!(stranger.all().is_empty(), "{:?}", stranger.all().keys());
    let newcomer = home.join(5, "newcomer").clone();
    assert_ne!(home.coordinator.node("newcomer")["addresses"], late_addresses);
    home.coordinator.ok(&["client", "add", "home", "watch", "--gateway", "office"]);
    assert_ne!(home.coordinator.json(&["client", "show", "home", "watch"])["addresses"], tablet_addresses);
    assert_ne!(newcomer.node, late.node);

    // Adopted, they are as before.
    let strays = home.recovery()["strays"].as_array().cloned().unwrap();
    let id = |what: &str| {
        strays.iter().find(|stray| stray["what"] == what).unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert!(home.coordinator.refused(&["recovery", "adopt", &id("client")]).contains("needs a name"));
    home.coordinator.ok(&["recovery", "adopt", &id("client"), "--name", "tablet"]);
    home.coordinator.ok(&["recovery", "adopt", &id("node")]);
    home.assignment("office", &office, |assignment| keys(assignment).contains(&tablet));
    assert_eq!(home.coordinator.node("late")["addresses"], late_addresses);
    eventually("the stranger's session to end", || stranger.has_ended().then_some(()));
    let adopted = home.tell("late");
    let last: Assignment =
        jws::open(home.flash["late"][&Topic::Assignment(late.node).to_string()].as_bytes(), &home.key())
            .unwrap();
    home.assignment("late", &adopted, |assignment| rev(assignment) > rev(&last));
    assert_eq!(home.recovery()["strays"], Value::Null);
    let summary = home.recovery()["summary"].as_str().unwrap().to_owned();
    assert!(summary.contains("3 routers brought it up to date"), "{summary}");
}

#[test]
fn stray_that_is_cut_off_reads_its_end() {
    let mut home = Home::start();
    home.join(1, "office");
    let backup = home.back_up();
    let late = home.join(2, "late").clone();
    home.remember("late");
    home.remember("office");
    home.restore(&backup);
    // Known by what another router has; it is asleep itself.
    let office = home.tell("office");
    let stray = late.node.to_string();
    eventually("the stray", || home.recovery()["strays"][0]["id"].as_str().is_some().then_some(()));
    assert_eq!(home.recovery()["strays"][0]["id"], stray);
    assert!(home.coordinator.refused(&["recovery", "adopt", &stray]).contains("has not connected"));
    home.coordinator.ok(&["recovery", "cut-off", &stray]);
    let end = Topic::Member(late.net, late.node);
    office.wait_for(end, |update: &MemberUpdate| matches!(update, MemberUpdate::Tombstone(_)));
    let late = home.connect("late");
    late.wait_for(end, |update: &MemberUpdate| matches!(update, MemberUpdate::Tombstone(_)));
}

#[test]
fn rules_that_were_made_after_the_backup_stay_in_force_until_they_are_accepted() {
    let mut home = Home::start();
    home.join(1, "office");
    home.join(2, "flat");
    let backup = home.back_up();
    home.coordinator.ok(&["network", "set", "home", "--access", "deny"]);
    home.remember("office");
    home.restore(&backup);
    let office = home.tell("office");
    let known: Assignment = jws::open(
        home.flash["office"][&Topic::Assignment(home.answer("office").node).to_string()].as_bytes(),
        &home.key(),
    )
    .unwrap();
    let kept = home.assignment("office", &office, |assignment| assignment.rev > known.rev);
    assert_eq!((known.access.default, kept.access.default), (Verdict::Deny, Verdict::Deny));
    assert!(home.found("node office had other access rules than the backup has, which denied more"));
    let shown = home.coordinator.ok(&["recovery", "show"]);
    let parts = ["router office of network home had stricter access rules", "deny all else", "accept-rules"];
    assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
    let status = home.coordinator.ok(&["status"]);
    assert!(status.contains("1 router keeps to stricter access rules that it had"), "{status}");
    let refused = home.coordinator.refused(&["recovery", "accept-rules", "flat"]);
    assert!(refused.contains("keeps to no access rules") && refused.contains("office"), "{refused}");
    home.coordinator.ok(&["recovery", "accept-rules", "office"]);
    home.assignment("office", &office, |assignment| assignment.access.default == Verdict::Allow);
    assert_eq!(home.recovery()["rules"], Value::Null);
}

#[test]
fn stray_that_tells_the_same_again_does_not_fill_the_log() {
    let mut home = Home::start();
    home.join(1, "office");
    let backup = home.back_up();
    let late = home.join(2, "late").clone();
    home.remember("late");
    home.restore(&backup);
    let link = home.tell("late");
    let reply = Topic::Reply(late.node);
    for _ in 0..50 {
        for topic in [Topic::Member(late.net, late.node), Topic::Assignment(late.node)] {
            link.publish(reply, &home.flash["late"][&topic.to_string()]);
        }
    }
    link.publish(reply, "x.y.z");
    eventually("the last of them", || {
        home.coordinator.log().contains("no record of this coordinator").then_some(())
    });
    let log = home.coordinator.log();
    let count = log.lines().filter(|line| line.contains("a node has a newer record")).count();
    assert_eq!(count, 2, "one for each record: {log}");
}

#[test]
fn what_a_node_tells_opens_and_moves_nothing() {
    let mut home = Home::start();
    for (number, name) in [(1, "office"), (2, "removed"), (3, "flat")] {
        home.join(number, name);
        home.remember(name);
    }
    home.coordinator.ok(&["node", "remove", "home", "removed"]);
    home.coordinator.ok(&["network", "create", "other"]);
    let before = home.coordinator.json(&["status"])["networks"].clone();
    let revisions = |status: &Value| status[0]["nodes"].as_array().unwrap().len();
    let key = home.key();
    let office = home.connect("office");
    let reply = Topic::Reply(home.answer("office").node);
    let own = Topic::Assignment(home.answer("office").node).to_string();
    let known: Assignment = jws::open(home.flash["office"][&own].as_bytes(), &key).unwrap();
    // Forged, unsigned, of its own key, replayed, of another kind: each is refused or changes nothing.
    let forged = Assignment { rev: 900, ..known.clone() };
    for text in [
        Signer::from_seed(&[9; 32]).sign(&forged).unwrap(),
        home.routers["office"].0.signer().sign(&forged).unwrap(),
        home.flash["office"][&own].clone(),
        home.flash["removed"][&Topic::Member(known.net, home.answer("removed").node).to_string()].clone(),
        String::new(),
        "x.y.z".into(),
    ] {
        office.publish(reply, &text);
    }
    home.coordinator.ok(&["egress", "set", "home", "office", "172.30.0.0/24"]);
    let next = home.assignment("office", &office, |assignment| !assignment.egress.is_empty());
    assert_eq!(next.rev, known.rev + 1, "nothing was raised");
    let after = home.coordinator.json(&["status"]);
    assert_eq!(revisions(&after["networks"]), revisions(&before));
    assert_eq!(after["recovery"], Value::Null, "it was not set back");
    assert!(home.coordinator.refused(&["node", "show", "home", "removed"]).contains("no node"));
    assert!(home.coordinator.ok(&["recovery", "show"]).contains("never set back"));
    assert!(home.coordinator.refused(&["recovery", "adopt", "x"]).contains("no stray"));
}
