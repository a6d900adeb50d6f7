//! Around the core: carries what happens to it and does what it says, one thing at a time, on one thread. It
//! decides nothing itself.

mod joining;
mod links;

use crate::{
    apply::apply,
    config::{Config, WireGuard},
    control::{self, Answer, Call, Done, PlanAnswer, Request},
    core::{About, Core, Input, Membership, Output},
    identity::{self, Identity},
    kernel::{
        Kernel, KernelError,
        linux::{LinuxKernel, Options},
        watch::Watch,
    },
    log as logging,
    store::{RecordsFile, Saved, Store, StoreError},
};
use gatewrt_protocol::NetworkName;
use joining::Joining;
use links::Links;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

/// How long taking everything down may take at the end.
const TEARDOWN: Duration = Duration::from_secs(10);
/// Where a packet is sent that only has to be sent (RFC 863).
const DISCARD: u16 = 9;

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
    RunDir(PathBuf, std::io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(what) => f.write_str(what),
            Self::Kernel(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::RunDir(path, error) => {
                write!(f, "can't use the run-time directory {}: {error}", path.display())
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
    LinuxKernel::new(Options { run_dir: config.run_dir.clone(), userspace, ..Options::default() })
}

/// The networks this router has joined, as they are on disk. A network whose identity can't be read stops the
/// start; records that can't be read are told and left out.
pub fn memberships(config: &Config) -> Result<Vec<Membership>, StoreError> {
    let store = Store::new(&config.state_dir);
    let mut all = Vec::new();
    for network in store.networks()? {
        if let Some(identity) = store.identity(&network)? {
            let (stored, error) = store.records(&network).load();
            if let Some(error) = error {
                log::warn!("{network}: {error}");
            }
            all.push(membership(&identity, stored, config));
        }
    }
    Ok(all)
}

fn membership(identity: &Identity, stored: BTreeMap<String, String>, config: &Config) -> Membership {
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
    }
}

/// Runs the daemon until it is told to stop. `file` is where the configuration came from.
pub async fn run(file: PathBuf, config: Config) -> Result<(), RunError> {
    logging::init(config.log_level);
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    fs::create_dir_all(&config.run_dir).map_err(|error| RunError::RunDir(config.run_dir.clone(), error))?;
    let calls = control::listen(&config.run_dir);
    let calls = calls.map_err(|error| RunError::RunDir(config.run_dir.clone(), error))?;
    let mut daemon = Daemon::new(file, config)?;
    log::info!("gatewrt {} is running", env!("CARGO_PKG_VERSION"));
    daemon.start()?;
    daemon.turn(calls).await
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
    identities: BTreeMap<NetworkName, Identity>,
    records: BTreeMap<NetworkName, Kept>,
    links: Links,
    joining: Joining,
    leaving: Vec<(NetworkName, oneshot::Sender<Answer>)>,
    stopping: Vec<oneshot::Sender<Answer>>,
    stop_by: Option<Instant>,
    stopped: bool,
}

/// Records on their way to flash.
struct Kept {
    file: RecordsFile,
    latest: BTreeMap<String, String>,
    retry: Option<Duration>,
}

impl Daemon {
    fn new(file: PathBuf, config: Config) -> Result<Self, RunError> {
        let start = |error: identity::NoRandomness| RunError::Start(error.to_string());
        let boot = identity::random::<5>().map_err(start)?;
        let seed = identity::random::<4>().map_err(start)?;
        let about = About {
            boot: data_encoding::HEXLOWER.encode(&boot),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            board: board(),
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
            identities: BTreeMap::new(),
            records: BTreeMap::new(),
            links: Links::new(),
            joining: Joining::new(),
            leaving: Vec::new(),
            stopping: Vec::new(),
            stop_by: None,
            stopped: false,
        })
    }

    /// What is on disk comes up before anything else is waited for.
    fn start(&mut self) -> Result<(), RunError> {
        self.feed(Input::Configured(Box::new(self.config.clone())));
        for network in self.store.networks().map_err(RunError::Store)? {
            let Some(identity) = self.store.identity(&network).map_err(RunError::Store)? else { continue };
            self.take_up(identity);
        }
        self.join_configured();
        Ok(())
    }

    /// A network that is on disk goes to the core.
    fn take_up(&mut self, identity: Identity) {
        let network = identity.network.clone();
        let mut file = self.store.records(&network);
        let (stored, error) = file.load();
        if let Some(error) = error {
            log::warn!("{network}: {error}");
        }
        let membership = membership(&identity, stored.clone(), &self.config);
        self.records.insert(network.clone(), Kept { file, latest: stored, retry: None });
        self.identities.insert(network, identity);
        self.feed(Input::Joined(Box::new(membership)));
    }

    async fn turn(&mut self, mut calls: mpsc::Receiver<Call>) -> Result<(), RunError> {
        let start = |error: std::io::Error| RunError::Start(format!("can't watch the system: {error}"));
        let watch = Watch::open().map_err(RunError::Kernel)?;
        // SAFETY: the watch owns its descriptor and gives the same one for as long as it lives.
        let mut watch = unsafe { AsyncFd::register(watch) }.map_err(|error| start(error.into()))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(start)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(start)?;
        // What changed before the watch was open is seen by one more look.
        self.feed(Input::Changed);
        while !self.stopped {
            let due = self.due();
            tokio::select! {
                Some((request, reply)) = calls.recv() => self.handle_call(request, reply),
                Some((network, event)) = self.links.next() => self.feed(Input::Link(network, event)),
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
                _ = terminate.recv() => self.feed(Input::Stop { teardown: false }),
                _ = interrupt.recv() => self.feed(Input::Stop { teardown: false }),
                _ = hangup.recv() => drop(self.reload()),
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
        let saves = self.records.values().filter_map(|kept| kept.retry).map(|at| self.started + at).min();
        let all = [core, saves, self.stop_by, self.joining.retry_at()];
        all.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(60))
    }

    fn handle_due(&mut self) {
        if self.stop_by.is_some_and(|at| at <= Instant::now()) {
            log::warn!("not everything of ours could be taken down in {} s", TEARDOWN.as_secs());
            self.stopped = true;
        }
        let now = self.now();
        let due: Vec<_> =
            self.records.iter().filter(|(_, kept)| kept.retry.is_some_and(|at| at <= now)).collect();
        let due: Vec<NetworkName> = due.into_iter().map(|(network, _)| network.clone()).collect();
        due.iter().for_each(|network| self.save(network));
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

    /// Does one thing; gives what the core is to know of it.
    fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Observe(interest) => return Some(self.observe(&interest)),
            Output::Apply(plan) => return Some(Input::Applied(apply(&mut self.kernel, &plan))),
            Output::Connect { network, broker, will } => {
                let identity = self.identities.get(&network)?;
                let lost = self.links.open(identity, &broker, &will, self.config.numbers.bypass).err()?;
                return Some(Input::Link(network, lost));
            }
            Output::Disconnect(network) => self.links.close(&network),
            Output::Publish(network, uplink) => {
                let identity = self.identities.get(&network)?;
                self.links.publish(identity, &uplink);
            }
            Output::Save(network, records) => {
                if let Some(kept) = self.records.get_mut(&network) {
                    kept.latest = records;
                    self.save(&network);
                }
            }
            Output::Forget(network) => self.forget(&network),
            Output::Poke(addresses) => poke(&addresses),
            Output::Stopped => self.stopped = true,
        }
        None
    }

    fn observe(&mut self, interest: &crate::kernel::Interest) -> Input {
        match self.kernel.observe(interest) {
            Ok(observed) => Input::Observed {
                observed: Box::new(observed),
                wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
                memory_kib: memory_kib(),
            },
            Err(error) => Input::ObserveFailed(error.to_string()),
        }
    }

    fn save(&mut self, network: &NetworkName) {
        let now = self.now();
        let Some(kept) = self.records.get_mut(network) else { return };
        kept.retry = match kept.file.save(&kept.latest, now) {
            Ok(Saved::Later(wait)) => Some(now + wait),
            Ok(Saved::Written | Saved::Unchanged) => None,
            Err(error) => {
                log::warn!("{network}: the latest records are not on disk: {error}");
                Some(now + Duration::from_secs(300))
            }
        };
    }

    fn forget(&mut self, network: &NetworkName) {
        self.identities.remove(network);
        self.records.remove(network);
        self.links.close(network);
        let answer = match self.store.forget(network) {
            Ok(()) => {
                log::info!("left {network}");
                let hint = format!(
                    "Left {network}. The coordinator still lists this node: “gatewrt-coordinator node remove”."
                );
                Answer::Done(Done { hint })
            }
            Err(error) => Answer::Failed(error.to_string()),
        };
        let (done, rest) =
            std::mem::take(&mut self.leaving).into_iter().partition(|(name, _)| name == network);
        self.leaving = rest;
        let done: Vec<(NetworkName, oneshot::Sender<Answer>)> = done;
        done.into_iter().for_each(|(_, reply)| drop(reply.send(answer.clone())));
    }

    fn handle_call(&mut self, request: Request, reply: oneshot::Sender<Answer>) {
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.core.status(self.now()))),
            Request::Plan => {
                let steps = self.core.plan().steps.iter().map(ToString::to_string).collect();
                Answer::Plan(PlanAnswer { steps })
            }
            Request::Join { code, name } => return self.join(code, name, Some(reply)),
            Request::Leave { network } => return self.leave(network, reply),
            Request::Reload => self.reload(),
            Request::Stop { teardown } => {
                self.stop_by = Some(Instant::now() + TEARDOWN);
                self.stopping.push(reply);
                return self.feed(Input::Stop { teardown });
            }
        };
        let _ = reply.send(answer);
    }

    fn leave(&mut self, network: NetworkName, reply: oneshot::Sender<Answer>) {
        if self.identities.contains_key(&network) {
            self.leaving.push((network.clone(), reply));
            self.feed(Input::Leave(network));
        } else {
            let joined: Vec<_> = self.identities.keys().map(ToString::to_string).collect();
            let joined = if joined.is_empty() { "none".to_owned() } else { joined.join(", ") };
            let why = format!("this router has not joined a network “{network}” (joined: {joined})");
            let _ = reply.send(Answer::Failed(why));
        }
    }

    fn reload(&mut self) -> Answer {
        let config = match Config::load(&self.file) {
            Ok(config) => config,
            Err(error) => {
                log::error!("{error}; the configuration before stays in effect");
                return Answer::Failed(format!("{error}; the configuration before stays in effect"));
            }
        };
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        logging::set_level(config.log_level);
        let moved = config.state_dir != self.config.state_dir
            || config.run_dir != self.config.run_dir
            || config.wireguard != self.config.wireguard;
        self.config = config;
        log::info!("the configuration was read again");
        self.feed(Input::Configured(Box::new(self.config.clone())));
        self.join_configured();
        let hint = if moved {
            "state_dir, run_dir and wireguard take effect with a restart of the daemon."
        } else {
            ""
        };
        Answer::Done(Done { hint: hint.to_owned() })
    }

    /// The last words: what is not yet on flash goes there.
    fn end(&mut self) {
        for (network, kept) in &mut self.records {
            if let Err(error) = kept.file.flush(&kept.latest) {
                log::warn!("{network}: the latest records are not on disk: {error}");
            }
        }
        let _ = fs::remove_file(control::socket_of(&self.config.run_dir));
        log::info!("gatewrt has stopped");
        let hint = "Tunnels go on as they are; “gatewrtd” takes them up again.".to_owned();
        let stopping = std::mem::take(&mut self.stopping);
        stopping.into_iter().for_each(|reply| drop(reply.send(Answer::Done(Done { hint: hint.clone() }))));
    }
}

/// Sends a packet to each address, so that it goes through its tunnel. What becomes of it does not matter.
fn poke(addresses: &[IpAddr]) {
    let send =
        |local: &str, to: SocketAddr| UdpSocket::bind(local).and_then(|socket| socket.send_to(&[0], to));
    for address in addresses {
        let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        if let Err(error) = send(local, SocketAddr::new(*address, DISCARD)) {
            log::debug!("no packet to {address}: {error}");
        }
    }
}

/// Resident memory of this process.
fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// What this machine is: the model of the device tree or of DMI, else its kernel's name for it.
fn board() -> String {
    let files = ["/tmp/sysinfo/model", "/proc/device-tree/model", "/sys/class/dmi/id/product_name"];
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok());
    let text = text.or_else(|| fs::read_to_string("/proc/sys/kernel/ostype").ok()).unwrap_or_default();
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars().take(64).collect()
}
