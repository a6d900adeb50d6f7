//! The states that LuCI's pages are tried with are such as the daemon tells.

use gatewrt::core::report::Status;
use serde_json::Value;
use std::{fs, path::Path};

#[test]
fn the_daemon_could_tell_each_state() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/luci/states");
    let mut states = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let status: Status = serde_json::from_value(state.clone())
            .unwrap_or_else(|error| panic!("{} is no status: {error}", path.display()));
        assert_eq!(serde_json::to_value(status).unwrap(), state, "{}", path.display());
        states += 1;
    }
    assert!(states > 0);
}
