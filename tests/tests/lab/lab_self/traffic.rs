//! Streams, captures and packet loss: each checker catches the faults that it is for.

use anyhow::{Result, ensure};
use gatewrt_tests::lab::*;

use super::*;

#[test]
fn intact_stream_is_reported_lossless() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (pc, web) = (lab.host("office-pc")?, lab.host("web")?);
    let streams = [
        UdpStream::start(&pc, &web, ip(web.ip4()?), 200)?,
        UdpStream::start_echo(&pc, &web, ip(web.ip4()?), 200)?,
        UdpStream::start(&lab.host("office")?, &web, ip(web.ip6()?), 200)?,
    ];
    let tcp = TcpStream::start(&pc, &web, ip(web.ip4()?), 200)?;
    assert_eq!(tcp.source(), ip(lab.host("office")?.ip4()?));
    for stream in &streams {
        eventually(SOON, "100 packets", || stream.arrived() >= 100)?;
    }
    for stream in streams {
        let report = stream.finish()?;
        report.assert_lossless();
        assert_eq!(report.sent, report.received);
    }
    let report = tcp.finish()?;
    report.assert_unbroken();
    ensure!(report.received >= 50, "{report:?}");
    Ok(())
}

#[test]
fn stream_reports_each_lost_and_each_duplicated_packet() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (pc, web) = (lab.host("office-pc")?, lab.host("web")?);
    let stream = UdpStream::start(&pc, &web, ip(web.ip4()?), 500)?;
    eventually(SOON, "50 packets", || stream.arrived() >= 50)?;
    // Packets are identified by their number: one is lost, another comes twice.
    let number = stream.arrived() + 200;
    lab.host("core")?.nft(&format!(
        "table ip probe {{
           chain forward {{
             type filter hook forward priority 0
             meta l4proto udp @th,64,64 {number} drop
             meta l4proto udp @th,64,64 {} dup to {}
           }}
         }}",
        number + 20,
        web.ip4()?
    ))?;
    eventually(SOON, "the packets after it", || stream.arrived() > number + 50)?;
    let report = stream.finish()?;
    assert_eq!((report.lost.as_slice(), report.duplicates), (&[number][..], 1), "{report:?}");
    assert_eq!(report.received, report.sent - 1);
    Ok(())
}

#[test]
fn loss_partition_and_isolation_are_detected_and_healed() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (pc, office, home, web) =
        (lab.host("office-pc")?, lab.host("office")?, lab.host("home")?, lab.host("web")?);
    let stream = UdpStream::start(&pc, &web, ip(web.ip4()?), 500)?;
    lab.set_loss("office-pc", 20)?;
    eventually(SOON, "200 packets through bad weather", || stream.arrived() >= 200)?;
    lab.heal()?;
    let report = stream.finish()?;
    ensure!((20..=100).contains(&report.lost.len()), "20 % of about 250: {report:?}");
    ensure!(std::panic::catch_unwind(|| report.assert_lossless()).is_err(), "the checker let a loss pass");

    lab.partition("office", "home")?;
    ensure!(ping(&office, ip(home.ip4()?)).is_err() && ping(&home, ip(office.ip6()?)).is_err());
    ping(&office, ip(web.ip4()?))?;
    lab.heal()?;
    ping(&office, ip(home.ip4()?))?;
    lab.isolate("office")?;
    ensure!(ping(&office, ip(web.ip6()?)).is_err());
    ping(&home, ip(web.ip4()?))?;
    lab.heal()?;
    ping(&office, ip(web.ip6()?))
}

#[test]
fn broken_connection_is_detected() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (pc, web) = (lab.host("office-pc")?, lab.host("web")?);
    let tcp = TcpStream::start(&pc, &web, ip(web.ip4()?), 100)?;
    lab.host("core")?.nft(
        "table inet cut {
           chain forward {
             type filter hook forward priority 0
             meta l4proto tcp reject with tcp reset
           }
         }",
    )?;
    let report = tcp.finish()?;
    ensure!(report.broken.is_some(), "{report:?}");
    ensure!(
        std::panic::catch_unwind(|| report.assert_unbroken()).is_err(),
        "the checker let a broken connection pass"
    );
    Ok(())
}

#[test]
fn capture_counts_only_what_its_filter_admits() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (office, web) = (lab.host("office")?, lab.host("web")?);
    let capture = Capture::start(&web, "eth0", "icmp[icmptype] == icmp-echo")?;
    for _ in 0..3 {
        ping(&office, ip(web.ip4()?))?;
    }
    ping(&office, ip(web.ip6()?))?;
    capture.wait_for(SOON, 3)?;
    assert_eq!(capture.count(), 3, "{:?}", capture.lines());
    Ok(())
}
