//! The lab itself, with real packets: what the other tests rely on holds, and its checkers catch what they are for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gatewrt_tests::lab::*;
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);
/// Set for the copy of this program that owns a lab and is killed.
const OWNER: &str = "GATEWRT_LAB_OWNER";

fn build(topology: &str) -> Result<Lab> {
    Lab::new(&Topology::parse(topology)?)
}

fn ip(address: impl Into<IpAddr>) -> IpAddr {
    address.into()
}

/// The network namespaces that processes, or threads of this one, are in.
fn live_namespaces() -> BTreeSet<String> {
    let namespace = |entry: std::io::Result<std::fs::DirEntry>| {
        let link = std::fs::read_link(entry.ok()?.path().join("ns/net")).ok()?;
        Some(link.display().to_string())
    };
    let entries =
        ["/proc", "/proc/self/task"].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    entries.filter_map(namespace).collect()
}

fn namespaces(hosts: &[Host]) -> Result<BTreeSet<String>> {
    let namespace = |host: &Host| Ok(host.run(&["readlink", "/proc/self/ns/net"])?.stdout.trim().to_owned());
    hosts.iter().map(namespace).collect()
}

fn wait_until_gone(spaces: &BTreeSet<String>) -> Result<()> {
    eventually(SOON, "all namespaces are gone", || spaces.is_disjoint(&live_namespaces()))
}

#[test]
fn three_sites_are_up_in_time_and_reach_each_other() -> Result<()> {
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
fn an_easy_nat_keeps_the_port_and_a_symmetric_one_picks_one_per_destination() -> Result<()> {
    assert_eq!(mapped_ports("easy")?, [4500, 4500]);
    let [x, y] = mapped_ports("symmetric")?;
    ensure!(x != y && x != 4500, "ports {x} and {y}");
    Ok(())
}

#[test]
fn a_nat_box_lets_in_what_it_forwards_and_nothing_else() -> Result<()> {
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
    // It was sent first, so it would be here by now.
    shut.set_nonblocking(true)?;
    ensure!(shut.recv_from(&mut packet).is_err(), "an unforwarded port is open");
    Ok(())
}

#[test]
fn a_reboot_keeps_the_disk_and_the_cables_only() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (router, pc, web) = (lab.host("office")?, lab.host("office-pc")?, lab.host("web")?);
    router.write_file("/etc/config/gatewrt", "config gatewrt 'main'\n")?;
    router.write_file("/var/lib/gatewrt/state", "kept")?;
    for volatile in ["/run/gatewrt/x", "/var/run/wireguard/x", "/tmp/x"] {
        router.write_file(volatile, "lost")?;
    }
    router.run(&["ip", "link", "add", "gw-home", "type", "bridge"])?;
    let daemon = router.spawn(&["sleep", "1000"])?;
    let before = lab.host("home")?.dump()?;
    let plain = Lab::two_sites()?.host("office")?.dump()?;
    router.reboot()?;
    ensure!(!daemon.is_running(), "a process survived the reboot");
    assert_eq!(router.read_file("/etc/config/gatewrt")?, "config gatewrt 'main'\n");
    assert_eq!(router.read_file("/var/lib/gatewrt/state")?, "kept");
    for volatile in ["/run/gatewrt", "/run/wireguard", "/tmp/x"] {
        ensure!(!router.exists(volatile)?, "{volatile} survived the reboot");
    }
    ping(&pc, ip(web.ip4()?))?;
    ping(&router, ip(web.ip6()?))?;
    let without_index = |mut dump: serde_json::Value| {
        dump["addresses"].as_array_mut().into_iter().flatten().for_each(|link| {
            link.as_object_mut().map(|link| (link.remove("ifindex"), link.remove("link_index")));
        });
        dump
    };
    assert_same(&without_index(plain), &without_index(router.dump()?));
    assert_same(&before, &lab.host("home")?.dump()?);
    daemon.restart()?;
    ensure!(daemon.is_running(), "nothing starts after a reboot");
    Ok(())
}

