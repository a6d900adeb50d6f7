//! The setup of GateWRT made by hand, as someone who knows `ip`, `wg` and `nft` types it: forwarding of the served
//! prefixes and no more, masquerading of packets from the tunnel and of nothing else, clamped segment sizes, and no way
//! past the exit. IPv4 only.

use anyhow::{Context, Result};
use gatewrt_tests::{
    lab::{Host, Lab},
    mesh::foreign_kit,
    wg,
};

const PORT: u16 = 51820;

/// Gives `client` access to the LAN of `server`, masqueraded.
pub(crate) fn egress(lab: &Lab, client: &str, server: &str) -> Result<()> {
    let (client, server) = (lab.host(client)?, lab.host(server)?);
    let lan = server.lan_prefixes()?[0].clone();
    tunnel(&client, &server, &lan)?;
    client.shell(&format!("ip route add {lan} dev wg0"))?;
    client.nft(&filter("", ""))?;
    server.nft(&filter(&format!("ip daddr {lan} accept"), "iifname \"wg0\" oifname \"lan\" masquerade"))
}

/// Routes Internet traffic of the hosts on the LAN of `client` through `server`, and nowhere else.
pub(crate) fn exit(lab: &Lab, client: &str, server: &str) -> Result<()> {
    let (client, server) = (lab.host(client)?, lab.host(server)?);
    tunnel(&client, &server, "0.0.0.0/0")?;
    let others: String = ["lan", "guest"]
        .map(|link| Ok(format!("ip route add throw {} table 100\n", client.prefixes(link)?[0])))
        .into_iter()
        .collect::<Result<_>>()?;
    // The rule has the priority that GateWRT's has among those of others.
    client.shell(&format!(
        "ip route add default dev wg0 table 100
        ip route add blackhole default metric 1000 table 100
        {others}ip rule add priority 910 iif lan lookup 100"
    ))?;
    client.nft(&filter("", "oifname \"wg0\" snat ip to 10.99.0.1"))?;
    client.nft("table inet hand { chain leak { type filter hook forward priority 1; iifname \"lan\" oifname \"wan\" drop; }; }")?;
    server.nft(&filter("oifname \"wan\" accept", "iifname \"wg0\" oifname \"wan\" masquerade"))
}

/// Makes a tunnel between two routers, and places the same foreign objects on them as on the routers of the other lab.
fn tunnel(client: &Host, server: &Host, served: &str) -> Result<()> {
    let keys = [wg::key_pair(client)?, wg::key_pair(server)?];
    let lan = &client.lan_prefixes()?[0];
    let sides = [
        (client, &keys[0].0, "10.99.0.1", &keys[1].1, server, format!("10.99.0.2/32,{served}")),
        (server, &keys[1].0, "10.99.0.2", &keys[0].1, client, format!("10.99.0.1/32,{lan}")),
    ];
    for (host, private, address, public, peer, allowed) in sides {
        foreign_kit(host).place()?;
        host.write_file("/etc/wg0.key", private)?;
        host.shell(&format!(
            "ip link add wg0 mtu 1420 type wireguard
            wg set wg0 listen-port {PORT} private-key /etc/wg0.key \
                peer {public} endpoint {}:{PORT} persistent-keepalive 25 allowed-ips {allowed}
            ip addr add {address}/24 dev wg0
            ip link set wg0 up",
            peer.ip4()?
        ))
        .context("a tunnel by hand")?;
    }
    server.shell(&format!("ip route add {lan} dev wg0")).map(drop)
}

fn filter(accepted: &str, nat: &str) -> String {
    format!(
        "table inet hand {{
          chain forward {{
            type filter hook forward priority filter; policy accept;
            iifname \"wg0\" jump from_tunnel
          }}
          chain from_tunnel {{
            ct state established,related accept
            {accepted}
            reject with icmpx type admin-prohibited
          }}
          chain mss {{
            type filter hook forward priority mangle; policy accept;
            iifname \"wg0\" tcp flags syn tcp option maxseg size set rt mtu
            oifname \"wg0\" tcp flags syn tcp option maxseg size set rt mtu
          }}
          chain postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            {nat}
          }}
        }}"
    )
}
