//! The daemon's decisions: what to observe, what shall be, what to say, when to connect. [`Core::handle`]
//! takes one input and the time, and gives what is to be done; [`Core::poll_timeout`] says when it wants to be
//! called again and why. The same inputs give the same outputs.

pub mod clashes;
pub mod clients;
pub mod confirm;
pub mod desired;
pub mod directory;
pub mod gateways;
pub mod offer;
pub mod paths;
pub mod place;
pub mod report;
pub mod scopes;
pub mod serving;
pub mod session;

mod cycle;
mod ingress;
mod io;
mod network;
mod tries;

pub use io::{About, Input, LinkEvent, Membership, Output, Uplink};
pub use network::Network;

use crate::{
    config::{Config, NetworkConfig, OwnScope},
    gather::Gather,
    kernel::Interest,
    log,
    model::{Desired, Observed},
    plan::Plan,
    sorted::{SortedMap, SortedSet},
};
use cycle::Rhythm;
use directory::{Change, Refusal};
use gatewrt_protocol::{Failure, NetworkName, RecordError, Topic};
use session::Act;
use std::{net::IpAddr, time::Duration};

/// Time since the daemon's start, by a clock that never goes back.
pub type Now = Duration;

/// How often a resync is asked for while records are withheld.
const RESYNC: Duration = Duration::from_secs(60);

/// The daemon's state of mind.
#[derive(Debug)]
pub struct Core {
    about: About,
    config: Config,
    networks: SortedMap<NetworkName, Network>,
    observed: Observed,
    has_observed: bool,
    interest: Interest,
    desired: Desired,
    wall: Duration,
    memory_kib: u64,
    rhythm: Rhythm,
    view_failures: SortedMap<NetworkName, Vec<Failure>>,
    observe_failure: Option<Failure>,
    unreadable: SortedMap<NetworkName, Unreadable>,
    /// Where probes of others are answered.
    listening: SortedSet<IpAddr>,
    stopping: Option<bool>,
    outputs: Vec<Output>,
}

/// A network that is on disk and can't be read.
#[derive(Debug)]
struct Unreadable {
    why: String,
    leaving: bool,
}

impl Core {
    /// A core that knows nothing yet.
    pub fn new(about: About) -> Self {
        Self {
            about,
            config: Config::default(),
            networks: SortedMap::new(),
            observed: Observed::default(),
            has_observed: false,
            interest: Interest::default(),
            desired: Desired::default(),
            wall: Duration::ZERO,
            memory_kib: 0,
            rhythm: Rhythm::default(),
            view_failures: SortedMap::new(),
            observe_failure: None,
            unreadable: SortedMap::new(),
            listening: SortedSet::new(),
            stopping: None,
            outputs: Vec::new(),
        }
    }

