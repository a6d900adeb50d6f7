//! Policy routing of other programs on the same router: the scope works, and so do they, unchanged. A rule that
//! conflicts is reported.

use anyhow::{Result, ensure};
use gatewrt_tests::{
    lab::{Capture, ConflictingProgram, Host, Program, TrafficGenerator},
    mesh::exits::{EFFECT, Exits, HOME},
};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// One LAN is in a scope. The other programs still route the other LAN and the router itself, and the scope's traffic
/// too where its destination is excluded or is a network of theirs.
#[test]
fn conflicting_programs_keep_routing_by_policy() -> Result<()> {
    let mut exits = Exits::start(&["farm"])?;
    exits.mesh.remove_foreign(HOME)?;
    let home = exits.host(HOME)?;
    let (pc, guest, router) =
        (exits.generator("home-pc")?, exits.generator("guest-pc")?, exits.generator(HOME)?);
    let farm = exits.through("farm")?;
    for program in Program::ALL {
        eprintln!("--- {program:?}");
        let other = ConflictingProgram::place(&home, program)?;
        let before = other.look()?;
        let direct = [(&guest, exits.direct("guest-pc")?), (&router, exits.direct(HOME)?)];
        TrafficGenerator::wait_for_all(EFFECT, &[&direct[..], &[(&pc, exits.direct("home-pc")?)]].concat())?;
        for from in ["guest-pc", HOME, "home-pc"] {
            ensure!(goes_their_way(&home, program, &exits.host(from)?)?, "{from}: never {program:?}'s way");
        }
        for excluded in [false, true] {
            let exclude = if excluded { json!(program.prefixes()) } else { json!([]) };
            exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"], "exclude": exclude }))?;
            TrafficGenerator::wait_for_all(EFFECT, &[&direct[..], &[(&pc, farm)]].concat())?;
            exits.mesh.wait_until_settled(HOME)?;
            for from in ["guest-pc", HOME] {
                ensure!(goes_their_way(&home, program, &exits.host(from)?)?, "{from}: not {program:?}'s way");
            }
            // A network that a program routes for all traffic stays reachable, as a LAN does; a route for marked
            // packets alone does not apply.
            let wanted = excluded || program == Program::Tailscale;
            let scoped = goes_their_way(&home, program, &exits.host("home-pc")?)?;
            ensure!(scoped == wanted, "{program:?}: home-pc goes its way: {scoped}, excluded: {excluded}");
        }
        ensure!(other.look()? == before, "was:\n{before}\nis:\n{}", other.look()?);
        let said = exits.mesh.status(HOME)?["failures"].to_string();
        ensure!(said == "[]" || said == "null", "nothing is wrong: {said}");
        exits.unset_scope("lan")?;
        TrafficGenerator::wait_for_all(EFFECT, &[&direct[..], &[(&pc, exits.direct("home-pc")?)]].concat())?;
        ensure!(other.look()? == before, "was:\n{before}\nis:\n{}", other.look()?);
        other.remove()?;
    }
    Ok(())
}

/// Returns true if packets of a host to the program's own addresses leave by its device, over IPv4 and IPv6.
fn goes_their_way(home: &Host, program: Program, from: &Host) -> Result<bool> {
    let [v4, v6] = program.destinations();
    let mut ways = Vec::new();
    for destination in [v4, v6] {
        let capture = Capture::start(home, program.device(), &format!("dst host {destination}"))?;
        let answer = from.output(&["ping", "-n", "-c", "1", "-W", "0.1", destination])?;
        ensure!(!answer.success(), "nobody is there");
        ways.push(capture.wait_for(Duration::from_millis(200), 1).is_ok());
    }
    ensure!(ways[0] == ways[1], "IPv4: {}, IPv6: {}", ways[0], ways[1]);
    Ok(ways[0])
}

/// Each conflicting rule is named: one that matches our marks, one that leads into a table of ours, one at a priority
/// of ours.
#[test]
fn program_that_uses_our_numbers_is_named() -> Result<()> {
    let exits = Exits::start(&["farm"])?;
    let home = exits.host(HOME)?;
    exits.set_scope("lan", &json!({ "of": ["dev:lan"], "exits": ["farm"] }))?;
    exits.wait_for_scope("lan", "exit")?;
    for (rule, word) in [
        ("pref 20100 fwmark 0x1000000/0xf000000 lookup 4711", "20100"),
        ("pref 20200 from 203.0.113.0/24 lookup 26500", "20200"),
    ] {
        home.run(&[&["ip", "rule", "add"][..], &rule.split(' ').collect::<Vec<_>>()].concat())?;
        gatewrt_tests::lab::eventually(SOON, &format!("{rule} is named"), || -> Result<()> {
            let said = exits.mesh.gatewrt(HOME, &["status"])?.stdout;
            ensure!(said.contains(word), "{said}");
            Ok(())
        })?;
        home.run(&["ip", "rule", "del", "pref", word])?;
    }
    Ok(())
}
