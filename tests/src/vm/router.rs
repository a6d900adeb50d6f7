//! An emulated router: a MIPS 24Kc (the core of ath79 and mt76x8), 64 MB, Debian's kernel for it with WireGuard and
//! nftables, busybox, `nft`, and GateWRT as it is built for OpenWrt.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{Hardware, Initramfs, Packages, Vm, plug};
use crate::lab::{Host, Output, eventually};

/// OpenWrt's name of the architecture.
const ARCHITECTURE: &str = "mipsel_24kc";
/// What OpenWrt has loaded when the daemon starts: the cards, WireGuard, and of nftables what firewall4 and we use.
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
/// Programs beside busybox.
const PROGRAMS: [&str; 2] = ["/usr/sbin/nft", "/usr/bin/wg"];
/// Where the daemon's log is.
const LOG: &str = "/tmp/gatewrt.log";

/// A router in the place of one of the lab's.
pub struct Router {
    /// The machine.
    pub vm: Vm,
    /// The lab's host, for its name and addresses; nothing of its own runs there.
    pub host: Host,
}

impl Router {
    /// Boots one in the place of a router of the lab, with its addresses, and masquerading as it did. The clock says
    /// 1970, as on a router without a battery; GateWRT is there and not started.
    pub fn boot(host: &Host) -> Result<Self> {
        let packages = Packages::of("mipsel")?;
        let (cards, addresses) = plug(host, &["wan", "lan"])?;
        let mut initramfs = system(&packages)?;
        program(&mut initramfs)?;
        initramfs.file("/etc/hosts", 0o644, host.read_file("/etc/hosts")?);
        initramfs.file("/etc/init.d/boot", 0o755, boot_script(host, &addresses)?);
        let machine = ["-machine", "malta", "-cpu", "24Kc", "-m", "64", "-rtc", "base=1970-01-01T00:00:10"];
        let arguments = machine.into_iter().map(str::to_owned).chain(cards).collect();
        let kernel = packages.kernel()?;
        let hardware =
            Hardware { qemu: "qemu-system-mipsel", arguments, kernel, append: String::new(), initramfs };
        Ok(Self { vm: Vm::boot_on(host, &hardware)?, host: host.clone() })
    }

    /// Starts the daemon; it is ready when this returns.
    pub fn start_daemon(&self) -> Result<()> {
        self.vm.run(&format!("gatewrtd >>{LOG} 2>&1 &\necho $! >/run/gatewrtd.pid"))?;
        eventually(Duration::from_secs(20), "the daemon is running", || -> Result<()> {
            let log = self.log()?;
            log.lines().find(|line| line.contains("is running")).context(log.clone())?;
            Ok(())
        })
    }

    /// Runs `gatewrt` with these arguments.
    pub fn gatewrt(&self, arguments: &[&str]) -> Result<Output> {
        let quoted: String = arguments.iter().map(|argument| format!(" '{argument}'")).collect();
        self.vm.run(&format!("gatewrt{quoted}"))
    }

    /// The network's part of `gatewrt status --json`.
    pub fn status(&self) -> Result<serde_json::Value> {
        Ok(self.gatewrt(&["status", "--json"])?.json()?["networks"][0].clone())
    }

    /// What the daemon has said so far, over restarts too.
    pub fn log(&self) -> Result<String> {
        self.vm.read_file(LOG)
    }
}

/// Kernel modules and programs, and `/init`.
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

/// The program as `make size` built it.
fn program(initramfs: &mut Initramfs) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(ARCHITECTURE).join("gatewrt");
    let program = std::fs::read(&path).with_context(|| format!("{}: run make size", path.display()))?;
    initramfs.file("/usr/sbin/gatewrt", 0o755, program).link("/usr/sbin/gatewrtd", "gatewrt");
    Ok(())
}

const INIT: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod \"/lib/modules/$module\"; done </lib/modules/order
sh -e /etc/init.d/boot || echo 'the network was not set up'
exec sh /sbin/agent
";

/// What netifd and firewall4 do on a router: names, addresses, routes, forwarding, masquerading.
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
