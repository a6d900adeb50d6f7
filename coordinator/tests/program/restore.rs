//! Restores: what can't be restored changes nothing, and one that is interrupted leaves the old directory or the new one.

use crate::{
    backup::{query, restore, said},
    coordinator::{Coordinator, PROGRAM, run, text},
    first_start::{SmallDisk, stopped_soon},
};
use age::x25519::Identity;
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// A backup of a coordinator with the networks `home` and `barn`.
struct Kept {
    file: PathBuf,
    /// The record key of that coordinator.
    key: String,
    files: TempDir,
}

impl Kept {
    fn new() -> Self {
        let files = TempDir::new().unwrap();
        let coordinator = Coordinator::with_home();
        coordinator.ok(&["network", "create", "barn"]);
        let file = files.path().join("gatewrt.backup");
        coordinator.ok(&["backup", file.to_str().unwrap()]);
        Self { file, key: text(&coordinator.data().join("record.key")), files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A restore of this backup, to be run.
    fn restore(&self, data: &Path, more: &[&str]) -> Output {
        run(&["restore", self.file.to_str().unwrap(), "--data", data.to_str().unwrap()], more)
    }

    /// Makes sure that the directory is the one of the backup, complete.
    fn check(&self, data: &Path) {
        self.check_files(data);
        let names = query(data, "SELECT json_extract(body, '$.name') FROM network");
        assert_eq!(names, ["barn".to_owned(), "home".to_owned()].into());
    }

    /// Makes sure that nothing of the restore is left to do.
    fn check_files(&self, data: &Path) {
        assert_eq!(text(&data.join("record.key")), self.key);
        assert!(!data.join("restore-new").exists() && !data.join("restoring").exists());
    }

    /// Makes sure that another restore finds the directory complete, also if it has to complete it.
    fn check_by_restore(&self, data: &Path) {
        let said = said(&self.restore(data, &[]), 1);
        assert!(said.contains("the coordinator that the backup is of, with 2 networks"), "{said}");
        self.check_files(data);
    }
}

/// Directory of a coordinator that has stopped, with the network `old`.
fn stopped() -> (Coordinator, PathBuf) {
    let mut coordinator = Coordinator::start();
    coordinator.ok(&["network", "create", "old"]);
    assert_eq!(coordinator.terminate(), Some(0));
    let data = coordinator.data();
    (coordinator, data)
}

/// Content and mode of all files of a directory; folders are empty.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut tree = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return tree };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let mode = path.metadata().unwrap().permissions().mode();
        let content = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
        if path.is_dir() {
            tree.extend(self::tree(&path));
        }
        tree.insert(path, (content, mode));
    }
    tree
}

