//! The firewall table's text for named configurations, as a person reads it in `tests/golden/`. To accept a
//! change: `UPDATE_GOLDEN=1 cargo test -p gatewrt --test golden`, and read the difference.
#![allow(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use gatewrt::{
    model::IfName,
    ownership::Numbers,
    plan::{Firewall, Guard},
    sorted::SortedMap,
};
use nix::sched::{CloneFlags, unshare};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
};

const OFF: bool = false;
const ON: bool = true;

fn guard(egress: &[(&str, bool)]) -> Guard {
    Guard {
        egress: egress.iter().map(|(prefix, nat)| (prefix.parse().unwrap(), *nat)).collect(),
        ..Guard::default()
    }
}

fn firewall(tunnels: &[(&str, Guard)]) -> Firewall {
    let tunnels = tunnels.iter().map(|(link, guard)| (IfName::new(link).unwrap(), guard.clone())).collect();
    Firewall { tunnels, ..Firewall::default() }
}

fn configurations() -> SortedMap<&'static str, Firewall> {
    let site = &[("192.168.20.0/24", OFF), ("fd20::/64", OFF)];
    let masqueraded = &[("192.168.20.0/24", ON), ("fd20::/64", ON)];
    let marks = Numbers { mask: 0xf0, bypass: 0x10, masquerade: 0x20, ..Numbers::default() };
    let exceptions =
        &[("10.0.0.0/8", ON), ("10.128.0.0/16", OFF), ("10.128.7.0/24", ON), ("10.9.9.0/24", ON)];
    SortedMap::from([
        ("nothing-served", firewall(&[("gw-home", Guard::default())])),
        ("site-to-site", firewall(&[("gw-home", guard(site))])),
        ("masquerade", firewall(&[("gw-home", guard(masqueraded))])),
        (
            "two-networks",
            firewall(&[
                ("gw-home", guard(&[("192.168.20.0/24", ON), ("192.168.21.0/24", OFF)])),
                ("gw-office-2", guard(&[("172.16.0.0/12", OFF), ("fd20::/64", ON)])),
            ]),
        ),
        ("prefixes-within-prefixes", firewall(&[("gw-home", guard(exceptions))])),
        (
            "everything-and-other-marks",
            Firewall {
                numbers: marks,
                ..firewall(&[("gw-home", guard(&[("0.0.0.0/0", ON), ("::/0", ON)]))])
            },
        ),
    ])
}

#[test]
fn the_text_is_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (name, firewall) in configurations() {
        let path = folder.join(name).with_extension("nft");
        let text = firewall.ruleset().0;
        if update {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == text, "{name}.nft would change:\n{}", difference(&golden, &text));
    }
    let files = fs::read_dir(folder).unwrap().count();
    assert_eq!(files, configurations().len(), "a file without a configuration");
}

/// Lines that went and came, at their places.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}\n"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(come).collect()
}

/// In a namespace of its own, also when our table is there already.
#[test]
fn nft_takes_it() {
    let check = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        for (name, firewall) in configurations() {
            let text = firewall.ruleset().0;
            nft(&["-c", "-f", "-"], &text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            nft(&["-f", "-"], &text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        }
    };
    thread::spawn(check).join().unwrap();
}

fn nft(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("needs the package nftables");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
