//! The core, NAT boxes, links and addresses.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::*;

use super::*;

#[test]
fn three_sites_start_in_time_and_reach_each_other() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::three_sites()?;
    let took = start.elapsed();
    eprintln!("three sites are up in {took:?}");
    ensure!(took < Duration::from_millis(1500), "the lab took {took:?}");
    let (web, office, barn) = (lab.host("web")?, lab.host("office")?, lab.host("barn")?);
    for from in [&office, &barn, &lab.host("coordinator")?] {
        ping(from, ip(web.ip4()?))?;
        ping(from, ip(web.ip6()?))?;
    }
    ping(&web, ip(office.ip4()?))?;
    ping(&web, ip(barn.ip6()?))?;
    ping(&lab.host("barn-pc")?, ip(web.ip4()?))?;
    ensure!(ping(&web, ip(barn.ip4()?)).is_err(), "the address behind the NAT box is private");
    ensure!(
        ping(&lab.host("office-pc")?, ip(lab.host("home-pc")?.ip4()?)).is_err(),
        "LANs are not joined by the core"
    );
    ensure!(ping(&lab.host("office-pc")?, ip(lab.host("home-pc")?.ip6()?)).is_err(), "nor are they in IPv6");
    Ok(())
}

#[test]
fn nat_hides_the_source_and_public_ipv6_does_not() -> Result<()> {
    let lab = build(
        "[server.web]\n[nat.isp]\n[router.a]\nlan = '192.168.1.0/24'\nlan6 = '2001:db8:a000::/64'\nhosts = ['a-pc']\n\
         [router.b]\nwan = 'isp'\nlan = '192.168.1.0/24'\nlan6 = '2001:db8:b000::/64'\nhosts = ['b-pc']",
    )?;
    let web = lab.host("web")?;
    let _whoami = Whoami::start(&web)?;
    for (pc, router) in [("a-pc", "a"), ("b-pc", "b")] {
        let (pc, router) = (lab.host(pc)?, lab.host(router)?);
        assert_eq!(fetch(&pc, &format!("http://{}/", web.ip4()?))?, router.public4()?.to_string());
        assert_eq!(fetch(&pc, &format!("http://[{}]/", web.ip6()?))?, pc.ip6()?.to_string());
    }
    Ok(())
}

#[test]
fn easy_nat_keeps_the_port_and_symmetric_nat_picks_one_per_destination() -> Result<()> {
    assert_eq!(mapped_ports("easy")?, [4500, 4500]);
    let [x, y] = mapped_ports("symmetric")?;
    ensure!(x != y && x != 4500, "ports {x} and {y}");
    Ok(())
}

/// Source ports that two servers see of one socket behind a NAT box.
fn mapped_ports(kind: &str) -> Result<[u16; 2]> {
    let lab = build(&format!("[server.x]\n[server.y]\n[nat.isp]\nkind = '{kind}'\n[router.r]\nwan = 'isp'"))?;
    let client = lab.host("r")?.in_netns(|| std::net::UdpSocket::bind("0.0.0.0:4500"))??;
    let see = |server: &str| -> Result<u16> {
        let server = lab.host(server)?;
        let socket = server.in_netns(|| std::net::UdpSocket::bind("0.0.0.0:4500"))??;
        socket.set_read_timeout(Some(SOON))?;
        client.send_to(b"who am I", (server.ip4()?, 4500))?;
        Ok(socket.recv_from(&mut [0; 16]).context("the packet came through")?.1.port())
    };
    Ok([see("x")?, see("y")?])
}

#[test]
fn nat_box_admits_only_what_it_forwards() -> Result<()> {
    let lab = build("[server.web]\n[nat.isp]\nforward = ['51820/udp=r']\n[router.r]\nwan = 'isp'")?;
    let (web, router) = (lab.host("web")?, lab.host("r")?);
    let open = router.in_netns(|| std::net::UdpSocket::bind("0.0.0.0:51820"))??;
    let shut = router.in_netns(|| std::net::UdpSocket::bind("0.0.0.0:51821"))??;
    let outside = web.in_netns(|| std::net::UdpSocket::bind("0.0.0.0:0"))??;
    for (port, text) in [(51821, b"shut"), (51820, b"open")] {
        outside.send_to(text, (router.public4()?, port))?;
    }
    let mut packet = [0; 4];
    open.set_read_timeout(Some(SOON))?;
    let (_, source) = open.recv_from(&mut packet)?;
    assert_eq!((&packet, source.ip()), (b"open", ip(web.ip4()?)));
    // The packet to the unforwarded port was sent first, so it would have arrived by now.
    shut.set_nonblocking(true)?;
    ensure!(shut.recv_from(&mut packet).is_err(), "an unforwarded port is open");
    Ok(())
}

#[test]
fn links_go_down_and_the_wan_address_changes() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (office, pc, web) = (lab.host("office")?, lab.host("office-pc")?, lab.host("web")?);
    let before = office.dump()?;
    office.link_down("wan")?;
    ensure!(ping(&office, ip(web.ip4()?)).is_err());
    office.link_up("wan")?;
    ping(&office, ip(web.ip4()?))?;
    ping(&office, ip(web.ip6()?))?;
    assert_same(&before, &office.dump()?);

    let (old, index) = (office.ip4()?, office.ifindex("wan")?);
    office.change_wan_address()?;
    ensure!(office.ip4()? != old && office.ifindex("wan")? == index);
    let _whoami = Whoami::start(&web)?;
    assert_eq!(fetch(&pc, &format!("http://{}/", web.ip4()?))?, office.ip4()?.to_string());
    assert_eq!(fetch(&office, &format!("http://[{}]/", web.ip6()?))?, office.ip6()?.to_string());
    ensure!(ping(&web, ip(old)).is_err(), "the old address still answers");
    office.reboot()?;
    ping(&web, ip(office.ip4()?))?;
    office.set_mtu("wan", 1400)?;
    ensure!(office.output(&["ping", "-c1", "-W1", "-Mdo", "-s1400", &web.ip4()?.to_string()])?.code() != 0);
    Ok(())
}

#[test]
fn labs_in_parallel_do_not_interfere() -> Result<()> {
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let lab = Lab::two_sites()?;
            let (pc, web) = (lab.host("office-pc")?, lab.host("web")?);
            let _whoami = Whoami::start(&web)?;
            let seen = fetch(&pc, &format!("http://{}/", web.ip4()?))?;
            ensure!(seen == lab.host("office")?.ip4()?.to_string());
            Ok(())
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}
