//! Labs that outlive the program that built them, for a person to look around in.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::diagram::diagram;
use super::holder::{Holder, Lifetime, start_time};
use super::host::Host;
use super::layout::Layout;
use super::machine::Machine;
use super::process::silent;
use super::topology::Topology;

/// Directory with the state files of the labs that are up.
pub const STATE_DIR: &str = "/run/gatewrt-lab";

/// A lab that stays up until [`KeptLab::down`].
pub struct KeptLab {
    name: String,
    machine: Arc<Machine>,
}

/// Content of `state.json`.
#[derive(Serialize, Deserialize)]
struct State {
    layout: Layout,
    anchor: ProcessId,
    hosts: BTreeMap<String, ProcessId>,
}

/// Process number with the process's start time, since the number alone may belong to another process by now.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct ProcessId {
    pid: i32,
    start_time: u64,
}

impl KeptLab {
    /// Builds a topology that stays up.
    pub fn up(name: &str, topology: &Topology) -> Result<Self> {
        Self::build(name, topology, Lifetime::Kept)
    }

    /// Builds a topology that others can attach to, but that ends when this value is dropped or its process ends. Its
    /// state file stays until [`KeptLab::down`].
    pub fn up_with_owner(name: &str, topology: &Topology) -> Result<Self> {
        Self::build(name, topology, Lifetime::Owner)
    }

