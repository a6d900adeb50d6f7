//! The daemon's decisions: what to observe, what shall be, what to say, when to connect. [`Core::handle`]
//! takes one input and the time, and gives what is to be done; [`Core::poll_timeout`] says when it wants to be
//! called again and why. The same inputs give the same outputs.

pub mod desired;
pub mod directory;
pub mod paths;
pub mod report;
pub mod session;

use crate::{
    config::{Config, NetworkConfig},
    kernel::Interest,
    model::{Desired, IfName, Observed, SysctlPath, WgSecret},
    plan::Plan,
};
use directory::{Change, Directory, Refusal};
use gatewrt_protocol::{
    Applied, Failure, NetworkId, NetworkName, NodeId, NodeName, Presence, PublicKey, RecordError, Report,
    Topic, WgPublicKey,
};
use paths::Paths;
use session::{Act, Session};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Time since the daemon's start, by a clock that never goes back.
pub type Now = Duration;

/// How often WireGuard is looked at: it tells no one when a peer is removed.
const LOOK: Duration = Duration::from_millis(1500);
/// How long kernel events are gathered before one look.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Two reports are at least this far apart.
const REPORT_GAP: Duration = Duration::from_secs(2);
/// How long the roster may disagree with the records before that counts as withheld.
const WITHHELD: Duration = Duration::from_secs(5);
/// How often a resync is asked for while records are withheld.
const RESYNC: Duration = Duration::from_secs(60);
/// First wait after an apply that did not settle the kernel.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest such wait.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Facts about this run of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Random, new with each start.
    pub boot: String,
    /// Of the program.
    pub version: String,
    /// What the router is.
    pub board: String,
    /// Spreads retries of many routers.
    pub seed: u32,
}

/// A network this router has joined.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The network's name.
    pub network: NetworkName,
    /// Its id.
    pub net: NetworkId,
    /// The id this router has in it.
    pub node: NodeId,
    /// The name this router had when it joined.
    pub name: NodeName,
    /// Verifies the coordinator's records.
    pub record_key: PublicKey,
    /// WireGuard private key.
    pub secret: WgSecret,
    /// Its public key.
    pub public: WgPublicKey,
    /// UDP port.
    pub port: u16,
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
    /// Records as they were stored: topic and text.
    pub stored: BTreeMap<String, String>,
}

/// What happens to the daemon.
#[derive(Debug)]
pub enum Input {
    /// The owner's settings were read, at start or anew.
    Configured(Box<Config>),
    /// A network was read from disk or joined.
    Joined(Box<Membership>),
    /// The owner leaves a network.
    Leave(NetworkName),
    /// News of a control link.
    Link(NetworkName, LinkEvent),
    /// Kernel objects changed.
    Changed,
    /// The kernel was read.
    Observed {
        /// As it is.
        observed: Box<Observed>,
        /// The router's clock, since the Unix epoch.
        wall: Duration,
        /// Resident memory of the daemon, in KiB.
        memory_kib: u64,
    },
    /// The kernel could not be read.
    ObserveFailed(String),
    /// A plan was carried out; what failed of it.
    Applied(Vec<Failure>),
    /// Only the time went on.
    Tick,
    /// The daemon is to end; with `teardown` it takes all that is ours out of the kernel first.
    Stop {
        /// See above.
        teardown: bool,
    },
}

/// News of a control link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and subscribed.
    Connected,
    /// A message came: topic and content.
    Message(String, Vec<u8>),
    /// A message came that is too long to be held: topic and length in bytes.
    TooLong(String, usize),
    /// Something sent was acknowledged.
    Acked,
    /// The link is gone.
    Lost(String),
}

