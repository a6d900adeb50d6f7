//! Interfaces, addresses, routes and rules: their state, and one change at a time. Bytes and indices of the files below
//! get names here, and foreign objects are told from ours.

pub mod attr;
pub mod socket;

mod address;
mod link;
mod route;
mod rule;

pub use link::FoundLink;

use super::KernelError;
use crate::{
    model::{Address, Family, ForeignRoute, IfName, LinkKind, Observed, Route, RouteKind, Rule},
    ownership::{INTERFACE_PREFIX, PROTOCOL},
};
use address::FoundAddress;
use litemap::LiteMap;
use nix::libc::{self, EADDRNOTAVAIL, EEXIST, ENODEV, ENOENT, EOPNOTSUPP, ESRCH};
use route::{Filter, FoundRoute, OurRoute, Target};
use socket::{NetlinkError, Socket};
use sorted_vec::SortedSet;
use std::fmt::Display;

/// `RT_TABLE_MAIN`
const MAIN: u32 = 254;
/// `RTPROT_KERNEL`
const KERNEL: u8 = 2;
/// Kernel version since which addresses keep the protocol number they were added with.
const ADDRESS_PROTOCOL_SINCE: (u32, u32) = (5, 18);

type Names = LiteMap<u32, IfName>;

/// Interfaces, addresses, routes and policy rules of a kernel, over rtnetlink.
pub struct Network {
    socket: Socket,
    addresses_keep_protocol: bool,
}