    /// Takes in what happened; gives what is to be done.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        match input {
            Input::Started(config, memberships) => {
                self.handle_config(*config, now);
                memberships.into_iter().for_each(|membership| self.handle_joined(membership, now));
            }
            Input::Configured(config) => self.handle_config(*config, now),
            Input::Joined(membership) => self.handle_joined(*membership, now),
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
            Input::Probed(name, probe, answer) => self.handle_probed(&name, probe, answer, now),
            Input::Tick => {}
            Input::Stop { teardown } => self.handle_stop(teardown, now),
        }
        self.poll(now);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        let mut first = self.rhythm.look_at.map(|at| (at, "look at the kernel"));
        for network in self.wanted().values() {
            let report = network.report_due(self.config.heartbeat).map(|at| (at, "report"));
            let resync = network.resync_due().map(|at| (at, "ask for withheld records"));
            let trial = network.trial_deadline().map(|at| (at, "take back what is not confirmed"));
            let probe = network.gateways.poll_timeout();
            for due in [network.session.poll_timeout(), report, resync, trial, probe] {
                let is_first = |(at, _): &(Now, _)| first.is_none_or(|(first, _)| *at < first);
                first = due.filter(is_first).or(first);
            }
        }
        first
    }

    /// This network is on disk and can't be read: what runs of it is not to be touched before its owner leaves it.
    pub fn leave_alone(&mut self, network: NetworkName, why: String) {
        self.unreadable.insert(network, Unreadable { why, leaving: false });
    }

    /// Why a network that is on disk can't be read.
    pub fn unreadable(&self, network: &NetworkName) -> Option<&str> {
        self.unreadable.get(network).map(|network| network.why.as_str())
    }

    /// The networks, by name.
    pub fn networks(&self) -> &SortedMap<NetworkName, Network> {
        &self.networks
    }

    /// The kernel as it was last seen.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Whether the kernel is as it shall be.
    pub fn is_settled(&self) -> bool {
        self.rhythm.settled
    }

    /// What would be done to the kernel as it was last seen.
    pub fn plan(&self) -> Plan {
        Plan::new(&self.observed, &self.desired)
    }

    fn handle_config(&mut self, config: Config, now: Now) {
        self.config = config;
        // What was made from the old numbers is not taken over.
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
        self.want_anew(now);
    }

    fn handle_joined(&mut self, membership: Membership, now: Now) {
        let name = membership.network.clone();
        let network = Network::new(membership, self.about.seed, now);
        if let Some(taken) = network.taken_back() {
            log::warn!("{name}: revision {} is not in effect: {}", taken.assignment, taken.why);
            self.outputs.push(Output::Save(name.clone()));
        }
        self.networks.insert(name.clone(), network);
        self.tell_paths(&name, now);
        self.want_anew(now);
    }

    fn handle_leave(&mut self, name: &NetworkName, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.leaving = true;
            self.say_goodbye(name);
            self.want_anew(now);
        } else if let Some(network) = self.unreadable.get_mut(name) {
            network.leaving = true;
            self.want_anew(now);
        }
    }

    fn handle_chosen(&mut self, name: &NetworkName, chosen: Option<Vec<OwnScope>>, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.membership.chosen = chosen;
            self.want_anew(now);
        }
    }

    fn handle_stop(&mut self, teardown: bool, now: Now) {
        self.stopping = Some(teardown);
        let names: Vec<_> = self.networks.keys().cloned().gather();
        names.iter().for_each(|name| self.say_goodbye(name));
        if teardown && !(self.networks.is_empty() && self.unreadable.is_empty()) {
            self.want_anew(now);
        } else {
            self.outputs.push(Output::Stopped);
        }
    }

    fn say_goodbye(&mut self, name: &NetworkName) {
        let network = self.networks.get(name).filter(|network| network.session.is_connected());
        if let Some(network) = network {
            let presence = network.presence(&self.about.boot, false);
            self.outputs.push(Output::Publish(name.clone(), Uplink::Presence(presence)));
        }
        self.outputs.push(Output::Disconnect(name.clone()));
    }

    fn handle_link(&mut self, name: &NetworkName, event: LinkEvent, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        match event {
            LinkEvent::Connected => {
                network.session.handle_connected(now);
                network.trial.handle_connected(network.session.sent());
                network.disagrees_since = network.disagrees_since.map(|_| now);
                network.check_roster(now);
                network.said = None;
                network.said_at = None;
                log::info!("{name}: control link is up");
                let presence = network.presence(&self.about.boot, true);
                network.session.handle_sent(now);
                self.outputs.push(Output::Publish(name.clone(), Uplink::Presence(presence)));
            }
            LinkEvent::Message(topic, payload) => {
                network.session.handle_delivery();
                self.handle_message(name, &topic, &payload, now);
            }
            LinkEvent::TooLong(topic, bytes) => {
                network.refuse(
                    &topic,
                    &Refusal::Record(RecordError::TooLong(bytes, gatewrt_protocol::MAX_ASSIGNMENT)),
                );
            }
            LinkEvent::Acked => self.handle_acked(name),
            LinkEvent::Unsent => {
                network.session.handle_unsent();
                network.trial.handle_unsent(network.session.sent());
            }
            LinkEvent::Lost(why) => {
                log::info!("{name}: control link lost: {why}");
                network.session.handle_lost(why, now);
            }
        }
    }

    fn handle_message(&mut self, name: &NetworkName, topic: &str, payload: &[u8], now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        if matches!(topic.parse(), Ok(Topic::Command(_))) {
            return;
        }
        match network.directory.accept(topic, payload) {
            Ok(Change::Nothing) => network.check_roster(now),
            Ok(change @ (Change::Something | Change::Removal)) => {
                // While there is news, more may be on its way: 500 records take a slow router most of a minute.
                network.disagrees_since = None;
                network.check_roster(now);
                network.judge(now);
                self.outputs.push(Output::Save(name.clone()));
                if change == Change::Removal {
                    self.outputs.push(Output::Flush(name.clone()));
                }
                if network.directory.is_removed() {
                    log::warn!("{name}: this node was removed from the network by the coordinator");
                    self.outputs.push(Output::Disconnect(name.clone()));
                }
                self.tell_paths(name, now);
                self.want_anew(now);
            }
            Err(refusal) => network.refuse(topic, &refusal),
        }
    }

    fn tell_paths(&mut self, name: &NetworkName, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            let members = network.directory.peers().map(|member| (member.key, member.endpoints.as_slice()));
            network.paths.handle_members(network.membership.public, members, now);
        }
    }

    /// The way to the Internet changed when an address of it is gone or it leads over another interface.
    fn handle_wan(&mut self, before: &Observed, now: Now) {
        let links = place::wan_links(before);
        let gone = before.addresses.difference(&self.observed.addresses);
        let address_gone = gone.into_iter().any(|address| links.contains(&address.link));
        if links == place::wan_links(&self.observed) && !address_gone {
            return;
        }
        log::info!("the way to the Internet changed");
        for (name, network) in &mut self.networks {
            if let Some(Act::Drop) = network.session.handle_wan_changed(now) {
                self.outputs.push(Output::Disconnect(name.clone()));
            }
            network.gateways.handle_moved();
            let peers = network.directory.peers().filter_map(|member| member.addresses.first());
            self.outputs.push(Output::Poke(peers.copied().gather()));
        }
    }

    fn poll(&mut self, now: Now) {
        if self.rhythm.look_at.is_some_and(|at| at <= now)
            && !self.rhythm.observing
            && self.rhythm.applying.is_none()
        {
            self.rhythm.look_at = None;
            self.rhythm.looked = now;
            self.rhythm.observing = true;
            self.outputs.push(Output::Observe(self.interest.clone()));
        }
        if self.stopping.is_some() {
            return;
        }
        let names: Vec<NetworkName> = self.wanted().into_keys().cloned().gather();
        for name in names {
            self.poll_trial(&name, now);
            self.poll_gateways(&name, now);
            self.poll_link(&name, now);
            self.poll_roster(&name, now);
            self.poll_report(&name, now);
        }
    }

    fn poll_link(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        match network.session.poll(now) {
            Some(Act::Connect(broker)) => {
                network.broker = broker;
                network.directory.handle_connecting();
                let will = network.presence(&self.about.boot, false);
                let broker = network.membership.brokers.get(broker).cloned().unwrap_or_default();
                let known = network.known_at(&broker);
                self.outputs.push(Output::Connect { network: name.clone(), broker, known, will });
            }
            Some(Act::Drop) => self.outputs.push(Output::Disconnect(name.clone())),
            None => {}
        }
    }

    /// While records are withheld, ask for them again by connecting anew.
    fn poll_roster(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        if network.resync_due().is_none_or(|at| at > now) {
            return;
        }
        if network.directory.purge() {
            log::info!("{name}: forgot nodes that the network no longer has");
            network.check_roster(now);
            self.outputs.push(Output::Save(name.clone()));
            self.want_anew(now);
            return;
        }
        if network.resync_at.is_none() {
            log::warn!(
                "{name}: the roster names records that did not come: withheld or rolled back by the broker"
            );
        }
        network.resync_at = Some(now + RESYNC);
        network.session.handle_wan_changed(now);
        self.outputs.push(Output::Disconnect(name.clone()));
    }
}

/// What the owner says of a network; the defaults where the file has no section of it.
fn owner(config: &Config, name: &NetworkName) -> NetworkConfig {
    config.networks.get(name).cloned().unwrap_or_default()
}

fn is_enabled(config: &Config, name: &NetworkName) -> bool {
    config.enabled && owner(config, name).enabled
}
