//! Boot lockdown: closed scopes while no daemon runs, from the first link that comes up after a reboot until the daemon
//! has looked. Pure: from desired state to a small file, and from the file to steps. It only adds; the daemon adopts
//! what it finds and changes what differs.

use super::{Firewall, Step, TableUpdate};
use crate::{
    model::{
        BaseChain, Chain, ChainPolicy, ChainType, Desired, Exits, Family, FirewallTable, Hook, IfName,
        Observed, Priority, Route, RouteKind, Rule, ScopeGuard, Source,
    },
    ownership::ReservedNumbers,
};
use gatewrt_protocol::Prefix;
use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use sorted_vec::SortedSet;
use std::{net::IpAddr, str::FromStr, sync::Arc};

/// Boot lockdown of closed scopes, as its file holds it. Rules and routes are lines that a person can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLockdown {
    table: FirewallTable,
    /// `<4|6> <priority> <mask> <table> [iif <link>] [from <prefix>]`
    rules: Vec<String>,
    /// `<table> <prefix> <metric> <throw|blackhole>`
    routes: Vec<String>,
}

impl BootLockdown {
    /// Boot lockdown of the closed scopes; `None` when no scope is closed. It changes with the scopes and the LANs, not
    /// with the exits in use nor with the WAN: those are not there yet when it is needed, and the file is on flash.
    pub fn new(desired: &Desired, numbers: &ReservedNumbers) -> Option<Self> {
        let place = |rule: &Rule| rule.priority.checked_sub(numbers.exit_priority);
        let scopes = || desired.exits.scopes.iter().map(|((at, _), scope)| (*at, scope));
        let closed: LiteMap<u32, &ScopeGuard> = scopes().filter(|(_, scope)| scope.closed).collect();
        if closed.is_empty() {
            return None;
        }
        let scope_of = |rule: &Rule| place(rule).and_then(|at| closed.get(&at).copied());
        let rules: Vec<(&Rule, &ScopeGuard)> =
            desired.rules.iter().filter_map(|rule| Some((rule, scope_of(rule)?))).collect();
        let tables: LiteMap<u32, &ScopeGuard> =
            rules.iter().map(|(rule, scope)| (rule.table, *scope)).collect();
        let is_lasting = |route: &&Route| {
            tables.get(&route.table).is_some_and(|scope| is_lasting(route, &of_the_wan(scope)))
        };
        Some(Self {
            table: table(&desired.exits, numbers),
            rules: rules.iter().map(|(rule, _)| rule_line(rule)).collect(),
            routes: desired.routes.iter().filter(is_lasting).map(route_line).collect(),
        })
    }

    /// Boot lockdown for when its file can't be read: nothing at all is forwarded until the daemon runs.
    pub fn of_everything() -> Self {
        let base = BaseChain {
            kind: ChainType::Filter,
            hook: Hook::Forward,
            priority: Priority::Filter,
            policy: ChainPolicy::Drop,
        };
        let forward = Chain { name: "forward".into(), base: Some(base), rules: Vec::new() };
        let table = FirewallTable { sets: Vec::new(), chains: vec![forward] };
        Self { table, rules: Vec::new(), routes: Vec::new() }
    }

    /// Steps for what the kernel lacks of the boot lockdown, and the lines that can't be parsed. Objects that the
    /// daemon has changed since stay as they are.
    pub fn steps(&self, observed: &Observed) -> (Vec<Step>, Vec<&str>) {
        let (mut steps, mut damaged) = (Vec::new(), Vec::new());
        if observed.ruleset.is_none() {
            steps.push(Step::WriteRuleset(TableUpdate::new(None, Arc::new(self.table.clone()))));
        }
        let place = |route: &Route| (route.table, route.prefix, route.metric);
        let taken: SortedSet<_> = observed.routes.iter().map(place).collect();
        for line in &self.routes {
            match route(line) {
                Some(route) if taken.binary_search(&place(&route)).is_ok() => (),
                Some(route) => steps.push(Step::AddRoute(route)),
                None => damaged.push(line.as_str()),
            }
        }
        for line in &self.rules {
            match rule(line) {
                Some(rule) if observed.rules.binary_search(&rule).is_ok() => (),
                Some(rule) => steps.push(Step::AddRule(rule)),
                None => damaged.push(line.as_str()),
            }
        }
        (steps, damaged)
    }
}

/// Firewall table of the boot lockdown, with what tells the scopes' packets, and nothing that depends on exits or the
/// WAN but its name.
fn table(exits: &Exits, numbers: &ReservedNumbers) -> FirewallTable {
    let scope = |scope: &ScopeGuard| ScopeGuard {
        v6_wan: false,
        resolvers: Vec::new(),
        router_answers: false,
        exclude: if has_router(scope) { SortedSet::new() } else { scope.exclude.clone() },
        ..scope.clone()
    };
    let scopes = exits.scopes.iter().map(|(key, guard)| (key.clone(), scope(guard))).collect();
    let (strangers, local) = (exits.strangers.clone(), exits.local.clone());
    let exits = Exits { scopes, strangers, local, uplinks: exits.uplinks.clone(), ..Exits::default() };
    Firewall { numbers: numbers.clone(), exits, bypass: true, ..Firewall::default() }.table()
}

