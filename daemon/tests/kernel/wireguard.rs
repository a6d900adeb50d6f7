//! WireGuard in userspace: adopted, recovered, and distinguished from foreign devices. The kernel's own is tested on
//! machines that have it.

use crate::bed::{Bed, eventually, in_namespace, inhabitants, kernel, key, link, peer, settings, sh};
use gatewrt::{
    kernel::{KernelError, linux::Options},
    model::{Address, LinkKind},
    plan::{PeerChange, PeerUpdate, Step},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};
use std::{fs, os::unix::net::UnixListener, path::PathBuf, time::Instant};

const SOCKET: &str = "/run/wireguard/gw-t.sock";

/// Runs a test with userspace WireGuard, also on a machine whose kernel has its own.
fn in_userspace(test: impl FnOnce(&mut Bed) + Send + 'static) {
    in_namespace(|bed| {
        bed.options.userspace = Some("wireguard-go".into());
        bed.restart();
        test(bed);
    });
}

fn add() -> Step {
    Step::AddTunnel { link: link(), mtu: 1420 }
}

/// Id of the implementation's process. The process that was started may end and leave another one running.
fn server() -> i32 {
    eventually("one process", || inhabitants().len() == 1);
    let [pid] = inhabitants()[..] else { panic!("one process: {:?}", inhabitants()) };
    pid
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("signalled");
}

/// Stops a process, and waits until all its threads have stopped.
fn stop(pid: i32) {
    signal(pid, Signal::SIGSTOP);
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).expect("a thread");
    eventually("it stands still", || threads().map(stat).all(|stat| stat.contains(") T ")));
}

#[test]
fn userspace_wireguard_outlives_us_without_our_files() {
    in_userspace(|bed| {
        // We inherited an open file that is not closed on exec.
        let file = fs::File::create("/run/inherited").expect("a file");
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
            .expect("inherited");
        bed.run(add());
        let pid = server();
        assert_ne!(getsid(Some(Pid::from_raw(pid))), getsid(None));
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("files").flatten();
        let files: Vec<PathBuf> = files.filter_map(|f| fs::read_link(f.path()).ok()).collect();
        let known = |f: &PathBuf| {
            let f = f.display().to_string();
            f == "/dev/null"
                || f == "/dev/net/tun"
                || ["socket:", "anon_inode:", "pipe:"].iter().any(|k| f.starts_with(k))
        };
        assert!(files.iter().all(known), "{files:?}");
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).expect("a folder");
        assert_eq!(folder, PathBuf::from("/"));
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).expect("an environment");
        assert!(!environment.contains("CARGO"), "{environment}");
    });
}

#[test]
fn restarted_daemon_adopts_userspace_wireguard() {
    in_userspace(|bed| {
        bed.tunnel();
        bed.run(Step::SetPeers(link(), vec![(key(1), PeerChange::Add(peer(None, &["10.1.0.0/16"], 25)))]));
        let before = bed.observe();
        let pid = server();
        bed.restart();
        bed.run(add());
        let after = bed.observe();
        assert_eq!(before.links, after.links);
        assert_eq!(before.devices, after.devices);
        assert_eq!(server(), pid);
        assert_eq!(after.devices[&link()].backend, "wireguard-go");
        assert_eq!(after.links[&link()].kind, LinkKind::Tun);
    });
}

#[test]
fn killed_userspace_wireguard_is_replaced() {
    in_userspace(|bed| {
        bed.tunnel();
        signal(server(), Signal::SIGKILL);
        eventually("its interface goes", || !bed.observe().links.contains_key(&link()));
        assert!(bed.observe().devices.is_empty());
        assert!(fs::exists(SOCKET).expect("seen"), "a stale socket is what this is about");
        bed.tunnel();
        assert_eq!(bed.observe().devices[&link()].settings, Some(settings()));
        bed.run(Step::DeleteTunnel(link()));
        assert!(!fs::exists(SOCKET).expect("seen"));
        eventually("its process ends", || inhabitants().is_empty());
    });
}

