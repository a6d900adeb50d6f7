use super::*;

fn layout(text: &str) -> Layout {
    Layout::new(&Topology::parse(text).expect("a valid topology")).expect("a layout")
}

fn routes(end: &End) -> Vec<String> {
    end.routes.iter().map(|r| format!("{} via {}", r.to, r.via)).collect()
}

#[test]
fn attachments_are_numbered_in_both_families() {
    let layout = layout("[server.a]\n[server.b]");
    let end = layout.end("b", "eth0").expect("b is attached");
    let addresses: Vec<String> = end.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["198.18.2.2/24", "2001:db8:2::2/64"]);
    assert_eq!(routes(end), ["0.0.0.0/0 via 198.18.2.1", "::/0 via 2001:db8:2::1"]);
}

#[test]
fn behind_a_nat_box_the_core_routes_ipv6_only() {
    let layout = layout("[nat.isp]\nforward = ['51820/udp=barn']\n[router.barn]\nwan = 'isp'");
    let end = layout.end("barn", "wan").expect("barn is attached");
    assert_eq!(end.addresses[0].to_string(), "100.64.2.2/24");
    let core = layout.end("core", "isp").expect("the core has a port for isp");
    assert_eq!(routes(core), ["2001:db8:2::/64 via 2001:db8:1::2"]);
    assert!(layout.nodes["isp"].ruleset.contains("udp dport 51820 dnat ip to 100.64.2.2:51820"));
    assert_eq!(layout.edge("barn").expect("a way out"), "isp");
}

#[test]
fn a_nat_box_without_ipv6_gives_none() {
    let layout =
        layout("[nat.isp]\nipv6 = 'none'\n[router.barn]\nwan = 'isp'\nlan = '10.0.0.0/24'\nhosts = ['pc']");
    assert_eq!(layout.end("barn", "wan").expect("attached").addresses.len(), 1);
    assert_eq!(layout.edge("pc").expect("a way out"), "isp");
}

#[test]
fn a_server_may_be_behind_a_nat_box() {
    let layout =
        layout("[nat.cell]\nipv6 = 'none'\n[nat.cafe]\n[server.a]\nwan = 'cell'\n[server.b]\nwan = 'cafe'");
    assert_eq!(layout.end("a", "eth0").expect("attached").addresses[0].to_string(), "100.64.1.2/24");
    assert_eq!(layout.end("a", "eth0").expect("attached").addresses.len(), 1);
    assert_eq!(layout.edge("a").expect("a way out"), "cell");
    let core = layout.end("core", "cafe").expect("the core has a port for cafe");
    assert_eq!(routes(core), ["2001:db8:2::/64 via 2001:db8:3::2"]);
}

#[test]
fn only_a_public_lan_prefix_is_routed() {
    let layout = layout("[router.a]\nlan6 = 'fd00::/64'\n[router.b]\nlan6 = '2001:db8:b000::/64'");
    assert!(routes(layout.end("core", "a").expect("a port")).is_empty());
    assert_eq!(routes(layout.end("core", "b").expect("a port")), ["2001:db8:b000::/64 via 2001:db8:2::2"]);
}

#[test]
fn renumbering_moves_addresses_gateways_and_routes() {
    let mut layout = layout("[router.b]\nlan6 = '2001:db8:b000::/64'");
    let (old, new) = layout.renumber("b").expect("b has a WAN");
    assert_eq!(old.lower.addresses[0].to_string(), "198.18.1.2/24");
    assert_eq!(new.lower.addresses[0].to_string(), "198.18.2.2/24");
    assert_eq!(routes(&new.lower), ["0.0.0.0/0 via 198.18.2.1", "::/0 via 2001:db8:2::1"]);
    assert_eq!(routes(&new.upper), ["2001:db8:b000::/64 via 2001:db8:2::2"]);
}
