//! Changes that cut a router off from its coordinator: the router rolls them back by itself, reports why, and does not
//! retry them by itself.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, Process, eventually},
    mesh::{
        Mesh, NETWORK,
        exits::{Exits, HOME},
    },
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
const OFFICE: &str = "office";
/// A prefix that no site has.
const PREFIX: &str = "172.31.7.0/24";
/// Text in the daemon's firewall table while access is denied.
const DENIED: &str = "not allowed";

/// A control link cut in one direction: the coordinator's messages reach the router, the router's own are dropped,
/// until the cut is removed or a text has appeared in the daemon's firewall table and is gone again. So a change
/// arrives, and its confirmation can't go out before it is rolled back.
struct Cut {
    router: Host,
    _script: Option<Process>,
}

impl Cut {
    fn until_removed(mesh: &Mesh, router: &str) -> Result<Self> {
        let (router, coordinator) = (mesh.host(router)?, mesh.host("coordinator")?);
        // Packets that only acknowledge a segment or a message are shorter, and pass.
        router.nft(&format!(
            "table inet cut {{
                chain output {{
                    type filter hook output priority 0;
                    ip daddr {} meta length > 130 drop
                    ip6 daddr {} meta length > 150 drop
                }}
            }}",
            coordinator.ip4()?,
            coordinator.ip6()?
        ))?;
        Ok(Self { router, _script: None })
    }

    fn until_undone(mesh: &Mesh, router: &str, needle: &str) -> Result<Self> {
        let cut = Self::until_removed(mesh, router)?;
        let script = format!(
            "says() {{ nft list table inet gatewrt 2>/dev/null | grep -qF '{needle}'; }}
            until says; do sleep 0.1; done
            while says; do sleep 0.1; done
            nft delete table inet cut"
        );
        let script = cut.router.spawn(&["sh", "-c", &script])?;
        Ok(Self { _script: Some(script), ..cut })
    }

    fn remove(self) -> Result<()> {
        self.router.nft("delete table inet cut").map(drop)
    }
}

/// A lab with one router, whose changes are on trial for `confirm_s` seconds.
fn office(confirm_s: u16) -> Result<Mesh> {
    let mesh = Mesh::start(Lab::two_sites()?, &[OFFICE])?;
    mesh.admin(&["node", "set-confirm", NETWORK, OFFICE, &confirm_s.to_string()])?;
    wait_for_link(&mesh, OFFICE)?;
    Ok(mesh)
}

fn ruleset(host: &Host) -> Result<String> {
    Ok(host.run(&["nft", "list", "table", "inet", "gatewrt"])?.stdout)
}

fn wait_for_link(mesh: &Mesh, router: &str) -> Result<()> {
    eventually(SOON, &format!("{router}'s control link is up"), || -> Result<()> {
        let status = mesh.status(router)?;
        ensure!(status["control"] == "connected", "{}", status["control_error"]);
        Ok(())
    })
}

/// Waits until the coordinator shows a rollback of a router, and returns the reason.
fn wait_for_rollback(mesh: &Mesh, router: &str, deadline: Duration) -> Result<String> {
    eventually(deadline, &format!("the coordinator shows what {router} rolled back"), || -> Result<String> {
        let node = mesh.admin_json(&["node", "show", NETWORK, router])?;
        let why = node["rolled_back"]["why"].as_str().with_context(|| format!("{node}"))?;
        ensure!(mesh.status(router)?["rolled_back"]["why"] == *why);
        Ok(why.to_owned())
    })
}

fn wait_for_confirmation(
    mesh: &Mesh,
    router: &str,
    is_in_effect: impl Fn(&Value) -> Result<bool>,
) -> Result<()> {
    eventually(SOON, &format!("{router} confirms"), || -> Result<()> {
        let status = mesh.status(router)?;
        ensure!(is_in_effect(&status)? && status["trial_s"].is_null(), "{status}");
        ensure!(status["rolled_back"].is_null() && status["control"] == "connected", "{status}");
        Ok(())
    })
}

fn is_serving(status: &Value) -> Result<bool> {
    Ok(status["egress"].as_array().context("egress")?.iter().any(|egress| egress["prefix"] == PREFIX))
}

fn wait_for_trial(mesh: &Mesh, router: &str, needle: &str) -> Result<()> {
    let host = mesh.host(router)?;
    eventually(SOON, &format!("{router} tries the change"), || -> Result<()> {
        ensure!(ruleset(&host)?.contains(needle) && !mesh.status(router)?["trial_s"].is_null());
        Ok(())
    })
}

