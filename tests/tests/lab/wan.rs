//! Changes of a site's uplink: its tunnels follow, and other sites' tunnels are not disturbed.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, UdpStream, eventually},
    mesh::{INTERFACE, Mesh},
    wg,
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Longest time until the tunnels of a site with a new address work.
const SOON: Duration = Duration::from_secs(5);
/// Longest time behind a NAT box that gets another address: peers learn it when the router sends, at the latest its
/// keepalive.
const KEEPALIVE: Duration = Duration::from_secs(25);
const ROUTERS: [&str; 3] = ["office", "home", "barn"];

/// The site gets a new address, first while packets only come towards it, then while only it sends: the tunnels recover
/// in both cases.
#[test]
fn site_with_a_new_address_keeps_its_tunnels() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let bystanders = both(&mesh, "home-pc", "barn-pc", UdpStream::start_echo)?;
    let before = Tunnels::of(&mesh)?;
    let office = mesh.host("office")?;
    for from in [["home-pc", "barn-pc"], ["office-pc", "office-pc"]] {
        let to = if from[0] == "office-pc" { ["home-pc", "barn-pc"] } else { ["office-pc", "office-pc"] };
        let [[a, b], [c, d]] =
            [both(&mesh, from[0], to[0], UdpStream::start)?, both(&mesh, from[1], to[1], UdpStream::start)?];
        let streams = [a, b, c, d];
        wait_until_flowing(&streams, SOON)?;
        let old = (office.ip4()?, office.ip6()?);
        let start = Instant::now();
        office.change_wan_address()?;
        wait_until_flowing(&streams, SOON)?;
        eprintln!("traffic from {from:?} flows {:?} after the change of address", start.elapsed());
        ensure!(office.ip4()? != old.0 && office.ip6()? != old.1, "both addresses changed");
    }
    check_connected(&mesh, "office")?;
    check_others_untouched(&mesh, &before, "office")?;
    finish(bystanders)
}

/// The same where the tunnels have to run over IPv6, because the Internet carries nothing else.
#[test]
fn site_with_a_new_ipv6_address_keeps_its_tunnels() -> Result<()> {
    let lab = Lab::two_sites()?;
    let core = lab.host("core")?;
    core.nft(
        "table inet v6only {
           chain forward {
             type filter hook forward priority 0
             meta nfproto ipv4 udp dport 51820 drop
           }
         }",
    )?;
    for router in ["office", "home"] {
        let host = lab.host(router)?;
        let text = format!("config network 'home'\n\tlist endpoint '[{}]:51820'\n", host.ip6()?);
        host.write_file("/etc/config/gatewrt", text)?;
    }
    let mesh = Mesh::start(lab, &["office", "home"])?;
    mesh.serve_lans(&["office", "home"], false)?;
    mesh.wait_for_lans(&["office-pc", "home-pc"])?;
    let office = mesh.host("office")?;
    let endpoint = wg::endpoints(&office)?.into_values().next().context("a peer")?;
    ensure!(endpoint.starts_with('['), "the tunnel runs over IPv6: {endpoint}");
    let streams = both(&mesh, "home-pc", "office-pc", UdpStream::start)?;
    wait_until_flowing(&streams, SOON)?;
    let start = Instant::now();
    office.change_wan_address()?;
    wait_until_flowing(&streams, SOON)?;
    eprintln!("traffic flows {:?} after the change of address", start.elapsed());
    Ok(())
}

/// A link is down until the router has given up on the broker several times, and up again.
#[test]
fn tunnels_after_a_link_failure_recover() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let bystanders = both(&mesh, "home-pc", "barn-pc", UdpStream::start_echo)?;
    let before = Tunnels::of(&mesh)?;
    let office = mesh.host("office")?;
    let [a, b] = both(&mesh, "home-pc", "office-pc", UdpStream::start)?;
    let [c, d] = both(&mesh, "office-pc", "barn-pc", UdpStream::start)?;
    let streams = [a, b, c, d];
    wait_until_flowing(&streams, SOON)?;

    office.link_down("wan")?;
    eventually(Duration::from_secs(30), "the broker was tried in vain three times", || {
        let log = mesh.daemon("office").map(|daemon| daemon.log())?;
        let lost = log.matches("control link lost").count();
        ensure!(lost >= 3, "lost {lost} times");
        Ok(())
    })?;
    let start = Instant::now();
    office.link_up("wan")?;
    wait_until_flowing(&streams, SOON)?;
    eprintln!("traffic flows {:?} after the link came back", start.elapsed());
    check_connected(&mesh, "office")?;
    check_others_untouched(&mesh, &before, "office")?;
    finish(bystanders)
}

