//! Phones and laptops with a plain WireGuard app and a generated file: the hosts that they reach, the hosts that reach
//! them, and the time until a change takes effect.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Download, Host, UdpStream, Whoami, eventually, fetch, ping},
    mesh::{
        Mesh, NETWORK,
        clients::{ONE_HANDSHAKE, all_answer, all_connect},
    },
    phone::{Phone, check_file, edited, values},
    wg,
};
use nix::sys::signal::Signal;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
/// Longest time from an admin's command to its effect at the gateway.
const EFFECT: Duration = Duration::from_secs(2);
const NEW_PREFIX: &str = "172.20.0.0/16";
const DNS: [&str; 2] = ["192.168.10.53", "fd00:10::53"];

fn both(host: &Host) -> Result<[IpAddr; 2]> {
    Ok([host.ip4()?.into(), host.ip6()?.into()])
}

fn url(address: IpAddr) -> String {
    if address.is_ipv6() { format!("http://[{address}]/") } else { format!("http://{address}/") }
}

/// Waits until the server at each address has seen the source address that `expected` has for it.
fn wait_until_seen(from: &Host, servers: &[IpAddr], expected: &[IpAddr]) -> Result<()> {
    for (server, expected) in servers.iter().zip(expected) {
        let what = format!("{} sees {} as {expected}", server, from.name());
        eventually(ONE_HANDSHAKE, &what, || -> Result<()> {
            let seen = fetch(from, &url(*server))?;
            ensure!(seen == expected.to_string(), "it sees {seen}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A phone with the generated file alone reaches the gateway, another node and a host behind it, over IPv4 and IPv6
/// through an IPv4 tunnel. The rest of the Internet is reached as before, and the DNS is as set.
#[test]
fn phone_with_its_file_alone_reaches_the_network() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let (host, nas, web) = (mesh.host("phone")?, mesh.host("nas")?, mesh.host("web")?);
    let _servers = [Whoami::start(&nas)?, Whoami::start(&web)?];
    let dns = ["--dns", DNS[0], "--dns", DNS[1]];
    let file = mesh.add_client("phone", "office", &[&dns, ["--psk"].as_slice()].concat())?;
    check_file(&host, &file)?;
    ensure!(!values(&file, "PresharedKey").is_empty(), "a preshared key was asked for");
    let phone = mesh.phone_with("phone", "office", &file)?;

    for address in mesh.overlay("home")? {
        eventually(SOON, "another node answers", || ping(&host, address))?;
    }
    wait_until_seen(&host, &both(&nas)?, &phone.addresses()?)?;
    assert_eq!(fetch(&host, &url(web.ip4()?.into()))?, host.public4()?.to_string(), "split: not through us");
    let wanted = DNS.map(|dns| dns.parse::<IpAddr>().expect("an address"));
    assert_eq!(phone.dns()?, wanted);
    Ok(())
}

/// Clients with a full tunnel, behind any NAT, are seen on the Internet as their gateway, over IPv4 and IPv6; they
/// reach the network as well.
#[test]
fn full_tunnel_phone_reaches_the_internet_and_the_network() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let (nas, web, office) = (mesh.host("nas")?, mesh.host("web")?, mesh.host("office")?);
    let _servers = [Whoami::start(&nas)?, Whoami::start(&web)?];
    for name in ["phone", "laptop"] {
        let file = mesh.add_client(name, "office", &["--full", "--dns", DNS[0]])?;
        // The laptop takes the gateway's IPv6 address, which the phone's provider does not know.
        let over_ipv6 = edited(&file, "Endpoint", &format!("[{}]:51820", office.ip6()?));
        let phone = mesh.phone_with(name, "office", if name == "laptop" { &over_ipv6 } else { &file })?;
        wait_until_seen(phone.host(), &both(&web)?, &both(&office)?)?;
        wait_until_seen(phone.host(), &both(&nas)?, &phone.addresses()?)?;
        assert_eq!(phone.dns()?, [DNS[0].parse::<IpAddr>()?]);
    }
    Ok(())
}

/// A phone may open connections and accepts none; made reachable, it accepts them; made unreachable again, the accepted
/// ones are cut.
#[test]
fn phone_that_is_not_reachable_accepts_no_connection() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let phone = mesh.phone("phone", "office", &[])?;
    let (addresses, _server) = (phone.addresses()?, Whoami::start(phone.host())?);
    let (nas, callers) = (mesh.host("nas")?, ["nas", "office-pc", "home", "office"]);
    let _nas = Whoami::start(&nas)?;
    wait_until_seen(phone.host(), &both(&nas)?, &addresses)?;
    let callers = callers.map(|name| mesh.host(name)).into_iter().collect::<Result<Vec<_>>>()?;
    // Access rules do not cover the gateway's own packets.
    let (others, gateway) = callers.split_at(3);
    for caller in others {
        all_answer(caller, &addresses, false).with_context(|| format!("from {}", caller.name()))?;
        all_connect(caller, &addresses, 80, false).with_context(|| format!("from {}", caller.name()))?;
    }
    let replies = UdpStream::start_echo(phone.host(), &nas, nas.ip4()?.into(), 100)?;

    reachable(&mesh, "phone", "on")?;
    for caller in others.iter().chain(gateway) {
        let what = format!("{} opens connections to the phone", caller.name());
        eventually(EFFECT, &what, || all_answer(caller, &addresses, true))?;
        all_connect(caller, &addresses, 80, true)?;
    }
    let upload = Download::start(&nas, phone.host(), addresses[0])?;
    let start = Instant::now();
    reachable(&mesh, "phone", "off")?;
    upload.wait_until_cut(start, EFFECT)?;
    for caller in others {
        all_answer(caller, &addresses, false).with_context(|| format!("from {}", caller.name()))?;
    }
    replies.finish()?.assert_lossless();
    Ok(())
}

fn reachable(mesh: &Mesh, name: &str, switch: &str) -> Result<()> {
    mesh.admin(&["client", "reachable", NETWORK, name, switch]).map(drop)
}

/// A phone is disabled in the middle of a download, enabled again, and deleted: then its key is refused.
#[test]
fn disabled_phone_loses_its_download_and_deleted_key_is_dead() -> Result<()> {
    let mut mesh = Mesh::with_phones()?;
    let nas = mesh.host("nas")?;
    let file = mesh.add_client("phone", "office", &[])?;
    let phone = mesh.phone_with("phone", "office", &file)?;
    let other = mesh.phone("laptop", "office", &[])?;
    let key = mesh.client("phone")?["key"].as_str().context("a key")?.to_owned();
    eventually(SOON, "the laptop reaches the nas", || ping(other.host(), nas.ip4()?.into()))?;
    let bystander = UdpStream::start_echo(other.host(), &nas, nas.ip4()?.into(), 100)?;

    eventually(SOON, "the phone reaches the nas", || ping(phone.host(), nas.ip4()?.into()))?;
    let download = Download::start(phone.host(), &nas, nas.ip4()?.into())?;
    let start = Instant::now();
    mesh.admin(&["client", "disable", NETWORK, "phone"])?;
    download.wait_until_cut(start, EFFECT)?;
    ensure!(!mesh.has_peer("office", &key)?, "the peer is gone");
    assert_no_flow(&mesh, "office", phone.addresses()?[0])?;
    assert_eq!(mesh.client("phone")?["state"], "disabled");

    let start = Instant::now();
    mesh.admin(&["client", "enable", NETWORK, "phone"])?;
    mesh.wait_for_peer("office", &key, true, EFFECT)?;
    eventually(ONE_HANDSHAKE, "the phone is back", || ping(phone.host(), nas.ip4()?.into()))?;
    eprintln!("enabled: back after {:?}", start.elapsed());

    mesh.admin(&["client", "delete", NETWORK, "phone"])?;
    mesh.wait_for_peer("office", &key, false, EFFECT)?;
    bystander.finish()?.assert_lossless();
    let again =
        mesh.admin_output(&["client", "add", NETWORK, "other", "--gateway", "office", "--key", &key])?;
    ensure!(!again.success(), "a deleted key is taken again");
    mesh.daemon("office")?.kill(Signal::SIGKILL)?;
    mesh.daemon("office")?.wait(SOON)?;
    mesh.start_daemon("office")?;
    let host = phone.down()?;
    let phone = Phone::up(&host, &file)?;
    all_answer(&host, &[mesh.overlay("office")?[0], nas.ip4()?.into()], false)?;
    ensure!(phone.handshake()? == 0 && !mesh.has_peer("office", &key)?, "a deleted key shook hands");
    Ok(())
}

/// Asserts that a router tracks no established connection of an address.
fn assert_no_flow(mesh: &Mesh, router: &str, address: IpAddr) -> Result<()> {
    let flows = mesh.host(router)?.output(&["conntrack", "-L", "-s", &address.to_string()])?.stdout;
    // Packets that it still sends are tracked at most as unanswered attempts.
    let standing: Vec<&str> = flows.lines().filter(|line| line.contains("ASSURED")).collect();
    ensure!(standing.is_empty(), "{standing:?}");
    Ok(())
}

/// An expired client is cut off without an admin's command.
#[test]
fn expired_phone_is_cut_off() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let file = mesh.add_client("phone", "office", &["--expires", "6s"])?;
    let start = Instant::now();
    let key = mesh.client("phone")?["key"].as_str().context("a key")?.to_owned();
    let phone = mesh.phone_with("phone", "office", &file)?;
    mesh.wait_for_peer("office", &key, false, Duration::from_secs(6) + EFFECT)?;
    eprintln!("to expire after 6 s: gone after {:?}", start.elapsed());
    ensure!(start.elapsed() > Duration::from_secs(4), "too early");
    all_answer(phone.host(), &mesh.overlay("office")?, false)?;
    assert_eq!(mesh.client("phone")?["state"], "expired");
    Ok(())
}

/// A client's file without a new prefix is stale. A reissued file has a new key and the same addresses, and the old key
/// is revoked. A client with two gateways moves to the other one when its file is reissued for that gateway.
#[test]
fn reissued_phone_has_a_new_key_and_can_move() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    mesh.admin(&["ingress", "set", NETWORK, "home"])?;
    let nas = mesh.host("nas")?;
    let _server = Whoami::start(&nas)?;
    let old = mesh.add_client("phone", "office", &["--gateway", "home"])?;
    let phone = mesh.phone_with("phone", "office", &old)?;
    let addresses = phone.addresses()?;
    let old_key = mesh.client("phone")?["key"].as_str().context("a key")?.to_owned();
    mesh.serve("home", NEW_PREFIX, true)?;
    let stale = mesh.client("phone")?["stale"].to_string();
    ensure!(stale.contains(NEW_PREFIX), "the file does not know {NEW_PREFIX}: {stale}");

    let issued = mesh.admin_json(&["client", "reissue", NETWORK, "phone"])?;
    let new = issued["config"].as_str().context("a config")?.to_owned();
    ensure!(values(&new, "AllowedIPs").iter().any(|prefix| prefix == NEW_PREFIX), "the new one does");
    ensure!(mesh.client("phone")?["stale"].as_array().is_some_and(Vec::is_empty), "it is fresh");
    ensure!(values(&new, "PrivateKey") != values(&old, "PrivateKey"), "a new key");
    mesh.wait_for_peer("office", &old_key, false, EFFECT)?;
    let host = phone.down()?;
    let phone = mesh.phone_with("phone", "office", &new)?;
    assert_eq!(phone.addresses()?, addresses);
    wait_until_seen(&host, &both(&nas)?, &addresses)?;

    let issued = mesh.admin_json(&["client", "reissue", NETWORK, "phone", "--gateway", "home"])?;
    let moved = issued["config"].as_str().context("a config")?.to_owned();
    phone.down()?;
    let phone = mesh.phone_with("phone", "home", &moved)?;
    ensure!(phone.addresses()? != addresses, "a seat on the other gateway");
    for site in [&nas, &mesh.host("office-pc")?] {
        for address in both(site)? {
            eventually(SOON, &format!("the moved phone reaches {}", site.name()), || ping(&host, address))?;
        }
    }
    let new_key = wg::peers(&mesh.host("home")?)?;
    ensure!(!new_key.contains_key(&old_key), "the old key is nowhere");
    Ok(())
}

