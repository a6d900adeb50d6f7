//! Settings below `/proc/sys`: read, set, and restored to exactly their first values, with all that the kernel changed
//! along with them.

use super::{KernelError, process::names_in, record};
use crate::model::{SavedSysctl, SysctlPath};
use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use sorted_vec::SortedSet;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Component, Path, PathBuf},
};

const REDIRECTS: &str = "net/ipv4/conf/all/send_redirects";

const FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";
/// Value of a setting that is on.
const ON: &str = "1";
/// Length of `net/ipv4` and `net/ipv6`.
const FAMILY: usize = 8;

/// Kernel settings of this network namespace and machine, with the first values of those that changed.
pub struct Sysctls {
    root: PathBuf,
    record: PathBuf,
    saved: BTreeMap<String, Saved>,
    /// Folder of the system's own settings.
    system: PathBuf,
    /// Forwarding that was on when it was last read.
    seen_on: SortedSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    before: String,
    ours: String,
    /// Settings that the kernel changes along with this one.
    others: BTreeMap<String, Other>,
    /// True for a change by the kernel, not by us, for as long as it has WireGuard interfaces.
    #[serde(default)]
    tied: bool,
}

/// Kernel setting that changed because another did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Other {
    before: String,
    /// `None` when we were cut off before we could look.
    after: Option<String>,
}

impl Sysctls {
    /// Kernel settings whose first values are saved in `folder`.
    pub fn new(folder: &Path) -> Self {
        let record = folder.join("sysctls");
        let saved = record::load(&record).unwrap_or_default();
        Self { root: "/proc/sys".into(), saved, record, system: "/etc".into(), seen_on: SortedSet::new() }
    }

    /// Value of a kernel setting; `None` when this kernel has no such setting.
    pub fn read(&mut self, path: &SysctlPath) -> Result<Option<String>, KernelError> {
        let found = self.file(&path.0).and_then(read);
        let value = found.map_err(|e| failure(&e, format_args!("read setting {}", path.0)))?;
        if is_forwarding(&path.0) && value.as_deref() == Some(ON) {
            self.seen_on.push(path.0.clone());
        }
        Ok(value)
    }

    /// Kernel settings whose first values are saved and can be restored. Those that the kernel changed for its
    /// WireGuard interfaces can't while such interfaces exist.
    pub fn saved(&self, wireguard: bool) -> LiteMap<SysctlPath, SavedSysctl> {
        let saved = |s: &Saved| SavedSysctl { before: s.before.clone(), ours: s.ours.clone() };
        let free = self.saved.iter().filter(|(_, s)| !(s.tied && wireguard));
        free.map(|(path, s)| (SysctlPath(path.clone()), saved(s))).collect()
    }

    /// Saves the values that the kernel's WireGuard is about to change when one of its interfaces goes up: it forbids
    /// redirects everywhere (`wg_open` in the kernel), and leaves them so.
    pub fn foresee_wireguard(&mut self) -> Result<(), KernelError> {
        let value = self.read(&SysctlPath(REDIRECTS.to_owned()))?;
        let Some(before) = value.filter(|v| v != "0" && !self.saved.contains_key(REDIRECTS)) else {
            return Ok(());
        };
        let saved = Saved { before, ours: "0".to_owned(), others: BTreeMap::new(), tied: true };
        self.remember(REDIRECTS, Some(saved))
    }

    /// Restores the values that the kernel's WireGuard changed, when its last interface is gone.
    pub fn after_wireguard(&mut self) -> Result<(), KernelError> {
        match self.saved.get(REDIRECTS) {
            Some(saved) if saved.tied => self.restore(&SysctlPath(REDIRECTS.to_owned())),
            _ => Ok(()),
        }
    }

    /// Sets a kernel setting, after its first value is saved.
    pub fn set(&mut self, path: &SysctlPath, value: &str) -> Result<(), KernelError> {
        let path = &path.0;
        let found = self.file(path).and_then(read);
        let current = found
            .map_err(|e| failure(&e, format_args!("read setting {path}")))?
            .ok_or_else(|| KernelError::Missing(format!("this kernel has no setting {path}")))?;
        if current == value {
            return Ok(());
        }
        let known = self.saved.get(path).cloned();
        if is_forwarding(path) && value == ON && (known.is_some() || self.is_wanted(path)) {
            // Others had it on, and switch it on again: what is read now is not what to restore.
            let outcome = self.file(path).and_then(|file| write(&file, value));
            outcome.map_err(|e| failure(&e, format_args!("set {path} to {value}")))?;
            log::info!("{path} is {value} again: it stays so");
            return self.remember(path, None);
        }
        let mut saved = known.clone().unwrap_or_else(|| Saved {
            before: current,
            ours: value.to_owned(),
            others: self
                .others(path)
                .into_iter()
                .map(|(p, before)| (p, Other { before, after: None }))
                .collect(),
            tied: false,
        });
        value.clone_into(&mut saved.ours);
        saved.tied = false;
        self.remember(path, Some(saved.clone()))?;
        if let Err(error) = self.file(path).and_then(|file| write(&file, value)) {
            self.remember(path, known)?;
            return Err(failure(&error, format_args!("set {path} to {value}")));
        }
        log::info!("{path} is {value} now, was {}", saved.before);
        if !saved.others.is_empty() {
            let now = self.others(path);
            saved.others.iter_mut().for_each(|(p, other)| other.after = now.get(p).cloned());
            self.remember(path, Some(saved))?;
        }
        Ok(())
    }

