//! Teardown of a network: the router is as it was before the daemon's first start, to the last setting.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, Topology, assert_same, eventually, ping},
    mesh::{INTERFACE, Mesh},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Times after its start at which a daemon is killed, in ms: spread over the time that it needs to bring everything up.
const MOMENTS: [u64; 12] = [5, 110, 20, 95, 35, 80, 50, 65, 140, 170, 210, 260];

/// The router `office`, not yet touched by a daemon, in a network with `home`.
struct Untouched {
    mesh: Mesh,
    office: Host,
    before: Value,
    files: String,
}

impl Untouched {
    fn new(forwarding: bool) -> Result<Self> {
        let mut topology = Topology::two_sites()?;
        topology.router.get_mut("office").context("a router office")?.forwarding = forwarding;
        let mut mesh = Mesh::start(Lab::new(&topology)?, &["home"])?;
        mesh.serve_lans(&["home"], false)?;
        let office = mesh.host("office")?;
        office.shell("sysctl -q -w net.ipv6.conf.wan.accept_ra=1")?;
        mesh.place_foreign("office")?;
        let (before, files) = (office.dump()?, files(&office)?);
        Ok(Self { mesh, office, before, files })
    }

    /// Joins, serves the LAN with NAT, and waits until the network is in use.
    fn join(&mut self) -> Result<()> {
        self.mesh.join("office")?;
        self.mesh.serve_lans(&["office"], true)?;
        self.is_in_use()
    }

    /// Joins again with the running daemon.
    fn join_again(&mut self) -> Result<()> {
        self.mesh.admin(&["node", "remove", "home", "office"])?;
        self.mesh.gatewrt("office", &["join", &self.mesh.code(1)?, "--name", "office"])?;
        self.mesh.place_foreign_on_interface("office")?;
        self.mesh.serve_lans(&["office"], true)?;
        self.is_in_use()
    }

    fn is_in_use(&self) -> Result<()> {
        let (pc, target) = (self.mesh.host("home-pc")?, self.mesh.host("office-pc")?);
        for address in [target.ip4()?.into(), target.ip6()?.into()] {
            eventually(SOON, &format!("home-pc reaches {address}"), || ping(&pc, address))
                .inspect_err(|_| self.mesh.look())?;
        }
        self.mesh.wait_until_confirmed("office")?;
        self.mesh.wait_until_settled("office")
    }

    fn leave(&mut self) -> Result<()> {
        self.mesh.forget_interface("office");
        self.mesh.gatewrt("office", &["leave", "home"]).map(drop)
    }

    /// Asserts that the kernel's state and the files are as before. Userspace WireGuard ends some time after its
    /// interface, so its end is waited for first.
    fn is_as_before(&self) -> Result<()> {
        eventually(SOON, "no WireGuard runs", || -> Result<()> {
            let processes = self.office.run(&["ps", "-e", "-o", "comm="])?.stdout;
            ensure!(!processes.contains("wireguard-go"), "{processes}");
            Ok(())
        })?;
        assert_same(&self.before, &self.office.dump()?);
        Ok(())
    }

    #[track_caller]
    fn assert_disk_as_before(&self) {
        assert_eq!(self.files, files(&self.office).expect("files"));
    }

    fn kill(&self) -> Result<()> {
        let daemon = self.mesh.daemon("office")?;
        daemon.kill(Signal::SIGKILL)?;
        daemon.wait(SOON).map(drop)
    }
}

/// All that the daemon may keep on a router's flash.
fn files(router: &Host) -> Result<String> {
    Ok(router.shell("find /etc/gatewrt /etc/config | sort")?.stdout)
}

