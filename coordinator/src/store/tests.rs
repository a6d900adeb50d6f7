use super::*;
use crate::registry::{ClientState, ExitSpec, IngressSpec, Moment, Recovery};
use gatewrt_protocol::Signer;
use sqlx::{Connection as _, Executor};

/// Database as the first version of this program created and filled it.
const VERSION_1: &[&str] = &[
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE network (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE node (id TEXT PRIMARY KEY, wg_key TEXT NOT NULL UNIQUE, identity TEXT NOT NULL UNIQUE, body TEXT NOT NULL)",
    "CREATE TABLE code (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, body TEXT NOT NULL)",
    "CREATE TABLE record (topic TEXT PRIMARY KEY, rev BIGINT NOT NULL, signed TEXT NOT NULL)",
    "INSERT INTO meta VALUES ('schema', '1')",
    r#"INSERT INTO network VALUES ('aaaaaaaaaaaaaaab', '{"id":"aaaaaaaaaaaaaaab","name":"home","prefix4":"10.80.0.0/16",
       "prefix6":"fd00:80::/64","mtu":1420,"keepalive":25,"domain":"home.gw.internal","next":2,"created":1000}')"#,
    r#"INSERT INTO node VALUES ('aaaaaaaaaaaaaaac', 'AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=',
       'AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI', '{"id":"aaaaaaaaaaaaaaac","net":"aaaaaaaaaaaaaaab","name":"office",
       "key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","identity":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI",
       "addresses":["10.80.0.1","fd00:80::1"],"roles":["egress","ingress","exit"],"code":"abcdefgh","joined":1001,
       "egress":{"192.168.10.0/24":{"nat":true,"metric":0}},"facts":{"board":"b","version":"0.1.0","port":51820,
       "endpoints":[{"addr":"203.0.113.1:51820","kind":"wan"}],"interfaces":[],"seen4":null,"seen6":null},"removed":null}')"#,
    r#"INSERT INTO code VALUES ('abcdefgh', 'h', '{"id":"abcdefgh","net":"aaaaaaaaaaaaaaab","hash":"h","uses":1,"used":1,
       "expires":2000,"roles":["egress","ingress","exit"],"revoked":null,"created":1000}')"#,
];

async fn execute(path: &Path, statements: &[&'static str]) {
    let mut connection = AnyConnection::connect(&connections::url(path)).await.unwrap();
    for statement in statements {
        connection.execute(*statement).await.unwrap();
    }
    connection.close().await.unwrap();
}

async fn file_with(statements: &[&'static str]) -> (tempfile::TempDir, std::path::PathBuf) {
    sqlx::any::install_default_drivers();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::fs::write(&path, "").unwrap();
    execute(&path, statements).await;
    (dir, path)
}

#[tokio::test]
async fn database_of_the_first_version_is_migrated() {
    let (_dir, path) = file_with(VERSION_1).await;
    let key = Signer::from_seed(&[1; 32]).public();
    let mut store = Store::open(&path, false).await.unwrap();
    let Loaded { mut registry, .. } = store.load(&key).await.unwrap();
    let moment = Moment { now: 1500, entropy: [3; 32] };
    let (rows, office) = registry.set_ingress("home", "office", &IngressSpec::default()).unwrap();
    store.commit(&rows, &[]).await.unwrap();
    registry.apply(rows);
    assert_eq!(office.egress.len(), 1, "what was there stays");
    assert!(office.exit.is_none() && office.scopes.is_empty() && office.confirm_s.is_none());
    let scope = crate::testing::scope_spec("192.168.10.0/24");
    for rows in [
        registry.set_exit("home", "office", &ExitSpec::default()).unwrap().0,
        registry.set_scope("home", "office", "lan", &scope).unwrap().0,
    ] {
        store.commit(&rows, &[]).await.unwrap();
        registry.apply(rows);
    }
    let spec = crate::testing::client_spec("phone", vec!["office".parse().unwrap()]);
    let (rows, phone) = registry.create_client("home", &spec, &crate::testing::keys(9), &moment).unwrap();
    store.commit(&rows, &[]).await.unwrap();
    registry.apply(rows);
    assert_eq!(registry.client_state(&phone, 1500), ClientState::Enabled);
    store.close().await;

    let mut again = Store::open(&path, false).await.unwrap();
    assert_eq!(again.load(&key).await.unwrap().registry, registry);
    again.close().await;
}

#[tokio::test]
async fn database_of_a_later_version_is_refused() {
    let (_dir, path) = file_with(VERSION_1).await;
    Store::open(&path, false).await.unwrap().close().await;
    execute(&path, &["UPDATE meta SET value = '3' WHERE name = 'schema'"]).await;
    let refused = Store::open(&path, false).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooNew { found: 3 }), "{refused}");
}

#[tokio::test]
async fn dump_of_the_first_version_is_restored() {
    let (dir, path) = file_with(VERSION_1).await;
    let key = Signer::from_seed(&[1; 32]).public();
    let dump = Dump::read(&path).await.unwrap();
    assert_eq!(dump.schema(), 1);
    let restored = dir.path().join("restored");
    std::fs::write(&restored, "").unwrap();
    dump.write(&restored, Recovery { at: 2, backup_at: Some(1), ..Recovery::default() }, &key).await.unwrap();
    assert_eq!(Dump::read(&restored).await.unwrap().schema(), SCHEMA);
    let mut stores = [Store::open(&path, false).await.unwrap(), Store::open(&restored, false).await.unwrap()];
    let [one, other] = &mut stores;
    let (one, other) = (one.load(&key).await.unwrap(), other.load(&key).await.unwrap());
    assert!(one.registry.nodes().eq(other.registry.nodes()));
    assert_eq!(one.registry.nodes().count(), 1);
    let recovery = other.registry.recovery().map(|recovery| (recovery.at, recovery.backup_at));
    assert_eq!((one.registry.recovery(), recovery), (None, Some((2, Some(1)))));
    for store in stores {
        store.close().await;
    }
}
