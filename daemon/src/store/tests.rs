use super::*;
use gatewrt_protocol::{NetworkId, NodeId, PublicKey};
use litemap::LiteMap;
use proptest::prelude::*;
use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

struct Bed {
    dir: TempDir,
    store: Store,
}

fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(&dir.path().join("gatewrt"));
    Bed { dir, store }
}

fn home() -> NetworkName {
    "home".parse().unwrap()
}

fn code() -> JoinCode {
    JoinCode {
        url: "https://gw.example:8443".into(),
        network: home(),
        ca: [1; 32],
        record_key: PublicKey([2; 32]),
        secret: [3; 16],
    }
}

fn identity() -> Identity {
    Identity {
        network: home(),
        net: NetworkId::from_entropy([1; 10]),
        node: NodeId::from_entropy([2; 10]),
        name: "router".parse().unwrap(),
        keys: Keys::generate().unwrap(),
        brokers: vec!["gw.example:8883".into()],
        ca: "ca".into(),
        certificate: "certificate".into(),
        coordinator: code().url,
        record_key: code().record_key,
        port: 51820,
    }
}

fn records(values: &[(&str, &str)]) -> LiteMap<String, String> {
    values.iter().map(|(topic, text)| (topic.to_string(), text.to_string())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Every file below the state directory.
fn files(store: &Store) -> Vec<String> {
    fn walk(dir: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
            if entry.path().is_dir() {
                walk(&entry.path(), into);
            } else {
                into.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    let mut names = Vec::new();
    walk(&store.dir, &mut names);
    names.sort();
    names
}

#[test]
fn identity_is_saved_for_root_alone_and_read_back() {
    let Bed { store, dir: _dir } = bed();
    assert_eq!(store.networks().unwrap(), []);
    assert_eq!(store.identity(&home()).unwrap(), None);
    let identity = identity();
    store.save_identity(&code(), &identity).unwrap();
    assert_eq!(store.identity(&home()).unwrap().as_ref(), Some(&identity));
    assert_eq!(store.networks().unwrap(), [home()]);
    assert_eq!(mode(&store.folder(&home())), 0o700);
    assert_eq!(mode(&store.folder(&home()).join(IDENTITY)), 0o600);
    assert_eq!(files(&store), [IDENTITY]);
}

#[test]
fn identity_is_never_overwritten() {
    let Bed { store, dir: _dir } = bed();
    store.save_identity(&code(), &identity()).unwrap();
    let error = store.save_identity(&code(), &identity()).expect_err("joined already");
    assert!(matches!(&error, StoreError::AlreadyJoined(network) if *network == home()), "{error}");
}

#[test]
fn damaged_identity_is_an_error_with_advice() {
    let Bed { store, dir: _dir } = bed();
    store.save_identity(&code(), &identity()).unwrap();
    let path = store.folder(&home()).join(IDENTITY);
    let whole = fs::read(&path).unwrap();
    for damaged in [&b""[..], &whole[..whole.len() / 2], b"{}"] {
        fs::write(&path, damaged).unwrap();
        let error = store.identity(&home()).expect_err("damaged").to_string();
        assert!(error.contains("identity.json is damaged") && error.contains("join again"), "{error}");
    }
}

#[test]
fn renamed_folder_is_no_other_network() {
    let Bed { store, dir: _dir } = bed();
    store.save_identity(&code(), &identity()).unwrap();
    let other: NetworkName = "other".parse().unwrap();
    fs::rename(store.folder(&home()), store.folder(&other)).unwrap();
    assert!(store.identity(&other).expect_err("of another").to_string().contains("that of network home"));
}

#[test]
fn retried_join_uses_the_same_keys_until_it_is_done() {
    let Bed { store, dir: _dir } = bed();
    let keys = store.pending_keys(&code()).unwrap();
    assert_eq!(store.pending_keys(&code()).unwrap(), keys);
    assert_eq!(mode(&store.pending(&code())), 0o600);
    let other = JoinCode { secret: [4; 16], ..code() };
    assert_ne!(store.pending_keys(&other).unwrap(), keys);
    assert_eq!(store.networks().unwrap(), []);
    store.save_identity(&code(), &identity()).unwrap();
    store.forget_pending(&other).unwrap();
    assert_eq!(files(&store), [IDENTITY]);
}

#[test]
fn forgetting_leaves_nothing_and_is_idempotent() {
    let Bed { store, dir: _dir } = bed();
    store.forget(&home()).unwrap();
    store.save_identity(&code(), &identity()).unwrap();
    store.records(&home()).flush(&records(&[("a", "1")])).unwrap();
    store.forget(&home()).unwrap();
    store.forget(&home()).unwrap();
    assert_eq!(files(&store), [""; 0]);
    assert_eq!(store.networks().unwrap(), []);
}

#[test]
fn unchanged_records_are_not_written() {
    let Bed { store, dir: _dir } = bed();
    let mut file = store.records(&home());
    assert!(matches!(file.load(), (empty, None) if empty.is_empty()));
    let first = records(&[("net/policy", "a.b.c"), ("net/roster", "d.e.f")]);
    assert_eq!(file.save(&first, Duration::ZERO).unwrap(), Saved::Written);
    assert_eq!(file.save(&first, Duration::ZERO).unwrap(), Saved::Unchanged);
    assert_eq!(file.flush(&first).unwrap(), Saved::Unchanged);
    let mut file = store.records(&home());
    assert!(matches!(file.load(), (read, None) if read == first));
    assert_eq!(file.save(&first, Duration::ZERO).unwrap(), Saved::Unchanged);
    assert_eq!(mode(&store.folder(&home()).join(RECORDS)), 0o600);
}

#[test]
fn writes_are_rate_limited_and_a_clean_stop_saves_the_last_state() {
    let Bed { store, dir: _dir } = bed();
    let mut file = store.records(&home());
    let version = |n: u32| records(&[("net/policy", &n.to_string())]);
    for n in 0..8 {
        assert_eq!(file.save(&version(n), Duration::from_secs(10)).unwrap(), Saved::Written);
    }
    let wait = HOUR - Duration::from_secs(50);
    assert_eq!(file.save(&version(8), Duration::from_secs(60)).unwrap(), Saved::Later(wait));
    assert_eq!(file.flush(&version(9)).unwrap(), Saved::Written);
    assert_eq!(store.records(&home()).load().0, version(9));
    assert_eq!(file.save(&version(10), Duration::from_secs(10) + HOUR).unwrap(), Saved::Written);
}

#[test]
fn damaged_records_are_reported_and_the_identity_stays() {
    let Bed { store, dir: _dir } = bed();
    store.save_identity(&code(), &identity()).unwrap();
    store.records(&home()).flush(&records(&[("net/policy", "abc"), ("net/roster", "def")])).unwrap();
    let path = store.folder(&home()).join(RECORDS);
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() - 1 {
        fs::write(&path, &whole[..end]).unwrap();
        let mut file = store.records(&home());
        assert!(
            matches!(file.load(), (empty, Some(StoreError::DamagedRecords { .. })) if empty.is_empty()),
            "{end}"
        );
    }
    let flipped = String::from_utf8(whole).unwrap().replace("abc", "abd");
    fs::write(&path, flipped).unwrap();
    let mut file = store.records(&home());
    assert!(matches!(file.load(), (_, Some(StoreError::DamagedRecords { .. }))));
    assert_eq!(file.save(&records(&[("a", "1")]), Duration::ZERO).unwrap(), Saved::Written);
    assert!(store.identity(&home()).unwrap().is_some());
}

#[test]
fn temporary_file_of_a_power_cut_is_replaced() {
    let Bed { store, dir: _dir } = bed();
    fs::create_dir_all(store.folder(&home())).unwrap();
    let litter = store.folder(&home()).join(".records.tmp");
    fs::write(&litter, "half a fi").unwrap();
    fs::set_permissions(&litter, fs::Permissions::from_mode(0o644)).unwrap();
    store.records(&home()).flush(&records(&[("a", "1")])).unwrap();
    assert_eq!(files(&store), [RECORDS]);
    assert_eq!(mode(&store.folder(&home()).join(RECORDS)), 0o600);
}

/// A file system of 32 KiB; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=32k", "tmpfs"];
        let status = Command::new("mount").args(mount).arg(dir.path()).status().expect("mount is there");
        assert!(status.success(), "a small tmpfs needs root (CAP_SYS_ADMIN)");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn full_disk_keeps_the_old_file_and_leaves_no_temporary_one() {
    let disk = SmallDisk::new();
    let store = Store::new(&disk.0.path().join("gatewrt"));
    let mut file = store.records(&home());
    let small = records(&[("net/policy", "abc")]);
    file.flush(&small).unwrap();
    let error = file.flush(&records(&[("net/policy", &"x".repeat(64 * 1024))])).expect_err("too big");
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(files(&store), [RECORDS]);
    assert_eq!(store.records(&home()).load().0, small);
    assert_eq!(file.flush(&small).unwrap(), Saved::Unchanged);
}

#[test]
fn full_disk_stops_a_join_before_the_request() {
    let disk = SmallDisk::new();
    let store = Store::new(&disk.0.path().join("gatewrt"));
    let _ = fs::write(disk.0.path().join("filler"), [0; 64 * 1024]);
    assert!(matches!(store.pending_keys(&code()), Err(StoreError::Full(_))));
}

/// Any content with any free space on the disk: afterwards the file is the complete new one or the complete old one.
#[test]
fn disk_that_fills_up_at_any_byte_leaves_no_half_file() {
    let choice = |n: usize| {
        let scope = gatewrt_protocol::ExitScope::auto("all".parse().unwrap(), Vec::new());
        let exits = (0..n).map(|at| format!("exit-{at}").parse().unwrap()).collect();
        vec![OwnScope { exits, lan: true, scope }]
    };
    let (small, large) = (records(&[("a", "1")]), records(&[("a", &"x".repeat(9000))]));
    let (mut failed, mut done) = (0, 0);
    for room in 0..6 {
        let disk = SmallDisk::new();
        let store = Store::new(&disk.0.path().join("gatewrt"));
        store.save_identity(&code(), &identity()).unwrap();
        store.records(&home()).flush(&small).unwrap();
        store.save_choice(&home(), Some(&choice(1))).unwrap();
        let _ = fs::write(disk.0.path().join("filler"), [0; 64 * 1024]);
        let filler = fs::OpenOptions::new().write(true).open(disk.0.path().join("filler")).unwrap();
        let length = filler.metadata().unwrap().len();
        filler.set_len(length - room * 4096).unwrap();
        let before = files(&store);
        let mut check = |kept: Result<(), StoreError>, is_new: bool, is_old: bool| {
            match kept {
                Ok(()) => done += 1,
                Err(StoreError::Full(_)) => failed += 1,
                Err(error) => panic!("{error:?}"),
            }
            assert_ne!(is_new, is_old, "{room} pages");
        };
        let kept = store.records(&home()).flush(&large).map(drop);
        let now = store.records(&home()).load().0;
        check(kept, now == large, now == small);
        let kept = store.save_choice(&home(), Some(&choice(900)));
        let now = store.choice(&home()).unwrap();
        check(kept, now == Some(choice(900)), now == Some(choice(1)));
        let kept = store.pending_keys(&code()).map(drop);
        check(kept, store.pending(&code()).exists(), files(&store) == before);
        assert!(store.identity(&home()).unwrap().is_some());
        store.forget(&home()).expect("room is not needed to forget");
    }
    assert!(failed > 3 && done > 3, "{failed} failed, {done} did not");
}

#[test]
fn missing_permission_is_reported_with_advice() {
    let disk = SmallDisk::new();
    let store = Store::new(&disk.0.path().join("gatewrt"));
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).status().unwrap();
    assert!(remount.success());
    let error = store.pending_keys(&code()).expect_err("read-only");
    assert!(
        matches!(error, StoreError::Denied { .. }) && error.to_string().contains("run it as root"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_records_are_read_back(values in proptest::collection::btree_map("[a-z/]{0,9}", "[!-~]{0,40}", 0..5)) {
        let Bed { store, dir: _dir } = bed();
        let values: LiteMap<_, _> = values.into_iter().collect();
        store.records(&home()).flush(&values).unwrap();
        prop_assert_eq!(store.records(&home()).load().0, values);
    }
}

#[test]
fn exit_choice_is_saved_until_it_is_forgotten() {
    let Bed { store, .. } = bed();
    assert_eq!(store.choice(&home()).unwrap(), None);
    let name: gatewrt_protocol::Tag = "guests".parse().unwrap();
    let of = vec!["dev:br-guest".parse().unwrap()];
    let scope = gatewrt_protocol::ExitScope::auto(name, of);
    let own = OwnScope { exits: vec!["berlin".parse().unwrap()], lan: true, scope };
    for said in [vec![own], Vec::new()] {
        store.save_choice(&home(), Some(&said)).unwrap();
        assert_eq!(store.choice(&home()).unwrap(), Some(said));
        assert_eq!(mode(&store.folder(&home()).join(CHOICE)), 0o600);
    }
    assert!(store.networks().unwrap().is_empty(), "a choice is no network joined");
    store.save_choice(&home(), None).unwrap();
    store.save_choice(&home(), None).unwrap();
    assert_eq!(store.choice(&home()).unwrap(), None);
}

#[test]
fn damaged_exit_choice_is_reported() {
    let Bed { store, .. } = bed();
    store.save_choice(&home(), Some(&[])).unwrap();
    let path = store.folder(&home()).join(CHOICE);
    fs::write(&path, "[{").unwrap();
    let error = store.choice(&home()).unwrap_err();
    assert!(matches!(&error, StoreError::DamagedChoice { path: named, .. } if *named == path), "{error}");
}
