//! Seam between decisions and a kernel: [`Kernel`] reads its state and executes one step at a time. It chooses nothing.

pub mod diagnose;
pub mod fake;
pub mod firewall;
pub mod linux;
pub mod watch;

mod conntrack;
mod netlink;
mod process;
mod record;
mod sysctl;
mod wireguard;

use crate::{
    model::{ObserveQuery, Observed},
    plan::Step,
};

/// Kernel whose state can be read and changed in steps: Linux, or one in memory for tests.
pub trait Kernel {
    /// Reads the state of the kernel, as far as a plan looks at it.
    fn observe(&mut self, interest: &ObserveQuery) -> Result<Observed, KernelError>;
    /// Executes one step of a plan. Idempotent: to delete what is not there, or to set a value it already has, is
    /// success.
    fn execute(&mut self, step: &Step) -> Result<(), KernelError>;
}

/// Failure to read or change a kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Missing root, or capability CAP_NET_ADMIN.
    #[error("not permitted: {0}; run it as root (CAP_NET_ADMIN)")]
    Permission(String),
    /// Missing program or kernel feature, with what to install.
    #[error("{0}")]
    Missing(String),
    /// Foreign object in the way, by name.
    #[error("{0}")]
    Conflict(String),
    /// Refusal by the kernel or a program, in its words.
    #[error("{0}")]
    Refused(String),
}
