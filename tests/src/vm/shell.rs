//! Commands in a machine, over a serial port of QEMU's. A request is a line with the action and a number of bytes, then
//! these bytes; an answer is a line with the exit code and two lengths, then standard output and standard error. The
//! machine's end is [`AGENT`].

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::ExitStatus,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::lab::Output;

/// Machine's end of the port, in busybox's shell; never returns. Processes that it starts in the background live on.
pub(super) const AGENT: &str = "take() {
    if [ \"$1\" = 0 ]; then : >\"$2\"; else dd iflag=fullblock bs=\"$1\" count=1 of=\"$2\" 2>/dev/null; fi
}
answer_all() {
    echo ready
    while read -r kind size path; do
        : >/run/agent.out; : >/run/agent.err
        case $kind in
            run) take \"$size\" /run/agent.sh
                sh /run/agent.sh </dev/null >/run/agent.out 2>/run/agent.err ;;
            write) take \"$size\" \"$path\" ;;
        esac
        echo $? $(wc -c </run/agent.out) $(wc -c </run/agent.err)
        cat /run/agent.out /run/agent.err
    done
}
for port in /sys/class/virtio-ports/*; do [ \"$(cat \"$port/name\")\" != shell ] || break; done
while true; do answer_all <>\"/dev/${port##*/}\" >&0; done
";

/// This program's end of the port.
pub(super) struct Shell {
    stream: Mutex<BufReader<UnixStream>>,
}

impl Shell {
    /// Waits until the agent is ready, for at most `boot`.
    pub(super) fn open(stream: UnixStream, boot: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(boot))?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).with_context(|| format!("the machine has not booted within {boot:?}"))?;
        if line != "ready\n" {
            bail!("the machine ended, or something else speaks: {line:?}");
        }
        Ok(Self { stream: Mutex::new(stream) })
    }

    /// Runs a script to its end, whatever its exit code.
    pub(super) fn run(&self, script: &str, timeout: Duration) -> Result<Output> {
        self.ask(&format!("run {}", script.len()), script.as_bytes(), timeout)
            .with_context(|| format!("in the machine: {script}"))
    }

    /// Writes a file into an existing folder.
    pub(super) fn write(&self, path: &str, content: &[u8], timeout: Duration) -> Result<()> {
        let output = self.ask(&format!("write {} {path}", content.len()), content, timeout)?;
        if output.success() { Ok(()) } else { bail!("{path} could not be written in the machine") }
    }

    fn ask(&self, request: &str, content: &[u8], timeout: Duration) -> Result<Output> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.get_ref().set_read_timeout(Some(timeout))?;
        stream.get_ref().set_write_timeout(Some(timeout))?;
        stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        stream.get_mut().write_all(content)?;
        let mut line = String::new();
        stream.read_line(&mut line).context("no answer")?;
        let numbers: Vec<usize> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [code, out, err] = numbers[..] else { bail!("not an answer: {line:?}") };
        let mut text = |length: usize| -> Result<String> {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (stdout, stderr) = (text(out)?, text(err)?);
        Ok(Output { status: ExitStatus::from_raw(i32::try_from(code)? << 8), stdout, stderr })
    }
}
