//! The lab's own cases of egress, ingress and exit on the kernel's WireGuard, which the machine that runs the tests may
//! lack: the same tests, in a machine of the same files with another kernel, with GateWRT from the package for OpenWrt. And
//! what a router carries, against the same by hand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gatewrt_tests::{lab::program_directory, vm::Twin};
use serde_json::Value;

/// What runs in each machine, one after the other: a program of tests, and which of them. A machine has one processor, and
/// two of them are as many as a small machine can run.
const MACHINES: [&[(&str, &[&str])]; 2] = [
    &[
        ("sites", &["a_host_reaches_another_sites_host_with_and_without_nat"]),
        (
            "clients",
            &[
                "a_phone_reaches_the_network_with_its_file_alone",
                "a_switch_cuts_a_download_and_a_deleted_key_is_dead",
            ],
        ),
    ],
    &[
        (
            "exits",
            &[
                "each_scope_leaves_through_its_exit_and_nothing_else_does",
                "a_phone_leaves_where_it_is_let_in",
            ],
        ),
        ("throughput", &[]),
    ],
];
/// All that runs in one machine.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Where programs are in a machine.
const BIN: &str = "/run/programs";

#[test]
fn the_labs_cases_pass_on_the_kernels_wireguard_and_it_carries_what_is_carried_by_hand() -> Result<()> {
    let programs = programs()?;
    std::thread::scope(|scope| {
        let run = |number, cases| format_failure(number, run_all(number, cases, &programs));
        let threads: Vec<_> =
            (1..).zip(MACHINES).map(|(n, cases)| scope.spawn(move || run(n, cases))).collect();
        let ends = threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        let failures: Vec<String> = ends.flatten().collect();
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    })
}

fn format_failure(number: usize, end: Result<()>) -> Option<String> {
    end.err().map(|error| format!("machine {number}: {error:#}"))
}

fn run_all(number: usize, all: &[(&str, &[&str])], programs: &BTreeMap<String, PathBuf>) -> Result<()> {
    let start = Instant::now();
    let twin = Twin::boot(&format!("twin-{number}"))?;
    eprintln!("machine {number}: booted after {:.1} s", start.elapsed().as_secs_f64());
    let files: Vec<&Path> = programs.values().map(PathBuf::as_path).collect();
    twin.copy(BIN, &files)?;
    install(&twin)?;
    let mut failures = Vec::new();
    for (program, cases) in all {
        let file = programs.get(*program).and_then(|path| path.file_name()).context("a program")?;
        let file = format!("{BIN}/{}", file.to_str().context("a name in UTF-8")?);
        let each = cases
            .iter()
            .map(|case| (format!("{program}::{case}"), format!("{file} --exact {case} --nocapture")));
        let alone = cases.is_empty().then(|| ((*program).to_owned(), file.clone()));
        let ends = each.chain(alone).map(|(name, command)| run(&twin, number, &name, &command));
        failures.extend(ends.filter_map(Result::err).map(|error| format!("{error:#}")));
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    let complaints = twin.complaints()?;
    ensure!(complaints.is_empty(), "the kernel complains\n{complaints}");
    Ok(())
}

/// Runs one case. It has no other WireGuard there than the kernel's.
fn run(twin: &Twin, number: usize, name: &str, command: &str) -> Result<()> {
    let start = Instant::now();
    let script = format!(
        "cd {}; export GATEWRT_BIN_DIR={BIN}
        read -r up rest </proc/uptime; echo \"began $up\"; {command}; end=$?
        read -r up rest </proc/uptime; echo \"ended $up\"; exit $end",
        env!("CARGO_MANIFEST_DIR")
    );
    let output = twin.output(LIMIT, &script)?;
    let (took, said) = (start.elapsed().as_secs_f64(), &output.stdout);
    let counted = |word: &str| said.lines().find_map(|line| line.strip_prefix(word)?.parse::<f64>().ok());
    let inside = counted("ended ").zip(counted("began ")).map_or(0.0, |(end, begin)| end - begin);
    ensure!(output.success(), "{name}: {}\n{}{said}", output.status, output.stderr);
    eprintln!("machine {number}: {took:>6.1} s, {inside:>6.1} s in there: {name}");
    let report = said.lines().filter(|line| line.starts_with("throughput"));
    report.for_each(|line| eprintln!("{line}"));
    Ok(())
}

/// GateWRT as a router gets it.
fn install(twin: &Twin) -> Result<()> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").canonicalize().unwrap_or_default();
    let script = format!(
        "cd {}; set -e; ls gatewrt_*_x86_64.ipk >&2; mkdir /run/package
        tar -xzOf gatewrt_*_x86_64.ipk ./data.tar.gz | tar -xz -C /run/package
        cp /run/package/usr/sbin/gatewrt {BIN}/gatewrt; {BIN}/gatewrt version",
        dist.display()
    );
    let output = twin.output(Duration::from_secs(60), &script)?;
    if !output.success() {
        bail!("dist/ needs one gatewrt_*_x86_64.ipk: make package\n{}", output.stderr);
    }
    eprintln!("{} {}", output.stderr.trim(), output.stdout.trim());
    Ok(())
}

/// What runs in there, by its name: built by the same cargo as this, so that it is what the sources say.
fn programs() -> Result<BTreeMap<String, PathBuf>> {
    let mut all = BTreeMap::from([
        ("throughput".to_owned(), env!("CARGO_BIN_EXE_throughput").into()),
        ("lab".to_owned(), env!("CARGO_BIN_EXE_lab").into()),
        ("coordinator".to_owned(), program_directory()?.join("gatewrt-coordinator")),
    ]);
    let all_cases = MACHINES.concat();
    let tests = all_cases.iter().filter(|(_, cases)| !cases.is_empty());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "--quiet", "--no-run", "--message-format=json", "--workspace"]);
    command.args(tests.flat_map(|(name, _)| ["--test", name]));
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line).context("a message of cargo's")?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            all.insert(name.to_owned(), path.into());
        }
    }
    Ok(all)
}
