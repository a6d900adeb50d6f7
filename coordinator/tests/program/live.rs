//! Records, reports and presence over MQTT, as a router uses it.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{Link, Router},
};
use gatewrt_protocol::{
    Assignment, JoinAnswer, JoinCode, Member, MemberUpdate, NodeId, Policy, PublicKey, Report, Roster,
    Signer, Topic,
};
use std::collections::BTreeMap;

/// A coordinator with a network `home` and a code for it.
pub struct Home {
    pub coordinator: Coordinator,
    pub code: String,
    pub ca: String,
    pub record_key: PublicKey,
}

impl Home {
    pub fn new() -> Self {
        let coordinator = Coordinator::with_home();
        let (code, ca) = (coordinator.code(&["--uses", "9"]), text(&coordinator.data().join("ca.crt")));
        let record_key = code.parse::<JoinCode>().unwrap().record_key;
        Self { coordinator, code, ca, record_key }
    }

    /// Has a router join and connect.
    pub fn join(&self, number: u8, name: &str) -> (Router, JoinAnswer, Link) {
        Router::online(number, name, &self.code, &self.ca)
    }

    fn refused(&self, name: &str) -> u64 {
        let counts = self.coordinator.node(name)["refused"].clone();
        counts.as_object().map_or(0, |counts| counts.values().map(|count| count.as_u64().unwrap()).sum())
    }
}

fn member(update: &MemberUpdate) -> &Member {
    match update {
        MemberUpdate::Member(member) => member,
        MemberUpdate::Tombstone(_) => panic!("a tombstone"),
    }
}

pub fn describes(roster: &Roster, revs: &[(NodeId, u64)]) -> bool {
    roster.describes(&revs.iter().copied().collect::<BTreeMap<_, _>>())
}

#[test]
fn node_receives_its_records_signed() {
    let home = Home::new();
    let (_, answer, link) = home.join(1, "office");
    let policy: Policy = link.wait_for(Topic::Policy(answer.net), |_| true);
    assert_eq!(policy.name.as_str(), "home");
    link.wait_for(Topic::Roster(answer.net), |roster: &Roster| describes(roster, &[(answer.node, 1)]));
    let own: MemberUpdate = link.wait_for(Topic::Member(answer.net, answer.node), |_| true);
    assert_eq!((own.about().2, member(&own).endpoints.len()), (1, 1));
    let assignment: Assignment = link.wait_for(Topic::Assignment(answer.node), |_| true);
    assert_eq!(assignment.addresses, member(&own).addresses);
}

#[test]
fn third_node_costs_others_one_member_record_and_one_roster() {
    let home = Home::new();
    let (_, first, link) = home.join(1, "office");
    let (_, second, other) = home.join(2, "cabin");
    let settled = |roster: &Roster| describes(roster, &[(first.node, 1), (second.node, 1)]);
    for link in [&link, &other] {
        link.wait_for(Topic::Roster(first.net), settled);
        link.wait_for(Topic::Member(first.net, second.node), |_: &MemberUpdate| true);
    }
    let before = [link.counts(), other.counts()];
    let delivered = |name: &str| home.coordinator.node(name)["delivered"]["member"]["messages"].clone();
    assert_eq!([delivered("office"), delivered("cabin")], [2, 2]);

    let (router, third, third_link) = home.join(3, "shop");
    third_link.wait_for(Topic::Roster(first.net), |roster: &Roster| roster.count == 3);
    third_link.report(&router.report(&third, 1));
    eventually("the report to arrive", || home.coordinator.node("shop")["report"].is_object().then_some(()));
    for (link, before) in [&link, &other].into_iter().zip(before) {
        link.wait_for(Topic::Roster(first.net), |roster: &Roster| roster.count == 3);
        let mut wanted = before;
        *wanted.entry(Topic::Roster(first.net).to_string()).or_default() += 1;
        wanted.insert(Topic::Member(first.net, third.node).to_string(), 1);
        assert_eq!(link.counts(), wanted);
    }
    assert_eq!([delivered("office"), delivered("cabin")], [3, 3]);
}

#[test]
fn egress_change_publishes_only_affected_records() {
    let home = Home::new();
    let (_, office, link) = home.join(1, "office");
    let (_, cabin, other) = home.join(2, "cabin");
    home.coordinator.ok(&["egress", "set", "home", "office", "192.168.1.0/24", "--nat", "off"]);
    let assignment: Assignment =
        link.wait_for(Topic::Assignment(office.node), |record: &Assignment| record.rev == 2);
    assert!(!assignment.egress[0].nat);
    let roster: Roster = other.wait_for(Topic::Roster(office.net), |roster| {
        describes(roster, &[(office.node, 2), (cabin.node, 1)])
    });
    let update: MemberUpdate =
        other.wait_for(Topic::Member(office.net, office.node), |update: &MemberUpdate| update.about().2 == 2);
    assert_eq!(member(&update).prefixes[0].prefix, "192.168.1.0/24".parse().unwrap());

    let before = other.counts();
    home.coordinator.ok(&["egress", "set", "home", "office", "192.168.1.0/24", "--nat", "on"]);
    link.wait_for(Topic::Assignment(office.node), |record: &Assignment| {
        record.rev == 3 && record.egress[0].nat
    });
    home.coordinator.ok(&["egress", "set", "home", "office", "192.168.1.0/24", "--nat", "on"]);
    assert_eq!(other.counts(), before, "NAT is the node's own business");
    assert_eq!(link.record::<Roster>(Topic::Roster(office.net)).unwrap(), roster);
    assert_eq!(home.coordinator.node("office")["current"]["assignment"], 3, "the same again is no change");
}

