//! A router whose firewall is iptables: the same rules in chains of its own, shown in the status, and removed at the
//! end. (Debian's iptables uses nftables in the kernel; the daemon's own tests run the older one with packets.)

use anyhow::{Result, ensure};
use gatewrt_tests::{
    lab::{Host, UdpStream, Whoami, eventually, fetch},
    mesh::{CONFIG, Mesh},
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const OWNERS: &str = "iptables -A FORWARD -m comment --comment owner -j ACCEPT";

fn saved(router: &Host) -> Result<String> {
    router.shell("iptables-save; ip6tables-save").map(|output| output.stdout)
}

#[test]
fn router_without_nftables_serves_through_iptables() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let (router, office, home) = (mesh.host("office")?, mesh.host("office-pc")?, mesh.host("home-pc")?);
    router.shell(OWNERS)?;
    let stream = UdpStream::start_echo(&home, &office, office.ip4()?.into(), 100)?;
    // The owner's setting takes effect at the next start: our nftables table is deleted once the chains are in place.
    router.write_file(CONFIG, "config gatewrt main\n\toption firewall 'iptables'\n")?;
    ensure!(mesh.daemon("office")?.stop()?.success(), "it ended in order");
    mesh.start_daemon("office")?;
    mesh.wait_until_settled("office")?;
    assert_eq!(mesh.gatewrt_json("office", &["status"])?["firewall"], "iptables");
    assert_eq!(mesh.gatewrt_json("home", &["status"])?["firewall"], "nft");
    stream.finish()?.assert_lossless();
    let tables = router.run(&["nft", "list", "tables"])?.stdout;
    ensure!(!tables.lines().any(|table| table == "table inet gatewrt"), "{tables}");

    let _server = Whoami::start(&office)?;
    let urls = [format!("http://{}/", office.ip4()?), format!("http://[{}]/", office.ip6()?)];
    let hosts = [home.ip4()?.to_string(), home.ip6()?.to_string()];
    let routers = [router.lan4()?.to_string(), router.lan6()?.to_string()];
    for (nat, expected) in [(true, &routers), (false, &hosts)] {
        mesh.serve_lans(&["office"], nat)?;
        for (url, expected) in urls.iter().zip(expected) {
            eventually(SOON, &format!("with NAT {nat} {url} sees {expected}"), || -> Result<()> {
                let seen = fetch(&home, url)?;
                ensure!(seen == *expected, "it sees {seen}");
                Ok(())
            })?;
        }
    }

    mesh.wait_until_settled("office")?;
    let whole = saved(&router)?;
    router.shell("iptables -D FORWARD -j gwrt-forward; ip6tables -F gwrt-forward")?;
    eventually(SOON, "what someone takes away is back", || -> Result<()> {
        let now = saved(&router)?;
        ensure!(rules(&now) == rules(&whole), "{now}");
        Ok(())
    })?;
    mesh.forget_interface("office");
    mesh.gatewrt("office", &["stop", "--teardown"])?;
    ensure!(mesh.daemon("office")?.wait(SOON)?.success(), "it ended in order");
    let left = saved(&router)?;
    ensure!(!left.contains("gwrt-") && left.contains("--comment owner"), "{left}");
    Ok(())
}

/// The rules of `iptables-save`, without counters and times.
fn rules(saved: &str) -> Vec<&str> {
    saved.lines().filter(|line| line.starts_with("-A")).collect()
}
