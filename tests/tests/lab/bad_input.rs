//! Bad input and a bad environment: the router says what is wrong and what to do about it, and the network that runs
//! goes on without losing a packet.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Output, Process, UdpStream, Whoami, eventually, fetch, ping},
    mesh::{self, INTERFACE, Mesh},
};
use nix::sys::signal::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const FILE: &str = "/etc/config/gatewrt";

/// Two sites with a stream between them, which no fault of the test may disturb.
struct Running {
    mesh: Mesh,
    office: Host,
    stream: UdpStream,
}

impl Running {
    fn new() -> Result<Self> {
        let mesh = Mesh::two_sites()?;
        let office = mesh.host("office")?;
        let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
        let stream = UdpStream::start_echo(&from, &to, to.ip4()?.into(), 100)?;
        Ok(Self { mesh, office, stream })
    }

    /// Asserts that no packet was lost and that nothing is left to reconcile.
    fn finish(self) -> Result<Mesh> {
        self.mesh.wait_until_settled("office")?;
        self.stream.finish()?.assert_lossless();
        Ok(self.mesh)
    }

    fn daemon(&self) -> Result<&Process> {
        self.mesh.daemon("office")
    }

    fn log_says(&self, text: &str) -> Result<()> {
        self.daemon()?.wait_for_log(SOON, text)
    }

    fn kill(&self) -> Result<()> {
        self.daemon()?.kill(Signal::SIGKILL)?;
        self.daemon()?.wait(SOON).map(drop)
    }

    /// Asserts that a command fails and that its message contains all of these texts.
    #[track_caller]
    fn refuses(&self, argv: &[&str], says: &[&str]) {
        refused(&self.office.output(argv).expect("it ran"), says);
    }

    /// Waits until `gatewrt status` contains all of these texts, also in its JSON output.
    fn status_says(&self, says: &[&str]) -> Result<()> {
        says_in_the_end(&self.office, &["gatewrt", "status"], says)
    }

    fn diag_says(&self, says: &[&str]) -> Result<()> {
        says_in_the_end(&self.office, &["gatewrt", "diag"], says)
    }
}

fn says_in_the_end(on: &Host, argv: &[&str], says: &[&str]) -> Result<()> {
    eventually(SOON, &format!("{} says {says:?}", argv.join(" ")), || -> Result<()> {
        let said = on.output(argv)?.stdout;
        ensure!(says.iter().all(|text| said.contains(text)), "{said}");
        Ok(())
    })
}

/// Asserts that a command failed with a short message on standard error that contains all of these texts, without a
/// panic.
#[track_caller]
fn refused(output: &Output, says: &[&str]) {
    let said = &output.stderr;
    assert!(!output.success() && !said.contains("panicked") && said.lines().count() <= 3, "{output:?}");
    says.iter().for_each(|text| assert!(said.contains(text), "{said:?} does not say {text:?}"));
    println!("{}", said.trim_end());
}

/// An uninstalled program; it is restored on drop.
struct Missing<'a> {
    on: &'a Host,
    path: String,
}

impl<'a> Missing<'a> {
    fn new(on: &'a Host, program: &str) -> Result<Self> {
        let path = on.shell(&format!("readlink -f $(command -v {program})"))?.stdout.trim().to_owned();
        on.run(&["mount", "--bind", "/dev/null", &path])?;
        Ok(Self { on, path })
    }
}

impl Drop for Missing<'_> {
    fn drop(&mut self) {
        self.on.run(&["umount", &self.path]).map(drop).unwrap_or_else(|error| eprintln!("{error:#}"));
    }
}

