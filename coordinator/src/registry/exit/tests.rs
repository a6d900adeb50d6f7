use super::*;
use crate::{
    registry::{CodeSpec, EgressSetting, Moment, NetworkSpec, NodePatch},
    testing::{report, request},
};
use gatewrt_protocol::{ExitScope, InterfaceKind, InterfaceReport, NodeId, RolledBack, Traffic};
use std::collections::BTreeSet;

fn moment(number: u8) -> Moment {
    Moment { now: 1000, entropy: [number; 32] }
}

/// A network `home` with nodes `node-1` to `node-4`, which have said nothing yet; the second and third are exits.
fn home() -> Registry {
    let mut registry = Registry::default();
    let name = "home".parse().unwrap();
    let spec = NetworkSpec { name, prefix4: None, prefix6: None, mtu: None, keepalive: None };
    registry.apply(registry.create_network(&spec, &moment(0)).unwrap().0);
    let code = CodeSpec { uses: 9, expires_in: 60, roles: BTreeSet::new() };
    let (rows, (_, secret)) = registry.create_code("home", &code, &moment(1)).unwrap();
    registry.apply(rows);
    for key in 1..=4 {
        let rows = registry.join(&request(secret, key, key, key), None, &moment(key)).unwrap().0;
        registry.apply(rows);
    }
    for node in ["node-2", "node-3"] {
        registry.apply(registry.set_exit("home", node, &ExitSpec::default()).unwrap().0);
    }
    registry
}

fn id(registry: &Registry, node: &str) -> NodeId {
    registry.find_node("home", node).unwrap().id
}

/// Report with an offer as an exit and with LANs.
fn says(registry: &mut Registry, node: &str, exit: Option<ExitOffer>, lans: &[&str]) {
    let id = id(registry, node);
    let interfaces = lans.iter().map(|lan| InterfaceReport {
        name: "br-lan".into(),
        kind: InterfaceKind::Lan,
        prefixes: vec![lan.parse().unwrap()],
    });
    let interfaces = interfaces.collect();
    let said = gatewrt_protocol::Report { exit, interfaces, ..report(id, 1, 1) };
    registry.apply(registry.update_facts(id, &said, None));
}

fn offer(v4: bool, v6: bool) -> Option<ExitOffer> {
    Some(ExitOffer { v4, v6, dns: vec!["9.9.9.9".parse().unwrap()] })
}

fn spec(of: &[&str], exits: &[&str]) -> ScopeSpec {
    let spec = serde_json::json!({"of": of, "exits": exits});
    serde_json::from_value(spec).unwrap()
}

fn set(
    registry: &mut Registry,
    node: &str,
    name: &str,
    spec: &ScopeSpec,
) -> Result<ScopeSetting, RegistryError> {
    let (rows, (node, name)) = registry.set_scope("home", node, name, spec)?;
    registry.apply(rows);
    Ok(node.scopes[&name].clone())
}

fn why(outcome: Result<ScopeSetting, RegistryError>) -> String {
    let error = outcome.unwrap_err();
    format!("{} {error}; {}", error.kind(), error.advice())
}

#[test]
fn exit_offer_is_the_setting_limited_to_the_report() {
    let mut registry = home();
    let seen = |registry: &Registry| registry.find_node("home", "node-2").unwrap().exit_offer();
    assert_eq!(seen(&registry), None, "its owner has not said that it may");
    says(&mut registry, "node-2", offer(true, true), &[]);
    assert_eq!(seen(&registry), offer(true, true));
    let less = ExitSpec { v6: Some(false), dns: vec!["192.0.2.53".parse().unwrap()], ..ExitSpec::default() };
    registry.apply(registry.set_exit("home", "node-2", &less).unwrap().0);
    let found = seen(&registry).unwrap();
    assert_eq!((found.v4, found.v6, &found.dns), (true, false, &less.dns));
    says(&mut registry, "node-2", offer(false, true), &[]);
    assert_eq!(seen(&registry), None, "what is there is not wanted");
    let node = registry.find_node("home", "node-2").unwrap();
    assert_eq!(registry.exit_limits(node).unwrap(), "the uplink of node-2 has no IPv4 now");
    says(&mut registry, "node-2", None, &[]);
    let node = registry.find_node("home", "node-2").unwrap();
    assert!(registry.exit_limits(node).unwrap().contains("allow_exit"), "its owner took it back");
}

