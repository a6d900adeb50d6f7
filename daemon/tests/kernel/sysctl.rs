//! Kernel settings, restored with all settings that the kernel changed along with them.

use crate::bed::{Bed, assert_same, in_namespace, sh, sysctls};
use gatewrt::{model::SysctlPath, plan::Step};

const ALL: [&str; 3] =
    ["net/ipv6/conf/all/forwarding", "net/ipv4/ip_forward", "net/ipv4/conf/all/src_valid_mark"];

fn set(path: &str, value: &str) -> Step {
    Step::SetSysctl(SysctlPath(path.into()), value.into())
}

fn restore(path: &str) -> Step {
    Step::RestoreSysctl(SysctlPath(path.into()))
}

fn value(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/{path}")).expect("a setting").trim().to_owned()
}

/// Creates interfaces of which some forward and some do not.
fn setup() {
    sh("ip link add v0 type veth peer name v1; ip link add v2 type veth peer name v3
        ip link set v0 up; ip link set v1 up
        echo 1 > /proc/sys/net/ipv6/conf/v1/forwarding; echo 1 > /proc/sys/net/ipv4/conf/v2/forwarding
        echo 1 > /proc/sys/net/ipv6/conf/default/forwarding");
}

fn there_and_back(bed: &mut Bed, order: [usize; 3], restart: bool) {
    let before = sysctls();
    for i in order {
        bed.run(set(ALL[i], "1"));
        bed.run(set(ALL[i], "1"));
    }
    assert!(ALL.iter().all(|path| value(path) == "1"));
    assert_eq!(value("net/ipv6/conf/v0/forwarding"), "1");
    assert_ne!(sysctls(), before);
    let observed = bed.observe_with(&ALL);
    assert!(observed.sysctls.values().all(|v| v == "1"));
    assert!(observed.saved_sysctls.values().all(|s| s.before == "0" && s.ours == "1"));
    assert_eq!(observed.saved_sysctls.len(), 3);
    if restart {
        bed.restart();
    }
    for path in ALL {
        bed.run(restore(path));
        bed.run(restore(path));
    }
    assert_same(&before, &sysctls());
    assert!(bed.observe().saved_sysctls.is_empty());
    assert!(!std::fs::exists("/run/gatewrt/sysctls").expect("seen"));
}

#[test]
fn restored_settings_are_as_before() {
    in_namespace(|bed| {
        setup();
        there_and_back(bed, [0, 1, 2], false);
        there_and_back(bed, [2, 1, 0], true);
    });
}

#[test]
fn setting_of_one_interface_is_restored() {
    for first in [true, false] {
        for all_first in [true, false] {
            in_namespace(move |bed| {
                setup();
                let before = sysctls();
                let one = "net/ipv6/conf/v0/forwarding";
                let order = if first { [one, ALL[0]] } else { [ALL[0], one] };
                order.into_iter().for_each(|path| bed.run(set(path, "1")));
                let order = if all_first { [ALL[0], one] } else { [one, ALL[0]] };
                order.into_iter().for_each(|path| bed.run(restore(path)));
                assert_same(&before, &sysctls());
            });
        }
    }
}

#[test]
fn setting_changed_by_others_stays() {
    in_namespace(|bed| {
        setup();
        bed.run(set(ALL[0], "1"));
        bed.run(set(ALL[1], "1"));
        sh("echo 0 > /proc/sys/net/ipv6/conf/v1/forwarding; echo 0 > /proc/sys/net/ipv4/ip_forward
            ip link add v4 type veth peer name v5; ip link del v2");
        bed.run(restore(ALL[0]));
        bed.run(restore(ALL[1]));
        assert_eq!(value("net/ipv6/conf/v1/forwarding"), "0");
        assert_eq!(value("net/ipv6/conf/v4/forwarding"), "0");
        assert_eq!(value(ALL[0]), "0");
        assert!(bed.observe().saved_sysctls.is_empty());
    });
}

#[test]
fn setting_of_a_gone_interface_is_forgotten() {
    in_namespace(|bed| {
        setup();
        let path = "net/ipv4/conf/v0/forwarding";
        bed.run(set(path, "1"));
        sh("ip link del v0");
        assert_eq!(bed.observe_with(&[path]).sysctls.len(), 0);
        bed.run(restore(path));
        assert!(bed.observe().saved_sysctls.is_empty());
        assert!(bed.fail(set(path, "1")).to_string().contains("no setting"));
    });
}

#[test]
fn value_that_the_kernel_refuses_is_not_saved() {
    in_namespace(|bed| {
        let error = bed.fail(set(ALL[1], "nonsense"));
        assert!(error.to_string().contains("set net/ipv4/ip_forward to nonsense"), "{error}");
        assert!(bed.observe().saved_sysctls.is_empty());
    });
}