    /// Restores a kernel setting to its first value, unless others changed it since, and forgets it.
    pub fn restore(&mut self, path: &SysctlPath) -> Result<(), KernelError> {
        let path = &path.0;
        let Some(saved) = self.saved.get(path).cloned() else { return Ok(()) };
        let goes_on = !self.saved.contains_key(FORWARDING_V6)
            && self.file(FORWARDING_V6).and_then(read).is_ok_and(|on| on.as_deref() == Some(ON));
        if path.ends_with("/accept_ra") && goes_on {
            // With the first value, a router that goes on forwarding would lose the routers that it learned.
            return self.remember(path, None);
        }
        let found = self.file(path).and_then(read);
        let current = found.map_err(|e| failure(&e, format_args!("read setting {path}")))?;
        if current.as_ref() == Some(&saved.ours) {
            let outcome = self.put_back(path, &saved);
            outcome.map_err(|e| failure(&e, format_args!("put {path} back to {}", saved.before)))?;
            log::info!("{path} is {} again", saved.before);
            self.seen_on.clear();
        }
        self.remember(path, None)
    }

    /// True if forwarding is not ours alone: it was on before, or the system's settings switch it on at boot. Some
    /// programs switch it off for a moment while they start.
    fn is_wanted(&self, path: &str) -> bool {
        let family = path.get(..FAMILY).unwrap_or_default().replace('/', ".");
        let switches_on = |line: &str| {
            let line = line.trim_ascii_start().replace('/', ".");
            let Some((key, value)) = line.split_once('=') else { return false };
            key.starts_with(&family)
                && key.trim_ascii_end().ends_with("forward") | key.contains(".forwarding")
                && value.trim_ascii() == ON
        };
        let folder = self.system.join("sysctl.d");
        let mut files: Vec<PathBuf> = names_in(&folder).into_iter().map(|name| folder.join(name)).collect();
        files.push(self.system.join("sysctl.conf"));
        let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        self.seen_on.binary_search(&path.to_owned()).is_ok()
            || texts.into_iter().any(|text| text.lines().any(switches_on))
    }

    fn put_back(&self, path: &str, saved: &Saved) -> io::Result<()> {
        let others = self.others(path);
        write(&self.file(path)?, &saved.before)?;
        for (path, now) in others {
            let Some(value) = wanted(saved.others.get(&path), now, &saved.ours) else { continue };
            let file = self.file(&path)?;
            if read(file.clone())?.is_some_and(|now| now != value)
                && let Err(error) = write(&file, &value)
            {
                log::warn!("put {path} back to {value}: {error}");
            }
        }
        Ok(())
    }

    /// Other kernel settings that a write to the setting `path` changes, with their values now: forwarding for all
    /// interfaces changes each one's own (`addrconf_forward_change`, `inet_forward_change` in the kernel), and with
    /// IPv4 also the acceptance of redirects.
    fn others(&self, path: &str) -> BTreeMap<String, String> {
        let (folder, leaf, more) = match path {
            "net/ipv4/ip_forward" | "net/ipv4/conf/all/forwarding" => {
                ("net/ipv4/conf", "forwarding", Some("net/ipv4/conf/all/accept_redirects"))
            }
            "net/ipv6/conf/all/forwarding" => ("net/ipv6/conf", "forwarding", None),
            "net/ipv6/conf/all/disable_ipv6" => ("net/ipv6/conf", "disable_ipv6", None),
            _ => return BTreeMap::new(),
        };
        let mut paths = names_in(&self.root.join(folder));
        paths.retain(|name| name != "all");
        paths.iter_mut().for_each(|name| *name = format!("{folder}/{name}/{leaf}"));
        paths.extend(more.map(str::to_owned));
        let mut others = BTreeMap::new();
        for path in paths {
            if let Ok(Some(value)) = read(self.root.join(&path)) {
                others.insert(path, value);
            }
        }
        others
    }

    fn remember(&mut self, path: &str, saved: Option<Saved>) -> Result<(), KernelError> {
        let before = self.keep(path, saved);
        if self.saved.is_empty() {
            record::forget(&self.record);
            return Ok(());
        }
        let outcome = record::save(&self.record, &self.saved);
        if outcome.is_err() {
            self.keep(path, before);
        }
        outcome
    }

