//! World for property tests: any sequence of operations on a registry and its published records, as the
//! controller does it.

mod access;
mod exits;

pub(crate) use access::{AccessOp, any_access, any_ruled};
pub(crate) use exits::{ExitOp, any_exit, scope_spec};

use crate::{
    records::{self, Change, PublishedRecords},
    registry::{
        Changes, ClientPatch, ClientSpec, CodeSpec, EgressSetting, IngressSpec, Moment, NetworkSpec, NewKeys,
        NodePatch, Outcome, Registry, RegistryError, ReissueRequest, Tunnel,
    },
};
use data_encoding::BASE64URL_NOPAD;
use gatewrt_protocol::{
    Applied, Endpoint, EndpointKind, InterfaceKind, InterfaceReport, JoinRequest, NetworkId, NodeId,
    NodeName, PresharedKey, PublicKey, Report, WgPublicKey, join::SECRET_BYTES,
};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use std::collections::{BTreeMap, BTreeSet};

/// Operation of a property test; numbers choose among the objects that exist.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    CreateNetwork(u8, Option<u8>),
    DeleteNetwork(u8, bool),
    Purge,
    CreateCode(u8, u8),
    RevokeCode(u8),
    Join { code: u8, key: u8, name: u8, endpoint: u8 },
    Rename(u8, u8),
    Remove(u8, bool),
    SetEgress(u8, u8, bool),
    UnsetEgress(u8, u8),
    UpdateFacts { node: u8, endpoint: u8, lan: u8 },
    Control(u8),
    Access(AccessOp),
    Exit(ExitOp),
    SetIngress { node: u8, endpoint: bool },
    UnsetIngress(u8, bool),
    AddClient { node: u8, other: u8, key: u8, name: u8, expires: Option<u16>, prefix: Option<u8> },
    ChangeClient { client: u8, enabled: bool, prefix: Option<u8>, expires: Option<u16> },
    Reissue { client: u8, node: u8, key: u8 },
    DeleteClient(u8),
    Wait(u32),
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0u8..5, proptest::option::of(0u8..6)).prop_map(|(name, prefix)| Op::CreateNetwork(name, prefix)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(net, force)| Op::DeleteNetwork(net, force)),
        1 => Just(Op::Purge),
        3 => (any::<u8>(), 0u8..4).prop_map(|(net, uses)| Op::CreateCode(net, uses)),
        1 => any::<u8>().prop_map(Op::RevokeCode),
        8 => (any::<u8>(), 0u8..24, 0u8..3, 0u8..8)
            .prop_map(|(code, key, name, endpoint)| Op::Join { code, key, name, endpoint }),
        2 => (any::<u8>(), 0u8..4).prop_map(|(node, name)| Op::Rename(node, name)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(node, force)| Op::Remove(node, force)),
        5 => (any::<u8>(), 0u8..8, any::<bool>()).prop_map(|(node, prefix, nat)| Op::SetEgress(node, prefix, nat)),
        2 => (any::<u8>(), 0u8..8).prop_map(|(node, prefix)| Op::UnsetEgress(node, prefix)),
        3 => (any::<u8>(), 0u8..8, 0u8..8).prop_map(|(node, endpoint, lan)| Op::UpdateFacts { node, endpoint, lan }),
        1 => (0u8..4).prop_map(Op::Control),
        12 => any_access().prop_map(Op::Access),
        8 => any_exit().prop_map(Op::Exit),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(node, endpoint)| Op::SetIngress { node, endpoint }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(node, force)| Op::UnsetIngress(node, force)),
        8 => any_client(),
        3 => (any::<u8>(), any::<bool>(), proptest::option::of(0u8..8), proptest::option::of(1u16..999))
            .prop_map(|(client, enabled, prefix, expires)| Op::ChangeClient { client, enabled, prefix, expires }),
        3 => (any::<u8>(), any::<u8>(), 16u8..48).prop_map(|(client, node, key)| Op::Reissue { client, node, key }),
        2 => any::<u8>().prop_map(Op::DeleteClient),
        1 => (0u32..1000).prop_map(Op::Wait),
        1 => (0u32..50 * 86_400).prop_map(Op::Wait),
    ]
}

