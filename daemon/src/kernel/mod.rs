//! The seam between decisions and a kernel: [`Kernel`] reads what is and carries out one step at a time. It
//! chooses nothing.

pub mod diagnose;
pub mod fake;
pub mod linux;
pub mod watch;

mod backend;
mod conntrack;
mod firewall;
mod iptables;
mod netlink;
mod process;
mod record;
mod sysctl;
mod wireguard;

use crate::{
    model::{IfName, Observed, SysctlPath},
    plan::Step,
    sorted::SortedSet,
};
use std::fmt;

/// What is to be observed beyond what is always read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Settings to read.
    pub sysctls: SortedSet<SysctlPath>,
    /// Interfaces that are or were ours: only these are asked for WireGuard state.
    pub tunnels: SortedSet<IfName>,
    /// Routing tables of others to read.
    pub tables: SortedSet<u32>,
}

/// A kernel, or something that behaves like one.
pub trait Kernel {
    /// Reads everything that a plan looks at.
    fn observe(&mut self, interest: &Interest) -> Result<Observed, KernelError>;
    /// Carries out one step. What is already so is success: deleting what is not there, setting what is set.
    fn execute(&mut self, step: &Step) -> Result<(), KernelError>;
}

/// Why a kernel could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelError {
    /// Needs root, or the capability CAP_NET_ADMIN.
    Permission(String),
    /// A program or kernel feature is missing; what to install.
    Missing(String),
    /// Something foreign stands in the way; what it is.
    Conflict(String),
    /// The kernel or a program refused; what it said.
    Refused(String),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission(what) => write!(f, "not permitted: {what}; run it as root (CAP_NET_ADMIN)"),
            Self::Missing(what) | Self::Conflict(what) | Self::Refused(what) => f.write_str(what),
        }
    }
}
impl std::error::Error for KernelError {}
