//! Decisions of the daemon: what to observe, which state is desired, what to report, when to connect. Pure:
//! [`Core::handle`] takes one input and the time, and returns what is to be done; [`Core::poll_timeout`] tells when it wants
//! to be called again, and why. The same inputs give the same outputs.

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods, reason = "pure: time, files and random bytes come in as values")
)]

pub mod clients;
pub mod desired;
pub mod directory;
pub mod gateways;
pub mod health;
pub mod paths;
pub mod rate_limit;
pub mod rollback;
pub mod rule_conflicts;
pub mod scopes;
pub mod serving;
pub mod session;
pub mod status;
pub mod uplinks;

mod astray;
mod backoff;
mod control_link;
mod ingress;
mod io;
mod lockdown;
mod network;
mod reconcile;
mod report;
mod reporter;

pub use io::{About, Input, LinkEvent, Membership, Output, Uplink};
pub use network::Network;

use crate::{
    config::{Config, NetworkConfig, OwnScope},
    model::{Address, Desired, ObserveQuery, Observed},
    plan::{BootLockdown, Plan},
};
use backoff::Backoff;
use gatewrt_protocol::{Failure, NetworkName};
use litemap::LiteMap;
use lockdown::Lockdown;
use reconcile::Schedule;
use session::Action;
use sorted_vec::SortedSet;
use std::{net::IpAddr, time::Duration};

/// Time since the daemon's start, by a monotonic clock.
pub type Now = Duration;

/// Longest duration of a teardown.
const TEARDOWN: Duration = Duration::from_secs(10);
/// Wait between two attempts to join with a configured code.
const JOIN_RETRY: Duration = Duration::from_secs(15);

/// Core of the daemon, which makes all decisions, with the state that they are made from.
#[derive(Debug)]
pub struct Core {
    about: About,
    config: Config,
    networks: LiteMap<NetworkName, Network>,
    observed: Observed,
    has_observed: bool,
    query: ObserveQuery,
    desired: Desired,
    wall: Duration,
    memory_kib: u64,
    schedule: Schedule,
    backoff: Backoff,
    lockdown: Lockdown,
    /// Parts of the networks' configuration that can't be put in effect.
    config_failures: LiteMap<NetworkName, Vec<Failure>>,
    observe_failure: Option<Failure>,
    unreadable: LiteMap<NetworkName, Unreadable>,
    /// Addresses at which probes are answered.
    listening: SortedSet<IpAddr>,
    stopping: Option<bool>,
    /// The kernel holds nothing of ours after a teardown.
    is_torn_down: bool,
    /// Time at which a teardown is given up.
    stop_by: Option<Now>,
    /// Time at which configured join codes are tried again.
    join_retry: Option<Now>,
    outputs: Vec<Output>,
}

/// Network whose state on disk can't be read.
#[derive(Debug)]
struct Unreadable {
    why: String,
    leaving: bool,
}

impl Core {
    /// Core of a daemon that has no networks yet.
    pub fn new(about: About) -> Self {
        Self {
            about,
            config: Config::default(),
            networks: LiteMap::new(),
            observed: Observed::default(),
            has_observed: false,
            query: ObserveQuery::default(),
            desired: Desired::default(),
            wall: Duration::ZERO,
            memory_kib: 0,
            schedule: Schedule::default(),
            backoff: Backoff::default(),
            lockdown: Lockdown::default(),
            config_failures: LiteMap::new(),
            observe_failure: None,
            unreadable: LiteMap::new(),
            listening: SortedSet::new(),
            stopping: None,
            is_torn_down: false,
            stop_by: None,
            join_retry: None,
            outputs: Vec::new(),
        }
    }

