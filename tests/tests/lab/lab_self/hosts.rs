//! Hosts: disks, reboots, commands, processes.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use gatewrt_tests::lab::*;
use nix::sys::signal::Signal;

use super::*;

#[test]
fn rebooted_host_keeps_only_its_disk_and_cables() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (router, pc, web) = (lab.host("office")?, lab.host("office-pc")?, lab.host("web")?);
    router.write_file("/etc/config/gatewrt", "config gatewrt 'main'\n")?;
    router.write_file("/var/lib/gatewrt/state", "kept")?;
    for volatile in ["/run/gatewrt/x", "/var/run/wireguard/x", "/tmp/x"] {
        router.write_file(volatile, "lost")?;
    }
    router.run(&["ip", "link", "add", "gw-home", "type", "bridge"])?;
    let daemon = router.spawn(&["sleep", "1000"])?;
    let before = lab.host("home")?.dump()?;
    let plain = Lab::two_sites()?.host("office")?.dump()?;
    router.reboot()?;
    ensure!(!daemon.is_running(), "a process survived the reboot");
    assert_eq!(router.read_file("/etc/config/gatewrt")?, "config gatewrt 'main'\n");
    assert_eq!(router.read_file("/var/lib/gatewrt/state")?, "kept");
    for volatile in ["/run/gatewrt", "/run/wireguard", "/tmp/x"] {
        ensure!(!router.exists(volatile)?, "{volatile} survived the reboot");
    }
    ping(&pc, ip(web.ip4()?))?;
    ping(&router, ip(web.ip6()?))?;
    let without_index = |mut dump: serde_json::Value| {
        dump["addresses"].as_array_mut().into_iter().flatten().for_each(|link| {
            link.as_object_mut().map(|link| (link.remove("ifindex"), link.remove("link_index")));
        });
        dump
    };
    assert_same(&without_index(plain), &without_index(router.dump()?));
    assert_same(&before, &lab.host("home")?.dump()?);
    daemon.restart()?;
    ensure!(daemon.is_running(), "nothing starts after a reboot");
    Ok(())
}

#[test]
fn hosts_have_separate_files_and_do_not_change_the_machine() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (office, home) = (lab.host("office")?, lab.host("home")?);
    for path in
        ["/etc/gatewrt/key", "/etc/lab-probe", "/var/lib/lab-probe", "/tmp/lab-probe", "/run/lab-probe"]
    {
        office.write_file(path, "mine")?;
        ensure!(office.exists(path)? && !home.exists(path)?, "{path} is shared");
        ensure!(!std::path::Path::new(path).exists(), "{path} reached the machine itself");
    }
    assert_eq!(office.run(&["uname", "-n"])?.stdout, "office\n");
    ensure!(!home.run(&["ps", "-e"])?.stdout.contains("lab_self"), "a host sees foreign processes");
    Ok(())
}

#[test]
fn full_disk_refuses_writes_until_freed() -> Result<()> {
    let lab = Lab::two_sites()?;
    let office = lab.host("office")?;
    office.fill_disk()?;
    let error = office.write_file("/etc/gatewrt/records", [1; 9000]).expect_err("the disk is full");
    ensure!(format!("{error:#}").contains("No space left"), "{error:#}");
    office.free_disk()?;
    office.write_file("/etc/gatewrt/records", [1; 9000])
}

#[test]
fn failed_command_reports_host_command_exit_and_output() -> Result<()> {
    let lab = build("[server.web]")?;
    let web = lab.host("web")?;
    let error = web.shell("echo said; echo wrong >&2; exit 3").expect_err("it failed").to_string();
    for part in ["on web", "sh -ec", "exit status: 3", "said", "wrong"] {
        ensure!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(web.output(&["sh", "-c", "exit 3"])?.code(), 3);
    assert_eq!(web.command(&["cat"]).stdin("fed").run()?.stdout, "fed");
    assert_eq!(web.command(&["sh", "-c", "echo $COLOUR"]).env("COLOUR", "red").run()?.stdout, "red\n");
    let late = web.command(&["sleep", "60"]).timeout(Duration::from_millis(50)).run();
    ensure!(format!("{:#}", late.expect_err("too late")).contains("no end after 50ms"));
    let missing = format!("{:#}", web.run(&["gatewrt-nowhere"]).expect_err("there is no such program"));
    ensure!(missing.contains("gatewrt-nowhere") && missing.contains("No such file"), "{missing}");
    ensure!(lab.host("nobody").is_err_and(|e| e.to_string().contains("there are core, web")));
    Ok(())
}

#[test]
fn process_is_logged_signalled_restarted_and_killed_on_drop() -> Result<()> {
    let lab = build("[server.web]")?;
    let web = lab.host("web")?;
    let process = web.spawn(&[
        "sh",
        "-c",
        "trap 'echo caught; exit 5' TERM; echo ready $$; while :; do sleep 0.01; done",
    ])?;
    process.wait_for_log(SOON, "ready")?;
    ensure!(process.own_kib()? > 0);
    assert_eq!(process.stop()?.code(), Some(5));
    process.restart()?;
    eventually(SOON, "a second start in the log", || process.log().matches("ready").count() == 2)?;
    process.kill(Signal::SIGKILL)?;
    assert_eq!(process.wait(SOON)?.signal(), Some(9));
    process.restart()?;
    let pid = process.pid();
    drop(process);
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the process outlived its handle");
    Ok(())
}
