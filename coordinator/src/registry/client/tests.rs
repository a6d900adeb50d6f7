use super::*;
use crate::{
    registry::{CodeSpec, EgressSetting, IngressSpec, Moment, NetworkPatch, NetworkSpec, file::drift},
    testing::{client_spec, keys, request},
};

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn moment(number: u8) -> Moment {
    Moment { now: 1000, entropy: [number; 32] }
}

/// A network `home` with nodes `node-1` and `node-2`, both of which let clients in, and `node-3`.
fn home(prefix4: &str) -> Registry {
    let mut registry = Registry::default();
    let spec = NetworkSpec {
        name: "home".parse().unwrap(),
        prefix4: Some(p(prefix4)),
        prefix6: Some(p("fd00:80::/64")),
        mtu: None,
        keepalive: None,
    };
    registry.apply(registry.create_network(&spec, &moment(0)).unwrap().0);
    let code = CodeSpec { uses: 9, expires_in: 60, roles: BTreeSet::new() };
    let (rows, (_, secret)) = registry.create_code("home", &code, &moment(1)).unwrap();
    registry.apply(rows);
    for key in 1..=3 {
        let rows = registry.join(&request(secret, key, key, key), None, &moment(key)).unwrap().0;
        registry.apply(rows);
    }
    for node in ["node-1", "node-2"] {
        registry.apply(registry.set_ingress("home", node, &IngressSpec::default()).unwrap().0);
    }
    registry
}

fn blocks(registry: &Registry, node: &str) -> Vec<Prefix> {
    registry.find_node("home", node).unwrap().ingress.as_ref().unwrap().blocks.clone()
}

fn spec(name: &str, gateways: &[&str]) -> ClientSpec {
    client_spec(name, gateways.iter().map(|name| name.parse().unwrap()).collect())
}

fn add(registry: &mut Registry, spec: &ClientSpec, key: u8) -> Result<Client, RegistryError> {
    let (rows, client) = registry.create_client("home", spec, &keys(key), &moment(key))?;
    registry.apply(rows);
    Ok(client)
}

fn why(outcome: Result<Client, RegistryError>) -> String {
    let error = outcome.unwrap_err();
    format!("{error}; {}", error.advice())
}

#[test]
fn default_blocks_are_far_from_nodes_and_from_each_other() {
    let registry = home("10.80.0.0/16");
    assert_eq!(blocks(&registry, "node-1"), [p("10.80.255.0/24"), p("fd00:80::1:0/112")]);
    assert_eq!(blocks(&registry, "node-2"), [p("10.80.254.0/24"), p("fd00:80::2:0/112")]);
    let small = home("10.80.0.0/27");
    assert_eq!(blocks(&small, "node-1")[0], p("10.80.0.24/29"), "a quarter of a small network");
}

#[test]
fn node_addresses_skip_client_blocks() {
    let mut registry = home("10.80.0.0/24");
    let block = IngressSpec { block4: Some(p("10.80.0.4/30")), ..IngressSpec::default() };
    registry.apply(registry.set_ingress("home", "node-3", &block).unwrap().0);
    let code = CodeSpec { uses: 9, expires_in: 60, roles: BTreeSet::new() };
    let (rows, (_, secret)) = registry.create_code("home", &code, &moment(7)).unwrap();
    registry.apply(rows);
    let (rows, id) = registry.join(&request(secret, 4, 4, 4), None, &moment(8)).unwrap();
    registry.apply(rows);
    assert_eq!(registry.node(id).unwrap().addresses[0].to_string(), "10.80.0.8");
    assert_eq!(home("10.80.0.0/28").live_nodes(registry.networks().next().unwrap().id).count(), 3);
}

