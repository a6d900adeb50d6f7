//! Names and addresses that are advertised, and directories that were there before.

use crate::{
    coordinator::{PROGRAM, run, text},
    router::Router,
};
use gatewrt_protocol::JoinCode;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A coordinator that is started once, by any command.
struct Started {
    child: Child,
    banner: String,
    data: PathBuf,
    _dir: TempDir,
}

impl Started {
    fn by(start: impl FnOnce(&Path) -> Command) -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let mut child = start(&data).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut banner = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            banner += &(line + "\n");
            if banner.contains("code create") {
                break;
            }
        }
        Self { child, banner, data, _dir: dir }
    }

    /// Ends it, and returns its log.
    fn log(mut self) -> String {
        self.child.kill().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        self.child.wait().unwrap();
        log
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data"]).arg(data).args(more);
    command
}

#[test]
fn router_joins_by_a_name_with_a_dot_at_its_end() {
    let started = Started::by(|data| serve(data, &["--advertise", "LocalHost."]));
    let data = started.data.to_str().unwrap();
    assert!(run(&["network", "create", "home"], &["--data", data]).status.success());
    let code = run(&["code", "create", "home"], &["--data", data]).stdout;
    let code = String::from_utf8(code).unwrap().trim().to_owned();
    let url = code.parse::<JoinCode>().unwrap().url;
    assert!(url.starts_with("https://localhost:"), "{url}");
    let answer = Router::new(1, "office").join(&code, &text(&started.data.join("ca.crt"))).unwrap();
    assert!(answer.brokers[0].starts_with("localhost:"), "{:?}", answer.brokers);
}

#[test]
fn host_that_no_router_could_use_is_refused_with_the_reason() {
    let dir = TempDir::new().unwrap();
    for (host, why) in [
        ("https://gw.example.org", "without https://"),
        ("gw.example.org:8443", "without a port"),
        ("gw.example.org..", "neither an address nor a name"),
        ("fe80::1%eth0", "zone"),
        ("0.0.0.0", "every address"),
        ("bücher.example", "xn--"),
        ("", "empty"),
    ] {
        let output = serve(&dir.path().join("data"), &["--advertise", host]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{host}: {said}");
        assert!(said.contains(&format!("“{host}” can't be advertised")) && said.contains(why), "{said}");
    }
}

/// A network namespace with an uplink, a bridge of containers, and one of their links. Needs root, as `make test` has.
const HOST: &str = "set -e
mount -t sysfs sysfs /sys
ip link set lo up
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link add veth0 type veth peer name veth1
ip link set veth0 master docker0
ip link add uplink type veth peer name far
ip addr add 192.0.2.7/24 dev uplink
for link in docker0 veth0 veth1 uplink far; do ip link set $link up; done
ip route add default via 192.0.2.1
exec \"$@\"";

#[test]
fn bridge_of_containers_is_not_advertised() {
    let started = Started::by(|data| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", HOST, "sh", PROGRAM, "serve", "--data"]).arg(data);
        command
    });
    let banner = started.banner.clone();
    assert!(banner.contains("https://192.0.2.7:8443") && !banner.contains("172.17.0.1"), "{banner}");
    let names = text(&started.data.join("server.names"));
    assert!(!names.contains("172.17"), "{names}");
    let log = started.log();
    assert!(log.contains("172.17.0.1 is not advertised: docker0"), "{log}");
    assert!(log.contains("bare addresses") && log.contains("--advertise gw.example.org"), "{log}");
}

#[test]
fn directory_that_was_there_keeps_its_mode() {
    for (mode, is_allowed) in [(0o755, true), (0o700, true), (0o777, false), (0o1777, false)] {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
        let stays = || assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, mode);
        if is_allowed {
            let started = Started::by(|_| serve(&data, &["--advertise", "localhost"]));
            assert!(started.banner.contains("code create"), "{}", started.log());
            stays();
            let is_private = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0;
            assert!(is_private(&data.join("ca.key")) && is_private(&data.join("gatewrt.db")));
        } else {
            let output = serve(&data, &[]).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(1) && said.contains("chmod go-w"), "{said}");
            stays();
            assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "nothing was written there");
        }
    }
}
