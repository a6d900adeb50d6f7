//! Wire form: pinned by `fixtures/*.json`, and no panic on any input.

use data_encoding::BASE64URL_NOPAD;
use gatewrt_protocol::{record::Record, *};
use proptest::{collection::vec, option, prelude::*, sample::select};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

const NET: NetworkId = NetworkId::from_entropy([1; 10]);
const NODE: NodeId = NodeId::from_entropy([2; 10]);

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.json"))
}

/// Asserts that the record is written as its fixture, and that the fixture is parsed as the record. `UPDATE_FIXTURES=1`
/// rewrites the file: do that only for an addition that older programs can parse.
fn pinned<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let path = fixture(name);
    let written = serde_json::to_string_pretty(value).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&path, &written).expect("fixture is written");
    }
    let kept = fs::read_to_string(&path).expect("fixture is there");
    assert_eq!(written, kept, "the wire form of {name} changed");
    assert_eq!(&serde_json::from_str::<T>(&kept).expect("fixture is read"), value);
}

fn member() -> Member {
    Member {
        net: NET,
        node: NODE,
        rev: 7,
        name: "barn".parse().expect("name"),
        key: WgPublicKey([3; 32]),
        addresses: vec!["10.90.0.2".parse().expect("v4"), "fd5e:1::2".parse().expect("v6")],
        endpoints: vec![
            Endpoint { addr: "203.0.113.7:51820".parse().expect("v4"), kind: EndpointKind::Configured },
            Endpoint { addr: "[2001:db8::7]:51820".parse().expect("v6"), kind: EndpointKind::Wan },
        ],
        prefixes: vec![
            ServedPrefix { prefix: "192.168.10.0/24".parse().expect("v4"), metric: 0 },
            ServedPrefix { prefix: "fd00:10::/64".parse().expect("v6"), metric: 20 },
        ],
        clients: vec!["10.90.1.0/24".parse().expect("v4"), "fd5e:1::1:0/112".parse().expect("v6")],
        exit: Some(offer()),
    }
}

fn offer() -> ExitOffer {
    ExitOffer { v4: true, v6: true, dns: vec!["203.0.113.53".parse().expect("v4")] }
}

fn scopes() -> Vec<ExitScope> {
    let tag = |text: &str| text.parse().expect("tag");
    let of = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("traffic")).collect();
    let guests = ExitScope {
        exits: vec![NodeId::from_entropy([4; 10])],
        open: true,
        forbid_lan: true,
        v6_wan: true,
        exclude: vec!["198.51.100.0/24".parse().expect("v4")],
        dns: vec!["203.0.113.54".parse().expect("v4")],
        keep_dns: true,
        ..ExitScope::auto(tag("guests"), of(&["dev:br-guest", "192.168.10.7/32"]))
    };
    vec![guests, ExitScope::auto(tag("rest"), of(&["all"]))]
}

fn ingress() -> Ingress {
    let phone = IngressClient {
        key: WgPublicKey([6; 32]),
        addresses: vec!["10.90.1.1".parse().expect("v4"), "fd5e:1::1:1".parse().expect("v6")],
        psk: None,
        prefixes: Vec::new(),
        internet: false,
        reachable: false,
    };
    let branch = IngressClient {
        key: WgPublicKey([7; 32]),
        psk: Some(PresharedKey([8; 32])),
        prefixes: vec!["192.168.77.0/24".parse().expect("v4")],
        internet: true,
        reachable: true,
        ..phone.clone()
    };
    Ingress { clients: vec![phone, branch] }
}

fn access() -> Access {
    let prefix = |text: &str| text.parse::<Prefix>().expect("prefix");
    let service = |text: &str| text.parse::<Service>().expect("service");
    Access {
        default: Verdict::Deny,
        sets: vec![vec![prefix("10.90.1.0/24"), prefix("fd5e:1::1:0/112")], vec![prefix("192.168.10.5/32")]],
        rules: vec![
            AccessRule {
                verdict: Verdict::Allow,
                from: 0,
                to: 1,
                services: vec![service("tcp/443"), service("udp/5000-5010")],
            },
            AccessRule { verdict: Verdict::Deny, from: 1, to: 0, services: Vec::new() },
        ],
    }
}