#[test]
fn requested_block_out_of_place_is_refused() {
    let mut registry = home("10.80.0.0/16");
    let set = |registry: &Registry, block: &str| {
        let spec = IngressSpec { block4: Some(p(block)), ..IngressSpec::default() };
        registry.set_ingress("home", "node-3", &spec)
    };
    for (block, part) in [
        ("10.80.0.0/24", "given before"),
        ("10.80.255.128/25", "given before"),
        ("10.81.0.0/24", "no part of"),
        ("10.80.0.0/16", "no part of"),
        ("10.80.7.4/31", "too small"),
        ("fd00:80::7:0/112", "other family"),
    ] {
        let said = set(&registry, block).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
    registry.apply(set(&registry, "10.80.7.0/24").unwrap().0);
    let client = add(&mut registry, &spec("phone", &["node-3"]), 50).unwrap();
    assert_eq!(client.addresses()[0].to_string(), "10.80.7.1");
    let said = set(&registry, "10.80.8.0/24").unwrap_err();
    assert!(said.to_string().contains("phone"), "{said}");
    registry.apply(registry.delete_client("home", "phone", &moment(9)).unwrap().0);
    registry.apply(set(&registry, "10.80.8.0/24").unwrap().0);
    assert!(set(&registry, "10.80.7.0/24").is_err(), "a block is given once");
}

#[test]
fn invalid_ingress_endpoint_is_refused() {
    let registry = home("10.80.0.0/16");
    let set = |endpoint: &str| {
        let spec = IngressSpec { endpoint: Some(endpoint.into()), ..IngressSpec::default() };
        registry.set_ingress("home", "node-3", &spec).map(|(_, node)| node.ingress.unwrap().endpoint.unwrap())
    };
    for (stated, kept) in [
        ("VPN.example.org:51820", "vpn.example.org:51820"),
        ("[2001:db8::7]:1", "[2001:db8::7]:1"),
        ("198.51.100.1:65535", "198.51.100.1:65535"),
    ] {
        assert_eq!(set(stated).unwrap(), kept);
    }
    for stated in [
        "",
        "x",
        "x:",
        "x:0",
        "x:65536",
        "x:+1",
        "2001:db8::7:1",
        "10.80.0.9:1",
        "127.0.0.1:1",
        "1.2.3:1",
        "a b:1",
        "-a:1",
        "a\n:1",
        "[::]:1",
        "198.51.100.1:0",
    ] {
        assert_eq!(set(stated).unwrap_err().kind(), "bad-endpoint", "{stated:?}");
    }
}

#[test]
fn requested_address_outside_the_block_or_used_is_refused() {
    let mut registry = home("10.80.0.0/16");
    let at = |name: &str, addr: &str| ClientSpec {
        addresses: vec![addr.parse().unwrap()],
        ..spec(name, &["node-1"])
    };
    let phone = add(&mut registry, &at("phone", "10.80.255.77"), 50).unwrap();
    assert_eq!(phone.addresses()[0].to_string(), "10.80.255.77");
    assert_eq!(phone.addresses()[1].to_string(), "fd00:80::1:1", "the other family is chosen");
    registry.apply(registry.delete_client("home", "phone", &moment(9)).unwrap().0);
    for (addr, part) in [
        ("10.80.255.77", "client phone, which was deleted"),
        ("10.80.254.1", "10.80.255.0/24 and fd00:80::1:0/112 of node-1"),
        ("10.80.0.1", "of node-1"),
        ("10.80.255.0", "no host's"),
        ("10.80.255.255", "no host's"),
    ] {
        let said = why(add(&mut registry, &at("laptop", addr), 51));
        assert!(said.contains(part) && said.contains("leave it out"), "{said}");
    }
    let two = ["10.80.255.9", "10.80.255.10"].map(|addr| addr.parse().unwrap()).to_vec();
    let said = why(add(&mut registry, &ClientSpec { addresses: two, ..spec("laptop", &["node-1"]) }, 51));
    assert!(said.contains("one address a family"), "{said}");
}

#[test]
fn addresses_of_deleted_clients_are_never_reused() {
    let mut registry = home("10.80.0.0/28");
    assert_eq!(blocks(&registry, "node-1")[0].len(), 30);
    for number in 1..=2 {
        add(&mut registry, &spec("phone", &["node-1"]), 50 + number).unwrap();
        registry.apply(registry.delete_client("home", "phone", &moment(9)).unwrap().0);
    }
    let said = why(add(&mut registry, &spec("phone", &["node-1"]), 60));
    assert!(said.contains("has no address left"), "{said}");
}

#[test]
fn client_with_used_name_or_key_is_refused() {
    let mut registry = home("10.80.0.0/16");
    add(&mut registry, &spec("phone", &["node-1"]), 50).unwrap();
    assert!(why(add(&mut registry, &spec("phone", &["node-1"]), 51)).contains("a client “phone” exists"));
    assert!(why(add(&mut registry, &spec("node-2", &["node-1"]), 51)).contains("a node “node-2” exists"));
    assert!(why(add(&mut registry, &spec("x", &["node-1"]), 1)).contains("that of node node-1"));
    assert!(why(add(&mut registry, &spec("x", &["node-1"]), 50)).contains("that of client phone"));
    let zero = NewKeys { key: WgPublicKey([0; 32]), ..keys(1) };
    assert_eq!(
        registry.create_client("home", &spec("x", &["node-1"]), &zero, &moment(1)).unwrap_err().kind(),
        "bad-key"
    );
    let (rows, _) =
        registry.reissue_client("home", "phone", &ReissueRequest::default(), &keys(60), &moment(2)).unwrap();
    registry.apply(rows);
    registry.apply(registry.delete_client("home", "phone", &moment(3)).unwrap().0);
    for dead in [50, 60] {
        assert!(why(add(&mut registry, &spec("x", &["node-1"]), dead)).contains("was that of client phone"));
    }
    let code = CodeSpec { uses: 1, expires_in: 60, roles: BTreeSet::new() };
    let (rows, (_, secret)) = registry.create_code("home", &code, &moment(4)).unwrap();
    registry.apply(rows);
    let refused = registry.join(&request(secret, 60, 7, 7), None, &moment(5)).unwrap_err();
    assert_eq!(refused.kind(), "key-known", "nor can a router have it");
}

#[test]
fn prefix_behind_a_client_is_checked_like_an_egress() {
    let mut registry = home("10.80.0.0/16");
    let setting = EgressSetting { nat: true, metric: 0 };
    registry.apply(registry.set_egress("home", "node-3", p("192.168.9.0/24"), setting).unwrap().0);
    let stated = IngressSpec { endpoint: Some("198.51.100.7:51820".into()), ..IngressSpec::default() };
    registry.apply(registry.set_ingress("home", "node-2", &stated).unwrap().0);
    let behind = |name: &str, prefixes: &[&str]| ClientSpec {
        prefixes: prefixes.iter().map(|text| p(text)).collect(),
        ..spec(name, &["node-1"])
    };
    for (prefixes, part) in [
        (&["192.168.9.0/25"][..], "served by node node-3"),
        (&["10.80.0.0/24"], "the addresses of network home"),
        (&["198.51.100.7/32"], "holds 198.51.100.7:51820, where clients reach node node-2"),
        (&["0.0.0.0/0"], "default route"),
        (&["127.0.0.0/8"], "not for hosts"),
        (&["192.168.1.0/24", "192.168.1.0/25"], "behind client van"),
    ] {
        let said = why(add(&mut registry, &behind("van", prefixes), 50));
        assert!(said.contains(part), "{said}");
    }
    add(&mut registry, &behind("van", &["192.168.77.0/24"]), 50).unwrap();
    let said = why(add(&mut registry, &behind("truck", &["192.168.77.0/26"]), 51));
    assert!(said.contains("behind client van of network home"), "{said}");
    let egress =
        registry.set_egress("home", "node-3", p("192.168.76.0/23"), setting).unwrap_err().to_string();
    assert!(egress.contains("behind client van"), "{egress}");
    let wider = ClientPatch { prefixes: Some([p("192.168.76.0/23")].into()), ..ClientPatch::default() };
    let (rows, _) = registry.change_client("home", "van", &wider, &moment(1)).unwrap();
    registry.apply(rows);
    registry.apply(registry.delete_client("home", "van", &moment(2)).unwrap().0);
    registry.set_egress("home", "node-3", p("192.168.77.0/24"), setting).unwrap();
}

#[test]
fn prefix_behind_a_client_that_a_node_claims_is_warned_of() {
    let mut registry = home("10.80.0.0/16");
    let behind = ClientSpec { prefixes: [p("203.0.113.0/24")].into(), ..spec("van", &["node-1"]) };
    let van = add(&mut registry, &behind, 50).unwrap();
    let warnings = registry.client_warnings(&van).join("\n");
    let said =
        "203.0.113.0/24 behind client van holds 203.0.113.2:51820, where node-2 says that it is reached";
    assert!(warnings.contains(said), "{warnings}");
    assert!(
        registry.warnings(van.net).iter().any(|warning| warning == said),
        "the network's status says it too"
    );
}

#[test]
fn reissued_client_moves_to_its_other_gateway() {
    let mut registry = home("10.80.0.0/16");
    let phone = add(&mut registry, &spec("phone", &["node-1", "node-2"]), 50).unwrap();
    assert_eq!(phone.seats.len(), 2);
    let first = phone.addresses().to_vec();
    let reissue = |registry: &mut Registry, gateway: &str, key| {
        let spec = ReissueRequest { gateway: Some(gateway.parse().unwrap()), ..ReissueRequest::default() };
        let (rows, client) = registry.reissue_client("home", "phone", &spec, &keys(key), &moment(key))?;
        registry.apply(rows);
        Ok(client)
    };
    let moved = reissue(&mut registry, "node-2", 51).unwrap();
    assert!(moved.addresses()[0].to_string().starts_with("10.80.254."));
    assert_eq!(moved.file.addresses, moved.addresses());
    let admitted = |registry: &Registry, node: &str| {
        registry.admitted(registry.find_node("home", node).unwrap(), 1000).count()
    };
    assert_eq!((admitted(&registry, "node-1"), admitted(&registry, "node-2")), (0, 1));
    assert_eq!(reissue(&mut registry, "node-1", 52).unwrap().addresses(), first, "its own seat again");
    assert!(why(reissue(&mut registry, "node-3", 53)).contains("lets no external clients in"));
    assert!(why(add(&mut registry, &spec("x", &[]), 54)).contains("node-1, node-2"));
}

#[test]
fn expiry_is_carried_out_once_until_a_new_one_is_set() {
    let mut registry = home("10.80.0.0/16");
    add(&mut registry, &ClientSpec { expires: Some(2000), ..spec("phone", &["node-1"]) }, 50).unwrap();
    let state =
        |registry: &Registry, now| registry.client_state(registry.find_client("home", "phone").unwrap(), now);
    assert_eq!(registry.next_expiry(), Some(1060), "the join code");
    registry.apply(registry.expire(1060));
    assert_eq!((registry.next_expiry(), registry.expire(1999)), (Some(2000), vec![]));
    registry.apply(registry.expire(2000));
    assert_eq!((registry.next_expiry(), registry.expire(3000)), (None, vec![]));
    assert_eq!(state(&registry, 1000), ClientState::Expired, "also by a clock that went back");
    let set = |registry: &mut Registry, expires| {
        let patch = ClientPatch { expires: Some(expires), ..ClientPatch::default() };
        registry.apply(registry.change_client("home", "phone", &patch, &moment(1)).unwrap().0);
        (state(registry, 1000), registry.next_expiry())
    };
    assert_eq!(set(&mut registry, Some(2000)), (ClientState::Enabled, Some(2000)));
    registry.apply(registry.expire(2000));
    assert_eq!(set(&mut registry, None), (ClientState::Enabled, None));
}

#[test]
fn stale_file_lists_the_changes_since() {
    let mut registry = home("10.80.0.0/16");
    let phone = add(&mut registry, &spec("phone", &["node-1"]), 50).unwrap();
    let stale = |registry: &Registry| registry.stale(registry.find_client("home", "phone").unwrap());
    assert_eq!(stale(&registry), Vec::<String>::new());
    let van = ClientSpec { prefixes: [p("192.168.77.0/24")].into(), ..spec("van", &["node-1"]) };
    let van = add(&mut registry, &van, 51).unwrap();
    assert!(!van.file.allowed.contains(&p("192.168.77.0/24")), "not its own LAN into the tunnel");
    assert_eq!(
        stale(&registry),
        ["prefix 192.168.77.0/24 is new: the file does not send it through the tunnel"]
    );
    let dns = NetworkPatch { dns: Some(vec!["10.80.0.1".parse().unwrap()]), ..NetworkPatch::default() };
    registry.apply(registry.change_network("home", &dns).unwrap().0);
    let moved = IngressSpec { endpoint: Some("vpn.example.org:1".into()), ..IngressSpec::default() };
    registry.apply(registry.set_ingress("home", "node-1", &moved).unwrap().0);
    let words = stale(&registry).join("\n");
    for part in ["vpn.example.org:1 now: the file names 203.0.113.1:51820", "DNS servers are 10.80.0.1 now"] {
        assert!(words.contains(part), "{words}");
    }
    registry.apply(registry.mark_issued("home", "phone", &moment(3)).unwrap().0);
    assert_eq!(stale(&registry), Vec::<String>::new());
    let full = ClientPatch { tunnel: Some(Tunnel::Full), ..ClientPatch::default() };
    registry.apply(registry.change_client("home", "phone", &full, &moment(4)).unwrap().0);
    assert!(stale(&registry)[0].contains("a full one now"));
    let unknown = ClientFile { endpoint: String::new(), ..phone.file.clone() };
    assert_eq!(drift(&phone.file, &unknown), Vec::<String>::new(), "what is not known is no news");
}

#[test]
fn split_tunnel_has_the_network_and_the_chosen_routes() {
    let mut registry = home("10.80.0.0/16");
    let setting = EgressSetting { nat: true, metric: 0 };
    for prefix in ["192.168.8.0/24", "192.168.9.0/24"] {
        registry.apply(registry.set_egress("home", "node-3", p(prefix), setting).unwrap().0);
    }
    let all = add(&mut registry, &spec("all", &["node-1"]), 50).unwrap().file.allowed;
    assert_eq!(all, ["10.80.0.0/16", "192.168.8.0/24", "192.168.9.0/24", "fd00:80::/64"].map(p).into());
    let chosen = ClientSpec {
        routes: ["192.168.0.0/16", "192.168.9.0/24"].map(p).into(),
        ..spec("chosen", &["node-1"])
    };
    let chosen = add(&mut registry, &chosen, 51).unwrap().file.allowed;
    assert_eq!(chosen, ["10.80.0.0/16", "192.168.0.0/16", "fd00:80::/64"].map(p).into());
}
