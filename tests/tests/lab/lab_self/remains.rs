//! Cleanup of a lab: nothing remains, however it ends.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::*;

use super::*;

/// Environment variable for the copy of this program that owns a lab and is killed.
const OWNER: &str = "GATEWRT_LAB_OWNER";

#[test]
fn dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Lab::two_sites()?;
    let office = lab.host("office")?;
    office.run(&["wireguard-go", "gw-wg"])?;
    let stream = UdpStream::start(&office, &lab.host("web")?, ip(lab.host("web")?.ip4()?), 10)?;
    let spaces = namespaces(&lab.hosts())?;
    ensure!(spaces.is_subset(&live_namespaces()) && spaces.len() == lab.hosts().len());
    drop((stream, lab));
    ensure!(office.run(&["true"]).is_err(), "a dropped lab still runs commands");
    wait_until_gone(&spaces)
}

#[test]
fn panicking_lab_leaves_nothing() -> Result<()> {
    let spaces = std::sync::Mutex::new(BTreeSet::new());
    let panicked = std::panic::catch_unwind(|| {
        let lab = Lab::two_sites().expect("a lab");
        *spaces.lock().expect("no other user") = namespaces(&lab.hosts()).expect("namespaces");
        panic!("as a failing test does");
    });
    ensure!(panicked.is_err());
    wait_until_gone(&spaces.into_inner()?)
}

#[test]
fn lab_whose_owner_is_killed_leaves_nothing() -> Result<()> {
    if std::env::var_os(OWNER).is_some() {
        let lab = Lab::two_sites()?;
        let office = lab.host("office")?;
        office.run(&["wireguard-go", "gw-wg"])?;
        let _running = office.spawn(&["sleep", "1000"])?;
        println!("{OWNER} {}", Vec::from_iter(namespaces(&lab.hosts())?).join(" "));
        loop {
            std::thread::park();
        }
    }
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "lab_self::remains::lab_whose_owner_is_killed_leaves_nothing", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = std::io::BufReader::new(owner.stdout.take().context("it is piped")?);
    let lines = std::io::BufRead::lines(stdout).map_while(Result::ok);
    let said = lines.filter_map(|line| line.split_once(OWNER).map(|(_, spaces)| spaces.to_owned())).next();
    let spaces: BTreeSet<String> =
        said.context("the owner built no lab")?.split_whitespace().map(str::to_owned).collect();
    ensure!(spaces.len() > 5 && spaces.is_subset(&live_namespaces()));
    owner.kill()?;
    owner.wait()?;
    wait_until_gone(&spaces)
}