    fn build(name: &str, topology: &Topology, lifetime: Lifetime) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "the name {name:?} may hold letters, digits, - and _ only"
        );
        ensure!(
            !Self::list()?.iter().any(|other| other == name),
            "the lab {name} is up already: look around with “lab diagram”, or end it with “lab down {name}”"
        );
        let machine = Machine::build(Layout::new(topology)?, lifetime)?;
        let lab = Self { name: name.to_owned(), machine };
        if let Err(error) = lab.save() {
            lab.machine.destroy();
            return Err(error);
        }
        Ok(lab)
    }

    /// Attaches to the lab of that name, or to the only one that is up.
    pub fn attach(name: Option<&str>) -> Result<Self> {
        let labs = Self::list()?;
        let name = match (name, labs.as_slice()) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => only.clone(),
            (None, []) => bail!("no lab is up; start one with: lab up three-sites"),
            (None, many) => bail!("several labs are up ({}); say which with --lab NAME", many.join(", ")),
        };
        let state = read_state(&name)?;
        let hosts = state.hosts.into_iter().map(|(host, id)| Ok((host, id.holder()?)));
        let hosts = hosts.collect::<Result<BTreeMap<_, _>>>();
        let broken = || format!("the lab {name} is broken (a host was killed from outside): lab down {name}");
        let machine = Machine::adopt(
            state.layout,
            state.anchor.holder().with_context(broken)?,
            hosts.with_context(broken)?,
        );
        Ok(Self { name, machine })
    }

    /// Names of the labs that have a state file, sorted.
    pub fn list() -> Result<Vec<String>> {
        let Ok(entries) = std::fs::read_dir(STATE_DIR) else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.path().join("state.json").exists() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// True if the lab runs, not only its state file is left.
    pub fn is_up(name: &str) -> bool {
        read_state(name).is_ok_and(|state| state.anchor.holder().is_ok())
    }

    /// Ends a lab, also one of which only parts are left.
    pub fn down(name: &str) -> Result<()> {
        let state = read_state(name)?;
        let holders: Vec<Holder> =
            state.hosts.values().chain([&state.anchor]).filter_map(|id| id.holder().ok()).collect();
        // All are killed before the first is waited for, so that they end at the same time.
        holders.iter().for_each(Holder::terminate);
        holders.iter().for_each(Holder::kill);
        let dir = lab_dir(name);
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        // Fails, as it should, while other labs are up.
        let _ = std::fs::remove_dir(STATE_DIR);
        Ok(())
    }

    /// Name of the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Result<Host> {
        let hosts = self.hosts();
        let names = || hosts.iter().map(Host::name).collect::<Vec<_>>().join(", ");
        let host = hosts.iter().find(|host| host.name() == name);
        host.cloned()
            .with_context(|| format!("no host {name} in the lab {}; there are {}", self.name, names()))
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> Vec<Host> {
        self.machine.layout().nodes.keys().map(|name| Host::new(name, &self.machine)).collect()
    }

    /// Text diagram of the hosts and how they are connected, with addresses.
    pub fn diagram(&self) -> String {
        diagram(&self.machine.layout())
    }

    /// Reboots a host; programs on it are gone until someone starts them again.
    pub fn reboot(&self, host: &str) -> Result<()> {
        self.host(host)?.reboot()?;
        self.save()
    }

    /// Gives a host's WAN another address.
    pub fn change_wan_address(&self, host: &str) -> Result<()> {
        self.host(host)?.change_wan_address()?;
        self.save()
    }

    /// Runs a command on a host with the caller's terminal and returns its exit status. The calling thread stays on the
    /// host.
    pub fn exec(&self, host: &str, argv: &[&str], env: &[(&str, &str)]) -> Result<ExitStatus> {
        let mut command = self.prepare(host, argv)?;
        command.envs(env.iter().copied());
        // SAFETY: one async-signal-safe system call in the child; it makes the command end with us.
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        self.machine.holder(host)?.ns.enter()?;
        command.status().with_context(|| format!("on {host}: start {}", argv.join(" ")))
    }

    /// Starts a command on a host, leaves it running, and returns the path of its log.
    pub fn spawn(&self, host: &str, argv: &[&str]) -> Result<PathBuf> {
        // The shell exits at once, so that process 1 of the host becomes the parent of the command.
        const DETACH: &str = r#"command -v "$1" >/dev/null || exit 127; "$@" &"#;
        let program = argv.first().context("no command given")?;
        let name = program.rsplit('/').next().unwrap_or("command");
        let (log, path) = new_log(&lab_dir(&self.name).join("logs"), &format!("{host}-{name}"))?;
        let mut command = self.prepare(host, &[&["sh", "-c", DETACH, "sh"], argv].concat())?;
        silent(&mut command).stdout(log.try_clone()?).stderr(log).process_group(0);
        let shell = self.machine.holder(host)?.spawn(&mut command)?;
        let status = shell.lock().unwrap_or_else(PoisonError::into_inner).wait()?;
        ensure!(status.success(), "on {host}: there is no program {program}");
        Ok(path)
    }

    fn prepare(&self, host: &str, argv: &[&str]) -> Result<Command> {
        ensure!(!argv.is_empty(), "no command given");
        Ok(self.host(host)?.command(argv).to_std())
    }

    fn save(&self) -> Result<()> {
        let layout = self.machine.layout().clone();
        let hosts =
            layout.nodes.keys().map(|name| Ok((name.clone(), ProcessId::of(&*self.machine.holder(name)?))));
        let state = State {
            hosts: hosts.collect::<Result<_>>()?,
            anchor: ProcessId::of(self.machine.anchor()),
            layout,
        };
        let path = state_file(&self.name);
        std::fs::create_dir_all(lab_dir(&self.name))?;
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec_pretty(&state)?)
            .with_context(|| format!("write {}", new.display()))?;
        std::fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }
}

impl ProcessId {
    fn of(holder: &Holder) -> Self {
        Self { pid: holder.pid.as_raw(), start_time: holder.start_time }
    }

    fn holder(self) -> Result<Holder> {
        let pid = Pid::from_raw(self.pid);
        ensure!(start_time(pid) == Some(self.start_time), "the process {pid} is gone");
        Holder::adopt(pid)
    }
}

fn read_state(name: &str) -> Result<State> {
    let path = state_file(name);
    let text =
        std::fs::read(&path).with_context(|| format!("the lab {name} is not up; lab list shows what is"))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

fn lab_dir(name: &str) -> PathBuf {
    Path::new(STATE_DIR).join(name)
}

fn state_file(name: &str) -> PathBuf {
    lab_dir(name).join("state.json")
}

/// Creates the first free `NAME-N.log`.
fn new_log(dir: &Path, name: &str) -> Result<(File, PathBuf)> {
    std::fs::create_dir_all(dir)?;
    let free = (1..).map(|n: u32| dir.join(format!("{name}-{n}.log"))).find(|path| !path.exists());
    let path = free.context("a number is free")?;
    let log = OpenOptions::new().append(true).create_new(true).open(&path);
    Ok((log.with_context(|| format!("make {}", path.display()))?, path))
}