fn any_client() -> impl Strategy<Value = Op> {
    let times = (proptest::option::of(1u16..999), proptest::option::of(0u8..8));
    (any::<u8>(), any::<u8>(), 16u8..48, 0u8..6, times).prop_map(
        |(node, other, key, name, (expires, prefix))| Op::AddClient {
            node,
            other,
            key,
            name,
            expires,
            prefix,
        },
    )
}

/// Model of a controller for property tests: registry, published records and all else that it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub registry: Registry,
    pub published: PublishedRecords,
    pub now: u64,
    steps: u64,
    secrets: BTreeMap<String, (NetworkId, [u8; SECRET_BYTES])>,
}

/// Effects of one operation of a property test.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub rows: Changes,
    pub undo: Changes,
    pub records: Vec<Change>,
    pub refused: Option<RegistryError>,
    pub joined: Option<NodeId>,
}

impl World {
    pub fn step(&mut self, op: &Op) -> Step {
        self.steps += 1;
        let entropy = digest(&SHA256, &self.steps.to_be_bytes());
        let moment = Moment { now: self.now, entropy: *entropy.as_ref().first_chunk().unwrap() };
        let mut step = Step::default();
        match self.plan(op, &moment, &mut step) {
            Ok((rows, ())) => step.rows = rows,
            Err(refused) => step.refused = Some(refused),
        }
        step.undo = self.registry.apply(step.rows.clone());
        let topics = records::touched(&self.registry, &step.rows, &step.undo);
        step.records = self.published.plan(&self.registry, self.now, &topics);
        self.published.apply(step.records.clone());
        step
    }

