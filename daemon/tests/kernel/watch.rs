//! The kernel watch, on real events.

use crate::bed::{eventually, in_namespace, sh};
use gatewrt::{
    kernel::watch::Watch,
    model::{FirewallTable, Route, RouteKind},
    plan::Step,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

fn readable(watch: &Watch) -> bool {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).expect("polled") > 0
}

/// Waits for an event, and returns true if it is reported as a change.
fn changed(watch: &mut Watch) -> bool {
    eventually("an event", || readable(watch));
    watch.drain()
}

#[test]
fn change_of_each_kind_is_reported() {
    in_namespace(|bed| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up");
        eventually("link-local addresses", || !sh("ip -6 addr").contains("tentative"));
        let mut watch = Watch::open().expect("watched");
        assert!(!readable(&watch));
        assert!(!watch.drain());
        for change in [
            "ip addr add 192.168.7.1/32 dev v0",
            "ip -6 addr add fd01::1/128 dev v0 nodad noprefixroute",
            "ip route add 10.0.0.0/8 dev v0",
            "ip -6 route add fd02::/16 dev v0",
            "ip route add blackhole 10.9.0.0/16",
            "ip link set v0 mtu 1400",
            "ip rule add pref 7 fwmark 1 table 7",
            "ip -6 rule add pref 7 fwmark 1 table 7",
            "ip route add 10.0.0.0/8 dev v0 table 26487 proto 103",
            "nft add table inet gatewrt",
        ] {
            sh(change);
            assert!(changed(&mut watch), "{change}");
            assert!(!readable(&watch), "{change}");
        }
        bed.write(FirewallTable::default());
        assert!(changed(&mut watch));
    });
}

#[test]
fn neighbour_event_is_not_reported() {
    in_namespace(|_| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up
            ip addr add 192.168.7.1/24 dev v0");
        eventually("link-local addresses", || !sh("ip -6 addr").contains("tentative"));
        let mut watch = Watch::open().expect("watched");
        sh("ip neigh add 192.168.7.9 lladdr 02:00:00:00:00:09 dev v0; ip neigh del 192.168.7.9 dev v0
            ip maddr add 01:00:5e:01:02:03 dev v0");
        assert!(!readable(&watch));
        assert!(!watch.drain());
    });
}

#[test]
fn watch_that_lost_events_reports_a_change_and_goes_on() {
    in_namespace(|bed| {
        sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up");
        let mut watch = Watch::open().expect("watched");
        let batch: String =
            (0..20_000).map(|i| format!("route add 10.{}.{}.0/24 dev v0\n", i / 250, i % 250)).collect();
        std::fs::write("/run/batch", batch).expect("written");
        sh("ip -batch /run/batch");
        assert!(changed(&mut watch));
        while readable(&watch) {
            assert!(watch.drain());
        }
        let kind = RouteKind::Device(gatewrt::model::IfName::new("v0").expect("valid"));
        let prefix = "172.16.0.0/16".parse().expect("valid");
        bed.run(Step::AddRoute(Route { table: 26487, prefix, metric: 1, kind }));
        assert!(changed(&mut watch));
    });
}

#[test]
fn event_loop_is_woken_by_each_change() {
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
                assert!(ready.get_inner_mut().drain(), "{i}");
                ready.clear_ready();
            }
        });
    });
}
