//! A router that joins a network in use: to the others it is one record and one peer, and nothing else.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Lab, Process, UdpStream, eventually},
    mesh::{Mesh, NETWORK},
    wg::{self, Peers},
};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Configuration with a short heartbeat, so that the test also sees reports without news.
const HEARTBEAT: &str = "config gatewrt 'main'\n\toption heartbeat '10'\n";
const OTHERS: [&str; 2] = ["office", "home"];

/// On OpenWrt the service opens WireGuard's port in the firewall, so the daemon notifies it when the port changes.
#[test]
fn service_is_told_of_added_and_removed_ports() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &[])?;
    let office = mesh.host("office")?;
    let service = "#!/bin/sh\necho \"$* $(ls -d /etc/gatewrt/*/)\" >>/run/told\n";
    office.shell("mount -t tmpfs tmpfs /etc/init.d")?;
    office.write_file("/etc/init.d/gatewrt", service)?;
    office.shell("chmod +x /etc/init.d/gatewrt")?;
    mesh.join("office")?;
    let told = |lines: usize, last: &str| {
        eventually(SOON, "the service is told", || {
            let told = office.read_file("/run/told").unwrap_or_default();
            ensure!(told.lines().count() == lines && told.ends_with(last), "{told:?}");
            Ok(())
        })
    };
    told(1, "reload /etc/gatewrt/home/\n")?;
    mesh.forget_interface("office");
    mesh.gatewrt("office", &["leave", NETWORK])?;
    told(2, "reload \n")
}

/// Each other router gets one member record and one roster, and adds one peer to WireGuard once; a stream between them
/// loses no packet.
#[test]
fn third_router_is_one_record_and_one_peer_to_the_others() -> Result<()> {
    let lab = Lab::three_sites()?;
    OTHERS.iter().try_for_each(|router| lab.host(router)?.write_file("/etc/config/gatewrt", HEARTBEAT))?;
    let mut mesh = Mesh::start(lab, &OTHERS)?;
    mesh.serve_lans(&OTHERS, false)?;
    mesh.wait_for_lans(&["office-pc", "home-pc"])?;
    let watch = Watch::start(&mesh)?;
    wait_until_reported(&mesh, 2)?;
    let (a, b) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let streams = [
        UdpStream::start_echo(&a, &b, b.ip4()?.into(), 100)?,
        UdpStream::start_echo(&b, &a, a.ip6()?.into(), 100)?,
    ];
    let before = OTHERS.map(|router| View::of(&mesh, router)).into_iter().collect::<Result<Vec<_>>>()?;
    let watched = watch.of("member").len();

    let barn = mesh.host("barn")?;
    mesh.configure("barn")?;
    let own = barn.read_file("/etc/config/gatewrt")?;
    barn.write_file("/etc/config/gatewrt", own + HEARTBEAT)?;
    mesh.join("barn")?;
    mesh.wait_for_peers(&["office", "home", "barn"])?;
    wait_until_reported(&mesh, 3)?;

    let key = wg::key(&barn)?;
    for (router, before) in OTHERS.iter().zip(&before) {
        let after = View::of(&mesh, router)?;
        assert_eq!(after.delivered("member") - before.delivered("member"), 1, "member records to {router}");
        assert_eq!(after.delivered("roster") - before.delivered("roster"), 1, "rosters to {router}");
        let other = ["policy", "assignment"];
        assert_eq!(other.map(|kind| after.delivered(kind)), other.map(|kind| before.delivered(kind)));
        assert_eq!(after.steps.len() - before.steps.len(), 1, "{router}: {:#?}", after.steps);
        let step = after.steps.last().context("a step")?;
        assert!(step.contains("1 step: gw-home: add peer") && step.matches("peer").count() == 1, "{step}");
        assert_same_peers(router, before, &after, &key);
    }
    let members = watch.of("member");
    assert_eq!(members.len() - watched, 1, "one member record was published: {members:#?}");
    assert_eq!(members.last().map(|event| &event["node"]), Some(&"barn".into()));
    for stream in streams {
        stream.finish()?.assert_lossless();
    }
    Ok(())
}

/// Waits until the coordinator has a report of each node that says that all is applied and is not its first: so a
/// report without news has come, too, and has changed nothing.
fn wait_until_reported(mesh: &Mesh, nodes: usize) -> Result<()> {
    eventually(4 * SOON, &format!("{nodes} nodes have reported that they are up to date"), || {
        let list = mesh.admin_json(&["node", "list", NETWORK])?;
        let list = list.as_array().context("a list of nodes")?;
        let again = |node: &&Value| node["report"]["seq"].as_u64() > Some(1) && node["up_to_date"] == true;
        let done = list.iter().filter(again).count();
        ensure!(list.len() == nodes && done == nodes, "{done} of {} nodes", list.len());
        Ok(())
    })
}

/// Asserts that the earlier peers are unchanged, with counters that went on, and that the one with `key` is new.
fn assert_same_peers(router: &str, before: &View, after: &View, key: &str) {
    let keys: Vec<_> = after.peers.keys().filter(|peer| !before.peers.contains_key(*peer)).collect();
    assert_eq!(keys, [key], "new peers of {router}");
    for (peer, was) in &before.peers {
        let is = &after.peers[peer];
        assert_eq!(
            (&is.endpoint, &is.handshake),
            (&was.endpoint, &was.handshake),
            "{router}: a peer changed"
        );
        assert!(is.rx > was.rx && is.tx > was.tx, "{router}: counters start anew or stand still");
    }
}

/// Visible state of one router.
struct View {
    delivered: Value,
    steps: Vec<String>,
    peers: Peers,
}

impl View {
    fn of(mesh: &Mesh, router: &str) -> Result<Self> {
        let delivered = mesh.admin_json(&["node", "show", NETWORK, router])?["delivered"].clone();
        let log = mesh.daemon(router)?.log();
        let steps = log.lines().filter(|line| line.contains(" step")).map(str::to_owned).collect();
        Ok(Self { delivered, steps, peers: wg::peers(&mesh.host(router)?)? })
    }

    fn delivered(&self, kind: &str) -> u64 {
        self.delivered[kind]["messages"].as_u64().unwrap_or_default()
    }
}

/// A running `gatewrt-coordinator watch`.
struct Watch(Process);

impl Watch {
    fn start(mesh: &Mesh) -> Result<Self> {
        let watch = mesh.host("coordinator")?.spawn(&["gatewrt-coordinator", "--json", "watch", NETWORK])?;
        watch.wait_for_log(SOON, "watching")?;
        Ok(Self(watch))
    }

    fn of(&self, what: &str) -> Vec<Value> {
        let events = self.0.log();
        let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["what"] == what).collect()
    }
}
