//! Holder: process 1 of one emulated host. It keeps the host's namespaces alive, and everything in them ends with it.
//!
//! Each host has its own mount, network, UTS and PID namespace. The kernel kills every process of a PID namespace when
//! its process 1 ends, daemonised ones included, and frees nameless namespaces with their last process. The holder of a
//! library lab is `cat` on a pipe whose other end only the owner has: when the owner ends, even by SIGKILL, so does the
//! host. Mounts are prepared as plain system calls before the clone, since nothing may allocate between clone and exec.

use std::ffi::{CStr, CString, c_char, c_ulong};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

/// One `mount(2)` for the child to make before it becomes the holder.
pub(crate) struct Mount {
    source: CString,
    target: CString,
    fstype: CString,
    flags: c_ulong,
    data: CString,
}

impl Mount {
    /// A new filesystem such as proc or tmpfs.
    pub(crate) fn fs(fstype: &str, target: &str, data: &str) -> Self {
        Self::new(fstype, target, fstype, 0, data)
    }

    /// A directory bound to a second path.
    pub(crate) fn bind(source: &str, target: &str) -> Self {
        Self::new(source, target, "", libc::MS_BIND | libc::MS_REC, "")
    }

    fn new(source: &str, target: &str, fstype: &str, flags: c_ulong, data: &str) -> Self {
        let c = |text: &str| CString::new(text).expect("mount arguments hold no NUL");
        Self { source: c(source), target: c(target), fstype: c(fstype), flags, data: c(data) }
    }
}

/// Lifetime of a holder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The holder ends with the process that made it.
    Owner,
    /// The holder lives until it is killed.
    Kept,
}

/// The four namespaces of a running host, as open files.
pub(crate) struct Namespaces {
    mnt: OwnedFd,
    net: OwnedFd,
    uts: OwnedFd,
    pid: OwnedFd,
}

impl Namespaces {
    fn of(pid: Pid) -> Result<Self> {
        let open = |kind: &str| -> Result<OwnedFd> {
            let path = format!("/proc/{pid}/ns/{kind}");
            Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
        };
        Ok(Self { mnt: open("mnt")?, net: open("net")?, uts: open("uts")?, pid: open("pid")? })
    }

    /// Moves the calling thread, and the processes it starts, into the host. The thread cannot start threads afterwards.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        self.enter_files()?;
        self.enter_beside_files()
    }

    /// Moves the calling thread into the host as [`Namespaces::enter`] does, but keeps its view of files.
    pub(crate) fn enter_beside_files(&self) -> nix::Result<()> {
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        self.enter_net()?;
        setns(&self.pid, CloneFlags::CLONE_NEWPID)
    }

    /// Moves the calling thread to the host's view of files.
    pub(crate) fn enter_files(&self) -> nix::Result<()> {
        // A thread shares root and working directory with its process until it unshares them.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS)
    }

    /// Moves the calling thread into the host's network.
    pub(crate) fn enter_net(&self) -> nix::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET)
    }
}

/// A running holder.
pub(crate) struct Holder {
    pub(crate) pid: Pid,
    pub(crate) start_time: u64,
    pub(crate) ns: Namespaces,
    is_child: bool,
    _life: Option<OwnedFd>,
    /// Children of this process that run in the host.
    children: Mutex<Vec<Weak<SharedChild>>>,
}

/// Child of this process; both its user and [`Holder::kill`] can wait for it.
pub(crate) type SharedChild = Mutex<Child>;

impl Holder {
    /// Starts process 1 of a new host with a copy of the calling thread's mounts, then makes `mounts` in it.
    pub(crate) fn start(hostname: &str, mounts: &[Mount], lifetime: Lifetime) -> Result<Self> {
        let (read_life, write_life) = pipe2(OFlag::O_CLOEXEC).context("pipe")?;
        let (read_status, write_status) = pipe2(OFlag::O_CLOEXEC).context("pipe")?;
        let argv: &[&CStr] = match lifetime {
            Lifetime::Owner => &[c"/bin/cat"],
            Lifetime::Kept => &[c"/bin/sleep", c"infinity"],
        };
        let mut args: Vec<*const c_char> = argv.iter().map(|a| a.as_ptr()).collect();
        args.push(std::ptr::null());
        let birth = Birth { hostname, mounts, stdin: &read_life, status: &write_status, argv: &args };
        let pid = birth.start()?;
        drop(write_status);
        let mut failure = Vec::new();
        File::from(read_status).read_to_end(&mut failure).context("read the holder's status")?;
        if let Ok(code) = <[u8; 8]>::try_from(failure.as_slice()) {
            let _ = waitpid(pid, None);
            bail!("start of host {hostname}: {}", describe_failure(u64::from_ne_bytes(code), mounts));
        }
        let life = (lifetime == Lifetime::Owner).then_some(write_life);
        Ok(Self { is_child: true, _life: life, ..Self::adopt(pid)? })
    }

    /// Takes over a holder that another process started.
    pub(crate) fn adopt(pid: Pid) -> Result<Self> {
        let start_time = start_time(pid).with_context(|| format!("the holder {pid} is gone"))?;
        Ok(Self {
            pid,
            start_time,
            ns: Namespaces::of(pid)?,
            is_child: false,
            _life: None,
            children: Mutex::default(),
        })
    }

