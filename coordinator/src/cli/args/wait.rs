//! Options of all changes: how long to wait for routers.

use clap::{Args, value_parser};

/// Options that say how long a change waits for the routers that have to obey.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of changes")]
pub(in crate::cli) struct Wait {
    /// Wait until all routers that are online obey, at most 60 seconds; exit code 5 if one has not confirmed.
    /// Without this, a change waits a moment, and those that have not confirmed are named
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60",
        value_parser = value_parser!(u64).range(0..=60))]
    wait: Option<u64>,
    /// Do not wait for routers
    #[arg(long, global = true, conflicts_with = "wait")]
    no_wait: bool,
}

impl Wait {
    /// Seconds to wait; none leaves it to the coordinator.
    pub(in crate::cli) fn seconds(&self) -> Option<u64> {
        self.wait.or(self.no_wait.then_some(0))
    }

    /// True if the command is to fail unless all routers obey.
    pub(in crate::cli) fn is_firm(&self) -> bool {
        self.wait.is_some()
    }
}
