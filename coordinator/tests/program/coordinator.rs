//! A running `gatewrt-coordinator serve` in a directory of its own, and its commands.

use serde_json::Value;
use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::Duration,
};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_gatewrt-coordinator");

static STARTED: AtomicU16 = AtomicU16::new(0);

pub struct Coordinator {
    dir: TempDir,
    logs: TempDir,
    /// Among those of this process.
    number: u16,
    child: Option<Child>,
    /// More options of `serve`.
    pub options: Vec<String>,
    /// More of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Banner that it printed when it was ready.
    pub banner: String,
}

impl Coordinator {
    pub fn start() -> Self {
        Self::start_in(TempDir::new().unwrap())
    }

    pub fn start_in(dir: TempDir) -> Self {
        let mut coordinator = Self::prepared_in(dir);
        coordinator.start_again();
        coordinator
    }

    /// A coordinator that is still to be started.
    pub fn prepared() -> Self {
        Self::prepared_in(TempDir::new().unwrap())
    }

    fn prepared_in(dir: TempDir) -> Self {
        Self {
            dir,
            logs: TempDir::new().unwrap(),
            number: STARTED.fetch_add(1, Ordering::Relaxed),
            child: None,
            options: Vec::new(),
            environment: Vec::new(),
            banner: String::new(),
        }
    }

    /// A coordinator with a network `home`.
    pub fn with_home() -> Self {
        let coordinator = Self::start();
        coordinator.ok(&["network", "create", "home"]);
        coordinator
    }

    /// On the same directory and ports.
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.logs.path().join("log")).unwrap();
        let mut child = self.serve().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        self.banner = ready(&mut child).unwrap_or_else(|| panic!("no start: {}", self.log()));
        self.child = Some(child);
    }

    /// The command that starts one on this directory and these ports.
    pub fn serve(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--https", &self.https(), "--mqtt", &self.mqtt(), "--data"]).arg(self.data());
        command.args(&self.options).envs(self.environment.iter().cloned());
        command
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.logs.path().join("log")).unwrap()
    }

    /// Returns true if these bytes are anywhere in its directory or its log.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        let files =
            [self.data(), self.logs.path().to_owned()].into_iter().flat_map(|dir| dir.read_dir().unwrap());
        let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
        let mut texts = files.map(|path| std::fs::read(path).unwrap());
        texts.any(|text| text.windows(bytes.len()).any(|part| part == bytes))
    }

    /// Memory of its process, in KiB.
    pub fn memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.https())
    }

    fn https(&self) -> String {
        format!("{}:{}", own_address(), 8443 + self.number)
    }

    pub fn mqtt(&self) -> String {
        format!("{}:{}", own_address(), 18883 + self.number)
    }

    /// Returns true if it runs no more.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; answers its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        child.wait().unwrap().code()
    }

    /// Runs a command. It does not wait for routers unless it says so: those of most tests confirm nothing.
    pub fn command(&self, args: &[&str]) -> Output {
        let has_wait = args.iter().any(|arg| ["--wait", "--no-wait"].contains(arg));
        let data = self.data();
        let more = ["--data", data.to_str().unwrap(), "--no-wait"];
        run(args, if has_wait { &more[..2] } else { &more })
    }

    /// stdout of a command that works.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// stderr of a command that is refused.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        said
    }

    pub fn code(&self, args: &[&str]) -> String {
        self.ok(&[&["code", "create", "home"], args].concat()).trim().to_owned()
    }

    pub fn node(&self, name: &str) -> Value {
        self.json(&["node", "show", "home", name])
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Runs a command to its end.
pub fn run(args: &[&str], more: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    for variable in ["GATEWRT_DATA", "GATEWRT_URL", "GATEWRT_TOKEN_FILE", "GATEWRT_CA_FILE"] {
        command.env_remove(variable);
    }
    command.args(args).args(more).output().unwrap()
}

pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Name of this process's user in the audit log.
pub fn local_admin() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
    format!("local {}", user.expect("this user has a name").name)
}

/// Output up to the last line of its banner; `None` if it ends before.
fn ready(child: &mut Child) -> Option<String> {
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let mut banner = String::new();
    while !banner.contains("code create") {
        banner += &lines.recv_timeout(Duration::from_secs(20)).ok()?;
        banner.push('\n');
    }
    Some(banner)
}

/// An address for this process alone: what it listened on is still free when it starts again, which can't be said of a
/// port of 127.0.0.1.
fn own_address() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 128, 0, 0).to_bits() + std::process::id())
}
