//! One emulated host: run things on it, read and write its files, pull its cables, reboot it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::holder::SharedChild;
use super::layout::{End, Kind};
use super::machine::Machine;
use super::process::{Cmd, Output, Process};

/// Search path for commands on a host: the programs under test come first.
pub(crate) const PATH: &str = "/mnt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Handle on a host; cheap to clone, and valid across reboots.
#[derive(Clone)]
pub struct Host {
    name: String,
    machine: Arc<Machine>,
}

/// Configuration of an interface.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Addresses with their networks.
    pub addresses: Vec<IpNet>,
    /// Destinations behind the interface, each with its gateway.
    pub routes: Vec<(IpNet, IpAddr)>,
}

impl Host {
    pub(crate) fn new(name: &str, machine: &Arc<Machine>) -> Self {
        Self { name: name.to_owned(), machine: machine.clone() }
    }

    /// Name of the host in the topology, also its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kind of the host.
    pub fn kind(&self) -> Kind {
        self.machine.layout().nodes.get(&self.name).map_or(Kind::Host, |node| node.kind)
    }

    /// A command to refine (environment, standard input, time limit) and then `run`, `output` or `spawn`.
    pub fn command(&self, argv: &[&str]) -> Cmd {
        Cmd::new(self, argv)
    }

    /// Runs a command; an exit code other than 0 is an error that says host, command, exit and output.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        self.command(argv).run()
    }

    /// Runs a command, whatever its exit code.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        self.command(argv).output()
    }

    /// Runs a shell script that stops at its first failing command.
    pub fn shell(&self, script: &str) -> Result<Output> {
        self.run(&["sh", "-ec", script])
    }

    /// Loads nft rules, in one transaction.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.command(&["nft", "-f", "-"]).stdin(rules).run().map(drop)
    }

    /// Starts a program and leaves it running until the [`Process`] is dropped.
    pub fn spawn(&self, argv: &[&str]) -> Result<Process> {
        self.command(argv).spawn()
    }

    /// Runs a closure on a thread in the host's network, for sockets. Threads that it starts stay in that network.
    pub fn in_netns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.machine.holder(&self.name)?.on_thread(|ns| ns.enter_net(), work)
    }

    /// Starts a prepared command inside the host.
    pub(crate) fn start(&self, command: &mut Command) -> Result<Arc<SharedChild>> {
        self.machine.holder(&self.name)?.spawn(command)
    }

    /// Starts a prepared command that sees the machine's files instead of the host's.
    pub(crate) fn start_beside_files(&self, command: &mut Command) -> Result<Arc<SharedChild>> {
        self.machine.holder(&self.name)?.spawn_beside_files(command)
    }

    /// Runs a closure on a thread that sees the host's files, to hand out open files or read many.
    pub fn in_files<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.machine.holder(&self.name)?.on_thread(|ns| ns.enter_files(), work)
    }

    /// Reads a file as the host sees it.
    pub fn read_file(&self, path: &str) -> Result<String> {
        let read = self.in_files(|| std::fs::read_to_string(path))?;
        read.with_context(|| format!("on {}: read {path}", self.name))
    }

    /// Writes a file as the host sees it, with the directories above it.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]> + Sync) -> Result<()> {
        let write = || {
            Path::new(path).parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, content.as_ref())
        };
        self.in_files(write)?.with_context(|| format!("on {}: write {path}", self.name))
    }

    /// Removes a file or a directory tree; a missing one is no error.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.run(&["rm", "-rf", "--", path]).map(drop)
    }

    /// True if a path exists on the host.
    pub fn exists(&self, path: &str) -> Result<bool> {
        self.in_files(|| Path::new(path).exists())
    }

    /// Fills the host's disk to the last byte, until [`Host::free_disk`].
    pub fn fill_disk(&self) -> Result<()> {
        let fill = self.disk().join("filler");
        let script = format!("head -c 1G /dev/zero >{0} 2>/dev/null; test -s {0}", fill.display());
        self.run(&["sh", "-c", &script]).map(drop)
    }

    /// Undoes [`Host::fill_disk`].
    pub fn free_disk(&self) -> Result<()> {
        self.remove(&self.disk().join("filler").display().to_string())
    }

    fn disk(&self) -> PathBuf {
        Path::new(super::machine::BASE).join(&self.name)
    }

    /// Cuts the power and boots again. Processes, tmpfs, tunnels and addresses set since are lost; the disk, the cables
    /// and the addresses of the cables are there again.
    pub fn reboot(&self) -> Result<()> {
        self.machine.reboot(&self.name, || Ok(()))
    }

    /// Reboots as [`Host::reboot`] does, and calls `before_links` as soon as commands run, before the first cable is
    /// there.
    pub fn reboot_with(&self, before_links: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.machine.reboot(&self.name, || before_links(self))
    }

    /// Takes an interface down.
    pub fn link_down(&self, ifname: &str) -> Result<()> {
        self.run(&["ip", "link", "set", "dev", ifname, "down"]).map(drop)
    }

    /// Brings an interface up with its addresses and routes, and waits for its carrier.
    pub fn link_up(&self, ifname: &str) -> Result<()> {
        self.machine.configure(&self.name, |end| end.ifname == ifname)?;
        self.machine.settle(&self.name, |end| end.ifname == ifname)
    }

    /// Moves the WAN to another subnet, as a provider does: new IPv4 and IPv6 address and gateway, the old ones gone.
    /// Works for a host directly on the core. For a router behind a NAT box, call it on the box, which then forgets its
    /// connections.
    pub fn change_wan_address(&self) -> Result<()> {
        self.machine.change_wan_address(&self.name)
    }

    /// Sets the MTU of an interface.
    pub fn set_mtu(&self, ifname: &str, mtu: u32) -> Result<()> {
        self.run(&["ip", "link", "set", "dev", ifname, "mtu", &mtu.to_string()]).map(drop)
    }

    /// Name of the interface towards the Internet: `wan` of routers and NAT boxes, else `eth0`.
    pub fn wan(&self) -> &'static str {
        if matches!(self.kind(), Kind::Router | Kind::Nat) { "wan" } else { "eth0" }
    }

    /// IPv4 address towards the Internet: a router's WAN, a server's or LAN host's only one.
    pub fn ip4(&self) -> Result<Ipv4Addr> {
        self.address4(self.wan())
    }

    /// IPv6 address towards the Internet.
    pub fn ip6(&self) -> Result<Ipv6Addr> {
        self.address6(self.wan())
    }

    /// A router's IPv4 address on its LAN.
    pub fn lan4(&self) -> Result<Ipv4Addr> {
        self.address4("lan")
    }

    /// A router's IPv6 address on its LAN.
    pub fn lan6(&self) -> Result<Ipv6Addr> {
        self.address6("lan")
    }

    /// The prefixes of a router's LAN: IPv4 and IPv6.
    pub fn lan_prefixes(&self) -> Result<[String; 2]> {
        self.prefixes("lan")
    }

    /// The prefixes of an interface: IPv4 and IPv6.
    pub fn prefixes(&self, ifname: &str) -> Result<[String; 2]> {
        let layout = self.machine.layout();
        let end = layout.end(&self.name, ifname).with_context(|| format!("{}: no {ifname}", self.name))?;
        let prefix = |is_wanted: fn(&IpNet) -> bool| end.addresses.iter().copied().find(is_wanted);
        let both = [prefix(|net| matches!(net, IpNet::V4(_))), prefix(|net| matches!(net, IpNet::V6(_)))];
        match both {
            [Some(v4), Some(v6)] => Ok([v4, v6].map(|net| net.trunc().to_string())),
            _ => bail!("{}: {ifname} is not of both families", self.name),
        }
    }

    /// IPv4 address that the Internet sees: that of the outermost NAT box, if there is one.
    pub fn public4(&self) -> Result<Ipv4Addr> {
        let edge = self.machine.layout().edge(&self.name)?;
        Host::new(&edge, &self.machine).ip4()
    }

    /// IPv4 address of an interface, as laid out.
    pub fn address4(&self, ifname: &str) -> Result<Ipv4Addr> {
        let v4 = |ip: &IpAddr| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None };
        self.addresses(ifname)?
            .iter()
            .find_map(v4)
            .with_context(|| format!("{}: no IPv4 on {ifname}", self.name))
    }

    /// IPv6 address of an interface, as laid out.
    pub fn address6(&self, ifname: &str) -> Result<Ipv6Addr> {
        let v6 = |ip: &IpAddr| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None };
        self.addresses(ifname)?
            .iter()
            .find_map(v6)
            .with_context(|| format!("{}: no IPv6 on {ifname}", self.name))
    }

    /// All addresses and routes of an interface, as laid out.
    pub fn wiring(&self, ifname: &str) -> Result<Wiring> {
        let layout = self.machine.layout();
        let end = layout.end(&self.name, ifname).with_context(|| format!("{}: no {ifname}", self.name))?;
        let routes = end.routes.iter().map(|route| (route.to, route.via)).collect();
        Ok(Wiring { addresses: end.addresses.clone(), routes })
    }

    /// Kernel's index of an interface: the same number means the same interface, never one that was created again.
    pub fn ifindex(&self, ifname: &str) -> Result<u32> {
        let link = self.run(&["ip", "-j", "link", "show", "dev", ifname])?.json()?;
        let index =
            link[0]["ifindex"].as_u64().with_context(|| format!("{}: no ifindex of {ifname}", self.name))?;
        Ok(u32::try_from(index)?)
    }

    fn addresses(&self, ifname: &str) -> Result<Vec<IpAddr>> {
        let layout = self.machine.layout();
        let end: &End =
            layout.end(&self.name, ifname).with_context(|| format!("{}: no {ifname}", self.name))?;
        Ok(end.addresses.iter().map(IpNet::addr).collect())
    }
}
