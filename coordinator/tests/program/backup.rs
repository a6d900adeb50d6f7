//! Backups: files that are whole, private and consistent, of a coordinator that runs or not.

use crate::{
    api::client::Api,
    coordinator::{Coordinator, PROGRAM, run, text},
    first_start::SmallDisk,
    router::Router,
};
use age::x25519::Identity;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tempfile::TempDir;

/// Number of writers at a time.
const WRITERS: u64 = 3;
/// Number of backups while they write.
const BACKUPS: usize = 8;

pub fn said(output: &Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// Restores a backup, and answers what it says.
pub fn restore(file: &Path, data: &Path, more: &[&str]) -> String {
    let output = run(&["restore", file.to_str().unwrap(), "--data", data.to_str().unwrap()], more);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All that a coordinator tells, without what changes by itself.
pub fn told(coordinator: &Coordinator) -> Vec<Value> {
    let mut told: Vec<_> = [
        &["network", "list"][..],
        &["node", "list", "home"],
        &["egress", "list", "home"],
        &["client", "list", "home"],
        &["rule", "list", "home"],
        &["code", "list", "home"],
        &["token", "list"],
    ]
    .map(|args| coordinator.json(args))
    .into();
    told.iter_mut().for_each(|list| {
        for item in list.as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove("expires_in");
        }
    });
    told
}

/// Answers of a query of the database, as Python's SQLite reads it: the first column of each row.
pub fn query(data: &Path, query: &str) -> BTreeSet<String> {
    let script = "import json, sqlite3, sys; \
                  print(json.dumps([row[0] for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])]))";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(data.join("gatewrt.db"))
        .arg(query)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A coordinator with something of each kind, and the token `ci`.
fn furnished() -> (Coordinator, String, String) {
    let coordinator = Coordinator::with_home();
    let code = coordinator.code(&["--uses", "5"]);
    Router::new(1, "office").join(&code, &text(&coordinator.data().join("ca.crt"))).unwrap();
    coordinator.ok(&["egress", "set", "home", "office", "192.168.1.0/24"]);
    coordinator.ok(&["ingress", "set", "home", "office"]);
    coordinator.ok(&["client", "add", "home", "phone", "--gateway", "office"]);
    coordinator.ok(&["rule", "add", "home", "deny", "--from", "client:phone", "--to", "site:office"]);
    let token = coordinator.ok(&["token", "create", "ci", "--rights", "read"]).trim().to_owned();
    (coordinator, code, token)
}

#[test]
fn restored_coordinator_is_the_one_of_the_backup() {
    let files = TempDir::new().unwrap();
    let key = Identity::generate();
    let key_file = files.path().join("key.txt");
    let secret = age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
    fs::write(&key_file, format!("# created: today\n{secret}\n")).unwrap();
    let (mut coordinator, code, token) = furnished();
    let plain = files.path().join("plain");
    let sealed = files.path().join("sealed");
    let wrote = coordinator.json(&["backup", plain.to_str().unwrap()]);
    assert_eq!(wrote["networks"], json!(["home"]));
    // One of the tokens is the admin's.
    assert_eq!([&wrote["nodes"], &wrote["clients"], &wrote["tokens"]], [1, 1, 2]);
    assert_eq!(wrote["size"], fs::metadata(&plain).unwrap().len());
    let recipient = key.to_public().to_string();
    let another = Identity::generate().to_public().to_string();
    let args = ["backup", sealed.to_str().unwrap(), "--recipient", &another, "--recipient", &recipient];
    let said = coordinator.ok(&args);
    assert!(
        said.contains("encrypted to 2 recipients") && said.contains("1 network (home), 1 node"),
        "{said}"
    );
    let before = told(&coordinator);
    let admin = text(&coordinator.data().join("admin.token"));
    let record_key = text(&coordinator.data().join("record.key"));

    coordinator.ok(&["network", "create", "later"]);
    coordinator.ok(&["token", "revoke", "ci"]);
    coordinator.ok(&["node", "rename", "home", "office", "cabin"]);
    let data = coordinator.data();
    for (file, more) in [(&plain, &[][..]), (&sealed, &["--identity", key_file.to_str().unwrap()])] {
        assert_eq!(coordinator.terminate(), Some(0));
        fs::rename(&data, files.path().join("old")).unwrap();
        let dry = restore(file, &data, &[more, &["--dry-run", "--json"]].concat());
        assert!(!data.exists() && dry.contains("\"restored\": false"), "{dry}");
        let said = restore(file, &data, more);
        for part in
            ["1 network (home), 1 node, 1 client, 2 tokens", "CA sha256", "serve --data", "admin.token"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
        for secret in [&secret, &token, admin.trim(), record_key.trim()] {
            assert!(!said.contains(secret) && !dry.contains(secret), "secrets are not printed");
        }
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        for file in fs::read_dir(&data).unwrap() {
            let mode = file.as_ref().unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file:?}");
        }
        let mark = query(&data, "SELECT value FROM meta WHERE name = 'restored'").pop_first().unwrap();
        let mark: Value = serde_json::from_str(&mark).unwrap();
        assert!(mark["at"].as_u64() >= mark["backup_at"].as_u64() && mark["backup_at"].is_u64(), "{mark}");

        coordinator.start_again();
        assert_eq!(told(&coordinator), before);
        assert_eq!(text(&data.join("admin.token")), admin);
        let api = Api::of(&coordinator);
        assert_eq!(api.with_token(&token).get("/v1/networks").status, 200);
        assert_eq!(api.get("/v1/tokens").status, 200, "the admin token is the one of the backup");
        // Its code still works, and what joins is told by the same keys.
        Router::new(2, "barn").join(&code, &text(&data.join("ca.crt"))).unwrap();
        assert!(!coordinator.log().contains("ERROR"), "{}", coordinator.log());
        fs::remove_dir_all(files.path().join("old")).unwrap();
    }
}

#[test]
fn coordinator_that_does_not_run_is_backed_up() {
    let files = TempDir::new().unwrap();
    let mut coordinator = Coordinator::with_home();
    let data = coordinator.data();
    let names = |number: u32| {
        let (file, restored) =
            (files.path().join(format!("{number}.backup")), files.path().join(number.to_string()));
        let output = run(&["backup", file.to_str().unwrap(), "--data", data.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        restore(&file, &restored, &[]);
        query(&restored, "SELECT json_extract(body, '$.name') FROM network")
    };
    let home: BTreeSet<String> = ["home".to_owned()].into();
    // Killed: all is in the write-ahead log.
    coordinator.kill();
    assert_eq!(names(1), home);
    assert_eq!(names(2), home);
    coordinator.start_again();
    assert_eq!(coordinator.json(&["network", "list"])[0]["name"], "home");
    assert_eq!(coordinator.terminate(), Some(0));
    assert_eq!(names(3), home);
}

/// A file that a coordinator needs is in the backup; this test names those that it makes anew.
#[test]
fn each_file_of_the_directory_is_in_the_backup_or_made_anew() {
    let (coordinator, _, _) = furnished();
    let file = coordinator.data().with_file_name("backup");
    coordinator.ok(&["backup", file.to_str().unwrap()]);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&file).unwrap()));
    let entries =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let inside: BTreeSet<_> = entries.collect();
    for name in ["gatewrt.db", "gatewrt.db-wal", "gatewrt.db-shm", "lock", "url"] {
        assert!(!inside.contains(name));
    }
    for entry in fs::read_dir(coordinator.data()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_anew = ["gatewrt.db", "gatewrt.db-wal", "gatewrt.db-shm", "lock", "url", "api.sock"]
            .contains(&name.as_str());
        assert!(is_anew || inside.contains(&name), "{name} is lost in a restore");
    }
    assert!(inside.contains("database.json") && inside.contains("manifest.json"), "{inside:?}");
}

#[test]
fn backup_is_private_and_replaces_nothing_unasked() {
    let files = TempDir::new().unwrap();
    let coordinator = Coordinator::with_home();
    let file = files.path().join("gatewrt.backup");
    let path = file.to_str().unwrap();
    let mut umask = Command::new("sh");
    let script = "umask 000; exec \"$0\" backup \"$1\" --data \"$2\"";
    umask.args(["-c", script, PROGRAM, path]).arg(coordinator.data());
    assert_eq!(umask.output().unwrap().status.code(), Some(0));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = fs::read(&file).unwrap();
    assert!(coordinator.refused(&["backup", path]).contains("exists already"));
    assert_eq!(fs::read(&file).unwrap(), whole);
    coordinator.ok(&["network", "create", "more"]);
    coordinator.ok(&["backup", path, "--force"]);
    assert_ne!(fs::read(&file).unwrap(), whole);

    let link = files.path().join("link");
    symlink("/dev/null", &link).unwrap();
    for (path, part) in [
        (files.path(), "not a regular file"),
        (Path::new("/dev/null"), "not a regular file"),
        (&link, "not a regular file"),
        (&files.path().join("nowhere/x"), "No such file"),
    ] {
        let said = coordinator.refused(&["backup", path.to_str().unwrap(), "--force"]);
        assert!(said.contains(part), "{said}");
    }
    let names: Vec<_> = fs::read_dir(files.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no draft is left: {names:?}");

    let piped = coordinator.command(&["backup", "-"]);
    assert!(said(&piped, 0).contains("2 networks"));
    let piped_file = files.path().join("piped");
    fs::write(&piped_file, piped.stdout).unwrap();
    restore(&piped_file, &files.path().join("data"), &[]);
    // A reader that ends early has no backup, and the exit code says so.
    let mut broken = Command::new(PROGRAM);
    broken.args(["backup", "-", "--data"]).arg(coordinator.data());
    let mut broken = broken.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(broken.stdout.take());
    assert!(said(&broken.wait_with_output().unwrap(), 1).contains("can't write stdout"));
}

#[test]
fn directory_without_a_whole_coordinator_is_not_backed_up() {
    let files = TempDir::new().unwrap();
    let file = files.path().join("x");
    let backup = |data: &Path| {
        let output = run(&["backup", file.to_str().unwrap(), "--data", data.to_str().unwrap()], &[]);
        assert!(!file.exists());
        said(&output, 1)
    };
    assert!(backup(files.path()).contains("no coordinator in"));
    assert!(backup(Path::new("/nonexistent")).contains("--data"));
    let mut coordinator = Coordinator::with_home();
    let data = coordinator.data();
    coordinator.terminate();
    for (name, content, part) in [
        ("record.key", None, "record.key is missing"),
        ("record.key", Some("nonsense"), "record.key is damaged"),
        ("ca.key", Some("nonsense"), "ca.key is damaged"),
        ("gatewrt.db", None, "the database is missing"),
        ("gatewrt.db", Some(""), "the database is missing"),
        ("first-start", Some(""), "first start was interrupted"),
    ] {
        let kept = fs::read(data.join(name)).ok();
        match content {
            Some(content) => fs::write(data.join(name), content).unwrap(),
            None => fs::remove_file(data.join(name)).unwrap(),
        }
        let said = backup(&data);
        assert!(said.contains(part), "{part} in {said}");
        match kept {
            Some(kept) => fs::write(data.join(name), kept).unwrap(),
            None => fs::remove_file(data.join(name)).unwrap(),
        }
    }
    // Another record key: the records in the database are not signed with it.
    coordinator.start_again();
    let code = coordinator.code(&[]);
    Router::new(1, "office").join(&code, &text(&data.join("ca.crt"))).unwrap();
    coordinator.terminate();
    fs::write(data.join("record.key"), text(&Coordinator::start().data().join("record.key"))).unwrap();
    assert!(backup(&data).contains("the record on"), "what could not be restored is no backup");
}

#[test]
fn secret_key_as_recipient_is_refused_and_not_printed() {
    let coordinator = Coordinator::start();
    let file = coordinator.data().with_file_name("x");
    let secret = age::secrecy::ExposeSecret::expose_secret(&Identity::generate().to_string()).to_owned();
    for (recipient, part) in
        [(secret.as_str(), "is a secret key"), ("age1nonsense", "no recipient of age"), ("", "no recipient")]
    {
        let output = coordinator.command(&["backup", file.to_str().unwrap(), "--recipient", recipient]);
        let said = said(&output, 2);
        assert!(said.contains(part) && !said.contains(&secret), "{said}");
        assert!(!file.exists());
    }
}

#[test]
fn full_disk_leaves_no_half_backup() {
    let disk = SmallDisk::new();
    let coordinator = Coordinator::with_home();
    let file = disk.path.join("gatewrt.backup");
    let path = file.to_str().unwrap();
    coordinator.ok(&["backup", path]);
    let whole = fs::read(&file).unwrap();
    disk.fill();
    for args in [&["backup", path, "--force"][..], &["backup", disk.path.join("other").to_str().unwrap()]] {
        let said = coordinator.refused(args);
        assert!(said.contains("can't write") && said.contains("Free some space"), "{said}");
    }
    assert_eq!(fs::read(&file).unwrap(), whole, "the last one is as it was");
    assert_eq!(fs::read_dir(&disk.path).unwrap().count(), 2, "the last one, and the filler");
}

/// Names of tokens that three writers create until they are stopped. Each is acknowledged.
fn create_tokens(coordinator: &Coordinator, is_over: &AtomicBool, acknowledged: &Mutex<BTreeSet<String>>) {
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let api = Api::of(coordinator);
            scope.spawn(move || {
                for step in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("t{writer}-{step}");
                    let made = api.post("/v1/tokens", &json!({ "name": name, "rights": "read" }));
                    assert_eq!(made.status, 201, "{made:?}");
                    acknowledged.lock().unwrap().insert(name);
                }
            });
        }
    });
}

