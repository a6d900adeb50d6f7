//! Running lab, built from a layout and changed while it runs: holders, disks, cables, addresses, rule sets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::net::if_::InterfaceFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::holder::{Holder, Lifetime, Mount, Namespaces};
use super::layout::{End, FABRIC, Kind, Layout, Node};
use super::topology::CORE;
use super::wire;

/// Directory of a lab's disks and programs, as its hosts see it. It exists in the lab's mount namespaces only.
pub(crate) const BASE: &str = "/mnt";
/// Size of a router's flash; a server has more.
const ROUTER_DISK: &str = "size=16m";
const SERVER_DISK: &str = "size=512m";
/// Time limit for the kernel to notice that a link is up.
const LINK_UP: Duration = Duration::from_secs(5);
/// Directories of a host that are on its disk, as overlays over those of the machine.
const ON_DISK: [&str; 2] = ["etc", "var/lib"];
/// Programs under test, as hosts find them in /mnt/bin; each with the file to use instead if there is none of its name.
const PROGRAMS: [(&str, &str); 4] =
    [("gatewrtd", "gatewrt"), ("gatewrt", "gatewrtd"), ("gatewrt-coordinator", ""), ("lab", "")];

/// Running lab: one anchor, which holds disks and bridges, and one holder for each host.
pub(crate) struct Machine {
    lifetime: Lifetime,
    layout: RwLock<Layout>,
    anchor: Holder,
    holders: RwLock<BTreeMap<String, Arc<Holder>>>,
}

impl Machine {
    /// Builds everything. On an error, removes what was built.
    pub(crate) fn build(layout: Layout, lifetime: Lifetime) -> Result<Arc<Self>> {
        let anchor = Holder::start(FABRIC, &[], lifetime)?;
        let machine = Self { lifetime, layout: RwLock::new(layout), anchor, holders: RwLock::default() };
        let machine = Arc::new(machine);
        if let Err(error) = machine.raise() {
            machine.destroy();
            return Err(error);
        }
        Ok(machine)
    }

    /// Takes over a lab that another process built.
    pub(crate) fn adopt(layout: Layout, anchor: Holder, holders: BTreeMap<String, Holder>) -> Arc<Self> {
        let holders = holders.into_iter().map(|(name, holder)| (name, Arc::new(holder))).collect();
        let lifetime = Lifetime::Kept;
        Arc::new(Self { lifetime, layout: RwLock::new(layout), anchor, holders: RwLock::new(holders) })
    }

    pub(crate) fn layout(&self) -> RwLockReadGuard<'_, Layout> {
        self.layout.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn anchor(&self) -> &Holder {
        &self.anchor
    }

    pub(crate) fn holder(&self, name: &str) -> Result<Arc<Holder>> {
        let holders = self.holders.read().unwrap_or_else(PoisonError::into_inner);
        holders.get(name).cloned().with_context(|| format!("the host {name} is not running"))
    }

    /// Ends every host, with its programs and links, and the anchor.
    pub(crate) fn destroy(&self) {
        let holders = std::mem::take(&mut *self.holders.write().unwrap_or_else(PoisonError::into_inner));
        std::thread::scope(|scope| {
            holders.values().for_each(|holder| drop(scope.spawn(|| holder.kill())));
        });
        self.anchor.kill();
    }

    pub(crate) fn reboot(&self, name: &str, before_links: impl FnOnce() -> Result<()>) -> Result<()> {
        let layout = self.layout().clone();
        let node = layout.nodes.get(name).with_context(|| format!("no host {name}"))?;
        let old = self.holder(name)?;
        // Namespaces are freed some time after their last process; their links must be gone before new ones come.
        for cable in layout.cables_of(name) {
            ip_batch(&old, &format!("link del dev {}\n", self_end(cable, name).ifname))?;
        }
        old.kill();
        let new = self.boot(name, node)?;
        self.holders.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(new));
        before_links()?;
        self.connect(&layout, |cable_end| cable_end == name)?;
        let touched =
            |end: &End| layout.cables_of(name).any(|c| same_port(&c.upper, end) || same_port(&c.lower, end));
        let mut nodes: Vec<&str> =
            layout.cables_of(name).flat_map(|c| [c.upper.node.as_str(), c.lower.node.as_str()]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.iter().try_for_each(|node| self.configure(node, touched))?;
        nodes.iter().try_for_each(|node| self.settle(node, touched))?;
        nft(&*self.holder(name)?, &node.ruleset)
    }

