//! Text diagram of a lab.

use std::fmt::Write;

use super::layout::{Cable, End, FABRIC, Layout};
use super::topology::CORE;

/// Draws the tree from the core down, with every address.
pub(crate) fn diagram(layout: &Layout) -> String {
    let mut text = String::from("core (the Internet)\n");
    draw_below(layout, CORE, "", &mut text);
    text
}

fn draw_below(layout: &Layout, node: &str, indent: &str, text: &mut String) {
    let below = children(layout, node);
    for (index, end) in below.iter().enumerate() {
        let last = index + 1 == below.len();
        let kind =
            layout.nodes.get(&end.node).map(|n| format!("{:?}", n.kind).to_lowercase()).unwrap_or_default();
        let _ = writeln!(text, "{indent}{} {} ({kind})", if last { "└─" } else { "├─" }, end.node);
        let deeper = format!("{indent}{}  ", if last { " " } else { "│" });
        let stem = if children(layout, &end.node).is_empty() { " " } else { "│" };
        for own in interfaces(layout, &end.node) {
            let addresses: Vec<String> = own.addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "{deeper}{stem}    {:<10} {}", own.ifname, addresses.join("  "));
        }
        draw_below(layout, &end.node, &deeper, text);
    }
}

/// Lower ends of the hosts directly below `node`, on a cable or over a bridge.
fn children<'a>(layout: &'a Layout, node: &'a str) -> Vec<&'a End> {
    let direct = layout.cables.iter().filter(move |c| c.upper.node == node).map(|c| &c.lower);
    let bridges = layout.cables.iter().filter(move |c| is_lan_port(c, node)).map(|c| &c.upper.bridge);
    let hosts = bridges.flat_map(move |bridge| {
        let behind = move |c: &&Cable| c.upper.bridge == *bridge && c.lower.node != node;
        layout.cables.iter().filter(behind).map(|c| &c.lower)
    });
    direct.chain(hosts).collect()
}

/// True for a router's own port on one of its LANs.
fn is_lan_port(cable: &Cable, node: &str) -> bool {
    cable.upper.node == FABRIC && cable.lower.node == node && cable.lower.ifname != "eth0"
}

fn interfaces<'a>(layout: &'a Layout, node: &'a str) -> impl Iterator<Item = &'a End> {
    layout.ends().filter(move |end| end.node == node)
}