#[test]
fn exit_without_ipv6_is_warned_of() {
    let mut registry = home();
    says(&mut registry, "node-2", offer(true, false), &[]);
    let node = registry.find_node("home", "node-2").unwrap();
    assert_eq!(
        registry.exit_warnings(node),
        ["the uplink of node-2 has no IPv6: it is an exit for IPv4 alone"]
    );
    let scope = set(&mut registry, "node-1", "all", &spec(&["all"], &["node-2"])).unwrap();
    let node = registry.find_node("home", "node-1").unwrap();
    let warnings = registry.scope_warnings(node, &scope).join("\n");
    assert!(warnings.contains("IPv6 of this traffic is dropped"), "{warnings}");
}

#[test]
fn exit_without_resolver_is_warned_of() {
    let mut registry = home();
    let mute = Some(ExitOffer { v4: true, v6: true, dns: Vec::new() });
    says(&mut registry, "node-2", mute, &[]);
    let scope = spec(&["all"], &["node-2"]);
    let warned = |registry: &mut Registry, spec: &ScopeSpec| {
        let scope = set(registry, "node-1", "all", spec).unwrap();
        registry.scope_warnings(registry.find_node("home", "node-1").unwrap(), &scope).join("\n")
    };
    assert!(warned(&mut registry, &scope).contains("exit set … node-2 --dns IP"));
    assert_eq!(warned(&mut registry, &ScopeSpec { redirect_dns: false, ..scope.clone() }), "");
    assert_eq!(
        warned(&mut registry, &ScopeSpec { dns: vec!["9.9.9.9".parse().unwrap()], ..scope.clone() }),
        ""
    );
    says(&mut registry, "node-2", offer(true, true), &[]);
    assert_eq!(warned(&mut registry, &scope), "");
}

#[test]
fn invalid_exit_spec_is_refused() {
    let mut registry = home();
    let refused = |spec: &ExitSpec| registry.set_exit("home", "node-1", spec).unwrap_err().kind();
    let none = ExitSpec { v4: Some(false), v6: Some(false), ..ExitSpec::default() };
    assert_eq!(refused(&none), "no-exit");
    let dns = |addr: &str| ExitSpec { dns: vec![addr.parse().unwrap()], ..ExitSpec::default() };
    assert_eq!(refused(&dns("127.0.0.1")), "bad-prefix");
    assert_eq!(registry.unset_exit("home", "node-1", false).unwrap_err().kind(), "not-an-exit");
    let roles = BTreeSet::from([Role::Egress]);
    let code = CodeSpec { uses: 1, expires_in: 60, roles };
    let (rows, (_, secret)) = registry.create_code("home", &code, &moment(7)).unwrap();
    registry.apply(rows);
    registry.apply(registry.join(&request(secret, 7, 7, 7), None, &moment(8)).unwrap().0);
    let error = registry.set_exit("home", "node-7", &ExitSpec::default()).unwrap_err();
    assert_eq!(error.kind(), "role-missing", "{error}");
}

#[test]
fn scope_by_default_is_closed_and_names_exits_by_id() {
    let mut registry = home();
    let scope =
        set(&mut registry, "node-1", "all", &spec(&["router", "all"], &["node-3", "node-2", "node-3"]));
    let scope = scope.unwrap();
    let exits = ["node-3", "node-2"].map(|name| id(&registry, name));
    assert_eq!(scope.exits, exits);
    let record = scope.record(&"all".parse().unwrap());
    let expected = ExitScope {
        exits: exits.to_vec(),
        auto: false,
        ..ExitScope::auto("all".parse().unwrap(), vec![Traffic::Router, Traffic::All])
    };
    assert_eq!(record, expected, "all else at its default");
    let patch = NodePatch { name: Some("berlin".parse().unwrap()), ..NodePatch::default() };
    registry.apply(registry.change_node("home", "node-3", &patch).unwrap().0);
    let node = registry.find_node("home", "node-1").unwrap();
    assert_eq!(node.scopes.values().next(), Some(&scope), "a new name changes nothing");
    let auto = set(&mut registry, "node-1", "all", &spec(&["all"], &[])).unwrap();
    assert!(auto.auto && auto.exits.is_empty());
}