    /// Brings chosen interfaces of a host up with their addresses and routes.
    pub(crate) fn configure(&self, node: &str, chosen: impl Fn(&End) -> bool) -> Result<()> {
        let layout = self.layout();
        let text: String =
            layout.ends().filter(|e| e.node == node && chosen(e)).map(wire::configure).collect();
        ensure!(!text.is_empty(), "{node} has no such interface");
        drop(layout);
        let batch = |holder: &Holder| ip_batch(holder, &text).with_context(|| format!("on {node}"));
        if node == FABRIC { batch(&self.anchor) } else { batch(&*self.holder(node)?) }
    }

    pub(crate) fn change_wan_address(&self, name: &str) -> Result<()> {
        let (old, new) = {
            let mut layout = self.layout.write().unwrap_or_else(PoisonError::into_inner);
            let upstream = layout.uplink(name).map(|cable| cable.upper.node.clone());
            if upstream.as_deref() != Some(CORE) {
                bail!("{name} is not directly on the core; change the address of the NAT box in front of it");
            }
            layout.renumber(name)?
        };
        let lower = wire::unaddress(&old.lower) + &wire::configure(&new.lower);
        let upper = wire::unaddress(&old.upper) + &wire::configure(&new.upper);
        ip_batch(&*self.holder(CORE)?, &upper)?;
        ip_batch(&*self.holder(name)?, &lower)?;
        if self.layout().nodes[name].kind == Kind::Nat {
            self.forget_connections(name)?;
        }
        self.write_names()
    }

    /// Flushes the tracked connections of a host, as OpenWrt's netifd does when an address goes: the kernel itself
    /// forgets those that it masqueraded, but not those that it forwarded.
    fn forget_connections(&self, name: &str) -> Result<()> {
        let flush = || feed(&["conntrack", "--flush"], "");
        self.holder(name)?.on_thread(|ns| ns.enter_net(), flush)?
    }

    /// Writes /etc/hosts of every host, with the names of all hosts in both families. No tunnel is needed to look up
    /// the address of a LAN host.
    fn write_names(&self) -> Result<()> {
        let layout = self.layout();
        let write = || -> std::io::Result<()> {
            for name in layout.nodes.keys() {
                std::fs::write(Path::new(BASE).join(name).join("etc/hosts"), layout.names())?;
            }
            Ok(())
        };
        self.anchor.on_thread(|ns| ns.enter_files(), write)?.context("write /etc/hosts")
    }

    /// Loads a rule set of the lab's own on a host, in one transaction.
    pub(crate) fn load_rules(&self, node: &str, rules: &str) -> Result<()> {
        nft(&*self.holder(node)?, rules)
    }

    fn raise(&self) -> Result<()> {
        let layout = self.layout().clone();
        self.make_disks(&layout)?;
        self.write_names()?;
        let boot = |name: &String, node: &Node| Ok((name.clone(), Arc::new(self.boot(name, node)?)));
        let holders = layout.nodes.iter().map(|(name, node)| boot(name, node)).collect::<Result<_>>();
        *self.holders.write().unwrap_or_else(PoisonError::into_inner) = holders?;
        set_sysctls(&self.anchor, false, 0)?;
        ip_batch(&self.anchor, &wire::bridges(&layout))?;
        self.connect(&layout, |_| true)?;
        std::thread::scope(|scope| {
            let finish = |name: &str, rules: &str| -> Result<()> {
                self.configure(name, |_| true)?;
                if rules.is_empty() { Ok(()) } else { self.load_rules(name, rules) }
            };
            let nodes = layout.nodes.iter().map(|(name, node)| (name.as_str(), node.ruleset.as_str()));
            let fabric = (!layout.bridges.is_empty()).then_some((FABRIC, ""));
            let threads: Vec<_> =
                nodes.chain(fabric).map(|(name, rules)| scope.spawn(move || finish(name, rules))).collect();
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
        })?;
        layout
            .nodes
            .keys()
            .map(String::as_str)
            .chain([FABRIC])
            .try_for_each(|node| self.settle(node, |_| true))
    }