#[test]
fn hanging_userspace_wireguard_is_no_device_and_costs_seconds() {
    in_userspace(|bed| {
        bed.tunnel();
        let pid = server();
        stop(pid);
        let start = Instant::now();
        assert!(bed.observe().devices.is_empty());
        assert!(matches!(bed.fail(add()), KernelError::Conflict(_)));
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        signal(pid, Signal::SIGCONT);
        eventually("it is back", || bed.observe().devices.contains_key(&link()));
    });
}

#[test]
fn dead_tun_device_is_replaced_and_a_foreign_one_is_not() {
    in_userspace(|bed| {
        sh("ip tuntap add mode tun name gw-t; ip link set gw-t up");
        fs::create_dir_all("/run/wireguard").expect("a folder");
        drop(UnixListener::bind(SOCKET).expect("a socket"));
        let dead = bed.observe();
        assert!(dead.devices.is_empty());
        bed.run(add());
        let alive = bed.observe();
        assert!(alive.devices.contains_key(&link()));
        assert_ne!(alive.links[&link()].index, dead.links[&link()].index);
        bed.run(Step::DeleteTunnel(link()));
        // A dead device can also be deleted without being recovered.
        sh("ip tuntap add mode tun name gw-t; ip link set gw-t up");
        bed.run(Step::DeleteTunnel(link()));
        assert!(!bed.observe().links.contains_key(&link()));
    });
}

#[test]
fn foreign_interface_of_the_name_is_a_conflict() {
    in_namespace(|bed| {
        sh(
            "ip link add gw-t type veth peer name v1; ip addr add 192.168.9.1/24 dev gw-t; ip link set gw-t up",
        );
        let before = sh("ip addr show gw-t");
        for step in [add(), Step::DeleteTunnel(link()), Step::SetDevice(link(), settings())] {
            let error = bed.fail(step);
            assert!(matches!(&error, KernelError::Conflict(what) if what.contains("gw-t")), "{error:?}");
        }
        let observed = bed.observe();
        assert_eq!(observed.links[&link()].kind, LinkKind::Other);
        assert!(observed.devices.is_empty());
        assert_eq!(sh("ip addr show gw-t"), before);
    });
}

#[test]
fn tun_device_of_another_program_is_a_conflict() {
    in_userspace(|bed| {
        bed.tunnel();
        // The device looks like another program's: no process listens at its socket.
        fs::rename(SOCKET, "/run/elsewhere").expect("moved");
        let pid = server();
        stop(pid);
        drop(UnixListener::bind(SOCKET).expect("a socket"));
        assert!(matches!(bed.fail(add()), KernelError::Conflict(_)));
        assert!(matches!(bed.fail(Step::DeleteTunnel(link())), KernelError::Conflict(_)));
        assert!(bed.observe().links.contains_key(&link()));
    });
}

#[test]
fn device_without_a_key_has_no_settings() {
    in_namespace(|bed| {
        bed.run(add());
        let device = &bed.observe().devices[&link()];
        assert_eq!((device.settings.clone(), device.peers.len()), (None, 0));
    });
}

#[test]
fn observe_reads_only_the_queried_tunnels() {
    in_namespace(|bed| {
        bed.tunnel();
        let observed =
            gatewrt::kernel::Kernel::observe(&mut bed.kernel, &Default::default()).expect("observed");
        assert!(observed.links.contains_key(&link()));
        assert!(observed.devices.is_empty());
    });
}

#[test]
fn missing_program_is_reported_with_advice() {
    in_userspace(|bed| {
        let program = |script: &str| {
            let path = PathBuf::from("/run/implementation");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
            sh("chmod +x /run/implementation");
            Options { userspace: Some(path.display().to_string()), ..Options::default() }
        };
        bed.kernel = kernel(program("exit 3"));
        let error = bed.fail(add()).to_string();
        assert!(error.contains("/run/implementation gave no gw-t: exit status: 3"), "{error}");
        bed.kernel = kernel(program("exec sleep 100"));
        let error = bed.fail(add()).to_string();
        assert!(error.contains("no socket in time"), "{error}");
        assert!(inhabitants().is_empty(), "what did not work is not left running");
        // An implementation that stays in the foreground works too.
        bed.kernel = kernel(program("exec wireguard-go -f \"$1\""));
        bed.tunnel();
        bed.run(Step::DeleteTunnel(link()));
        eventually("it ends", || inhabitants().is_empty());
    });
}

