//! Traffic between sites: hosts on the LANs of several sites reach each other, with and without NAT.

use anyhow::{Result, ensure};
use gatewrt_tests::{
    lab::{UdpStream, Whoami, eventually, fetch},
    mesh::Mesh,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// With NAT off the server sees the host, with NAT on it sees its own router; IPv4 and IPv6, both directions.
#[test]
fn host_reaches_another_sites_host_with_and_without_nat() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let (office, barn) = (mesh.host("office-pc")?, mesh.host("barn-pc")?);
    let _servers = [Whoami::start(&barn)?, Whoami::start(&office)?];
    let urls = [format!("http://{}/", barn.ip4()?), format!("http://[{}]/", barn.ip6()?)];
    let hosts = [office.ip4()?.to_string(), office.ip6()?.to_string()];
    let router = mesh.host("barn")?;
    let routers = [router.lan4()?.to_string(), router.lan6()?.to_string()];
    for (nat, expected) in [(false, &hosts), (true, &routers), (false, &hosts)] {
        mesh.serve_lans(&["barn"], nat)?;
        for (url, expected) in urls.iter().zip(expected) {
            let what = format!("with NAT {} {url} sees {expected}", if nat { "on" } else { "off" });
            eventually(SOON, &what, || -> Result<()> {
                let seen = fetch(&office, url)?;
                ensure!(seen == *expected, "it sees {seen}");
                Ok(())
            })?;
        }
    }
    assert_eq!(fetch(&barn, &format!("http://{}/", office.ip4()?))?.trim(), barn.ip4()?.to_string());
    assert_eq!(fetch(&barn, &format!("http://[{}]/", office.ip6()?))?.trim(), barn.ip6()?.to_string());
    Ok(())
}

/// Switching NAT at one site loses no packet of a stream to another, nor of one to the same site.
#[test]
fn switching_nat_loses_no_packet() -> Result<()> {
    let mesh = Mesh::three_sites()?;
    let (office, home, barn) = (mesh.host("office-pc")?, mesh.host("home-pc")?, mesh.host("barn-pc")?);
    let other = UdpStream::start_echo(&office, &home, home.ip4()?.into(), 100)?;
    let same = UdpStream::start_echo(&office, &barn, barn.ip4()?.into(), 100)?;
    for nat in [true, false, true] {
        mesh.serve_lans(&["barn"], nat)?;
        let wanted = if nat { 2 } else { 0 };
        eventually(SOON, "the rule set marks for masquerade what it should", || -> Result<()> {
            let table = mesh.host("barn")?.run(&["nft", "list", "table", "inet", "gatewrt"])?.stdout;
            let count = table.matches("| 0x02000000 return").count();
            ensure!(count == wanted, "{count} of {wanted}: {table}");
            Ok(())
        })?;
    }
    other.finish()?.assert_lossless();
    same.finish()?.assert_lossless();
    Ok(())
}
