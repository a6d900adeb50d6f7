//! The control plane and the tunnels' own packets bypass tunnels and scopes: the coordinator's name is resolved by the
//! uplink's resolver, and every packet carries the mark for that.

use crate::common::Names;
use anyhow::{Context, Result, bail, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, eventually},
    mesh::{CONFIG, Mesh, SERVES},
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

const SOON: Duration = Duration::from_secs(10);
const NAME: &str = "gw.example";
/// Routers with a tunnel between them.
const ROUTERS: [&str; 2] = ["office", "home"];
/// Counters of packets that leave a router, with the mark and without it.
const WATCH: &str = "table inet watch {
    counter marked-names {}
    counter plain-names {}
    counter marked-control4 {}
    counter marked-control6 {}
    counter plain-control {}
    counter marked-tunnel6 {}
    counter plain-tunnel {}
    chain output {
        type filter hook output priority 200
        oifname lo return
        meta mark & 0x0f000000 == 0x01000000 jump marked
        meta mark & 0x0f000000 != 0x01000000 jump plain
    }
    chain marked {
        udp dport 53 counter name marked-names
        meta nfproto ipv4 tcp dport { 8443, 8883 } counter name marked-control4
        meta nfproto ipv6 tcp dport { 8443, 8883 } counter name marked-control6
        meta nfproto ipv6 udp sport 51820 counter name marked-tunnel6
    }
    chain plain {
        udp dport 53 counter name plain-names
        tcp dport { 8443, 8883 } counter name plain-control
        udp sport 51820 counter name plain-tunnel
    }
}";

fn packets(router: &Host, counter: &str) -> Result<u64> {
    let text = router.run(&["nft", "list", "counter", "inet", "watch", counter])?.stdout;
    let count = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    count.with_context(|| text.clone())?.parse().context(text)
}

/// The coordinator has a name that only the uplink's resolver knows; the router's own resolver is dead.
#[test]
fn control_plane_is_resolved_and_reached_outside_the_tunnels() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &[])?;
    let coordinator = mesh.host("coordinator")?;
    let (v4, v6): (IpAddr, IpAddr) = (coordinator.ip4()?.into(), coordinator.ip6()?.into());
    coordinator.write_file("/etc/hosts", format!("127.0.0.1 localhost\n{v4} {NAME}\n{v6} {NAME}\n"))?;
    restart_coordinator(&mut mesh)?;
    let names = Names::serve(&coordinator, &[v4])?;
    for router in ROUTERS {
        let host = mesh.host(router)?;
        host.nft(WATCH)?;
        host.write_file("/etc/resolv.conf", "nameserver 127.0.0.1\n")?;
        host.shell("mkdir -p /tmp/resolv.conf.d")?;
        host.write_file(
            "/tmp/resolv.conf.d/resolv.conf.auto",
            format!("# Interface wan\nnameserver {v4}\n"),
        )?;
        let own = host.ip6()?;
        host.write_file(CONFIG, format!("config network 'home'\n\tlist endpoint '[{own}]:51820'\n"))?;
        mesh.join(router)?;
    }
    mesh.wait_for_peers(&ROUTERS)?;
    let broker = format!("{NAME}:8883");
    ensure!(mesh.status("office")?["broker"] == broker);

    // The coordinator moves, and its name resolves to the new address.
    let before = wait_for_links(&mesh)?;
    ensure!(before == [v4].into(), "{before:?}");
    names.set(&[v6]);
    restart_coordinator(&mut mesh)?;
    let after = wait_for_links(&mesh)?;
    ensure!(after == [v6].into(), "{after:?}");
    // The name no longer resolves, so routers use the addresses that the coordinator gave them.
    names.set(&[]);
    restart_coordinator(&mut mesh)?;
    wait_for_links(&mesh)?;

    for router in ROUTERS {
        let host = mesh.host(router)?;
        for counter in ["plain-names", "plain-control", "plain-tunnel"] {
            ensure!(packets(&host, counter)? == 0, "{router}: {counter}");
        }
        for counter in ["marked-names", "marked-control4", "marked-control6", "marked-tunnel6"] {
            ensure!(packets(&host, counter)? > 0, "{router}: {counter}");
        }
    }
    Ok(())
}

fn restart_coordinator(mesh: &mut Mesh) -> Result<()> {
    mesh.coordinator.stop()?;
    let host = mesh.host("coordinator")?;
    mesh.coordinator = host.spawn(&["gatewrt-coordinator", "serve", "--advertise", NAME])?;
    mesh.coordinator.wait_for_log(2 * SOON, SERVES)?;
    Ok(())
}

/// Waits until all routers have connected to the running coordinator, and returns its addresses that they used.
fn wait_for_links(mesh: &Mesh) -> Result<BTreeSet<IpAddr>> {
    let coordinator = mesh.host("coordinator")?;
    eventually(2 * SOON, "the control links are up", || -> Result<BTreeSet<IpAddr>> {
        let log = mesh.coordinator.log();
        let mut reached = BTreeSet::new();
        for router in ROUTERS {
            let host = mesh.host(router)?;
            let (from4, from6) = (host.ip4()?, host.ip6()?);
            reached.insert(if log.contains(&format!("from=Some({from4}:")) {
                coordinator.ip4()?.into()
            } else if log.contains(&format!("from=Some([{from6}]:")) {
                coordinator.ip6()?.into()
            } else {
                bail!("{router}: {}", mesh.status(router)?["control_error"])
            });
        }
        Ok(reached)
    })
}