    /// Ends the host with every process in it.
    pub(crate) fn terminate(&self) {
        if start_time(self.pid) == Some(self.start_time) {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Ends the host and returns when all its processes are gone.
    pub(crate) fn kill(&self) {
        self.terminate();
        // Process 1 ends only after every other process of the host, zombies included: reap those whose parent we are.
        while self.is_alive() {
            let children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
            for child in children.iter().filter_map(Weak::upgrade) {
                let _ = child.try_lock().map(|mut child| child.try_wait());
            }
            drop(children);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts a command inside the host.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Arc<SharedChild>> {
        self.spawn_in(Namespaces::enter, command)
    }

    /// Starts a command inside the host that sees the files of the machine instead of the host's.
    pub(crate) fn spawn_beside_files(&self, command: &mut Command) -> Result<Arc<SharedChild>> {
        self.spawn_in(Namespaces::enter_beside_files, command)
    }

    fn spawn_in(
        &self,
        enter: fn(&Namespaces) -> nix::Result<()>,
        command: &mut Command,
    ) -> Result<Arc<SharedChild>> {
        let child = self.on_thread(enter, || command.spawn())??;
        let child = Arc::new(Mutex::new(child));
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|other| other.strong_count() > 0);
        children.push(Arc::downgrade(&child));
        Ok(child)
    }

    fn is_alive(&self) -> bool {
        if self.is_child {
            matches!(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
        } else {
            start_time(self.pid) == Some(self.start_time)
        }
    }

    /// Runs `work` on a thread that first calls `enter`; passes a panic in `work` on.
    pub(crate) fn on_thread<T: Send>(
        &self,
        enter: fn(&Namespaces) -> nix::Result<()>,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        let ns = &self.ns;
        let entered = std::thread::scope(|scope| {
            scope
                .spawn(move || enter(ns).map(|()| work()))
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p))
        });
        entered.context("enter the namespaces")
    }
}

/// Start time of a process in clock ticks since boot; none when it is gone or a zombie.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Input of the child, all of it allocated before the clone.
struct Birth<'a> {
    hostname: &'a str,
    mounts: &'a [Mount],
    stdin: &'a OwnedFd,
    status: &'a OwnedFd,
    argv: &'a [*const c_char],
}

const STEP_HOSTNAME: u64 = 1 << 20;
const STEP_EXEC: u64 = STEP_HOSTNAME + 1;

impl Birth<'_> {
    fn start(&self) -> Result<Pid> {
        let flags =
            libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWPID | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and without a stack this is a fork; the child runs only `become_holder`, which makes
        // nothing but async-signal-safe system calls on memory prepared by the parent, and never returns.
        match unsafe { libc::syscall(libc::SYS_clone, c_ulong::try_from(flags)?, 0, 0, 0, 0) } {
            0 => self.become_holder(),
            pid if pid > 0 => Ok(Pid::from_raw(i32::try_from(pid)?)),
            _ => {
                Err(std::io::Error::last_os_error()).context("clone into new namespaces (the lab needs root)")
            }
        }
    }

    fn become_holder(&self) -> ! {
        // SAFETY: plain system calls on pointers that outlive them; no allocation, no lock.
        unsafe {
            libc::setsid();
            // Orphans of the host become children of this process; with SIGCHLD ignored the kernel reaps them.
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            for (index, m) in (0u64..).zip(self.mounts) {
                let data = m.data.as_ptr().cast();
                if libc::mount(m.source.as_ptr(), m.target.as_ptr(), m.fstype.as_ptr(), m.flags, data) != 0 {
                    self.fail(index);
                }
            }
            if libc::sethostname(self.hostname.as_ptr().cast(), self.hostname.len()) != 0 {
                self.fail(STEP_HOSTNAME);
            }
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            libc::dup2(self.stdin.as_raw_fd(), 0);
            libc::dup2(null, 1);
            libc::dup2(null, 2);
            let env = [std::ptr::null::<c_char>()];
            libc::execve(self.argv[0], self.argv.as_ptr(), env.as_ptr());
        }
        self.fail(STEP_EXEC)
    }

    fn fail(&self, step: u64) -> ! {
        let errno = u64::from(nix::errno::Errno::last_raw().unsigned_abs());
        let code = (step << 32 | errno).to_ne_bytes();
        // SAFETY: eight bytes of the stack to an open pipe, then the end of this process.
        unsafe {
            libc::write(self.status.as_fd().as_raw_fd(), code.as_ptr().cast(), code.len());
            libc::_exit(1)
        }
    }
}

fn describe_failure(code: u64, mounts: &[Mount]) -> String {
    let errno = std::io::Error::from_raw_os_error(i32::try_from(code & 0xffff_ffff).unwrap_or(0));
    let step = match code >> 32 {
        STEP_HOSTNAME => "set the host name".to_owned(),
        STEP_EXEC => "start the holder".to_owned(),
        index => usize::try_from(index).ok().and_then(|i| mounts.get(i)).map_or("mount".to_owned(), |m| {
            format!("mount {} on {}", m.source.to_string_lossy(), m.target.to_string_lossy())
        }),
    };
    format!("{step}: {errno}")
}
