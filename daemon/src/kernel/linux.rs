//! A Linux kernel: the parts of [`Kernel`] put together.

use super::{
    Interest, Kernel, KernelError, backend::Backend, conntrack, netlink::Network, sysctl::Sysctls,
    wireguard::WireGuard,
};
use crate::{
    config::FirewallChoice,
    log,
    model::{IfName, LinkKind, Observed},
    plan::{Flows, Step},
    resolvers,
};
use std::{path::PathBuf, sync::Arc};

/// What may differ from machine to machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A folder that lives as long as the machine runs: what a restarted daemon must know of its predecessor's
    /// changes. Made with mode 0700 when it is not there.
    pub run_dir: PathBuf,
    /// This implementation of WireGuard in userspace makes interfaces, whatever the kernel has: a name to be
    /// found in `PATH`, or a path. Without it the kernel's does, and `wireguard-go` where the kernel has none.
    pub userspace: Option<String>,
    /// Only the kernel's WireGuard makes interfaces; `userspace` goes before this.
    pub kernel_only: bool,
    /// Which firewall our table is told to.
    pub firewall: FirewallChoice,
    /// The program `nft`: a name to be found in `PATH`, or a path.
    pub nft: String,
    /// What `iptables-restore` and the others like it begin with, with or without a folder.
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

/// The kernel that this program runs on, in the network namespace of the thread that made this value; use it
/// from that thread.
pub struct LinuxKernel {
    network: Network,
    wireguard: WireGuard,
    firewall: Backend,
    sysctls: Sysctls,
    /// What connections were judged by last.
    flows: Option<Arc<Flows>>,
}

impl LinuxKernel {
    /// Opens a socket and reads what a predecessor left in the folder; needs no privileges yet.
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
    /// To be said when addresses of this router are gone: tunnels send from those that are there now.
    pub fn renew_endpoints(&mut self, tunnel: &IfName) -> Result<(), KernelError> {
        self.wireguard.renew_endpoints(&mut self.network, tunnel)
    }

    fn cut(&mut self, flows: &Arc<Flows>) -> Result<(), KernelError> {
        let mut judge = flows.judge(self.flows.as_deref());
        let count = conntrack::cut(&mut |flow| judge.fate(flow))?;
        if count > 0 {
            log::info!("connections that are forbidden now: {count} cut");
        }
        self.flows = Some(flows.clone());
        Ok(())
    }
}

impl Kernel for LinuxKernel {
    fn observe(&mut self, interest: &Interest) -> Result<Observed, KernelError> {
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
            Step::WriteRuleset(ruleset) => firewall.write(ruleset),
            Step::DeleteRuleset => firewall.delete(),
            Step::SetSysctl(path, value) => sysctls.set(path, value),
            Step::RestoreSysctl(path) => sysctls.restore(path),
        }
    }
}
