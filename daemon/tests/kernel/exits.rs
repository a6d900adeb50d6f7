//! Scopes step by step: after each single step of every change a marked socket reaches the Internet, and once packets
//! of a closed scope are kept in, none leaves over the WAN before the scope ends. Rules and routes are tested alone:
//! the firewall table, which would stop the packets too, is left out.

#[path = "../core/world.rs"]
#[allow(dead_code)]
mod world;

use crate::bed::{Bed, eventually, in_namespace, settings, sh};
use gatewrt::{
    core::{About, Core, Input, LinkEvent, Membership, Output},
    kernel::Kernel,
    ownership::ReservedNumbers,
    plan::Step,
};
use gatewrt_protocol::{Assignment, ExitOffer, ExitScope, Member, MemberUpdate};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use std::{net::SocketAddr, time::Duration};
use world::{assignment_of, member, membership, name, node, policy, update};

/// A host on the Internet.
const FAR: [&str; 2] = ["203.0.113.1:8883", "[2001:db8:ffff::1]:8883"];

#[test]
fn closed_scope_leaks_nothing_at_any_step() {
    in_namespace(|bed| {
        setup();
        let mut router = Router::new();
        router.start(bed);
        for (of, own, lan) in [("all", true, true), ("router", true, false), ("192.168.7.0/24", false, true)]
        {
            let mut ways = [own.then(Way::router), lan.then(Way::lan)];
            let mut ways: Vec<&mut Way> = ways.iter_mut().flatten().collect();
            // The scope is enabled, switched to another exit, and switched to an exit that does not exist.
            for exit in [2, 3, 9] {
                router.want(bed, Some((of, exit)), &mut |step| {
                    reaches_when_marked(step);
                    ways.iter_mut().for_each(|way| way.look(of, step));
                });
                assert!(ways.iter().all(|way| way.is_in), "{of} is closed");
            }
            router.want(bed, None, &mut |step| reaches_when_marked(step));
            assert!(ways.iter_mut().all(|way| way.leaves()), "{of} is over");
        }
    });
}

