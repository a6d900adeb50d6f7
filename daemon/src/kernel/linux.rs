//! Linux kernel as a [`Kernel`]: the drivers of this folder put together.

use super::{
    Kernel, KernelError, conntrack, firewall::Backend, netlink::Network, sysctl::Sysctls,
    wireguard::WireGuard,
};
use crate::{
    config::FirewallChoice,
    model::{Flows, IfName, LinkKind, ObserveQuery, Observed},
    plan::Step,
    resolvers,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Settings of IPv6, where the kernel has it.
const IPV6: &str = "/proc/sys/net/ipv6";

/// Settings of a [`LinuxKernel`] that differ from machine to machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Folder that lasts until the next boot, for the changes of an earlier daemon that a restarted one must know.
    /// Created with mode 0700 if it is absent.
    pub run_dir: PathBuf,
    /// Userspace implementation of WireGuard that creates interfaces, even if the kernel has its own: a name in `PATH`,
    /// or a path. If `None`, the kernel's is used, and `wireguard-go` if the kernel has none.
    pub userspace: Option<String>,
    /// True to use the kernel's WireGuard alone; `userspace` goes before this.
    pub kernel_only: bool,
    /// Choice of the firewall.
    pub firewall: FirewallChoice,
    /// The program `nft`: a name to be found in `PATH`, or a path.
    pub nft: String,
    /// Path or name from which those of `iptables-restore` and its like are made.
    pub iptables: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run_dir: "/var/run/gatewrt".into(),
            userspace: None,
            kernel_only: false,
            firewall: FirewallChoice::Auto,
            nft: "nft".to_owned(),
            iptables: "iptables".to_owned(),
        }
    }
}

/// Linux kernel that this program runs on, in the network namespace of the thread that made this value; use it from
/// that thread.
pub struct LinuxKernel {
    network: Network,
    wireguard: WireGuard,
    firewall: Backend,
    sysctls: Sysctls,
    /// Policy of the last check of connections.
    flows: Option<Arc<Flows>>,
}

impl LinuxKernel {
    /// Opens a socket to the kernel, and reads the records of an earlier run of the daemon; needs no privileges yet.
    pub fn new(options: Options) -> Result<Self, KernelError> {
        Ok(Self {
            network: Network::open()?,
            wireguard: WireGuard::new(options.userspace, options.kernel_only),
            firewall: Backend::new(options.firewall, options.nft, options.iptables, &options.run_dir),
            sysctls: Sysctls::new(&options.run_dir),
            flows: None,
        })
    }
}

impl LinuxKernel {
    /// Makes a WireGuard interface send from the addresses that are present now; call it when addresses of this router
    /// are gone.
    pub fn renew_endpoints(&mut self, tunnel: &IfName) -> Result<(), KernelError> {
        self.wireguard.renew_endpoints(&mut self.network, tunnel)
    }

    fn cut(&mut self, flows: &Arc<Flows>) -> Result<(), KernelError> {
        let mut check = flows.check(self.flows.as_deref());
        let count = conntrack::cut(&mut |flow| check.verdict(flow))?;
        if count > 0 {
            log::info!("connections that are forbidden now: {count} cut");
        }
        self.flows = Some(flows.clone());
        Ok(())
    }
}

impl Kernel for LinuxKernel {
    fn observe(&mut self, interest: &ObserveQuery) -> Result<Observed, KernelError> {
        let mut observed = Observed::default();
        self.network.observe(&interest.tables, &mut observed)?;
        self.wireguard.observe(&interest.tunnels, &mut observed)?;
        observed.ruleset = self.firewall.observe()?;
        observed.firewall = self.firewall.name();
        observed.flows = self.flows.clone();
        for path in &interest.sysctls {
            observed.sysctls.extend(self.sysctls.read(path)?.map(|value| (path.clone(), value)));
        }
        let wireguard = observed.links.values().any(|link| link.kind == LinkKind::WireGuard);
        observed.saved_sysctls = self.sysctls.saved(wireguard);
        observed.has_no_v6 = !Path::new(IPV6).exists();
        for link in &interest.tunnels {
            let of = |name| fs::read_to_string(format!("{IPV6}/conf/{name}/disable_ipv6"));
            // A new interface has the default.
            let is_off =
                of(link.as_str()).or_else(|_| of("default")).is_ok_and(|off| off.trim_ascii() != "0");
            observed.without_v6.extend((is_off || observed.has_no_v6).then(|| link.clone()));
        }
        observed.resolvers = resolvers::of_uplink();
        Ok(observed)
    }

    fn execute(&mut self, step: &Step) -> Result<(), KernelError> {
        let Self { network, wireguard, firewall, sysctls, .. } = self;
        match step {
            Step::CutFlows(flows) => self.cut(flows),
            Step::AddTunnel { link, mtu } => wireguard.add(network, link, *mtu),
            Step::DeleteTunnel(link) => {
                wireguard.delete(network, link)?;
                if network.has(LinkKind::WireGuard)? { Ok(()) } else { sysctls.after_wireguard() }
            }
            Step::SetMtu(link, mtu) => network.set_mtu(link, *mtu),
            Step::SetUp(link) => {
                if network.link(link)?.is_some_and(|found| found.link.kind == LinkKind::WireGuard) {
                    sysctls.foresee_wireguard()?;
                }
                network.set_up(link)
            }
            Step::SetDevice(link, settings) => wireguard.set_device(network, link, settings),
            Step::SetPeers(link, changes) => wireguard.set_peers(network, link, changes),
            Step::AddAddress(address) => network.add_address(address),
            Step::DeleteAddress(address) => network.delete_address(address),
            Step::AddRoute(route) => network.add_route(route),
            Step::ReplaceRoute(route) => network.replace_route(route),
            Step::DeleteRoute(route) => network.delete_route(route),
            Step::AddRule(rule) => network.add_rule(rule),
            Step::DeleteRule(rule) => network.delete_rule(rule),
            Step::WriteRuleset(update) => firewall.write(update),
            Step::DeleteRuleset => firewall.delete(),
            Step::SetSysctl(path, value) => sysctls.set(path, value),
            Step::RestoreSysctl(path) => sysctls.restore(path),
        }
    }
}
