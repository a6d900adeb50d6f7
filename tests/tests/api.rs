//! The HTTP API as its OpenAPI document has it, tried by schemathesis: thousands of requests, right and wrong ones, and
//! no answer may be a server error or another than documented.

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

/// Where the coordinator keeps what it makes.
const DATA: &str = "/var/lib/gatewrt";

/// Where a network with a node, a client and a group is, and where nothing is known by the names that are asked for.
/// Afterwards the coordinator answers, and the router is where it was.
#[test]
fn no_request_makes_the_coordinator_fail() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &["office"])?;
    mesh.admin(&["ingress", "set", NETWORK, "office"])?;
    mesh.add_client("phone", "office", &[])?;
    mesh.admin(&["group", "set", NETWORK, "phones", "client:phone"])?;
    let scratch = Scratch::new()?;
    let (ca, token) = (scratch.copy(&mesh, "ca.crt")?, scratch.copy(&mesh, "admin.token")?);

    let host = mesh.host("coordinator")?;
    let url = format!("https://{}:8443", host.ip4()?);
    // What it asks away goes with its nodes.
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

/// Copies of a host's files, gone with it: programs that run on the host's network alone see the machine's files.
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