/// The file with another manifest.
fn with_manifest(file: &Path, change: impl Fn(String) -> String) -> Vec<u8> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(file).unwrap()));
    let mut changed =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (mut header, mut content) = (entry.header().clone(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        if entry.path().unwrap() == Path::new("manifest.json") {
            content = change(String::from_utf8(content).unwrap()).into_bytes();
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        changed.append(&header, &content[..]).unwrap();
    }
    changed.into_inner().unwrap().finish().unwrap()
}

#[test]
fn backup_that_cannot_be_restored_changes_nothing() {
    let kept = Kept::new();
    let (_coordinator, data) = stopped();
    let whole = fs::read(&kept.file).unwrap();
    let (key, stranger) = (Identity::generate(), Identity::generate());
    let secret = |key: &Identity| age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
    let sealed = age::encrypt(&key.to_public(), &whole).unwrap();
    let phrase =
        age::encrypt(&age::scrypt::Recipient::new("secret words".to_owned().into()), &whole).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut flipped_sealed = sealed.clone();
    flipped_sealed[sealed.len() - 9] ^= 1;
    let later = with_manifest(&kept.file, |text| text.replace("\"format\": 1", "\"format\": 2"));
    let foreign = with_manifest(&kept.file, |text| text.replace("\"ca_sha256\": \"", "\"ca_sha256\": \"00"));
    let key_file = kept.path("key.txt");
    fs::write(&key_file, secret(&key)).unwrap();
    let stranger_file = kept.path("stranger.txt");
    fs::write(&stranger_file, secret(&stranger)).unwrap();
    let bad_file = kept.path("bad.txt");
    fs::write(&bad_file, format!("{}X", secret(&key))).unwrap();
    let key = ["--identity", key_file.to_str().unwrap()];
    let stranger = ["--identity", stranger_file.to_str().unwrap()];
    let bad = ["--identity", bad_file.to_str().unwrap()];
    let cases: [(&str, &[u8], &[&str], &str); 14] = [
        ("truncated", &whole[..whole.len() - 700], &[], "not whole"),
        ("empty", b"", &[], "no backup"),
        ("something else", b"once upon a time there was a router", &[], "no backup"),
        ("a damaged byte", &flipped, &[], "take another"),
        ("of a later version", &later, &[], "made by a later version"),
        ("of another coordinator's manifest", &foreign, &[], "damaged"),
        ("with more after its end", &[&whole[..], b"more"].concat(), &[], "after its end"),
        ("encrypted, no identity", &sealed, &[], "--identity FILE"),
        ("encrypted, another identity", &sealed, &stranger, "other recipients"),
        ("encrypted, no identity in the file", &sealed, &bad, "no age identity"),
        ("encrypted, truncated", &sealed[..sealed.len() - 9], &key, "take another"),
        ("encrypted, a damaged byte", &flipped_sealed, &key, "damaged"),
        ("encrypted with a passphrase", &phrase, &key, "passphrase"),
        ("a missing identity", &sealed, &["--identity", "/nonexistent"], "can't read /nonexistent"),
    ];
    let (before, fresh) = (tree(&data), kept.path("fresh"));
    for (what, content, more, part) in cases {
        let file = kept.path("bad.backup");
        fs::write(&file, content).unwrap();
        for (data, force) in [(&data, "--force"), (&fresh, "--force"), (&fresh, "--json")] {
            let args = ["restore", file.to_str().unwrap(), force, "--data", data.to_str().unwrap()];
            let said = said(&run(&args, more), 1);
            assert!(said.contains(part), "{what}: {part} in {said}");
            assert!(!said.contains(&text(&key_file)), "{said}");
        }
        assert!(tree(&data) == before, "{what}: nothing is changed");
        assert!(!fresh.exists(), "{what}: nothing is made");
    }
    for file in ["/nonexistent", "/"] {
        let output = run(&["restore", file, "--force", "--data", data.to_str().unwrap()], &[]);
        assert!(said(&output, 1).contains("can't read"));
    }
    assert!(tree(&data) == before);
}

#[test]
fn directory_of_a_running_coordinator_is_refused() {
    let kept = Kept::new();
    let coordinator = Coordinator::with_home();
    let before = text(&coordinator.data().join("record.key"));
    for more in [&[][..], &["--force"]] {
        let said = said(&kept.restore(&coordinator.data(), more), 1);
        assert!(said.contains("a coordinator runs on") && said.contains("stop it first"), "{said}");
    }
    assert_eq!(text(&coordinator.data().join("record.key")), before);
    assert_eq!(coordinator.json(&["network", "list"])[0]["name"], "home");
}

#[test]
fn directory_with_files_is_kept_aside_by_force_only() {
    let kept = Kept::new();
    let (mut coordinator, data) = stopped();
    fs::create_dir(data.join("lost+found")).unwrap();
    let before = tree(&data);
    let said = said(&kept.restore(&data, &[]), 1);
    for part in
        ["is not empty", "another coordinator", "1 network (old)", "--force", "2 networks (home, barn)"]
    {
        // The order of networks is that of their ids.
        let part = if part.contains("home, barn") { "2 networks (" } else { part };
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(tree(&data) == before);

    for round in 1..=2 {
        let said = restore(&kept.file, &data, &["--force", "--json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        kept.check(&data);
        let aside = PathBuf::from(said["kept"].as_str().unwrap());
        assert_eq!(aside.parent().unwrap(), data);
        assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("before-restore-"), "{said}");
        assert_eq!(aside.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        if round == 1 {
            let moved = tree(&aside);
            for (path, content) in before.iter().filter(|(path, _)| !path.ends_with("lock") && path.is_file())
            {
                assert_eq!(&moved[&aside.join(path.file_name().unwrap())], content, "{}", path.display());
            }
            // The old one is a directory that still works.
            assert_eq!(
                query(&aside, "SELECT json_extract(body, '$.name') FROM network"),
                ["old".to_owned()].into()
            );
        }
    }
    assert_eq!(
        fs::read_dir(&data).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(),
        3
    );
    coordinator.start_again();
    assert_eq!(coordinator.json(&["network", "list"]).as_array().unwrap().len(), 2);

    // What is no coordinator's is not touched either, not even by a lock.
    let other = kept.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "dear").unwrap();
    let refused = crate::backup::said(&kept.restore(&other, &[]), 1);
    assert!(refused.contains("it holds letter.txt"), "{refused}");
    assert_eq!(tree(&other).len(), 1);
}

/// Root restores for the user who runs the coordinator.
#[test]
fn restored_files_belong_to_the_owner_of_the_directory() {
    let kept = Kept::new();
    let data = kept.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("old"), "").unwrap();
    chown(&data, Some(1234), Some(1235)).unwrap();
    restore(&kept.file, &data, &["--force"]);
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        assert_eq!((about.uid(), about.gid()), (1234, 1235), "{entry:?}");
    }
}

#[test]
fn full_disk_is_reported_and_the_next_restore_works() {
    let kept = Kept::new();
    let disk = SmallDisk::new();
    let data = disk.path.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("old"), "old").unwrap();
    let before = tree(&data);
    disk.fill();
    let said = said(&kept.restore(&data, &["--force"]), 1).to_lowercase();
    assert!(said.contains("free some space"), "{said}");
    let mut after = tree(&data);
    after.remove(&data.join("lock"));
    assert!(after == before, "{:?}", after.keys());
    disk.empty();
    restore(&kept.file, &data, &["--force"]);
    kept.check(&data);
}