/// A laptop has a LAN of its own: a host of another site and a host on that LAN reach each other.
#[test]
fn prefix_behind_a_client_is_reached_from_another_site() -> Result<()> {
    let mesh = Mesh::with_phones()?;
    let prefixes = mesh.lans("laptop")?;
    let behind = ["--prefix", &prefixes[0], "--prefix", &prefixes[1]];
    let _laptop = mesh.phone("laptop", "office", &behind)?;
    let (camera, nas) = (mesh.host("camera")?, mesh.host("nas")?);
    let _servers = [Whoami::start(&camera)?, Whoami::start(&nas)?];
    wait_until_seen(&nas, &both(&camera)?, &both(&nas)?)?;
    wait_until_seen(&camera, &both(&nas)?, &both(&camera)?)?;
    mesh.admin(&["client", "disable", NETWORK, "laptop"])?;
    eventually(EFFECT, "it is gone with its client", || all_answer(&nas, &both(&camera)?, false))?;
    Ok(())
}

/// Each added client costs one message to its gateway, and none to any other node.
#[test]
fn two_hundred_clients_change_only_their_gateway() -> Result<()> {
    const CLIENTS: u64 = 200;
    let mesh = Mesh::with_phones()?;
    mesh.add_client("first", "office", &[])?;
    let kinds = ["member", "roster", "policy", "assignment"];
    let count = |router: &str| -> Result<Vec<u64>> {
        kinds.iter().map(|kind| mesh.delivered(router, kind)).collect()
    };
    eventually(SOON, "the gateway lets the first one in", || -> Result<()> {
        ensure!(wg::peers(&mesh.host("office")?)?.len() == 2);
        Ok(())
    })?;
    let before = [count("office")?, count("home")?];
    let start = Instant::now();
    let script = format!(
        "seq {CLIENTS} | xargs -P 2 -I N gatewrt-coordinator --no-wait --json client add {NETWORK} many-N --gateway office >/dev/null"
    );
    mesh.host("coordinator")?.command(&["sh", "-ec", &script]).timeout(SOON * 9).run()?;
    eprintln!("{CLIENTS} clients added in {:?}", start.elapsed());
    eventually(SOON, "the gateway lets all in", || -> Result<()> {
        let peers = wg::peers(&mesh.host("office")?)?.len() as u64;
        ensure!(peers == CLIENTS + 2, "{peers} peers");
        Ok(())
    })?;
    eprintln!("all in after {:?}", start.elapsed());
    let after = [count("office")?, count("home")?];
    let news = [0, 1].map(|at| after[at].iter().zip(&before[at]).map(|(a, b)| a - b).collect::<Vec<_>>());
    eprintln!("{kinds:?} delivered: office {:?}, home {:?}", news[0], news[1]);
    assert_eq!(news[0], [0, 0, 0, CLIENTS]);
    assert_eq!(news[1], [0, 0, 0, 0]);
    Ok(())
}