    /// Waits up to 5 s until the kernel has noticed that chosen links of a host are up; until then it drops packets
    /// sent on them.
    pub(crate) fn settle(&self, node: &str, chosen: impl Fn(&End) -> bool) -> Result<()> {
        let layout = self.layout();
        let links: BTreeSet<&str> =
            layout.ends().filter(|e| e.node == node && chosen(e)).map(|e| e.ifname.as_str()).collect();
        let start = Instant::now();
        let wait = || -> Result<()> {
            loop {
                let running = getifaddrs()?.filter(|i| i.flags.contains(InterfaceFlags::IFF_RUNNING));
                let running: BTreeSet<String> = running.map(|i| i.interface_name).collect();
                let Some(down) = links.iter().find(|link| !running.contains(**link)) else { return Ok(()) };
                ensure!(start.elapsed() < LINK_UP, "{down} of {node} has no carrier");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let enter = |ns: &Namespaces| ns.enter_net();
        if node == FABRIC {
            self.anchor.on_thread(enter, wait)?
        } else {
            self.holder(node)?.on_thread(enter, wait)?
        }
    }

    /// Makes a tmpfs for each host, and on it the overlays of /etc and /var/lib. The anchor holds them, so that they
    /// outlive a host.
    fn make_disks(&self, layout: &Layout) -> Result<()> {
        let programs = program_directory()?;
        self.anchor.on_thread(
            |ns| ns.enter_files(),
            || {
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                // Opened first: the tmpfs may hide it.
                let programs = std::fs::File::open(&programs);
                mount(Some("lab"), BASE, Some("tmpfs"), MsFlags::empty(), none)?;
                show_programs(programs.ok())?;
                layout.nodes.iter().try_for_each(|(name, node)| make_disk(name, node.kind))
            },
        )?
    }

    /// Starts process 1 of a host, with the host's own view of files and its kernel settings, but no link yet.
    fn boot(&self, name: &str, node: &Node) -> Result<Holder> {
        let disk = format!("{BASE}/{name}");
        let mut mounts = vec![
            Mount::fs("proc", "/proc", ""),
            Mount::fs("sysfs", "/sys", ""),
            Mount::fs("tmpfs", "/run", "mode=755,size=64m"),
            Mount::fs("tmpfs", "/tmp", "mode=1777,size=64m"),
        ];
        mounts.extend(ON_DISK.iter().map(|dir| Mount::bind(&format!("{disk}/{dir}"), &format!("/{dir}"))));
        let start = || Holder::start(name, &mounts, self.lifetime);
        let holder = self.anchor.on_thread(|ns| ns.enter_files(), start)??;
        set_sysctls(&holder, node.forwarding, node.rp_filter)
            .with_context(|| format!("sysctls of {name}"))?;
        Ok(holder)
    }

    /// Makes the cables of which one end is on a chosen host.
    fn connect(&self, layout: &Layout, chosen: impl Fn(&str) -> bool) -> Result<()> {
        let pid = |node: &str| -> Result<i32> {
            let pid = if node == FABRIC { self.anchor.pid } else { self.holder(node)?.pid };
            Ok(pid.as_raw())
        };
        let mut text = String::new();
        for cable in layout.cables.iter().filter(|c| chosen(&c.upper.node) || chosen(&c.lower.node)) {
            text += &wire::create(cable, pid(&cable.upper.node)?, pid(&cable.lower.node)?);
        }
        ip_batch(&self.anchor, &text)
    }
}

fn self_end<'a>(cable: &'a super::layout::Cable, name: &str) -> &'a End {
    if cable.upper.node == name { &cable.upper } else { &cable.lower }
}

fn same_port(a: &End, b: &End) -> bool {
    a.node == b.node && a.ifname == b.ifname
}

/// Directory of the programs under test: `GATEWRT_BIN_DIR`, or the build directory this program is in.
pub fn program_directory() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("GATEWRT_BIN_DIR") {
        let dir = PathBuf::from(dir);
        ensure!(dir.is_dir(), "GATEWRT_BIN_DIR={} is not a directory", dir.display());
        return Ok(dir.canonicalize()?);
    }
    let program = std::env::current_exe().context("path of this program")?;
    let dir = program.parent().context("a program is in a directory")?;
    let dir = if dir.ends_with("deps") { dir.parent().context("deps is in a directory")? } else { dir };
    Ok(dir.to_owned())
}

