//! Access rules: from the commands of an admin to the assignments of routers.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{Link, Router},
};
use gatewrt_protocol::{Access, Assignment, JoinAnswer, Topic, Verdict};

/// Two sites that serve a prefix each.
struct Sites {
    coordinator: Coordinator,
    office: (JoinAnswer, Link),
    cabin: (JoinAnswer, Link),
}

impl Sites {
    fn new() -> Self {
        let coordinator = Coordinator::with_home();
        let (code, ca) = (coordinator.code(&["--uses", "2"]), text(&coordinator.data().join("ca.crt")));
        let join = |number, name: &str| {
            let (_, answer, link) = Router::online(number, name, &code, &ca);
            (answer, link)
        };
        let sites = Self { office: join(1, "office"), cabin: join(2, "cabin"), coordinator };
        sites.ok("egress set home office 192.168.10.0/24 --nat off");
        sites.ok("egress set home cabin 192.168.20.0/24 --nat off");
        sites
    }

    fn ok(&self, command: &str) -> String {
        self.coordinator.ok(&command.split(' ').collect::<Vec<_>>())
    }

    fn refused(&self, command: &str) -> String {
        self.coordinator.refused(&command.split(' ').collect::<Vec<_>>())
    }

    fn json(&self, command: &str) -> serde_json::Value {
        self.coordinator.json(&command.split(' ').collect::<Vec<_>>())
    }

    /// Exit code and what it printed.
    fn check(&self, question: &str) -> (i32, String) {
        let output =
            self.coordinator.command(&format!("check home {question}").split(' ').collect::<Vec<_>>());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }
}

/// Waits until what a node enforces is as wanted.
fn enforced((answer, link): &(JoinAnswer, Link), what: &str, wanted: impl Fn(&Access) -> bool) -> Assignment {
    eventually(what, || {
        let assignment = link.record::<Assignment>(Topic::Assignment(answer.node))?;
        wanted(&assignment.access).then_some(assignment)
    })
}

#[test]
fn rule_reaches_only_the_nodes_that_it_concerns() {
    let sites = Sites::new();
    let topic = Topic::Assignment(sites.cabin.0.node);
    let before = sites.cabin.1.wait_for::<Assignment>(topic, |assignment| !assignment.egress.is_empty());
    assert_eq!(before.access, Access::default(), "nothing to enforce at first");
    let made = sites.json("rule add home deny --from node:office --to site:cabin --service tcp/22,udp/53");
    let id = made["id"].as_str().unwrap().to_owned();
    let denies = |access: &Access| access.rules.len() == 1 && access.rules[0].verdict == Verdict::Deny;
    let cabin = enforced(&sites.cabin, "a rule at the target", denies);
    assert!(cabin.access.sets.contains(&vec!["192.168.20.0/24".parse().unwrap()]), "{:?}", cabin.access);
    assert_eq!(cabin.access.rules[0].services.len(), 2);
    assert_eq!(cabin.rev, before.rev + 1);
    let office = enforced(&sites.office, "a rule at the source", denies);

    let (code, said) = sites.check("office site:cabin --service tcp/22");
    assert_eq!(code, 4);
    assert!(said.contains("not allowed") && said.contains(&id) && said.contains("node office"), "{said}");
    assert_eq!(sites.check("office 192.168.20.7 --service tcp/23").0, 0);
    assert_eq!(sites.check("cabin office").0, 0);

    sites.ok(&format!("rule disable home {}", &id[..6]));
    enforced(&sites.office, "no rule while it is off", |access| access.rules.is_empty());
    assert_eq!(sites.check("office site:cabin --service tcp/22").0, 0);
    sites.ok(&format!("rule enable home {id}"));
    let again = enforced(&sites.office, "the rule again", denies);
    assert_eq!(again.rev, office.rev + 2);
    let list = sites.ok("rule list home");
    assert!(list.contains("site:cabin") && list.contains("tcp/22") && list.contains("udp/53"), "{list}");
    sites.ok(&format!("rule delete home {id}"));
    enforced(&sites.cabin, "no rule any more", |access| *access == Access::default());
    assert!(sites.refused(&format!("rule show home {id}")).contains("rule list home"));
}

#[test]
fn network_that_denies_by_default_passes_allowed_traffic() {
    let sites = Sites::new();
    let changed = sites.json("network set home --access deny --dns 192.168.10.1,fd00::53");
    assert_eq!((&changed["access"], &changed["dns"][1]), (&"deny".into(), &"fd00::53".into()));
    enforced(&sites.cabin, "denied by default", |access| access.default == Verdict::Deny);
    let (code, said) = sites.check("office cabin");
    assert_eq!(code, 4);
    assert!(said.contains("denies what no rule allows"), "{said}");

    sites.ok("tag add home office servers backup");
    sites.ok("tag remove home node:office backup");
    let tags = sites.json("tag list home");
    assert_eq!(tags, serde_json::json!({"servers": ["node:office"]}));
    sites.ok("group set home targets site:cabin 192.168.10.5");
    sites.ok("rule add home allow --from tag:servers --to group:targets --service tcp/443 --note backup");
    assert_eq!(sites.check("office 192.168.20.9 --service tcp/443").0, 0);
    assert_eq!(sites.check("office 192.168.20.9 --service tcp/444").0, 4);
    let (code, said) = sites.check("office site:cabin");
    assert!(code == 4 && said.contains("not all of it"), "{said}");
    assert!(sites.refused("group delete home targets").contains("in use by rule"));
    let groups = sites.json("group list home");
    assert_eq!(groups[0]["used_by"].as_array().unwrap().len(), 1);

    sites.ok("network set home --access allow --dns none");
    assert_eq!(sites.json("network show home")["dns"], serde_json::json!([]));
    let warned = sites.coordinator.command(&["rule", "list", "home"]);
    assert!(String::from_utf8(warned.stderr).unwrap().contains("has no effect"));
}

