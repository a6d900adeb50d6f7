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

/// Time limit of a boot: a minute under emulation, and more where other stages of `make test` have the processors first.
const BOOT: Duration = Duration::from_secs(10 * 60);
/// Time limit of a command, unless [`Vm::output_within`] says another.
const COMMAND: Duration = Duration::from_secs(5 * 60);
/// Number of lines shown from the end of the console.
const CONSOLE_TAIL: usize = 40;

/// Parts of a machine.
pub struct Hardware {
    /// QEMU's program.
    pub qemu: &'static str,
    /// Niceness of QEMU: 0, or more for a machine whose clock waits for it.
    pub niceness: u8,
    /// Machine, memory, processors, devices: QEMU's arguments.
    pub arguments: Vec<String>,
    /// Kernel image to boot.
    pub kernel: PathBuf,
    /// Kernel command line, besides the console and `panic`.
    pub append: String,
    /// Root file system. Its `/init` runs [`Vm::AGENT`] last.
    pub initramfs: Initramfs,
}

/// A booted machine; it ends when this value is dropped or this process ends. Dropping it prints the end of its
/// console; of a test that passes, nothing is shown.
pub struct Vm {
    name: String,
    shell: Shell,
    console: File,
    child: Arc<Mutex<std::process::Child>>,
    /// Time from the start of QEMU until the shell answered.
    pub booted_in: Duration,
}

impl Vm {
    /// Script that `/init` runs last, with `/dev`, `/proc`, `/sys` and `/run` mounted and `virtio_console` loaded. It
    /// never returns.
    pub const AGENT: &str = super::shell::AGENT;

    /// Boots a machine in the network of a lab's host, where QEMU finds the taps that are named in `hardware`. It ends
    /// with the host.
    pub fn boot_on(host: &Host, hardware: &Hardware) -> Result<Self> {
        Self::start(host.name(), hardware, |command| host.start_beside_files(command))
    }

    /// Boots a machine without a lab.
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

    /// Runs a shell script, whatever its exit code. Processes it leaves in the background live on.
    pub fn output(&self, script: &str) -> Result<Output> {
        self.output_within(COMMAND, script)
    }

    /// Runs a shell script as [`Vm::output`] does, with a time limit of its own.
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

    /// Everything that the kernel and `/init` have printed.
    pub fn console(&self) -> String {
        text_of(&self.console)
    }

    /// Cuts the power; nothing can be run afterwards.
    pub fn power_off(&self) {
        drop(Ended { child: self.child.clone() });
    }

    /// Process number of QEMU.
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
        let mut command = Command::new("nice");
        command.args(["-n", &hardware.niceness.to_string(), hardware.qemu]);
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
        // Closes our copies of the machine's end of the stream, so that the stream ends with the machine.
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

/// Guard that kills the process when it is dropped.
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

/// Opens a nameless file, which others open by [`path_of`] as long as it is open here.
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
