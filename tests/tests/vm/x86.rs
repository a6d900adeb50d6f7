//! The lab's own cases of egress, ingress and exit on the kernel's WireGuard, which the host of the tests may lack: the
//! same tests, in a virtual machine with the same files and another kernel, with GateWRT from the package for OpenWrt.
//! The throughput of a router is compared with a tunnel set up by hand.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gatewrt_tests::{
    lab::program_directory,
    vm::{Copying, Twin},
};
use serde_json::Value;

/// The lab's cases that run in the machines, by the beginning of their paths.
const CASES: [&str; 8] = [
    "closed::",
    "leaks::closed_scope_leaks_nothing",
    "failover::dead_exit",
    "late_answers::",
    "exits::",
    "clients::",
    "sites::",
    "handshakes::",
];
/// Number of virtual machines, of one processor each: two are as many as a small host can run.
const MACHINES: usize = 2;
/// Time limit of one case.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Directory of the programs in a virtual machine.
const BIN: &str = "/run/programs";
/// The program of the lab's tests, among [`programs`].
const LAB_TESTS: &str = "lab's tests";

/// Cases to run: a name and a command each.
type Queue = Mutex<VecDeque<(String, String)>>;

#[test]
#[ignore = "needs packages: make vm"]
fn kernel_wireguard_passes_the_labs_cases_at_the_throughput_of_by_hand() -> Result<()> {
    let programs = programs()?;
    let throughput = [("throughput".to_owned(), format!("{BIN}/throughput"))];
    let (throughput, cases) = (Mutex::new(throughput.into()), Mutex::new(cases(&programs)?));
    std::thread::scope(|scope| {
        let (programs, throughput, cases) = (&programs, &throughput, &cases);
        // The first worker measures throughput in a machine of its own, and then takes cases too.
        let work = |number: usize| {
            move || {
                let measured = (number == 1).then(|| run_all(number, Copying::Bytes, throughput, programs));
                let ends = measured.into_iter().chain([run_all(number, Copying::Words, cases, programs)]);
                ends.filter_map(Result::err).map(|error| format!("machine {number}: {error:#}")).collect()
            }
        };
        let threads: Vec<_> = (1..=MACHINES).map(|number| scope.spawn(work(number))).collect();
        let ends = threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        let failures: Vec<String> = ends.flat_map(|failures: Vec<_>| failures).collect();
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    })
}

fn cases(programs: &BTreeMap<String, PathBuf>) -> Result<VecDeque<(String, String)>> {
    let path = programs.get(LAB_TESTS).context("no program of the lab's tests")?;
    let file = path.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
    let listed = Command::new(path).args(["--list", "--format", "terse"]).output()?;
    ensure!(listed.status.success(), "{}: {}", path.display(), listed.status);
    let listed = String::from_utf8(listed.stdout)?;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let mut cases = VecDeque::new();
    for begin in CASES {
        let before = cases.len();
        let chosen = names.iter().filter(|name| name.starts_with(begin));
        cases.extend(chosen.map(|case| {
            ((*case).to_owned(), format!("{BIN}/{file} --exact {case} --include-ignored --nocapture"))
        }));
        ensure!(cases.len() > before, "no case begins with {begin}");
    }
    Ok(cases)
}

/// Runs cases from the queue in one machine, one after the other.
fn run_all(
    number: usize,
    copying: Copying,
    queue: &Queue,
    programs: &BTreeMap<String, PathBuf>,
) -> Result<()> {
    let start = Instant::now();
    let twin = Twin::boot(&format!("twin-{number}"), copying)?;
    eprintln!("machine {number}: booted after {:.1} s", start.elapsed().as_secs_f64());
    let files: Vec<&Path> = programs.values().map(PathBuf::as_path).collect();
    twin.copy(BIN, &files)?;
    install(&twin)?;
    let mut failures = Vec::new();
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((name, command)) = next() {
        failures.extend(run(&twin, number, &name, &command)?);
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    let complaints = twin.complaints()?;
    ensure!(complaints.is_empty(), "the kernel complains\n{complaints}");
    Ok(())
}

/// Runs one case, and returns its failure; an error means that the machine has ended. The only WireGuard there is the
/// kernel's.
fn run(twin: &Twin, number: usize, name: &str, command: &str) -> Result<Option<String>> {
    let (start, cost) = (Instant::now(), twin.cost()?);
    let script = format!(
        "cd {}; export GATEWRT_BIN_DIR={BIN}
        read -r up rest </proc/uptime; echo \"began $up\"; {command}; end=$?
        read -r up rest </proc/uptime; echo \"ended $up\"; exit $end",
        env!("CARGO_MANIFEST_DIR")
    );
    let output = twin.output(LIMIT, &script).with_context(|| name.to_owned())?;
    let (took, cost, said) = (start.elapsed(), twin.cost()? - cost, &output.stdout);
    let counted = |word: &str| said.lines().find_map(|line| line.strip_prefix(word)?.parse::<f64>().ok());
    let inside = counted("ended ").zip(counted("began ")).map_or(0.0, |(end, begin)| end - begin);
    eprintln!(
        "machine {number}: {:>6.1} s, {:>6.1} s of a processor, {inside:>6.1} s in there: {name}{}",
        took.as_secs_f64(),
        cost.as_secs_f64(),
        if output.success() { "" } else { ": FAILED" }
    );
    let report = said.lines().filter(|line| line.starts_with("throughput"));
    report.for_each(|line| eprintln!("{line}"));
    Ok((!output.success()).then(|| format!("{name}: {}\n{}{said}", output.status, output.stderr)))
}

/// Installs GateWRT from the package for routers.
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

/// Programs for the machine, by name. The same cargo builds them, so that they are current.
fn programs() -> Result<BTreeMap<String, PathBuf>> {
    let mut all = BTreeMap::from([
        ("throughput".to_owned(), env!("CARGO_BIN_EXE_throughput").into()),
        ("lab".to_owned(), env!("CARGO_BIN_EXE_lab").into()),
        ("coordinator".to_owned(), program_directory()?.join("gatewrt-coordinator")),
    ]);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "--quiet", "--no-run", "--message-format=json", "--workspace"]);
    command.args(["--test", "lab"]);
    // What cargo tells this test of itself: build scripts that ask for it would run anew, and all that is built on them.
    let is_ours = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.starts_with(begin));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_ours)) {
        command.env_remove(name);
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line).context("a message of cargo's")?;
        if message["target"]["name"] == "lab"
            && let Some(path) = message["executable"].as_str()
            && message["profile"]["test"] == true
        {
            all.insert(LAB_TESTS.to_owned(), path.into());
        }
    }
    Ok(all)
}
