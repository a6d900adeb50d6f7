//! Records of one network on their way to flash, which is spared. What is not there yet is in the run-time directory
//! before the kernel shows it, so that a daemon that was killed goes on from what it had. It ends at files.

use crate::{
    config::Config,
    store::{Records, RecordsFile, Saved, Store, StoreError},
    whole::whole,
};
use gatewrt_protocol::NetworkName;
use std::time::Duration;

/// Records come several at once, and go to flash together.
const SETTLE: Duration = Duration::from_millis(250);
/// How long until flash that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(300);

/// See the module.
pub struct Kept {
    network: NetworkName,
    flash: RecordsFile,
    run: RecordsFile,
    latest: Records,
    due: Option<Duration>,
    /// Whether the latest are in neither file.
    loose: bool,
}

impl Kept {
    /// What was kept last.
    pub fn load(config: &Config, network: &NetworkName) -> Self {
        let file = |dir| Store::new(dir).records(network);
        let (mut flash, mut run) = (file(&config.state_dir), file(&config.run_dir));
        let newer = read(network, &mut run);
        let due = (!newer.is_empty()).then_some(SETTLE);
        let latest = if newer.is_empty() { read(network, &mut flash) } else { newer };
        Self { network: network.clone(), flash, run, latest, due, loose: false }
    }

    /// The latest records.
    pub fn latest(&self) -> &Records {
        &self.latest
    }

    /// When [`Self::save`] is due.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// These are the latest from now on.
    pub fn replace(&mut self, latest: Records, now: Duration) {
        let at = now + SETTLE;
        self.latest = latest;
        self.due = Some(self.due.map_or(at, |before| before.min(at)));
        self.loose = true;
    }

    /// Sees that a restart knows the latest: before the kernel is changed after them.
    pub fn write_ahead(&mut self) {
        if !std::mem::take(&mut self.loose) {
            return;
        }
        if let Err(error) = self.run.flush(&self.latest) {
            log::warn!("{}: a restart would not know the latest records: {}", self.network, whole(&error));
            self.run.remove();
        }
    }

    /// Brings the latest to flash, unless that has to wait.
    pub fn save(&mut self, now: Duration) {
        let saved = self.flash.save(&self.latest, now);
        self.due = match &saved {
            Ok(Saved::Later(wait)) => Some(now + *wait),
            Ok(Saved::Written | Saved::Unchanged) => None,
            Err(_) => Some(now + RETRY),
        };
        self.handle_saved(saved);
    }

    /// Brings the latest to flash at once, as far as that can be.
    pub fn flush(&mut self) {
        let saved = self.flash.flush(&self.latest);
        self.handle_saved(saved);
    }

    fn handle_saved(&mut self, saved: Result<Saved, StoreError>) {
        match saved {
            Ok(Saved::Written | Saved::Unchanged) => {
                self.loose = false;
                self.run.remove();
            }
            Ok(Saved::Later(_)) => self.write_ahead(),
            Err(error) => {
                log::warn!("{}: the latest records are not on disk: {}", self.network, whole(&error));
                self.write_ahead();
            }
        }
    }
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

    fn kept(dir: &Path) -> Kept {
        let config = Config { state_dir: dir.join("state"), run_dir: dir.join("run"), ..Config::default() };
        Kept::load(&config, &"home".parse().unwrap())
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
        before.write_ahead();
        let after = kept(dir.path());
        assert_eq!((after.latest(), after.due()), (&records(2), Some(SETTLE)));
    }

    #[test]
    fn what_is_on_flash_is_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        for rev in 0..20 {
            kept.replace(records(rev), S);
            kept.write_ahead();
            kept.save(S);
            // Flash is spared after a while.
            assert_eq!(runtime_copy(dir.path()), kept.due().is_some());
        }
        assert!(runtime_copy(dir.path()));
        kept.flush();
        assert!(!runtime_copy(dir.path()));
        assert_eq!(self::kept(dir.path()).latest(), &records(19));
    }

    #[test]
    fn several_records_go_to_flash_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        kept.replace(records(1), S);
        kept.replace(records(2), S + SETTLE / 2);
        assert_eq!(kept.due(), Some(S + SETTLE));
    }
}
