//! Programs: found and run to their end, bounded in time and output, with nothing of ours inherited.

use super::KernelError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// `PATH` of a router, for when we were started without one.
pub const PATHS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Time that a program may take: many times what `nft` needs on a slow router for a thousand rules.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest output of a program, in bytes: more than any listing of a table of ours.
const MOST_OUTPUT: usize = 8 << 20;

/// Outcome and output of a program that ended.
#[derive(Debug)]
pub struct Finished {
    /// True for exit status 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error, trimmed.
    pub stderr: String,
}

/// Path of a program: a path itself, or a name found in `PATH` or a router's usual folders.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into()).filter(|path: &PathBuf| path.is_file());
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::split_paths(&paths).chain(std::env::split_paths(PATHS));
    paths.map(|path| path.join(program)).find(|path| path.is_file())
}

/// Names of a folder's entries, sorted; empty when it can't be read.
pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return names };
    for entry in entries {
        names.extend(entry.ok().and_then(|entry| entry.file_name().into_string().ok()));
    }
    names
}

/// Runs a program that reads or changes the firewall, and gives its standard output; `install` is the advice where it
/// is missing.
pub fn ask(program: &str, arguments: &[&str], input: &str, install: &str) -> Result<String, KernelError> {
    let missing = || KernelError::Missing(format!("the program {program} is missing: install {install}"));
    let mut command = Command::new(find(program).ok_or_else(missing)?);
    command.args(arguments).env("LC_ALL", "C");
    match run(command, input, PATIENCE) {
        Ok(finished) if finished.success => Ok(finished.stdout),
        Ok(finished) => Err(refusal(program, &finished.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            let seconds = PATIENCE.as_secs();
            Err(KernelError::Refused(format!("{program} did not end within {seconds} s")))
        }
        Err(error) => Err(KernelError::Refused(format!("{program}: {error}"))),
    }
}

fn refusal(program: &str, stderr: &str) -> KernelError {
    let said: String = stderr.chars().take(2000).collect();
    match said.contains("Operation not permitted") || said.contains("you must be root") {
        true => KernelError::Permission("change the firewall".into()),
        false => KernelError::Refused(format!("{program} refused: {said}")),
    }
}

/// Runs a program with `input` on its standard input; it is killed when it takes longer than `patience`.
pub fn run(mut command: Command, input: &str, patience: Duration) -> io::Result<Finished> {
    let deadline = Instant::now() + patience;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let outcome = converse(&mut child, input.as_bytes(), deadline);
    if outcome.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (stdout, stderr) = outcome?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let stderr = text(stderr).trim().to_owned();
    Ok(Finished { success: status.success(), stdout: text(stdout), stderr })
}

/// Writes the input of a program and reads its outputs, until both are closed.
fn converse(child: &mut Child, mut input: &[u8], deadline: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut stdin = child.stdin.take().filter(|_| !input.is_empty());
    let mut outputs = [Output::new(child.stdout.take())?, Output::new(child.stderr.take())?];
    if let Some(stdin) = &stdin {
        nonblocking(stdin)?;
    }
    while stdin.is_some() || outputs.iter().any(|o| o.pipe.is_some()) {
        wait(&stdin, &outputs, deadline)?;
        if let Some(pipe) = &mut stdin
            && write_some(pipe, &mut input)?
        {
            stdin = None;
        }
        for output in &mut outputs {
            output.read_some()?;
        }
    }
    let [stdout, stderr] = outputs;
    Ok((stdout.bytes, stderr.bytes))
}

struct Output {
    pipe: Option<std::fs::File>,
    bytes: Vec<u8>,
}

impl Output {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> io::Result<Self> {
        let pipe = pipe.map(|p| std::fs::File::from(p.into()));
        if let Some(pipe) = &pipe {
            nonblocking(pipe)?;
        }
        Ok(Self { pipe, bytes: Vec::new() })
    }

    fn read_some(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.take(MOST_OUTPUT as u64).read_to_end(&mut self.bytes) {
            Ok(_) if self.bytes.len() >= MOST_OUTPUT => Err(io::Error::other("it says too much")),
            Ok(_) => {
                self.pipe = None;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Writes as much of a program's input as the pipe takes; true when all is written or the program reads no more.
fn write_some(pipe: &mut impl Write, input: &mut &[u8]) -> io::Result<bool> {
    match pipe.write(input) {
        Ok(len) => *input = input.get(len..).unwrap_or_default(),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(true),
        Err(error) => return Err(error),
    }
    Ok(input.is_empty())
}

fn wait(stdin: &Option<impl AsFd>, outputs: &[Output; 2], deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    let mut fds: Vec<PollFd<'_>> = Vec::new();
    fds.extend(stdin.as_ref().map(|p| PollFd::new(p.as_fd(), PollFlags::POLLOUT)));
    let pipes = outputs.iter().filter_map(|o| o.pipe.as_ref());
    fds.extend(pipes.map(|p| PollFd::new(p.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a pipe non-blocking, as a blocking read would outlast the deadline.
fn nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn program_is_found_by_name_and_by_path() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh"), Some("/bin/sh".into()));
        assert_eq!(find("/bin/no-such-program"), None);
        assert_eq!(find("no-such-program"), None);
    }

    #[test]
    fn long_input_comes_back_whole() {
        let input = "line\n".repeat(100_000);
        let finished = run(sh("cat; echo bad >&2; exit 3"), &input, Duration::from_secs(20)).expect("runs");
        assert_eq!((finished.success, finished.stdout.len()), (false, input.len()));
        assert_eq!(finished.stderr, "bad");
    }

    #[test]
    fn hanging_program_is_killed() {
        let start = Instant::now();
        let error = run(sh("exec sleep 60"), "", Duration::from_millis(200)).expect_err("killed");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn program_that_reads_no_input_is_no_error() {
        let finished = run(sh("exit 0"), &"x".repeat(1 << 20), Duration::from_secs(20)).expect("runs");
        assert!(finished.success);
    }
}
