//! Request for an observation of the kernel.

use super::{IfName, SysctlPath};
use sorted_vec::SortedSet;

/// Kernel objects to observe beyond those that every observation reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObserveQuery {
    /// Settings to read.
    pub sysctls: SortedSet<SysctlPath>,
    /// Interfaces that are or were ours. WireGuard state is read of these only.
    pub tunnels: SortedSet<IfName>,
    /// Routing tables of other programs to read.
    pub tables: SortedSet<u32>,
}
