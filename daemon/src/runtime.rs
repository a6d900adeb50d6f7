//! Around the core: carries what happens to it and does what it says, one thing at a time, on one thread. It
//! decides nothing itself.

mod calls;
mod joining;
mod keeping;
mod links;
mod system;

use crate::{
    apply::apply,
    config::{Config, OwnScope, WireGuard},
    control::{self, Answer, Calls, Done},
    core::{About, Core, Input, LinkEvent, Membership, Output, desired::is_beside},
    gather::Gather,
    identity::{self, Identity},
    kernel::{
        Kernel, KernelError,
        linux::{LinuxKernel, Options},
        watch::Watch,
    },
    log,
    model::IfName,
    plan::Guardfile,
    probe::{self, Probes},
    sorted::SortedMap,
    store::{Store, StoreError},
    whole::whole,
};
use gatewrt_protocol::{ExitScope, NetworkName, base::HEX};
use joining::Joining;
use keeping::{Kept, Latest};
use links::Links;
use std::{
    collections::VecDeque,
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// How long taking everything down may take at the end.
const TEARDOWN: Duration = Duration::from_secs(10);

/// How long until what keeps scopes in at the next boot is tried to be written again.
const GUARD_RETRY: Duration = Duration::from_secs(15);

/// Why the daemon can't run.
#[derive(Debug)]
pub enum RunError {
    /// Something it needs at the start is not to be had.
    Start(String),
    /// The kernel can't be worked with.
    Kernel(KernelError),
    /// What is stored can't be read.
    Store(StoreError),
    /// The run-time directory can't be used.
    RunDir(PathBuf, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(what) => f.write_str(what),
            Self::Kernel(error) => error.fmt(f),
            Self::Store(error) => f.write_str(&whole(error)),
            Self::RunDir(path, error) => {
                let advice = match error.kind() {
                    io::ErrorKind::PermissionDenied => "; run it as root",
                    _ => "",
                };
                write!(f, "can't use the run-time directory {}: {error}{advice}", path.display())
            }
        }
    }
}
impl std::error::Error for RunError {}

/// The kernel, as the configuration wants it used.
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

/// The networks this router has joined, as they are on disk, and those that can't be read, with the reason. Records
/// that can't be read are told and left out.
pub fn memberships(config: &Config) -> Result<(Vec<Membership>, SortedMap<NetworkName, String>), StoreError> {
    let (identities, unreadable) = identities(&Store::new(&config.state_dir))?;
    let membership = |identity: &Identity| {
        let (_, stored) = Kept::load(config, &identity.network);
        membership(identity, stored, config)
    };
    Ok((identities.iter().map(membership).gather(), unreadable))
}

fn identities(store: &Store) -> Result<(Vec<Identity>, SortedMap<NetworkName, String>), StoreError> {
    let (mut identities, mut unreadable) = (Vec::new(), SortedMap::new());
    for network in store.networks()? {
        match store.identity(&network) {
            Ok(identity) => identities.extend(identity),
            Err(error) => drop(unreadable.insert(network, whole(&error))),
        }
    }
    Ok((identities, unreadable))
}

fn membership(identity: &Identity, stored: SortedMap<String, String>, config: &Config) -> Membership {
    let configured = config.networks.get(&identity.network).and_then(|network| network.listen_port);
    Membership {
        network: identity.network.clone(),
        net: identity.net,
        node: identity.node,
        name: identity.name.clone(),
        record_key: identity.record_key,
        secret: identity.keys.wireguard(),
        public: identity.keys.wireguard_public(),
        port: configured.map_or(identity.port, u16::from),
        brokers: identity.brokers.clone(),
        stored,
        chosen: chosen(config, &identity.network),
    }
}

/// What was said on the router of its Internet traffic. Where that can't be read, none of its LANs' goes out: rather
/// nowhere than the wrong way.
fn chosen(config: &Config, network: &NetworkName) -> Option<Vec<OwnScope>> {
    Store::new(&config.state_dir).choice(network).unwrap_or_else(|error| {
        log::error!("{network}: {}; “gatewrt exit enable” or “gatewrt exit forget” says anew", whole(&error));
        let name = "unknown".parse().expect("a sound name");
        let scope = ExitScope { auto: false, ..ExitScope::auto(name, Vec::new()) };
        Some(vec![OwnScope { exits: Vec::new(), lan: true, scope }])
    })
}