#[test]
fn status_has_presence_and_last_report() {
    let home = Home::new();
    let (router, answer, link) = home.join(1, "office");
    eventually("the node to be online", || (home.coordinator.node("office")["online"] == true).then_some(()));
    let first = router.report(&answer, 1);
    link.report(&first);
    let status = eventually("the report", || {
        Some(home.coordinator.node("office")).filter(|status| status["report"].is_object())
    });
    assert_eq!((&status["rev"], &status["up_to_date"]), (&1.into(), &true.into()), "{status}");

    let moved = Report {
        seq: 2,
        endpoints: vec![gatewrt_protocol::Endpoint {
            addr: "198.51.100.9:4500".parse().unwrap(),
            ..first.endpoints[0].clone()
        }],
        failures: vec![gatewrt_protocol::Failure { what: "firewall".into(), why: "nft is missing".into() }],
        refused: BTreeMap::from([("replayed".into(), 7)]),
        ..first.clone()
    };
    link.report(&moved);
    let update: MemberUpdate =
        link.wait_for(Topic::Member(answer.net, answer.node), |update: &MemberUpdate| update.about().2 == 2);
    assert_eq!(member(&update).endpoints, moved.endpoints);
    link.wait_for(Topic::Roster(answer.net), |roster: &Roster| describes(roster, &[(answer.node, 2)]));
    let text = home.coordinator.ok(&["status", "home"]);
    for part in
        ["office", "online", "1 of 1 nodes online", "198.51.100.9:4500", "nft is missing", "test board"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let shown = || home.coordinator.ok(&["node", "show", "home", "office"]);
    assert!(!text.contains("replayed"), "that it once refused something is no failure: {text}");
    assert!(
        shown().contains("replayed (7)") && shown().contains("office: could not firewall"),
        "{}",
        shown()
    );

    link.cut();
    eventually("the node to be offline", || {
        (home.coordinator.node("office")["online"] == false).then_some(())
    });
    let text = home.coordinator.ok(&["status", "home"]);
    assert!(!text.contains("nft is missing"), "it may be over: {text}");
    assert!(shown().contains("before it went offline, could not firewall: nft is missing"), "{}", shown());
}

#[test]
fn flood_of_reports_is_rate_limited_for_others() {
    let home = Home::new();
    let (router, answer, link) = home.join(1, "office");
    let (_, _, other) = home.join(2, "cabin");
    let topic = Topic::Member(answer.net, answer.node);
    other.wait_for(topic, |_: &MemberUpdate| true);
    let endpoint = |seq: u64| gatewrt_protocol::Endpoint {
        addr: format!("198.51.100.9:{}", 1000 + seq).parse().unwrap(),
        kind: gatewrt_protocol::EndpointKind::Wan,
    };
    for seq in 1..=50 {
        link.report(&Report { endpoints: vec![endpoint(seq)], ..router.report(&answer, seq) });
    }
    let last = |update: &MemberUpdate| member(update).endpoints == [endpoint(50)];
    let update: MemberUpdate = other.wait_for(topic, last);
    assert!(update.about().2 <= 5, "50 reports became {} records", update.about().2 - 1);
}

#[test]
fn message_of_a_node_without_rights_is_refused_and_counted() {
    let home = Home::new();
    let (router, answer, link) = home.join(1, "office");
    let (_, other, _other_link) = home.join(2, "cabin");
    let topic = Topic::Report(answer.node);
    let sound = router.report(&answer, 1);
    link.report(&sound);
    eventually("the report", || home.coordinator.node("office")["report"].is_object().then_some(()));
    let forged = Signer::from_seed(&[9; 32]).sign(&Report { seq: 2, ..sound.clone() }).unwrap();
    let altered = router.signer().sign(&Report { seq: 3, ..sound.clone() }).unwrap().replace('a', "b");
    let foreign = router.signer().sign(&Report { node: other.node, seq: 4, ..sound.clone() }).unwrap();
    let replayed = router.signer().sign(&sound).unwrap();
    for (number, bad) in [forged, altered, foreign, replayed, "x".into()].iter().enumerate() {
        link.publish(topic, bad);
        eventually("the refusal to be counted", || {
            (home.refused("office") == number as u64 + 1).then_some(())
        });
    }
    assert_eq!(home.coordinator.node("office")["report"]["seq"], 1);
    assert_eq!(home.coordinator.node("cabin")["report"], serde_json::Value::Null);
}

#[test]
fn each_change_is_a_line_of_watch() {
    use std::io::{BufRead, BufReader};
    let home = Home::new();
    let mut watch = std::process::Command::new(crate::coordinator::PROGRAM)
        .args(["watch", "home", "--json", "--data"])
        .arg(home.coordinator.data())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(watch.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    // The watcher is connected once it sees a change. Codes cause no event, so nodes are changed until then.
    let mut seen = Vec::new();
    let mut number = 0;
    eventually("the watcher to see a node join", || {
        number += 1;
        Router::new(number, "office").join(&home.code, &home.ca).unwrap();
        seen.extend(lines.try_iter());
        seen.iter().any(|line| line.contains("\"what\":\"roster\"")).then_some(())
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
    let events: Vec<serde_json::Value> =
        seen.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |what: &str| {
        events.iter().find(|event| event["what"] == what).unwrap_or_else(|| panic!("{what} in {seen:?}"))
    };
    assert_eq!(of("member")["record"]["rev"], 1);
    assert_eq!(of("assignment")["network"], "home");
    assert!(of("roster")["record"]["count"].as_u64().unwrap() >= 1);
}
