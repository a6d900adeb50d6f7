//! A broker that sends without end.

use super::broker::Hostile;
use anyhow::{Context, Result, ensure};
use gatewrt_protocol::{NodeId, Topic};
use gatewrt_tests::{
    lab::{UdpStream, eventually},
    mesh::Mesh,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Number of messages of about a kilobyte, of the longest permitted, and of those that are far too long.
const SHORT: usize = 20_000;
const LONG: usize = 1_000;
const TOO_LONG: usize = 100;
/// Most memory that a flood may leave in use, in KiB: pages that the allocator keeps.
const GROWTH: u64 = 512;
const DRAINED: Duration = Duration::from_secs(100);

/// The broker sends thousands of messages that must be refused: the daemon keeps none of them, and the tunnel loses no
/// packet.
#[test]
fn flood_of_junk_costs_neither_memory_nor_packets() -> Result<()> {
    let mesh = Mesh::two_sites()?;
    let mut hostile = Hostile::take_over(&mesh)?;
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&from, &to, to.ip4()?.into(), 100)?;
    // Buffers that any message needs are allocated before memory is measured.
    flood(&mesh, &mut hostile, 500, 100, 10)?;
    let before = resident(&mesh)?;
    let start = Instant::now();
    flood(&mesh, &mut hostile, SHORT, LONG, TOO_LONG)?;
    let after = resident(&mesh)?;
    println!(
        "{} messages in {:?}: {before} KiB before, {after} KiB after",
        SHORT + LONG + TOO_LONG,
        start.elapsed()
    );
    ensure!(after <= before + GROWTH, "{before} KiB grew to {after} KiB");
    let lines = mesh.daemon("office")?.log().matches("refused a message").count();
    ensure!(lines < 100, "{lines} lines of log");
    stream.finish()?.assert_lossless();
    Ok(())
}

/// Sends the messages, and waits until the office has refused each of them.
fn flood(mesh: &Mesh, hostile: &mut Hostile, short: usize, long: usize, too_long: usize) -> Result<()> {
    let wanted = refused(mesh)? + (short + long + too_long) as u64;
    let net = hostile.node("office").net;
    for at in 0..short {
        let mut id = [0; 10];
        id[..8].copy_from_slice(&at.to_be_bytes());
        let topic = Topic::Member(net, NodeId::from_entropy(id)).to_string();
        hostile.attacker.throw(&topic, junk(1_000 + at % 100))?;
    }
    for (count, length) in [(long, 16_000), (too_long, 300_000)] {
        for _ in 0..count {
            hostile.attacker.throw(&Topic::Roster(net).to_string(), junk(length))?;
        }
    }
    eventually(DRAINED, &format!("{} messages are refused", short + long + too_long), || {
        let refused = refused(mesh)?;
        ensure!(refused == wanted, "{refused} of {wanted}");
        Ok::<_, anyhow::Error>(())
    })
}

/// Text that looks like a record until its signature is checked.
fn junk(length: usize) -> String {
    const HEAD: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFhYWFhYWFhYWEiLCJ0eXAiOiJnYXRld3J0LW1lbWJlciJ9.";
    const SIGNATURE: usize = 86;
    let payload = "A".repeat(length - HEAD.len() - SIGNATURE - 1);
    format!("{HEAD}{payload}.{}", "A".repeat(SIGNATURE))
}

fn refused(mesh: &Mesh) -> Result<u64> {
    let status = mesh.status("office")?;
    Ok(status["refused"].as_object().context("counts")?.values().filter_map(Value::as_u64).sum())
}

fn resident(mesh: &Mesh) -> Result<u64> {
    mesh.daemon("office")?.own_kib()
}