/// Binds the build directory to /mnt/target, whatever hides it on the hosts, and links the programs in /mnt/bin.
fn show_programs(dir: Option<std::fs::File>) -> Result<()> {
    let (bin, target) = (Path::new(BASE).join("bin"), Path::new(BASE).join("target"));
    std::fs::create_dir(&bin)?;
    std::fs::create_dir(&target)?;
    let Some(dir) = dir else { return Ok(()) };
    let source = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let none = None::<&str>;
    mount(Some(source.as_str()), &target, none, MsFlags::MS_BIND, none)
        .context("show the programs under test")?;
    for (name, instead) in PROGRAMS {
        let program = [name, instead].map(|file| target.join(file)).into_iter().find(|path| path.is_file());
        std::os::unix::fs::symlink(program.unwrap_or_else(|| target.join(name)), bin.join(name))?;
    }
    Ok(())
}

fn make_disk(name: &str, kind: Kind) -> Result<()> {
    let disk = Path::new(BASE).join(name);
    std::fs::create_dir(&disk)?;
    let size = if kind == Kind::Router { ROUTER_DISK } else { SERVER_DISK };
    mount(Some("disk"), &disk, Some("tmpfs"), MsFlags::empty(), Some(size)).context("make a disk")?;
    for dir in ON_DISK {
        let [upper, work, merged] = ["upper/", "work/", ""].map(|part| disk.join(format!("{part}{dir}")));
        [&upper, &work, &merged].into_iter().try_for_each(std::fs::create_dir_all)?;
        let options = format!("lowerdir=/{dir},upperdir={},workdir={}", upper.display(), work.display());
        let overlay = Some("overlay");
        mount(overlay, &merged, overlay, MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("overlay of /{dir} (the kernel needs overlayfs)"))?;
    }
    ["config", "gatewrt"].iter().try_for_each(|dir| std::fs::create_dir_all(disk.join("etc").join(dir)))?;
    Ok(())
}

/// Sets the network settings of the kernel to known values, since a new network namespace inherits some of the
/// machine's, and brings `lo` up.
fn set_sysctls(holder: &Holder, forwarding: bool, rp_filter: u8) -> Result<()> {
    let on = u8::from(forwarding).to_string();
    let rp_filter = rp_filter.to_string();
    let settings = [
        // Resets the others of IPv4, so it comes first.
        ("ipv4/ip_forward", on.as_str()),
        ("ipv4/conf/all/rp_filter", &rp_filter),
        ("ipv4/conf/default/rp_filter", &rp_filter),
        ("ipv4/conf/all/src_valid_mark", "0"),
        ("ipv4/conf/default/src_valid_mark", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/forwarding", &on),
        // An address is usable at once; nobody else in the lab could have it.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
    ];
    let write = || -> Result<()> {
        for (name, value) in settings {
            let path = format!("/proc/sys/net/{name}");
            std::fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
        }
        Ok(())
    };
    holder.on_thread(|ns| ns.enter_net(), write)??;
    let lo_up = || feed(&["ip", "-batch", "-"], "link set dev lo up\n");
    holder.on_thread(|ns| ns.enter_net(), lo_up)?
}

fn ip_batch(holder: &Holder, text: &str) -> Result<()> {
    holder.on_thread(|ns| ns.enter_net(), || feed(&["ip", "-batch", "-"], text))?
}

fn nft(holder: &Holder, rules: &str) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    holder.on_thread(|ns| ns.enter_net(), || feed(&["nft", "-f", "-"], rules))?
}

/// Runs a program of the machine, not of a host, with text on its standard input.
fn feed(argv: &[&str], text: &str) -> Result<()> {
    let mut stdin = std::fs::File::from(memfd_create(c"lab", MFdFlags::MFD_CLOEXEC)?);
    stdin.write_all(text.as_bytes())?;
    stdin.rewind()?;
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().with_context(|| format!("start {} (is it installed?)", argv[0]))?;
    if !output.status.success() {
        let numbered: String =
            text.lines().zip(1..).map(|(line, n): (_, u32)| format!("{n:>4} {line}\n")).collect();
        bail!("{}: {}\n{}{numbered}", argv.join(" "), output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
