//! A hostile broker: someone has the coordinator's address, certificate and key, and lets everyone publish everything.
//! It can withhold records, and no more: a message that is not signed, not new or not meant for this node changes
//! nothing, and a connection that it breaks or stalls costs the routers nothing.

mod broker;
mod flood;
mod forged;
mod links;
mod withheld;

use crate::common::records_of;
use anyhow::{Result, ensure};
use gatewrt_tests::{
    lab::eventually,
    mesh::{Mesh, NETWORK},
};
use std::{collections::BTreeMap, time::Duration};

/// Signed records by topic.
type Records = BTreeMap<String, String>;

/// The routers of these labs, which see the same network records.
const ROUTERS: [&str; 2] = ["office", "home"];

/// The records of a router. The router is stopped first, so that all are on its disk, and started again.
fn records(mesh: &mut Mesh, router: &str) -> Result<Records> {
    mesh.daemon(router)?.stop()?;
    mesh.start_daemon(router)?;
    let records = records_of(&mesh.host(router)?)?;
    ensure!(records.len() >= 5, "policy, roster, assignment, two members: {records:#?}");
    Ok(records)
}

/// Waits until a router has applied the state that the coordinator shows.
fn wait_until_current(mesh: &Mesh, router: &str) -> Result<()> {
    eventually(Duration::from_secs(10), &format!("{router} has applied all"), || {
        let node = mesh.admin_json(&["node", "show", NETWORK, router])?;
        let applied = &mesh.status(router)?["applied"];
        ensure!(node["current"] == *applied, "{applied}: {node:#}");
        Ok::<_, anyhow::Error>(())
    })
}
