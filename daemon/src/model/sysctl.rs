//! Kernel settings below `/proc/sys`.

/// Path of a kernel setting below `/proc/sys`, with slashes: `net/ipv4/conf/gw-home/forwarding`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlPath(pub String);

/// Values of a kernel setting that we changed, before and after the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSysctl {
    /// Value before our first change; it is put back at the end.
    pub before: String,
    /// Value that we set.
    pub ours: String,
}
