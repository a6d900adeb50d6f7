//! Removal of nodes and networks: all peers drop a removed node within seconds, it can't return, and one that is away
//! takes its tunnels down when it is back.

use crate::common::{Stolen, file_of};
use anyhow::{Context, Result, ensure};
use gatewrt_protocol::{JoinCode, Topic, topic::ROOT};
use gatewrt_tests::{
    lab::{Host, UdpStream, eventually, ping},
    mesh::{INTERFACE, Mesh, NETWORK},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Longest time until all peers have dropped a removed node.
const CUT_OFF: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(10);
/// Longest time until routers reconnect: their backoff grows while the coordinator is away.
const COMES_BACK: Duration = Duration::from_secs(30);
/// Silence after which a stream of a hundred packets a second has ended.
const QUIET: Duration = Duration::from_secs(1);
/// Seconds in which WireGuard tries two handshakes: it retries every five seconds.
const TWO_HANDSHAKES: u32 = 8;

/// Peers drop a removed node and its own tunnel goes down. Neither a restart nor a reboot, nor its old keys by hand or
/// with a new code, bring it back. The other nodes are not disturbed.
#[test]
fn removed_node_is_cut_off_and_cannot_return() -> Result<()> {
    let mut mesh = Mesh::three_sites()?;
    let stolen = Stolen::from(&mesh.host("home")?)?;
    let (office, home, barn) = (mesh.host("office-pc")?, mesh.host("home-pc")?, mesh.host("barn-pc")?);
    let kept = UdpStream::start_echo(&office, &barn, barn.ip4()?.into(), 100)?;
    let doomed = UdpStream::start_echo(&office, &home, home.ip4()?.into(), 100)?;
    let (key, overlay) = (key_of(&mesh, "home")?, mesh.overlay("office")?);
    let peers = mesh.status("home")?["peers"].clone();

    mesh.forget_interface("home");
    remove_and_measure(&mesh, "home", &["office", "barn"], &doomed)?;
    eventually(CUT_OFF, "its own tunnel is down", || is_out(&mesh, "home"))?;
    mesh.wait_until_settled("home")?;

    mesh.daemon("home")?.kill(Signal::SIGKILL)?;
    mesh.daemon("home")?.wait(SOON)?;
    mesh.start_daemon("home")?;
    stays_out(&mesh, &stolen, "after a restart")?;
    mesh.host("home")?.reboot()?;
    mesh.start_daemon("home")?;
    stays_out(&mesh, &stolen, "after a reboot")?;
    reads_its_end_alone(&mesh, &stolen)?;

    let again = mesh.host("home")?.output(&["gatewrt", "join", &mesh.code(1)?])?;
    ensure!(again.code() == 1 && again.stderr.contains("is in network home already"), "{again:?}");
    mesh.gatewrt("home", &["leave", NETWORK])?;
    join_with_old_keys(&mesh, &stolen)?;
    tunnel_by_hand(&mesh.host("home")?, &stolen, &peers, overlay[0])?;
    for router in ["office", "barn"] {
        ensure!(!knows(&mesh, router, &key)?, "{router} has it again");
    }
    kept.finish()?.assert_lossless();
    Ok(())
}

/// A node that is removed while its daemon is dead reads it when it returns, and takes its tunnels down.
#[test]
fn node_removed_while_away_takes_its_tunnels_down_on_return() -> Result<()> {
    let mut mesh = Mesh::three_sites()?;
    let (office, home, barn) = (mesh.host("office-pc")?, mesh.host("home-pc")?, mesh.host("barn-pc")?);
    let kept = UdpStream::start_echo(&office, &barn, barn.ip4()?.into(), 100)?;
    mesh.daemon("home")?.kill(Signal::SIGKILL)?;
    mesh.daemon("home")?.wait(SOON)?;
    ping(&office, home.ip4()?.into()).context("a tunnel needs no daemon")?;
    let doomed = UdpStream::start_echo(&office, &home, home.ip4()?.into(), 100)?;
    remove_and_measure(&mesh, "home", &["office", "barn"], &doomed)?;
    wait_until_untold(&mesh, &["home"])?;

    mesh.forget_interface("home");
    mesh.start_daemon("home")?;
    eventually(SOON, "its own tunnel is down", || is_out(&mesh, "home"))?;
    wait_until_untold(&mesh, &[])?;
    let back = ping(&home, office.ip4()?.into());
    ensure!(back.is_err(), "it reaches the office");
    kept.finish()?.assert_lossless();
    Ok(())
}

/// A network is deleted while two of its routers can't reach the coordinator. It lives on between them, also when their
/// daemons start anew and the coordinator does, until they reach it again: then both take their tunnels down.
#[test]
fn network_deleted_while_routers_are_away_ends_when_they_are_back() -> Result<()> {
    const AWAY: [&str; 2] = ["office", "home"];
    let mut mesh = Mesh::three_sites()?;
    let (office, home) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&office, &home, home.ip4()?.into(), 100)?;
    let barn = key_of(&mesh, "barn")?;
    ["office", "home", "barn"].iter().for_each(|router| mesh.forget_interface(router));
    for router in AWAY {
        mesh.lab.partition("coordinator", router)?;
    }
    mesh.admin(&["network", "delete", NETWORK, "--force"])?;
    eventually(CUT_OFF, "barn, which can hear it, is out", || is_out(&mesh, "barn"))?;
    wait_until_untold(&mesh, &AWAY)?;

    for router in AWAY {
        mesh.daemon(router)?.kill(Signal::SIGKILL)?;
        mesh.daemon(router)?.wait(SOON)?;
        mesh.start_daemon(router)?;
    }
    mesh.coordinator.restart()?;
    eventually(SOON, "the coordinator answers", || mesh.admin(&["status"]))?;
    wait_until_untold(&mesh, &AWAY)?;
    let count = stream.arrived();
    eventually(SOON, "the network lives on", || stream.arrived() > count + 200)?;
    for router in AWAY {
        ensure!(mesh.status(router)?["control"] == "connecting", "{}", mesh.status(router)?["control"]);
        ensure!(knows(&mesh, router, &barn)?, "{router} has heard something");
    }

    mesh.lab.heal()?;
    let healed = Instant::now();
    for router in AWAY {
        eventually(COMES_BACK, &format!("{router} is out"), || is_out(&mesh, router))?;
        mesh.wait_until_settled(router)?;
    }
    let last = wait_until_ended(&stream)?;
    println!("the last packet came {:?} after the coordinator was in reach, at the latest", last - healed);
    ensure!(ping(&office, home.ip4()?.into()).is_err() && ping(&home, office.ip4()?.into()).is_err());
    wait_until_untold(&mesh, &[])?;

    mesh.coordinator.restart()?;
    eventually(SOON, "the coordinator answers", || mesh.admin(&["status"]))?;
    wait_until_untold(&mesh, &[])?;
    for router in AWAY {
        is_out(&mesh, router)?;
    }
    Ok(())
}