/// The NAT box in front of a site gets another address, which the router behind it can't see. Its peers learn the
/// address at once if the router sends, and otherwise with its next keepalive.
#[test]
fn site_whose_nat_box_moves_keeps_its_tunnels() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let bystanders = both(&mesh, "home-pc", "office-pc", UdpStream::start_echo)?;
    let before = Tunnels::of(&mesh)?;
    let isp = mesh.host("isp")?;
    for (from, to, deadline) in
        [("barn-pc", "home-pc", SOON), ("home-pc", "barn-pc", KEEPALIVE + Duration::from_secs(5))]
    {
        let streams = both(&mesh, from, to, UdpStream::start)?;
        wait_until_flowing(&streams, SOON)?;
        let start = Instant::now();
        isp.change_wan_address()?;
        wait_until_flowing(&streams, deadline)?;
        eprintln!("traffic from {from} flows {:?} after the change of address", start.elapsed());
    }
    check_others_untouched(&mesh, &before, "barn")?;
    finish(bystanders)
}

type Start = fn(&Host, &Host, IpAddr, u32) -> Result<UdpStream>;

/// Two streams of 100 packets a second, one over IPv4 and one over IPv6.
fn both(mesh: &Mesh, from: &str, to: &str, start: Start) -> Result<[UdpStream; 2]> {
    let (from, to) = (mesh.host(from)?, mesh.host(to)?);
    Ok([start(&from, &to, to.ip4()?.into(), 100)?, start(&from, &to, to.ip6()?.into(), 100)?])
}

/// Waits until each stream has delivered more packets than could have been under way.
fn wait_until_flowing(streams: &[UdpStream], deadline: Duration) -> Result<()> {
    const UNDER_WAY: u64 = 10;
    let before: Vec<u64> = streams.iter().map(UdpStream::arrived).collect();
    eventually(deadline, "all streams flow", || {
        let since: Vec<u64> =
            streams.iter().zip(&before).map(|(stream, was)| stream.arrived() - was).collect();
        ensure!(since.iter().all(|count| *count > UNDER_WAY), "packets since: {since:?}");
        Ok(())
    })
}

fn check_connected(mesh: &Mesh, router: &str) -> Result<()> {
    eventually(SOON, "the control link is up", || {
        let status = mesh.status(router)?;
        ensure!(status["control"] == "connected", "{}: {}", status["control"], status["control_error"]);
        Ok(())
    })
}

fn finish(streams: [UdpStream; 2]) -> Result<()> {
    for stream in streams {
        stream.finish()?.assert_lossless();
    }
    Ok(())
}

/// The tunnels of all routers.
struct Tunnels(BTreeMap<&'static str, Tunnel>);

struct Tunnel {
    key: String,
    ifindex: u32,
    /// Endpoints by the key of the peer.
    endpoints: BTreeMap<String, String>,
}

impl Tunnels {
    fn of(mesh: &Mesh) -> Result<Self> {
        let tunnel = |router| -> Result<_> {
            let host = mesh.host(router)?;
            let (key, ifindex) = (wg::key(&host)?, host.ifindex(INTERFACE)?);
            Ok((router, Tunnel { key, ifindex, endpoints: wg::endpoints(&host)? }))
        };
        Ok(Self(ROUTERS.into_iter().map(tunnel).collect::<Result<_>>()?))
    }
}

/// Asserts that every interface is the same, and that no endpoint changed but those of the router that `moved`.
fn check_others_untouched(mesh: &Mesh, before: &Tunnels, moved: &str) -> Result<()> {
    let after = Tunnels::of(mesh)?;
    let mover = &before.0[moved].key;
    for (router, was) in &before.0 {
        let is = &after.0[router];
        assert_eq!(is.ifindex, was.ifindex, "the interface of {router} is another one");
        let kept = |tunnel: &Tunnel| {
            let others = tunnel.endpoints.iter().filter(|(key, _)| *key != mover);
            others.map(|(key, at)| (key.clone(), at.clone())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(kept(is), kept(was), "{router} sends elsewhere");
    }
    Ok(())
}
