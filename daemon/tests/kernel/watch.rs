//! The watch, on real events.

use crate::bed::{eventually, in_namespace, sh};
use gatewrt::{
    kernel::watch::{Changes, Watch},
    model::{Route, RouteKind, Ruleset},
    plan::Step,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

fn readable(watch: &Watch) -> bool {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).expect("polled") > 0
}

/// What changed, once it has.
fn changed(watch: &mut Watch) -> Changes {
    eventually("an event", || readable(watch));
    watch.drain()
}

#[test]
fn each_kind_of_change_is_told() {
    in_namespace(|bed| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up");
        eventually("link-local addresses", || !sh("ip -6 addr").contains("tentative"));
        let mut watch = Watch::open().expect("watched");
        assert!(!readable(&watch));
        assert_eq!(watch.drain(), Changes::default());
        let wan = Changes { network: true, wan: true, ..Changes::default() };
        let ours = Changes { network: true, ..Changes::default() };
        for (change, expected) in [
            ("ip addr add 192.168.7.1/32 dev v0", wan),
            ("ip -6 addr add fd01::1/128 dev v0 nodad noprefixroute", wan),
            ("ip route add 10.0.0.0/8 dev v0", wan),
            ("ip -6 route add fd02::/16 dev v0", wan),
            ("ip route add blackhole 10.9.0.0/16", wan),
            ("ip link set v0 mtu 1400", wan),
            ("ip rule add pref 7 fwmark 1 table 7", ours),
            ("ip -6 rule add pref 7 fwmark 1 table 7", ours),
            ("ip route add 10.0.0.0/8 dev v0 table 26487 proto 103", ours),
            ("nft add table inet gatewrt", Changes { firewall: true, ..Changes::default() }),
        ] {
            sh(change);
            assert_eq!(changed(&mut watch), expected, "{change}");
            assert!(!readable(&watch), "{change}");
        }
        bed.run(Step::WriteRuleset(Ruleset("table inet gatewrt { }".into())));
        assert!(changed(&mut watch).firewall);
    });
}

#[test]
fn neighbours_are_no_change() {
    in_namespace(|_| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up
            ip addr add 192.168.7.1/24 dev v0");
        eventually("link-local addresses", || !sh("ip -6 addr").contains("tentative"));
        let mut watch = Watch::open().expect("watched");
        sh("ip neigh add 192.168.7.9 lladdr 02:00:00:00:00:09 dev v0; ip neigh del 192.168.7.9 dev v0
            ip maddr add 01:00:5e:01:02:03 dev v0");
        assert!(!readable(&watch));
        assert_eq!(watch.drain(), Changes::default());
    });
}

#[test]
fn lost_events_are_told_and_it_goes_on() {
    in_namespace(|bed| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up");
        let mut watch = Watch::open().expect("watched");
        let batch: String =
            (0..20_000).map(|i| format!("route add 10.{}.{}.0/24 dev v0\n", i / 250, i % 250)).collect();
        std::fs::write("/run/batch", batch).expect("written");
        sh("ip -batch /run/batch");
        let changes = changed(&mut watch);
        assert!(changes.overrun && changes.network, "{changes:?}");
        while readable(&watch) {
            assert!(watch.drain().any());
        }
        let kind = RouteKind::Device(gatewrt::model::IfName::new("v0").expect("valid"));
        let prefix = "172.16.0.0/16".parse().expect("valid");
        bed.run(Step::AddRoute(Route { table: 26487, prefix, metric: 1, kind }));
        assert_eq!(changed(&mut watch), Changes { network: true, ..Changes::default() });
    });
}

#[test]
fn an_event_loop_is_woken_each_time() {
    in_namespace(|_| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let watch = Watch::open().expect("watched");
            // SAFETY: the watch owns its descriptor and gives the same one for as long as it lives.
            let mut watch = unsafe { tokio::io::unix::AsyncFd::register(watch) }.expect("registered");
            let changes = [
                "ip route add 10.0.0.0/8 dev v0",
                "nft add table inet x",
                "ip route del 10.0.0.0/8 dev v0",
                "nft delete table inet x",
            ];
            for i in 0..40 {
                sh(changes[i % 4]);
                let woken = tokio::time::timeout(std::time::Duration::from_secs(10), watch.readable_mut());
                let mut ready = woken.await.expect("woken").expect("readable");
                assert!(ready.get_inner_mut().drain().any(), "{i}");
                ready.clear_ready();
            }
        });
    });
}