/// A router that leaves and joins with a fresh code is another node: it has new keys, and an address that nobody had.
#[test]
fn router_that_leaves_and_rejoins_is_another_node() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let mut had = vec![mesh.overlay("home")?];
    let mut keys = vec![key_of(&mesh, "home")?, key_of(&mesh, "office")?];
    for removed_first in [true, false] {
        mesh.forget_interface("home");
        if removed_first {
            mesh.admin(&["node", "remove", NETWORK, "home"])?;
            eventually(CUT_OFF, "its tunnel is down", || is_out(&mesh, "home"))?;
        }
        mesh.gatewrt("home", &["leave", NETWORK])?;
        ensure!(!mesh.host("home")?.exists(&file_of("identity.json"))?);
        if !removed_first {
            mesh.admin(&["node", "remove", NETWORK, "home"])?;
        }
        let code = mesh.code(1)?;
        mesh.gatewrt("home", &["join", &code, "--name", "home"])?;
        mesh.wait_for_peers(&["office", "home"])?;
        let (addresses, key) = (mesh.overlay("home")?, key_of(&mesh, "home")?);
        ensure!(
            had.iter().flatten().all(|old| !addresses.contains(old)),
            "{addresses:?} was given before: {had:?}"
        );
        ensure!(!keys.contains(&key), "the old key");
        had.push(addresses);
        keys.push(key);
    }
    mesh.serve_lans(&["home"], false)?;
    mesh.wait_for_lans(&["office-pc", "home-pc"])
}

