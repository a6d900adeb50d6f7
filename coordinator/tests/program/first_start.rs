//! First start: its files, and errors that prevent a start.

use crate::coordinator::{Coordinator, PROGRAM, run, text};
use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

#[test]
fn keys_and_database_are_private() {
    let coordinator = Coordinator::with_home();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&coordinator.data()), 0o700);
    let files: Vec<_> =
        fs::read_dir(coordinator.data()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    let named = |name: &str| files.iter().any(|file| file.file_name().unwrap() == name);
    for name in
        ["ca.key", "ca.crt", "server.key", "record.key", "admin.token", "gatewrt.db", "gatewrt.db-wal"]
    {
        assert!(named(name), "{name} of {files:?}");
    }
}

#[test]
fn banner_shows_the_next_commands() {
    let coordinator = Coordinator::start();
    for part in [coordinator.url(), coordinator.mqtt(), "network create home --data".into(), "sha256".into()]
    {
        assert!(coordinator.banner.contains(&part), "{part} in {}", coordinator.banner);
    }
}

#[test]
fn restarted_coordinator_keeps_its_keys() {
    let mut coordinator = Coordinator::with_home();
    let before = ["ca.crt", "record.key", "admin.token", "server.crt"]
        .map(|name| text(&coordinator.data().join(name)));
    assert_eq!(coordinator.terminate(), Some(0), "{}", coordinator.log());
    coordinator.start_again();
    let after = ["ca.crt", "record.key", "admin.token", "server.crt"]
        .map(|name| text(&coordinator.data().join(name)));
    assert!(before == after);
    assert_eq!(coordinator.json(&["network", "list"])[0]["name"], "home");
}

#[test]
fn server_certificate_has_the_advertised_names() {
    let mut coordinator = Coordinator::start();
    let before = text(&coordinator.data().join("server.crt"));
    coordinator.terminate();
    let output =
        stopped_soon(coordinator.serve().args(["--advertise", "192.0.2.7", "--advertise", "gw.example"]));
    assert!(output.status.success());
    assert_ne!(text(&coordinator.data().join("server.crt")), before);
    let names = text(&coordinator.data().join("server.names"));
    assert!(names.contains("192.0.2.7\n") && names.contains("gw.example\n"), "{names}");
}

/// Runs it until it is ready, then ends it as Ctrl-C does.
pub fn stopped_soon(command: &mut Command) -> Output {
    use std::io::{BufRead, BufReader};
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    assert!(stdout.lines().map_while(Result::ok).any(|line| line.contains("code create")));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    child.wait_with_output().unwrap()
}

fn says(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn second_coordinator_on_the_same_directory_is_refused() {
    let coordinator = Coordinator::start();
    let said = says(&coordinator.serve().output().unwrap());
    assert!(said.contains("another coordinator runs on") && said.contains("--data"), "{said}");
}

#[test]
fn port_in_use_is_reported_with_advice() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (option, other) in [("--https", "--mqtt"), ("--mqtt", "--https")] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", option, &addr, other, "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
        let said = says(&command.output().unwrap());
        assert!(said.contains(&addr) && said.contains("another program") && said.contains(option), "{said}");
    }
}

#[test]
fn unusable_directory_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let data = dir.path().join("file/data");
    let said = says(&run(
        &["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data"],
        &[data.to_str().unwrap()],
    ));
    assert!(said.contains("can't create") && said.contains("file/data"), "{said}");
}

#[test]
fn lost_key_with_existing_database_is_not_replaced() {
    let mut coordinator = Coordinator::with_home();
    coordinator.terminate();
    for name in ["record.key", "ca.key", "ca.crt"] {
        let kept = text(&coordinator.data().join(name));
        fs::remove_file(coordinator.data().join(name)).unwrap();
        let said = says(&coordinator.serve().output().unwrap());
        assert!(said.contains(name) && said.contains("backup"), "{said}");
        fs::write(coordinator.data().join(name), kept).unwrap();
    }
    coordinator.start_again();
}

#[test]
fn interrupted_first_start_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data"])
        .arg(dir.path().join("data"));
    for round in 0..20 {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // This does not wait for anything: the moment of the kill differs in each round.
        std::thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = stopped_soon(&mut command);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn full_disk_at_first_start_is_reported() {
    let disk = SmallDisk::new();
    let data = disk.path.join("data");
    let args = ["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data"];
    disk.fill();
    let said = says(&run(&args, &[data.to_str().unwrap()]));
    assert!(said.contains("free some space"), "{said}");
    disk.empty();
    let mut first = Command::new(PROGRAM);
    assert!(stopped_soon(first.args(args).arg(&data)).status.success(), "a start after that works");
}

#[test]
fn disk_that_fills_up_refuses_changes_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::at(dir.path().to_owned());
    let mut coordinator = Coordinator::start_in(dir);
    coordinator.ok(&["network", "create", "home"]);
    disk.fill();
    let said = (0..200).find_map(|number| {
        let output = coordinator.command(&["network", "create", &format!("net{number}")]);
        (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
    });
    let said = said.expect("2 MB are full in the end");
    assert!(said.contains("full") && said.contains("free some space"), "{said}");
    let before = coordinator.json(&["network", "list"]);
    disk.empty();
    coordinator.ok(&["network", "create", "after"]);
    coordinator.kill();
    coordinator.start_again();
    let after = coordinator.json(&["network", "list"]);
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|network| network["name"].as_str().unwrap().to_owned()).collect()
    };
    let kept = names(&after).into_iter().filter(|name| name != "after").collect::<Vec<_>>();
    assert_eq!(kept, names(&before));
    assert_eq!(after.as_array().unwrap().len(), kept.len() + 1);
    coordinator.terminate();
}

/// A file system of its own with 2 MB. Needs root, as `make test` has.
pub struct SmallDisk {
    pub path: PathBuf,
    _dir: Option<TempDir>,
}

impl SmallDisk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Self::at(dir.path().to_owned());
        disk._dir = Some(dir);
        disk
    }

    fn at(path: PathBuf) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&path).status();
        assert!(mounted.unwrap().success(), "can't mount a tmpfs: run as root");
        Self { path, _dir: None }
    }

    pub fn fill(&self) {
        let mut file = fs::File::create(self.path.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub fn empty(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
