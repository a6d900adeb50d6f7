//! A core with a kernel in memory, driven by hand, and records to feed it with.

use gatewrt::{
    apply::apply,
    core::{About, Core, Input, LinkEvent, Membership, Network, Output, Uplink},
    kernel::{Kernel, fake::FakeKernel, firewall::nft::script},
    model::{ForeignRoute, IfName, Ruleset, SysctlPath, WgCounters, WgSecret},
    plan::Step,
    store::Records,
};
use gatewrt_protocol::{
    Assignment, Egress, Endpoint, EndpointKind, Member, MemberUpdate, NetworkId, NetworkName, NodeId, Policy,
    Prefix, Roster, ServedPrefix, Signer, Topic, WgPublicKey,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

pub const NET: NetworkId = NetworkId::from_entropy([1; 10]);
pub const S: Duration = Duration::from_secs(1);

pub fn node(number: u8) -> NodeId {
    NodeId::from_entropy([number; 10])
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub fn name() -> NetworkName {
    "home".parse().expect("a name")
}

pub fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

pub fn policy(rev: u64) -> (String, String) {
    policy_of(|policy| Policy { rev, ..policy })
}

pub fn policy_of(fill: impl FnOnce(Policy) -> Policy) -> (String, String) {
    let policy = policy_record(fill);
    (Topic::Policy(NET).to_string(), signer().sign(&policy).expect("short"))
}

pub fn policy_record(fill: impl FnOnce(Policy) -> Policy) -> Policy {
    fill(Policy {
        net: NET,
        rev: 1,
        name: name(),
        prefixes: vec![prefix("10.90.0.0/16"), prefix("fd90::/64")],
        mtu: 1420,
        keepalive: 25,
        domain: String::new(),
        brokers: Vec::new(),
    })
}

pub fn assignment(rev: u64, egress: &[(&str, bool)]) -> (String, String) {
    let egress =
        egress.iter().map(|(text, nat)| Egress { prefix: prefix(text), nat: *nat, metric: 0 }).collect();
    assignment_of(|assignment| Assignment { rev, egress, ..assignment })
}

pub fn assignment_of(fill: impl FnOnce(Assignment) -> Assignment) -> (String, String) {
    let assignment = fill(Assignment {
        net: NET,
        node: node(1),
        rev: 1,
        name: "one".parse().expect("a name"),
        addresses: vec!["10.90.0.1".parse().expect("v4"), "fd90::1".parse().expect("v6")],
        egress: Vec::new(),
        ingress: None,
        exit: None,
        scopes: Vec::new(),
        confirm_s: None,
        attempt: 0,
        access: gatewrt_protocol::Access::default(),
        control: Vec::new(),
    });
    (Topic::Assignment(node(1)).to_string(), signer().sign(&assignment).expect("short"))
}

pub fn member(number: u8, rev: u64) -> Member {
    Member {
        net: NET,
        node: node(number),
        rev,
        name: format!("n{number}").parse().expect("a name"),
        key: WgPublicKey([number; 32]),
        addresses: vec![format!("10.90.0.{number}").parse().expect("v4")],
        endpoints: vec![Endpoint {
            addr: format!("198.51.100.{number}:5{:04}", rev % 1000).parse().expect("v4"),
            kind: EndpointKind::Wan,
        }],
        prefixes: vec![ServedPrefix { prefix: prefix(&format!("192.168.{number}.0/24")), metric: 0 }],
        clients: Vec::new(),
        exit: None,
    }
}

pub fn update(update: &MemberUpdate) -> (String, String) {
    let (net, node, _) = update.about();
    (Topic::Member(net, node).to_string(), signer().sign(update).expect("short"))
}

pub fn roster(rev: u64, members: &[(u8, u64)]) -> (String, String) {
    let members: BTreeMap<_, _> = members.iter().map(|(number, rev)| (node(*number), *rev)).collect();
    (Topic::Roster(NET).to_string(), signer().sign(&Roster::new(NET, rev, &members)).expect("short"))
}

pub fn membership(stored: Records) -> Membership {
    Membership {
        network: name(),
        net: NET,
        node: node(1),
        name: "one".parse().expect("a name"),
        record_key: signer().public(),
        secret: WgSecret([1; 32]),
        public: WgPublicKey([1; 32]),
        port: 51820,
        brokers: vec!["gw.example:8883".into()],
        stored,
        chosen: None,
    }
}

/// A core with a kernel in memory, driven by hand.
pub struct World {
    pub core: Core,
    pub kernel: FakeKernel,
    pub now: Duration,
    /// Duration of an observation of the kernel.
    pub slowness: Duration,
    pub applied: Vec<Vec<Step>>,
    pub said: Vec<Output>,
    pub handled: usize,
    pub looks: usize,
    /// Records on disk, once any were saved.
    pub disk: Option<Records>,
}

impl World {
    /// Script of the firewall table that the kernel has; empty when there is none.
    pub fn table(&self) -> String {
        match &self.kernel.state.ruleset {
            Some(Ruleset::Known(table)) => script::replacement(table),
            Some(Ruleset::Unknown) | None => String::new(),
        }
    }

    pub fn new() -> Self {
        let mut kernel = FakeKernel::default();
        let wan = IfName::new("wan").expect("a name");
        kernel.state.main_routes.push(ForeignRoute {
            prefix: prefix("0.0.0.0/0"),
            link: Some(wan),
            on_link: false,
        });
        kernel.link_sysctls.insert("net/ipv4/conf/*/forwarding".into(), "0".into());
        kernel.state.sysctls.insert(SysctlPath("net/ipv4/conf/all/src_valid_mark".into()), "0".into());
        Self::on(kernel)
    }

    /// A daemon that has just started.
    pub fn on(kernel: FakeKernel) -> Self {
        let about = About { boot: "b".into(), version: "0".into(), board: String::new(), seed: 3 };
        let core = Core::new(about);
        Self {
            core,
            kernel,
            now: Duration::ZERO,
            slowness: Duration::ZERO,
            applied: Vec::new(),
            said: Vec::new(),
            handled: 0,
            looks: 0,
            disk: None,
        }
    }

    /// A router that has joined and knows `others`.
    pub fn joined(others: &[u8]) -> Self {
        let mut world = Self::new();
        world.start(others);
        world
    }

    pub fn start(&mut self, others: &[u8]) {
        let mut records = vec![policy(1), assignment(1, &[])];
        records.extend(others.iter().map(|number| update(&MemberUpdate::Member(member(*number, 1)))));
        let membership = membership(records.into_iter().collect());
        self.feed(Input::Started(Box::default(), vec![membership]));
        self.run(S);
    }

    /// Number of requests to write the records to disk at once.
    pub fn flushes(&self) -> usize {
        self.said.iter().filter(|output| matches!(output, Output::Flush(_))).count()
    }

    pub fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.handled += 1;
            for output in self.core.handle(input, self.now) {
                inputs.extend(self.carry_out(output));
            }
        }
    }

    pub fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Observe(interest) => {
                self.looks += 1;
                self.now += self.slowness;
                Some(match self.kernel.observe(&interest) {
                    Ok(observed) => {
                        Input::Observed { observed: Box::new(observed), wall: self.now, memory_kib: 1 }
                    }
                    Err(error) => Input::ObserveFailed(error.to_string()),
                })
            }
            Output::Apply(plan) => {
                self.applied.push(plan.steps.clone());
                Some(Input::Applied(apply(&mut self.kernel, &plan)))
            }
            Output::Save(network) => {
                self.disk = self.core.networks().get(&network).map(Network::stored);
                None
            }
            other => {
                self.said.push(other);
                None
            }
        }
    }

    /// Advances the time over this span, from one timeout of the core to the next.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((due, _)) = self.core.poll_timeout().filter(|(due, _)| *due <= end) {
            self.now = self.now.max(due);
            self.feed(Input::Tick);
        }
        self.now = end;
    }

    /// Lets each present peer of WireGuard make handshakes from now on.
    pub fn meet(&mut self) {
        let counters = WgCounters { handshake: Some(Duration::MAX), rx: 5, tx: 6 };
        for (_, device) in self.kernel.state.devices.iter_mut() {
            device.counters = device.peers.keys().map(|key| (*key, counters)).collect();
        }
    }

    pub fn message(&mut self, (topic, token): (String, String)) {
        self.feed(Input::Link(name(), LinkEvent::Message(topic, token.into_bytes())));
    }

    pub fn connect(&mut self) {
        self.feed(Input::Link(name(), LinkEvent::Connected));
    }

    pub fn reports(&self) -> usize {
        let report = |output: &&Output| matches!(output, Output::Publish(_, Uplink::Report(_)));
        self.said.iter().filter(report).count()
    }
}

/// Bytes of a report on the wire, with all headers.
pub fn wire_bytes(output: &Output) -> Option<usize> {
    let Output::Publish(_, Uplink::Report(report)) = output else { return None };
    Some(signer().sign(report.as_ref()).expect("short").len() + 200)
}
