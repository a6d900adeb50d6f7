//! Records of one network on their way to flash, which is spared. What is not there yet is in the run-time directory
//! before the kernel shows it, so that a daemon that was killed goes on from what it had. It ends at files.

use crate::{
    config::Config,
    core::confirm::ON_TRIAL,
    log,
    store::{Records, RecordsFile, Saved, Store, StoreError},
    whole::whole,
};
use gatewrt_protocol::NetworkName;
use std::time::Duration;

/// Records come several at once, and go to flash together.
const SETTLE: Duration = Duration::from_millis(250);
/// How long until flash that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(300);

/// Gives the latest records. That copies them all, so they are asked for only when they are written.
pub type Latest<'a> = &'a dyn Fn() -> Records;

/// See the module.
pub struct Kept {
    network: NetworkName,
    flash: RecordsFile,
    run: RecordsFile,
    due: Option<Duration>,
    /// Whether the latest are in neither file.
    loose: bool,
    /// Whether those on flash, or in the run-time directory, are marked as on trial: a start from them goes back to
    /// those before.
    marked: bool,
    run_marked: bool,
}

impl Kept {
    /// Opens the files of a network; with the records that were kept last.
    pub fn load(config: &Config, network: &NetworkName) -> (Self, Records) {
        let file = |dir| Store::new(dir).records(network);
        let (mut flash, mut run) = (file(&config.state_dir), file(&config.run_dir));
        let newer = read(network, &mut run);
        let due = (!newer.is_empty()).then_some(SETTLE);
        let latest = if newer.is_empty() { read(network, &mut flash) } else { newer };
        let network = network.clone();
        (Self { network, flash, run, due, loose: false, marked: false, run_marked: false }, latest)
    }

    /// When [`Self::save`] is due.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// There are later records from now on. That a trial is over is kept at once: a daemon that is killed right after
    /// must not go back.
    pub fn handle_news(&mut self, latest: Latest<'_>, now: Duration) {
        let at = now + SETTLE;
        self.due = Some(self.due.map_or(at, |before| before.min(at)));
        self.loose = true;
        if self.marked || self.run_marked {
            let latest = latest();
            if !on_trial(&latest) {
                self.save_these(&latest, now);
            }
        }
    }

    /// Sees that a restart knows the latest: before the kernel is changed after them. What is on trial is known to be
    /// so after a power cut too, as far as flash can be written now.
    pub fn write_ahead(&mut self, latest: Latest<'_>, now: Duration) {
        if !self.loose {
            return;
        }
        let latest = latest();
        if on_trial(&latest) {
            self.save_these(&latest, now);
        }
        self.write_run(&latest);
    }

    fn write_run(&mut self, latest: &Records) {
        if !std::mem::take(&mut self.loose) {
            return;
        }
        if let Err(error) = self.run.flush(latest) {
            log::warn!("{}: a restart would not know the latest records: {}", self.network, whole(&error));
            self.run.remove();
        }
        self.run_marked = on_trial(latest);
    }

    /// Brings the latest to flash, unless that has to wait.
    pub fn save(&mut self, latest: Latest<'_>, now: Duration) {
        self.save_these(&latest(), now);
    }

    fn save_these(&mut self, latest: &Records, now: Duration) {
        let is_confirmed = self.marked && !on_trial(latest);
        let saved = match is_confirmed {
            true => self.flash.flush(latest),
            false => self.flash.save(latest, now),
        };
        self.due = match &saved {
            Ok(Saved::Later(wait)) => Some(now + *wait),
            Ok(Saved::Written | Saved::Unchanged) => None,
            Err(_) => Some(now + RETRY),
        };
        self.handle_saved(saved, latest);
    }

    /// Brings what is not on flash there at once, as far as that can be.
    pub fn flush(&mut self, latest: Latest<'_>) {
        if self.due.is_none() {
            return;
        }
        let latest = latest();
        let saved = self.flash.flush(&latest);
        self.handle_saved(saved, &latest);
    }

    fn handle_saved(&mut self, saved: Result<Saved, StoreError>, latest: &Records) {
        match saved {
            Ok(Saved::Written | Saved::Unchanged) => {
                self.loose = false;
                self.marked = on_trial(latest);
                self.run_marked = false;
                self.run.remove();
            }
            Ok(Saved::Later(_)) => self.write_run(latest),
            Err(error) => {
                log::warn!("{}: the latest records are not on disk: {}", self.network, whole(&error));
                self.write_run(latest);
            }
        }
    }
}

fn on_trial(records: &Records) -> bool {
    records.contains_key(ON_TRIAL)
}