#[test]
fn backup_under_writers_has_all_that_was_acknowledged_before() {
    let files = TempDir::new().unwrap();
    let mut coordinator = Coordinator::with_home();
    let (is_over, acknowledged) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let backups: Vec<(PathBuf, BTreeSet<String>)> = thread::scope(|scope| {
        let writers = scope.spawn(|| create_tokens(&coordinator, &is_over, &acknowledged));
        let backups = (0..BACKUPS).map(|number| {
            let file = files.path().join(number.to_string());
            let before = acknowledged.lock().unwrap().clone();
            coordinator.ok(&["backup", file.to_str().unwrap()]);
            assert!(!writers.is_finished(), "they write all the time");
            (file, before)
        });
        let backups = backups.collect();
        is_over.store(true, Ordering::Relaxed);
        writers.join().unwrap();
        backups
    });
    let log = coordinator.log();
    let is_trouble =
        |line: &&str| line.contains("ERROR") || (line.contains("WARN") && !line.contains("bare addresses"));
    assert_eq!(log.lines().find(is_trouble), None, "the coordinator is not disturbed");
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > BACKUPS * 2, "the writers were real: {}", acknowledged.len());
    coordinator.kill();
    coordinator.start_again();
    let names =
        "SELECT json_extract(body, '$.name') FROM token WHERE json_extract(body, '$.name') <> 'admin.token'";
    assert_eq!(query(&coordinator.data(), names), acknowledged, "nothing is lost there");
    for (file, before) in backups {
        let data = file.with_extension("data");
        restore(&file, &data, &[]);
        let there = query(&data, names);
        let lost: Vec<_> = before.difference(&there).collect();
        assert!(lost.is_empty(), "{}: lost {lost:?}", file.display());
        let entries = "SELECT substr(json_extract(body, '$.target'), 7) FROM audit WHERE body LIKE '%\"token.create\"%'";
        assert_eq!(
            query(&data, entries),
            there,
            "a change is there with its entry of the audit log, or not at all"
        );
    }
}

