//! Routes of ours. A route is known by table, prefix and metric; what it does changes in place. Blackholes come
//! first and go last: nothing gets past them at any moment. After them throw routes and long prefixes: they are the
//! exceptions to the wider ones. What lets out where nothing got out before waits until the rules are right: who is led
//! into a table now may not be who will be.

use super::{Step, link::View};
use crate::{
    gather::Gather,
    model::{Route, RouteKind},
    sorted::{SortedMap, SortedSet, sort_by_key},
};
use gatewrt_protocol::Prefix;
use std::cmp::Reverse;

type Place = (u32, Prefix, u32);

/// IPv6 can hold several routes in one place. A replacement would hit any of them: all but one go first.
pub(super) fn duplicates(view: View<'_>) -> Vec<Step> {
    let there = by_place(view);
    let wanted = wanted(view);
    let extra = |(place, routes): (&Place, &SortedSet<&Route>)| {
        let keep = wanted.get(place).map(|route| routes.get(route).or(routes.first()).copied());
        let extra = routes.iter().copied().filter(move |route| keep.is_some_and(|keep| Some(*route) != keep));
        extra.cloned().gather()
    };
    there.iter().flat_map(extra).map(Step::DeleteRoute).gather()
}

pub(super) fn additions(view: View<'_>) -> Vec<Step> {
    changes(view, |route| !opens(&view.observed.routes, route))
}

/// Those that come after the rules.
pub(super) fn openings(view: View<'_>) -> Vec<Step> {
    changes(view, |route| opens(&view.observed.routes, route))
}

fn changes(view: View<'_>, is_due: impl Fn(&Route) -> bool) -> Vec<Step> {
    let there = by_place(view);
    let mut missing: Vec<_> = wanted(view)
        .into_values()
        .filter(|route| !view.is_unusable(route) && !is_there(&there, route) && is_due(route))
        .gather();
    sort_by_key(&mut missing, |route| precedence(route));
    let step = |route: &Route| match there.contains_key(&place(route)) {
        true => Step::ReplaceRoute(route.clone()),
        false => Step::AddRoute(route.clone()),
    };
    missing.into_iter().map(step).gather()
}

/// Those that let out what nothing is to get out of any more: they go before the rules change.
pub(super) fn closings(view: View<'_>) -> Vec<Step> {
    removals(view, |route| opens(&view.desired.routes, route))
}

pub(super) fn deletions(view: View<'_>) -> Vec<Step> {
    removals(view, |route| !opens(&view.desired.routes, route))
}

fn removals(view: View<'_>, is_due: impl Fn(&Route) -> bool) -> Vec<Step> {
    let wanted = wanted(view);
    let there = by_place(view).into_iter().filter(|(place, _)| !wanted.contains_key(place));
    let mut extra: Vec<_> = there.flat_map(|(_, routes)| routes).filter(|route| is_due(route)).gather();
    sort_by_key(&mut extra, |route| Reverse(precedence(route)));
    extra.into_iter().cloned().map(Step::DeleteRoute).gather()
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

fn wanted(view: View<'_>) -> SortedMap<Place, &Route> {
    view.desired.routes.iter().map(|route| (place(route), route)).collect()
}

fn by_place(view: View<'_>) -> SortedMap<Place, SortedSet<&Route>> {
    let mut places = SortedMap::<_, SortedSet<_>>::new();
    for route in &view.observed.routes {
        places.entry(place(route)).or_default().insert(route);
    }
    places
}

fn is_there(there: &SortedMap<Place, SortedSet<&Route>>, route: &Route) -> bool {
    there.get(&place(route)).is_some_and(|routes| routes.contains(route))
}