/// An error costs its option alone, also after a reboot: the router is in its network with the last usable value.
#[test]
fn configuration_with_an_error_loses_that_option_alone() -> Result<()> {
    let running = Running::new()?;
    let good =
        "config network 'home'\n\toption listen_port '51820'\n\toption mtu '1380'\n\toption allow_exit '0'\n";
    running.office.write_file(FILE, good)?;
    running.mesh.gatewrt("office", &["reload"])?;
    let mtu = |office: &Host| office.run(&["cat", &format!("/sys/class/net/{INTERFACE}/mtu")]);
    let wrong = [
        (
            "config network 'home'\n\toption listen_port 'seventy'\n\toption mtu '1380'\n",
            "option listen_port: “seventy”",
            2,
        ),
        (
            "config network 'home'\n\toption mtu '1500\n\toption listen_port '51820'\n",
            "a quote that is never closed",
            2,
        ),
        (
            "\nconfig network 'home'\n\toption mtu '1380'\n\toption allow_egress '7'\n",
            "option allow_egress: “7”",
            4,
        ),
    ];
    for (text, what, line) in wrong {
        running.office.write_file(FILE, text)?;
        let place = format!("{FILE}:{line}: ");
        running.refuses(&["gatewrt", "reload"], &["all is in effect, except", &place, what]);
        running.daemon()?.kill(Signal::SIGHUP)?;
        running.log_says(&place)?;
        running.status_says(&["network home", "could not use", &place, "all in effect"])?;
        running.diag_says(&["FAIL  configuration", &place])?;
        ensure!(mtu(&running.office)?.stdout.trim() == "1380");
    }
    running
        .office
        .write_file(FILE, "config network 'home'\n\toption mtu '1380'\n\toption lisen_port '51820'\n")?;
    running.mesh.gatewrt("office", &["reload"])?;
    running.log_says("lisen_port")?;
    running.diag_says(&[&format!("{FILE}:3: "), "lisen_port"])?;
    running.office.write_file(FILE, "config network 'home'\n\toption mtu '1500'\nconfig network 'nett'\n")?;
    running.refuses(
        &["gatewrt", "reload"],
        &[&format!("{FILE}:2: option mtu: “1500”"), "what was usable before stays"],
    );
    running.status_says(&["network nett: this router has not joined"])?;
    let mut mesh = running.finish()?;
    let office = mesh.host("office")?;
    mesh.forget_interface("office");
    office.reboot()?;
    mesh.start_daemon("office")?;
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    eventually(SOON, "the router is in its network", || ping(&from, to.ip4()?.into()))?;
    ensure!(mtu(&office)?.stdout.trim() == "1380", "the last usable value");
    let failures = mesh.status("office")?["failures"].to_string();
    ensure!(failures.contains("option mtu: “1500”"), "{failures}");
    eventually(2 * SOON, "the coordinator is told", || {
        let shown = mesh.admin_json(&["node", "show", "home", "office"])?.to_string();
        ensure!(shown.contains("option mtu: “1500”"), "{shown}");
        Ok::<_, anyhow::Error>(())
    })
}

/// A network that was left is not joined again by the code in the configuration, but on request.
#[test]
fn configured_code_of_a_left_network_is_not_used_again() -> Result<()> {
    let running = Running::new()?;
    running.mesh.admin(&["network", "create", "work"])?;
    let code = running.mesh.admin(&["code", "create", "work", "--uses", "9"])?.stdout.trim().to_owned();
    running.office.write_file(FILE, format!("config network 'work'\n\toption join_code '{code}'\n"))?;
    running.mesh.gatewrt("office", &["reload"])?;
    running.status_says(&["network work"])?;
    let left = running.mesh.gatewrt("office", &["leave", "work"])?.stdout;
    ensure!(
        left.contains("The coordinator still lists this node") && left.contains("is not used again"),
        "{left}"
    );
    running.mesh.gatewrt("office", &["reload"])?;
    running.log_says("work was left: its join_code is not used again")?;
    running.status_says(&["network work: this router has not joined"])?;
    running.mesh.admin(&["node", "remove", "work", "office"])?;
    running.mesh.gatewrt("office", &["join", &code, "--name", "again"])?;
    running.mesh.admin(&["node", "remove", "work", "again"])?;
    running.status_says(&["be part of work"])?;
    let left = running.mesh.gatewrt("office", &["leave", "work"])?.stdout;
    ensure!(left.contains("had removed this node") && !left.contains("still lists"), "{left}");
    running.finish()?;
    Ok(())
}

/// IPv6 is off on a router: its network works with IPv4 alone, and nothing is said to be wrong.
#[test]
fn router_with_ipv6_off_works_with_ipv4_alone() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let office = mesh.host("office")?;
    mesh.forget_interface("office");
    mesh.gatewrt("office", &["stop", "--teardown"])?;
    mesh.daemon("office")?.wait(SOON)?;
    // That of interfaces to come: the test's own objects on the others are of both families.
    office.run(&["sysctl", "-q", "-w", "net.ipv6.conf.default.disable_ipv6=1"])?;
    mesh.start_daemon("office")?;
    let target = mesh.host("home-pc")?.ip4()?;
    eventually(SOON, "IPv4 works", || ping(&office, target.into()))?;
    says_in_the_end(&office, &["gatewrt", "status"], &["all in effect"])?;
    let failures = mesh.status("office")?["failures"].clone();
    ensure!(failures.as_array().is_some_and(Vec::is_empty), "{failures}");
    mesh.forget_interface("office");
    mesh.gatewrt("office", &["leave", "home"]).map(drop)
}

