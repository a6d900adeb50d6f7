//! Storage that fails at any moment: each acknowledged change is stored, what is published is stored, and a coordinator
//! that can't be sure says so and changes nothing.

use crate::{api::client::Api, coordinator::Coordinator, eventually};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};
use tempfile::TempDir;

/// Number of faults; `GATEWRT_FAULTS` is another.
const FAULTS: u64 = 24;
/// Number of writers at a time.
const WRITERS: u64 = 3;
/// Number of changes that each writer tries during a fault.
const TRIES: u64 = 4;
/// Kinds of faults: an input/output error, a full disk, and the end of the program before and after a call.
const KINDS: [&str; 4] = ["5", "28", "kill", "killed"];

/// A coordinator whose disk has faults on request.
struct Faulty {
    coordinator: Coordinator,
    control: PathBuf,
    _dir: TempDir,
}

impl Faulty {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let (library, control) = (dir.path().join("faults.so"), dir.path().join("fault"));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/faults.c"))
            .arg("-ldl")
            .status();
        assert!(built.unwrap().success());
        let mut coordinator = Coordinator::prepared();
        coordinator.environment =
            vec![("LD_PRELOAD".into(), library.into()), ("GATEWRT_FAULT".into(), control.clone().into())];
        coordinator.start_again();
        Self { coordinator, control, _dir: dir }
    }

    fn begin(&self, kind: &str, at: u64, times: u64) {
        let aside = self.control.with_extension("new");
        fs::write(&aside, format!("{kind} {at} {times}\n")).unwrap();
        fs::rename(aside, &self.control).unwrap();
    }

    fn end(&self) {
        let _ = fs::remove_file(&self.control);
    }

    /// Names of the networks that the coordinator tells of.
    fn told(&self) -> BTreeSet<String> {
        names(&self.coordinator.json(&["network", "list"]))
    }

    /// Names of the networks in the database, as another process reads them.
    fn stored(&self) -> BTreeSet<String> {
        stored(&self.coordinator.data())
    }
}

fn names(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|network| network["name"].as_str().unwrap().to_owned()).collect()
}