    fn plan(&mut self, op: &Op, moment: &Moment, step: &mut Step) -> Outcome<()> {
        match *op {
            Op::CreateNetwork(name, prefix) => {
                let name = format!("net{name}").parse().unwrap();
                let prefix4 = prefix.map(prefix_of);
                let spec = NetworkSpec { name, prefix4, prefix6: None, mtu: None, keepalive: None };
                self.registry.create_network(&spec, moment).map(quiet)
            }
            Op::DeleteNetwork(net, force) => {
                self.registry.delete_network(&self.net(net), force, moment).map(quiet)
            }
            Op::Purge => Ok((self.registry.purge(moment.now), ())),
            Op::CreateCode(net, uses) => {
                let spec = CodeSpec { uses: uses.into(), expires_in: 86_400, roles: BTreeSet::new() };
                let (rows, (code, secret)) = self.registry.create_code(&self.net(net), &spec, moment)?;
                self.secrets.insert(code.id.to_string(), (code.net, secret));
                Ok((rows, ()))
            }
            Op::RevokeCode(code) => {
                let code = pick(&self.secrets, code).map(|(id, (net, _))| (net.to_string(), id.clone()));
                let (net, id) = code.unwrap_or_default();
                self.registry.revoke_code(&net, &id, moment).map(quiet)
            }
            Op::Join { code, key, name, endpoint } => {
                let secret = pick(&self.secrets, code).map_or([0; SECRET_BYTES], |(_, (_, secret))| *secret);
                let outcome = self.registry.join(&request(secret, key, name, endpoint), None, moment);
                outcome.map(|(rows, id)| {
                    step.joined = Some(id).filter(|_| !rows.is_empty());
                    (rows, ())
                })
            }
            Op::Rename(node, name) => {
                let (net, node) = self.node(node);
                let name = format!("node-{name}").parse().unwrap();
                let patch = NodePatch { name: Some(name), ..NodePatch::default() };
                self.registry.change_node(&net, &node, &patch).map(quiet)
            }
            Op::Remove(node, force) => {
                let (net, node) = self.node(node);
                self.registry.remove_node(&net, &node, force, moment).map(quiet)
            }
            Op::SetEgress(node, prefix, nat) => {
                let (net, node) = self.node(node);
                let setting = EgressSetting { nat, metric: 0 };
                self.registry.set_egress(&net, &node, prefix_of(prefix), setting).map(quiet)
            }
            Op::UnsetEgress(node, prefix) => {
                let (net, node) = self.node(node);
                self.registry.unset_egress(&net, &node, prefix_of(prefix)).map(quiet)
            }
            Op::UpdateFacts { node, endpoint, lan } => {
                let node = self.node(node).1.parse().unwrap_or(NodeId::from_entropy([0; 10]));
                Ok((self.registry.update_facts(node, &report(node, endpoint, lan), None), ()))
            }
            Op::Control(which) => Ok((
                self.registry.set_control([format!("198.18.0.{which}:8883").parse().unwrap()].into()),
                (),
            )),
            Op::Access(ref op) => self.plan_access(op, moment),
            Op::Exit(ref op) => self.plan_exit(op),
            Op::SetIngress { node, endpoint } => {
                let (net, node) = self.node(node);
                let endpoint = endpoint.then(|| "gw.example.org:51820".into());
                self.registry
                    .set_ingress(&net, &node, &IngressSpec { endpoint, ..IngressSpec::default() })
                    .map(quiet)
            }
            Op::UnsetIngress(node, force) => {
                let (net, node) = self.node(node);
                self.registry.unset_ingress(&net, &node, force).map(quiet)
            }
            Op::AddClient { node, other, key, name, expires, prefix } => {
                let ((net, _), other) = (self.node(node), self.node(other));
                let gateways = [node_name(&self.registry, self.node(node)), node_name(&self.registry, other)];
                let gateways = gateways.into_iter().flatten().collect();
                let spec = ClientSpec {
                    prefixes: prefix.map(prefix_of).into_iter().collect(),
                    expires: expires.map(|after| self.now + u64::from(after)),
                    ..client_spec(&format!("node-{name}"), gateways)
                };
                self.registry.create_client(&net, &spec, &keys(key), moment).map(quiet)
            }
            Op::ChangeClient { client, enabled, prefix, expires } => {
                let (net, client) = self.client(client);
                let patch = ClientPatch {
                    enabled: Some(enabled),
                    prefixes: Some(prefix.map(prefix_of).into_iter().collect()),
                    expires: Some(expires.map(|after| self.now + u64::from(after))),
                    ..ClientPatch::default()
                };
                self.registry.change_client(&net, &client, &patch, moment).map(quiet)
            }
            Op::Reissue { client, node, key } => {
                let (net, client) = self.client(client);
                let gateway = node_name(&self.registry, self.node(node));
                let spec = ReissueRequest { gateway, ..ReissueRequest::default() };
                self.registry.reissue_client(&net, &client, &spec, &keys(key), moment).map(quiet)
            }
            Op::DeleteClient(client) => {
                let (net, client) = self.client(client);
                self.registry.delete_client(&net, &client, moment).map(quiet)
            }
            Op::Wait(seconds) => {
                self.now += u64::from(seconds);
                Ok((self.registry.expire(self.now), ()))
            }
        }
    }

    /// Number by which operations choose a join code.
    pub fn code(&self, id: &str) -> u8 {
        self.secrets.keys().position(|known| known == id).expect("a code of this world") as u8
    }

    fn net(&self, which: u8) -> String {
        let ids: Vec<_> = self.registry.networks().map(|network| network.id.to_string()).collect();
        choose(&ids, which)
    }

    fn client(&self, which: u8) -> (String, String) {
        let live = self.registry.clients().filter(|client| client.is_live());
        let ids: Vec<_> = live.map(|client| (client.net.to_string(), client.id.to_string())).collect();
        choose(&ids, which)
    }

