//! Persister of one network's records: it spares flash, and makes sure that a restart continues from the records that the
//! kernel shows. Records that are not on flash yet are in the run-time directory before the kernel is changed after them,
//! so that a daemon that was killed knows them. It ends at files.
//!
//! ```text
//!                  new records
//!   ┌─────────┐ ────────────────▶ ┌─────────┐ ◀───────────────┐
//!   │ OnFlash │                   │ Unsaved │                 │ new records
//!   └─────────┘ ◀──────────────── └─────────┘                 │
//!        ▲        written to flash     │ write ahead of the   │
//!        │                             │ kernel, or flash has │
//!        │                             ▼ to wait              │
//!        │                        ┌──────────┐                │
//!        └─────────────────────── │ InRunDir │ ───────────────┘
//!             written to flash    └──────────┘
//! ```

use crate::{
    config::Config,
    core::{Now, rollback::ON_TRIAL},
    error_chain::error_chain,
    store::{Records, RecordsFile, Saved, Store, StoreError},
};
use gatewrt_protocol::NetworkName;
use std::time::Duration;

/// Wait for further records, which come several at once and go to flash together.
const SETTLE: Duration = Duration::from_millis(250);
/// Wait before flash that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(300);

/// Function that returns the latest records of a network. It copies them all, so it is called only to write them.
pub type Latest<'a> = &'a dyn Fn() -> Records;

/// Place where the latest records of a network are. `due` is the time of the next attempt to write them to flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    OnFlash,
    Unsaved { due: Now },
    InRunDir { due: Now },
}

/// Persister of one network's records.
pub struct RecordPersister {
    network: NetworkName,
    flash: RecordsFile,
    run: RecordsFile,
    state: State,
    /// The records on flash are marked as on trial: a start from them rolls back.
    flash_on_trial: bool,
    /// The records in the run-time directory are marked as on trial.
    run_on_trial: bool,
}

impl RecordPersister {
    /// Opens the persister of a network's records, and reads those that were stored last.
    pub fn load(config: &Config, network: &NetworkName) -> (Self, Records) {
        let file = |dir| Store::new(dir).records(network);
        let (mut flash, mut run) = (file(&config.state_dir), file(&config.run_dir));
        let newer = read(network, &mut run);
        let is_newer = !newer.is_empty();
        let state = if is_newer { State::InRunDir { due: SETTLE } } else { State::OnFlash };
        let latest = if is_newer { newer } else { read(network, &mut flash) };
        let network = network.clone();
        (Self { network, flash, run, state, flash_on_trial: false, run_on_trial: false }, latest)
    }