#[test]
fn router_that_leaves_keeps_no_trace() -> Result<()> {
    for forwarding in [true, false] {
        let mut site = Untouched::new(forwarding)?;
        site.join()?;
        ensure!(setting(&site.office, "net/ipv6/conf/all/forwarding")? == "1");
        ensure!(setting(&site.office, "net/ipv6/conf/wan/accept_ra")? == if forwarding { "1" } else { "2" });
        site.leave()?;
        site.is_as_before()?;
        site.assert_disk_as_before();
        let again = site.office.output(&["gatewrt", "leave", "home"])?;
        ensure!(again.code() == 1 && again.stderr.contains("has not joined a network “home”"), "{again:?}");
        // After it left, the router can join as a new node.
        site.join_again()?;
        site.leave()?;
        site.is_as_before()?;
    }
    Ok(())
}

#[test]
fn stop_with_teardown_leaves_nothing_in_the_kernel() -> Result<()> {
    for forwarding in [true, false] {
        let mut site = Untouched::new(forwarding)?;
        site.join()?;
        site.mesh.forget_interface("office");
        site.mesh.gatewrt("office", &["stop", "--teardown"])?;
        site.mesh.daemon("office")?.wait(SOON)?;
        site.is_as_before()?;
        // At the next start, all that the daemon needs is on disk.
        site.mesh.start_daemon("office")?;
        site.mesh.place_foreign_on_interface("office")?;
        site.is_in_use()?;
    }
    Ok(())
}

/// The service is stopped, and its process is not gone yet, or was killed, or there is none: the teardown waits for it,
/// and does the work itself.
#[test]
fn teardown_needs_no_daemon_and_waits_for_one_that_ends() -> Result<()> {
    let mut site = Untouched::new(false)?;
    site.join()?;
    site.mesh.forget_interface("office");
    for signal in [Some(Signal::SIGTERM), Some(Signal::SIGKILL), None] {
        if let Some(signal) = signal {
            site.mesh.daemon("office")?.kill(signal)?;
        }
        let done = site.mesh.gatewrt("office", &["stop", "--teardown"])?;
        ensure!(done.stdout.contains("is taken down"), "{done:?}");
        site.mesh.daemon("office")?.wait(SOON)?;
        site.is_as_before()?;
        let again = site.mesh.gatewrt("office", &["stop", "--teardown"])?;
        ensure!(again.stdout.contains("is taken down"), "{again:?}");
        site.mesh.start_daemon("office")?;
        site.mesh.wait_until_settled("office")?;
    }
    // Its keys are gone, and still nothing is left: an interface of ours that no network has is cleared.
    site.kill()?;
    site.office.shell("rm -r /etc/gatewrt/home")?;
    site.mesh.gatewrt("office", &["stop", "--teardown"])?;
    site.is_as_before()
}

/// What can't be taken down is said, with an exit code.
#[test]
fn teardown_that_fails_says_so() -> Result<()> {
    let mut site = Untouched::new(false)?;
    site.join()?;
    site.kill()?;
    site.mesh.forget_interface("office");
    site.office.shell("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys")?;
    let failed = site.office.output(&["gatewrt", "stop", "--teardown"])?;
    site.office.run(&["umount", "/proc/sys"])?;
    ensure!(failed.code() == 1 && failed.stderr.contains("not everything could be taken down"), "{failed:?}");
    site.mesh.gatewrt("office", &["stop", "--teardown"])?;
    site.is_as_before()
}

/// A router that forwards ignores router advertisements, unless `accept_ra` is 2: its learned default route of IPv6 has
/// to stay throughout.
#[test]
fn learned_route_is_kept() -> Result<()> {
    let mut site = Untouched::new(false)?;
    let provider = site.mesh.host("core")?;
    let advertise = [
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file --leasefile-ro --port=0 --user=root",
        "--interface=office --enable-ra --ra-param=office,4,60 --dhcp-range=::,constructor:office,ra-only",
    ]
    .join(" ");
    let _provider = provider.spawn(&advertise.split(' ').collect::<Vec<_>>())?;
    site.office.run(&["ip", "-6", "route", "del", "default"])?;
    let learned = |site: &Untouched| -> Result<()> {
        let way = site.office.run(&["ip", "-6", "route", "show", "default", "proto", "ra"])?.stdout;
        ensure!(way.contains("via fe80::"), "{way:?}");
        ping(&site.office, site.mesh.host("web")?.ip6()?.into())
    };
    eventually(Duration::from_secs(20), "the way is learned", || learned(&site))?;
    site.before = site.office.dump()?;
    site.join()?;
    ensure!(setting(&site.office, "net/ipv6/conf/wan/accept_ra")? == "2");
    learned(&site).context("in the network")?;
    site.leave()?;
    learned(&site).context("after it")?;
    site.is_as_before()
}

