//! Routes of ours. A route is known by table, prefix and metric; what it does changes in place. Blackholes come
//! first and go last: nothing gets past them at any moment. After them throw routes and long prefixes: they are the
//! exceptions to the wider ones. What lets out where nothing got out before waits until the rules are right: who is led
//! into a table now may not be who will be.

use super::{Step, link::View};
use crate::{
    gather::Gather,
    model::{Route, RouteKind},
    sorted::{SortedSet, sort_by_key},
};
use gatewrt_protocol::Prefix;
use std::cmp::Reverse;

type Place = (u32, Prefix, u32);

/// IPv6 can hold several routes in one place. A replacement would hit any of them: all but one go first.
pub(super) fn duplicates(view: View<'_>, steps: &mut Vec<Step>) {
    for wanted in wanted(view) {
        let there = in_place(&view.observed.routes, wanted);
        let keep = if there.contains(wanted) { Some(wanted) } else { there.first() };
        for extra in there.iter().filter(|route| Some(*route) != keep) {
            steps.push(Step::DeleteRoute(extra.clone()));
        }
    }
}

pub(super) fn additions(view: View<'_>, steps: &mut Vec<Step>) {
    change(view, false, steps);
}

/// Those that come after the rules.
pub(super) fn openings(view: View<'_>, steps: &mut Vec<Step>) {
    change(view, true, steps);
}

fn change(view: View<'_>, opening: bool, steps: &mut Vec<Step>) {
    let there = &view.observed.routes;
    let is_due = |route: &&Route| {
        !view.is_unusable(route) && !there.contains(*route) && opens(there, route) == opening
    };
    let mut missing = wanted(view).into_iter().filter(is_due).gather();
    sort_by_key(&mut missing, |route| precedence(route));
    for route in missing {
        let step = if in_place(there, route).is_empty() { Step::AddRoute } else { Step::ReplaceRoute };
        steps.push(step(route.clone()));
    }
}

/// Those that let out what nothing is to get out of any more: they go before the rules change.
pub(super) fn closings(view: View<'_>, steps: &mut Vec<Step>) {
    remove(view, true, steps);
}

pub(super) fn deletions(view: View<'_>, steps: &mut Vec<Step>) {
    remove(view, false, steps);
}

fn remove(view: View<'_>, opening: bool, steps: &mut Vec<Step>) {
    let wanted = &view.desired.routes;
    let is_due = |route: &&Route| in_place(wanted, route).is_empty() && opens(wanted, route) == opening;
    let mut extra = view.observed.routes.iter().filter(is_due).gather();
    sort_by_key(&mut extra, |route| Reverse(precedence(route)));
    for route in extra {
        steps.push(Step::DeleteRoute(route.clone()));
    }
}

impl View<'_> {
    /// Whether it leads to an interface that may be someone else's.
    fn is_unusable(self, route: &Route) -> bool {
        matches!(&route.kind, RouteKind::Device(link) if self.is_taken(link))
    }
}

/// Whether it throws all, or an exception out of a table that holds all back among `routes`.
fn opens(routes: &SortedSet<Route>, route: &Route) -> bool {
    let holds = |other: &Route| {
        (other.table, &other.kind) == (route.table, &RouteKind::Blackhole) && other.prefix.is_default()
    };
    route.kind == RouteKind::Throw && (route.prefix.is_default() || routes.iter().any(holds))
}

fn place(route: &Route) -> Place {
    (route.table, route.prefix, route.metric)
}

/// What comes first where several are added.
fn precedence(route: &Route) -> (u8, Reverse<u8>) {
    let kind = match route.kind {
        RouteKind::Blackhole => 0,
        RouteKind::Throw => 1,
        RouteKind::Device(_) => 2,
    };
    (kind, Reverse(route.prefix.len()))
}

/// One a place.
fn wanted(view: View<'_>) -> Vec<&Route> {
    let routes = &view.desired.routes;
    routes.iter().filter(|route| in_place(routes, route).last() == Some(route)).gather()
}

/// The routes in one place: they stand side by side.
fn in_place<'a>(routes: &'a SortedSet<Route>, like: &Route) -> &'a [Route] {
    let (routes, here) = (routes.iter().as_slice(), place(like));
    let first = routes.partition_point(|route| place(route) < here);
    let behind = routes[first..].iter().take_while(|route| place(route) == here).count();
    &routes[first..first + behind]
}
