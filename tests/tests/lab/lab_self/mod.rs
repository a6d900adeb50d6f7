//! Tests of the lab itself, with real packets: the properties that the other tests rely on, and the faults that its
//! checkers have to catch.

mod exits;
mod hosts;
mod internet;
mod phones;
mod program;
mod remains;
mod state;
mod traffic;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use gatewrt_tests::lab::*;

const SOON: Duration = Duration::from_secs(5);

fn build(topology: &str) -> Result<Lab> {
    Lab::new(&Topology::parse(topology)?)
}

fn ip(address: impl Into<IpAddr>) -> IpAddr {
    address.into()
}

/// The network namespaces that processes, or threads of this one, are in.
fn live_namespaces() -> BTreeSet<String> {
    let namespace = |entry: std::io::Result<std::fs::DirEntry>| {
        let link = std::fs::read_link(entry.ok()?.path().join("ns/net")).ok()?;
        Some(link.display().to_string())
    };
    let entries =
        ["/proc", "/proc/self/task"].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    entries.filter_map(namespace).collect()
}

fn namespaces(hosts: &[Host]) -> Result<BTreeSet<String>> {
    let namespace = |host: &Host| Ok(host.run(&["readlink", "/proc/self/ns/net"])?.stdout.trim().to_owned());
    hosts.iter().map(namespace).collect()
}

fn wait_until_gone(spaces: &BTreeSet<String>) -> Result<()> {
    eventually(SOON, "all namespaces are gone", || spaces.is_disjoint(&live_namespaces()))
}