#[test]
fn hosts_do_not_see_each_others_files_nor_change_the_machine() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (office, home) = (lab.host("office")?, lab.host("home")?);
    for path in
        ["/etc/gatewrt/key", "/etc/lab-probe", "/var/lib/lab-probe", "/tmp/lab-probe", "/run/lab-probe"]
    {
        office.write_file(path, "mine")?;
        ensure!(office.exists(path)? && !home.exists(path)?, "{path} is shared");
        ensure!(!std::path::Path::new(path).exists(), "{path} reached the machine itself");
    }
    assert_eq!(office.run(&["uname", "-n"])?.stdout, "office\n");
    ensure!(!home.run(&["ps", "-e"])?.stdout.contains("lab_self"), "a host sees foreign processes");
    Ok(())
}

#[test]
fn a_full_disk_refuses_writes_until_it_is_freed() -> Result<()> {
    let lab = Lab::two_sites()?;
    let office = lab.host("office")?;
    office.fill_disk()?;
    let error = office.write_file("/etc/gatewrt/records", [1; 9000]).expect_err("the disk is full");
    ensure!(format!("{error:#}").contains("No space left"), "{error:#}");
    office.free_disk()?;
    office.write_file("/etc/gatewrt/records", [1; 9000])
}

#[test]
fn commands_report_host_command_exit_and_output() -> Result<()> {
    let lab = build("[server.web]")?;
    let web = lab.host("web")?;
    let error = web.shell("echo said; echo wrong >&2; exit 3").expect_err("it failed").to_string();
    for part in ["on web", "sh -ec", "exit status: 3", "said", "wrong"] {
        ensure!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(web.output(&["sh", "-c", "exit 3"])?.code(), 3);
    assert_eq!(web.command(&["cat"]).stdin("fed").run()?.stdout, "fed");
    assert_eq!(web.command(&["sh", "-c", "echo $COLOUR"]).env("COLOUR", "red").run()?.stdout, "red\n");
    let late = web.command(&["sleep", "60"]).timeout(Duration::from_millis(50)).run();
    ensure!(format!("{:#}", late.expect_err("too late")).contains("no end after 50ms"));
    let missing = format!("{:#}", web.run(&["gatewrt-nowhere"]).expect_err("there is no such program"));
    ensure!(missing.contains("gatewrt-nowhere") && missing.contains("No such file"), "{missing}");
    ensure!(lab.host("nobody").is_err_and(|e| e.to_string().contains("there are core, web")));
    Ok(())
}

#[test]
fn a_process_is_logged_signalled_restarted_and_killed_on_drop() -> Result<()> {
    let lab = build("[server.web]")?;
    let web = lab.host("web")?;
    let process = web.spawn(&[
        "sh",
        "-c",
        "trap 'echo caught; exit 5' TERM; echo ready $$; while :; do sleep 0.01; done",
    ])?;
    process.wait_for_log(SOON, "ready")?;
    ensure!(process.resident_kib()? > 100);
    assert_eq!(process.stop()?.code(), Some(5));
    process.restart()?;
    eventually(SOON, "a second start in the log", || process.log().matches("ready").count() == 2)?;
    process.kill(Signal::SIGKILL)?;
    assert_eq!(process.wait(SOON)?.signal(), Some(9));
    process.restart()?;
    let pid = process.pid();
    drop(process);
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the process outlived its handle");
    Ok(())
}

#[test]
fn a_whole_stream_is_whole() -> Result<()> {
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
fn a_stream_sees_each_lost_and_each_doubled_packet() -> Result<()> {
    let lab = Lab::two_sites()?;
    let (pc, web) = (lab.host("office-pc")?, lab.host("web")?);
    let stream = UdpStream::start(&pc, &web, ip(web.ip4()?), 500)?;
    eventually(SOON, "50 packets", || stream.arrived() >= 50)?;
    // Packets are told by their number: one dies, another comes twice.
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
fn loss_partition_and_isolation_are_seen_and_healed() -> Result<()> {
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
fn a_broken_connection_is_seen() -> Result<()> {
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
fn a_capture_counts_what_its_filter_lets_through() -> Result<()> {
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
fn a_dump_shows_each_kind_of_change_and_nothing_else() -> Result<()> {
    let lab = Lab::two_sites()?;
    let office = lab.host("office")?;
    office.run(&["wireguard-go", "gw-wg"])?;
    office.shell(
        "wg genkey > /tmp/key; wg set gw-wg private-key /tmp/key listen-port 51820; ip link set gw-wg up",
    )?;
    office.nft(
        "table inet t {
           set s { type ipv4_addr; }
           chain c {
             type filter hook input priority 0
             counter accept
           }
         }",
    )?;
    let before = office.dump()?;
    ping(&lab.host("office-pc")?, ip(lab.host("web")?.ip4()?))?;
    assert_same(&before, &office.dump()?);
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let changes = [
        ("ip addr add 10.9.9.9/32 dev wan", "ip addr del 10.9.9.9/32 dev wan", "10.9.9.9"),
        ("ip addr add fd99::9/128 dev wan nodad", "ip addr del fd99::9/128 dev wan", "fd99::9"),
        ("ip link set wan mtu 1490", "ip link set wan mtu 1500", "1490"),
        ("ip link add dumb type bridge", "ip link del dumb", "dumb"),
        ("ip route add 10.99.0.0/16 dev wan table 77", "ip route flush table 77", "10.99.0.0/16"),
        ("ip -6 route add fd99::/16 dev wan", "ip -6 route del fd99::/16 dev wan", "fd99::/16"),
        ("ip rule add priority 99 table 77", "ip rule del priority 99", "99"),
        ("ip -6 rule add priority 98 fwmark 7 table 77", "ip -6 rule del priority 98", "98"),
        ("nft add table ip gatewrt", "nft delete table ip gatewrt", "gatewrt"),
        ("nft add element inet t s '{ 10.1.1.1 }'", "nft delete element inet t s '{ 10.1.1.1 }'", "10.1.1.1"),
        (
            "nft insert rule inet t c tcp dport 22 drop",
            "nft delete rule inet t c handle $(nft -a list chain inet t c \
          | sed -n 's/.*22 drop # handle //p')",
            "22",
        ),
        (
            "sysctl -qw net.ipv4.conf.wan.rp_filter=2",
            "sysctl -qw net.ipv4.conf.wan.rp_filter=0",
            "wan/rp_filter",
        ),
        (
            "sysctl -qw net.ipv6.conf.all.forwarding=0",
            "sysctl -qw net.ipv6.conf.all.forwarding=1",
            "forwarding",
        ),
        (
            &format!("wg set gw-wg peer {key} allowed-ips 10.1.0.0/16"),
            &format!("wg set gw-wg peer {key} remove"),
            key,
        ),
    ];
    for (change, undo, expected) in changes {
        office.shell(change)?;
        let found = differences(&before, &office.dump()?).join("\n");
        ensure!(found.contains(expected), "after {change}: {found:?} does not say {expected:?}");
        office.shell(undo)?;
        let left = differences(&before, &office.dump()?);
        ensure!(left.is_empty(), "after {undo}: {left:#?}");
    }
    Ok(())
}

#[test]
fn the_foreign_kit_sees_every_touch() -> Result<()> {
    let lab = Lab::two_sites()?;
    let office = lab.host("office")?;
    office.shell(
        "ip link add gw-home type bridge; ip addr add 10.7.0.1/24 dev gw-home; ip link set gw-home up",
    )?;
    let kit = Foreign::kit(&office).on_interface("gw-home").in_table(5182).with_rule(777);
    let foreign = kit.place()?;
    foreign.assert_untouched();
    ping(&lab.host("office-pc")?, ip(lab.host("web")?.ip4()?))?;
    foreign.assert_untouched();
    let touches = [
        ("ip addr del 192.0.2.130/26 dev gw-foreign", "ip addr add 192.0.2.130/26 dev gw-foreign"),
        (
            "ip route del 203.0.113.0/24 table 5182",
            "ip route add 203.0.113.0/24 dev gw-foreign proto 77 table 5182",
        ),
        ("ip -6 route flush table 52", "ip -6 route add 2001:db8:f0f0::/48 dev gw-foreign proto 77 table 52"),
        ("ip rule del priority 777", "ip rule add priority 777 fwmark 0x5a000000/0xff000000 table 1"),
        ("ip addr del 192.0.2.200/32 dev gw-home", "ip addr add 192.0.2.200/32 dev gw-home"),
        ("ip link set gw-foreign mtu 1400", "ip link set gw-foreign mtu 1500"),
    ];
    for (touch, undo) in touches {
        office.shell(touch)?;
        let changes = foreign.changes()?;
        ensure!((1..=2).contains(&changes.len()), "after {touch}: {changes:#?}");
        ensure!(std::panic::catch_unwind(|| foreign.assert_untouched()).is_err(), "{touch} passed");
        office.shell(undo)?;
        foreign.assert_untouched();
    }
    // A table that was deleted and written anew is not the one that was there: its handles tell.
    office.shell("nft list table inet fw4 > /tmp/fw4; nft delete table inet fw4; nft -f /tmp/fw4")?;
    ensure!(foreign.changes()?.len() == 1, "{:?}", foreign.changes()?);
    Ok(())
}

#[test]
fn labs_run_in_parallel() -> Result<()> {
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

#[test]
fn nothing_remains_after_drop() -> Result<()> {
    let lab = Lab::two_sites()?;
    let office = lab.host("office")?;
    office.run(&["wireguard-go", "gw-wg"])?;
    let stream = UdpStream::start(&office, &lab.host("web")?, ip(lab.host("web")?.ip4()?), 10)?;
    let spaces = namespaces(&lab.hosts())?;
    ensure!(spaces.is_subset(&live_namespaces()) && spaces.len() == lab.hosts().len());
    drop((stream, lab));
    ensure!(office.run(&["true"]).is_err(), "a dropped lab still runs commands");
    wait_until_gone(&spaces)
}

#[test]
fn nothing_remains_after_a_panic() -> Result<()> {
    let spaces = std::sync::Mutex::new(BTreeSet::new());
    let panicked = std::panic::catch_unwind(|| {
        let lab = Lab::two_sites().expect("a lab");
        *spaces.lock().expect("no other user") = namespaces(&lab.hosts()).expect("namespaces");
        panic!("as a failing test does");
    });
    ensure!(panicked.is_err());
    wait_until_gone(&spaces.into_inner()?)
}

#[test]
fn nothing_remains_when_the_owner_is_killed() -> Result<()> {
    if std::env::var_os(OWNER).is_some() {
        let lab = Lab::two_sites()?;
        let office = lab.host("office")?;
        office.run(&["wireguard-go", "gw-wg"])?;
        let _running = office.spawn(&["sleep", "1000"])?;
        println!("{OWNER} {}", Vec::from_iter(namespaces(&lab.hosts())?).join(" "));
        loop {
            std::thread::park();
        }
    }
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_remains_when_the_owner_is_killed", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = std::io::BufReader::new(owner.stdout.take().context("it is piped")?);
    let lines = std::io::BufRead::lines(stdout).map_while(Result::ok);
    let said = lines.filter_map(|line| line.split_once(OWNER).map(|(_, spaces)| spaces.to_owned())).next();
    let spaces: BTreeSet<String> =
        said.context("the owner built no lab")?.split_whitespace().map(str::to_owned).collect();
    ensure!(spaces.len() > 5 && spaces.is_subset(&live_namespaces()));
    owner.kill()?;
    owner.wait()?;
    wait_until_gone(&spaces)
}

/// Runs the program `lab`.
fn lab(args: &[&str]) -> Result<std::process::Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_lab")).args(args).stdin(Stdio::null()).output()?)
}

/// Ends a lab of the program, also when the test fails.
struct Down<'a>(&'a str);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = lab(&["down", self.0]);
    }
}

#[test]
fn the_program_keeps_a_lab_up_until_it_is_told() -> Result<()> {
    let name = format!("self-test-{}", std::process::id());
    let run = |args: &[&str]| -> Result<String> {
        let output = lab(&[&["--lab", &name], args].concat())?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "lab {args:?}: {}: {stderr}", output.status);
        Ok(stdout)
    };
    let up = run(&["up", "two-sites"])?;
    let down = Down(&name);
    ensure!(up.contains("office-pc (host)") && up.contains("192.168.10.10/24"), "{up}");
    ensure!(run(&["list"])?.lines().any(|line| line == name));
    ensure!(run(&["hosts"])?.contains("office-pc"));
    assert_eq!(run(&["diagram"])?, up.split("\n\n").next().context("a picture")?.to_owned() + "\n");
    let again = lab(&["up", "two-sites", "--name", &name])?;
    ensure!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is up already"));

    let exit =
        lab(&["--lab", &name, "exec", "office", "sh", "-c", "echo to stdout; echo to stderr >&2; exit 42"])?;
    assert_eq!(exit.status.code(), Some(42));
    assert_eq!((&*exit.stdout, &*exit.stderr), (&b"to stdout\n"[..], &b"to stderr\n"[..]));
    let log = run(&["spawn", "web", "lab", "whoami"])?;
    ensure!(std::path::Path::new(log.trim()).exists(), "no log at {log}");
    let missing = lab(&["--lab", &name, "spawn", "web", "no-such-program"])?;
    ensure!(String::from_utf8_lossy(&missing.stderr).contains("on web: there is no program no-such-program"));
    let fetched = eventually(SOON, "the web server answers", || {
        run(&["exec", "office-pc", "curl", "-sf", "http://web"])
    });
    let office = run(&["exec", "office", "ip", "-br", "-4", "addr", "show", "dev", "wan"])?;
    ensure!(office.contains(fetched?.trim()), "{office}");

    run(&["exec", "office", "touch", "/etc/gatewrt/kept", "/run/lost"])?;
    run(&["reboot", "office"])?;
    assert_eq!(
        run(&["exec", "office", "sh", "-c", "ls /etc/gatewrt /run"])?,
        "/etc/gatewrt:\nkept\n\n/run:\n"
    );
    ensure!(run(&["renumber", "office"])?.contains("office now has 198.18."));
    run(&["exec", "office-pc", "ping", "-c1", "-W1", "web"])?;
    let dump: serde_json::Value = serde_json::from_str(&run(&["dump", "office", "--json"])?)?;
    ensure!(dump["routes4"].is_array());
    ensure!(run(&["dump", "office"])?.contains("# ip rule"));

    let spaces: BTreeSet<String> = ["core", "office", "office-pc"]
        .iter()
        .map(|host| Ok(run(&["exec", host, "readlink", "/proc/self/ns/net"])?.trim().to_owned()))
        .collect::<Result<_>>()?;
    ensure!(spaces.is_subset(&live_namespaces()));
    drop(down);
    ensure!(!run(&["list"])?.contains(&name));
    wait_until_gone(&spaces)
}

#[test]
fn the_program_says_what_is_wrong() -> Result<()> {
    for (args, expected) in [
        (&["up", "/nowhere.toml"][..], "read topology /nowhere.toml"),
        (&["down", "no-such-lab"], "the lab no-such-lab is not up"),
        (&["--lab", "no-such-lab", "exec", "pc", "true"], "the lab no-such-lab is not up"),
        (&["up", "three-sites", "--name", "a/b"], "may hold letters"),
    ] {
        let output = lab(args)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains(expected), "lab {args:?}: {said:?}");
    }
    Ok(())
}
