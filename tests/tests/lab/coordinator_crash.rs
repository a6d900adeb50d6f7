//! A coordinator that is killed in the middle of changes, again and again.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, UdpStream, eventually},
    mesh::{Mesh, NETWORK},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const ROUTERS: [&str; 3] = ["office", "home", "barn"];
/// Number of changes that are acknowledged before each kill, so that each kill comes at another moment.
const KILLS: [usize; 5] = [3, 7, 1, 5, 9];
/// Longest time until every router has reconnected.
const BACK: Duration = Duration::from_secs(30);

/// Routers reconnect by themselves, end in the state that the coordinator shows, and never get an older revision than
/// they had; traffic is not disturbed.
#[test]
fn coordinator_killed_during_changes_never_reverts_one() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&from, &to, to.ip4()?.into(), 100)?;
    let mut revisions = Revisions::default();
    for changes in KILLS {
        kill_after(&mesh, changes)?;
        let start = Instant::now();
        mesh.coordinator.restart()?;
        eventually(BACK, "every router is back and has applied all", || check(&mesh, &mut revisions))?;
        println!("{:?} from the restart until all were back", start.elapsed());
    }
    for router in ROUTERS {
        assert_as_shown(&mesh, router)?;
        ensure!(mesh.status(router)?["refused"] == serde_json::json!({}), "{router} was told something old");
        mesh.wait_until_settled(router)?;
    }
    // The last change may have removed a prefix.
    mesh.serve_lans(&["barn"], false)?;
    mesh.wait_for_lans(&["office-pc", "home-pc", "barn-pc"])?;
    stream.finish()?.assert_lossless();
    Ok(())
}

/// Makes changes without a pause, and kills the coordinator during one.
fn kill_after(mesh: &Mesh, acknowledged: usize) -> Result<()> {
    let admin = mesh.host("coordinator")?;
    let prefixes = mesh.lans("barn")?;
    let (done, stop) = (std::sync::atomic::AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            for step in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let made = change(&admin, &prefixes, step).is_ok_and(|output| output.success());
                done.fetch_add(usize::from(made), Ordering::Relaxed);
            }
        });
        let waited = eventually(BACK, &format!("{acknowledged} changes are made"), || {
            done.load(Ordering::Relaxed) >= acknowledged
        });
        let killed = mesh.coordinator.kill(nix::sys::signal::Signal::SIGKILL);
        stop.store(true, Ordering::Relaxed);
        changing.join().map_err(|_| anyhow::anyhow!("the changes panicked"))?;
        waited.and(killed)
    })
}

/// Makes one change, always at the same site, so that the stream between the others is not affected.
fn change(admin: &Host, prefixes: &[String; 2], step: usize) -> Result<gatewrt_tests::lab::Output> {
    let nat = if step.is_multiple_of(2) { "on" } else { "off" };
    let prefix = prefixes[step % 2].as_str();
    let run = |arguments: &[&str]| admin.output(&[&["gatewrt-coordinator", "--no-wait"], arguments].concat());
    match step % 5 {
        0 => run(&["egress", "unset", NETWORK, "barn", prefix]),
        _ => run(&["egress", "set", NETWORK, "barn", prefix, "--nat", nat, "--metric", &step.to_string()]),
    }
}

/// The highest revision seen of each member record, each assignment, the roster and the policy.
#[derive(Default)]
struct Revisions(BTreeMap<String, u64>);

impl Revisions {
    fn see(&mut self, what: String, revision: &Value) -> Result<()> {
        let revision = revision.as_u64().with_context(|| format!("a revision of {what}"))?;
        let highest = self.0.entry(what.clone()).or_default();
        assert!(revision >= *highest, "{what} went back from {highest} to {revision}");
        *highest = revision;
        Ok(())
    }
}

/// Asserts that every node is online and has applied the state that the coordinator shows, and that no revision
/// decreased.
fn check(mesh: &Mesh, revisions: &mut Revisions) -> Result<()> {
    let status = mesh.admin_json(&["status", NETWORK])?;
    let nodes = status["networks"][0]["nodes"].as_array().context("nodes")?;
    ensure!(nodes.len() == ROUTERS.len(), "{} nodes", nodes.len());
    for node in nodes {
        let name = node["name"].as_str().context("a name")?;
        let (current, applied) = (&node["current"], &mesh.status(name)?["applied"]);
        revisions.see(format!("the member record of {name}"), &node["rev"])?;
        for kind in ["policy", "assignment", "roster"] {
            revisions.see(format!("the {kind} of {name}"), &current[kind])?;
            revisions.see(format!("the {kind} applied by {name}"), &applied[kind])?;
        }
        ensure!(node["online"] == true && applied == current, "{name} has applied {applied}: {node:#}");
    }
    Ok(())
}

/// Asserts that the prefixes of a router and of its peers are those that the coordinator shows.
fn assert_as_shown(mesh: &Mesh, router: &str) -> Result<()> {
    let shown = mesh.admin_json(&["egress", "list", NETWORK])?;
    let shown = shown.as_array().context("a list")?;
    let of = |node: &str| -> BTreeSet<String> {
        shown
            .iter()
            .filter(|egress| egress["node"] == node)
            .map(|egress| egress["prefix"].to_string())
            .collect()
    };
    let status = mesh.status(router)?;
    for peer in status["peers"].as_array().context("peers")? {
        let prefixes: BTreeSet<String> =
            peer["prefixes"].as_array().context("prefixes")?.iter().map(Value::to_string).collect();
        let name = peer["name"].as_str().context("a name")?;
        ensure!(prefixes == of(name), "{router} thinks that {name} serves {prefixes:?}, not {:?}", of(name));
    }
    let egress: BTreeSet<(String, bool)> = nat_of(status["egress"].as_array().context("egress")?.iter());
    let wanted = nat_of(shown.iter().filter(|egress| egress["node"] == router));
    ensure!(egress == wanted, "{router} serves {egress:?}, not {wanted:?}");
    Ok(())
}

fn nat_of<'a>(egress: impl Iterator<Item = &'a Value>) -> BTreeSet<(String, bool)> {
    egress.map(|egress| (egress["prefix"].to_string(), egress["nat"] == true)).collect()
}
