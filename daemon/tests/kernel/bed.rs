//! A network and mount namespace of a test's own, which ends with the test and with all processes in it.

use gatewrt::{
    kernel::{
        Kernel, KernelError,
        linux::{LinuxKernel, Options},
    },
    model::{
        BaseChain, Chain, ChainPolicy, ChainType, FirewallRule, FirewallTable, Guard, Hook, IfName,
        ObserveQuery, Observed, Priority, SysctlPath, WgPeer, WgSecret, WgSettings,
    },
    plan::{Firewall, Step, TableUpdate},
};
use gatewrt_protocol::WgPublicKey;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Name of the tests' interface.
pub const LINK: &str = "gw-t";

/// Runs `test` in namespaces of its own. `/run` is empty there.
pub fn in_namespace(test: impl FnOnce(&mut Bed) + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a private mount tree");
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("an empty /run");
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("its own /sys");
        sh("ip link set lo up");
        let mut bed = Bed { kernel: kernel(Options::default()), options: Options::default() };
        test(&mut bed);
    };
    if let Err(panic) = thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The kernel driver of a test in its namespace.
pub struct Bed {
    /// The kernel under test.
    pub kernel: LinuxKernel,
    /// Options that the kernel driver is started with.
    pub options: Options,
}

impl Bed {
    /// Executes a step that must succeed.
    #[track_caller]
    pub fn run(&mut self, step: Step) {
        if let Err(error) = self.kernel.execute(&step) {
            panic!("{step:?}: {error}");
        }
    }

    /// Executes a step that must fail.
    #[track_caller]
    pub fn fail(&mut self, step: Step) -> KernelError {
        self.kernel.execute(&step).expect_err("it must fail")
    }

    /// Observes the kernel, with the interface of the tests and these settings.
    #[track_caller]
    pub fn observe_with(&mut self, sysctls: &[&str]) -> Observed {
        let sysctls = sysctls.iter().map(|path| SysctlPath((*path).to_owned())).collect();
        let interest = ObserveQuery {
            sysctls,
            tunnels: [link()].into_iter().collect(),
            tables: [52].into_iter().collect(),
        };
        self.kernel.observe(&interest).expect("observed")
    }

    /// Observes the kernel, with the interface of the tests.
    #[track_caller]
    pub fn observe(&mut self) -> Observed {
        self.observe_with(&[])
    }

    /// Step that a plan has for this firewall table.
    #[track_caller]
    pub fn update(&mut self, table: FirewallTable) -> Step {
        let observed = self.observe().ruleset;
        Step::WriteRuleset(TableUpdate::new(observed.as_ref(), Arc::new(table)))
    }

    /// Writes this firewall table.
    #[track_caller]
    pub fn write(&mut self, table: FirewallTable) {
        let step = self.update(table);
        self.run(step);
    }

    /// Restarts the kernel driver, as a new daemon does.
    pub fn restart(&mut self) {
        self.kernel = kernel(self.options.clone());
    }

    /// Creates the interface with a key, and sets it up.
    pub fn tunnel(&mut self) {
        self.run(Step::AddTunnel { link: link(), mtu: 1420 });
        self.run(Step::SetDevice(link(), settings()));
        self.run(Step::SetUp(link()));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for pid in inhabitants() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A kernel with these options.
pub fn kernel(options: Options) -> LinuxKernel {
    LinuxKernel::new(options).expect("rtnetlink")
}

/// Table of one network on the interface of the tests.
pub fn table(guard: Guard) -> FirewallTable {
    Firewall { tunnels: [(link(), guard)].into_iter().collect(), ..Firewall::default() }.table()
}

/// Base chain with the priority of its type.
pub fn base_chain(name: &str, kind: ChainType, hook: Hook, rules: Vec<FirewallRule>) -> Chain {
    let priority = if kind == ChainType::Nat { Priority::SrcNat } else { Priority::Filter };
    let base = BaseChain { kind, hook, priority, policy: ChainPolicy::Accept };
    Chain { name: name.into(), base: Some(base), rules }
}

/// Processes in this thread's network namespace, without our own.
pub fn inhabitants() -> Vec<i32> {
    let here = fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
    let own = std::process::id() as i32;
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
    let lives_here = |pid: &i32| {
        let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let zombie = fs::read_to_string(file("stat")).is_ok_and(|stat| stat.contains(") Z "));
        !zombie && fs::read_link(file("ns/net")).is_ok_and(|ns| ns == here)
    };
    pids.filter(|pid| *pid != own && lives_here(pid)).collect()
}

/// The interface of the tests.
pub fn link() -> IfName {
    IfName::new(LINK).expect("valid")
}

/// Device settings.
pub fn settings() -> WgSettings {
    let mut secret = [7; 32];
    // A Curve25519 key has the low bits and the high bit clear, and the bit below set.
    (secret[0], secret[31]) = (8, 0x47);
    WgSettings { secret: WgSecret(secret), port: 51_999, mark: 0x0100_0000 }
}

/// A peer's key.
pub fn key(number: u32) -> WgPublicKey {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    WgPublicKey(key)
}

/// A peer.
pub fn peer(endpoint: Option<&str>, allowed: &[&str], keepalive: u16) -> WgPeer {
    let endpoint = endpoint.map(|e| e.parse().expect("valid"));
    let allowed = allowed.iter().map(|p| p.parse().expect("valid")).collect();
    WgPeer { endpoint, allowed, keepalive, psk: None }
}

/// Runs a shell script that must succeed, and returns its output.
#[track_caller]
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("sh");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until a condition is true.
#[track_caller]
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    // The kernel's own work (links, addresses) waits while other namespaces are created and deleted.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// All state that the steps can change, as other programs see it.
pub fn dump() -> String {
    let network = sh("ip -d addr; ip -N route show table all; ip -N -6 route show table all; \
        ip -N rule; ip -N -6 rule; nft -s list ruleset; ls /run/wireguard 2>/dev/null || true");
    // The kernel counts down how long addresses last.
    let lines = network.lines().filter(|line| !line.contains("valid_lft"));
    format!("{}\n{}", lines.collect::<Vec<_>>().join("\n"), sysctls())
}

/// Fails with the lines that differ.
#[track_caller]
pub fn assert_same(before: &str, after: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(before == after, "lost {lost:#?}, new {new:#?}");
}

/// Every network setting.
pub fn sysctls() -> String {
    let mut found = Vec::new();
    collect(Path::new("/proc/sys/net"), &mut found);
    found.sort();
    found.join("\n")
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if !path.ends_with("nf_conntrack_count")
            && let Ok(value) = fs::read_to_string(&path)
        {
            found.push(format!("{} = {}", path.display(), value.trim_end()));
        }
    }
}