fn report() -> Report {
    Report {
        net: NET,
        node: NODE,
        boot: "k3j2".into(),
        seq: 4,
        version: "0.1.0".into(),
        board: "GL.iNet GL-MT300N-V2".into(),
        uptime_s: 90,
        memory_kib: 2900,
        wireguard: "kernel".into(),
        port: 51820,
        interfaces: vec![InterfaceReport {
            name: "br-lan".into(),
            kind: InterfaceKind::Lan,
            prefixes: vec!["192.168.10.0/24".parse().expect("v4")],
        }],
        endpoints: member().endpoints,
        peers: vec![PeerReport {
            node: NodeId::from_entropy([4; 10]),
            endpoint: Some("198.51.100.4:51820".parse().expect("v4")),
            handshake_s: Some(12),
            rx: 1000,
            tx: 2000,
            path: Path::Direct,
            rtt_ms: Some(21),
        }],
        peer_count: 1,
        clients: vec![ClientReport {
            key: WgPublicKey([6; 32]),
            endpoint: Some("198.51.100.9:40000".parse().expect("v4")),
            handshake_s: Some(30),
            rx: 10,
            tx: 20,
        }],
        exit: Some(offer()),
        scopes: vec![ScopeReport {
            name: "guests".parse().expect("tag"),
            state: ScopeState::Exit,
            exit: Some(NodeId::from_entropy([4; 10])),
            rtt_ms: Some(21),
            why: "the first does not answer".into(),
        }],
        gateways: [("192.168.30.0/24".parse().expect("v4"), NodeId::from_entropy([4; 10]))].into(),
        applied: Applied { policy: 1, assignment: 2, roster: 3 },
        rolled_back: Some(RolledBack { assignment: 2, why: "the control link was gone".into() }),
        failures: vec![Failure { what: "serve 10.0.0.0/8".into(), why: "the owner forbids it".into() }],
        refused: [("bad-signature".into(), 2)].into(),
    }
}

#[test]
fn wire_form_of_each_record_is_pinned() {
    let members = BTreeMap::from([(NODE, 7), (NodeId::from_entropy([4; 10]), 1)]);
    pinned("member", &member());
    pinned("tombstone", &Tombstone { net: NET, node: NODE, rev: 8 });
    pinned("roster", &Roster::new(NET, 3, &members));
    pinned(
        "policy",
        &Policy {
            net: NET,
            rev: 1,
            name: "home".parse().expect("name"),
            prefixes: vec!["10.90.0.0/16".parse().expect("v4"), "fd5e:1::/64".parse().expect("v6")],
            mtu: 1420,
            keepalive: 25,
            domain: "home.internal".into(),
            brokers: vec!["gw.example.org:8883".into(), "198.51.100.1:8883".into()],
        },
    );
    pinned(
        "assignment",
        &Assignment {
            net: NET,
            node: NODE,
            rev: 2,
            name: "barn".parse().expect("name"),
            addresses: member().addresses,
            egress: vec![Egress { prefix: "192.168.10.0/24".parse().expect("v4"), nat: false, metric: 0 }],
            ingress: Some(ingress()),
            exit: Some(offer()),
            scopes: scopes(),
            confirm_s: Some(30),
            attempt: 1,
            access: access(),
            control: vec!["198.51.100.1:8883".parse().expect("v4")],
        },
    );
    pinned("report", &report());
    pinned("presence", &Presence { net: NET, node: NODE, boot: "k3j2".into(), session: 1, online: true });
    pinned(
        "join-request",
        &JoinRequest {
            secret: "AwMDAwMDAwMDAwMDAwMDAw".into(),
            key: WgPublicKey([3; 32]),
            identity: PublicKey([5; 32]),
            name: "barn".parse().expect("name"),
            board: "GL.iNet GL-MT300N-V2".into(),
            version: "0.1.0".into(),
            port: 51820,
            endpoints: member().endpoints,
            interfaces: report().interfaces,
        },
    );
    pinned(
        "join-answer",
        &JoinAnswer {
            net: NET,
            node: NODE,
            network: "home".parse().expect("name"),
            name: "barn".parse().expect("name"),
            brokers: vec!["gw.example:8883".into()],
            ca: "-----BEGIN CERTIFICATE-----\n…".into(),
            certificate: "-----BEGIN CERTIFICATE-----\n…".into(),
            policy: "e30.e30.e30".into(),
            assignment: "e30.e30.e30".into(),
        },
    );
    pinned(
        "problem",
        &Problem {
            status: 409,
            kind: "code-used".into(),
            title: "the join code was used already".into(),
            detail: "have a new one made: gatewrt-coordinator code create home".into(),
        },
    );
}

