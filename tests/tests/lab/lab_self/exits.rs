//! The lab's checks for leaks: a rule set by hand that lets nothing out is broken on purpose, and each leak is seen.

use anyhow::{Result, ensure};
use gatewrt_tests::{
    lab::{Answers, Lab, Partners, TrafficGenerator},
    mesh::exits::{NOBODY, leaks},
};
use std::net::IpAddr;

use super::*;

/// A rule set that lets nothing leave but tunnel packets and neighbour discovery.
const CLOSED: &str = "table inet closed {
    chain forward { type filter hook forward priority filter; oifname \"wan\" goto out; }
    chain output { type filter hook output priority filter; oifname \"wan\" goto out; }
    chain out {
        icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
        udp dport 51820 accept
        udp dport 53 goto dns
        meta nfproto ipv4 goto v4
        goto v6
    }
    chain dns { drop; }
    chain v4 { drop; }
    chain v6 { drop; }
}";
const HOSTS: [&str; 3] = ["home-pc", "guest-pc", "home"];

#[test]
fn packets_that_bypass_the_tunnels_are_detected() -> Result<()> {
    let lab = Lab::exits()?;
    let _answers = [Answers::start(&lab.host("web")?)?, Answers::start(&lab.host("resolver")?)?];
    let home = lab.host("home")?;
    let pair =
        |name: &str| -> Result<[IpAddr; 2]> { Ok([ip(lab.host(name)?.ip4()?), ip(lab.host(name)?.ip6()?)]) };
    let partners = Partners { web: pair("web")?, resolver: pair("resolver")? };
    let generators =
        HOSTS.map(|name| lab.host(name).and_then(|host| TrafficGenerator::start(&host, partners)));
    let generators = generators.into_iter().collect::<Result<Vec<_>>>()?;
    let direct = HOSTS.map(|name| Ok([Some(ip(home.ip4()?)), Some(ip(lab.host(name)?.ip6()?))]));
    let direct = direct.into_iter().collect::<Result<Vec<_>>>()?;
    TrafficGenerator::wait_for_all(SOON, &generators.iter().zip(direct).collect::<Vec<_>>())?;
    let nobody: Vec<_> = generators.iter().map(|generator| (generator, NOBODY)).collect();
    home.nft(CLOSED)?;
    TrafficGenerator::wait_for_all(SOON, &nobody)?;
    let capture = leaks(&lab, "home")?;
    TrafficGenerator::wait_for_all(SOON, &nobody)?;
    ensure!(capture.count() == 0, "{:#?}", capture.lines());

    let is_dns = |line: &str| line.contains(".53: ");
    type Is<'a> = &'a dyn Fn(&str) -> bool;
    let kinds: [(&str, Is<'_>); 3] = [
        ("v4", &|line| line.contains(" IP ") && !is_dns(line)),
        ("v6", &|line| line.contains(" IP6 ") && !is_dns(line)),
        ("dns", &|line| is_dns(line)),
    ];
    for (chain, is_it) in kinds {
        let before = capture.count();
        home.run(&["nft", "insert", "rule", "inet", "closed", chain, "accept"])?;
        capture.wait_for(SOON, before + 20)?;
        home.nft(&format!("flush chain inet closed {chain}\nadd rule inet closed {chain} drop\n"))?;
        TrafficGenerator::wait_for_all(SOON, &nobody)?;
        let seen = capture.lines().split_off(before);
        let wrong: Vec<&String> = seen.iter().filter(|line| !is_it(line)).collect();
        ensure!(wrong.is_empty(), "{chain}: {wrong:#?}");
    }
    Ok(())
}