impl Network {
    /// Opens an rtnetlink socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE);
        Ok(Self {
            socket: socket.map_err(|e| e.at("open rtnetlink"))?,
            addresses_keep_protocol: kernel_version() >= ADDRESS_PROTOCOL_SINCE,
        })
    }

    /// Reads interfaces, addresses, routes and policy rules, with the routes of others in `tables`.
    pub fn observe(&mut self, tables: &SortedSet<u32>, observed: &mut Observed) -> Result<(), KernelError> {
        let names = self.observe_links(observed).map_err(|e| e.at("read the interfaces"))?;
        self.observe_addresses(&names, observed).map_err(|e| e.at("read the addresses"))?;
        for family in Family::ALL {
            self.observe_routes(family, &names, observed).map_err(|e| e.at("read the routes"))?;
            for table in tables {
                let found = self.foreign_routes(family, *table, &names);
                let found = found.map_err(|e| e.at("read the routes of others"))?;
                observed.foreign_routes.entry(*table).or_default().extend(found);
            }
            let rules = rule::rules(&mut self.socket, family).map_err(|e| e.at("read the rules"))?;
            for found in rules.into_iter().filter(|found| !found.is_kernels()) {
                match found.is_ours() {
                    true => drop(observed.rules.push(found.rule)),
                    false => drop(observed.foreign_rules.push(found)),
                }
            }
        }
        Ok(())
    }

    fn observe_links(&mut self, observed: &mut Observed) -> Result<Names, NetlinkError> {
        let found = link::links(&mut self.socket)?;
        let names = found.iter().map(|f| (f.link.index, f.name.clone())).collect();
        observed.links.extend(found.into_iter().map(|f| (f.name, f.link)));
        Ok(names)
    }

    fn observe_addresses(&mut self, names: &Names, observed: &mut Observed) -> Result<(), NetlinkError> {
        for found in address::addresses(&mut self.socket, None)? {
            let Some(link) = names.get(&found.index) else { continue };
            let address = Address { link: link.clone(), addr: found.addr, len: found.len };
            if self.owns(link, &found) {
                observed.our_addresses.push(address.clone());
            }
            observed.addresses.push(address);
        }
        Ok(())
    }

    fn observe_routes(
        &mut self,
        family: Family,
        names: &Names,
        observed: &mut Observed,
    ) -> Result<(), NetlinkError> {
        let ours = route::routes(&mut self.socket, family, Filter::Ours)?;
        observed.routes.extend(ours.into_iter().filter_map(|r| our_route(r, names)));
        observed.main_routes.extend(self.foreign_routes(family, MAIN, names)?);
        Ok(())
    }

    fn foreign_routes(
        &mut self,
        family: Family,
        table: u32,
        names: &Names,
    ) -> Result<Vec<ForeignRoute>, NetlinkError> {
        let found = route::routes(&mut self.socket, family, Filter::Table(table))?;
        Ok(found.into_iter().filter_map(|route| main_route(route, names)).collect())
    }

    fn owns(&self, link: &IfName, found: &FoundAddress) -> bool {
        let whole = found.len == if found.addr.is_ipv4() { 32 } else { 128 };
        match self.addresses_keep_protocol {
            true => found.ours,
            false => whole && link.as_str().starts_with(INTERFACE_PREFIX),
        }
    }

    /// Looks for the interface of this name; `None` when there is none.
    pub fn link(&mut self, name: &IfName) -> Result<Option<FoundLink>, KernelError> {
        link::link(&mut self.socket, name).map_err(|e| e.at(format_args!("look for interface {name}")))
    }

    /// True if the kernel has an interface of this kind.
    pub fn has(&mut self, kind: LinkKind) -> Result<bool, KernelError> {
        let links = link::links(&mut self.socket).map_err(|e| e.at("read the interfaces"))?;
        Ok(links.iter().any(|found| found.link.kind == kind))
    }

    /// Makes a kernel WireGuard interface; `false` when this kernel has no WireGuard.
    pub fn add_wireguard(&mut self, name: &IfName, mtu: u32) -> Result<bool, KernelError> {
        match link::add_wireguard(&mut self.socket, name, mtu) {
            Err(error) if error.is(&[EOPNOTSUPP]) => Ok(false),
            Err(error) if error.is(&[EEXIST]) => self.expect_wireguard(name).map(|()| true),
            other => tried(other, "add interface", name).map(|()| true),
        }
    }

    fn expect_wireguard(&mut self, name: &IfName) -> Result<(), KernelError> {
        match self.link(name)? {
            Some(found) if found.link.kind == LinkKind::WireGuard => Ok(()),
            _ => Err(KernelError::Conflict(format!("an interface {name} is there that is not WireGuard"))),
        }
    }

    /// Removes a network interface; one that is gone already is no error.
    pub fn delete_link(&mut self, found: &FoundLink) -> Result<(), KernelError> {
        let outcome = link::delete(&mut self.socket, found.link.index);
        tried(gone(outcome), "delete interface", &found.name)
    }

    /// Sets the MTU of a network interface, in bytes.
    pub fn set_mtu(&mut self, name: &IfName, mtu: u32) -> Result<(), KernelError> {
        let index = self.index(name)?;
        let outcome = link::set_mtu(&mut self.socket, index, mtu);
        outcome.map_err(|e| e.at(format_args!("set the MTU of {name} to {mtu}")))
    }

    /// Sets a network interface up.
    pub fn set_up(&mut self, name: &IfName) -> Result<(), KernelError> {
        let index = self.index(name)?;
        link::set_up(&mut self.socket, index).map_err(|e| e.at(format_args!("set {name} up")))
    }

    /// Adds an address to an interface; one of ours that is there already is no error.
    pub fn add_address(&mut self, address: &Address) -> Result<(), KernelError> {
        let index = self.index(&address.link)?;
        match address::add(&mut self.socket, index, address) {
            Err(error) if error.is(&[EEXIST]) => self.expect_our_address(index, address),
            other => tried(other, "add", &text(address)),
        }
    }

    fn expect_our_address(&mut self, index: u32, address: &Address) -> Result<(), KernelError> {
        match self.find_address(index, address)? {
            Some(found) if found.len == address.len && self.owns(&address.link, &found) => Ok(()),
            Some(found) => {
                let standing = Address { len: found.len, ..address.clone() };
                Err(KernelError::Conflict(format!("{} is there already, and not ours", text(&standing))))
            }
            None => Err(KernelError::Refused(format!("{} comes and goes", text(address)))),
        }
    }

    /// Deletes an address of an interface, if it is ours.
    pub fn delete_address(&mut self, address: &Address) -> Result<(), KernelError> {
        let Some(link) = self.link(&address.link)? else { return Ok(()) };
        let found = self.find_address(link.link.index, address)?;
        if !found.is_some_and(|f| f.len == address.len && self.owns(&address.link, &f)) {
            return Ok(());
        }
        let outcome = address::delete(&mut self.socket, link.link.index, address);
        tried(gone(outcome), "delete", &text(address))
    }

    fn find_address(&mut self, index: u32, address: &Address) -> Result<Option<FoundAddress>, KernelError> {
        let found = address::addresses(&mut self.socket, Some(index));
        let found = found.map_err(|e| e.at("read the addresses"))?;
        let mut same: Vec<_> = found.into_iter().filter(|f| f.addr == address.addr).collect();
        // IPv4 has an address several times, with different lengths.
        same.sort_by_key(|f| f.len == address.len);
        Ok(same.pop())
    }

    /// Adds a route of ours; a conflict where another route has its place.
    pub fn add_route(&mut self, wanted: &Route) -> Result<(), KernelError> {
        let ours = self.resolve(wanted)?;
        match route::add(&mut self.socket, &ours) {
            Err(error) if error.is(&[EEXIST]) => match self.standing(wanted)? {
                Standing::Ours(kind) if kind == wanted.kind => Ok(()),
                Standing::Ours(_) => Err(in_the_way(wanted, "another one of ours")),
                Standing::Foreign(what) => Err(in_the_way(wanted, &what)),
                Standing::Nothing => Err(KernelError::Refused(format!("route {wanted} comes and goes"))),
            },
            other => tried(other, "add route", wanted),
        }
    }

    /// Changes what a route of ours does, in place; adds it when it is not there.
    pub fn replace_route(&mut self, wanted: &Route) -> Result<(), KernelError> {
        let ours = self.resolve(wanted)?;
        let outcome = match self.standing(wanted)? {
            Standing::Ours(kind) if kind == wanted.kind => Ok(()),
            Standing::Ours(_) => route::replace(&mut self.socket, &ours),
            Standing::Foreign(what) => return Err(in_the_way(wanted, &what)),
            Standing::Nothing => return self.add_route(wanted),
        };
        tried(outcome, "change route", wanted)
    }

    /// Deletes a route of ours; one that is gone already is no error.
    pub fn delete_route(&mut self, wanted: &Route) -> Result<(), KernelError> {
        if let RouteKind::Device(name) = &wanted.kind
            && self.link(name)?.is_none()
        {
            return Ok(());
        }
        let ours = self.resolve(wanted)?;
        // For the kernel metric 0 is any metric, and for IPv6 a throw route or a blackhole any route.
        let vague = wanted.metric == 0 || ours.device.is_none();
        if vague && !matches!(self.standing(wanted)?, Standing::Ours(kind) if kind == wanted.kind) {
            return Ok(());
        }
        let outcome = route::delete(&mut self.socket, &ours);
        tried(gone(outcome), "delete route", wanted)
    }

    fn resolve(&mut self, wanted: &Route) -> Result<OurRoute, KernelError> {
        let device = match &wanted.kind {
            RouteKind::Device(name) => Some(self.index(name)?),
            RouteKind::Throw | RouteKind::Blackhole => None,
        };
        let blackhole = wanted.kind == RouteKind::Blackhole;
        Ok(OurRoute { table: wanted.table, prefix: wanted.prefix, metric: wanted.metric, device, blackhole })
    }

    /// Route that has the place of `wanted`: of its table, prefix and metric.
    fn standing(&mut self, wanted: &Route) -> Result<Standing, KernelError> {
        let family = Family::of(&wanted.prefix);
        let found = route::routes(&mut self.socket, family, Filter::Table(wanted.table));
        let found = found.map_err(|e| e.at("read the routes"))?;
        let links = link::links(&mut self.socket).map_err(|e| e.at("read the interfaces"))?;
        let names: Names = links.into_iter().map(|l| (l.link.index, l.name)).collect();
        let mut standing = Standing::Nothing;
        let same = |r: &FoundRoute| r.prefix == wanted.prefix && r.metric == wanted.metric && !r.narrowed;
        for route in found.into_iter().filter(same) {
            let protocol = route.protocol;
            match our_route(route, &names) {
                Some(ours) => standing = Standing::Ours(ours.kind),
                None => return Ok(Standing::Foreign(format!("a route of protocol {protocol}"))),
            }
        }
        Ok(standing)
    }

    /// Adds a policy rule of ours; a conflict where a rule of others reads alike.
    pub fn add_rule(&mut self, wanted: &Rule) -> Result<(), KernelError> {
        match rule::add(&mut self.socket, wanted) {
            Err(error) if error.is(&[EEXIST]) => {
                if self.has_rule(wanted)? {
                    return Ok(());
                }
                let what = format!("a rule that reads alike is there already: rule {wanted}");
                Err(KernelError::Conflict(what))
            }
            other => tried(other, "add rule", wanted),
        }
    }

    /// Deletes a policy rule of ours; one that is gone already is no error.
    pub fn delete_rule(&mut self, wanted: &Rule) -> Result<(), KernelError> {
        // For the kernel mark 0 is any mark, no interface any, and an inverted rule as good as one that is not.
        if !self.has_rule(wanted)? {
            return Ok(());
        }
        tried(gone(rule::delete(&mut self.socket, wanted)), "delete rule", wanted)
    }

    fn has_rule(&mut self, wanted: &Rule) -> Result<bool, KernelError> {
        let found = rule::rules(&mut self.socket, wanted.family).map_err(|e| e.at("read the rules"))?;
        Ok(found.iter().any(|r| r.is_ours() && r.rule == *wanted))
    }

    fn index(&mut self, name: &IfName) -> Result<u32, KernelError> {
        let found = self.link(name)?;
        found
            .map(|f| f.link.index)
            .ok_or_else(|| KernelError::Refused(format!("there is no interface {name}")))
    }
}