/// Library that ends a restore at each step. See `steps.c`.
fn deaths(kept: &Kept) -> PathBuf {
    let library = kept.path("steps.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/steps.c"))
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    library
}

/// Restores with a death before each step in turn; `made` makes the directory before, `check` looks at it after, and is
/// told if the new files are decided on.
fn die_at_each_step(kept: &Kept, made: impl Fn(&Path), check: impl Fn(&Path, bool)) {
    let library = deaths(kept);
    let mut decided = 0;
    for step in 1.. {
        let data = kept.path(&format!("data-{step}"));
        made(&data);
        let mut command = Command::new(PROGRAM);
        command.args(["restore", kept.file.to_str().unwrap(), "--force", "--data"]).arg(&data);
        let output =
            command.env("LD_PRELOAD", &library).env("GATEWRT_STEP", step.to_string()).output().unwrap();
        if output.status.success() {
            assert!(
                step > 20 && decided > 10,
                "the deaths are real: {step} steps, {decided} after the decision"
            );
            kept.check(&data);
            println!("{step} steps, {decided} after the decision");
            return;
        }
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        let is_decided = data.join("restoring").exists()
            || data.join("record.key").exists() && text(&data.join("record.key")) == kept.key;
        decided += u32::from(is_decided);
        check(&data, is_decided);
        fs::remove_dir_all(&data).unwrap();
    }
}

fn serve(data: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data"]).arg(data);
    command
}

#[test]
fn killed_restore_leaves_the_old_directory_or_the_new_one() {
    let kept = Kept::new();
    let (_coordinator, old) = stopped();
    let made = |data: &Path| {
        assert!(Command::new("cp").arg("-a").args([&old, data]).status().unwrap().success());
    };
    let (old_files, started) = (tree(&old), std::cell::Cell::new(0));
    die_at_each_step(&kept, made, |data, is_decided| {
        if is_decided {
            // Whoever opens it next finishes it.
            kept.check_by_restore(data);
            let aside = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
            let aside: Vec<_> = aside.filter(|path| path.is_dir()).collect();
            assert_eq!(aside.len(), 1);
            let moved = tree(&aside[0]);
            for (path, content) in old_files.iter().filter(|(path, _)| !path.ends_with("lock")) {
                assert_eq!(moved.get(&aside[0].join(path.file_name().unwrap())), Some(content));
            }
        } else {
            let left = tree(data);
            for (path, content) in &old_files {
                let path = data.join(path.strip_prefix(&old).unwrap());
                assert_eq!(left.get(&path), Some(content), "{}", path.display());
            }
            if data.join("restore-new").exists() && started.get() < 2 {
                started.set(started.get() + 1);
                stopped_soon(&mut serve(data));
                assert!(
                    !data.join("restore-new").exists(),
                    "the old coordinator starts, and removes what is left"
                );
                let names = query(data, "SELECT json_extract(body, '$.name') FROM network");
                assert_eq!(names, ["old".to_owned()].into());
            }
        }
    });
    assert_eq!(started.get(), 2);
}

#[test]
fn killed_restore_into_a_fresh_directory_is_no_first_start() {
    let kept = Kept::new();
    let none = |data: &Path| fs::create_dir(data).unwrap();
    let started = std::cell::Cell::new(0);
    die_at_each_step(&kept, none, |data, is_decided| {
        if is_decided && started.get() < 3 {
            // The start of the coordinator finishes it.
            started.set(started.get() + 1);
            stopped_soon(&mut serve(data));
            kept.check(data);
        } else if is_decided {
            kept.check_by_restore(data);
        } else if data.join("restore-new").exists() {
            let said = said(&serve(data).output().unwrap(), 1);
            assert!(said.contains("a restore into") && said.contains("was interrupted"), "{said}");
            assert!(!data.join("ca.key").exists(), "no other coordinator begins there");
            restore(&kept.file, data, &[]);
            kept.check_files(data);
        }
    });
    assert_eq!(started.get(), 3);
}

#[test]
fn decision_without_its_files_is_refused() {
    let kept = Kept::new();
    let (coordinator, data) = stopped();
    // A restore that was decided, as a power cut leaves it, without its new files.
    fs::write(data.join("restoring"), r#"{"files":["record.key"],"aside":null}"#).unwrap();
    let before = tree(&data);
    for output in [coordinator.serve().output().unwrap(), kept.restore(&data, &["--force"])] {
        let said = said(&output, 1);
        assert!(said.contains("restore-new is gone"), "{said}");
    }
    let output = run(&["backup", "/nonexistent/x", "--data", data.to_str().unwrap()], &[]);
    assert!(said(&output, 1).contains("its restore was interrupted"));
    assert!(tree(&data) == before);
}
