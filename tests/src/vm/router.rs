//! An emulated router: a MIPS 24Kc (the core of ath79 and mt76x8), 64 MB, Debian's kernel for it with WireGuard and
//! nftables, busybox, `nft`, and GateWRT from the very package that is built for OpenWrt.

use std::{net::Ipv4Addr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{Hardware, Initramfs, Packages, Vm, plug};
use crate::lab::{Host, Output, eventually};

/// Name of the architecture in OpenWrt.
const ARCHITECTURE: &str = "mipsel_24kc";
/// Modules that OpenWrt has loaded when the daemon starts: the cards, WireGuard, and the part of nftables that
/// firewall4 and we use.
const MODULES: [&str; 18] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "wireguard",
    "crc32c_generic",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_ct",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_limit",
    "nft_log",
    "nft_tproxy",
    "nf_conntrack_netlink",
    "tun",
];
/// Programs besides busybox.
const PROGRAMS: [&str; 2] = ["/usr/sbin/nft", "/usr/bin/wg"];
/// Path of the daemon's log.
const LOG: &str = "/tmp/gatewrt.log";

/// An emulated router in place of one of the lab's.
pub struct Router {
    /// The machine.
    pub vm: Vm,
    /// Host of the lab, for its name and addresses; nothing of its own runs there.
    pub host: Host,
    hardware: Hardware,
    /// Day of January 1970 by the clock at boot.
    day: u8,
}

impl Router {
    /// Boots a router in place of one of the lab's, with its addresses and its masquerading. The clock says 1970, as on
    /// a router without a battery; GateWRT is installed and not started.
    pub fn boot(host: &Host) -> Result<Self> {
        let packages = Packages::of("mipsel")?;
        let (cards, addresses) = plug(host, &["wan", "lan"])?;
        let mut initramfs = system(&packages)?;
        package(&mut initramfs)?;
        initramfs.file("/etc/hosts", 0o644, host.read_file("/etc/hosts")?);
        initramfs.file("/etc/init.d/boot", 0o755, boot_script(host, &addresses)?);
        let machine = ["-machine", "malta", "-cpu", "24Kc", "-m", "64", "-rtc"];
        let day = 1;
        let machine = machine.into_iter().map(str::to_owned).chain([clock(day)]);
        let arguments = machine.chain(cards).collect();
        let kernel = packages.kernel()?;
        let hardware = Hardware {
            qemu: "qemu-system-mipsel",
            niceness: 0,
            arguments,
            kernel,
            append: String::new(),
            initramfs,
        };
        Ok(Self { vm: Vm::boot_on(host, &hardware)?, host: host.clone(), hardware, day })
    }

    /// Cuts the power and boots again. `/etc/gatewrt` and its UCI file are kept, as on flash, and nothing else. The
    /// clock is a day later after each reboot: a peer rejects a handshake that is older than the last one.
    pub fn reboot(&mut self) -> Result<()> {
        let files = self.vm.run("find /etc/gatewrt /etc/config/gatewrt -type f")?.stdout;
        for path in files.lines() {
            self.hardware.initramfs.file(path, 0o600, self.vm.read_file(path)?);
        }
        self.day += 1;
        let clock = clock(self.day);
        let before = self.hardware.arguments.iter_mut().find(|argument| argument.starts_with("base="));
        *before.context("a clock")? = clock;
        self.vm.power_off();
        self.vm = Vm::boot_on(&self.host, &self.hardware)?;
        Ok(())
    }

    /// Starts the daemon, pings a peer as soon as there is a route into the network, and returns the time from the
    /// start to the answer, by the router's clock.
    pub fn start_until_answered(&self, peer: Ipv4Addr) -> Result<Duration> {
        let script = format!(
            "read -r start _ </proc/uptime
            gatewrtd >>{LOG} 2>&1 &
            until ip route get {peer} | grep -q gw-; do sleep 0.01; done
            ping -c 1 -W 10 {peer} >/dev/null
            read -r end _ </proc/uptime
            echo $start $end"
        );
        let said = self.vm.run(&script)?.stdout;
        let times: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [start, end] = times[..] else { bail!("not as expected: {said}") };
        Ok(Duration::from_secs_f64(end - start))
    }

    /// Starts the daemon; it is ready when this returns.
    pub fn start_daemon(&self) -> Result<()> {
        let before = self.log()?.len();
        self.vm.run(&format!("gatewrtd >>{LOG} 2>&1 &"))?;
        eventually(Duration::from_secs(20), "the daemon is running", || -> Result<()> {
            let log = self.log()?;
            ensure!(log[before..].contains("is running"), "{log}");
            Ok(())
        })
    }

    /// Sends the daemon a signal and waits up to 10 s for its end.
    pub fn end_daemon(&self, signal: &str) -> Result<()> {
        self.vm.run(&format!("killall -{signal} gatewrtd"))?;
        eventually(Duration::from_secs(10), "the daemon has ended", || {
            self.vm.output("pidof gatewrtd").is_ok_and(|pid| !pid.success())
        })
    }

