//! The program `lab`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::*;

use super::*;

/// Runs the program `lab`.
fn lab(args: &[&str]) -> Result<std::process::Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_lab")).args(args).stdin(Stdio::null()).output()?)
}

/// Ends a lab of the program, also when the test fails.
struct Down<'a>(&'a str);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = lab(&["down", self.0]);
    }
}

#[test]
fn lab_program_keeps_a_lab_up_until_told() -> Result<()> {
    let name = format!("self-test-{}", std::process::id());
    let run = |args: &[&str]| -> Result<String> {
        let output = lab(&[&["--lab", &name], args].concat())?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "lab {args:?}: {}: {stderr}", output.status);
        Ok(stdout)
    };
    let up = run(&["up", "two-sites"])?;
    let down = Down(&name);
    ensure!(up.contains("office-pc (host)") && up.contains("192.168.10.10/24"), "{up}");
    ensure!(run(&["list"])?.lines().any(|line| line == name));
    ensure!(run(&["hosts"])?.contains("office-pc"));
    assert_eq!(run(&["diagram"])?, up.split("\n\n").next().context("a picture")?.to_owned() + "\n");
    let again = lab(&["up", "two-sites", "--name", &name])?;
    ensure!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is up already"));

    let exit =
        lab(&["--lab", &name, "exec", "office", "sh", "-c", "echo to stdout; echo to stderr >&2; exit 42"])?;
    assert_eq!(exit.status.code(), Some(42));
    assert_eq!((&*exit.stdout, &*exit.stderr), (&b"to stdout\n"[..], &b"to stderr\n"[..]));
    let log = run(&["spawn", "web", "lab", "whoami"])?;
    ensure!(std::path::Path::new(log.trim()).exists(), "no log at {log}");
    let missing = lab(&["--lab", &name, "spawn", "web", "no-such-program"])?;
    ensure!(String::from_utf8_lossy(&missing.stderr).contains("on web: there is no program no-such-program"));
    let fetched = eventually(SOON, "the web server answers", || {
        run(&["exec", "office-pc", "curl", "-sf", "http://web"])
    });
    let office = run(&["exec", "office", "ip", "-br", "-4", "addr", "show", "dev", "wan"])?;
    ensure!(office.contains(fetched?.trim()), "{office}");

    run(&["exec", "office", "touch", "/etc/gatewrt/kept", "/run/lost"])?;
    run(&["reboot", "office"])?;
    assert_eq!(
        run(&["exec", "office", "sh", "-c", "ls /etc/gatewrt /run"])?,
        "/etc/gatewrt:\nkept\n\n/run:\n"
    );
    ensure!(run(&["renumber", "office"])?.contains("office now has 198.18."));
    run(&["exec", "office-pc", "ping", "-c1", "-W1", "web"])?;
    let dump: serde_json::Value = serde_json::from_str(&run(&["dump", "office", "--json"])?)?;
    ensure!(dump["routes4"].is_array());
    ensure!(run(&["dump", "office"])?.contains("# ip rule"));

    let spaces: BTreeSet<String> = ["core", "office", "office-pc"]
        .iter()
        .map(|host| Ok(run(&["exec", host, "readlink", "/proc/self/ns/net"])?.trim().to_owned()))
        .collect::<Result<_>>()?;
    ensure!(spaces.is_subset(&live_namespaces()));
    drop(down);
    ensure!(!run(&["list"])?.contains(&name));
    wait_until_gone(&spaces)
}

#[test]
fn lab_with_an_owner_is_open_to_the_program_and_ends_with_its_owner() -> Result<()> {
    let name = format!("owned-{}", std::process::id());
    let owned = KeptLab::up_with_owner(&name, &Topology::two_sites()?)?;
    let down = Down(&name);
    let seen = lab(&["--lab", &name, "exec", "office", "readlink", "/proc/self/ns/net"])?;
    let spaces = BTreeSet::from([String::from_utf8(seen.stdout)?.trim().to_owned()]);
    ensure!(KeptLab::is_up(&name) && spaces.is_subset(&live_namespaces()), "{spaces:?}");
    drop(owned);
    wait_until_gone(&spaces)?;
    eventually(SOON, "the lab ends with its owner", || !KeptLab::is_up(&name))?;
    drop(down);
    ensure!(!KeptLab::list()?.contains(&name), "its note is left");
    Ok(())
}

#[test]
fn lab_program_with_bad_input_says_what_is_wrong() -> Result<()> {
    for (args, expected) in [
        (&["up", "/nowhere.toml"][..], "read topology /nowhere.toml"),
        (&["down", "no-such-lab"], "the lab no-such-lab is not up"),
        (&["--lab", "no-such-lab", "exec", "pc", "true"], "the lab no-such-lab is not up"),
        (&["up", "three-sites", "--name", "a/b"], "may hold letters"),
    ] {
        let output = lab(args)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains(expected), "lab {args:?}: {said:?}");
    }
    Ok(())
}
