//! One running machine: QEMU, its console, its shell.

use std::{
    fs::File,
    io::Write,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Initramfs, shell::Shell};
use crate::lab::{Host, Output};

/// A slow machine under emulation, beside another test.
const BOOT: Duration = Duration::from_secs(90);
/// No command takes longer, unless [`Vm::output_within`] says so.
const COMMAND: Duration = Duration::from_secs(60);
/// How much of the console is shown when a test fails.
const CONSOLE_TAIL: usize = 40;

/// What a machine is made of.
pub struct Hardware {
    /// QEMU's program.
    pub qemu: &'static str,
    /// Machine, memory, processors, devices: QEMU's arguments.
    pub arguments: Vec<String>,
    /// What it boots.
    pub kernel: PathBuf,
    /// What the kernel is told beside that.
    pub append: String,
    /// What is in it. Its `/init` runs [`Vm::AGENT`] at last.
    pub initramfs: Initramfs,
}

/// A machine that has booted; it goes when this value is dropped or this process ends. The end of its console is printed
/// then: a test that passes shows no output.
pub struct Vm {
    name: String,
    shell: Shell,
    console: File,
    child: Arc<Mutex<std::process::Child>>,
    /// How long it took to boot.
    pub booted_in: Duration,
}

impl Vm {
    /// What `/init` does at last, with `/dev`, `/proc`, `/sys` and `/run` mounted and `virtio_console` there: it never returns.
    pub const AGENT: &str = super::shell::AGENT;

    /// Boots one in the network of a host of a lab, where QEMU finds the taps that are named in `hardware`. It ends with the
    /// host.
    pub fn boot_on(host: &Host, hardware: &Hardware) -> Result<Self> {
        Self::start(host.name(), hardware, |command| host.start_beside_files(command))
    }

    /// Boots one without a lab.
    pub fn boot(name: &str, hardware: &Hardware) -> Result<Self> {
        Self::start(name, hardware, |command| Ok(Arc::new(Mutex::new(command.spawn()?))))
    }

    /// Runs a shell script; an exit code other than 0 is an error.
    pub fn run(&self, script: &str) -> Result<Output> {
        let output = self.output(script)?;
        if !output.success() {
            bail!("in {}: {script}: {}\n{}{}", self.name, output.status, output.stderr, output.stdout);
        }
        Ok(output)
    }

    /// Runs a shell script, whatever its exit code. What it leaves in the background lives on.
    pub fn output(&self, script: &str) -> Result<Output> {
        self.output_within(COMMAND, script)
    }

    /// The same, with a time limit of its own.
    pub fn output_within(&self, limit: Duration, script: &str) -> Result<Output> {
        self.shell.run(script, limit).with_context(|| format!("in {}\n{}", self.name, self.console_tail()))
    }

    /// Writes a file into an existing folder.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.shell.write(path, content.as_ref(), COMMAND).with_context(|| format!("in {}", self.name))
    }

    /// Reads a file.
    pub fn read_file(&self, path: &str) -> Result<String> {
        Ok(self.run(&format!("cat '{path}'"))?.stdout)
    }

    /// All that the kernel and `/init` have said.
    pub fn console(&self) -> String {
        text_of(&self.console)
    }

    /// Cuts the power. Nothing can be run any more.
    pub fn power_off(&self) {
        drop(Ended { child: self.child.clone() });
    }

    /// The number of QEMU's process.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    fn start(
        name: &str,
        hardware: &Hardware,
        spawn: impl FnOnce(&mut Command) -> Result<Arc<Mutex<std::process::Child>>>,
    ) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let (initramfs, console, errors) = (memory()?, memory()?, memory()?);
        (&initramfs).write_all(&hardware.initramfs.build())?;
        let theirs: OwnedFd = theirs.into();
        let mut command = Command::new(hardware.qemu);
        command
            .args(["-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot"])
            .args(&hardware.arguments);
        command.arg("-kernel").arg(&hardware.kernel).args(["-initrd", &path_of(&initramfs)]);
        command.args(["-append", &format!("console=ttyS0 panic=1 {}", hardware.append)]);
        command.arg("-chardev").arg(format!("file,id=console,append=on,path={}", path_of(&console)));
        command.args(["-serial", "chardev:console", "-chardev", "stdio,id=shell,signal=off"]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell,name=shell"]);
        command
            .stdin(Stdio::from(theirs.try_clone()?))
            .stdout(Stdio::from(theirs))
            .stderr(errors.try_clone()?);
        let started = Instant::now();
        let child =
            spawn(&mut command).with_context(|| format!("start {} (is it installed?)", hardware.qemu))?;
        // Ours are closed, so that the machine's end is the stream's.
        drop(command);
        let end = Ended { child: child.clone() };
        let shell = Shell::open(ours, BOOT).with_context(|| {
            format!("{name}, whose console says\n{}{}", tail(&text_of(&console)), text_of(&errors))
        })?;
        std::mem::forget(end);
        Ok(Self { name: name.to_owned(), shell, console, child, booted_in: started.elapsed() })
    }

    fn console_tail(&self) -> String {
        format!("its console:\n{}", tail(&self.console()))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        drop(Ended { child: self.child.clone() });
        eprintln!("--- the machine {}\n{}---", self.name, tail(&self.console()));
    }
}

/// Ends the process when it goes.
struct Ended {
    child: Arc<Mutex<std::process::Child>>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A nameless file, which others open by [`path_of`] as long as it is open here.
fn memory() -> Result<File> {
    Ok(File::from(memfd_create(c"vm", MFdFlags::MFD_CLOEXEC).context("memfd")?))
}

fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

fn text_of(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().map_or(0, |about| usize::try_from(about.len()).unwrap_or(0))];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).replace('\r', "")
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_TAIL)..].iter().flat_map(|line| [*line, "\n"]).collect()
}