    fn node(&self, which: u8) -> (String, String) {
        let live = self.registry.nodes().filter(|node| node.is_live());
        let ids: Vec<_> = live.map(|node| (node.net.to_string(), node.id.to_string())).collect();
        choose(&ids, which)
    }
}

fn pick<K: Ord, V>(map: &BTreeMap<K, V>, which: u8) -> Option<(&K, &V)> {
    map.iter().nth(usize::from(which) % map.len().max(1))
}

fn choose<T: Clone + Default>(items: &[T], which: u8) -> T {
    items.get(usize::from(which) % items.len().max(1)).cloned().unwrap_or_default()
}

fn quiet<T>((rows, _): (Changes, T)) -> (Changes, ()) {
    (rows, ())
}

fn node_name(registry: &Registry, (net, node): (String, String)) -> Option<NodeName> {
    registry.find_node(&net, &node).ok().map(|node| node.name.clone())
}

/// Spec of a client with defaults only.
pub(crate) fn client_spec(name: &str, gateways: Vec<NodeName>) -> ClientSpec {
    ClientSpec {
        name: name.parse().unwrap(),
        label: String::new(),
        gateways,
        key: None,
        addresses: Vec::new(),
        psk: true,
        dns: Vec::new(),
        tunnel: Tunnel::Split,
        routes: BTreeSet::new(),
        prefixes: BTreeSet::new(),
        reachable: false,
        expires: None,
        tags: BTreeSet::new(),
    }
}

pub(crate) fn keys(number: u8) -> NewKeys {
    NewKeys { key: WgPublicKey([number + 1; 32]), psk: PresharedKey([number; 32]) }
}

/// One of a few prefixes for property tests, many of which overlap.
pub(crate) fn prefix_of(which: u8) -> gatewrt_protocol::Prefix {
    let prefixes = [
        "10.0.0.0/8",
        "10.80.0.0/16",
        "192.168.1.0/24",
        "192.168.0.0/16",
        "172.16.5.0/29",
        "203.0.113.0/29",
        "fd00:1::/64",
        "192.168.1.128/25",
    ];
    prefixes[usize::from(which) % prefixes.len()].parse().unwrap()
}

fn endpoints(which: u8) -> Vec<Endpoint> {
    let addr = format!("203.0.113.{which}:51820").parse().unwrap();
    vec![Endpoint { addr, kind: EndpointKind::Wan }]
}

pub(crate) fn request(secret: [u8; SECRET_BYTES], key: u8, name: u8, endpoint: u8) -> JoinRequest {
    JoinRequest {
        secret: BASE64URL_NOPAD.encode(&secret),
        key: WgPublicKey([key + 1; 32]),
        identity: PublicKey([key + 1; 32]),
        name: format!("node-{name}").parse().unwrap(),
        board: "board".into(),
        version: "0.1.0".into(),
        port: 51820,
        endpoints: endpoints(endpoint),
        interfaces: Vec::new(),
    }
}

pub(crate) fn report(node: NodeId, endpoint: u8, lan: u8) -> Report {
    Report {
        net: NetworkId::from_entropy([0; 10]),
        node,
        boot: "boot".into(),
        seq: 1,
        version: "0.1.0".into(),
        board: "board".into(),
        uptime_s: 1,
        memory_kib: 1,
        wireguard: "kernel".into(),
        port: 51820,
        interfaces: vec![InterfaceReport {
            name: "br-lan".into(),
            kind: InterfaceKind::Lan,
            prefixes: vec![prefix_of(lan)],
        }],
        endpoints: endpoints(endpoint),
        peers: Vec::new(),
        peer_count: 0,
        clients: Vec::new(),
        exit: None,
        scopes: Vec::new(),
        gateways: BTreeMap::new(),
        rolled_back: None,
        applied: Applied::default(),
        failures: Vec::new(),
        refused: BTreeMap::new(),
    }
}