    fn keep(&mut self, path: &str, saved: Option<Saved>) -> Option<Saved> {
        match saved {
            Some(saved) => self.saved.insert(path.to_owned(), saved),
            None => {
                // As `remove` does, with code that is in the program anyway.
                let (mut before, all) = (None, std::mem::take(&mut self.saved));
                for (known, saved) in all {
                    match known == path {
                        true => before = Some(saved),
                        false => drop(self.saved.insert(known, saved)),
                    }
                }
                before
            }
        }
    }

    fn file(&self, path: &str) -> io::Result<PathBuf> {
        let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
        match inside && !path.is_empty() {
            true => Ok(self.root.join(path)),
            false => Err(io::Error::other("not a path below /proc/sys")),
        }
    }
}

fn is_forwarding(path: &str) -> bool {
    path.ends_with("/forwarding") || path.ends_with("/ip_forward")
}

/// Value for a setting that changed along with one that is restored; `None` leaves it as the kernel makes it.
fn wanted(known: Option<&Other>, now: String, ours: &str) -> Option<String> {
    match known {
        // Someone else changed it since: theirs stays.
        Some(Other { after: Some(after), .. }) if *after != now => Some(now),
        Some(other) => Some(other.before.clone()),
        None => (now != ours).then_some(now),
    }
}

fn read(file: PathBuf) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        // A folder is no setting.
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // Not created: in a file system that is no /proc that would look like success.
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(file)?, value.as_bytes())
}