enum Standing {
    Nothing,
    Ours(RouteKind),
    Foreign(String),
}

fn tried(outcome: Result<(), NetlinkError>, verb: &str, what: &dyn Display) -> Result<(), KernelError> {
    outcome.map_err(|e| e.at(format_args!("{verb} {what}")))
}

/// Turns the error “not there” of a delete into success.
fn gone(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.is(&[ENOENT, ESRCH, EADDRNOTAVAIL, ENODEV]) => Ok(()),
        other => other,
    }
}

/// Route of ours; `None` for one that we could not have made, whatever protocol number it carries.
fn our_route(found: FoundRoute, names: &Names) -> Option<Route> {
    let kind = match found.target {
        Target::Device(index) => RouteKind::Device(names.get(&index)?.clone()),
        Target::Throw => RouteKind::Throw,
        Target::Blackhole => RouteKind::Blackhole,
        Target::Gateway(_) | Target::Other => return None,
    };
    let ours = found.protocol == PROTOCOL && !found.narrowed;
    ours.then_some(Route { table: found.table, prefix: found.prefix, metric: found.metric, kind })
}

/// Route of others; `None` for ours, for those that the kernel makes by itself for an interface of ours, for throw
/// routes and for routes of some packets only.
fn main_route(found: FoundRoute, names: &Names) -> Option<ForeignRoute> {
    let (index, on_link) = match found.target {
        Target::Device(index) => (Some(index), true),
        Target::Gateway(index) => (Some(index), false),
        Target::Blackhole | Target::Other => (None, false),
        Target::Throw => return None,
    };
    let link = match index {
        Some(index) => Some(names.get(&index)?.clone()),
        None => None,
    };
    let made = |l: &IfName| found.protocol == KERNEL && l.as_str().starts_with(INTERFACE_PREFIX);
    let ours = found.protocol == PROTOCOL || link.as_ref().is_some_and(made);
    (!ours && !found.narrowed).then_some(ForeignRoute { prefix: found.prefix, link, on_link })
}

fn in_the_way(wanted: &Route, what: &str) -> KernelError {
    KernelError::Conflict(format!("route {wanted} can't stand: {what} has its place"))
}

fn text(address: &Address) -> String {
    format!("address {}/{} on {}", address.addr, address.len, address.link)
}

fn kernel_version() -> (u32, u32) {
    let name = nix::sys::utsname::uname();
    let release = name.as_ref().ok().and_then(|n| n.release().to_str()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

const _: () = assert!(libc::RT_TABLE_MAIN as u32 == MAIN);