/// Removes a node, and measures the time until every peer has dropped it and the stream through it has ended.
fn remove_and_measure(mesh: &Mesh, node: &str, peers: &[&str], stream: &UdpStream) -> Result<()> {
    let key = key_of(mesh, node)?;
    ensure!(
        peers
            .iter()
            .map(|peer| knows(mesh, peer, &key))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|known| *known)
    );
    eventually(SOON, "the stream runs", || stream.arrived() > 0)?;
    let start = Instant::now();
    mesh.admin(&["node", "remove", NETWORK, node])?;
    for peer in peers {
        eventually(CUT_OFF, &format!("{peer} has dropped {node}"), || {
            let known = knows(mesh, peer, &key)?;
            ensure!(!known, "it has not");
            Ok::<_, anyhow::Error>(())
        })?;
        println!("{peer} dropped {node} {:?} after its removal was asked for", start.elapsed());
    }
    let last = wait_until_ended(stream)?;
    println!(
        "the last packet through {node} came {:?} after its removal was asked for, at the latest",
        last - start
    );
    ensure!(last - start < CUT_OFF, "packets came for {:?}", last - start);
    Ok(())
}

/// Waits until a stream has ended; returns the time of its last packet, at the latest.
fn wait_until_ended(stream: &UdpStream) -> Result<Instant> {
    let (mut count, mut last) = (stream.arrived(), Instant::now());
    eventually(CUT_OFF + QUIET, "the stream has ended", || {
        if stream.arrived() != count {
            (count, last) = (stream.arrived(), Instant::now());
        }
        last.elapsed() >= QUIET
    })?;
    Ok(last)
}

/// Waits until these are the removed nodes that the coordinator has not told yet.
fn wait_until_untold(mesh: &Mesh, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|node| (*node).to_owned()).collect();
    eventually(SOON, &format!("{expected:?} are not told yet"), || {
        let status = mesh.admin_json(&["status"])?;
        let untold = status["untold"].as_array().cloned().unwrap_or_default();
        let names = untold.iter().map(|node| node["name"].as_str().unwrap_or_default().to_owned());
        let names: BTreeSet<String> = names.collect();
        ensure!(names == expected, "{names:?}");
        Ok(())
    })
}

/// Asserts that the certificate of a removed node is good for reading its own end, and for nothing else.
fn reads_its_end_alone(mesh: &Mesh, stolen: &Stolen) -> Result<()> {
    let mut client = stolen.connect(&mesh.host("home")?)?;
    for filter in Topic::filters_of(stolen.net, stolen.node) {
        ensure!(client.subscribe(&filter)?, "{filter}: a daemon takes a refusal for a fault");
    }
    ensure!(!client.subscribe(&format!("{ROOT}/net/+/roster"))?);
    let mut read = Vec::new();
    eventually(SOON, "it reads something", || {
        read.extend(client.take());
        !read.is_empty()
    })?;
    let own = Topic::Member(stolen.net, stolen.node).to_string();
    ensure!(read.iter().all(|publish| publish.topic == own), "{read:?}");
    client.wait_for_end(SOON)
}

fn knows(mesh: &Mesh, router: &str, key: &str) -> Result<bool> {
    Ok(mesh.host(router)?.run(&["wg", "show", INTERFACE, "peers"])?.stdout.contains(key))
}

