//! The interface between LuCI's pages and this program: the states that the pages are tested with, and the methods that
//! their users may call.

use gatewrt::core::status::Status;
use serde_json::Value;
use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_daemon_could_tell_each_state() {
    let mut states = 0;
    for entry in fs::read_dir(repository().join("tests/luci/states")).unwrap() {
        let path = entry.unwrap().path();
        let state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let status: Status = serde_json::from_value(state.clone())
            .unwrap_or_else(|error| panic!("{} is no status: {error}", path.display()));
        assert_eq!(serde_json::to_value(status).unwrap(), state, "{}", path.display());
        states += 1;
    }
    assert!(states > 0);
}

/// A user with read access alone changes nothing, and every method is granted to someone.
#[test]
fn each_method_is_either_read_or_write() {
    let path =
        repository().join("openwrt-package/luci-app-gatewrt/root/usr/share/rpcd/acl.d/luci-app-gatewrt.json");
    let acl: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let permitted = |way: &str| -> BTreeSet<String> {
        serde_json::from_value(acl["luci-app-gatewrt"][way]["ubus"]["gatewrt"].clone()).unwrap()
    };
    let (read, write) = (permitted("read"), permitted("write"));
    let changes = ["join", "leave", "exit_enable", "exit_disable", "exit_forget"].map(str::to_owned);
    assert_eq!(write, changes.into());
    assert!(read.is_disjoint(&write));
    assert_eq!(&read | &write, methods());
}

/// Methods that the plugin lists for rpcd.
fn methods() -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = folder.path().join("rpcd/gatewrt");
    fs::create_dir(folder.path().join("rpcd")).expect("a folder");
    symlink(env!("CARGO_BIN_EXE_gatewrt"), &plugin).expect("a link");
    let list = Command::new(plugin).arg("list").output().expect("the plugin runs");
    let list: serde_json::Map<String, Value> = serde_json::from_slice(&list.stdout).expect("an object");
    list.into_iter().map(|(name, _)| name).collect()
}
