//! Settings below `/proc/sys`. Forwarding begins last and ends first: when it begins, IPv6 forgets the routers
//! that it learned on interfaces whose `accept_ra` is not 2 by then (`rt6_purge_dflt_routers` in
//! `net/ipv6/route.c`). Forwarding of all interfaces stands before that of one, in both directions, because the
//! kernel copies the former over the latter (`inet_forward_change` in `net/ipv4/devinet.c`).

use super::{Step, link::View};
use crate::model::{IfName, SysctlPath};

pub(super) fn settings(view: View<'_>, steps: &mut Vec<Step>) {
    let is_so = |path, value| view.observed.sysctls.get(path) == Some(value) || view.is_on_taken(path);
    let wanted = view.desired.sysctls.iter();
    let mut differing = wanted.filter(|(path, value)| !is_so(*path, *value)).collect::<Vec<_>>();
    differing.sort_by_key(|(path, _)| (is_forwarding(path), interface(path).is_some()));
    for (path, value) in differing {
        steps.push(Step::SetSysctl(path.clone(), value.clone()));
    }
}

pub(super) fn restorations(view: View<'_>, steps: &mut Vec<Step>) {
    let saved = view.observed.saved_sysctls.keys();
    let mut unwanted: Vec<_> = saved.filter(|path| !view.desired.sysctls.contains_key(path)).collect();
    unwanted.sort_by_key(|path| (!is_forwarding(path), interface(path).is_some()));
    for path in unwanted {
        steps.push(Step::RestoreSysctl(path.clone()));
    }
}

impl View<'_> {
    fn is_on_taken(self, path: &SysctlPath) -> bool {
        interface(path).is_some_and(|link| self.is_taken(&link))
    }
}

/// Interface in the path `net/ipv4/conf/<interface>/…` of a kernel setting; `None` where it names none.
fn interface(path: &SysctlPath) -> Option<IfName> {
    let mut parts = path.0.split('/').skip_while(|part| *part != "conf").skip(1);
    parts.next().filter(|part| !matches!(*part, "all" | "default")).and_then(IfName::new)
}

fn is_forwarding(path: &SysctlPath) -> bool {
    path.0.ends_with("/forwarding") || path.0.ends_with("/ip_forward")
}
