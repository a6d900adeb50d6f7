//! Admin token from the file `admin.token`: listed, revoked, and made anew by root alone.

use crate::{
    api::client::Api,
    coordinator::{Coordinator, run, text},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

const RESET: [&str; 2] = ["token", "reset-admin"];

#[test]
fn admin_token_is_listed_and_stays_revoked() {
    let mut coordinator = Coordinator::with_home();
    let (root, file) = (Api::of(&coordinator), coordinator.data().join("admin.token"));
    let listed = coordinator.json(&["token", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["rights"]), (&"admin.token".into(), &"admin".into()));
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    assert!(coordinator.ok(&["token", "list"]).contains(&id));
    let login = root.with_token("").post("/v1/login", &serde_json::json!({"token": root.token}));
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();

    let revoked = coordinator.command(&["token", "revoke", &id]);
    let said = String::from_utf8(revoked.stderr).unwrap();
    assert!(revoked.status.success() && said.contains("token reset-admin"), "{said}");
    assert_eq!(root.get("/v1/me").status, 401);
    let in_session = root.with_token("").call("GET", "/v1/me", &[("cookie", &cookie)], None);
    assert_eq!(in_session.status, 401, "its sessions end too");
    let remote = ["--url", &coordinator.url(), "--token-file", file.to_str().unwrap()];
    let refused =
        run(&["network", "list"], &[&remote[..], &["--data", coordinator.data().to_str().unwrap()]].concat());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("token is missing or wrong") && said.contains("token reset-admin"), "{said}");

    coordinator.terminate();
    coordinator.start_again();
    assert_eq!(root.get("/v1/me").status, 401, "its file is dead, though it is there");
    assert_eq!(text(&file).trim(), root.token);
    coordinator.terminate();
    fs::remove_file(&file).unwrap();
    coordinator.start_again();
    assert!(!file.exists(), "no other is made in its place");
    assert!(coordinator.log().contains("token reset-admin"));

    let said = coordinator.refused(&RESET);
    assert!(said.contains("another coordinator runs on"), "{said}");
    coordinator.terminate();
    // Another user than root, who has the keys.
    chown(coordinator.data().join("ca.key"), Some(4321), Some(4321)).unwrap();
    assert!(coordinator.ok(&RESET).contains("admin.token"));
    let made = fs::metadata(&file).unwrap();
    assert_eq!((made.permissions().mode() & 0o777, made.uid(), made.gid()), (0o600, 4321, 4321));
    coordinator.start_again();
    assert_eq!(coordinator.json(&["token", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(root.get("/v1/me").status, 401, "the first is as dead as before");
}

#[test]
fn lost_or_replaced_admin_token_makes_way_for_the_new_one() {
    let mut coordinator = Coordinator::with_home();
    let (first, file) = (Api::of(&coordinator), coordinator.data().join("admin.token"));
    coordinator.terminate();
    fs::remove_file(&file).unwrap();
    coordinator.start_again();
    let second = Api::of(&coordinator);
    assert_ne!(second.token, first.token);
    assert_eq!((first.get("/v1/me").status, second.get("/v1/me").status), (401, 200));
    coordinator.terminate();
    fs::write(&file, "x".repeat(40)).unwrap();
    coordinator.start_again();
    assert_eq!((second.get("/v1/me").status, Api::of(&coordinator).get("/v1/me").status), (401, 200));
    assert_eq!(coordinator.json(&["token", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn no_admin_token_is_made_where_no_coordinator_is() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&RESET, &["--data", dir.path().to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("no coordinator in"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