    /// Time at which [`Self::poll`] is due to write records to flash, and the reason in words.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        Some((self.due()?, "write records to flash"))
    }

    /// Writes the latest records to flash if that is due and the rate limit allows it.
    pub fn poll(&mut self, latest: Latest<'_>, now: Now) {
        if self.due().is_some_and(|at| at <= now) {
            self.save(&latest(), now);
        }
    }

    /// Takes note that the network has new records. The end of a trial is stored at once: a daemon that is killed right
    /// after it must not roll back.
    pub fn handle_news(&mut self, latest: Latest<'_>, now: Now) {
        let at = now + SETTLE;
        self.state = State::Unsaved { due: self.due().map_or(at, |before| before.min(at)) };
        if self.flash_on_trial || self.run_on_trial {
            let latest = latest();
            if !is_on_trial(&latest) {
                self.save(&latest, now);
            }
        }
    }

    /// Makes sure that a restart knows the latest records, before the kernel is changed after them. Records on trial are
    /// marked on flash too, if it can be written now, for the case of a power cut.
    pub fn write_ahead(&mut self, latest: Latest<'_>, now: Now) {
        if !matches!(self.state, State::Unsaved { .. }) {
            return;
        }
        let latest = latest();
        if is_on_trial(&latest) {
            self.save(&latest, now);
        }
        self.write_run(&latest);
    }

    /// Writes records that are not on flash there at once, whatever the rate limit.
    pub fn flush(&mut self, latest: Latest<'_>) {
        let Some(due) = self.due() else { return };
        let latest = latest();
        let saved = self.flash.flush(&latest);
        self.handle_saved(saved, &latest, due);
    }

    fn due(&self) -> Option<Now> {
        match self.state {
            State::OnFlash => None,
            State::Unsaved { due } | State::InRunDir { due } => Some(due),
        }
    }

    fn save(&mut self, latest: &Records, now: Now) {
        let is_confirmed = self.flash_on_trial && !is_on_trial(latest);
        let saved = match is_confirmed {
            true => self.flash.flush(latest),
            false => self.flash.save(latest, now),
        };
        let due = match &saved {
            Ok(Saved::Later(wait)) => now + *wait,
            Ok(Saved::Written | Saved::Unchanged) | Err(_) => now + RETRY,
        };
        self.handle_saved(saved, latest, due);
    }

    /// Takes in the outcome of an attempt to write records to flash. `due` is the time of the next one, if it failed.
    fn handle_saved(&mut self, saved: Result<Saved, StoreError>, latest: &Records, due: Now) {
        match saved {
            Ok(Saved::Written | Saved::Unchanged) => {
                self.state = State::OnFlash;
                self.flash_on_trial = is_on_trial(latest);
                self.run_on_trial = false;
                self.run.remove();
                return;
            }
            Ok(Saved::Later(_)) => {}
            Err(error) => {
                log::warn!("{}: the latest records are not on disk: {}", self.network, error_chain(&error));
            }
        }
        self.state = match self.state {
            State::Unsaved { .. } => State::Unsaved { due },
            State::OnFlash | State::InRunDir { .. } => State::InRunDir { due },
        };
        self.write_run(latest);
    }

    fn write_run(&mut self, latest: &Records) {
        let State::Unsaved { due } = self.state else { return };
        self.state = State::InRunDir { due };
        if let Err(error) = self.run.flush(latest) {
            log::warn!(
                "{}: a restart would not know the latest records: {}",
                self.network,
                error_chain(&error)
            );
            self.run.remove();
        }
        self.run_on_trial = is_on_trial(latest);
    }
}

fn is_on_trial(records: &Records) -> bool {
    records.contains_key(ON_TRIAL)
}

