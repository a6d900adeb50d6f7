//! The HTTP API against its OpenAPI document, by schemathesis: thousands of valid and invalid requests, of which none
//! may end in a server error or in an undocumented answer.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Lab, eventually},
    mesh::{Mesh, NETWORK},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The coordinator's data directory.
const DATA: &str = "/var/lib/gatewrt";

/// The requests name a network that has a node, a client and a group, and then names that do not exist. Afterwards the
/// coordinator still answers, and the router is unchanged.
#[test]
fn documented_and_wrong_requests_never_fail_the_coordinator() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &["office"])?;
    mesh.admin(&["ingress", "set", NETWORK, "office"])?;
    mesh.add_client("phone", "office", &[])?;
    mesh.admin(&["group", "set", NETWORK, "phones", "client:phone"])?;
    let scratch = Scratch::new()?;
    let (ca, token) = (scratch.copy(&mesh, "ca.crt")?, scratch.copy(&mesh, "admin.token")?);

    let host = mesh.host("coordinator")?;
    let url = format!("https://{}:8443", host.ip4()?);
    // Its requests delete nodes too, and the interface with them.
    mesh.forget_interface("office");
    let status = host.in_netns(|| Command::new(fuzz()).arg(&url).args([&ca, &token]).status())?;
    ensure!(status.context("tests/api/fuzz runs")?.success(), "schemathesis found something: see above");

    eventually(Duration::from_secs(10), "the coordinator answers", || mesh.admin(&["status"]))?;
    let log = mesh.coordinator.log();
    ensure!(!log.contains("panicked"), "the coordinator panicked:\n{log}");
    Ok(())
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("api/fuzz")
}

/// Copies of a host's files, deleted on drop: programs that run only in the host's network namespace see the machine's
/// files.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gatewrt-api-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn copy(&self, mesh: &Mesh, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, mesh.host("coordinator")?.read_file(&format!("{DATA}/{name}"))?)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
