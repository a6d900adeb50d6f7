//! A broker that is not the coordinator's: someone has its address, its certificate and its key, and lets
//! everyone write everything. It can withhold, and that is all: what it sends that is not signed, not new or not
//! meant for this node changes nothing, and what it does to the connection costs the routers nothing.

mod broker;
#[path = "../common/mod.rs"]
mod common;
mod flood;
mod forged;
mod links;
mod withheld;

use anyhow::{Result, ensure};
use common::records_of;
use gatewrt_tests::{
    lab::eventually,
    mesh::{Mesh, NETWORK},
};
use std::{collections::BTreeMap, time::Duration};

/// Signed records by topic.
type Records = BTreeMap<String, String>;

/// The routers of these labs, which see the same network records.
const ROUTERS: [&str; 2] = ["office", "home"];

/// The records of a router, all on its disk: it is stopped and started for that.
fn records(mesh: &mut Mesh, router: &str) -> Result<Records> {
    mesh.daemon(router)?.stop()?;
    mesh.start_daemon(router)?;
    let records = records_of(&mesh.host(router)?)?;
    ensure!(records.len() >= 5, "policy, roster, assignment, two members: {records:#?}");
    Ok(records)
}

/// Waits until a router has applied all that the coordinator shows.
fn wait_until_current(mesh: &Mesh, router: &str) -> Result<()> {
    eventually(Duration::from_secs(10), &format!("{router} has applied all"), || {
        let node = mesh.admin_json(&["node", "show", NETWORK, router])?;
        let applied = &mesh.status(router)?["applied"];
        ensure!(node["current"] == *applied, "{applied}: {node:#}");
        Ok::<_, anyhow::Error>(())
    })
}
