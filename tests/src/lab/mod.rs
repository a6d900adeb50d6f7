//! An emulated Internet on one machine: a core that routes, servers, NAT boxes, site routers and the hosts behind them,
//! each in namespaces of its own, with the real programs inside. It needs root, and the programs `ip`, `nft`, `ping`,
//! `curl` and `tcpdump`.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use gatewrt_tests::lab::*;
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::three_sites()?;
//! let (office, pc) = (lab.host("office")?, lab.host("office-pc")?);
//! let foreign = Foreign::place(&office)?;
//! let before = office.dump()?;
//! let daemon = office.spawn(&["gatewrtd"])?;
//! eventually(Duration::from_secs(5), "a tunnel", || office.output(&["wg", "show"]).is_ok_and(|o| o.success()))?;
//! ping(&pc, lab.host("web")?.ip4()?.into())?;
//! daemon.stop()?;
//! assert_same(&before, &office.dump()?);
//! foreign.assert_untouched();
//! # Ok(()) }
//! ```
//! A [`Lab`] ends with the process that owns it, also if that is killed: nothing of it is ever in the machine's own
//! namespaces.

mod answers;
mod capture;
mod conflicting_program;
mod diagram;
mod diff;
mod download;
mod dump;
mod foreign;
mod holder;
mod host;
mod impair;
mod kept;
mod layout;
mod machine;
mod process;
mod tcp;
mod topology;
mod traffic;
mod transfer;
mod udp;
mod wait;
mod web;
mod wire;

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use holder::Lifetime;
use impair::Impairments;
use layout::Layout;
use machine::Machine;

pub use answers::Answers;
pub use capture::Capture;
pub use conflicting_program::{ConflictingProgram, Program};
pub use diff::{assert_same, differences};
pub use download::Download;
pub use foreign::{Foreign, ForeignKit};
pub use host::{Host, Wiring};
pub use kept::{KeptLab, STATE_DIR};
pub use layout::Kind;
pub use machine::program_directory;
pub use process::{Cmd, Output, Process};
pub use tcp::{TcpReport, TcpStream};
pub use topology::{Forward, Lan, Nat, NatIpv6, NatKind, Router, Server, Topology};
pub use traffic::{Family, Heard, Partners, TrafficGenerator, Way};
pub use transfer::transfer;
pub use udp::{UdpReport, UdpStream};
pub use wait::{Outcome, eventually, until};
pub use web::{Whoami, connects, connects_within, fetch, ping, serve_whoami};

/// An emulated Internet that ends when this value is dropped or its process ends.
pub struct Lab {
    machine: Arc<Machine>,
    impairments: Mutex<Impairments>,
}

impl Lab {
    /// Builds a topology.
    pub fn new(topology: &Topology) -> Result<Self> {
        let machine = Machine::build(Layout::new(topology)?, Lifetime::Owner)?;
        Ok(Self { machine, impairments: Mutex::default() })
    }

    /// Builds the topology of a file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(&Topology::load(path)?)
    }

    /// `topologies/three-sites.toml`: servers `coordinator` and `web`; routers `office` and `home` on the core, `barn` behind the
    /// NAT box `isp`, which forwards UDP 51820 to it; a host `office-pc`, `home-pc`, `barn-pc` behind each.
    pub fn three_sites() -> Result<Self> {
        Self::new(&Topology::three_sites()?)
    }

    /// `topologies/two-sites.toml`: as [`Lab::three_sites`] without `barn`.
    pub fn two_sites() -> Result<Self> {
        Self::new(&Topology::two_sites()?)
    }

    /// `topologies/phones.toml`: as [`Lab::two_sites`] with a second host `nas` behind `home`; `phone` behind a mobile
    /// provider's NAT with no IPv6, and `laptop` behind a café's NAT with IPv6, which has a LAN with `camera` of its own.
    pub fn phones() -> Result<Self> {
        Self::new(&Topology::phones()?)
    }

    /// `topologies/exits.toml`: `home` with two LANs (`home-pc` and `home-tv`, `guest-pc`), whose IPv6 is public; `farm` and
    /// `office` on the core, and `barn` behind the NAT box `isp`, which knows no IPv6; the servers `web` and `resolver`; a
    /// `phone`.
    pub fn exits() -> Result<Self> {
        Self::new(&Topology::exits()?)
    }

    /// A host by name; `core` is the Internet itself.
    pub fn host(&self, name: &str) -> Result<Host> {
        let layout = self.machine.layout();
        let names = || layout.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
        layout
            .nodes
            .get(name)
            .with_context(|| format!("no host {name} in this lab; there are {}", names()))?;
        Ok(Host::new(name, &self.machine))
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> Vec<Host> {
        self.machine.layout().nodes.keys().map(|name| Host::new(name, &self.machine)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.machine.destroy();
    }
}

impl Topology {
    /// The built-in `three-sites.toml`.
    pub fn three_sites() -> Result<Self> {
        Self::parse(include_str!("../../topologies/three-sites.toml")).context("three-sites.toml")
    }

    /// The built-in `phones.toml`.
    pub fn phones() -> Result<Self> {
        Self::parse(include_str!("../../topologies/phones.toml")).context("phones.toml")
    }

    /// The built-in `exits.toml`.
    pub fn exits() -> Result<Self> {
        Self::parse(include_str!("../../topologies/exits.toml")).context("exits.toml")
    }

    /// The built-in `demo.toml`.
    pub fn demo() -> Result<Self> {
        Self::parse(include_str!("../../topologies/demo.toml")).context("demo.toml")
    }

    /// The built-in `two-sites.toml`.
    pub fn two_sites() -> Result<Self> {
        Self::parse(include_str!("../../topologies/two-sites.toml")).context("two-sites.toml")
    }
}