/// After a kill without teardown the tunnels go on, and the next daemon still knows the settings from before the first
/// one.
#[test]
fn later_daemon_knows_the_settings_of_before() -> Result<()> {
    let mut site = Untouched::new(false)?;
    site.join()?;
    let index = site.office.ifindex(INTERFACE)?;
    site.kill()?;
    site.mesh.start_daemon("office")?;
    site.is_in_use()?;
    site.mesh.gatewrt("office", &["stop"])?;
    site.mesh.daemon("office")?.wait(SOON)?;
    site.mesh.start_daemon("office")?;
    site.is_in_use()?;
    ensure!(site.office.ifindex(INTERFACE)? == index, "the interface is another one");
    site.leave()?;
    site.is_as_before()?;
    Ok(())
}

/// The daemon is killed during setup and during teardown, again and again.
#[test]
fn daemon_killed_between_two_steps_leaves_no_trace_in_the_end() -> Result<()> {
    let mut site = Untouched::new(false)?;
    site.join()?;
    site.mesh.forget_interface("office");
    for moment in MOMENTS {
        site.mesh.gatewrt("office", &["stop", "--teardown"])?;
        site.mesh.daemon("office")?.wait(SOON)?;
        site.is_as_before()?;
        site.mesh.start_daemon("office")?;
        std::thread::sleep(Duration::from_millis(moment));
        site.kill()?;
        site.mesh.start_daemon("office")?;
        site.mesh.wait_until_settled("office")?;
        let stop = site.office.spawn(&["gatewrt", "stop", "--teardown"])?;
        std::thread::sleep(Duration::from_millis(moment / 4));
        site.kill()?;
        stop.wait(SOON)?;
        site.mesh.start_daemon("office")?;
        site.is_in_use()?;
    }
    site.leave()?;
    site.is_as_before()?;
    site.assert_disk_as_before();
    Ok(())
}

/// The daemon is killed during a join and during a leave.
#[test]
fn daemon_killed_while_it_joins_or_leaves_can_retry() -> Result<()> {
    let mut site = Untouched::new(false)?;
    site.mesh.start_daemon("office")?;
    site.mesh.forget_interface("office");
    for moment in MOMENTS {
        let code = site.mesh.code(1)?;
        let join = site.office.spawn(&["gatewrt", "join", &code, "--name", "office"])?;
        std::thread::sleep(Duration::from_millis(moment / 2));
        site.kill()?;
        join.wait(SOON)?;
        site.mesh.start_daemon("office")?;
        if !is_joined(&site)? {
            site.mesh.gatewrt("office", &["join", &code, "--name", "office"])?;
        }
        site.mesh.wait_until_settled("office")?;
        let leave = site.office.spawn(&["gatewrt", "leave", "home"])?;
        std::thread::sleep(Duration::from_millis(moment / 4));
        site.kill()?;
        leave.wait(SOON)?;
        site.mesh.start_daemon("office")?;
        if is_joined(&site)? {
            site.leave()?;
        }
        site.is_as_before()?;
        site.assert_disk_as_before();
        site.mesh.admin(&["node", "remove", "home", "office"])?;
    }
    Ok(())
}

fn is_joined(site: &Untouched) -> Result<bool> {
    Ok(!site.mesh.status("office")?.is_null())
}

fn setting(router: &Host, path: &str) -> Result<String> {
    Ok(router.run(&["cat", &format!("/proc/sys/{path}")])?.stdout.trim().to_owned())
}
