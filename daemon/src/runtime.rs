//! Event loop around the core: feeds it inputs and executes its outputs, one at a time, on one thread. It decides nothing
//! itself; deadlines are the core's and the record persisters'.

mod calls;
mod joining;
mod links;
mod memberships;
mod persister;
mod system;

use crate::{
    apply::apply,
    config::{
        Config, WireGuard,
        last::{self, Loaded},
    },
    control::{self, Calls},
    core::{About, Core, Input, LinkEvent, Membership, Output, desired::is_secondary},
    error_chain::error_chain,
    identity::{self, Identity},
    kernel::{
        Kernel, KernelError,
        linux::{LinuxKernel, Options},
        watch::Watch,
    },
    model::{IfName, ObserveQuery},
    probe::{self, Ask, Probes},
    show::{Answer, Done},
    store::{Store, StoreError},
};
use data_encoding::HEXLOWER;
use gatewrt_protocol::NetworkName;
use joining::Joining;
use links::Links;
use litemap::LiteMap;
pub use memberships::memberships;
use memberships::{identities, membership};
use persister::{Latest, RecordPersister};
use std::{
    collections::VecDeque,
    fs, io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Longest wait for an event when nothing is due.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Wait of a starting daemon for the one before it: a service is stopped some time before its process is gone.
const HANDOVER: Duration = Duration::from_secs(3);
/// Wait of a teardown for a running daemon: it may be at a long step, and the service kills it after ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Error that keeps the daemon from running.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that it needs at the start is missing.
    #[error("{0}")]
    Start(String),
    /// The kernel can't be used.
    #[error(transparent)]
    Kernel(KernelError),
    /// The stored state can't be read.
    #[error(transparent)]
    Store(StoreError),
    /// The run-time directory can't be used.
    #[error("can't use the run-time directory {}: {error}{}", path.display(), advice(error))]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        _ => "",
    }
}

/// Text for a teardown that is done.
pub const TORN_DOWN: &str =
    "Everything of it is taken down: tunnels, rules, routes, firewall table and settings.";

/// Opens the kernel, with the configured WireGuard and firewall.
pub fn kernel(config: &Config) -> Result<LinuxKernel, KernelError> {
    let userspace = match &config.wireguard {
        WireGuard::Program(program) => Some(program.clone()),
        WireGuard::Auto | WireGuard::Kernel => None,
    };
    let kernel_only = config.wireguard == WireGuard::Kernel;
    LinuxKernel::new(Options {
        run_dir: config.run_dir.clone(),
        userspace,
        kernel_only,
        firewall: config.firewall,
        ..Options::default()
    })
}

/// Runs the daemon until it is stopped. `file` is the configuration's.
pub async fn run(file: PathBuf) -> Result<(), RunError> {
    let loaded = last::load(&file);
    let config = loaded.config.clone();
    crate::log::init(config.log_level);
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    // Before the socket exists: a reload signal at that moment must not end the process.
    let mut signals = Signals::catch()?;
    let unusable = |error| RunError::RunDir { path: config.run_dir.clone(), error };
    let claim = control::claim(&config.run_dir, &config.state_dir, HANDOVER).map_err(unusable)?;
    let mut calls = control::listen(&config.run_dir, claim).map_err(unusable)?;
    let mut daemon = Daemon::new(file, config)?;
    log::info!("gatewrt {} is running", env!("CARGO_PKG_VERSION"));
    daemon.start()?;
    daemon.keep(&loaded);
    daemon.turn(&mut calls, &mut signals).await?;
    calls.finish().await;
    Ok(())
}

/// Takes everything of ours out of the kernel, once no daemon runs any more. Fails if something is left.
pub async fn take_down(file: PathBuf) -> Result<(), RunError> {
    let config = Config::load(&file);
    crate::log::init(config.log_level);
    let unusable = |error| RunError::RunDir { path: config.run_dir.clone(), error };
    let _claim = control::claim(&config.run_dir, &config.state_dir, PATIENCE).map_err(unusable)?;
    let mut daemon = Daemon::new(file, config.clone())?;
    let identities = daemon.stored_identities()?;
    let memberships = identities.into_iter().map(|identity| daemon.take_up(identity)).collect();
    daemon.feed(Input::TakeDown(Box::new(config), memberships));
    while !daemon.stopped {
        tokio::time::sleep_until(daemon.due().into()).await;
        daemon.handle_due();
    }
    match daemon.core.torn_down() {
        Some(true) => Ok(()),
        _ => Err(RunError::Start(daemon.left_over())),
    }
}

/// Has OpenWrt's service end, so that it starts no other daemon for the one that stops.
pub use system::stop_service;

fn unwatched(error: io::Error) -> RunError {
    RunError::Start(format!("can't watch the system: {error}"))
}

/// Signals that end the daemon or make it reload.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> Result<Self, RunError> {
        let catch = |kind| signal(kind).map_err(unwatched);
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }
}

/// Request to leave a network that is under way.
struct Leaving {
    network: NetworkName,
    /// The coordinator had removed this node before.
    is_removed: bool,
    reply: oneshot::Sender<Answer>,
}

