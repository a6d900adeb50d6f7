//! Boot lockdown: what keeps closed scopes in at the next boot, before the daemon runs, and whether it is on disk.
//!
//! ```text
//!   ┌─────────┐  another lockdown  ┌────────┐
//!   │ Unknown │ ─────────────────▶ │ Stored │ ◀──┐ another lockdown: written
//!   └─────────┘                    └────────┘ ───┘
//!                        could not   │    ▲
//!                        be written  ▼    │ written
//!                                  ┌────────┐ ◀──┐ another lockdown, or every RETRY: written again
//!                                  │ Failed │ ───┘
//!                                  └────────┘
//! ```

use super::Now;
use crate::plan::BootLockdown;
use std::time::Duration;

/// Interval of attempts to write a lockdown that could not be written.
const RETRY: Duration = Duration::from_secs(15);

/// Boot lockdown and its way to disk; `None` within means that nothing is to be kept in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Lockdown {
    /// No lockdown was decided yet.
    #[default]
    Unknown,
    /// The lockdown is on disk, or on its way there.
    Stored(Option<BootLockdown>),
    /// The lockdown could not be written. The write is retried, because the next boot must not let out packets that are
    /// kept in today.
    Failed(Option<BootLockdown>, Now),
}

impl Lockdown {
    /// Takes in the boot lockdown that is needed now; true if it is to be written to disk.
    pub(super) fn set(&mut self, lockdown: &Option<BootLockdown>, now: Now) -> bool {
        match self {
            Self::Stored(known) | Self::Failed(known, _) if known == lockdown => false,
            Self::Failed(..) => {
                *self = Self::Failed(lockdown.clone(), now + RETRY);
                true
            }
            Self::Unknown | Self::Stored(_) => {
                *self = Self::Stored(lockdown.clone());
                true
            }
        }
    }

    /// Takes in the outcome of the last attempt to write the boot lockdown; true if it failed for the first time.
    pub(super) fn handle_saved(&mut self, failed: bool, now: Now) -> bool {
        match std::mem::take(self) {
            Self::Stored(lockdown) if failed => {
                *self = Self::Failed(lockdown, now + RETRY);
                true
            }
            Self::Failed(lockdown, _) if failed => {
                *self = Self::Failed(lockdown, now + RETRY);
                false
            }
            Self::Stored(lockdown) | Self::Failed(lockdown, _) => {
                *self = Self::Stored(lockdown);
                false
            }
            Self::Unknown => false,
        }
    }

    /// Time of the next attempt to write the boot lockdown; `None` unless the last one failed.
    pub(super) fn poll_timeout(&self) -> Option<Now> {
        match self {
            Self::Failed(_, at) => Some(*at),
            Self::Unknown | Self::Stored(_) => None,
        }
    }

    /// Boot lockdown that is to be written again now, since the last attempt failed.
    pub(super) fn poll(&mut self, now: Now) -> Option<Option<BootLockdown>> {
        match self {
            Self::Failed(lockdown, at) if *at <= now => {
                *at = now + RETRY;
                Some(lockdown.clone())
            }
            _ => None,
        }
    }

    /// Boot lockdown that could not be written to disk; `None` if there is none.
    pub(super) fn unsaved(&self) -> Option<&Option<BootLockdown>> {
        match self {
            Self::Failed(lockdown, _) => Some(lockdown),
            Self::Unknown | Self::Stored(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn shut() -> Option<BootLockdown> {
        Some(BootLockdown::of_everything())
    }

    fn failed() -> Lockdown {
        let mut lockdown = Lockdown::Stored(shut());
        assert!(lockdown.handle_saved(true, S));
        lockdown
    }

    #[test]
    fn unknown_lockdown_is_written_even_when_nothing_is_kept_in() {
        let mut lockdown = Lockdown::Unknown;
        assert!(!lockdown.handle_saved(true, S));
        assert!(lockdown.set(&None, S) && !lockdown.set(&None, S));
        assert_eq!(lockdown, Lockdown::Stored(None));
    }

    #[test]
    fn stored_lockdown_is_written_on_change_only() {
        let mut lockdown = Lockdown::Stored(None);
        assert!(!lockdown.handle_saved(false, S));
        assert!(lockdown.set(&shut(), S) && !lockdown.set(&shut(), S));
        assert_eq!((lockdown.poll_timeout(), lockdown.unsaved()), (None, None));
    }

    #[test]
    fn failed_lockdown_is_written_again_until_it_is_stored() {
        let mut lockdown = failed();
        assert_eq!((lockdown.poll_timeout(), lockdown.poll(2 * S)), (Some(S + RETRY), None));
        assert_eq!(lockdown.poll(S + RETRY), Some(shut()));
        assert!(!lockdown.handle_saved(true, S + RETRY), "no news");
        assert_eq!((lockdown.poll_timeout(), lockdown.unsaved()), (Some(S + 2 * RETRY), Some(&shut())));
        assert!(!lockdown.handle_saved(false, 99 * S));
        assert_eq!(lockdown, Lockdown::Stored(shut()));
    }

    #[test]
    fn failed_lockdown_that_changes_is_written_at_once() {
        let mut lockdown = failed();
        assert!(!lockdown.set(&shut(), 2 * S) && lockdown.set(&None, 2 * S));
        assert_eq!(lockdown, Lockdown::Failed(None, 2 * S + RETRY));
    }
}