fn read(network: &NetworkName, file: &mut RecordsFile) -> Records {
    let (records, error) = file.load();
    if let Some(error) = error {
        log::warn!("{network}: {}", error_chain(&error));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const S: Duration = Duration::from_secs(1);

    /// Persister with the latest records.
    struct Holder {
        persister: RecordPersister,
        latest: Records,
    }

    fn open(dir: &Path) -> Holder {
        let config = Config { state_dir: dir.join("state"), run_dir: dir.join("run"), ..Config::default() };
        let (persister, latest) = RecordPersister::load(&config, &"home".parse().unwrap());
        Holder { persister, latest }
    }

    impl Holder {
        fn replace(&mut self, latest: Records, now: Duration) {
            self.latest = latest;
            self.persister.handle_news(&|| self.latest.clone(), now);
        }

        fn write_ahead(&mut self, now: Duration) {
            self.persister.write_ahead(&|| self.latest.clone(), now);
        }

        fn save(&mut self, now: Duration) {
            self.persister.save(&self.latest, now);
        }

        fn flush(&mut self) {
            self.persister.flush(&|| self.latest.clone());
        }
    }

    fn records(rev: u64) -> Records {
        [("topic".to_owned(), rev.to_string())].into_iter().collect()
    }

    fn runtime_copy(dir: &Path) -> bool {
        dir.join("run/home/records").exists()
    }

    #[test]
    fn killed_daemon_continues_from_the_records_in_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let mut before = open(dir.path());
        before.replace(records(1), S);
        before.save(2 * S);
        before.replace(records(2), 3 * S);
        before.write_ahead(3 * S);
        let after = open(dir.path());
        assert_eq!((after.latest, after.persister.due()), (records(2), Some(SETTLE)));
    }

    #[test]
    fn records_on_flash_are_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = open(dir.path());
        for rev in 0..20 {
            holder.replace(records(rev), S);
            holder.write_ahead(S);
            holder.save(S);
            // Flash is spared after a while.
            assert_eq!(runtime_copy(dir.path()), holder.persister.due().is_some());
        }
        assert!(runtime_copy(dir.path()));
        holder.flush();
        assert!(!runtime_copy(dir.path()));
        assert_eq!(open(dir.path()).latest, records(19));
    }

    #[test]
    fn power_cut_finds_records_on_trial_marked_and_confirmed_ones_unmarked() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = open(dir.path());
        let on_flash = |dir: &Path| std::fs::read_to_string(dir.join("state/home/records")).unwrap();
        for rev in 0..4 {
            let mut trial = records(rev);
            trial.insert(ON_TRIAL.to_owned(), "1".to_owned());
            holder.replace(trial, S);
            holder.write_ahead(S);
            assert!(on_flash(dir.path()).contains(ON_TRIAL), "before the kernel shows it");
            holder.replace(records(rev), S);
            holder.save(S);
            assert!(!on_flash(dir.path()).contains(ON_TRIAL) && !runtime_copy(dir.path()));
        }
    }

    #[test]
    fn daemon_killed_right_after_a_trial_does_not_roll_back_even_with_a_full_disk() {
        for is_full in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            if is_full {
                std::fs::write(dir.path().join("state"), "not even a folder").unwrap();
            }
            let mut holder = open(dir.path());
            let mut trial = records(1);
            trial.insert(ON_TRIAL.to_owned(), "1".to_owned());
            holder.replace(trial.clone(), S);
            holder.write_ahead(S);
            assert_eq!(open(dir.path()).latest, trial);
            holder.replace(records(1), S);
            assert_eq!(open(dir.path()).latest, records(1), "{is_full}");
        }
    }

    /// The rate limit of flash delays records on trial, but confirmed ones never stay marked.
    #[test]
    fn confirmed_records_are_never_left_marked_to_spare_flash() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = open(dir.path());
        for rev in 0..40 {
            let mut trial = records(rev);
            trial.insert(ON_TRIAL.to_owned(), "1".to_owned());
            holder.replace(trial, S);
            holder.write_ahead(S);
            holder.replace(records(rev), S);
            holder.save(S);
            holder.write_ahead(S);
            assert!(!is_on_trial(&open(dir.path()).latest), "{rev}");
            let flash = std::fs::read_to_string(dir.path().join("state/home/records")).unwrap();
            assert!(!flash.contains(ON_TRIAL), "{rev}");
        }
    }

    #[test]
    fn records_that_come_together_go_to_flash_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = open(dir.path());
        holder.replace(records(1), S);
        holder.replace(records(2), S + SETTLE / 2);
        assert_eq!(holder.persister.due(), Some(S + SETTLE));
    }

    fn state(holder: &Holder) -> State {
        holder.persister.state
    }

    #[test]
    fn new_records_are_unsaved_until_written_ahead_or_to_flash() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = open(dir.path());
        assert_eq!(state(&holder), State::OnFlash);
        holder.replace(records(1), S);
        assert_eq!(state(&holder), State::Unsaved { due: S + SETTLE });
        holder.write_ahead(S);
        assert_eq!(state(&holder), State::InRunDir { due: S + SETTLE });
        holder.persister.poll(&|| records(1), S);
        assert_eq!(state(&holder), State::InRunDir { due: S + SETTLE }, "not due yet");
        holder.persister.poll(&|| records(1), S + SETTLE);
        assert_eq!((state(&holder), holder.persister.poll_timeout()), (State::OnFlash, None));
    }

    #[test]
    fn records_in_the_run_dir_are_unsaved_again_after_news() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = open(dir.path());
        holder.replace(records(1), S);
        holder.write_ahead(S);
        holder.replace(records(2), 2 * S);
        assert_eq!(state(&holder), State::Unsaved { due: S + SETTLE });
        holder.flush();
        assert_eq!(state(&holder), State::OnFlash);
    }

    #[test]
    fn records_on_a_broken_disk_are_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state"), "not even a folder").unwrap();
        let mut holder = open(dir.path());
        holder.replace(records(1), S);
        holder.save(2 * S);
        assert_eq!(state(&holder), State::InRunDir { due: 2 * S + RETRY });
    }
}