/// Daemon with the state of its event loop.
struct Daemon {
    file: PathBuf,
    config: Config,
    started: Instant,
    about: About,
    core: Core,
    kernel: LinuxKernel,
    store: Store,
    identities: LiteMap<NetworkName, Identity>,
    persisters: LiteMap<NetworkName, RecordPersister>,
    links: Links,
    probes: Probes,
    joining: Joining,
    leaving: Vec<Leaving>,
    stopping: Vec<oneshot::Sender<Answer>>,
    stopped: bool,
}

impl Daemon {
    fn new(file: PathBuf, config: Config) -> Result<Self, RunError> {
        let start = |error: identity::NoRandomness| RunError::Start(error.to_string());
        let boot = identity::nonce::<5>().map_err(start)?;
        let seed = identity::nonce::<4>().map_err(start)?;
        let about = About {
            boot: HEXLOWER.encode(&boot),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            board: system::board(),
            seed: u32::from_ne_bytes(seed),
        };
        Ok(Self {
            core: Core::new(about.clone()),
            kernel: kernel(&config).map_err(RunError::Kernel)?,
            store: Store::new(&config.state_dir),
            file,
            config,
            started: Instant::now(),
            about,
            identities: LiteMap::new(),
            persisters: LiteMap::new(),
            links: Links::new(),
            probes: Probes::default(),
            joining: Joining::new(),
            leaving: Vec::new(),
            stopping: Vec::new(),
            stopped: false,
        })
    }

    /// Brings up the networks on disk before anything else is waited for.
    fn start(&mut self) -> Result<(), RunError> {
        self.drop_used_codes();
        let mut identities = self.stored_identities()?;
        self.move_ports(&mut identities);
        let memberships = identities.into_iter().map(|identity| self.take_up(identity)).collect();
        self.feed(Input::Started(Box::new(self.config.clone()), memberships));
        self.join_configured();
        Ok(())
    }

    /// Identities of the networks on disk; one that can't be read is left alone.
    fn stored_identities(&mut self) -> Result<Vec<Identity>, RunError> {
        let (identities, unreadable) = identities(&self.store).map_err(RunError::Store)?;
        for (network, why) in unreadable {
            log::error!("{network} is left as it runs: {why}");
            self.core.leave_alone(network, why);
        }
        Ok(identities)
    }

    /// Opens the files of a network on disk; returns this router's membership in it.
    fn take_up(&mut self, identity: Identity) -> Membership {
        let network = identity.network.clone();
        let (persister, stored) = RecordPersister::load(&self.config, &network);
        let membership = membership(&identity, stored, &self.config);
        self.persisters.insert(network.clone(), persister);
        self.identities.insert(network, identity);
        membership
    }

    async fn turn(&mut self, calls: &mut Calls, signals: &mut Signals) -> Result<(), RunError> {
        let watch = Watch::open().map_err(RunError::Kernel)?;
        // SAFETY: the watch owns its descriptor and gives the same one for as long as it lives.
        let mut watch = unsafe { AsyncFd::register(watch) }.map_err(|error| unwatched(error.into()))?;
        // Changes before the watch was open are caught by one more observation.
        self.feed(Input::Changed);
        while !self.stopped {
            let due = self.due();
            tokio::select! {
                Some((request, reply)) = calls.recv() => self.handle_call(request, reply),
                Some((network, event)) = self.links.next() => self.feed(Input::Link(network, event)),
                event = self.probes.next() => self.handle_probes(event),
                Some(outcome) = self.joining.next() => self.handle_enrolled(outcome),
                ready = watch.readable_mut() => {
                    if let Ok(mut ready) = ready {
                        let changed = ready.get_inner_mut().drain();
                        ready.clear_ready();
                        if changed {
                            self.feed(Input::Changed);
                        }
                    }
                }
                _ = signals.terminate.recv() => self.feed(Input::Stop { teardown: false }),
                _ = signals.interrupt.recv() => self.feed(Input::Stop { teardown: false }),
                _ = signals.hangup.recv() => drop(self.reload()),
                () = tokio::time::sleep_until(due.into()) => self.handle_due(),
            }
        }
        self.links.finish().await;
        self.end();
        Ok(())
    }