#[test]
fn invalid_scope_spec_is_refused() {
    let mut registry = home();
    says(&mut registry, "node-1", None, &["192.168.7.0/24", "fd00:7::/64"]);
    set(&mut registry, "node-1", "tv", &spec(&["192.168.7.9"], &["node-2"])).unwrap();
    for (name, spec, part) in [
        ("x", spec(&["all"], &["node-1"]), "exit-itself node node-1 can't be its own exit"),
        (
            "x",
            spec(&["all"], &["node-4"]),
            "not-an-exit node node-4 is no exit; name one that is: node-2, node-3",
        ),
        ("x", spec(&["all"], &["nowhere"]), "not-found"),
        (
            "x",
            spec(&["192.168.7.9/32"], &["node-3"]),
            "overlap 192.168.7.9/32 of node-1 is in scope tv already",
        ),
        ("x", spec(&[], &["node-3"]), "bad-traffic scope x names no traffic"),
        ("x", spec(&["lan"], &["node-3"]), "“lan” names no traffic"),
        ("x", spec(&["0.0.0.0/0"], &["node-3"]), "names no traffic"),
        ("X y", spec(&["all"], &["node-3"]), "bad-name"),
        ("x", ScopeSpec { auto: Some(false), ..spec(&["all"], &[]) }, "no-exit scope x names no exit"),
        (
            "x",
            ScopeSpec { exclude: ["::/0".parse().unwrap()].into(), ..spec(&["all"], &["node-3"]) },
            "default-route ::/0 can't be excluded",
        ),
        ("x", ScopeSpec { dns: vec!["::1".parse().unwrap()], ..spec(&["all"], &["node-3"]) }, "bad-prefix"),
    ] {
        let said = why(set(&mut registry, "node-1", name, &spec));
        assert!(said.contains(part), "“{part}” in {said}");
    }
    set(&mut registry, "node-1", "lan", &spec(&["192.168.0.0/16", "dev:br-lan"], &["node-2"])).unwrap();
    set(&mut registry, "node-1", "tv", &spec(&["192.168.7.8", "192.168.7.9"], &["node-2"])).unwrap();
    assert_eq!(registry.unset_scope("home", "node-1", "x").unwrap_err().kind(), "not-found");
}

#[test]
fn scopes_over_the_limit_are_refused() {
    let mut registry = home();
    for number in 0..ExitScope::MOST {
        let of = format!("192.168.7.{}", number + 1);
        set(&mut registry, "node-1", &format!("s{number}"), &spec(&[&of], &["node-2"])).unwrap();
    }
    let said = why(set(&mut registry, "node-1", "more", &spec(&["all"], &["node-2"])));
    assert!(said.contains("the number of scopes 17"), "{said}");
    set(&mut registry, "node-1", "s0", &spec(&["all"], &["node-2"])).unwrap();
}

#[test]
fn scope_of_unknown_lan_is_warned_of() {
    let mut registry = home();
    let of = ["192.168.7.0/24", "dev:br-guest", "router"];
    let scope = set(&mut registry, "node-1", "x", &spec(&of, &["node-2"])).unwrap();
    let warnings = |registry: &Registry| {
        registry.scope_warnings(registry.find_node("home", "node-1").unwrap(), &scope).join("\n")
    };
    let said = warnings(&registry);
    assert!(said.contains("make sure that 192.168.7.0/24 is one"), "{said}");
    assert!(said.contains("interface br-guest") && said.contains("allow_exit"), "{said}");
    says(&mut registry, "node-1", None, &["192.168.7.0/24"]);
    says(&mut registry, "node-2", offer(true, true), &[]);
    assert_eq!(warnings(&registry), "node-1 has not said that it has an interface br-guest");
    let setting = EgressSetting { nat: false, metric: 0 };
    let rows = registry.set_egress("home", "node-1", "10.7.0.0/24".parse().unwrap(), setting).unwrap().0;
    registry.apply(rows);
    set(&mut registry, "node-1", "routed", &spec(&["10.7.0.0/25"], &["node-2"])).unwrap();
}