#[test]
fn backups_in_a_loop_do_not_keep_a_coordinator_from_starting() {
    let files = TempDir::new().unwrap();
    let mut coordinator = Coordinator::with_home();
    let (data, is_over) = (coordinator.data(), AtomicBool::new(false));
    let count = thread::scope(|scope| {
        let loops: Vec<_> = (0..2)
            .map(|number| {
                let (file, data, is_over) = (files.path().join(number.to_string()), &data, &is_over);
                scope.spawn(move || {
                    let mut count = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let args =
                            ["backup", file.to_str().unwrap(), "--force", "--data", data.to_str().unwrap()];
                        let output = run(&args, &[]);
                        assert_eq!(output.status.code(), Some(0), "{output:?}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for round in 0..3 {
            coordinator.ok(&["network", "create", &format!("net{round}")]);
            if round == 1 {
                assert_eq!(coordinator.terminate(), Some(0));
            } else {
                coordinator.kill();
            }
            coordinator.start_again();
        }
        is_over.store(true, Ordering::Relaxed);
        loops.into_iter().map(|looped| looped.join().unwrap()).sum::<u32>()
    });
    assert!(count > 6, "{count} backups");
    assert_eq!(coordinator.json(&["network", "list"]).as_array().unwrap().len(), 4);
    assert!(!coordinator.log().contains("ERROR"), "{}", coordinator.log());
}