/// The WireGuard key of a node, as the coordinator has it.
fn key_of(mesh: &Mesh, node: &str) -> Result<String> {
    let shown = mesh.admin_json(&["node", "show", NETWORK, node])?;
    shown["key"].as_str().map(str::to_owned).context("a key")
}

/// Asserts that a removed node has no interface, and that its status says why.
fn is_out(mesh: &Mesh, router: &str) -> Result<()> {
    let status = mesh.status(router)?;
    ensure!(status["control"] == "removed", "{}", status["control"]);
    let failures = status["failures"].to_string();
    ensure!(failures.contains("the coordinator removed this node"), "{failures}");
    let link = mesh.host(router)?.output(&["ip", "link", "show", "dev", INTERFACE])?;
    ensure!(!link.success(), "{}", link.stdout);
    Ok(())
}

/// Waits until the node is out and settled, and asserts that it stays out.
fn stays_out(mesh: &Mesh, stolen: &Stolen, when: &str) -> Result<()> {
    eventually(SOON, &format!("it is out {when}"), || is_out(mesh, "home"))?;
    mesh.wait_until_settled("home")?;
    let nodes = mesh.admin_json(&["node", "list", NETWORK])?;
    let mut nodes = nodes.as_array().context("a list")?.iter();
    ensure!(nodes.all(|node| node["id"] != stolen.node.to_string()), "it is listed");
    is_out(mesh, "home")
}

/// Asserts that a new code is refused with the old keys; a file as an unfinished join leaves it makes the daemon use
/// them.
fn join_with_old_keys(mesh: &Mesh, stolen: &Stolen) -> Result<()> {
    let code = mesh.code(1)?;
    let parsed: JoinCode = code.parse().map_err(anyhow::Error::msg)?;
    let hash = JoinCode::secret_hash(&parsed.secret);
    let home = mesh.host("home")?;
    home.write_file(&format!("/etc/gatewrt/.join-{}.json", &hash[..16]), stolen.keys.to_string())?;
    let refused = home.output(&["gatewrt", "join", &code])?;
    println!("{}", refused.stderr.trim());
    let says = "belongs to the removed node home already";
    ensure!(refused.code() == 1 && refused.stderr.contains(says), "{refused:?}");
    Ok(())
}

/// Asserts that no peer answers a WireGuard interface that was set up by hand with the old private key.
fn tunnel_by_hand(home: &Host, stolen: &Stolen, peers: &Value, target: IpAddr) -> Result<()> {
    home.run(&["wireguard-go", "by-hand"])?;
    home.write_file("/run/key", format!("{}\n", stolen.wireguard))?;
    home.run(&["wg", "set", "by-hand", "listen-port", "51820", "private-key", "/run/key"])?;
    for peer in peers.as_array().context("peers")? {
        let text = |key: &str| peer[key].as_str().with_context(|| format!("a {key} of {peer}"));
        let address = format!("{}/32", peer["addresses"][0].as_str().context("an address")?);
        let (key, endpoint) = (text("key")?, text("endpoint")?);
        let set = ["wg", "set", "by-hand", "peer", key, "endpoint", endpoint, "allowed-ips", &address];
        home.run(&[&set[..], &["persistent-keepalive", "1"]].concat())?;
    }
    home.shell(&format!("ip link set by-hand up; ip route add {target} dev by-hand"))?;
    let answer = home.output(&["ping", "-c", &TWO_HANDSHAKES.to_string(), "-W", "1", &target.to_string()])?;
    ensure!(!answer.success(), "{}", answer.stdout);
    let shown = home.run(&["wg", "show", "by-hand", "dump"])?.stdout;
    for peer in shown.lines().skip(1) {
        let fields: Vec<&str> = peer.split('\t').collect();
        let [.., handshake, received, sent, _] = fields[..] else { anyhow::bail!("{peer}") };
        println!("by hand: handshake {handshake}, {received} bytes received, {sent} sent");
        ensure!(handshake == "0" && received == "0" && sent != "0", "{peer}");
    }
    Ok(())
}
