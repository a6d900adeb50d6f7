//! Removal of nodes and networks: each removed node reads its end, also much later, and nothing else.

use crate::{
    eventually,
    live::{Home, describes},
    router::{Link, Router},
};
use gatewrt_protocol::{JoinAnswer, MemberUpdate, Policy, Roster, Topic};
use std::collections::BTreeMap;

fn own(answer: &JoinAnswer) -> Topic {
    Topic::Member(answer.net, answer.node)
}

fn is_tombstone(update: &MemberUpdate) -> bool {
    matches!(update, MemberUpdate::Tombstone(_))
}

/// Waits until a node that was removed has read its tombstone over this link, and asserts that it read nothing else.
fn reads_its_end_alone(link: &Link, answer: &JoinAnswer) -> MemberUpdate {
    let end: MemberUpdate = link.wait_for(own(answer), is_tombstone);
    eventually("its session to end", || link.has_ended().then_some(()));
    assert_eq!(link.counts(), BTreeMap::from([(own(answer).to_string(), 1)]));
    end
}

/// Names of the removed nodes that do not know it yet, each with its network.
fn untold(home: &Home) -> Vec<String> {
    let status = home.coordinator.json(&["status"]);
    let untold = status["untold"].as_array().cloned().unwrap_or_default();
    let text = |node: &serde_json::Value| format!("{} of {}", node["name"], node["network"]).replace('"', "");
    untold.iter().map(text).collect()
}

fn wait_until_untold(home: &Home, expected: &[&str]) {
    eventually(&format!("untold: {expected:?}"), || (untold(home) == expected).then_some(()));
}

#[test]
fn removed_node_is_cut_off_and_stays_out() {
    let home = Home::new();
    let (_, office, link) = home.join(1, "office");
    let (router, cabin, gone) = home.join(2, "cabin");
    gone.wait_for(Topic::Roster(office.net), |roster: &Roster| roster.count == 2);
    home.coordinator.ok(&["node", "remove", "home", "cabin"]);
    let tombstone = |update: &MemberUpdate| is_tombstone(update) && update.about().2 == 2;
    link.wait_for(own(&cabin), tombstone);
    link.wait_for(Topic::Roster(office.net), |roster: &Roster| describes(roster, &[(office.node, 1)]));
    gone.wait_for(own(&cabin), tombstone);
    eventually("its session to end", || gone.has_ended().then_some(()));
    let known: Roster = gone.record(Topic::Roster(office.net)).unwrap();
    assert_eq!(known.count, 2, "it was told nothing but its own end");
    wait_until_untold(&home, &[]);
    for _ in 0..2 {
        let again = router.connect(&cabin, home.record_key);
        reads_its_end_alone(&again, &cabin);
    }
    home.coordinator.refused(&["node", "remove", "home", "cabin"]);

    let (_, _, late) = home.join(3, "shop");
    late.wait_for(own(&cabin), tombstone);
    let (_, again, _link) = home.join(4, "cabin");
    assert_eq!(again.name.as_str(), "cabin", "the name is free at once");
    let addresses = |name: &str| home.coordinator.node(name)["addresses"].clone();
    assert_ne!(addresses("cabin"), addresses("office"));
}

