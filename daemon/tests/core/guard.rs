//! What keeps closed scopes in before the daemon runs: when it is said, and that the daemon takes up what it finds.

use crate::{
    scopes::{kernel, link, of_coordinator, world},
    world::{S, World, membership, name, policy},
};
use gatewrt::{
    core::{Input, Output},
    kernel::fake::FakeKernel,
    model::{IfName, MainRoute, Observed},
    plan::{Guardfile, Step},
};
use gatewrt_protocol::ExitScope;

fn said(world: &World) -> Vec<Option<Guardfile>> {
    let guard = |output: &Output| match output {
        Output::Guard(guard) => Some(guard.clone()),
        _ => None,
    };
    world.said.iter().filter_map(guard).collect()
}

fn guard() -> Guardfile {
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
            Step::WriteRuleset(ruleset) => kernel.state.ruleset = Some(ruleset),
            Step::AddRoute(route) => drop(kernel.state.routes.insert(route)),
            Step::AddRule(rule) => drop(kernel.state.rules.insert(rule)),
            other => panic!("{other}"),
        }
    }
    kernel
}

fn guarded(world: &World) -> Vec<IfName> {
    let first = gatewrt::ownership::Numbers::default().exit_table;
    let rules = world.kernel.state.rules.iter().filter(|rule| rule.table >= first);
    let mut links: Vec<IfName> = rules.filter_map(|rule| rule.iif.clone()).collect();
    links.dedup();
    links.sort();
    links.dedup();
    links
}

#[test]
fn it_is_said_once_and_taken_back_with_the_last_closed_scope() {
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
fn taking_everything_down_leaves_it_for_the_next_boot() {
    let mut world = world(vec![of_coordinator()], "", None);
    world.feed(Input::Stop { teardown: true });
    world.run(5 * S);
    assert!(world.kernel.state.rules.is_empty());
    assert!(matches!(&said(&world)[..], [Some(_)]));
}

#[test]
fn lans_whose_links_are_not_up_yet_stay_kept_in() {
    let world = crate::scopes::world_on(booted(), vec![of_coordinator()], "", None);
    assert_eq!(guarded(&world), ["br-guest", "br-lan", "lo"].map(link));
    let gone = |step: &Step| matches!(step, Step::DeleteRule(_) | Step::DeleteRuleset);
    assert!(!world.applied.iter().flatten().any(gone), "{:?}", world.applied);
}

#[test]
fn what_is_guarded_stays_while_records_are_missing() {
    let mut world = World::on(booted());
    world.feed(Input::Started(Box::default(), vec![membership([policy(1)].into_iter().collect())]));
    world.run(5 * S);
    assert_eq!(guarded(&world), ["br-guest", "br-lan", "lo"].map(link));
    assert!(world.kernel.state.ruleset.is_some());
    assert_eq!(said(&world), []);
}

/// Its address is still there, and the network that it is connected to.
#[test]
fn a_wan_that_lost_its_default_route_is_no_lan() {
    let mut world = world(vec![of_coordinator()], "", None);
    let connected =
        MainRoute { prefix: "198.51.100.0/24".parse().unwrap(), link: Some(link("wan")), on_link: true };
    world.kernel.state.main_routes = [connected].into();
    world.run(5 * S);
    assert_eq!(guarded(&world), ["br-guest", "br-lan", "lo"].map(link));
    let table = world.kernel.state.ruleset.clone().unwrap();
    assert!(table.0.contains("\"br-lan\"") && !table.0.contains("\"wan\""), "{}", table.0);
}
