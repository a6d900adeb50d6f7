//! Commands and long-running programs on a host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::holder::SharedChild;
use super::host::Host;
use super::wait::eventually;

/// Default time limit of a command; [`Cmd::timeout`] sets another.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Ticks a second of the clock in which the kernel shows times to programs (`USER_HZ`), on every architecture that
/// matters.
const TICKS_A_SECOND: f64 = 100.0;
/// Number of lines shown from the end of a log.
const LOG_TAIL: usize = 60;

/// Result of a finished command.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// True if the exit code was 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code; -1 when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {:?}", self.stdout))
    }
}

/// A command to run on a host.
#[derive(Clone)]
pub struct Cmd {
    host: Host,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Vec<u8>,
    timeout: Duration,
}

impl Cmd {
    pub(crate) fn new(host: &Host, argv: &[&str]) -> Self {
        let argv = argv.iter().map(|&a| a.to_owned()).collect();
        Self { host: host.clone(), argv, env: BTreeMap::new(), stdin: Vec::new(), timeout: COMMAND_TIMEOUT }
    }

    /// Sets an environment variable. Commands see PATH, HOME, TERM, LANG, RUST_LOG and RUST_BACKTRACE, nothing else.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Gives text on standard input; otherwise it is empty.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Sets how long [`Cmd::run`] and [`Cmd::output`] wait; the default is a minute.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs to the end; an exit code other than 0 is an error that says host, command, exit and output.
    pub fn run(&self) -> Result<Output> {
        let output = self.output()?;
        if !output.success() {
            bail!("{}: {}\n{}{}", self.describe(), output.status, output.stderr, output.stdout);
        }
        Ok(output)
    }

    /// Runs to the end, whatever the exit code.
    pub fn output(&self) -> Result<Output> {
        let (mut stdout, mut stderr) = (scratch()?, scratch()?);
        let child = self.start(stdout.try_clone()?, stderr.try_clone()?)?;
        let status = wait_for(&child, self.timeout).with_context(|| self.describe())?;
        Ok(Output { status, stdout: read_all(&mut stdout)?, stderr: read_all(&mut stderr)? })
    }

    /// Starts the command and leaves it running. The log is standard output and standard error together.
    pub fn spawn(&self) -> Result<Process> {
        let log = scratch()?;
        let child = self.start(log.try_clone()?, log.try_clone()?)?;
        Ok(Process { command: self.clone(), log, child: Mutex::new(child) })
    }

    /// Builds the `std` command with the host's environment, to be started on a thread inside the host.
    pub(crate) fn to_std(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env_clear().env("PATH", super::host::PATH).env("HOME", "/root");
        command.env("LANG", "C.UTF-8");
        for name in ["TERM", "RUST_LOG", "RUST_BACKTRACE"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(&self.env);
        command
    }

    fn start(&self, stdout: File, stderr: File) -> Result<Arc<SharedChild>> {
        let mut stdin = scratch()?;
        stdin.write_all(&self.stdin)?;
        stdin.rewind()?;
        let mut command = self.to_std();
        // A Ctrl-C at the terminal is for the owner of the lab, who then ends the host.
        command.stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
        self.host.start(&mut command).with_context(|| self.describe())
    }

    fn describe(&self) -> String {
        format!("on {}: {}", self.host.name(), self.argv.join(" "))
    }
}

/// A program that runs on a host; killed when dropped, which prints the end of its log. Of a test that passes, nothing
/// is shown.
pub struct Process {
    command: Cmd,
    log: File,
    child: Mutex<Arc<SharedChild>>,
}

impl Process {
    /// Process number as the test sees it; inside the host it is another.
    pub fn pid(&self) -> u32 {
        lock(&self.child()).id()
    }

    /// Everything the program has written so far, restarts included.
    pub fn log(&self) -> String {
        let mut text = vec![0; self.log.metadata().map_or(0, |m| usize::try_from(m.len()).unwrap_or(0))];
        let length = self.log.read_at(&mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, deadline: Duration, text: &str) -> Result<()> {
        let what = format!("{}: {text:?} in the log", self.command.describe());
        eventually(deadline, &what, || {
            let log = self.log();
            let seen = log.contains(text);
            if seen { Ok(()) } else { Err(format!("{}\n{}", self.state(), tail(&log))) }
        })
    }

    /// Sends a signal; does nothing if the program has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let child = self.child();
        let mut child = lock(&child);
        if child.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        }
        Ok(())
    }

    /// True until the program has ended.
    pub fn is_running(&self) -> bool {
        matches!(lock(&self.child()).try_wait(), Ok(None))
    }

    /// Waits for the program to end.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        let ended = poll_end(&self.child(), deadline)?;
        ended.with_context(|| {
            format!("{} still runs after {deadline:?}\n{}", self.command.describe(), tail(&self.log()))
        })
    }

    /// Sends SIGTERM and waits up to 10 seconds for the program to end.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.kill(Signal::SIGTERM)?;
        self.wait(Duration::from_secs(10))
    }

    /// Starts the program again with the same command, after SIGKILL if it still runs.
    pub fn restart(&self) -> Result<()> {
        self.kill(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10))?;
        *lock(&self.child) = self.command.start(self.log.try_clone()?, self.log.try_clone()?)?;
        Ok(())
    }

    /// Resident anonymous memory in KiB (`RssAnon`). Pages of the program file don't count: their number grows with how
    /// much of the program has run.
    pub fn own_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line =
            status.lines().find_map(|l| l.strip_prefix("RssAnon:")).context("no RssAnon: it has ended")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Processor time used by the program and by the children it has waited for.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // After the name, which ends with the last bracket, user and system time are fields 12 and 13, those of
        // children 14 and 15 (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')').context("no name in it")?;
        let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u64>);
        let ticks = ticks.sum::<std::result::Result<u64, _>>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND))
    }

    fn state(&self) -> String {
        match lock(&self.child()).try_wait() {
            Ok(None) => "running".into(),
            Ok(Some(status)) => format!("ended: {status}"),
            Err(error) => error.to_string(),
        }
    }

    fn child(&self) -> Arc<SharedChild> {
        lock(&self.child).clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let state = self.state();
        let child = self.child();
        let _ = lock(&child).kill();
        let _ = lock(&child).wait();
        eprintln!("--- {} ({state})\n{}---", self.command.describe(), tail(&self.log()));
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL);
    lines[from..].iter().flat_map(|line| [line, "\n"]).collect()
}

/// Opens a nameless file. A daemonised grandchild that keeps it open blocks nobody, unlike a pipe.
fn scratch() -> Result<File> {
    let file = File::from(memfd_create(c"lab", MFdFlags::MFD_CLOEXEC).context("memfd")?);
    Ok(file)
}

fn read_all(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wait_for(child: &SharedChild, timeout: Duration) -> Result<ExitStatus> {
    if let Some(status) = poll_end(child, timeout)? {
        return Ok(status);
    }
    let mut child = lock(child);
    child.kill()?;
    child.wait()?;
    bail!("no end after {timeout:?}")
}

/// Exit status of a child, if it ends in time. Polls instead of blocking: the end of its host may need to wait for it
/// too.
fn poll_end(child: &SharedChild, timeout: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = lock(child).try_wait()?;
        if status.is_some() || start.elapsed() > timeout {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects the standard streams to /dev/null.
pub(crate) fn silent(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
