//! Failed handshakes between two routers: the time until the tunnel works.

use anyhow::{Context, Result, ensure};
use gatewrt_protocol::WgPublicKey;
use gatewrt_tests::{
    lab::{Host, eventually},
    mesh::{INTERFACE, Mesh},
    wg,
};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
/// Time before WireGuard's own retry, which comes after five seconds.
const BEFORE_WIREGUARD: Duration = Duration::from_secs(3);
/// Bytes of the first message of a handshake.
const INITIATION: u64 = 148;
/// Drops every handshake response on its way: so do two routers that send their initiations at the same moment.
const HOLD: &str = "nft 'table inet hold {
    chain hold { type filter hook forward priority 0; udp sport 51820 udp length 100 drop; }
}'";

/// Neither router accepts the other's response. The daemon on the one with the lesser key has WireGuard start a new
/// handshake.
#[test]
fn routers_whose_handshakes_cross_connect_without_wireguards_wait() -> Result<()> {
    let mesh = Mesh::two_sites()?;
    let mut routers = [key_and_host(&mesh, "office")?, key_and_host(&mesh, "home")?];
    routers.sort_by_key(|(key, _)| *key);
    let [first, second] = &routers;
    mesh.host("core")?.shell(HOLD)?;
    // The router that acts comes last, so that its retry is not lost as well.
    for ((_, router), (peer, _)) in [(second, first), (first, second)] {
        router.run(&["wg", "set", INTERFACE, "peer", &peer.to_string(), "remove"])?;
        eventually(SOON, &format!("{} begins a handshake", router.name()), || -> Result<()> {
            let sent = wg::peers(router)?.get(&peer.to_string()).map_or(0, |peer| peer.tx);
            ensure!(sent >= INITIATION, "{sent} bytes sent");
            Ok(())
        })?;
    }
    mesh.host("core")?.run(&["nft", "delete", "table", "inet", "hold"])?;
    let start = Instant::now();
    for ((_, router), (peer, _)) in [(first, second), (second, first)] {
        eventually(SOON, &format!("{} has a handshake", router.name()), || -> Result<()> {
            let peers = wg::peers(router)?;
            ensure!(peers.get(&peer.to_string()).is_some_and(|peer| peer.handshake > 0), "{peers:?}");
            Ok(())
        })?;
    }
    let took = start.elapsed();
    eprintln!("a handshake after {took:?}");
    ensure!(took < BEFORE_WIREGUARD, "a handshake after {took:?}");
    Ok(())
}

fn key_and_host(mesh: &Mesh, router: &str) -> Result<(WgPublicKey, Host)> {
    let host = mesh.host(router)?;
    let key = wg::key(&host)?.parse().ok().context("a key")?;
    Ok((key, host))
}