#[test]
fn changing_peers_do_not_spoil_a_read() {
    in_namespace(|bed| {
        bed.tunnel();
        let stays = (key(1), peer(None, &["10.1.0.0/16"], 25));
        bed.run(Step::SetPeers(link(), vec![(stays.0, PeerChange::Add(stays.1.clone()))]));
        let script = "while k=$(wg genkey | wg pubkey) && wg set gw-t peer $k allowed-ips 10.2.0.0/16
            do wg set gw-t peer $k remove; done";
        let mut restless = std::process::Command::new("sh").args(["-c", script]).spawn().expect("sh");
        let mut met = 0;
        eventually("another peer is met ten times", || {
            let device = bed.observe().devices.remove(&link()).expect("it is there");
            assert_eq!(device.peers.get(&stays.0), Some(&stays.1));
            met += usize::from(device.peers.len() > 1);
            met >= 10
        });
        restless.kill().and_then(|()| restless.wait()).expect("ended");
    });
}

#[test]
fn peers_beyond_one_message_arrive_whole() {
    in_namespace(|bed| {
        bed.tunnel();
        let prefixes: Vec<_> = (0..4000u32).map(|i| format!("fd00:{:x}:{i:x}::/48", i / 100)).collect();
        let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
        let mut big = peer(Some("[fd00::1]:51820"), &prefixes, 25);
        let small = peer(None, &["10.1.0.0/16"], 0);
        let add = |peer: &gatewrt::model::WgPeer| PeerChange::Add(peer.clone());
        bed.run(Step::SetPeers(link(), vec![(key(1), add(&small)), (key(2), add(&big))]));
        let expected = [(key(1), small.clone()), (key(2), big.clone())].into_iter().collect();
        assert_eq!(bed.observe().devices[&link()].peers, expected);
        // Most prefixes are removed, by a replacement of the list.
        let kept = big.allowed.iter().take(1700).copied().collect();
        let update = PeerUpdate { allowed: Some(kept), ..PeerUpdate::default() };
        big.allowed = update.allowed.clone().expect("set");
        bed.run(Step::SetPeers(link(), vec![(key(2), PeerChange::Update(update))]));
        assert_eq!(
            bed.observe().devices[&link()].peers,
            [(key(1), small), (key(2), big)].into_iter().collect()
        );
    });
}

#[test]
fn five_hundred_peers_are_set_and_read() {
    in_namespace(|bed| {
        bed.tunnel();
        bed.run(Step::AddAddress(Address {
            link: link(),
            addr: "100.64.0.1".parse().expect("valid"),
            len: 32,
        }));
        let peers: Vec<_> = (0..500u32)
            .map(|i| {
                let (four, six) = (format!("10.{}.{}.0/24", i / 250, i % 250), format!("fd00:{i:x}::/32"));
                (key(i), peer(Some("192.0.2.1:51820"), &[&four, &six], 25))
            })
            .collect();
        let start = Instant::now();
        for (key, peer) in &peers {
            bed.run(Step::SetPeers(link(), vec![(*key, PeerChange::Add(peer.clone()))]));
        }
        println!("500 peers, one step each: {:?}", start.elapsed());
        let start = Instant::now();
        let observed = bed.observe();
        println!("observed with 500 peers: {:?}", start.elapsed());
        assert_eq!(observed.devices[&link()].peers, peers.iter().cloned().collect());
        let start = Instant::now();
        let gone = peers.iter().map(|(key, _)| (*key, PeerChange::Remove)).collect();
        bed.run(Step::SetPeers(link(), gone));
        println!("500 peers removed in one step: {:?}", start.elapsed());
        assert!(bed.observe().devices[&link()].peers.is_empty());
    });
}
