//! Dumps and foreign objects: each kind of change is seen, and nothing else is.

use anyhow::{Result, ensure};
use gatewrt_tests::lab::*;

use super::*;

#[test]
fn state_dump_shows_each_kind_of_change_and_nothing_else() -> Result<()> {
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
fn foreign_objects_report_every_change() -> Result<()> {
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
    // A table that was deleted and created again is another one: its handles differ.
    office.shell("nft list table inet fw4 > /tmp/fw4; nft delete table inet fw4; nft -f /tmp/fw4")?;
    ensure!(foreign.changes()?.len() == 1, "{:?}", foreign.changes()?);
    Ok(())
}