fn has_router(scope: &ScopeGuard) -> bool {
    scope.sources.contains(&Source::Router)
}

/// Destinations excluded from the router's scope that come and go with the WAN.
fn of_the_wan(scope: &ScopeGuard) -> SortedSet<Prefix> {
    let is_of_links = |prefix: &&Prefix| match prefix.addr() {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    };
    scope.exclude.iter().filter(|prefix| has_router(scope) && !is_of_links(prefix)).copied().collect()
}

fn is_lasting(route: &Route, of_the_wan: &SortedSet<Prefix>) -> bool {
    match route.kind {
        RouteKind::Blackhole => true,
        RouteKind::Throw => !route.prefix.is_default() && !of_the_wan.contains(&route.prefix),
        RouteKind::Device(_) => false,
    }
}

fn rule_line(rule: &Rule) -> String {
    let family = if rule.family == Family::V4 { 4 } else { 6 };
    let Rule { priority, mask, table, iif, from, .. } = rule;
    let mut line = format!("{family} {priority} {mask} {table}");
    iif.iter().for_each(|iif| line += &format!(" iif {iif}"));
    from.iter().for_each(|from| line += &format!(" from {from}"));
    line
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split(' ');
    let family = match words.next()? {
        "4" => Family::V4,
        "6" => Family::V6,
        _ => return None,
    };
    let (priority, mask) = (next(&mut words)?, next(&mut words)?);
    let table = next(&mut words)?;
    let (mut iif, mut from) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "iif" => iif = Some(IfName::new(words.next()?)?),
            "from" => from = Some(next(&mut words)?),
            _ => return None,
        }
    }
    // A rule that fits every packet would belong to no scope.
    (iif.is_some() || from.is_some()).then_some(Rule {
        family,
        priority,
        mark: 0,
        mask,
        invert: false,
        table,
        iif,
        from,
    })
}

fn route_line(route: &Route) -> String {
    let kind = if route.kind == RouteKind::Throw { "throw" } else { "blackhole" };
    format!("{} {} {} {kind}", route.table, route.prefix, route.metric)
}

fn route(line: &str) -> Option<Route> {
    let mut words = line.split(' ');
    let table = next(&mut words)?;
    let prefix = next(&mut words)?;
    let metric = next(&mut words)?;
    let kind = match words.next()? {
        "throw" => RouteKind::Throw,
        "blackhole" => RouteKind::Blackhole,
        _ => return None,
    };
    words.next().is_none().then_some(Route { table, prefix, metric, kind })
}

