//! The boot lockdown, which keeps closed scopes in before the daemon runs: when it is written and deleted, and that the
//! daemon adopts the rules and routes that it finds.

use crate::{
    scopes::{kernel, link, of_coordinator, world},
    world::{S, World, membership, name, policy},
};
use gatewrt::{
    core::{Input, Output},
    kernel::fake::FakeKernel,
    model::{ForeignRoute, IfName, Observed, Ruleset},
    plan::{BootLockdown, Step},
};
use gatewrt_protocol::ExitScope;

fn said(world: &World) -> Vec<Option<BootLockdown>> {
    let guard = |output: &Output| match output {
        Output::BootLockdown(guard) => Some(guard.clone()),
        _ => None,
    };
    world.said.iter().filter_map(guard).collect()
}

fn guard() -> BootLockdown {
    said(&world(vec![of_coordinator()], "", None)).pop().flatten().expect("something to keep in")
}

/// A router that has just booted, before any link is up.
fn booted() -> FakeKernel {
    let mut kernel = kernel();
    for name in ["br-lan", "br-guest", "wan"] {
        kernel.state.links.remove(&link(name));
    }
    kernel.state.addresses.clear();
    kernel.state.main_routes.clear();
    for step in guard().steps(&Observed::default()).0 {
        match step {
            Step::WriteRuleset(update) => kernel.state.ruleset = Some(Ruleset::Known(update.table)),
            Step::AddRoute(route) => drop(kernel.state.routes.push(route)),
            Step::AddRule(rule) => drop(kernel.state.rules.push(rule)),
            other => panic!("{other}"),
        }
    }
    kernel
}

fn guarded(world: &World) -> Vec<IfName> {
    let first = gatewrt::ownership::ReservedNumbers::default().exit_table;
    let rules = world.kernel.state.rules.iter().filter(|rule| rule.table >= first);
    let mut links: Vec<IfName> = rules.filter_map(|rule| rule.iif.clone()).collect();
    links.dedup();
    links.sort();
    links.dedup();
    links
}

#[test]
fn lockdown_is_written_once_and_deleted_with_the_last_closed_scope() {
    let mut world = world(vec![of_coordinator()], "", None);
    assert!(matches!(&said(&world)[..], [Some(_)]), "{:?}", said(&world));
    world.run(60 * S);
    assert_eq!(said(&world).len(), 1);
    world.feed(Input::Leave(name()));
    world.run(5 * S);
    assert_eq!(said(&world).last(), Some(&None));
    let open = ExitScope { open: true, ..of_coordinator() };
    let world = crate::scopes::world(vec![open], "", None);
    assert_eq!(said(&world), [None]);
}

#[test]
fn teardown_keeps_the_lockdown_for_the_next_boot() {
    let mut world = world(vec![of_coordinator()], "", None);
    world.feed(Input::Stop { teardown: true });
    world.run(5 * S);
    assert!(world.kernel.state.rules.is_empty());
    assert!(matches!(&said(&world)[..], [Some(_)]));
}

#[test]
fn lan_whose_link_is_not_up_yet_stays_kept_in() {
    let world = crate::scopes::world_on(booted(), vec![of_coordinator()], "", None);
    assert_eq!(guarded(&world), ["br-guest", "br-lan", "lo"].map(link));
    let gone = |step: &Step| matches!(step, Step::DeleteRule(_) | Step::DeleteRuleset);
    assert!(!world.applied.iter().flatten().any(gone), "{:?}", world.applied);
}

#[test]
fn lockdown_stays_while_records_are_missing() {
    let mut world = World::on(booted());
    world.feed(Input::Started(Box::default(), vec![membership([policy(1)].into_iter().collect())]));
    world.run(5 * S);
    assert_eq!(guarded(&world), ["br-guest", "br-lan", "lo"].map(link));
    assert!(world.kernel.state.ruleset.is_some());
    assert_eq!(said(&world), []);
}

/// A WAN without a default route still has its address and the route of its own network.
#[test]
fn wan_without_default_route_is_no_lan() {
    let mut world = world(vec![of_coordinator()], "", None);
    let connected =
        ForeignRoute { prefix: "198.51.100.0/24".parse().unwrap(), link: Some(link("wan")), on_link: true };
    world.kernel.state.main_routes = [connected].into_iter().collect();
    world.run(5 * S);
    assert_eq!(guarded(&world), ["br-guest", "br-lan", "lo"].map(link));
    let table = world.table();
    assert!(table.contains("\"br-lan\"") && !table.contains("local-4-wan"), "{table}");
}
