//! The lab's own cases of egress, ingress and exit on the kernel's WireGuard, which the machine that runs the tests may
//! lack: the same tests, in a machine of the same files with another kernel, with GateWRT from the package for OpenWrt. And
//! what a router carries, against the same by hand.

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

/// The programs of the lab's tests that run there, and with what their cases begin: nothing, and all do.
const TESTS: [(&str, &str); 7] = [
    ("leaks", "nothing_leaves_by_another_way"),
    ("failover", "an_exit_that_dies"),
    ("late_answers", ""),
    ("exits", ""),
    ("clients", ""),
    ("sites", ""),
    ("handshakes", ""),
];
/// A machine has one processor, and two of them are as many as a small machine can run.
const MACHINES: usize = 2;
/// One case.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Where programs are in a machine.
const BIN: &str = "/run/programs";

/// What is to be run: a name, and a command.
type Queue = Mutex<VecDeque<(String, String)>>;

#[test]
fn the_labs_cases_pass_on_the_kernels_wireguard_and_it_carries_what_is_carried_by_hand() -> Result<()> {
    let programs = programs()?;
    let throughput = [("throughput".to_owned(), format!("{BIN}/throughput"))];
    let (throughput, cases) = (Mutex::new(throughput.into()), Mutex::new(cases(&programs)?));
    std::thread::scope(|scope| {
        let (programs, throughput, cases) = (&programs, &throughput, &cases);
        // The first measures in a machine of its own before it helps.
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
    let mut cases = VecDeque::new();
    for (program, begin) in TESTS {
        let path = programs.get(program).with_context(|| format!("no program {program}"))?;
        let file = path.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
        let listed = Command::new(path).args(["--list", "--format", "terse"]).output()?;
        ensure!(listed.status.success(), "{program}: {}", listed.status);
        let listed = String::from_utf8(listed.stdout)?;
        let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let names = names.filter(|name| name.starts_with(begin));
        let command = |case: &str| format!("{BIN}/{file} --exact {case} --nocapture");
        let before = cases.len();
        cases.extend(names.map(|case| (format!("{program}::{case}"), command(case))));
        ensure!(cases.len() > before, "{program} has no cases");
    }
    Ok(cases)
}

/// Runs in one machine what no other took, one after the other.
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

/// Runs one case and says what failed of it; an error is the machine's end. It has no other WireGuard there than the
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
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked", "--quiet", "--no-run", "--message-format=json", "--workspace"]);
    command.args(TESTS.iter().flat_map(|(name, _)| ["--test", name]));
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