/// Runs the daemon until it is told to stop. `file` is where the configuration came from.
pub async fn run(file: PathBuf, config: Config) -> Result<(), RunError> {
    log::init(config.log_level);
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    // Before it can be found by its socket: a reload at that moment must not end it.
    let mut signals = Signals::catch()?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.run_dir);
    made.map_err(|error| RunError::RunDir(config.run_dir.clone(), error))?;
    let calls = control::listen(&config.run_dir);
    let mut calls = calls.map_err(|error| RunError::RunDir(config.run_dir.clone(), error))?;
    let mut daemon = Daemon::new(file, config)?;
    log::info!("gatewrt {} is running", env!("CARGO_PKG_VERSION"));
    daemon.start()?;
    daemon.turn(&mut calls, &mut signals).await?;
    calls.finish().await;
    Ok(())
}

fn unwatched(error: io::Error) -> RunError {
    RunError::Start(format!("can't watch the system: {error}"))
}

/// What others tell by signals.
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

/// Everything the daemon holds.
struct Daemon {
    file: PathBuf,
    config: Config,
    started: Instant,
    about: About,
    core: Core,
    kernel: LinuxKernel,
    store: Store,
    identities: SortedMap<NetworkName, Identity>,
    records: SortedMap<NetworkName, Kept>,
    links: Links,
    probes: Probes,
    /// What keeps scopes in at the next boot, while it is not on disk, and when that is tried again.
    unsaved_guard: Option<(Instant, Option<Guardfile>)>,
    joining: Joining,
    leaving: Vec<(NetworkName, oneshot::Sender<Answer>)>,
    stopping: Vec<oneshot::Sender<Answer>>,
    stop_by: Option<Instant>,
    stopped: bool,
}