fn setup() {
    sh("ip link add wan type veth peer name wan-far; ip link add lan type veth peer name lan-far
        for link in wan wan-far lan lan-far; do ip link set $link up; done
        ip addr add 198.51.100.2/24 dev wan; ip -6 addr add 2001:db8:f::2/64 dev wan nodad
        ip addr add 192.168.7.1/24 dev lan
        ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev wan
        ip -6 neigh add 2001:db8:f::1 lladdr 02:00:00:00:00:01 dev wan
        ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:f::1
        echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/lan/rp_filter
        echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
    sh("nft -f - <<'end'
table inet t {
    counter marked { }
    counter own { }
    counter lan { }
    counter came { }
    chain in { type filter hook prerouting priority 0; iifname lan udp dport 8883 counter name came; }
    chain out { type filter hook postrouting priority 0; oifname wan udp dport 8883 jump leaves; }
    chain leaves {
        meta mark & 0x0f000000 == 0x01000000 counter name marked return
        ip saddr 192.168.7.0/24 counter name lan return
        counter name own
    }
}
end");
}

fn count(counter: &str) -> u64 {
    let text = sh(&format!("nft list counter inet t {counter}"));
    let after = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    after.and_then(|number| number.parse().ok()).expect("a counter")
}

fn send(mark: u32) {
    for far in FAR {
        let far: SocketAddr = far.parse().expect("an address");
        let socket =
            Socket::new(Domain::for_address(far), Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
        socket.set_mark(mark).expect("root");
        // The send may fail where no route exists.
        let _ = socket.send_to(b"x", &far.into());
    }
}

fn reaches_when_marked(step: &str) {
    let before = count("marked");
    send(ReservedNumbers::default().bypass);
    assert_eq!(count("marked"), before + 2, "the coordinator is reached over IPv4 and IPv6 after {step}");
}

/// Observed packets of a scope.
struct Way {
    counter: &'static str,
    send: fn(),
    /// True once no packet leaves over the WAN.
    is_in: bool,
}

impl Way {
    fn router() -> Self {
        Self { counter: "own", send: || send(0), is_in: false }
    }

    fn lan() -> Self {
        Self { counter: "lan", send: from_lan, is_in: false }
    }

    fn leaves(&mut self) -> bool {
        let before = count(self.counter);
        (self.send)();
        count(self.counter) > before
    }

    fn look(&mut self, of: &str, step: &str) {
        let leaves = self.leaves();
        assert!(!(leaves && self.is_in), "{} of {of} leaves over the WAN after {step}", self.counter);
        self.is_in = !leaves;
    }
}

/// Sends a packet from a host on the LAN to the Internet, and returns when the router has it.
fn from_lan() {
    let mac = sh("cat /sys/class/net/lan/address");
    let mut frame: Vec<u8> =
        mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    let mut header = [0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 192, 168, 7, 9, 203, 0, 113, 1];
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([0x30, 0x39, 0x22, 0xb3, 0, 9, 0, 0, b'x']);
    let before = count("came");
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).expect("root");
    // SAFETY: all zeros is a valid address, and the length is its own.
    let ((), to) = unsafe {
        socket2::SockAddr::try_init(|storage, len| {
            let to = storage.cast::<libc::sockaddr_ll>();
            (*to).sll_family = libc::AF_PACKET as u16;
            (*to).sll_ifindex = libc::if_nametoindex(c"lan-far".as_ptr()) as i32;
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("an address");
    socket.send_to(&frame, &to).expect("sent");
    eventually("the router has the packet", || count("came") > before);
}

fn is_of_routing(step: &Step) -> bool {
    !matches!(step, Step::WriteRuleset(_) | Step::CutFlows(_))
}

/// The daemon's core, whose steps are executed in the kernel one by one.
struct Router {
    core: Core,
    rev: u64,
}

impl Router {
    fn new() -> Self {
        let about = About { boot: "b".into(), version: "0".into(), board: String::new(), seed: 3 };
        Self { core: Core::new(about), rev: 1 }
    }

    fn start(&mut self, bed: &mut Bed) {
        let exit = |number| {
            let exit = Some(ExitOffer { v4: true, v6: true, dns: Vec::new() });
            update(&MemberUpdate::Member(Member { exit, ..member(number, 1) }))
        };
        let records = [policy(1), assignment_of(|assignment| assignment), exit(2), exit(3)];
        let membership =
            Membership { secret: settings().secret, ..membership(records.into_iter().collect()) };
        self.drive(bed, Input::Started(Box::default(), vec![membership]), &mut |_| {});
    }

    /// Changes the assignment to a scope of this traffic through that exit, or to none.
    fn want(&mut self, bed: &mut Bed, scope: Option<(&str, u8)>, look: &mut dyn FnMut(&str)) {
        self.rev += 1;
        let scope = scope.map(|(of, exit)| ExitScope {
            exits: vec![node(exit)],
            auto: false,
            ..ExitScope::auto("it".parse().expect("a tag"), vec![of.parse().expect("traffic")])
        });
        let (topic, token) = assignment_of(|assignment| Assignment {
            rev: self.rev,
            scopes: scope.into_iter().collect(),
            ..assignment
        });
        let news = LinkEvent::Message(topic, token.into_bytes());
        self.drive(bed, Input::Link(name(), news), look);
    }

    fn drive(&mut self, bed: &mut Bed, first: Input, look: &mut dyn FnMut(&str)) {
        let mut inputs = vec![first];
        // Time advances only so far that the core observes again.
        for round in 0u64.. {
            assert!(round < 40, "no end: {}", self.core.plan());
            let now = Duration::from_millis(round * 200) + Duration::from_secs(self.rev * 10);
            let input = inputs.pop().unwrap_or(Input::Tick);
            for output in self.core.handle(input, now) {
                match output {
                    Output::Observe(interest) => {
                        let observed = Box::new(bed.kernel.observe(&interest).expect("observed"));
                        inputs.push(Input::Observed { observed, wall: now, memory_kib: 1 });
                    }
                    Output::Apply(plan) => {
                        for step in plan.steps.iter().filter(|step| is_of_routing(step)) {
                            bed.run(step.clone());
                            look(&step.to_string());
                        }
                        inputs.push(Input::Applied(Vec::new()));
                    }
                    _ => {}
                }
            }
            let mut left = self.core.plan().steps.into_iter();
            if inputs.is_empty() && round > 10 && !left.any(|step| is_of_routing(&step)) {
                return;
            }
        }
    }
}