/// The gateway reboots without a coordinator, its daemon is killed, and someone flushes its firewall.
#[test]
fn phone_survives_reboots_and_faults_of_its_gateway() -> Result<()> {
    let mut mesh = Mesh::with_phones()?;
    let (nas, phone) = (mesh.host("nas")?, mesh.phone("phone", "office", &[])?);
    eventually(SOON, "the phone reaches the nas", || ping(phone.host(), nas.ip4()?.into()))?;
    let stream = UdpStream::start_echo(phone.host(), &nas, nas.ip4()?.into(), 100)?;
    let key = mesh.client("phone")?["key"].as_str().context("a key")?.to_owned();
    let handshake = wg::peers(&mesh.host("office")?)?[&key].handshake;
    for _ in 0..3 {
        mesh.daemon("office")?.kill(Signal::SIGKILL)?;
        mesh.daemon("office")?.wait(SOON)?;
        mesh.start_daemon("office")?;
        mesh.wait_until_settled("office")?;
    }
    stream.finish()?.assert_lossless();
    ensure!(wg::peers(&mesh.host("office")?)?[&key].handshake == handshake, "no new handshake was needed");

    all_answer(&nas, &phone.addresses()?, false)?;
    mesh.host("office")?.run(&["nft", "delete", "table", "inet", "gatewrt"])?;
    eventually(EFFECT, "the guard is back", || all_answer(&nas, &phone.addresses()?, false))?;

    mesh.wait_until_settled("office")?;
    let newer = format!("/var/run/gatewrt/{NETWORK}/records");
    eventually(SOON, "the latest records are on flash", || -> Result<()> {
        ensure!(!mesh.host("office")?.exists(&newer)?, "{newer} is there");
        Ok(())
    })?;
    mesh.coordinator.stop()?;
    mesh.host("office")?.reboot()?;
    let start = Instant::now();
    mesh.start_daemon("office")?;
    for address in both(&nas)? {
        eventually(ONE_HANDSHAKE, "the phone is back", || ping(phone.host(), address))?;
    }
    eprintln!("the gateway booted with no coordinator: the phone is back after {:?}", start.elapsed());
    all_answer(&nas, &phone.addresses()?, false)
}