fn read(network: &NetworkName, file: &mut RecordsFile) -> Records {
    let (records, error) = file.load();
    if let Some(error) = error {
        log::warn!("{network}: {}", whole(&error));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const S: Duration = Duration::from_secs(1);

    /// What is kept, and who has the latest.
    struct Holder {
        kept: Kept,
        latest: Records,
    }

    fn kept(dir: &Path) -> Holder {
        let config = Config { state_dir: dir.join("state"), run_dir: dir.join("run"), ..Config::default() };
        let (kept, latest) = Kept::load(&config, &"home".parse().unwrap());
        Holder { kept, latest }
    }

    impl Holder {
        fn replace(&mut self, latest: Records, now: Duration) {
            self.latest = latest;
            self.kept.handle_news(&|| self.latest.clone(), now);
        }

        fn write_ahead(&mut self, now: Duration) {
            self.kept.write_ahead(&|| self.latest.clone(), now);
        }

        fn save(&mut self, now: Duration) {
            self.kept.save(&|| self.latest.clone(), now);
        }

        fn flush(&mut self) {
            self.kept.flush(&|| self.latest.clone());
        }
    }

    fn records(rev: u64) -> Records {
        [("topic".to_owned(), rev.to_string())].into()
    }

    fn runtime_copy(dir: &Path) -> bool {
        dir.join("run/home/records").exists()
    }

    #[test]
    fn a_killed_daemon_goes_on_from_what_the_kernel_shows() {
        let dir = tempfile::tempdir().unwrap();
        let mut before = kept(dir.path());
        before.replace(records(1), S);
        before.save(2 * S);
        before.replace(records(2), 3 * S);
        before.write_ahead(3 * S);
        let after = kept(dir.path());
        assert_eq!((after.latest, after.kept.due()), (records(2), Some(SETTLE)));
    }

    #[test]
    fn what_is_on_flash_is_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        for rev in 0..20 {
            kept.replace(records(rev), S);
            kept.write_ahead(S);
            kept.save(S);
            // Flash is spared after a while.
            assert_eq!(runtime_copy(dir.path()), kept.kept.due().is_some());
        }
        assert!(runtime_copy(dir.path()));
        kept.flush();
        assert!(!runtime_copy(dir.path()));
        assert_eq!(self::kept(dir.path()).latest, records(19));
    }

    #[test]
    fn a_power_cut_finds_what_is_on_trial_marked_and_what_is_confirmed_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        let on_flash = |dir: &Path| std::fs::read_to_string(dir.join("state/home/records")).unwrap();
        for rev in 0..4 {
            let mut trial = records(rev);
            trial.insert(ON_TRIAL.to_owned(), "1".to_owned());
            kept.replace(trial, S);
            kept.write_ahead(S);
            assert!(on_flash(dir.path()).contains(ON_TRIAL), "before the kernel shows it");
            kept.replace(records(rev), S);
            kept.save(S);
            assert!(!on_flash(dir.path()).contains(ON_TRIAL) && !runtime_copy(dir.path()));
        }
    }

    #[test]
    fn a_daemon_killed_right_after_a_trial_does_not_go_back_even_with_a_full_disk() {
        for is_full in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            if is_full {
                std::fs::write(dir.path().join("state"), "not even a folder").unwrap();
            }
            let mut kept = kept(dir.path());
            let mut trial = records(1);
            trial.insert(ON_TRIAL.to_owned(), "1".to_owned());
            kept.replace(trial.clone(), S);
            kept.write_ahead(S);
            assert_eq!(self::kept(dir.path()).latest, trial);
            kept.replace(records(1), S);
            assert_eq!(self::kept(dir.path()).latest, records(1), "{is_full}");
        }
    }

    /// Flash is spared by not writing down what is on trial; what is confirmed is never left with a mark.
    #[test]
    fn flash_is_never_spared_at_the_cost_of_what_is_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        for rev in 0..40 {
            let mut trial = records(rev);
            trial.insert(ON_TRIAL.to_owned(), "1".to_owned());
            kept.replace(trial, S);
            kept.write_ahead(S);
            kept.replace(records(rev), S);
            kept.save(S);
            kept.write_ahead(S);
            assert!(!on_trial(&self::kept(dir.path()).latest), "{rev}");
            let flash = std::fs::read_to_string(dir.path().join("state/home/records")).unwrap();
            assert!(!flash.contains(ON_TRIAL), "{rev}");
        }
    }

    #[test]
    fn several_records_go_to_flash_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        kept.replace(records(1), S);
        kept.replace(records(2), S + SETTLE / 2);
        assert_eq!(kept.kept.due(), Some(S + SETTLE));
    }
}
