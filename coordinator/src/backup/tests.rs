use super::{
    archive::{DATABASE, FORMAT, FileFacts, MANIFEST},
    *,
};
use crate::{
    pki::{CA_CERT, CA_KEY, Pki, RECORD_KEY},
    registry::Moment,
    store::Store,
};
use age::x25519;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use tempfile::TempDir;

const NOW: u64 = 1_700_000_000;

/// Directory of a coordinator with the network `home`.
async fn coordinator() -> TempDir {
    let folder = TempDir::new().unwrap();
    let dir = DataDir::open(folder.path(), &TRUSTED).unwrap();
    Pki::open(&dir, &["gw.example".to_owned()].into()).unwrap();
    dir.make_database().unwrap();
    let mut store = Store::open(&dir.database(), true).await.unwrap();
    let spec = serde_json::from_str(r#"{"name":"home"}"#).unwrap();
    let moment = Moment { now: NOW, entropy: [3; 32] };
    let (rows, _) = Registry::default().create_network(&spec, &moment).unwrap();
    store.commit(&rows, &[]).await.unwrap();
    store.close().await;
    dir.end_first_start().unwrap();
    folder
}

async fn sample() -> Backup {
    Backup::take(coordinator().await.path(), NOW).await.unwrap()
}

fn written(backup: &Backup, recipients: &[x25519::Recipient]) -> Vec<u8> {
    let mut bytes = Vec::new();
    backup.write(recipients, &mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Backup, BackupError> {
    Backup::read(bytes, &[])
}

fn is_same(one: &Backup, other: &Backup) -> bool {
    one.files == other.files && one.database == other.database && one.manifest.made == other.manifest.made
}

/// Files of an archive: name, content and kind.
type Files = Vec<(&'static str, Vec<u8>, tar::EntryType)>;
/// Name of a change of them, and the change.
type Changed<'a> = (&'a str, &'a dyn Fn(&mut Files));

#[tokio::test]
async fn backup_is_read_as_it_was_written() {
    let backup = sample().await;
    let [key, other] = [(); 2].map(|()| x25519::Identity::generate());
    let plain = written(&backup, &[]);
    let sealed = written(&backup, &[other.to_public(), key.to_public()]);
    for (bytes, identities) in [(&plain, vec![]), (&plain, vec![key.clone()]), (&sealed, vec![key])] {
        let read = Backup::read(&bytes[..], &identities).unwrap();
        assert!(is_same(&read, &backup));
        assert_eq!(read.verify().await.unwrap(), backup.manifest.holds);
    }
    let private = &backup.files[RECORD_KEY].trim().as_bytes()[..20];
    assert!(!sealed.windows(20).any(|part| part == private));
    assert!(matches!(Backup::read(&sealed[..], &[]), Err(BackupError::Encrypted)));
    let stranger = x25519::Identity::generate();
    assert!(matches!(Backup::read(&sealed[..], &[stranger]), Err(BackupError::WrongIdentity)));
}

#[tokio::test]
async fn damaged_byte_is_found() {
    let backup = sample().await;
    let key = x25519::Identity::generate();
    let plain = written(&backup, &[]);
    // Some bits mean nothing: a time and the name of a system in gzip's head, and those that fill up its last byte.
    for at in 0..plain.len() {
        let mut bytes = plain.clone();
        bytes[at] ^= 0x10;
        match read(&bytes) {
            Ok(read) => assert!(is_same(&read, &backup), "byte {at}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let sealed = written(&backup, &[key.to_public()]);
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[at] ^= 0x10;
        assert!(Backup::read(&bytes[..], std::slice::from_ref(&key)).is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn backup_that_ends_early_or_late_is_refused() {
    let backup = sample().await;
    let key = x25519::Identity::generate();
    for (recipients, identities) in [(vec![], vec![]), (vec![key.to_public()], vec![key])] {
        let mut bytes = written(&backup, &recipients);
        for end in 0..bytes.len() {
            assert!(Backup::read(&bytes[..end], &identities).is_err(), "{end} of {} bytes", bytes.len());
        }
        bytes.push(0);
        assert!(Backup::read(&bytes[..], &identities).is_err(), "a byte after the end");
    }
    let bytes = written(&backup, &[]);
    assert!(matches!(read(&bytes[..bytes.len() - 100]), Err(BackupError::Truncated)));
    assert!(matches!(read(b"PK\x03\x04 something else"), Err(BackupError::NotABackup)));
}

/// Archive of these entries, also such as no program would write.
fn archive(files: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content, kind) in files {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(*kind);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn archive_of_other_files_is_refused() {
    let backup = sample().await;
    let database = serde_json::to_vec(&backup.database).unwrap();
    let mut files: Vec<(&str, &[u8])> =
        backup.files.iter().map(|(&name, text)| (name, text.as_bytes())).collect();
    files.push((DATABASE, &database));
    let mut manifest = backup.manifest.clone();
    manifest.files = files.iter().map(|(name, content)| (name.to_string(), FileFacts::of(content))).collect();
    let manifest_text = serde_json::to_vec(&manifest).unwrap();
    let file = tar::EntryType::Regular;
    let sound: Vec<(&str, &[u8], tar::EntryType)> = [(MANIFEST, &manifest_text[..])]
        .into_iter()
        .chain(files)
        .map(|(name, content)| (name, content, file))
        .collect();
    assert!(is_same(&read(&archive(&sound)).unwrap(), &backup), "the sound one is read");

    let with = |change: &dyn Fn(&mut Files)| {
        let mut entries: Vec<_> = sound
            .iter()
            .map(|(name, content, kind)| (&*name.to_string().leak(), content.to_vec(), *kind))
            .collect();
        change(&mut entries);
        let entries: Vec<_> =
            entries.iter().map(|(name, content, kind)| (*name, &content[..], *kind)).collect();
        read(&archive(&entries)).err().map(|error| error.to_string())
    };
    let place = |entries: &[(&str, Vec<u8>, tar::EntryType)], name: &str| {
        entries.iter().position(|entry| entry.0 == name).unwrap()
    };
    for name in ["../ca.key", "/etc/passwd", "./ca.key", "sub/ca.key", "gatewrt.db", "lock", ""] {
        let said = with(&|entries| entries.push((name, b"x".to_vec(), file)));
        assert!(said.is_some_and(|said| said.contains("of another name")), "{name}");
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Directory,
        tar::EntryType::Fifo,
        tar::EntryType::GNULongName,
        tar::EntryType::GNUSparse,
        tar::EntryType::XHeader,
    ] {
        let said = with(&|entries| {
            let at = place(entries, CA_KEY);
            entries[at].2 = kind;
        });
        assert!(said.is_some(), "{kind:?}");
    }
    let changed: [Changed; 8] = [
        ("a file twice", &|entries| {
            let again = entries[place(entries, CA_KEY)].clone();
            entries.push(again);
        }),
        ("two manifests", &|entries| entries.push(entries[0].clone())),
        ("no manifest", &|entries| drop(entries.remove(0))),
        ("the manifest last", &|entries| entries.rotate_left(1)),
        ("a file less", &|entries| drop(entries.remove(place(entries, RECORD_KEY)))),
        ("another content", &|entries| {
            let at = place(entries, RECORD_KEY);
            entries[at].1[0] ^= 1;
        }),
        ("a file too large", &|entries| {
            let at = place(entries, CA_CERT);
            entries[at].1.resize(2 << 20, b' ');
        }),
        ("no files at all", &|entries| entries.clear()),
    ];
    for (what, change) in changed {
        assert!(with(change).is_some(), "{what}");
    }
}

#[tokio::test]
async fn backup_of_a_later_version_is_refused() {
    let mut backup = sample().await;
    backup.manifest.format = FORMAT + 1;
    backup.manifest.program = "9.8.7".to_owned();
    let said = read(&written(&backup, &[])).err().unwrap().to_string();
    assert!(said.contains("9.8.7") && said.contains("later version"), "{said}");

    let mut backup = sample().await;
    let text = serde_json::to_string(&backup.database).unwrap();
    let schema = backup.manifest.schema;
    let later =
        text.replace(&format!(r#"["schema","{schema}"]"#), &format!(r#"["schema","{}"]"#, schema + 1));
    assert_ne!(text, later);
    backup.database = serde_json::from_str(&later).unwrap();
    backup.manifest.schema = schema + 1;
    assert!(matches!(backup.verify().await, Err(BackupError::TooNew { .. })));
}

#[tokio::test]
async fn keys_that_do_not_fit_are_refused() {
    let (backup, other) = (sample().await, sample().await);
    let verify = async |name: &'static str| {
        let mut mixed = read(&written(&backup, &[])).unwrap();
        mixed.files.insert(name, other.files[name].clone());
        mixed.verify().await.err().map(|error| error.to_string())
    };
    for name in [CA_KEY, CA_CERT, SERVER_KEY, SERVER_CERT] {
        assert!(verify(name).await.is_some_and(|said| said.contains("damaged")), "{name}");
    }
    let mut without = read(&written(&backup, &[])).unwrap();
    without.files.remove(RECORD_KEY);
    assert!(without.verify().await.unwrap_err().to_string().contains("record.key: it is missing"));
}

/// What a coordinator issues anew at its start is not in a backup that was taken meanwhile.
#[tokio::test]
async fn server_certificate_that_is_being_issued_is_left_out() {
    let folder = coordinator().await;
    let whole = Backup::take(folder.path(), NOW).await.unwrap();
    let mut key = Vec::new();
    write!(key, "{}", sample().await.files[SERVER_KEY]).unwrap();
    fs::write(folder.path().join(SERVER_KEY), key).unwrap();
    let half = Backup::take(folder.path(), NOW).await.unwrap();
    assert!(SERVER.iter().all(|name| whole.files.contains_key(name) && !half.files.contains_key(name)));
    half.verify().await.unwrap();
}

#[tokio::test]
async fn database_with_unknown_tables_is_refused() {
    let backup = sample().await;
    for table in ["nowhere", "sqlite_master", "network; DROP TABLE node", "network\" --"] {
        let mut text = serde_json::to_value(&backup.database).unwrap();
        text[table] = serde_json::json!({ "columns": ["id", "body"], "rows": [["a", "b"]] });
        let mut odd = read(&written(&backup, &[])).unwrap();
        odd.database = serde_json::from_value(text).unwrap();
        let said = odd.verify().await.unwrap_err().to_string();
        assert!(said.contains("in its database"), "{table}: {said}");
    }
}