    /// Decides on one input; returns the requests to drivers that follow from it.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        match input {
            Input::Started(config, memberships) => {
                self.handle_config(*config, now);
                memberships.into_iter().for_each(|membership| self.handle_joined(membership, now));
            }
            Input::TakeDown(config, memberships) => {
                (self.stopping, self.stop_by) = (Some(true), Some(now + TEARDOWN));
                self.handle_config(*config, now);
                memberships.into_iter().for_each(|membership| self.handle_joined(membership, now));
            }
            Input::Configured(config) => self.handle_config(*config, now),
            Input::Joined(membership) => self.handle_joined(*membership, now),
            Input::JoinFailed => self.join_retry = Some(now + JOIN_RETRY),
            Input::Leave(name) => self.handle_leave(&name, now),
            Input::Chosen(name, chosen) => self.handle_chosen(&name, chosen, now),
            Input::Link(name, event) => self.handle_link(&name, event, now),
            Input::Changed => self.handle_changed(now),
            Input::Observed { observed, wall, memory_kib } => {
                (self.wall, self.memory_kib) = (wall, memory_kib);
                self.handle_observed(*observed, now);
            }
            Input::ObserveFailed(why) => self.handle_observe_failed(why, now),
            Input::Applied(failures) => self.handle_applied(failures, now),
            Input::LockdownSaved(saved) => self.handle_lockdown_saved(saved, now),
            Input::Probed(name, probe, answer) => self.handle_probed(&name, probe, answer, now),
            Input::Told(name, policy) => self.handle_told(&name, &policy, now),
            Input::Tick => {}
            Input::Stop { teardown } => self.handle_stop(teardown, now),
        }
        self.poll(now);
        std::mem::take(&mut self.outputs)
    }

    /// Time at which the core next needs an [`Input::Tick`], and the reason in words.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        let own = [
            (self.schedule.next(), "observe the kernel"),
            (self.lockdown.poll_timeout(), "write the boot lockdown"),
            (self.join_retry, "join with a configured code"),
            (self.stop_by, "give up the teardown"),
        ];
        let mut first = own.into_iter().filter_map(|(at, why)| Some((at?, why))).min();
        for network in self.active_networks().values() {
            let report = network.report_due(self.config.heartbeat).map(|at| (at, "report"));
            let resync = network.resync_due().map(|at| (at, "request withheld records"));
            let trial = network.trial_deadline().map(|at| (at, "roll back an unconfirmed change"));
            let probe = network.gateways.poll_timeout();
            for due in [network.session.poll_timeout(), report, resync, trial, probe] {
                let is_first = |(at, _): &(Now, _)| first.is_none_or(|(first, _)| *at < first);
                first = due.filter(is_first).or(first);
            }
        }
        first
    }

    /// Registers a network whose state on disk can't be read: its interface is not touched before its owner leaves it.
    pub fn leave_alone(&mut self, network: NetworkName, why: String) {
        self.unreadable.insert(network, Unreadable { why, leaving: false });
    }

    /// True if the state of some network on disk can't be read.
    pub fn has_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Reason why the state of a network on disk can't be read; `None` if it can.
    pub fn unreadable(&self, network: &NetworkName) -> Option<&str> {
        self.unreadable.get(network).map(|network| network.why.as_str())
    }

    /// Networks that this router has joined, by name.
    pub fn networks(&self) -> &LiteMap<NetworkName, Network> {
        &self.networks
    }

    /// Last observation of the kernel.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// True if the kernel was as desired at the last observation.
    pub fn is_settled(&self) -> bool {
        self.schedule.is_settled()
    }

    /// True if a teardown was asked for and is done, false if it is not done; `None` if none was asked for.
    pub fn torn_down(&self) -> Option<bool> {
        (self.stopping == Some(true)).then_some(self.is_torn_down)
    }

    /// Plan from the last observation of the kernel to the desired state.
    pub fn plan(&self) -> Plan {
        Plan::new(&self.observed, &self.desired)
    }

    /// Boot lockdown that is not on disk, if there is one: the driver tries once more at the end.
    pub fn unsaved_lockdown(&self) -> Option<&Option<BootLockdown>> {
        self.lockdown.unsaved()
    }

    fn handle_config(&mut self, config: Config, now: Now) {
        self.config = config;
        self.join_retry = None;
        // Policies made with the old marks are not compared with new ones.
        self.desired.flows = None;
        for (name, network) in &mut self.networks {
            if let Some(port) = self.config.networks.get(name).and_then(|config| config.listen_port) {
                network.membership.port = port.get();
            }
            if !is_enabled(&self.config, name) && network.session.is_open() {
                network.session.handle_lost("the network is disabled in /etc/config/gatewrt".to_owned(), now);
                self.outputs.push(Output::Disconnect(name.clone()));
            }
        }
        self.refresh_reports();
        self.request_reconcile(now);
    }

    fn handle_joined(&mut self, membership: Membership, now: Now) {
        let name = membership.network.clone();
        let network = Network::new(membership, self.about.seed, now);
        if let Some(report) = network.rolled_back() {
            log::warn!("{name}: revision {} is not in effect: {}", report.assignment, report.why);
            self.outputs.push(Output::Save(name.clone()));
        }
        self.networks.insert(name.clone(), network);
        self.feed_members(&name, now);
        self.request_reconcile(now);
    }

    fn handle_leave(&mut self, name: &NetworkName, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.leaving = true;
            self.say_goodbye(name);
            self.request_reconcile(now);
        } else if let Some(network) = self.unreadable.get_mut(name) {
            network.leaving = true;
            self.request_reconcile(now);
        }
    }

    fn handle_chosen(&mut self, name: &NetworkName, chosen: Option<Vec<OwnScope>>, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.membership.chosen = chosen;
            self.request_reconcile(now);
        }
    }

    fn handle_stop(&mut self, teardown: bool, now: Now) {
        self.stopping = Some(teardown);
        let names: Vec<_> = self.networks.keys().cloned().collect();
        names.iter().for_each(|name| self.say_goodbye(name));
        self.stop_by = teardown.then_some(now + TEARDOWN);
        if teardown {
            self.request_reconcile(now);
        } else {
            self.outputs.push(Output::Stopped);
        }
    }

    fn handle_lockdown_saved(&mut self, saved: Result<(), String>, now: Now) {
        let is_news = self.lockdown.handle_saved(saved.is_err(), now);
        if let Err(why) = saved
            && is_news
        {
            log::warn!("what keeps scopes in at the next boot is not on disk: {why}");
        }
    }

    /// Announces to a network's broker that this node is going offline, and disconnects.
    fn say_goodbye(&mut self, name: &NetworkName) {
        let network = self.networks.get(name).filter(|network| network.session.is_connected());
        if let Some(network) = network {
            let presence = network.presence(&self.about.boot, false);
            self.outputs.push(Output::Publish(name.clone(), Uplink::Presence(presence)));
        }
        self.outputs.push(Output::Disconnect(name.clone()));
    }

    fn feed_members(&mut self, name: &NetworkName, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            let members = network.directory.peers().map(|member| (member.key, member.endpoints.as_slice()));
            network.paths.handle_members(network.membership.public, members, now);
        }
    }

    /// Reconnects the control links when the router's way to the Internet changed: an address of it is gone, or it
    /// leads over another interface.
    fn handle_wan(&mut self, before: &Observed, now: Now) {
        let links = uplinks::wan_links(before);
        let is_gone = |address: &&Address| self.observed.addresses.binary_search(address).is_err();
        let mut gone = before.addresses.iter().filter(is_gone);
        let address_gone = gone.any(|address| links.contains(&address.link));
        if links == uplinks::wan_links(&self.observed) && !address_gone {
            return;
        }
        log::info!("the way to the Internet changed");
        for (name, network) in &mut self.networks {
            if let Some(Action::Drop) = network.session.reconnect(now) {
                self.outputs.push(Output::Disconnect(name.clone()));
            }
            network.gateways.handle_wan_changed();
            let peers = network.directory.peers().filter_map(|member| member.addresses.first());
            self.outputs.push(Output::SendKeepalive(peers.copied().collect()));
        }
    }

    fn poll(&mut self, now: Now) {
        if self.schedule.poll(now) {
            self.outputs.push(Output::Observe(self.query.clone()));
        }
        if let Some(lockdown) = self.lockdown.poll(now) {
            self.outputs.push(Output::BootLockdown(lockdown));
        }
        if self.join_retry.take_if(|at| *at <= now).is_some() {
            self.outputs.push(Output::JoinConfigured);
        }
        if self.stop_by.take_if(|at| *at <= now).is_some() {
            log::warn!("not everything of ours could be taken down in {} s", TEARDOWN.as_secs());
            self.outputs.push(Output::Stopped);
        }
        if self.stopping.is_some() {
            return;
        }
        let names: Vec<NetworkName> = self.active_networks().keys().copied().cloned().collect();
        for name in names {
            self.poll_trial(&name, now);
            self.poll_gateways(&name, now);
            self.poll_link(&name, now);
            self.poll_roster(&name, now);
            self.poll_report(&name, now);
        }
    }
}

/// Owner's settings of a network; the defaults where the file has no section for it.
fn owner(config: &Config, name: &NetworkName) -> NetworkConfig {
    config.networks.get(name).cloned().unwrap_or_default()
}

fn is_enabled(config: &Config, name: &NetworkName) -> bool {
    config.enabled && owner(config, name).enabled
}