/// Two routers are away while their network is deleted: each reads its end when it comes, also after a restart.
#[test]
fn nodes_of_a_deleted_network_read_their_ends_when_they_return() {
    let mut home = Home::new();
    let routers: Vec<_> = (1..=3).map(|number| home.join(number, &format!("site{number}"))).collect();
    for (_, answer, link) in &routers {
        link.wait_for(Topic::Roster(answer.net), |roster: &Roster| roster.count == 3);
    }
    for (_, _, link) in &routers[1..] {
        link.cut();
    }
    // One of them was removed before.
    home.coordinator.ok(&["node", "remove", "home", "site3"]);
    assert!(home.coordinator.refused(&["network", "delete", "home"]).contains("site1"));
    let (_, answer, link) = &routers[0];
    link.wait_for(Topic::Roster(answer.net), |roster: &Roster| roster.count == 2);
    let before = link.counts();
    home.coordinator.ok(&["network", "delete", "home", "--force"]);
    link.wait_for(own(answer), is_tombstone);
    eventually("its session to end", || link.has_ended().then_some(()));
    let mut expected = before;
    *expected.get_mut(&own(answer).to_string()).unwrap() += 1;
    assert_eq!(link.counts(), expected, "a tombstone, and nothing of the others or of what is withdrawn");
    assert_eq!(home.coordinator.json(&["network", "list"]).as_array().unwrap().len(), 0);
    home.coordinator.refused(&["network", "delete", "home", "--force"]);
    wait_until_untold(&home, &["site2 of home", "site3 of home"]);
    let said = home.coordinator.ok(&["status"]);
    assert!(said.contains("not told yet") && said.contains("site2"), "{said}");

    let (router, answer, _) = &routers[1];
    let end = reads_its_end_alone(&router.connect(answer, home.record_key), answer);
    assert_eq!(end.about().2, 2, "a router takes it: its revision is above that of the member record");
    wait_until_untold(&home, &["site3 of home"]);

    home.coordinator.kill();
    home.coordinator.start_again();
    assert_eq!(untold(&home), ["site3 of home"], "it is stored who knows");
    for (router, answer, _) in &routers {
        reads_its_end_alone(&router.connect(answer, home.record_key), answer);
    }
    wait_until_untold(&home, &[]);
}

/// The network is made anew under the same name: the removed routers get nothing of it, and may join with a code.
#[test]
fn removed_node_gets_nothing_of_a_new_network_of_the_same_name() {
    let home = Home::new();
    let (router, old, link) = home.join(1, "office");
    link.wait_for(Topic::Roster(old.net), |roster: &Roster| roster.count == 1);
    link.cut();
    home.coordinator.ok(&["network", "delete", "home", "--force"]);
    home.coordinator.ok(&["network", "create", "home"]);
    let code = home.coordinator.code(&[]);
    let refused = router.join(&code, &home.ca).unwrap_err();
    assert!(refused.title.contains("removed node office"), "its old keys stay refused: {}", refused.title);
    let new = Router::new(2, "office").join(&code, &home.ca).unwrap();
    assert_ne!((new.net, new.node), (old.net, old.node));
    assert_eq!(new.name.as_str(), "office");
    let new_link = Router::new(2, "office").connect(&new, home.record_key);
    new_link.wait_for(Topic::Policy(new.net), |_: &Policy| true);
    new_link.wait_for(Topic::Roster(new.net), |roster: &Roster| roster.count == 1);
    reads_its_end_alone(&router.connect(&old, home.record_key), &old);
    assert!(!new_link.has_ended());
}

/// One router in two networks is two nodes: the end of one is not that of the other.
#[test]
fn end_of_one_network_leaves_the_other_alone() {
    let home = Home::new();
    home.coordinator.ok(&["network", "create", "work"]);
    let code = home.coordinator.ok(&["code", "create", "work"]).trim().to_owned();
    let (_, at_home, home_link) = home.join(1, "office");
    let at_work = Router::new(2, "office").join(&code, &home.ca).unwrap();
    let work_link = Router::new(2, "office").connect(&at_work, home.record_key);
    for (link, answer) in [(&home_link, &at_home), (&work_link, &at_work)] {
        link.wait_for(Topic::Roster(answer.net), |roster: &Roster| roster.count == 1);
    }
    let before = work_link.counts();
    home.coordinator.ok(&["network", "delete", "home", "--force"]);
    home_link.wait_for(own(&at_home), is_tombstone);
    eventually("its session to end", || home_link.has_ended().then_some(()));
    assert!(!work_link.has_ended());
    assert_eq!(work_link.counts(), before);
    let shown = home.coordinator.json(&["node", "show", "work", "office"]);
    assert_eq!(shown["online"], true, "{shown}");
}