fn next<T: FromStr>(words: &mut std::str::Split<'_, char>) -> Option<T> {
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ruleset;

    fn link(name: &str) -> IfName {
        IfName::new(name).unwrap()
    }

    fn prefixes(texts: &[&str]) -> SortedSet<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn source(at: u32, iif: &str) -> [Rule; 2] {
        Family::ALL.map(|family| Rule {
            family,
            priority: 910 + at,
            mark: 0,
            mask: 0x0f00_0000,
            invert: false,
            table: 26500 + at,
            iif: Some(link(iif)),
            from: None,
        })
    }

    fn to(at: u32, prefix: &str, metric: u32, kind: RouteKind) -> Route {
        Route { table: 26500 + at, prefix: prefix.parse().unwrap(), metric, kind }
    }

    /// State with two scopes, a LAN and the router, by this exit and WAN.
    fn desired(exit: &str, uplink: &str) -> Desired {
        let scope = |sources: &[Source], exclude: &[&str]| ScopeGuard {
            sources: sources.iter().cloned().collect(),
            closed: true,
            redirects: true,
            exclude: prefixes(exclude),
            resolvers: vec![[9, 9, 9, exit.len() as u8].into()],
            ..ScopeGuard::default()
        };
        let lan = scope(&[Source::Link(link("br-lan"))], &["198.51.100.0/24"]);
        let router = scope(&[Source::Router], &[uplink, "fe80::/10"]);
        let exits = Exits {
            scopes: [((0, "lan".parse().unwrap()), lan), ((1, "router".parse().unwrap()), router)]
                .into_iter()
                .collect(),
            ours: [link(exit)].into_iter().collect(),
            local: [(link("br-lan"), prefixes(&["192.168.1.0/24"]))].into_iter().collect(),
            meshes: [(link(exit), prefixes(&["10.9.0.0/16"]))].into_iter().collect(),
            ..Exits::default()
        };
        let mut routes = Vec::new();
        for at in [0, 1] {
            routes.push(to(at, "0.0.0.0/0", u32::MAX, RouteKind::Blackhole));
            routes.push(to(at, "::/0", u32::MAX, RouteKind::Blackhole));
            routes.push(to(at, "0.0.0.0/0", 512, RouteKind::Device(link(exit))));
            routes.push(to(at, "::/0", 512, RouteKind::Throw));
            routes.push(to(at, "192.168.1.0/24", 512, RouteKind::Throw));
        }
        routes.push(to(0, "198.51.100.0/24", 512, RouteKind::Throw));
        routes.push(to(1, uplink, 512, RouteKind::Throw));
        routes.push(to(1, "fe80::/10", 512, RouteKind::Throw));
        let networks = Rule { invert: true, priority: 900, iif: None, ..source(0, "lo")[0].clone() };
        let rules = [source(0, "br-lan"), source(1, "lo")].into_iter().flatten().chain([networks]);
        Desired { exits, routes: routes.into_iter().collect(), rules: rules.collect(), ..Desired::default() }
    }

    fn file(exit: &str, uplink: &str) -> BootLockdown {
        BootLockdown::new(&desired(exit, uplink), &ReservedNumbers::default()).expect("something to keep in")
    }

    #[test]
    fn file_of_closed_scopes_gives_their_rules_routes_and_table() {
        let desired = desired("gw-home", "203.0.113.0/24");
        let text = serde_json::to_string(&file("gw-home", "203.0.113.0/24")).unwrap();
        let read: BootLockdown = serde_json::from_str(&text).unwrap();
        let (steps, damaged) = read.steps(&Observed::default());
        assert_eq!(damaged, [""; 0]);
        let is_shut = |update: &TableUpdate| update.table.chain(&"shut-lan".into()).is_some();
        assert!(matches!(steps.first(), Some(Step::WriteRuleset(update)) if is_shut(update)));
        let routes: SortedSet<Route> = steps
            .iter()
            .filter_map(|step| match step {
                Step::AddRoute(route) => Some(route.clone()),
                _ => None,
            })
            .collect();
        let expected = desired.routes.iter().filter(|route| {
            let default = route.prefix.is_default() && route.kind != RouteKind::Blackhole;
            !default && route.prefix != "203.0.113.0/24".parse().unwrap()
        });
        assert_eq!(routes, expected.cloned().collect());
        let rules: SortedSet<Rule> = steps
            .iter()
            .filter_map(|step| match step {
                Step::AddRule(rule) => Some(rule.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(rules, desired.rules.iter().filter(|rule| rule.priority > 900).cloned().collect());
        // Rules lead in when all else stands.
        assert!(
            steps
                .iter()
                .skip_while(|step| !matches!(step, Step::AddRule(_)))
                .all(|step| matches!(step, Step::AddRule(_)))
        );
        let there = Observed { routes, rules, ruleset: Some(Ruleset::Unknown), ..Observed::default() };
        assert_eq!(read.steps(&there), (vec![], vec![]));
    }

    #[test]
    fn file_with_another_exit_or_wan_stays_the_same() {
        let file = file("gw-home", "203.0.113.0/24");
        assert_eq!(file, self::file("gw-~abcdefghijk", "192.0.2.0/24"));
        let table = serde_json::to_string(&file.table).unwrap();
        for word in ["203.0.113", "gw-", "9.9.9."] {
            assert!(!table.contains(word), "{word}");
        }
    }

    #[test]
    fn router_without_closed_scope_has_no_file() {
        let mut desired = desired("gw-home", "203.0.113.0/24");
        let open = |scope: &ScopeGuard| ScopeGuard { closed: false, ..scope.clone() };
        desired.exits.scopes =
            desired.exits.scopes.iter().map(|(key, scope)| (key.clone(), open(scope))).collect();
        assert_eq!(BootLockdown::new(&desired, &ReservedNumbers::default()), None);
        assert_eq!(BootLockdown::new(&Desired::default(), &ReservedNumbers::default()), None);
    }

    #[test]
    fn damaged_lines_are_reported_and_others_applied() {
        let mut file = file("gw-home", "203.0.113.0/24");
        let whole = file.steps(&Observed::default()).0.len();
        for bad in
            ["4 910 0 26500", "5 910 0 26500 iif lo", "4 910 0 26500 iif", "4 910 0 26500 iif lo x", ""]
        {
            file.rules.push(bad.to_owned());
        }
        for bad in ["26500 0.0.0.0/0 1 device", "26500 0.0.0.0/99 1 throw", "26500 0.0.0.0/0 1 throw x", ""] {
            file.routes.push(bad.to_owned());
        }
        let (steps, damaged) = file.steps(&Observed::default());
        assert_eq!((steps.len(), damaged.len()), (whole, 9));
    }
}
