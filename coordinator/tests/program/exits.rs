//! Exits and scopes: from the commands of an admin to the assignments of routers, and from their reports to
//! the admin.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{Link, Router},
};
use gatewrt_protocol::{
    Assignment, ExitOffer, InterfaceKind, InterfaceReport, JoinAnswer, Member, MemberUpdate, Path,
    PeerReport, Report, RolledBack, ScopeReport, ScopeState, Topic, Traffic,
};
use serde_json::json;

struct Home {
    coordinator: Coordinator,
    code: String,
}

/// A router that has joined and reports as the test wants.
struct Node {
    router: Router,
    answer: JoinAnswer,
    link: Link,
    seq: u64,
}

impl Home {
    fn new() -> Self {
        let coordinator = Coordinator::with_home();
        let code = coordinator.code(&["--uses", "9"]);
        Self { coordinator, code }
    }

    fn join(&self, number: u8, name: &str) -> Node {
        let ca = text(&self.coordinator.data().join("ca.crt"));
        let (router, answer, link) = Router::online(number, name, &self.code, &ca);
        Node { router, answer, link, seq: 0 }
    }

    /// Sends a report of a node, and waits until it was processed.
    fn report(&self, node: &mut Node, change: impl FnOnce(&mut Report)) {
        node.seq += 1;
        let mut report = node.router.report(&node.answer, node.seq);
        change(&mut report);
        node.link.report(&report);
        let name = node.router.request.name.as_str();
        eventually("the report", || (self.coordinator.node(name)["report"]["seq"] == node.seq).then_some(()));
    }
}

impl Node {
    fn assignment(&self, holds: impl Fn(&Assignment) -> bool) -> Assignment {
        self.link.wait_for(Topic::Assignment(self.answer.node), holds)
    }

    /// The member record of another, as this one has it.
    fn member(&self, of: &Node, holds: impl Fn(&Member) -> bool) -> Member {
        let topic = Topic::Member(self.answer.net, of.answer.node);
        let holds = |update: &MemberUpdate| matches!(update, MemberUpdate::Member(member) if holds(member));
        match self.link.wait_for(topic, holds) {
            MemberUpdate::Member(member) => member,
            MemberUpdate::Tombstone(_) => unreachable!("it was waited for"),
        }
    }
}

fn offer(v4: bool, v6: bool) -> Option<ExitOffer> {
    Some(ExitOffer { v4, v6, dns: vec!["203.0.113.53".parse().unwrap()] })
}

fn lan(name: &str, prefix: &str) -> InterfaceReport {
    let prefixes = vec![prefix.parse().unwrap()];
    InterfaceReport { name: name.into(), kind: InterfaceKind::Lan, prefixes }
}

#[test]
fn exit_needs_the_admins_setting_and_the_owners_permission() {
    let home = Home::new();
    let (mut office, cabin) = (home.join(1, "office"), home.join(2, "cabin"));
    let said = home.coordinator.command(&["exit", "set", "home", "office", "--dns", "203.0.113.9"]);
    assert!(said.status.success());
    let warned = String::from_utf8(said.stderr).unwrap();
    assert!(
        warned.contains("office has not said that it may be an exit") && warned.contains("allow_exit '1'")
    );
    let asked = office.assignment(|assignment| assignment.exit.is_some());
    assert_eq!(asked.exit.as_ref().unwrap().dns, ["203.0.113.9".parse::<std::net::IpAddr>().unwrap()]);
    let list = |field: &str| home.coordinator.json(&["exit", "list", "home"])[1][field].clone();
    assert_eq!((list("node"), list("enabled"), list("allowed")), (json!("office"), json!(true), json!(null)));
    assert_eq!(cabin.member(&office, |_| true).exit, None, "it has not said that it can");

    home.report(&mut office, |report| report.exit = offer(true, false));
    let member = cabin.member(&office, |member| member.exit.is_some());
    let exit = member.exit.unwrap();
    assert_eq!((exit.v4, exit.v6, exit.dns), (true, false, vec!["203.0.113.9".parse().unwrap()]));
    assert_eq!((list("allowed"), list("v4"), list("v6")), (json!(true), json!(true), json!(false)));
    let why = "the uplink of office has no IPv6: it is an exit for IPv4 alone";
    assert_eq!(list("why"), why);
    let shown = home.coordinator.ok(&["status", "home"]);
    assert!(shown.contains("IPv4 alone") && shown.contains(why), "{shown}");

    home.report(&mut office, |report| report.exit = None);
    cabin.member(&office, |member| member.exit.is_none());
    assert_eq!(list("allowed"), json!(false), "the owner's word");
    home.report(&mut office, |report| report.exit = offer(true, true));
    cabin.member(&office, |member| member.exit.as_ref().is_some_and(|exit| exit.v6));
    home.coordinator.ok(&["exit", "set", "home", "office", "--no-ipv6"]);
    let member = cabin.member(&office, |member| member.exit.as_ref().is_some_and(|exit| !exit.v6));
    assert_eq!(member.exit.unwrap().dns, offer(true, false).unwrap().dns, "its own resolvers");
    home.coordinator.ok(&["exit", "unset", "home", "office"]);
    cabin.member(&office, |member| member.exit.is_none());
    office.assignment(|assignment| assignment.exit.is_none());
}