    /// Runs a command; an exit code other than 0 is an error.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        let quoted: Vec<String> = argv.iter().map(|word| format!("'{word}'")).collect();
        self.vm.run(&quoted.join(" "))
    }

    /// Everything the daemon has logged so far, restarts included.
    pub fn log(&self) -> Result<String> {
        self.vm.read_file(LOG)
    }

    /// Resident memory of the daemon.
    pub fn memory(&self) -> Result<Memory> {
        let status = self.vm.run("cat /proc/$(pidof gatewrtd)/status")?.stdout;
        let of = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context(status.clone())?;
            Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Memory { resident_kib: of("VmRSS")?, own_kib: of("RssAnon")? })
    }

    /// Processor time of the daemon and of the children it has waited for, with a resolution of 10 ms, and the uptime
    /// of the machine.
    pub fn time(&self) -> Result<[Duration; 2]> {
        // Fields 14 to 17 of proc_pid_stat(5), in hundredths of a second; a thread that has ended counts.
        let said =
            self.vm.run("cut -d' ' -f14-17 /proc/$(pidof gatewrtd)/stat; cut -d' ' -f1 /proc/uptime")?.stdout;
        let numbers: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [ticks @ .., up] = numbers.as_slice() else { bail!("not as expected: {said}") };
        Ok([Duration::from_secs_f64(ticks.iter().sum::<f64>() / 100.0), Duration::from_secs_f64(*up)])
    }
}

/// QEMU's argument for a clock at this day of January 1970.
fn clock(day: u8) -> String {
    format!("base=1970-01-{day:02}")
}

/// Resident memory of a program.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All resident memory, in KiB, pages of the program file included.
    pub resident_kib: u64,
    /// Anonymous memory, in KiB, which could not be read again from flash.
    pub own_kib: u64,
}

/// Initramfs with kernel modules, programs and `/init`.
fn system(packages: &Packages) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    for folder in
        ["proc", "sys", "dev", "run", "tmp", "root", "var/run", "etc/config", "etc/init.d", "usr/sbin"]
    {
        initramfs.folder(folder);
    }
    initramfs.device("/dev/console", 5, 1).file("/init", 0o755, INIT);
    initramfs.file("/bin/busybox", 0o755, packages.read("/bin/busybox")?).link("/bin/sh", "busybox");
    let libraries = packages.libraries(&PROGRAMS)?;
    for path in PROGRAMS.iter().copied().chain(libraries.iter().map(String::as_str)) {
        initramfs.file(path, 0o755, packages.read(path)?);
    }
    let mut order = String::new();
    for path in packages.modules(&MODULES)? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a module has a name")?.to_owned();
        initramfs.file(&format!("/lib/modules/{name}"), 0o644, std::fs::read(&path)?);
        order += &format!("{name}\n");
    }
    initramfs.file("/lib/modules/order", 0o644, order);
    initramfs.file("/sbin/agent", 0o755, format!("#!/bin/sh\n{}", Vm::AGENT));
    Ok(initramfs)
}

/// Adds the files of the package that is built for OpenWrt.
fn package(initramfs: &mut Initramfs) -> Result<()> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let suffix = format!("_{ARCHITECTURE}.ipk");
    let is_it = |name: &str| name.starts_with("gatewrt_") && name.ends_with(&suffix);
    let files = std::fs::read_dir(&dist).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut packages =
        files.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_it));
    let package = packages.next().with_context(|| format!("no dist/gatewrt_*{suffix}: run make package"))?;
    ensure!(packages.next().is_none(), "several dist/gatewrt_*{suffix}");
    let scratch = std::env::temp_dir().join(format!("gatewrt-ipk-{}", std::process::id()));
    std::fs::create_dir(&scratch)?;
    let unpack = "tar -xzOf \"$0\" ./data.tar.gz | tar -xz -C \"$1\"";
    let status = Command::new("sh").args(["-ec", unpack]).arg(&package).arg(&scratch).status()?;
    let added = initramfs.tree("/", &scratch).map(drop);
    std::fs::remove_dir_all(&scratch)?;
    ensure!(status.success(), "{} can't be unpacked", package.display());
    added
}

const INIT: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
: >/tmp/gatewrt.log
while read -r module; do insmod \"/lib/modules/$module\"; done </lib/modules/order
sh -e /etc/init.d/boot || echo 'the network was not set up'
exec sh /sbin/agent
";

/// Script for the tasks of netifd and firewall4 on a router: names, addresses, routes, forwarding, masquerading.
fn boot_script(host: &Host, addresses: &str) -> Result<String> {
    let lan = &host.lan_prefixes()?[0];
    Ok(format!(
        "hostname {}
for name in net.ipv4.ip_forward net.ipv6.conf.all.forwarding; do sysctl -qw $name=1; done
for name in all default; do sysctl -qw net.ipv6.conf.$name.accept_dad=0; done
ip link set dev lo up
{addresses}
nft -f - <<'END'
table inet fw4like {{
 chain srcnat {{
  type nat hook postrouting priority srcnat; policy accept;
  oifname \"wan\" ip saddr {lan} masquerade
 }}
}}
END
",
        host.name()
    ))
}