/// A router may report any LANs, or leave some out: the admin's word counts.
#[test]
fn scope_of_a_lan_that_the_node_does_not_report_is_warned_of() {
    let mut registry = home();
    says(&mut registry, "node-1", None, &["192.168.7.0/24", "fd00:7::/64"]);
    says(&mut registry, "node-2", offer(true, true), &[]);
    for (of, said) in [
        (
            "192.168.8.0/24",
            "192.168.8.0/24 is no LAN of node-1, as far as it says: what it has: 192.168.7.0/24",
        ),
        ("fd00:8::/64", "fd00:8::/64 is no LAN of node-1, as far as it says: what it has: fd00:7::/64"),
        ("192.168.7.9", ""),
    ] {
        let scope = set(&mut registry, "node-1", "x", &spec(&[of], &["node-2"])).unwrap();
        let node = registry.find_node("home", "node-1").unwrap();
        assert_eq!(registry.scope_warnings(node, &scope).join("\n"), said);
    }
}

#[test]
fn exit_in_use_is_unset_only_by_force() {
    let mut registry = home();
    set(&mut registry, "node-1", "tv", &spec(&["192.168.7.9"], &["node-2"])).unwrap();
    set(&mut registry, "node-4", "all", &spec(&["all"], &[])).unwrap();
    let refused = |error: RegistryError| format!("{} {error}", error.kind());
    let said = refused(registry.unset_exit("home", "node-2", false).unwrap_err());
    assert_eq!(said, "in-use 1 scope(s) send their traffic through node-2: tv of node-1");
    let said = refused(registry.remove_node("home", "node-2", false, &moment(9)).unwrap_err());
    assert!(said.contains("tv of node-1"), "{said}");
    registry.unset_exit("home", "node-3", false).expect("another is left for what takes any");
    registry.apply(registry.unset_exit("home", "node-2", true).unwrap().0);
    set(&mut registry, "node-1", "tv", &spec(&["192.168.7.9"], &["node-2"])).expect("it was named all along");
    let error = set(&mut registry, "node-1", "new", &spec(&["all"], &["node-2"])).unwrap_err();
    assert_eq!(error.kind(), "not-an-exit");
    let said = refused(registry.unset_exit("home", "node-3", false).unwrap_err());
    assert!(said.ends_with("all of node-4"), "the last one that is left: {said}");
    registry.apply(registry.remove_node("home", "node-2", false, &moment(9)).unwrap().0);
    let node = registry.find_node("home", "node-1").unwrap();
    let scope = node.scopes.values().next().unwrap();
    assert_eq!(scope.exits.len(), 1, "closed, and not let out another way");
    let warnings = registry.scope_warnings(node, scope).join("\n");
    assert!(warnings.contains("node-2 is no exit any more") && warnings.contains("is dropped"), "{warnings}");
}

#[test]
fn report_with_equal_facts_changes_nothing() {
    let mut registry = home();
    let node = id(&registry, "node-2");
    let why = "the control link was lost\n".to_owned();
    let rolled_back = Some(RolledBack { assignment: 7, why });
    let said = gatewrt_protocol::Report { exit: offer(true, true), rolled_back, ..report(node, 1, 1) };
    let rows = registry.update_facts(node, &said, None);
    assert_eq!(rows.len(), 1);
    registry.apply(rows);
    assert_eq!(registry.update_facts(node, &said, None), []);
    let facts = &registry.node(node).unwrap().facts;
    assert_eq!(facts.rolled_back.as_ref().unwrap().why, "the control link was lost");
}

#[test]
fn rolled_back_change_is_retried_on_request() {
    let mut registry = home();
    registry.apply(registry.retry_node("home", "node-1").unwrap().0);
    assert_eq!(registry.retry_node("home", "node-1").unwrap().1.attempt, 2);
    let confirm = |seconds| NodePatch { confirm_s: Some(seconds), ..NodePatch::default() };
    for seconds in [0, 4, 3601] {
        let error = registry.change_node("home", "node-1", &confirm(seconds)).unwrap_err();
        assert_eq!(error.kind(), "out-of-range", "{seconds}");
    }
    let after = |seconds| registry.change_node("home", "node-1", &confirm(seconds)).unwrap().1.confirm_s;
    assert_eq!((after(5), after(3600), after(60)), (Some(5), Some(3600), None));
}
