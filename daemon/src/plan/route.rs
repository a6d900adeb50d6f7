//! Routes of ours. A route is known by table, prefix and metric; its type changes in place. Blackholes are added first and
//! deleted last: nothing gets past them at any moment. Throw routes and long prefixes follow: they are exceptions to the
//! wider ones. A route that opens a closed destination waits until the rules are right: packets that are led into the table
//! now may not be those that will be.

use super::{Step, link::View};
use crate::model::{Route, RouteKind};
use gatewrt_protocol::Prefix;
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::cmp::Reverse;

type Place = (u32, Prefix, u32);

/// Routes by their place in the kernel (table, prefix, metric): IPv6 can hold several in one.
struct Places<'a>(LiteMap<Place, Vec<&'a Route>>);

impl<'a> Places<'a> {
    fn of(routes: &'a SortedSet<Route>) -> Self {
        let mut places = LiteMap::<_, Vec<_>>::new();
        for route in routes {
            places.entry(place(route)).or_default().push(route);
        }
        Self(places)
    }

    /// Routes in the same place as this one (table, prefix, metric).
    fn like(&self, route: &Route) -> &[&'a Route] {
        self.0.get(&place(route)).map_or(&[], Vec::as_slice)
    }
}

/// Steps that delete all but one of several routes in one place, which IPv6 allows: a replacement would hit any of
/// them.
pub(super) fn duplicates(view: View<'_>, steps: &mut Vec<Step>) {
    let places = Places::of(&view.observed.routes);
    for wanted in wanted(view) {
        let there = places.like(wanted);
        let keep = if there.contains(&wanted) { Some(&wanted) } else { there.first() };
        for extra in there.iter().filter(|route| Some(*route) != keep) {
            steps.push(Step::DeleteRoute((*extra).clone()));
        }
    }
}

pub(super) fn additions(view: View<'_>, steps: &mut Vec<Step>) {
    change(view, false, steps);
}

/// Steps for routes that open a closed destination, which are added after the rules.
pub(super) fn openings(view: View<'_>, steps: &mut Vec<Step>) {
    change(view, true, steps);
}

fn change(view: View<'_>, opening: bool, steps: &mut Vec<Step>) {
    let there = &view.observed.routes;
    let is_due = |route: &&Route| {
        !view.is_unusable(route) && there.binary_search(route).is_err() && opens(there, route) == opening
    };
    let mut missing = wanted(view).into_iter().filter(is_due).collect::<Vec<_>>();
    missing.sort_by_key(|route| precedence(route));
    let places = Places::of(there);
    for route in missing {
        let step = if places.like(route).is_empty() { Step::AddRoute } else { Step::ReplaceRoute };
        steps.push(step(route.clone()));
    }
}

/// Steps for routes that let packets out of a table that is to be closed: they are replaced before the rules change.
pub(super) fn closings(view: View<'_>, steps: &mut Vec<Step>) {
    remove(view, true, steps);
}

pub(super) fn deletions(view: View<'_>, steps: &mut Vec<Step>) {
    remove(view, false, steps);
}

fn remove(view: View<'_>, opening: bool, steps: &mut Vec<Step>) {
    let wanted = &view.desired.routes;
    let places = Places::of(wanted);
    let is_due = |route: &&Route| places.like(route).is_empty() && opens(wanted, route) == opening;
    let mut extra = view.observed.routes.iter().filter(is_due).collect::<Vec<_>>();
    extra.sort_by_key(|route| Reverse(precedence(route)));
    for route in extra {
        steps.push(Step::DeleteRoute(route.clone()));
    }
}

impl View<'_> {
    /// True if a route leads to an interface that may be another program's.
    fn is_unusable(self, route: &Route) -> bool {
        matches!(&route.kind, RouteKind::Device(link) if self.is_taken(link))
    }
}

/// True if a route throws all, or an exception out of a table that holds all back among `routes`.
fn opens(routes: &SortedSet<Route>, route: &Route) -> bool {
    let holds = |other: &Route| {
        (other.table, &other.kind) == (route.table, &RouteKind::Blackhole) && other.prefix.is_default()
    };
    route.kind == RouteKind::Throw && (route.prefix.is_default() || routes.iter().any(holds))
}

fn place(route: &Route) -> Place {
    (route.table, route.prefix, route.metric)
}

/// Sort key of a route in the order in which routes are added.
fn precedence(route: &Route) -> (u8, Reverse<u8>) {
    let kind = match route.kind {
        RouteKind::Blackhole => 0,
        RouteKind::Throw => 1,
        RouteKind::Device(_) => 2,
    };
    (kind, Reverse(route.prefix.len()))
}

/// Desired routes, one in each place (table, prefix, metric).
fn wanted(view: View<'_>) -> Vec<&Route> {
    Places::of(&view.desired.routes).0.into_iter().filter_map(|(_, mut routes)| routes.pop()).collect()
}
