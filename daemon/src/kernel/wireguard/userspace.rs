//! Userspace implementations of WireGuard: found, started so that they outlive us, told from dead ones, ended.

use super::{
    Action, PeerOrder,
    uapi::{self, UapiError},
};
use crate::{
    kernel::{
        KernelError,
        netlink::{FoundLink, Network},
        process::{PATHS, find, names_in},
    },
    model::{IfName, WgDevice, WgSettings},
};
use litemap::LiteMap;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    unistd::setsid,
};
use sorted_vec::SortedSet;
use std::{
    fs, io,
    os::{fd::BorrowedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use wireguard_uapi::xplatform::set;

/// Folder in which implementations put their sockets.
const SOCKETS: &str = "/var/run/wireguard";
/// Programs tried when the admin names none. Not `boringtun-cli`: see [`UapiError::Unfit`].
pub const PROGRAMS: [&str; 1] = ["wireguard-go"];
/// Time to start: a slow router under load needs seconds.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Bound of the file descriptors that a started program does not inherit.
const MOST_FILES: i32 = 4096;

/// Userspace implementations of WireGuard and their processes.
pub struct Userspace {
    program: Option<String>,
    /// Programs that do not daemonize by themselves: to be reaped when they end.
    children: Vec<Child>,
    /// Names of the programs that serve interfaces, as far as they are known.
    names: LiteMap<IfName, String>,
}

impl Userspace {
    /// Userspace WireGuard by `program`, if one is named, instead of the known ones.
    pub fn new(program: Option<String>) -> Self {
        Self { program, children: Vec::new(), names: LiteMap::new() }
    }

    /// True if a living userspace implementation serves this interface.
    pub fn answers(&self, name: &IfName) -> bool {
        uapi::read(&socket(name)).is_ok()
    }

    /// Reads a userspace WireGuard interface; `None` when no process answers for it.
    pub fn read(&mut self, name: &IfName) -> Option<WgDevice> {
        self.reap();
        match uapi::read(&socket(name)) {
            Ok(device) => Some(WgDevice { backend: self.name(name), ..device }),
            Err(error) => {
                if !error.is_dead() {
                    log::warn!("WireGuard of {name} does not answer: {error}");
                }
                None
            }
        }
    }

    /// Starts a userspace implementation for an interface and waits until it answers.
    pub fn start(&mut self, name: &IfName) -> Result<(), KernelError> {
        self.reap();
        self.make_way(name)?;
        let program = self.find()?;
        let child = spawn(&program, name).map_err(|error| error.to_string());
        let child = child.and_then(|child| self.wait(child, name)).map_err(|why| {
            let program = program.display();
            KernelError::Refused(format!("{program} gave no {name}: {why}; by hand: {program} -f {name}"))
        })?;
        log::info!("{name} is served by {}", program.display());
        self.names.insert(name.clone(), base(&program));
        self.children.push(child);
        Ok(())
    }

    /// Waits until an implementation that was started answers. One that daemonizes exits with success before or after
    /// that.
    fn wait(&self, mut child: Child, name: &IfName) -> Result<Child, String> {
        let mut failed = None;
        let settled = eventually(|| {
            failed = child.try_wait().ok().flatten().filter(|status| !status.success());
            failed.is_some() || self.answers(name)
        });
        match failed {
            Some(status) if Path::new("/dev/net/tun").exists() => Err(status.to_string()),
            Some(status) => Err(format!("{status} (there is no /dev/net/tun: install kmod-tun)")),
            None if settled => Ok(child),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err("no socket in time".to_owned())
            }
        }
    }

    /// Makes way for a new implementation: removes the socket that a dead process left. One that lives without an
    /// interface is about to end.
    fn make_way(&self, name: &IfName) -> Result<(), KernelError> {
        let dead = || uapi::read(&socket(name)).is_err_and(|error| error.is_dead());
        if !eventually(dead) {
            let why = "it is alive, but its interface is not here";
            return Err(KernelError::Conflict(format!("a WireGuard for {name} runs elsewhere: {why}")));
        }
        self.sweep(name);
        Ok(())
    }

    /// Removes the socket of a WireGuard interface whose process is dead.
    pub fn sweep(&self, name: &IfName) {
        let path = socket(name);
        if uapi::read(&path).is_err_and(|error| error.is_dead()) {
            let _ = fs::remove_file(path);
        }
    }

    /// Ends the userspace implementation of an interface: it ends when its interface or its socket goes. Waits until
    /// both are gone.
    pub fn delete(&mut self, network: &mut Network, found: &FoundLink) -> Result<(), KernelError> {
        let name = &found.name;
        network.delete_link(found)?;
        let _ = fs::remove_file(socket(name));
        self.names.remove(name);
        let is_gone = || network.link(name).is_ok_and(|link| link.is_none());
        if !eventually(is_gone) {
            return Err(KernelError::Refused(format!("interface {name} does not go away")));
        }
        self.reap();
        Ok(())
    }

    /// Sets private key, port and mark of a userspace WireGuard interface, and reads them back to be sure.
    pub fn set_device(&self, name: &IfName, settings: &WgSettings) -> Result<(), KernelError> {
        let read = || uapi::read(&socket(name)).map_err(|e| refused(name, &e));
        let before = read()?;
        self.set(name, &uapi::device(settings, before.settings.as_ref()))?;
        let mut now = read()?.settings;
        // Any port was asked for, and it has one.
        now.iter_mut().filter(|_| settings.port == 0).for_each(|now| now.port = 0);
        match now.as_ref() == Some(settings) {
            true => Ok(()),
            false => Err(KernelError::Refused(format!("WireGuard of {name} did not take its settings"))),
        }
    }

    /// Changes peers of a userspace WireGuard interface as `orders` say, in one update.
    pub fn set_peers(&self, name: &IfName, orders: &[PeerOrder]) -> Result<(), KernelError> {
        let peers = orders.iter().map(uapi::peer).collect();
        self.set(name, &set::Device { peers, ..set::Device::default() })
    }

    /// Sets the endpoint of each peer of an interface anew, to the same: with it `wireguard-go` forgets from which of
    /// our addresses it sent there. If that address is gone, it would not send at all (Linux says `ENETUNREACH` to
    /// that, and it waits for `EINVAL`) until the peer is heard.
    pub fn renew_endpoints(&self, name: &IfName) -> Result<(), KernelError> {
        let device = uapi::read(&socket(name)).map_err(|e| refused(name, &e))?;
        let order = |(key, endpoint)| PeerOrder {
            key,
            action: Action::Update,
            endpoint: Some(endpoint),
            keepalive: None,
            psk: None,
            replace: false,
            allowed: SortedSet::new(),
        };
        let peers = device.peers.into_iter().filter_map(|(key, peer)| Some((key, peer.endpoint?)));
        self.set_peers(name, &peers.map(order).collect::<Vec<_>>())
    }

    fn set(&self, name: &IfName, device: &set::Device) -> Result<(), KernelError> {
        uapi::set(&socket(name), device).map_err(|e| refused(name, &e))
    }

    fn find(&self) -> Result<PathBuf, KernelError> {
        let named = self.program.as_deref();
        let mut candidates = named.into_iter().chain(PROGRAMS.into_iter().filter(|_| named.is_none()));
        candidates.find_map(find).ok_or_else(|| {
            KernelError::Missing(match named {
                Some(program) => format!("the program {program} is missing, which the configuration names"),
                None => "this kernel has no WireGuard, and wireguard-go is not here either: \
                         install kmod-wireguard (OpenWrt) or wireguard-go"
                    .to_owned(),
            })
        })
    }

    fn name(&mut self, name: &IfName) -> String {
        let known = self.names.entry(name.clone());
        known.or_insert_with(|| running(name, self.program.as_deref())).clone()
    }

    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

fn refused(name: &IfName, error: &UapiError) -> KernelError {
    KernelError::Refused(format!("WireGuard of {name}: {error}"))
}

fn socket(name: &IfName) -> PathBuf {
    Path::new(SOCKETS).join(format!("{name}.sock"))
}

/// Starts a userspace implementation in a session of its own, with no file of ours open: it goes on when we end,
/// however we end.
fn spawn(program: &Path, name: &IfName) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg(name.as_str()).env_clear().env("PATH", PATHS).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec only setsid and fcntl are called, which are async-signal-safe; they
    // touch no memory of the parent's.
    unsafe { command.pre_exec(detach) };
    command.spawn()
}

fn detach() -> io::Result<()> {
    setsid()?;
    for fd in 3..MOST_FILES {
        // SAFETY: only used for fcntl, which says EBADF for one that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    Ok(())
}

/// Name of the program behind an interface that we did not start: a known program whose last argument is the
/// interface's name.
fn running(name: &IfName, configured: Option<&str>) -> String {
    let configured = configured.map(|program| base(Path::new(program)));
    let known =
        |program: &String| PROGRAMS.contains(&program.as_str()) || configured.as_ref() == Some(program);
    let serving = |process: &String| {
        let line = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
        let arguments: Vec<&str> = line.split_terminator('\0').collect();
        let program = base(Path::new(arguments.first()?));
        (arguments.last() == Some(&name.as_str()) && known(&program)).then_some(program)
    };
    names_in(Path::new("/proc")).iter().find_map(serving).unwrap_or_else(|| "userspace".to_owned())
}

fn base(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn eventually(mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_program_that_is_missing_is_not_replaced() {
        let error = Userspace::new(Some("/no/such".into())).find().expect_err("missing");
        assert!(matches!(&error, KernelError::Missing(what) if what.contains("/no/such")), "{error}");
    }
}