/// What a node sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// To its report topic.
    Report(Box<Report>),
    /// To its presence topic.
    Presence(Presence),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Open the control link; the presence is its will.
    Connect {
        /// Of this network.
        network: NetworkName,
        /// `host:port`
        broker: String,
        /// The will.
        will: Presence,
    },
    /// Drop the control link.
    Disconnect(NetworkName),
    /// Sign and publish, retained.
    Publish(NetworkName, Uplink),
    /// Read the kernel.
    Observe(Interest),
    /// Carry out a plan.
    Apply(Plan),
    /// Keep these records; the driver limits how often.
    Save(NetworkName, BTreeMap<String, String>),
    /// A network is out of the kernel: its state on disk goes too.
    Forget(NetworkName),
    /// Send a packet to each of these overlay addresses, so that peers learn our new endpoint.
    Poke(Vec<IpAddr>),
    /// Everything asked for at the stop is done.
    Stopped,
}

/// One network as the core knows it.
#[derive(Debug)]
pub struct Network {
    /// Identity.
    pub membership: Membership,
    /// Records.
    pub directory: Directory,
    /// Endpoints.
    pub paths: Paths,
    session: Session,
    broker: usize,
    applied: Applied,
    refused: BTreeMap<&'static str, u64>,
    last_refusal: Option<Failure>,
    disagrees_since: Option<Now>,
    resync_at: Option<Now>,
    said: Option<Report>,
    said_at: Option<Now>,
    /// Whether what was said may no longer be so.
    stale: bool,
    seq: u64,
    leaving: bool,
}

/// When the kernel is looked at next, and how far an apply has come.
#[derive(Debug, Default)]
struct Rhythm {
    look_at: Option<Now>,
    observing: bool,
    applying: bool,
    /// Applies in a row that did not end in an empty plan.
    unsettled: u32,
    retry_at: Option<Now>,
    settled: bool,
}

/// The daemon's state of mind.
#[derive(Debug)]
pub struct Core {
    about: About,
    config: Config,
    networks: BTreeMap<NetworkName, Network>,
    observed: Observed,
    has_observed: bool,
    interest: Interest,
    desired: Desired,
    wall: Duration,
    memory_kib: u64,
    rhythm: Rhythm,
    apply_failures: Vec<Failure>,
    view_failures: BTreeMap<NetworkName, Vec<Failure>>,
    observe_failure: Option<Failure>,
    stopping: Option<bool>,
    outputs: Vec<Output>,
}

impl Core {
    /// A core that knows nothing yet.
    pub fn new(about: About) -> Self {
        Self {
            about,
            config: Config::default(),
            networks: BTreeMap::new(),
            observed: Observed::default(),
            has_observed: false,
            interest: Interest::default(),
            desired: Desired::default(),
            wall: Duration::ZERO,
            memory_kib: 0,
            rhythm: Rhythm::default(),
            apply_failures: Vec::new(),
            view_failures: BTreeMap::new(),
            observe_failure: None,
            stopping: None,
            outputs: Vec::new(),
        }
    }