/// Another program has WireGuard's port after a reboot: the network takes another one, and the others know it.
#[test]
fn port_taken_at_boot_is_replaced_and_told() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let office = mesh.host("office")?;
    mesh.forget_interface("office");
    office.reboot()?;
    let port =
        mesh.gatewrt_json("home", &["peers"])?[0]["endpoint"].as_str().context("an endpoint")?.to_owned();
    ensure!(port.ends_with(":51820"), "{port}");
    office.run(&["wireguard-go", "by-hand"])?;
    office.shell(
        "wg genkey >/run/key; wg set by-hand listen-port 51820 private-key /run/key; ip link set by-hand up",
    )?;
    mesh.start_daemon("office")?;
    mesh.daemon("office")?.wait_for_log(SOON, "another program has UDP port 51820")?;
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    eventually(SOON, "packets pass", || ping(&from, to.ip4()?.into()))?;
    eventually(SOON, "home knows the new port", || {
        let peers = mesh.gatewrt_json("home", &["peers"])?;
        let endpoint = peers[0]["endpoint"].as_str().unwrap_or_default();
        ensure!(!endpoint.ends_with(":51820"), "{endpoint}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(mesh.status("office")?["port"] != 51820);
    office.run(&["ip", "link", "del", "by-hand"]).map(drop)
}

#[test]
fn wrong_join_code_is_told_from_a_damaged_one() -> Result<()> {
    let running = Running::new()?;
    let code = running.mesh.code(1)?;
    let join = |code: &str| running.office.output(&["gatewrt", "join", code]);
    refused(&join("please")?, &["not a join code", "gatewrt-coordinator code create"]);
    refused(&join("")?, &["not a join code"]);
    refused(&join(&code[..code.len() - 1])?, &["damaged", "copy it again"]);
    let middle = code.len() / 2;
    let other = if &code[middle..=middle] == "A" { "B" } else { "A" };
    refused(&join(&format!("{}{other}{}", &code[..middle], &code[middle + 1..]))?, &["damaged"]);
    refused(&join(&code)?, &["this router is in network home already", "gatewrt leave home"]);
    running.finish()?;
    Ok(())
}

/// A second network with an unreachable coordinator does not affect the first.
#[test]
fn unreachable_coordinator_is_named_with_what_to_check() -> Result<()> {
    let running = Running::new()?;
    running.mesh.admin(&["network", "create", "work"])?;
    let code = running.mesh.admin(&["code", "create", "work", "--uses", "9"])?.stdout.trim().to_owned();
    let before = running.office.shell("find /etc/gatewrt | sort")?.stdout;
    let coordinator = running.mesh.host("coordinator")?.ip4()?.to_string();
    let url = format!("https://{coordinator}:8443");
    let advice = ["Check that it runs, and that this router has a way to it", &url];
    running.mesh.coordinator.kill(Signal::SIGKILL)?;
    running.mesh.coordinator.wait(SOON)?;
    running.refuses(&["gatewrt", "join", &code], &[&advice[..], &["refused"]].concat());
    running.office.run(&["ip", "route", "add", "unreachable", &coordinator])?;
    running.refuses(&["gatewrt", "join", &code], &[&advice[..], &["No route to host"]].concat());
    running.office.run(&["ip", "route", "del", "unreachable", &coordinator])?;
    running.mesh.coordinator.restart()?;
    eventually(SOON, "it answers again", || {
        running.office.output(&["gatewrt", "join", &code]).is_ok_and(|o| o.success())
    })?;
    running.mesh.gatewrt("office", &["leave", "work"])?;
    ensure!(running.office.shell("find /etc/gatewrt | sort")?.stdout == before, "something was left on disk");
    running.finish()?;
    Ok(())
}

/// Another coordinator answers at the address in the code, but its CA is not the one that the code pins.
#[test]
fn impostor_coordinator_is_not_joined() -> Result<()> {
    let running = Running::new()?;
    running.mesh.admin(&["network", "create", "work"])?;
    let code = running.mesh.admin(&["code", "create", "work"])?.stdout.trim().to_owned();
    let host = running.mesh.host("coordinator")?;
    running.mesh.coordinator.kill(Signal::SIGKILL)?;
    running.mesh.coordinator.wait(SOON)?;
    host.run(&["mv", "/var/lib/gatewrt", "/var/lib/genuine"])?;
    let impostor = mesh::serve(&running.mesh.lab)?;
    running.refuses(&["gatewrt", "join", &code], &["is not the one the join code was made by", "new code"]);
    running.status_says(&["its certificate is from another CA"])?;
    impostor.kill(Signal::SIGKILL)?;
    impostor.wait(SOON)?;
    host.shell("rm -r /var/lib/gatewrt; mv /var/lib/genuine /var/lib/gatewrt")?;
    running.mesh.coordinator.restart()?;
    running.status_says(&["control    connected"])?;
    running.finish()?;
    Ok(())
}

#[test]
fn router_without_nft_keeps_running_and_says_what_to_install() -> Result<()> {
    let running = Running::new()?;
    {
        let _missing = [Missing::new(&running.office, "nft")?, Missing::new(&running.office, "iptables")?];
        running.mesh.serve("office", &running.mesh.lans("office")?[0], true)?;
        running.status_says(&["write firewall table", "install nftables"])?;
        running.diag_says(&["FAIL  firewall", "install nftables"])?;
        // A failed step does not hold up the other steps.
        let address = running.mesh.overlay("office")?[0].to_string();
        running.office.run(&["ip", "address", "del", &address, "dev", INTERFACE])?;
        eventually(Duration::from_secs(2), "our address is back", || {
            let addresses = running.office.run(&["ip", "address", "show", "dev", INTERFACE]);
            addresses.is_ok_and(|output| output.stdout.contains(&address))
        })?;
    }
    running.mesh.gatewrt("office", &["reload"])?;
    running.mesh.wait_until_settled("office")?;
    running.mesh.serve("office", &running.mesh.lans("office")?[0], false)?;
    running.finish()?;
    Ok(())
}

#[test]
fn router_without_wireguard_keeps_running_and_says_what_to_install() -> Result<()> {
    let mut running = Running::new()?;
    let office = running.office.clone();
    let pc = running.mesh.host("home-pc")?;
    let _web = Whoami::start(&pc)?;
    {
        let _missing = Missing::new(&office, "wireguard-go")?;
        running.status_says(&["all in effect"])?;
        running.mesh.forget_interface("office");
        running.mesh.gatewrt("office", &["stop", "--teardown"])?;
        running.daemon()?.wait(SOON)?;
        running.mesh.start_daemon("office")?;
        running.status_says(&["no WireGuard", "kmod-wireguard", "control    connected"])?;
        running.diag_says(&["FAIL  WireGuard", "install kmod-wireguard", "ok    firewall"])?;
        office.run(&["nft", "list", "table", "inet", "gatewrt"])?;
    }
    running.mesh.gatewrt("office", &["reload"])?;
    let url = format!("http://{}/", pc.ip4()?);
    let from = running.mesh.host("office-pc")?;
    eventually(SOON, "the tunnel is up by itself", || fetch(&from, &url))?;
    running.mesh.place_foreign_on_interface("office")
}

#[test]
fn second_daemon_is_refused_and_changes_nothing() -> Result<()> {
    let running = Running::new()?;
    running.refuses(&["gatewrtd"], &["a daemon is running already", "/var/run/gatewrt/lock"]);
    let other = "config gatewrt main\n\toption run_dir /tmp/other\n";
    running.office.write_file("/tmp/other.config", other)?;
    let says = ["a daemon is running already", "/etc/gatewrt"];
    running.refuses(&["gatewrtd", "--config", "/tmp/other.config"], &says);
    running.status_says(&["all in effect"])?;
    running.finish()?;
    Ok(())
}

#[test]
fn command_without_permission_says_so_and_leaves_the_daemon_alone() -> Result<()> {
    let running = Running::new()?;
    let nobody = |argv: &[&str]| {
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"];
        running.office.output(&[&user[..], argv].concat())
    };
    refused(&nobody(&["gatewrtd"])?, &["run it as root"]);
    refused(&nobody(&["gatewrt", "status"])?, &["run it as root"]);
    refused(&nobody(&["gatewrt", "leave", "home"])?, &["run it as root"]);
    let diag = nobody(&["gatewrt", "diag"])?;
    ensure!(diag.stdout.contains("FAIL  privileges") && diag.stdout.contains("run it as root"), "{diag:?}");
    // With directories of its own it starts without root, and says what it is not permitted to do.
    running.office.shell(
        "mkdir -p /tmp/own; printf 'config gatewrt main\\n\\toption state_dir /tmp/own/state\\n\\toption run_dir /tmp/own/run\\n' > /tmp/own/config
        chown -R 65534:65534 /tmp/own",
    )?;
    let plan = nobody(&["gatewrt", "--config", "/tmp/own/config", "plan"])?;
    ensure!(plan.success() || plan.stderr.contains("run it as root"), "{plan:?}");
    running.finish()?;
    Ok(())
}

/// On a full disk a join fails before the coordinator is asked, because the keys need room. The running network goes
/// on, and its records are written to flash once there is room.
#[test]
fn full_disk_stops_nothing_that_runs() -> Result<()> {
    let mut running = Running::new()?;
    let office = running.office.clone();
    running.mesh.admin(&["network", "create", "work"])?;
    let code = running.mesh.admin(&["code", "create", "work"])?.stdout.trim().to_owned();
    let (files, records) = ("find /etc/gatewrt | sort", "sha256sum /etc/gatewrt/home/records");
    // After a stop all records are on disk and no write is pending.
    running.mesh.gatewrt("office", &["stop"])?;
    running.daemon()?.wait(SOON)?;
    let (files_before, records_before) = (office.shell(files)?.stdout, office.shell(records)?.stdout);
    running.mesh.start_daemon("office")?;
    running.mesh.wait_until_settled("office")?;
    office.fill_disk()?;
    running.refuses(
        &["gatewrt", "join", &code],
        &["no space left for /etc/gatewrt", "free some", "did not join"],
    );
    ensure!(office.shell(files)?.stdout == files_before, "something half is on disk");
    // New records take effect all the same, also in a daemon that was killed meanwhile and has no coordinator.
    running.mesh.serve("office", "10.9.0.0/24", false)?;
    running.status_says(&["10.9.0.0/24", "all in effect"])?;
    running.log_says("the latest records are not on disk: no space left")?;
    running.mesh.wait_until_confirmed("office")?;
    running.mesh.coordinator.kill(Signal::SIGKILL)?;
    running.mesh.coordinator.wait(SOON)?;
    running.kill()?;
    running.mesh.start_daemon("office")?;
    running.status_says(&["10.9.0.0/24", "all in effect"])?;
    ensure!(office.shell(records)?.stdout == records_before, "the old file is damaged");
    office.free_disk()?;
    running.mesh.gatewrt("office", &["stop"])?;
    running.daemon()?.wait(SOON)?;
    ensure!(office.shell(records)?.stdout != records_before, "the news is not on disk");
    running.mesh.start_daemon("office")?;
    running.status_says(&["10.9.0.0/24"])?;
    running.mesh.coordinator.restart()?;
    eventually(SOON, "there is room to join", || {
        running.office.output(&["gatewrt", "join", &code]).is_ok_and(|o| o.success())
    })?;
    running.finish()?;
    Ok(())
}

/// A kill switch also holds at the next boot, once there is room to write the boot lockdown.
#[test]
fn full_disk_leaves_no_scope_open_at_the_next_boot() -> Result<()> {
    let running = Running::new()?;
    let (office, guard) = (running.office.clone(), "/etc/gatewrt/guard.json");
    office.write_file(FILE, "config network 'home'\n\toption exit_client 'auto'\n")?;
    office.fill_disk()?;
    running.mesh.gatewrt("office", &["reload"])?;
    running.status_says(&["is BLOCKED", "all in effect"])?;
    running.log_says("what keeps scopes in at the next boot is not on disk: no space left")?;
    ensure!(!office.exists(guard)?, "there was room");
    office.free_disk()?;
    eventually(3 * SOON, "it is on disk", || office.exists(guard).is_ok_and(|is_there| is_there))?;
    running.finish()?;
    Ok(())
}

#[test]
fn damaged_records_stop_no_tunnel_and_are_fetched_again() -> Result<()> {
    let mut running = Running::new()?;
    let index = running.office.ifindex(INTERFACE)?;
    let before = running.office.dump()?;
    running.mesh.coordinator.kill(Signal::SIGKILL)?;
    running.mesh.coordinator.wait(SOON)?;
    for damage in ["head -c 100 /dev/urandom > $file", "truncate -s -10 $file", ": > $file", "rm $file"] {
        running.kill()?;
        running.office.shell(&format!(
            "for file in /etc/gatewrt/home/records /var/run/gatewrt/home/records; do test ! -e $file || {{ {damage}; }}; done"
        ))?;
        running.mesh.start_daemon("office")?;
        running.status_says(&["network home", "know what this node is"])?;
        running.mesh.wait_until_settled("office")?;
        gatewrt_tests::lab::assert_same(&before, &running.office.dump()?);
    }
    running.mesh.coordinator.restart()?;
    running.status_says(&["control    connected", "all in effect", "serves", "192.168.20.0/24  direct"])?;
    ensure!(running.office.ifindex(INTERFACE)? == index, "the interface is another one");
    running.finish()?;
    Ok(())
}

/// A network with a damaged identity file stays as it runs until its owner leaves it; the other networks go on.
#[test]
fn damaged_identity_stops_no_other_network() -> Result<()> {
    let mut running = Running::new()?;
    let (office, identity) = (running.office.clone(), "/etc/gatewrt/home/identity.json");
    running.mesh.admin(&["network", "create", "work"])?;
    let code = running.mesh.admin(&["code", "create", "work"])?.stdout.trim().to_owned();
    running.mesh.gatewrt("office", &["join", &code])?;
    running.status_says(&["network home", "network work", "all in effect"])?;
    running.kill()?;
    let whole = office.read_file(identity)?;
    office.write_file(identity, &whole[..whole.len() / 2])?;
    running.mesh.start_daemon("office")?;
    running.log_says("identity.json is damaged")?;
    let says = ["network work", "network home", "identity.json is damaged", "put back a backup"];
    running.status_says(&says)?;
    running.diag_says(&["FAIL  state in /etc/gatewrt", "identity.json is damaged"])?;
    running.mesh.wait_until_settled("office")?;
    // The owner restores a backup of the file, and the network works again.
    running.kill()?;
    office.write_file(identity, &whole)?;
    running.mesh.start_daemon("office")?;
    running.status_says(&["network home", "network work", "control    connected"])?;
    let mut mesh = running.finish()?;
    // Without a backup the owner leaves the network and joins it anew.
    mesh.daemon("office")?.kill(Signal::SIGKILL)?;
    mesh.daemon("office")?.wait(SOON)?;
    office.write_file(identity, "{}")?;
    mesh.start_daemon("office")?;
    mesh.forget_interface("office");
    mesh.gatewrt("office", &["leave", "home"])?;
    ensure!(
        !office.output(&["ip", "link", "show", "dev", INTERFACE])?.success(),
        "the interface is still there"
    );
    ensure!(!office.exists("/etc/gatewrt/home")?, "the keys are still there");
    mesh.gatewrt("office", &["join", &mesh.code(1)?, "--name", "office-again"])?;
    mesh.place_foreign_on_interface("office")
}

/// A router without a clock of its own starts in the past.
#[test]
fn router_with_a_clock_far_back_keeps_running() -> Result<()> {
    let mut running = Running::new()?;
    running.kill()?;
    let past = ["faketime", "2001-01-01 00:00:00"];
    // libfaketime creates files there, named for process ids, which all hosts would share otherwise.
    running.office.shell("mount -t tmpfs none /dev/shm")?;
    let daemon =
        running.office.command(&[&past[..], &["gatewrtd"]].concat()).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let daemon = daemon.spawn()?;
    daemon.wait_for_log(SOON, "is running")?;
    running.mesh.daemons.insert("office".to_owned(), daemon);
    running.status_says(&["control    connected", "all in effect"])?;
    says_in_the_end(
        &running.office,
        &[&past[..], &["gatewrt", "diag"]].concat(),
        &["FAIL  clock", "NTP sets it"],
    )?;
    running.mesh.serve("office", "10.9.0.0/24", false)?;
    running.status_says(&["10.9.0.0/24"])?;
    let status = running.mesh.status("office")?;
    ensure!(status["peers"][0]["path"] == "direct", "{status}");
    running.finish().context("in the past")?;
    Ok(())
}