/// Another program's rule clears the marks of the control link, and the exit leads everywhere but to the coordinator.
#[test]
fn exit_that_swallows_the_coordinator_is_rolled_back() -> Result<()> {
    let mut exits = Exits::start(&["farm"])?;
    let (home, farm) = (exits.host(HOME)?, exits.host("farm")?);
    let coordinator = exits.host("coordinator")?;
    exits.mesh.admin(&["node", "set-confirm", NETWORK, HOME, "6"])?;
    exits.mesh.wait_until_settled(HOME)?;
    farm.nft(&format!(
        "table inet swallow {{
            chain forward {{
                type filter hook forward priority -300
                ip daddr {} drop
                ip6 daddr {} drop
            }}
        }}",
        coordinator.ip4()?,
        coordinator.ip6()?
    ))?;
    home.nft(
        "table inet tidy {
            chain output {
                type route hook output priority -140
                meta l4proto tcp meta mark & 0x0f000000 == 0x01000000 meta mark set meta mark & 0xf0ffffff
            }
        }",
    )?;
    wait_for_link(&exits.mesh, HOME)?;

    let start = Instant::now();
    exits.set_scope("own", &json!({ "of": ["router"], "exits": ["farm"] }))?;
    let has_scope = |status: &Value| status["scopes"].as_array().is_some_and(|scopes| !scopes.is_empty());
    eventually(SOON, "the scope is on trial", || -> Result<()> {
        let status = exits.mesh.status(HOME)?;
        ensure!(has_scope(&status) && !status["trial_s"].is_null(), "{status}");
        Ok(())
    })?;
    let why = wait_for_rollback(&exits.mesh, HOME, Duration::from_secs(15))?;
    println!("back after {:?}: {why}", start.elapsed());
    ensure!(why.contains("exit scopes") && why.contains("nothing for 6 s"), "{why}");
    ensure!(!has_scope(&exits.mesh.status(HOME)?));

    exits.mesh.daemon(HOME)?.kill(Signal::SIGKILL)?;
    exits.mesh.daemon(HOME)?.wait(SOON)?;
    exits.mesh.start_daemon(HOME)?;
    wait_for_link(&exits.mesh, HOME)?;
    ensure!(wait_for_rollback(&exits.mesh, HOME, SOON)? == why && !has_scope(&exits.mesh.status(HOME)?));

    farm.nft("delete table inet swallow")?;
    home.nft("delete table inet tidy")?;
    exits.mesh.admin(&["node", "retry", NETWORK, HOME])?;
    wait_for_confirmation(&exits.mesh, HOME, |status| Ok(has_scope(status)))
}

/// The router rolls back by itself, and the coordinator shows why. A restart does not retry the change; the admin's
/// `retry` does.
#[test]
fn access_rules_that_cut_the_router_off_are_rolled_back() -> Result<()> {
    let mut mesh = office(5)?;
    let host = mesh.host(OFFICE)?;
    let before = ruleset(&host)?;
    let cut = Cut::until_undone(&mesh, OFFICE, DENIED)?;
    mesh.admin(&["network", "set", NETWORK, "--access", "deny"])?;
    wait_for_trial(&mesh, OFFICE, DENIED)?;
    let why = wait_for_rollback(&mesh, OFFICE, SOON)?;
    println!("{why}");
    ensure!(why.contains("access rules") && why.contains("nothing for 5 s"), "{why}");
    ensure!(ruleset(&host)? == before);
    drop(cut);

    mesh.daemon(OFFICE)?.kill(Signal::SIGKILL)?;
    mesh.daemon(OFFICE)?.wait(SOON)?;
    mesh.start_daemon(OFFICE)?;
    wait_for_link(&mesh, OFFICE)?;
    ensure!(wait_for_rollback(&mesh, OFFICE, SOON)? == why && ruleset(&host)? == before);
    let log = mesh.daemon(OFFICE)?.log();
    ensure!(!log.contains("firewall table"), "it was tried again:\n{log}");

    mesh.admin(&["node", "retry", NETWORK, OFFICE])?;
    wait_for_confirmation(&mesh, OFFICE, |_| Ok(ruleset(&host)?.contains(DENIED)))
}

/// A slow broker delays the confirmation of a change, and nothing is rolled back.
#[test]
fn good_change_is_confirmed_through_a_slow_broker() -> Result<()> {
    let mesh = office(14)?;
    let cut = Cut::until_removed(&mesh, OFFICE)?;
    mesh.serve(OFFICE, PREFIX, true)?;
    wait_for_trial(&mesh, OFFICE, PREFIX)?;
    eventually(SOON, "the trial goes on for 3 seconds", || -> Result<()> {
        let left = mesh.status(OFFICE)?["trial_s"].as_u64().context("it is over")?;
        ensure!(left <= 11);
        Ok(())
    })?;
    cut.remove()?;
    wait_for_confirmation(&mesh, OFFICE, is_serving)?;
    let log = mesh.daemon(OFFICE)?.log();
    ensure!(log.contains("is confirmed") && !log.contains("rolled back revision"), "{log}");
    Ok(())
}

/// A router that loses power while a change is on trial starts with the last confirmed records.
#[test]
fn router_that_reboots_while_unconfirmed_starts_with_what_worked() -> Result<()> {
    let mut mesh = office(3600)?;
    let host = mesh.host(OFFICE)?;
    let before = ruleset(&host)?;
    let _cut = Cut::until_removed(&mesh, OFFICE)?;
    mesh.serve(OFFICE, PREFIX, true)?;
    wait_for_trial(&mesh, OFFICE, PREFIX)?;
    host.reboot()?;
    mesh.start_daemon(OFFICE)?;
    wait_for_link(&mesh, OFFICE)?;
    let why = wait_for_rollback(&mesh, OFFICE, SOON)?;
    println!("{why}");
    ensure!(why.contains("restarted") && ruleset(&host)? == before, "{why}");
    ensure!(!mesh.daemon(OFFICE)?.log().contains("on trial"));
    mesh.admin(&["node", "retry", NETWORK, OFFICE])?;
    wait_for_confirmation(&mesh, OFFICE, is_serving)
}