/// Names of the networks of a database, as Python's SQLite reads them.
fn stored(data: &Path) -> BTreeSet<String> {
    let script = "import json, sqlite3, sys; print(json.dumps([json.loads(body) for body, in \
                  sqlite3.connect(sys.argv[1]).execute('SELECT body FROM network')]))";
    let output = Command::new("python3").args(["-c", script]).arg(data.join("gatewrt.db")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    names(&serde_json::from_slice(&output.stdout).unwrap())
}

fn network(name: &str) -> Value {
    json!({ "name": name })
}

/// Changes by three writers, while the disk fails. Returns the names of those that were acknowledged.
fn write(coordinator: &Coordinator, round: u64) -> BTreeSet<String> {
    let api = Api::of(coordinator);
    let writer = |number: u64| {
        let api = api.clone();
        move || {
            let names = (0..TRIES).map(|step| format!("n{round}-{number}-{step}"));
            let is_made = |name: &String| {
                let answer = api.try_call("POST", "/v1/networks", &[], Some(&network(name)));
                let Ok(answer) = answer else { return false };
                assert!([201, 500, 503, 507].contains(&answer.status), "{answer:?}");
                answer.status == 201
            };
            names.filter(is_made).collect::<Vec<_>>()
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(writer(number))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Pseudorandom numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[test]
fn disk_faults_lose_no_acknowledged_change() {
    let (faults, seed) = (number("GATEWRT_FAULTS", FAULTS), number("GATEWRT_SEED", 1));
    let (mut faulty, mut random) = (Faulty::start(), Random(seed));
    let mut acknowledged = BTreeSet::new();
    let (mut deaths, mut refused) = (0, 0);
    for round in 0..faults {
        let kind = KINDS[usize::try_from(random.below(4)).unwrap()];
        let (at, times) =
            (1 + random.below(60), [1, 1, 2, 10, 1000][usize::try_from(random.below(5)).unwrap()]);
        let what = format!("fault {round} of seed {seed}: {kind} {at} {times}");
        faulty.begin(kind, at, times);
        let made = write(&faulty.coordinator, round);
        refused += usize::from(made.len() < usize::try_from(WRITERS * TRIES).unwrap());
        acknowledged.extend(made);
        faulty.end();
        // Changes are made again soon after the fault, and each is where it is said to be.
        let name = format!("after-{round}");
        eventually(&format!("changes after {what}"), || {
            if faulty.coordinator.has_ended() {
                deaths += 1;
                faulty.coordinator.kill();
                faulty.coordinator.start_again();
            }
            let api = Api::of(&faulty.coordinator);
            let answer = api.try_call("POST", "/v1/networks", &[], Some(&network(&name))).ok()?;
            [201, 409].contains(&answer.status).then_some(())
        });
        acknowledged.insert(name.clone());
        let (told, stored) = (faulty.told(), faulty.stored());
        assert_eq!(told, stored, "{what}: what is told is what is stored");
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "{what}: lost {lost:?}");
        if random.below(4) == 0 {
            faulty.coordinator.kill();
            faulty.coordinator.start_again();
            assert_eq!(faulty.told(), stored, "{what}: after a restart");
        }
        // So that ranges of addresses do not run out.
        for name in told {
            let gone =
                Api::of(&faulty.coordinator).call("DELETE", &format!("/v1/networks/{name}"), &[], None);
            assert!([200, 204].contains(&gone.status), "{gone:?}");
        }
        acknowledged.clear();
    }
    println!("{faults} faults of seed {seed}: {refused} refused changes, {deaths} ended the coordinator");
    assert!(refused > 0 && deaths > 0, "the faults are real");
}

#[test]
fn coordinator_that_is_not_sure_says_so_and_changes_nothing() {
    let faulty = Faulty::start();
    let api = Api::of(&faulty.coordinator);
    let create = |name: &str| api.call("POST", "/v1/networks", &[], Some(&network(name)));
    assert_eq!(create("before").status, 201);
    let database = faulty.coordinator.data().join("gatewrt.db");
    let aside = database.with_extension("aside");
    fs::rename(&database, &aside).unwrap();
    let answer = create("lost");
    assert_eq!((answer.status, answer.problem()), (503, "storage-unsure"), "{answer:?}");
    let health = api.call("GET", "/v1/health", &[], None);
    assert_eq!((health.status, &health.body["status"]), (503, &json!("storage-unsure")));
    let status = faulty.coordinator.ok(&["status"]);
    assert!(status.contains("no change is made") && status.contains("missing"), "{status}");
    assert!(!faulty.told().contains("lost"));
    assert!(
        faulty.coordinator.refused(&["network", "create", "lost"]).contains("not known what is on the disk")
    );
    // Nothing is answered by what is in memory, not even a change of what is not there.
    let unknown = api.call("DELETE", "/v1/networks/unknown", &[], None);
    assert_eq!((unknown.status, unknown.problem()), (503, "storage-unsure"), "{unknown:?}");
    // Another file at that path is not taken over.
    fs::copy(&aside, &database).unwrap();
    assert_eq!(create("lost").status, 503);
    fs::rename(&aside, &database).unwrap();
    eventually("changes are made again", || {
        (api.call("GET", "/v1/health", &[], None).status == 200).then_some(())
    });
    assert_eq!(faulty.told(), faulty.stored());
    assert_eq!(create("after").status, 201);
    assert!(faulty.stored().contains("after"));
}

#[test]
fn full_disk_that_has_space_again_keeps_each_change() {
    let mut faulty = Faulty::start();
    for at in [1, 5, 9] {
        faulty.begin("28", at, 1000);
        let made = write(&faulty.coordinator, at);
        faulty.end();
        let name = format!("after-{at}");
        eventually("changes are made again", || {
            faulty.coordinator.command(&["network", "create", &name]).status.success().then_some(())
        });
        let told = faulty.told();
        assert!(told.contains(&name) && made.is_subset(&told));
        faulty.coordinator.kill();
        faulty.coordinator.start_again();
        assert_eq!(faulty.told(), told);
    }
}

#[test]
fn database_without_tables_beside_keys_is_refused() {
    let mut coordinator = Coordinator::with_home();
    assert_eq!(coordinator.terminate(), Some(0));
    let database = coordinator.data().join("gatewrt.db");
    let whole = fs::read(&database).unwrap();
    for content in [None, Some(&b""[..])] {
        fs::remove_file(&database).unwrap();
        if let Some(content) = content {
            fs::write(&database, content).unwrap();
        }
        let output = coordinator.serve().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["gatewrt.db", "cut off every router", "Put it back"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert_eq!(fs::read(&database).ok().as_deref(), content, "nothing is written");
        fs::write(&database, &whole).unwrap();
    }
    coordinator.start_again();
    assert_eq!(names(&coordinator.json(&["network", "list"])), ["home".to_owned()].into());
}

/// An empty file must not make SQLite remove the write-ahead log, which has all that was changed.
#[test]
fn empty_database_beside_its_log_loses_nothing() {
    let mut coordinator = Coordinator::with_home();
    coordinator.kill();
    let database = coordinator.data().join("gatewrt.db");
    let aside = database.with_extension("aside");
    fs::rename(&database, &aside).unwrap();
    fs::write(&database, "").unwrap();
    let output = coordinator.serve().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    fs::rename(&aside, &database).unwrap();
    coordinator.start_again();
    assert_eq!(names(&coordinator.json(&["network", "list"])), ["home".to_owned()].into());
}

#[test]
fn copy_of_a_running_coordinators_database_alone_is_refused() {
    let coordinator = Coordinator::with_home();
    let copy = TempDir::new().unwrap();
    let data = copy.path().join("data");
    fs::create_dir(&data).unwrap();
    for name in ["ca.key", "ca.crt", "record.key", "admin.token", "server.key", "server.crt", "gatewrt.db"] {
        fs::copy(coordinator.data().join(name), data.join(name)).unwrap();
    }
    let args = ["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let output = crate::coordinator::run(&args, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gatewrt.db-wal"), "{said}");
}
