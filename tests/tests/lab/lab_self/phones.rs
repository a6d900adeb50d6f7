//! Phones with a gateway set up by hand, so that the phone is tested without the daemon.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gatewrt_tests::lab::*;
use gatewrt_tests::phone::{Phone, check_file, edited};

use super::*;

/// A file as any gateway's admin may write it, for `phone` at the router `office`.
fn by_hand(lab: &Lab) -> Result<String> {
    let (office, web) = (lab.host("office")?, lab.host("web")?);
    office.shell("wireguard-go by-hand >/dev/null 2>&1")?;
    let key = |at: &Host| -> Result<[String; 2]> {
        let private = at.run(&["wg", "genkey"])?.stdout;
        let public = at.command(&["wg", "pubkey"]).stdin(private.clone()).run()?.stdout;
        Ok([private, public].map(|text| text.trim().to_owned()))
    };
    let ([ours, our_public], [theirs, their_public]) = (key(&office)?, key(&web)?);
    let script = format!(
        "echo {ours} | wg set by-hand listen-port 51820 private-key /dev/stdin peer {their_public} \
           allowed-ips 10.9.0.2/32,fd09::2/128\n\
         ip addr add 10.9.0.1/24 dev by-hand\n ip addr add fd09::1/64 dev by-hand\n ip link set by-hand up"
    );
    office.shell(&script)?;
    office.nft("table inet by-hand { chain out { type nat hook postrouting priority 100; oifname wan masquerade; }; }")?;
    Ok(format!(
        "[Interface]\nPrivateKey = {theirs}\nAddress = 10.9.0.2/32, fd09::2/128\nDNS = 10.9.0.53, fd09::53\n\n\
         [Peer]\nPublicKey = {our_public}\nEndpoint = {}:51820\nAllowedIPs = 10.9.0.0/24, fd09::/64\n",
        office.ip4()?
    ))
}

#[test]
fn phone_with_its_file_alone_connects() -> Result<()> {
    let lab = Lab::phones()?;
    let (office, web, host) = (lab.host("office")?, lab.host("web")?, lab.host("phone")?);
    let file = by_hand(&lab)?;
    let _whoami = Whoami::start(&web)?;
    let urls = [format!("http://{}/", web.ip4()?), format!("http://[{}]/", web.ip6()?)];

    check_file(&host, &file)?;
    ensure!(check_file(&host, &edited(&file, "PublicKey", "no-key")).is_err(), "wg took what is no key");
    let phone = Phone::up(&host, &file)?;
    assert_eq!(phone.addresses()?, ["10.9.0.2".parse::<IpAddr>()?, "fd09::2".parse()?]);
    assert_eq!(phone.dns()?, ["10.9.0.53".parse::<IpAddr>()?, "fd09::53".parse()?]);
    eventually(SOON, "the phone reaches the gateway", || ping(&host, "10.9.0.1".parse()?))?;
    ping(&host, "fd09::1".parse()?)?;
    ensure!(phone.handshake()? > 0);
    assert_eq!(fetch(&host, &urls[0])?, host.public4()?.to_string(), "the rest goes its usual way");

    let host = phone.down()?;
    ensure!(!host.exists("/run/resolvconf/gatewrt")?, "the DNS is taken back");
    let _full = Phone::up(&host, &edited(&file, "AllowedIPs", "0.0.0.0/0, ::/0"))?;
    eventually(SOON, "the Internet sees the gateway", || -> Result<()> {
        ensure!(fetch(&host, &urls[0])? == office.ip4()?.to_string());
        Ok(())
    })?;
    assert_eq!(fetch(&host, &urls[1])?, office.ip6()?.to_string());
    Ok(())
}

#[test]
fn cut_download_is_detected() -> Result<()> {
    let lab = Lab::phones()?;
    let (pc, web) = (lab.host("office-pc")?, lab.host("web")?);
    let download = Download::start(&pc, &web, ip(web.ip4()?))?;
    let uncut = download.wait_until_cut(Instant::now(), Duration::from_millis(300));
    ensure!(uncut.is_err(), "it goes on: {uncut:?}");
    let cut = Instant::now();
    lab.host("office")?.link_down("wan")?;
    ensure!(download.wait_until_cut(cut, SOON)? < Duration::from_secs(1));
    ensure!(!connects(&pc, (web.ip4()?, 80).into())?, "nobody is there");
    Ok(())
}