impl Daemon {
    fn new(file: PathBuf, config: Config) -> Result<Self, RunError> {
        let start = |error: identity::NoRandomness| RunError::Start(error.to_string());
        let boot = identity::nonce::<5>().map_err(start)?;
        let seed = identity::nonce::<4>().map_err(start)?;
        let about = About {
            boot: HEX.encode(&boot),
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
            identities: SortedMap::new(),
            records: SortedMap::new(),
            links: Links::new(),
            probes: Probes::default(),
            unsaved_guard: None,
            joining: Joining::new(),
            leaving: Vec::new(),
            stopping: Vec::new(),
            stop_by: None,
            stopped: false,
        })
    }

    /// What is on disk comes up before anything else is waited for.
    fn start(&mut self) -> Result<(), RunError> {
        let (identities, unreadable) = identities(&self.store).map_err(RunError::Store)?;
        for (network, why) in unreadable {
            log::error!("{network} is left as it runs: {why}");
            self.core.leave_alone(network, why);
        }
        let memberships = identities.into_iter().map(|identity| self.take_up(identity)).gather();
        self.feed(Input::Started(Box::new(self.config.clone()), memberships));
        self.join_configured();
        Ok(())
    }

    /// Opens the files of a network that is on disk.
    fn take_up(&mut self, identity: Identity) -> Membership {
        let network = identity.network.clone();
        let (kept, stored) = Kept::load(&self.config, &network);
        let membership = membership(&identity, stored, &self.config);
        self.records.insert(network.clone(), kept);
        self.identities.insert(network, identity);
        membership
    }

    async fn turn(&mut self, calls: &mut Calls, signals: &mut Signals) -> Result<(), RunError> {
        let watch = Watch::open().map_err(RunError::Kernel)?;
        // SAFETY: the watch owns its descriptor and gives the same one for as long as it lives.
        let mut watch = unsafe { AsyncFd::register(watch) }.map_err(|error| unwatched(error.into()))?;
        // What changed before the watch was open is seen by one more look.
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
                        let changes = ready.get_inner_mut().drain();
                        ready.clear_ready();
                        if changes.any() {
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

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// When something is due without anything happening.
    fn due(&self) -> Instant {
        let core = self.core.poll_timeout().map(|(at, _)| self.started + at);
        let saves = self.records.values().filter_map(Kept::due).map(|at| self.started + at).min();
        let guard = self.unsaved_guard.as_ref().map(|(at, _)| *at);
        let all = [core, saves, guard, self.stop_by, self.joining.retry_at()];
        all.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(60))
    }

    fn handle_due(&mut self) {
        if self.stop_by.is_some_and(|at| at <= Instant::now()) {
            log::warn!("not everything of ours could be taken down in {} s", TEARDOWN.as_secs());
            self.stopped = true;
        }
        let now = self.now();
        self.each_kept(|kept, latest| {
            if kept.due().is_some_and(|at| at <= now) {
                kept.save(latest, now);
            }
        });
        if let Some((at, guard)) = &self.unsaved_guard
            && *at <= Instant::now()
        {
            self.save_guard(guard.clone());
        }
        if self.joining.retry_at().is_some_and(|at| at <= Instant::now()) {
            self.join_configured();
        }
        self.feed(Input::Tick);
    }

    /// Gives an input to the core and does what it says, until it says nothing more.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.core.handle(input, self.now()) {
                inputs.extend(self.carry_out(output));
            }
        }
    }

    /// Does something with what is kept of each network, and with what gives its latest records.
    fn each_kept(&mut self, mut deed: impl FnMut(&mut Kept, Latest<'_>)) {
        for (name, kept) in self.records.iter_mut() {
            if let Some(network) = self.core.networks().get(name) {
                deed(kept, &|| network.stored());
            }
        }
    }

    /// Does one thing; gives what the core is to know of it.
    fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Observe(interest) => return Some(self.observe(&interest)),
            Output::Apply(plan) => {
                let now = self.now();
                self.each_kept(|kept, latest| kept.write_ahead(latest, now));
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
                self.records.get_mut(&network)?.handle_news(&|| latest.stored(), now);
            }
            Output::Flush(network) => {
                let latest = self.core.networks().get(&network)?;
                self.records.get_mut(&network)?.flush(&|| latest.stored());
            }
            Output::Forget(network) => self.forget(&network),
            Output::Guard(guard) => self.save_guard(guard),
            Output::Poke(addresses) => {
                self.renew_endpoints();
                system::poke(&addresses);
            }
            Output::Probe(network, probe, aim) => self.probes.send(network, probe, &aim),
            Output::Listen(addresses) => self.probes.listen(&addresses),
            Output::Stopped => self.stopped = true,
        }
        None
    }

    /// What can't be written now is tried again: the next boot must not let out what is kept in today.
    fn save_guard(&mut self, guard: Option<Guardfile>) {
        match self.store.save_guard(guard.as_ref()) {
            Ok(()) => self.unsaved_guard = None,
            Err(error) => {
                if self.unsaved_guard.is_none() {
                    log::warn!("what keeps scopes in at the next boot is not on disk: {}", whole(&error));
                }
                self.unsaved_guard = Some((Instant::now() + GUARD_RETRY, guard));
            }
        }
    }

    fn handle_probes(&mut self, event: probe::Event) {
        match event {
            probe::Event::Answered(network, probe, answer) => {
                self.feed(Input::Probed(network, probe, answer))
            }
            probe::Event::Asked(question) => {
                if let Some(says) = self.core.says(question.to, question.from.ip()) {
                    self.probes.answer(&question, says);
                }
            }
        }
    }

    fn renew_endpoints(&mut self) {
        let beside = self.core.observed().links.keys().filter(|link| is_beside(link)).cloned();
        for link in self.identities.keys().map(IfName::from).chain(beside) {
            if let Err(error) = self.kernel.renew_endpoints(&link) {
                log::warn!("{link}: {error}");
            }
        }
    }

    fn observe(&mut self, interest: &crate::kernel::Interest) -> Input {
        match self.kernel.observe(interest) {
            Ok(observed) => Input::Observed {
                observed: Box::new(observed),
                wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
                memory_kib: system::memory_kib(),
            },
            Err(error) => Input::ObserveFailed(error.to_string()),
        }
    }

    /// The last words: what is not yet on flash goes there.
    fn end(&mut self) {
        self.each_kept(Kept::flush);
        if let Some((_, guard)) = self.unsaved_guard.take() {
            self.save_guard(guard);
        }
        let _ = fs::remove_file(control::socket_of(&self.config.run_dir));
        log::info!("gatewrt has stopped");
        let hint = "Tunnels go on as they are; “gatewrtd” takes them up again.".to_owned();
        let stopping = std::mem::take(&mut self.stopping);
        stopping.into_iter().for_each(|reply| drop(reply.send(Answer::Done(Done { hint: hint.clone() }))));
    }
}