#[test]
fn scope_from_the_command_line_reaches_its_router_and_status() {
    let home = Home::new();
    let (mut office, mut cabin) = (home.join(1, "office"), home.join(2, "cabin"));
    home.report(&mut office, |report| report.exit = offer(true, true));
    home.report(&mut cabin, |report| report.interfaces = vec![lan("br-lan", "192.168.7.0/24")]);
    let refused = |args: &[&str], part: &str| {
        let said = home.coordinator.refused(&[&["exit-client", "set", "home", "cabin", "tv"], args].concat());
        assert!(said.contains(part), "{part} in {said}");
    };
    refused(&["--of", "all", "--exit", "office"], "exit set … office");
    home.coordinator.ok(&["exit", "set", "home", "office"]);
    refused(&["--of", "all", "--exit", "cabin"], "can't be its own exit");
    let set = ["exit-client", "set", "home", "cabin", "tv", "--of", "192.168.7.9", "--of", "dev:br-lan"];
    let more = ["--exit", "office", "--auto", "--no-kill-switch", "--forbid-lan", "--ipv6", "wan"];
    let more = [&more[..], &["--exclude", "198.51.100.0/24", "--keep-dns"]].concat();
    let before = office.link.counts();
    let said = home.coordinator.ok(&[&set[..], &more].concat());
    assert!(
        said.contains("goes out through office, then the nearest; over the WAN while none works"),
        "{said}"
    );
    let told = cabin.assignment(|assignment| !assignment.scopes.is_empty());
    let scope = &told.scopes[0];
    let of = [Traffic::Prefix("192.168.7.9/32".parse().unwrap()), Traffic::Device("br-lan".into())];
    assert_eq!((scope.name.as_str(), &scope.of[..]), ("tv", &of[..]));
    assert_eq!((&scope.exits[..], scope.exclude.len()), (&[office.answer.node][..], 1));
    assert!(scope.auto && scope.open && scope.forbid_lan && scope.v6_wan && scope.keep_dns);
    assert_eq!(office.link.counts(), before, "no one else's business");
    home.coordinator.ok(&[&set[..], &["--exit", "office"]].concat());
    let closed = cabin.assignment(|assignment| assignment.rev > told.rev);
    let scope = &closed.scopes[0];
    assert!(!scope.auto && !scope.open && !scope.forbid_lan && !scope.v6_wan && !scope.keep_dns);

    let exit = office.answer.node;
    home.report(&mut cabin, |report| {
        let (name, why) = ("tv".parse().unwrap(), String::new());
        report.interfaces = vec![lan("br-lan", "192.168.7.0/24")];
        report.scopes =
            vec![ScopeReport { name, state: ScopeState::Exit, exit: Some(exit), rtt_ms: Some(17), why }];
        report.peers = vec![PeerReport {
            node: exit,
            endpoint: None,
            handshake_s: Some(3),
            rx: 1,
            tx: 1,
            path: Path::Direct,
            rtt_ms: Some(17),
        }];
    });
    let live = home.coordinator.node("cabin")["scopes"][0]["live"].clone();
    assert_eq!(live, json!({"state": "exit", "exit": "office", "rtt_ms": 17}));
    let shown = home.coordinator.ok(&["status", "home"]);
    for part in ["through office, 17 ms", "tv of cabin (now)", "office up, 17 ms", "kill switch", "RTT"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let check = |from: &str| home.coordinator.command(&["check", "home", from, "198.51.100.1"]).status.code();
    assert_eq!(
        [check("192.168.7.9"), check("cabin")],
        [Some(0), Some(4)],
        "what the scope is of, and no more"
    );
    home.report(&mut cabin, |report| {
        let (name, why) = ("tv".parse().unwrap(), "office does not answer".to_owned());
        report.scopes = vec![ScopeReport { name, state: ScopeState::Blocked, exit: None, rtt_ms: None, why }];
    });
    let shown = home.coordinator.ok(&["exit-client", "list", "home"]);
    assert!(shown.contains("blocked") && shown.contains("office does not answer"), "{shown}");
    let used = home.coordinator.json(&["exit", "list", "home"])[1]["used_by"].clone();
    assert_eq!(used, json!([{"node": "cabin", "scope": "tv", "now": false}]));

    home.report(&mut cabin, |report| {
        report.applied.assignment = closed.rev;
        let (name, why) = ("mine".parse().unwrap(), "office does not answer".to_owned());
        report.scopes = vec![ScopeReport { name, state: ScopeState::Blocked, exit: None, rtt_ms: None, why }];
    });
    let shown = home.coordinator.ok(&["status"]);
    for part in [
        "cabin: its owner has configured scope mine on the router: blocked; office does not answer",
        "tv of cabin: cabin does not apply this: settings of its owner take precedence",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let said = home.coordinator.refused(&["exit", "unset", "home", "office"]);
    assert!(said.contains("tv of cabin") && said.contains("--force"), "{said}");
    let said = home.coordinator.refused(&["node", "remove", "home", "office"]);
    assert!(said.contains("tv of cabin"), "{said}");
    home.coordinator.ok(&["exit-client", "unset", "home", "cabin", "tv"]);
    cabin.assignment(|assignment| assignment.scopes.is_empty());
    home.coordinator.ok(&["exit", "unset", "home", "office"]);
    // What a router says of its LANs warns only.
    home.coordinator.ok(&["exit", "set", "home", "office"]);
    let set = ["exit-client", "set", "home", "cabin", "desk", "--of", "192.168.8.0/24", "--exit", "office"];
    let warned = home.coordinator.command(&set);
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.status.success() && said.contains("192.168.8.0/24 is no LAN of cabin"), "{said}");
}

#[test]
fn rolled_back_change_is_shown_and_retried() {
    let home = Home::new();
    let mut cabin = home.join(1, "cabin");
    home.coordinator.ok(&["node", "set-confirm", "home", "cabin", "20"]);
    let told = cabin.assignment(|assignment| assignment.confirm_s == Some(20));
    assert_eq!(
        home.coordinator.command(&["node", "set-confirm", "home", "cabin", "4"]).status.code(),
        Some(2)
    );
    let why = "scope all: no word from the coordinator for 20 s";
    home.report(&mut cabin, |report| {
        report.rolled_back = Some(RolledBack { assignment: told.rev, why: why.into() });
    });
    for shown in [home.coordinator.ok(&["status"]), home.coordinator.ok(&["node", "show", "home", "cabin"])] {
        assert!(shown.contains(why) && shown.contains("node retry home cabin"), "{shown}");
    }
    let mut coordinator = home.coordinator;
    coordinator.terminate();
    coordinator.start_again();
    assert_eq!(coordinator.node("cabin")["rolled_back"], json!({"assignment": told.rev, "why": why}), "kept");
    coordinator.ok(&["node", "retry", "home", "cabin"]);
    let router = Router::new(1, "cabin");
    let link = router.connect(&cabin.answer, cabin.link.record_key);
    let again: Assignment = link.wait_for(Topic::Assignment(cabin.answer.node), |_| true);
    assert_eq!((again.attempt, again.rev), (1, told.rev + 1));
    let log = coordinator.ok(&["audit"]);
    assert!(log.contains("node.retry") && log.contains("confirm_s"), "{log}");
}

#[test]
fn prefix_served_by_several_nodes_shows_its_users() {
    let home = Home::new();
    let (office, mut spare, mut cabin) =
        (home.join(1, "office"), home.join(2, "spare"), home.join(3, "cabin"));
    let prefix = "192.168.9.0/24";
    home.report(&mut spare, |report| report.interfaces = vec![lan("br-lan", prefix)]);
    let set = |node: &str, metric: &str| {
        home.coordinator.command(&["egress", "set", "home", node, prefix, "--metric", metric])
    };
    assert!(set("office", "0").status.success());
    let said = set("spare", "10");
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && !error.contains("warning"), "{error}");
    for (node, metric) in [(&office, 0), (&spare, 10)] {
        let member = cabin.member(node, |member| !member.prefixes.is_empty());
        assert_eq!(
            (member.prefixes[0].prefix.to_string().as_str(), member.prefixes[0].metric),
            (prefix, metric)
        );
    }
    home.report(&mut cabin, |report| {
        report.gateways = [(prefix.parse().unwrap(), spare.answer.node)].into();
    });
    let list = home.coordinator.json(&["egress", "list", "home"]);
    let used = |at: usize| (list[at]["node"].clone(), list[at]["used_by"].clone());
    assert_eq!(used(0), (json!("office"), json!(null)));
    assert_eq!(used(1), (json!("spare"), json!(["cabin"])));
    let said = home.coordinator.refused(&["egress", "set", "home", "cabin", "192.168.9.0/25"]);
    assert!(said.contains("overlaps 192.168.9.0/24"), "a part of it is no stand-in: {said}");
}