/// Ed25519 is deterministic (RFC 8032): a fixed key signs a fixed record to fixed bytes.
#[test]
fn signature_of_fixed_key_and_record_is_pinned() {
    let signer = Signer::from_seed(&[9; 32]);
    let token = signer.sign(&Tombstone { net: NET, node: NODE, rev: 8 }).expect("short");
    pinned("signed-tombstone", &token);
    assert_eq!(jws::open::<Tombstone>(token.as_bytes(), &signer.public()).expect("sound").rev, 8);
}

/// One signature by such a key would fit half of all messages.
#[test]
fn key_of_small_order_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let token = Signer::from_seed(&[9; 32]).sign_bytes(Kind::Tombstone, b"{}");
    let signed = token.rsplit_once('.').expect("three parts").0;
    let forged = format!("{signed}.{}", BASE64URL_NOPAD.encode(&[one, [0; 32]].concat()));
    assert!(jws::verify(forged.as_bytes(), &PublicKey(one)).is_err());
}

#[test]
fn member_with_two_prefixes_is_short() {
    let site = Member { exit: None, ..member() };
    let token = Signer::from_seed(&[9; 32]).sign(&site).expect("short");
    assert!(token.len() < 700, "{} bytes", token.len());
}

#[test]
fn report_with_most_peers_fits_a_record() {
    let peer = PeerReport {
        endpoint: Some("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("v6")),
        handshake_s: Some(u64::from(u32::MAX)),
        rx: u64::MAX,
        tx: u64::MAX,
        ..report().peers[0].clone()
    };
    let report = Report { peers: vec![peer; Report::PEERS], ..report() };
    assert!(Signer::from_seed(&[9; 32]).sign(&report).is_ok());
}

#[test]
fn unsound_message_is_refused_with_its_reason() {
    let signer = Signer::from_seed(&[9; 32]);
    let token = signer.sign(&member()).expect("short");
    let open = |token: &str, key| jws::open::<Member>(token.as_bytes(), &key);
    assert!(open(&token, signer.public()).is_ok());
    assert_eq!(open(&token, Signer::from_seed(&[8; 32]).public()), Err(RecordError::ForeignKey));
    assert!(open(&token[..token.len() - 4], signer.public()).is_err());
    let other = signer.sign(&Member { rev: 8, ..member() }).expect("short");
    let (body, signature) = (token.rsplit_once('.'), other.rsplit_once('.'));
    let mixed = format!("{}.{}", body.expect("dots").0, signature.expect("dots").1);
    assert_eq!(open(&mixed, signer.public()), Err(RecordError::BadSignature));
    assert_eq!(open("", signer.public()), Err(RecordError::Malformed));
    assert_eq!(open(&"x".repeat(MAX_RECORD + 1), signer.public()), Err(RecordError::Malformed));
    let long = MAX_ASSIGNMENT + 1;
    assert_eq!(open(&"x".repeat(long), signer.public()), Err(RecordError::TooLong(long, MAX_ASSIGNMENT)));
    let padded = format!("{{\"pad\":\"{}\"}}", "x".repeat(MAX_RECORD));
    let token = signer.sign_bytes(Kind::Member, padded.as_bytes());
    assert_eq!(open(&token, signer.public()), Err(RecordError::TooLong(token.len(), MAX_RECORD)));
    let tombstone = signer.sign(&Tombstone { net: NET, node: NODE, rev: 9 }).expect("short");
    assert_eq!(open(&tombstone, signer.public()), Err(RecordError::WrongKind));
    let newer = signer.sign_bytes(Kind::Member, br#"{"min":2,"what":"a later version says"}"#);
    assert_eq!(open(&newer, signer.public()), Err(RecordError::TooNew(2)));
    let nonsense = signer.sign_bytes(Kind::Member, b"{}");
    assert!(matches!(open(&nonsense, signer.public()), Err(RecordError::Content(_))));
}

#[test]
fn unknown_field_is_ignored() {
    let mut value = serde_json::to_value(member()).expect("JSON");
    value["later"] = serde_json::json!({ "x": [1, 2] });
    value["endpoints"][0]["kind"] = "a-later-kind".into();
    let read: Member = serde_json::from_str(&value.to_string()).expect("read all the same");
    assert_eq!(read.endpoints[0].kind, EndpointKind::Other);
}

/// Tombstone parsed from a payload that is signed as one.
fn opened(payload: &str) -> Result<Tombstone, RecordError> {
    let signer = Signer::from_seed(&[9; 32]);
    jws::open(signer.sign_bytes(Kind::Tombstone, payload.as_bytes()).as_bytes(), &signer.public())
}

#[test]
fn payload_with_duplicate_missing_or_mistyped_field_is_refused() {
    let sound = format!(r#"{{"net":"{NET}","node":"{NODE}","rev":8}}"#);
    assert_eq!(opened(&sound), Ok(Tombstone { net: NET, node: NODE, rev: 8 }));
    for (payload, reason) in [
        (sound.replace("8}", r#"8,"rev":8}"#), "duplicate field `rev`"),
        (sound.replace("8}", r#"8,"min":1,"min":1}"#), "duplicate field `min`"),
        (sound.replace(r#","rev":8"#, ""), "missing field `rev`"),
        (sound.replace("8}", "\"8\"}"), "invalid type: string \"8\", expected u64"),
        (sound.replace("8}", "-8}"), "invalid value: integer `-8`, expected u64"),
        (sound.replace("8}", "18446744073709551616}"), "expected u64"),
        (sound.replace(&NET.to_string(), "home"), "“home” is no id"),
        (sound.clone() + "{}", "trailing characters"),
        (sound.replace("8}", "8,}"), "trailing comma"),
    ] {
        match opened(&payload) {
            Err(RecordError::Content(what)) => assert!(what.contains(reason), "{payload}: {what}"),
            other => panic!("{payload}: {other:?}"),
        }
    }
}

#[test]
fn payload_of_any_depth_leaves_the_stack_whole() {
    for depth in [1, 127, 128, 5000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        let later = format!(r#"{{"net":"{NET}","node":"{NODE}","rev":8,"later":{deep}}}"#);
        assert!(opened(&later).is_ok(), "an unknown field is skipped, {depth} deep");
        assert!(opened(&later.replace("8,", &format!("{deep},"))).is_err());
        assert!(opened(&deep).is_err());
        let token = Signer::from_seed(&[9; 32]).sign_bytes(Kind::Tombstone, later.as_bytes());
        assert_eq!(jws::peek(&token).is_some(), depth < 127, "{depth}");
    }
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<IpAddr>(), 0u8..=128).prop_filter_map("length", |(addr, len)| Prefix::containing(addr, len).ok())
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    use EndpointKind::{Configured, Lan, Observed, Stun, Wan};
    let kind = select(vec![Configured, Wan, Stun, Observed, Lan]);
    (any::<IpAddr>(), any::<u16>(), kind)
        .prop_map(|(ip, port, kind)| Endpoint { addr: SocketAddr::new(ip, port), kind })
}

fn any_member() -> impl Strategy<Value = Member> {
    let ids = (any::<[u8; 10]>(), any::<[u8; 10]>(), any::<u64>(), "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?");
    let places = (vec(any::<IpAddr>(), 0..3), vec(endpoint(), 0..4), vec((prefix(), any::<u32>()), 0..4));
    (ids, any::<[u8; 32]>(), places).prop_map(
        |((net, node, rev, name), key, (addresses, endpoints, prefixes))| Member {
            net: NetworkId::from_entropy(net),
            node: NodeId::from_entropy(node),
            rev,
            name: name.parse().expect("of the right form"),
            key: WgPublicKey(key),
            addresses,
            endpoints,
            clients: prefixes.iter().map(|(prefix, _)| *prefix).collect(),
            exit: rev.is_multiple_of(2).then(offer),
            prefixes: prefixes.into_iter().map(|(prefix, metric)| ServedPrefix { prefix, metric }).collect(),
        },
    )
}

fn any_assignment() -> impl Strategy<Value = Assignment> {
    (any_member(), vec((prefix(), any::<bool>(), any::<u32>()), 0..4)).prop_map(|(member, egress)| {
        Assignment {
            net: member.net,
            node: member.node,
            rev: member.rev,
            name: member.name,
            addresses: member.addresses,
            egress: egress.into_iter().map(|(prefix, nat, metric)| Egress { prefix, nat, metric }).collect(),
            ingress: member.rev.is_multiple_of(2).then(ingress),
            exit: member.exit,
            scopes: if member.rev.is_multiple_of(3) { scopes() } else { Vec::new() },
            confirm_s: None,
            attempt: 0,
            access: if member.rev.is_multiple_of(3) { access() } else { Access::default() },
            control: member.endpoints.into_iter().map(|endpoint| endpoint.addr).collect(),
        }
    })
}

fn any_report() -> impl Strategy<Value = Report> {
    (any_member(), ".{0,40}", option::of(any::<u64>())).prop_map(|(member, text, age)| {
        let peer = PeerReport { handshake_s: age, node: member.node, ..report().peers[0].clone() };
        Report { board: text.clone(), boot: text, endpoints: member.endpoints, peers: vec![peer], ..report() }
    })
}

fn survives<T: Record + PartialEq + Debug>(record: &T) {
    let signer = Signer::from_seed(&[9; 32]);
    let token = signer.sign(record).expect("short");
    assert_eq!(&jws::open::<T>(token.as_bytes(), &signer.public()).expect("sound"), record);
    assert_eq!(&jws::open_own::<T>(token.as_bytes()).expect("sound"), record);
}

proptest! {
    #[test]
    fn record_survives_signing_and_opening(member in any_member(), assignment in any_assignment(), report in any_report()) {
        survives(&member);
        survives(&MemberUpdate::Member(member.clone()));
        survives(&MemberUpdate::Tombstone(Tombstone { net: member.net, node: member.node, rev: member.rev }));
        survives(&assignment);
        survives(&report);
    }

    #[test]
    fn signature_equals_that_of_another_implementation(seed: [u8; 32], message: Vec<u8>) {
        let (ours, theirs) = (Signer::from_seed(&seed), Ed25519KeyPair::from_seed_unchecked(&seed).expect("any seed"));
        prop_assert_eq!(theirs.public_key().as_ref(), ours.public().0);
        let (ours, theirs) = (ours.signature(&message), theirs.sign(&message));
        prop_assert_eq!(theirs.as_ref(), ours);
    }

    #[test]
    fn arbitrary_bytes_are_a_record_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        let key = Signer::from_seed(&[9; 32]).public();
        prop_assert!(jws::open::<MemberUpdate>(&bytes, &key).is_err());
        let _ = jws::open_own::<MemberUpdate>(&bytes);
    }

    /// A broken coordinator may sign nonsense.
    #[test]
    fn arbitrary_signed_payload_is_a_record_or_an_error(payload in "\\{?(\"(net|node|rev|min|addresses)\":[\"a-z0-9{}\\[\\],]{0,20},?){0,4}\\}?") {
        let signer = Signer::from_seed(&[9; 32]);
        for kind in [Kind::Member, Kind::Roster, Kind::Policy, Kind::Assignment, Kind::Report] {
            let token = signer.sign_bytes(kind, payload.as_bytes());
            let _ = jws::open::<MemberUpdate>(token.as_bytes(), &signer.public());
            let _ = jws::open::<Policy>(token.as_bytes(), &signer.public());
            let _ = jws::open::<Assignment>(token.as_bytes(), &signer.public());
            let _ = jws::open::<Report>(token.as_bytes(), &signer.public());
        }
    }

    #[test]
    fn message_with_a_flipped_bit_is_refused(member in any_member(), place: usize, bit in 0u8..8) {
        let signer = Signer::from_seed(&[9; 32]);
        let mut token = signer.sign(&member).expect("short").into_bytes();
        let place = place % token.len();
        token[place] ^= 1 << bit;
        prop_assert!(jws::open::<Member>(&token, &signer.public()).is_err());
    }
}
