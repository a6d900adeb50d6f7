//! Join codes that are refused, and joins whose answer was lost.

use crate::common::file_of;
use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, assert_same, eventually},
    mesh::{INTERFACE, Mesh, NETWORK},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Each bad code is refused with a sentence that says what is wrong, and leaves nothing behind; a good code works
/// afterwards.
#[test]
fn bad_code_is_refused_and_leaves_nothing() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &[])?;
    for router in ["office", "home"] {
        mesh.start_daemon(router)?;
        mesh.wait_until_settled(router)?;
    }
    let home = mesh.host("home")?;
    let before = (home.dump()?, files(&home)?);

    let used = mesh.code(1)?;
    mesh.gatewrt("office", &["join", &used])?;
    let expired = mesh.admin_json(&["code", "create", NETWORK, "--expires", "1s"])?;
    let revoked = mesh.admin_json(&["code", "create", NETWORK])?;
    mesh.admin(&["code", "revoke", NETWORK, text(&revoked, "id")?])?;
    mesh.admin(&["network", "create", "gone"])?;
    let gone = mesh.admin_json(&["code", "create", "gone"])?;
    mesh.admin(&["network", "delete", "gone"])?;
    eventually(SOON, "the code expires", || {
        let state = state_of(&mesh, text(&expired, "id")?)?;
        ensure!(state == "expired", "{state}");
        Ok::<_, anyhow::Error>(())
    })?;
    let good = mesh.code(1)?;
    let (cut, mut changed) = (&good[..good.len() - 5], good.clone());
    changed.replace_range(60..61, if good[60..].starts_with('A') { "B" } else { "A" });

    for (code, says) in [
        (used.as_str(), "was used up (1 of 1 uses)"),
        (text(&expired, "code")?, "has expired"),
        (text(&revoked, "code")?, "was revoked"),
        (text(&gone, "code")?, "is unknown here"),
        (cut, "damaged: copy it again"),
        (&changed, "damaged: copy it again"),
        ("hello", "not a join code"),
    ] {
        let refused = home.output(&["gatewrt", "join", code])?;
        println!("{}", refused.stderr.trim());
        ensure!(refused.code() == 1 && refused.stderr.contains(says), "{says}: {refused:?}");
        ensure!(files(&home)? == before.1, "{says}: left on disk: {:#?}", files(&home)?);
        assert_same(&before.0, &home.dump()?);
        ensure!(mesh.gatewrt_json("home", &["status"])?["networks"] == serde_json::json!([]), "{says}");
    }
    ensure!(nodes(&mesh)?.len() == 1, "only the office is in the network");
    mesh.gatewrt("home", &["join", &good])?;
    mesh.wait_for_peers(&["office", "home"])
}

/// The coordinator creates the node, its answer is lost, then coordinator and daemon are killed: the same code yields
/// the same node, and no second one.
#[test]
fn join_whose_answer_was_lost_retries_as_the_same_node() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &[])?;
    mesh.start_daemon("home")?;
    mesh.wait_until_settled("home")?;
    let (home, coordinator) = (mesh.host("home")?, mesh.host("coordinator")?);
    let before = home.dump()?;
    let code = mesh.code(1)?;
    coordinator.nft(&cut_after(HANDSHAKE, &home)?)?;
    let failed = home.output(&["gatewrt", "join", &code])?;
    println!("{}", failed.stderr.trim());
    ensure!(failed.code() == 1 && failed.stderr.contains("answers too slowly or not at all"), "{failed:?}");
    let [made] = &nodes(&mesh)?[..] else { anyhow::bail!("the request came, the answer did not: one node") };
    assert_same(&before, &home.dump()?);

    mesh.coordinator.restart()?;
    mesh.daemon("home")?.kill(Signal::SIGKILL)?;
    mesh.daemon("home")?.wait(SOON)?;
    mesh.start_daemon("home")?;
    coordinator.run(&["nft", "delete", "table", "inet", "cut"])?;
    eventually(SOON, "the coordinator answers again", || nodes(&mesh))?;
    mesh.gatewrt("home", &["join", &code])?;
    let [joined] = &nodes(&mesh)?[..] else { anyhow::bail!("not one node: {:#?}", nodes(&mesh)?) };
    ensure!(made["id"] == joined["id"] && made["addresses"] == joined["addresses"], "{made:#}\n{joined:#}");
    eventually(SOON, "its key is the one that was sent first", || {
        let key = home.run(&["wg", "show", INTERFACE, "public-key"])?.stdout;
        ensure!(made["key"] == key.trim(), "{key}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(files(&home)?.iter().all(|file| !file.contains(".join")), "{:#?}", files(&home)?);
    ensure!(home.exists(&file_of("identity.json"))?);

    mesh.start_daemon("office")?;
    let refused = mesh.host("office")?.output(&["gatewrt", "join", &code])?;
    ensure!(refused.code() == 1 && refused.stderr.contains("used up"), "{refused:?}");
    Ok(())
}

/// Most bytes that the coordinator sends for a TLS handshake: more than this contain the answer.
const HANDSHAKE: u32 = 2500;

/// An nftables table that lets so many bytes through from the coordinator's API to a router, and no more.
fn cut_after(bytes: u32, to: &Host) -> Result<String> {
    let to = to.ip4()?;
    Ok(format!(
        "table inet cut {{
            chain out {{
                type filter hook output priority 0
                ip daddr {to} tcp sport 8443 quota over {bytes} bytes counter drop
            }}
        }}"
    ))
}

fn nodes(mesh: &Mesh) -> Result<Vec<Value>> {
    mesh.admin_json(&["node", "list", NETWORK])?.as_array().cloned().context("a list")
}

fn state_of(mesh: &Mesh, id: &str) -> Result<String> {
    let codes = mesh.admin_json(&["code", "list", NETWORK])?;
    let code =
        codes.as_array().context("a list")?.iter().find(|code| code["id"] == id).context("the code")?;
    Ok(text(code, "state")?.to_owned())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("a {key} in {value}"))
}

/// Files of ours on a router's disk.
fn files(router: &Host) -> Result<Vec<String>> {
    let found = router.run(&["find", "/etc/gatewrt", "/etc/config"])?.stdout;
    let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
    files.sort();
    Ok(files)
}