    /// Takes in what happened; gives what is to be done.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        match input {
            Input::Configured(config) => self.handle_config(*config, now),
            Input::Joined(membership) => self.handle_joined(*membership, now),
            Input::Leave(name) => self.handle_leave(&name, now),
            Input::Link(name, event) => self.handle_link(&name, event, now),
            Input::Changed => self.look_by(now + DEBOUNCE),
            Input::Observed { observed, wall, memory_kib } => {
                (self.wall, self.memory_kib) = (wall, memory_kib);
                self.handle_observed(*observed, now);
            }
            Input::ObserveFailed(why) => self.handle_observe_failed(why, now),
            Input::Applied(failures) => self.handle_applied(failures, now),
            Input::Tick => {}
            Input::Stop { teardown } => self.handle_stop(teardown, now),
        }
        self.poll(now);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        let look = self.rhythm.look_at.map(|at| (at, "look at the kernel"));
        let links = self.wanted().into_values().flat_map(|network| {
            let report = network.report_due(self.config.heartbeat).map(|at| (at, "report"));
            let resync = network.resync_due().map(|at| (at, "ask for withheld records"));
            [network.session.poll_timeout(), report, resync].into_iter().flatten()
        });
        links.chain(look).min()
    }

    /// The networks, by name.
    pub fn networks(&self) -> &BTreeMap<NetworkName, Network> {
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
        for (name, network) in &mut self.networks {
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
        self.networks.insert(name.clone(), network);
        self.tell_paths(&name, now);
        self.want_anew(now);
    }

    fn handle_leave(&mut self, name: &NetworkName, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.leaving = true;
            self.say_goodbye(name);
            self.want_anew(now);
        }
    }

    fn handle_stop(&mut self, teardown: bool, now: Now) {
        self.stopping = Some(teardown);
        let names: Vec<_> = self.networks.keys().cloned().collect();
        names.iter().for_each(|name| self.say_goodbye(name));
        if teardown && !self.networks.is_empty() {
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
                network.refuse(&topic, &Refusal::Record(RecordError::TooLong(bytes)));
            }
            LinkEvent::Acked => network.session.handle_delivery(),
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
            Ok(Change::Something) => {
                network.check_roster(now);
                self.outputs.push(Output::Save(name.clone(), network.directory.stored()));
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
            network.paths.handle_members(members, now);
        }
    }

    /// What shall be may have changed: look at once, and count retries from the start.
    fn want_anew(&mut self, now: Now) {
        self.rhythm.unsettled = 0;
        self.rhythm.retry_at = None;
        self.look_by(now);
    }

    fn look_by(&mut self, at: Now) {
        self.rhythm.look_at = Some(self.rhythm.look_at.map_or(at, |before| before.min(at)));
    }

    fn handle_observed(&mut self, observed: Observed, now: Now) {
        self.rhythm.observing = false;
        self.observe_failure = None;
        self.look_by(now + LOOK);
        let before = std::mem::replace(&mut self.observed, observed);
        if self.has_observed {
            self.handle_wan(&before, now);
        }
        self.has_observed = true;
        self.feed_paths(now);
        self.decide(now);
        self.refresh_reports();
    }

    fn decide(&mut self, now: Now) {
        let wanted = desired::desired(&self.config, &self.wanted(), &self.gone_links(), &self.observed);
        self.view_failures = wanted.failures;
        self.desired = wanted.desired;
        let interest = self.interest_of(wanted.reads);
        if interest != self.interest {
            self.interest = interest;
            self.look_by(now);
            return;
        }
        let plan = Plan::new(&self.observed, &self.desired);
        self.rhythm.settled = plan.steps.is_empty();
        if plan.steps.is_empty() {
            self.handle_settled(now);
            return;
        }
        match self.rhythm.retry_at.filter(|at| *at > now) {
            Some(later) => self.look_by(later),
            None if self.rhythm.applying => {}
            None => {
                self.rhythm.applying = true;
                self.outputs.push(Output::Apply(plan));
            }
        }
    }

    /// The networks that shall be in the kernel.
    fn wanted(&self) -> BTreeMap<&NetworkName, &Network> {
        let all = self.networks.iter().filter(|_| self.stopping != Some(true));
        all.filter(|(name, network)| network.is_wanted() && is_enabled(&self.config, name)).collect()
    }

    /// The interfaces that shall not. One whose records are merely not known is left as it runs.
    fn gone_links(&self) -> BTreeSet<IfName> {
        let wanted = self.wanted();
        self.networks.keys().filter(|name| !wanted.contains_key(name)).map(IfName::from).collect()
    }

    fn interest_of(&self, mut sysctls: BTreeSet<SysctlPath>) -> Interest {
        sysctls.extend(self.desired.sysctls.keys().cloned());
        sysctls.extend(self.observed.saved_sysctls.keys().cloned());
        Interest { sysctls, tunnels: self.networks.keys().map(IfName::from).collect() }
    }

    /// The kernel is as it shall be.
    fn handle_settled(&mut self, now: Now) {
        self.rhythm.unsettled = 0;
        self.rhythm.retry_at = None;
        self.apply_failures.clear();
        for network in self.networks.values_mut() {
            network.note_applied();
        }
        let left: Vec<_> = self.networks.iter().filter(|(_, network)| network.leaving).collect();
        let left: Vec<NetworkName> = left.into_iter().map(|(name, _)| name.clone()).collect();
        for name in left {
            self.networks.remove(&name);
            self.outputs.push(Output::Forget(name));
            self.look_by(now);
        }
        if self.stopping == Some(true) {
            self.outputs.push(Output::Stopped);
        }
    }

    fn handle_applied(&mut self, failures: Vec<Failure>, now: Now) {
        self.rhythm.applying = false;
        self.rhythm.unsettled += 1;
        if failures != self.apply_failures {
            failures.iter().for_each(|failure| log::warn!("could not {}: {}", failure.what, failure.why));
        }
        // One apply may need a second round, for what a first step brought to light; then ever slower.
        let wait = match self.rhythm.unsettled {
            1 | 2 => Duration::ZERO,
            n => FIRST_RETRY.saturating_mul(1 << (n - 3).min(10)).min(LONGEST_RETRY),
        };
        self.rhythm.retry_at = Some(now + wait);
        self.apply_failures = failures;
        self.look_by(now);
    }

    fn handle_observe_failed(&mut self, why: String, now: Now) {
        self.rhythm.observing = false;
        self.rhythm.settled = false;
        let failure = Failure { what: "read the kernel's network state".to_owned(), why };
        if self.observe_failure.as_ref() != Some(&failure) {
            log::warn!("could not {}: {}", failure.what, failure.why);
        }
        self.observe_failure = Some(failure);
        self.look_by(now + 2 * LOOK);
        if self.stopping == Some(true) {
            self.outputs.push(Output::Stopped);
        }
    }

    /// The way to the Internet changed when an address of it is gone or it leads over another interface.
    fn handle_wan(&mut self, before: &Observed, now: Now) {
        let links = report::wan_links(before);
        let gone = before.addresses.difference(&self.observed.addresses);
        let address_gone = gone.into_iter().any(|address| links.contains(&address.link));
        if links == report::wan_links(&self.observed) && !address_gone {
            return;
        }
        log::info!("the way to the Internet changed");
        for (name, network) in &mut self.networks {
            if let Some(Act::Drop) = network.session.handle_wan_changed(now) {
                self.outputs.push(Output::Disconnect(name.clone()));
            }
            let peers = network.directory.peers().filter_map(|member| member.addresses.first());
            self.outputs.push(Output::Poke(peers.copied().collect()));
        }
    }

    fn poll(&mut self, now: Now) {
        if self.rhythm.look_at.is_some_and(|at| at <= now) && !self.rhythm.observing && !self.rhythm.applying
        {
            self.rhythm.look_at = None;
            self.rhythm.observing = true;
            self.outputs.push(Output::Observe(self.interest.clone()));
        }
        if self.stopping.is_some() {
            return;
        }
        let names: Vec<NetworkName> = self.wanted().into_keys().cloned().collect();
        for name in names {
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
                self.outputs.push(Output::Connect { network: name.clone(), broker, will });
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
            self.outputs.push(Output::Save(name.clone(), network.directory.stored()));
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

    fn poll_report(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get(name).filter(|_| self.has_observed) else { return };
        let Some(due) = network.report_due(self.config.heartbeat).filter(|due| *due <= now) else { return };
        let beat = network.said_at.is_none_or(|at| at + self.config.heartbeat <= due);
        let report = self.report(name, network, now);
        let facts = facts_of(report.clone());
        let Some(network) = self.networks.get_mut(name) else { return };
        network.stale = false;
        if !beat && network.said.as_ref() == Some(&facts) {
            return;
        }
        network.seq += 1;
        network.said = Some(facts);
        network.said_at = Some(now);
        network.session.handle_sent(now);
        let report = Report { seq: network.seq, ..report };
        self.outputs.push(Output::Publish(name.clone(), Uplink::Report(Box::new(report))));
    }

    /// What was said last may no longer be so.
    fn refresh_reports(&mut self) {
        self.networks.values_mut().for_each(|network| network.stale = true);
    }

    fn failures_of(&self, name: &NetworkName, network: &Network) -> Vec<Failure> {
        let mut all: Vec<Failure> =
            self.observe_failure.iter().chain(&self.apply_failures).cloned().collect();
        all.extend(self.view_failures.get(name).into_iter().flatten().cloned());
        all.extend(network.last_refusal.clone());
        if network.directory.is_removed() {
            all.push(Failure {
                what: format!("be part of {name}"),
                why: format!(
                    "the coordinator removed this node: “gatewrt leave {name}”, then join with a new code"
                ),
            });
        }
        if network.resync_at.is_some() {
            all.push(Failure {
                what: "know all nodes".to_owned(),
                why: "the roster names records that did not come: withheld or rolled back by the broker"
                    .to_owned(),
            });
        }
        all.truncate(16);
        all
    }
}

impl Network {
    fn new(membership: Membership, seed: u32, now: Now) -> Self {
        let mut directory = Directory::new(membership.net, membership.node, membership.record_key);
        for (topic, token) in &membership.stored {
            if let Err(refusal) = directory.restore(topic, token) {
                log::warn!("{}: a stored record on {topic} is of no use: {refusal}", membership.network);
            }
        }
        let session = Session::new(membership.brokers.len(), seed ^ u32::from(membership.port), now);
        Self {
            membership,
            directory,
            paths: Paths::default(),
            session,
            broker: 0,
            applied: Applied::default(),
            refused: BTreeMap::new(),
            last_refusal: None,
            disagrees_since: None,
            resync_at: None,
            said: None,
            said_at: None,
            stale: true,
            seq: 0,
            leaving: false,
        }
    }

    fn refuse(&mut self, topic: &str, refusal: &Refusal) {
        log::warn!("{}: refused a message on {topic}: {refusal}", self.membership.network);
        *self.refused.entry(refusal.reason()).or_default() += 1;
        let what = format!("take in a message on {}", topic.chars().take(80).collect::<String>());
        self.last_refusal = Some(Failure { what, why: refusal.to_string() });
    }

    fn is_wanted(&self) -> bool {
        !self.leaving && !self.directory.is_removed()
    }

    fn presence(&self, boot: &str, online: bool) -> Presence {
        let Membership { net, node, .. } = self.membership;
        Presence { net, node, boot: boot.to_owned(), session: self.session.number(), online }
    }

    /// When a report is due: at once after connecting, soon when something may have changed, else at the
    /// next heartbeat.
    fn report_due(&self, heartbeat: Duration) -> Option<Now> {
        let since = self.session.connected_since()?;
        let wait = if self.stale { REPORT_GAP.min(heartbeat) } else { heartbeat };
        Some(self.said_at.map_or(since, |at| at + wait))
    }

    /// When records that the roster names, but that did not come, are asked for again.
    fn resync_due(&self) -> Option<Now> {
        self.session.connected_since()?;
        let doubt = self.disagrees_since? + WITHHELD;
        Some(self.resync_at.map_or(doubt, |at| at.max(doubt)))
    }

    fn check_roster(&mut self, now: Now) {
        match self.directory.agrees() {
            Some(false) => drop(self.disagrees_since.get_or_insert(now)),
            _ => (self.disagrees_since, self.resync_at) = (None, None),
        }
    }

    fn note_applied(&mut self) {
        let rev = |policy: Option<u64>| policy.unwrap_or_default();
        self.applied.policy = rev(self.directory.policy().map(|policy| policy.rev));
        self.applied.assignment = rev(self.directory.assignment().map(|assignment| assignment.rev));
        if self.directory.agrees() == Some(true) {
            self.applied.roster = rev(self.directory.roster().map(|roster| roster.rev));
        }
    }
}

/// What the owner says of a network; the defaults where the file has no section of it.
fn owner(config: &Config, name: &NetworkName) -> NetworkConfig {
    config.networks.get(name).cloned().unwrap_or_default()
}

fn is_enabled(config: &Config, name: &NetworkName) -> bool {
    config.enabled && owner(config, name).enabled
}

/// The parts of a report whose change is news; the rest waits for the next heartbeat.
fn facts_of(report: Report) -> Report {
    let applied = Applied { roster: 0, ..report.applied };
    Report { seq: 0, uptime_s: 0, memory_kib: 0, peers: Vec::new(), peer_count: 0, applied, ..report }
}