    /// Keeps the settings that are usable, for a start after they no longer are.
    fn keep(&self, loaded: &Loaded) {
        let is_member = !self.identities.is_empty() || self.core.has_unreadable();
        if let Err(error) = loaded.keep(is_member) {
            log::warn!("the settings in effect are not kept on disk: {error}");
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time at which the core or a record persister has something to do without an event.
    fn due(&self) -> Instant {
        let core = self.core.poll_timeout();
        let persisters = self.persisters.values().filter_map(RecordPersister::poll_timeout);
        let first = persisters.chain(core).map(|(at, _)| at).min();
        first.map_or_else(|| Instant::now() + MAX_WAIT, |at| self.started + at)
    }

    fn handle_due(&mut self) {
        let now = self.now();
        self.each_persister(|persister, latest| persister.poll(latest, now));
        self.feed(Input::Tick);
    }

    /// Feeds an input to the core, and executes the outputs that follow until there are none.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.core.handle(input, self.now()) {
                inputs.extend(self.execute(output));
            }
        }
    }

    /// Calls `action` with each record persister and a function that returns its latest records.
    fn each_persister(&mut self, mut action: impl FnMut(&mut RecordPersister, Latest<'_>)) {
        for (name, persister) in self.persisters.iter_mut() {
            if let Some(network) = self.core.networks().get(name) {
                action(persister, &|| network.stored());
            }
        }
    }

    /// Executes one output of the core; returns the input that follows from it.
    fn execute(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Observe(query) => return Some(self.observe(&query)),
            Output::Apply(plan) => {
                let now = self.now();
                self.each_persister(|persister, latest| persister.write_ahead(latest, now));
                return Some(Input::Applied(apply(&mut self.kernel, &plan)));
            }
            Output::Connect { network, broker, known, will } => {
                let identity = self.identities.get(&network)?;
                let mark = self.config.numbers.bypass;
                let lost = self.links.open(identity, broker, known, &will, mark).err()?;
                return Some(Input::Link(network, lost));
            }
            Output::Disconnect(network) => self.links.close(&network),
            Output::Publish(network, uplink) => {
                let identity = self.identities.get(&network)?;
                let taken = self.links.publish(identity, &uplink);
                return (!taken).then_some(Input::Link(network, LinkEvent::Unsent));
            }
            Output::Save(network) => {
                let now = self.now();
                let latest = self.core.networks().get(&network)?;
                self.persisters.get_mut(&network)?.handle_news(&|| latest.stored(), now);
            }
            Output::Flush(network) => {
                let latest = self.core.networks().get(&network)?;
                self.persisters.get_mut(&network)?.flush(&|| latest.stored());
            }
            Output::Forget(network) => self.forget(&network),
            Output::BootLockdown(lockdown) => {
                let saved = self.store.save_boot_lockdown(lockdown.as_ref());
                return Some(Input::LockdownSaved(saved.map_err(|error| error_chain(&error))));
            }
            Output::JoinConfigured => self.join_configured(),
            Output::SendKeepalive(addresses) => {
                self.renew_endpoints();
                system::send_keepalive(&addresses);
            }
            Output::Probe(network, probe, target) => self.probes.send(network, Ask::Health(probe), &target),
            Output::AskPolicy(network, target) => self.probes.send(network, Ask::Policy, &target),
            Output::Listen(addresses) => self.probes.listen(&addresses),
            Output::Stopped => self.stopped = true,
        }
        None
    }

    fn handle_probes(&mut self, event: probe::Event) {
        match event {
            probe::Event::Answered(network, probe, answer) => {
                self.feed(Input::Probed(network, probe, answer))
            }
            probe::Event::Told(network, policy) => self.feed(Input::Told(network, policy)),
            probe::Event::Asked(question) => {
                if let Some((reply, policy)) = self.core.probe_reply(question.to, question.from.ip()) {
                    self.probes.answer(&question, reply, policy);
                }
            }
        }
    }

    fn renew_endpoints(&mut self) {
        let secondary = self.core.observed().links.keys().filter(|link| is_secondary(link)).cloned();
        for link in self.identities.keys().map(IfName::from).chain(secondary) {
            if let Err(error) = self.kernel.renew_endpoints(&link) {
                log::warn!("{link}: {error}");
            }
        }
    }

    fn observe(&mut self, query: &ObserveQuery) -> Input {
        match self.kernel.observe(query) {
            Ok(observed) => Input::Observed {
                observed: Box::new(observed),
                wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
                memory_kib: system::memory_kib(),
            },
            Err(error) => Input::ObserveFailed(error.to_string()),
        }
    }

    /// Ends the daemon: writes what is not on flash yet, and answers those who wait for the end.
    fn end(&mut self) {
        self.each_persister(RecordPersister::flush);
        if let Some(lockdown) = self.core.unsaved_lockdown()
            && let Err(error) = self.store.save_boot_lockdown(lockdown.as_ref())
        {
            log::warn!("what keeps scopes in at the next boot is not on disk: {}", error_chain(&error));
        }
        let _ = fs::remove_file(control::socket_path(&self.config.run_dir));
        log::info!("gatewrt has stopped");
        let done = |hint: &str| Answer::Done(Done { hint: hint.to_owned() });
        let answer = match self.core.torn_down() {
            None => done("Tunnels go on as they are; “gatewrtd” takes them up again."),
            Some(true) => done(TORN_DOWN),
            Some(false) => Answer::Failed(self.left_over()),
        };
        let stopping = std::mem::take(&mut self.stopping);
        stopping.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
    }

    /// Reason why a teardown failed, with the steps that are left.
    fn left_over(&self) -> String {
        let steps: Vec<_> = self.core.plan().steps.iter().map(ToString::to_string).collect();
        format!("not everything could be taken down: {}", steps.join("; "))
    }
}