#[test]
fn rule_follows_renamed_objects_and_warns_of_deleted_ones() {
    let mut sites = Sites::new();
    sites.ok("rule add home deny --from node:cabin --to site:office");
    sites.ok("node rename home cabin hut");
    let shown = sites.json("rule list home");
    assert_eq!(shown[0]["from"][0], "node:hut");
    sites.ok("node remove home hut");
    enforced(&sites.office, "nothing is left of the rule", |access| access.rules.is_empty());
    sites.coordinator.kill();
    sites.coordinator.start_again();
    let shown = sites.json("rule list home");
    assert_eq!(shown[0]["from"][0], "node:hut");
    assert!(shown[0]["warnings"][0].as_str().unwrap().contains("was removed"), "{shown}");
    sites.ok(&format!("rule disable home {}", shown[0]["id"].as_str().unwrap()));
    let code = sites.coordinator.code(&[]);
    Router::new(9, "hut").join(&code, &text(&sites.coordinator.data().join("ca.crt"))).unwrap();
    let shown = sites.json("rule list home");
    assert!(
        shown[0]["warnings"].to_string().contains("was removed"),
        "another node has the name, and not the rule"
    );
}

#[test]
fn rule_for_a_tag_applies_to_phones_with_it() {
    let sites = Sites::new();
    sites.ok("ingress set home office");
    sites.ok("client add home phone --gateway office");
    sites.ok("network set home --access deny");
    sites.ok("rule add home allow --from tag:phones --to site:cabin --service tcp/443");
    assert_eq!(sites.check("phone site:cabin --service tcp/443").0, 4);
    sites.ok("tag add home phone phones");
    let (code, said) = sites.check("phone site:cabin --service tcp/443");
    assert!(code == 0 && said.contains("client phone, at node office"), "{said}");
    let address = sites.json("client show home phone")["addresses"][0].as_str().unwrap().to_owned();
    let lets_in = |access: &Access| {
        let only: gatewrt_protocol::Prefix = format!("{address}/32").parse().unwrap();
        access.default == Verdict::Deny && access.rules.len() == 1 && access.sets.contains(&vec![only])
    };
    enforced(&sites.cabin, "the phone let in at the target", lets_in);
    enforced(&sites.office, "the phone let out at its gateway", lets_in);
    assert_eq!(sites.check("cabin phone").0, 4);
    sites.ok("client disable home phone");
    let (code, said) = sites.check("phone site:cabin --service tcp/443");
    assert!(code == 4 && said.contains("client phone is disabled"), "{said}");
    sites.ok("client delete home phone");
    enforced(&sites.cabin, "no rule for a phone that is gone", |access| access.rules.is_empty());
}

#[test]
fn refused_rule_names_the_existing_objects() {
    let sites = Sites::new();
    sites.ok("group set home one node:office");
    sites.ok("group set home two group:one");
    for (command, parts) in [
        ("rule add home deny --from nas --to all", &["“nas”", "tag:T", "site:N"][..]),
        ("rule add home deny --from office --to all", &["did you mean node:office?"]),
        ("rule add home deny --from node:nas --to all", &["no node “nas”", "cabin, office"]),
        ("rule add home deny --from group:nas --to all", &["no group “nas”", "one, two"]),
        ("rule add home deny --from client:nas --to all", &["no client “nas”"]),
        ("rule add home deny --from 10.0.0.1/8 --to all", &["did you mean 10.0.0.0/8"]),
        ("group set home one group:two", &["one would be in itself", "group:two"]),
        ("group set home Bad", &["“Bad”", "a-z"]),
        ("group delete home one", &["in use by group two"]),
        ("rule show home abcd", &["no rule “abcd”", "rule list home"]),
        ("tag add home nas x", &["“nas”"]),
        ("check home nas office", &["no node, client or group “nas”", "office"]),
    ] {
        let said = sites.refused(command);
        for part in parts {
            assert!(said.contains(part), "{command}: {part} in {said}");
        }
    }
    assert_eq!(sites.coordinator.command(&["network", "set", "home"]).status.code(), Some(2));
    assert_eq!(sites.coordinator.command(&["network", "set", "home", "--dns", "x"]).status.code(), Some(2));
    let (code, said) = sites.check("office 9.9.9.9");
    assert!(code == 4 && said.contains("no scope of office takes"), "{said}");
    let (code, said) = sites.check("office 192.168.99.1");
    assert!(code == 4 && said.contains("no node serves it"), "{said}");
}