fn failure(error: &io::Error, what: std::fmt::Arguments<'_>) -> KernelError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            KernelError::Permission(what.to_string())
        }
        _ => KernelError::Refused(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            for (path, value) in [("net/a", "0"), ("net/b", "7"), ("net/ipv4/ip_forward", "0")] {
                let file = folder.path().join("sys").join(path);
                fs::create_dir_all(file.parent().expect("a parent")).expect("made");
                fs::write(file, format!("{value}\n")).expect("written");
            }
            Self { folder }
        }

        fn sysctls(&self) -> Sysctls {
            let at = |name: &str| self.folder.path().join(name);
            Sysctls { root: at("sys"), system: at("etc"), ..Sysctls::new(&at("run")) }
        }
    }

    fn path(text: &str) -> SysctlPath {
        SysctlPath(text.to_owned())
    }

    #[test]
    fn first_value_is_restored_even_by_the_next_daemon() {
        let fixture = Fixture::new();
        let mut sysctls = fixture.sysctls();
        sysctls.set(&path("net/a"), "1").expect("set");
        sysctls.set(&path("net/a"), "1").expect("set");
        sysctls.set(&path("net/a"), "2").expect("set");
        let mut next = fixture.sysctls();
        let saved = SavedSysctl { before: "0".into(), ours: "2".into() };
        assert_eq!(next.saved(false), LiteMap::from_iter([(path("net/a"), saved)]));
        next.restore(&path("net/a")).expect("restored");
        next.restore(&path("net/a")).expect("restored");
        assert_eq!(next.read(&path("net/a")), Ok(Some("0".into())));
        assert_eq!(fixture.sysctls().saved(false), LiteMap::new());
        assert!(!fixture.folder.path().join("run/sysctls").exists());
    }

    #[test]
    fn value_changed_by_others_stays() {
        let fixture = Fixture::new();
        let mut sysctls = fixture.sysctls();
        sysctls.set(&path("net/b"), "1").expect("set");
        fs::write(fixture.folder.path().join("sys/net/b"), "5\n").expect("written");
        sysctls.restore(&path("net/b")).expect("restored");
        assert_eq!(sysctls.read(&path("net/b")), Ok(Some("5".into())));
        assert_eq!(sysctls.saved(false), LiteMap::new());
    }

    const FORWARD: &str = "net/ipv4/ip_forward";

    impl Fixture {
        /// Another program writes the setting.
        fn write(&self, value: &str) {
            fs::write(self.folder.path().join("sys").join(FORWARD), value).expect("written");
        }

        fn forwards(&self) -> String {
            let file = self.folder.path().join("sys").join(FORWARD);
            fs::read_to_string(file).expect("there").trim().to_owned()
        }
    }

    #[test]
    fn forwarding_that_was_off_is_off_again_each_time() {
        let fixture = Fixture::new();
        let mut sysctls = fixture.sysctls();
        for _ in 0..2 {
            sysctls.set(&path(FORWARD), "1").expect("set");
            sysctls.read(&path(FORWARD)).expect("read");
            sysctls.restore(&path(FORWARD)).expect("restored");
            assert_eq!(fixture.forwards(), "0");
        }
    }

    /// A program that starts switches forwarding off and on: in that moment the daemon sees it off.
    #[test]
    fn forwarding_that_others_want_stays_on() {
        for (before, is_in_etc) in [("1", false), ("0", false), ("0", true)] {
            let fixture = Fixture::new();
            fixture.write(before);
            let etc = fixture.folder.path().join("etc/sysctl.d");
            fs::create_dir_all(&etc).expect("made");
            fs::write(etc.join("10.conf"), "# net.ipv4.ip_forward=1\nnet.ipv6.conf.all.forwarding=1\n")
                .expect("written");
            if is_in_etc {
                fs::write(etc.join("20.conf"), "net.ipv4.ip_forward = 1\n").expect("written");
            }
            let mut sysctls = fixture.sysctls();
            sysctls.read(&path(FORWARD)).expect("read");
            sysctls.set(&path(FORWARD), "1").expect("set");
            if !is_in_etc {
                fixture.write("0");
                sysctls.set(&path(FORWARD), "1").expect("set");
            }
            fixture.write("1");
            assert_eq!(sysctls.saved(false), LiteMap::new());
            sysctls.restore(&path(FORWARD)).expect("restored");
            assert_eq!(fixture.forwards(), "1", "it was {before}");
        }
    }

    /// With `accept_ra` 1, a router that goes on forwarding hears no router advertisement.
    #[test]
    fn router_that_goes_on_forwarding_keeps_its_routers() {
        for (others, expected) in [(false, "1"), (true, "2")] {
            let fixture = Fixture::new();
            let accept_ra = "net/ipv6/conf/wan/accept_ra";
            for (name, value) in [(FORWARDING_V6, "0"), (accept_ra, "1")] {
                let file = fixture.folder.path().join("sys").join(name);
                fs::create_dir_all(file.parent().expect("a parent")).expect("made");
                fs::write(file, value).expect("written");
            }
            let mut sysctls = fixture.sysctls();
            sysctls.set(&path(accept_ra), "2").expect("set");
            sysctls.set(&path(FORWARDING_V6), "1").expect("set");
            if others {
                fs::write(fixture.folder.path().join("sys").join(FORWARDING_V6), "0").expect("written");
                sysctls.set(&path(FORWARDING_V6), "1").expect("set");
            }
            sysctls.restore(&path(FORWARDING_V6)).expect("restored");
            sysctls.restore(&path(accept_ra)).expect("restored");
            assert_eq!(sysctls.read(&path(accept_ra)), Ok(Some(expected.to_owned())));
        }
    }

    #[test]
    fn saved_value_of_a_gone_interface_is_forgotten() {
        let fixture = Fixture::new();
        let mut sysctls = fixture.sysctls();
        sysctls.set(&path("net/b"), "1").expect("set");
        fs::remove_file(fixture.folder.path().join("sys/net/b")).expect("removed");
        assert_eq!(sysctls.read(&path("net/b")), Ok(None));
        sysctls.restore(&path("net/b")).expect("restored");
        assert_eq!(sysctls.saved(false), LiteMap::new());
        assert!(matches!(sysctls.set(&path("net/b"), "1"), Err(KernelError::Missing(_))));
    }

    #[test]
    fn value_that_cannot_be_saved_is_not_set() {
        let fixture = Fixture::new();
        fs::write(fixture.folder.path().join("run"), "a file").expect("written");
        let mut sysctls = fixture.sysctls();
        sysctls.set(&path("net/a"), "1").expect_err("no folder to remember in");
        assert_eq!(sysctls.read(&path("net/a")), Ok(Some("0".into())));
    }

    #[test]
    fn change_by_wireguard_is_restored_with_its_end() {
        let fixture = Fixture::new();
        let file = fixture.folder.path().join("sys").join(REDIRECTS);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(&file, "1\n").expect("written");
        let mut sysctls = fixture.sysctls();
        sysctls.foresee_wireguard().expect("remembered");
        fs::write(&file, "0\n").expect("written");
        sysctls.foresee_wireguard().expect("remembered");
        assert_eq!(sysctls.saved(true), LiteMap::new());
        assert_eq!(fixture.sysctls().saved(false).len(), 1);
        sysctls.after_wireguard().expect("restored");
        sysctls.after_wireguard().expect("restored");
        assert_eq!(fs::read_to_string(file).expect("there").trim(), "1");
        assert_eq!(sysctls.saved(false), LiteMap::new());
    }

    #[test]
    fn path_outside_proc_sys_is_refused() {
        let fixture = Fixture::new();
        let mut sysctls = fixture.sysctls();
        for bad in ["", "/etc/passwd", "net/../../run", "..", "."] {
            sysctls.read(&path(bad)).expect_err(bad);
            sysctls.set(&path(bad), "1").expect_err(bad);
        }
    }
}
