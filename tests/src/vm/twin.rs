//! Twin of this machine: its files as they are, and a kernel that has WireGuard. A whole lab runs inside, with the
//! programs and tests that were built here.
//!
//! The twin's clock counts the instructions of its processor instead of this machine's seconds. However busy this
//! machine is, nothing in the twin is late, and two ways to carry a packet compare by the work they take.

use std::{num::ParseIntError, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{Hardware, Initramfs, Packages, Vm};
use crate::lab::Output;

/// Modules for this machine's files, the console port and random numbers.
const TO_BOOT: [&str; 6] = ["virtio_pci", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "overlay"];
/// Modules for a lab, but not for TUN devices: without them there is no WireGuard other than the kernel's. All are
/// loaded at the start, and loading on demand is turned off: the kernel would ask for a module at every interface name
/// it doesn't know, which costs more than all else.
const FOR_A_LAB: [&str; 26] = [
    "crc32c_generic",
    "wireguard",
    "veth",
    "bridge",
    "sch_netem",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nf_flow_table_inet",
    "nft_flow_offload",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_inet",
    "nft_socket",
    "nft_tproxy",
    "nf_log_syslog",
    "af_packet_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];
/// Memory of the machine in MiB; files that are written are kept in it, too.
const MEMORY: &str = "2048";

/// Method by which a machine copies and clears memory.
#[derive(Clone, Copy)]
pub enum Copying {
    /// Instructions that today's processors have for it. QEMU counts each byte of theirs, so that every byte carried
    /// costs time.
    Bytes,
    /// Loops over words, which cost far less: for work that is not measured.
    Words,
}

/// A machine like this one, which ends when this value is dropped.
pub struct Twin {
    vm: Vm,
}

impl Twin {
    /// Boots a twin.
    pub fn boot(name: &str, copying: Copying) -> Result<Self> {
        let packages = Packages::of("amd64")?;
        let (cpu, append) = match copying {
            Copying::Bytes => ("max,la57=off", ""),
            // 112: `X86_FEATURE_REP_GOOD` (arch/x86/include/asm/cpufeatures.h).
            Copying::Words => ("max,la57=off,erms=off,fsrm=off", " clearcpuid=112 init_on_alloc=0"),
        };
        // One instruction takes a nanosecond; while the processor is idle, time passes as on this machine.
        let clock = ["-icount", "shift=0,sleep=on", "-rtc", "base=utc,clock=vm"];
        let machine = ["-machine", "q35", "-accel", "tcg,tb-size=256", "-cpu", cpu, "-m", MEMORY];
        let files = [
            "-fsdev",
            "local,id=files,path=/,security_model=passthrough,readonly=on,multidevs=remap",
            "-device",
            "virtio-9p-pci,fsdev=files,mount_tag=files",
            "-device",
            "virtio-rng-pci",
        ];
        let hardware = Hardware {
            qemu: "qemu-system-x86_64",
            niceness: 19,
            arguments: [&machine[..], &clock, &files].concat().into_iter().map(str::to_owned).collect(),
            kernel: packages.kernel()?,
            // norandmaps: QEMU translates a program anew wherever it is placed, which takes more time than to run it.
            append: format!("quiet nosmp tsc=reliable mitigations=off norandmaps{append}"),
            initramfs: system(&packages)?,
        };
        Ok(Self { vm: Vm::boot(name, &hardware)? })
    }

    /// Copies files of this machine to a folder in the twin's memory, where they are read fast.
    pub fn copy(&self, folder: &str, files: &[&Path]) -> Result<()> {
        let names = files.iter().map(|file| file.to_str().context("a name in UTF-8"));
        let names = names.collect::<Result<Vec<_>>>()?.join("' '");
        self.vm.run(&format!("mkdir -p {folder}; cp --dereference '{names}' {folder}/")).map(drop)
    }

    /// Runs a shell script, whatever its exit code.
    pub fn output(&self, limit: Duration, script: &str) -> Result<Output> {
        self.vm.output_within(limit, script)
    }

    /// Processor time that QEMU has used on this machine so far.
    pub fn cost(&self) -> Result<Duration> {
        // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.vm.pid()))?;
        let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(ticks.sum::<Result<u64, ParseIntError>>()? * 10))
    }

    /// Warnings and errors in the kernel's log, without the expected ones.
    pub fn complaints(&self) -> Result<String> {
        let log = self.vm.run("dmesg --level=emerg,alert,crit,err,warn")?.stdout;
        let is_new = |line: &&str| !EXPECTED.iter().any(|expected| line.contains(expected));
        Ok(log.lines().filter(is_new).flat_map(|line| [line, "\n"]).collect())
    }
}

/// Texts of the warnings that this kernel prints on this emulated machine in any case.
const EXPECTED: [&str; 1] = ["ACPI: setting ELCR"];

fn system(packages: &Packages) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    for folder in ["proc", "sys", "dev", "files", "new", "root"] {
        initramfs.folder(folder);
    }
    initramfs.device("/dev/console", 5, 1).file("/init", 0o755, INIT);
    initramfs.file("/bin/busybox", 0o755, packages.read("/bin/busybox")?).link("/bin/sh", "busybox");
    initramfs.file("/agent", 0o755, format!("#!/bin/sh\n{ENVIRONMENT}{}", Vm::AGENT));
    let mut order = String::new();
    let names: Vec<&str> = TO_BOOT.into_iter().chain(FOR_A_LAB).collect();
    for path in packages.modules(&names)? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a module has a name")?.to_owned();
        initramfs.file(&format!("/modules/{name}"), 0o644, std::fs::read(&path)?);
        order += &format!("{name}\n");
    }
    initramfs.file("/modules/order", 0o644, order);
    Ok(initramfs)
}

const ENVIRONMENT: &str =
    "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n";

const INIT: &str = "#!/bin/sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod \"/modules/$module\"; done </modules/order
echo >/proc/sys/kernel/modprobe
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro files /files
mount -t tmpfs -o size=80% memory /new
mkdir -p /new/upper /new/work /new/all
mount -t overlay -o lowerdir=/files,upperdir=/new/upper,workdir=/new/work all /new/all
cd /new/all
for folder in proc sys dev; do mount -o move /$folder $folder; done
mount -t tmpfs -o mode=755 run run
mkdir -p dev/pts dev/shm
mount -t devpts pts dev/pts
mount -t tmpfs shm dev/shm
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
cp /agent run/agent
ip link set dev lo up
hostname twin
exec switch_root /new/all /bin/sh /run/agent
";
