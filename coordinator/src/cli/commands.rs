//! Each command: one request, printed as JSON or for people.

mod clients;
mod exits;
mod rules;
mod status;
mod tokens;
mod watch;

use super::{
    args::{Code, Command, Egress, Network, Node, OnOff},
    client::{Client, ClientError},
    output::{json, line, list, span, stack, stacked_table, table, word},
};
use crate::{
    api::{CodeView, EgressView, EgressWish, NetworkView, NodeStatus, NodeView},
    registry::{CodeWish, NetworkPatch, NetworkWish, NodePatch},
};
use serde::Serialize;
use std::net::IpAddr;

type Done = Result<(), ClientError>;

pub(super) fn run(client: &Client, command: Command, as_json: bool) -> Done {
    match command {
        // Neither asks the coordinator.
        Command::Serve(_) | Command::Completions { .. } => Ok(()),
        Command::Network(network) => run_network(client, network, as_json),
        Command::Code(code) => run_code(client, code, as_json),
        Command::Node(node) => run_node(client, node, as_json),
        Command::Egress(egress) => run_egress(client, egress, as_json),
        Command::Ingress(ingress) => clients::run_ingress(client, ingress, as_json),
        Command::Exit(exit) => exits::run(client, exit, as_json),
        Command::ExitClient(command) => exits::run_client(client, command, as_json),
        Command::Client(command) => clients::run(client, command, as_json),
        Command::Rule(rule) => rules::run_rule(client, rule, as_json),
        Command::Group(group) => rules::run_group(client, group, as_json),
        Command::Tag(tag) => rules::run_tag(client, tag, as_json),
        Command::Check(check) => rules::check(client, &check, as_json),
        Command::Token(token) => tokens::run(client, token, as_json),
        Command::Audit { network, last } => tokens::audit(client, network.as_deref(), last, as_json),
        Command::Status { network } => status::run(client, network.as_deref(), as_json),
        Command::Watch { network } => watch::run(client, network.as_deref(), as_json),
    }
}

/// As JSON, or by `show`.
fn print<T: Serialize>(value: &T, as_json: bool, show: impl FnOnce(&T) -> std::io::Result<()>) -> Done {
    if as_json {
        json(value)?
    } else {
        show(value)?
    }
    Ok(())
}

/// Escapes what was typed, so that it stays one level of a path or one value of a query.
fn enc(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn run_network(client: &Client, command: Network, as_json: bool) -> Done {
    match command {
        Network::Create { name, prefix4, prefix6, mtu, keepalive } => {
            let wish = NetworkWish { name, prefix4, prefix6, mtu, keepalive };
            let made: NetworkView = client.post("networks", &wish)?;
            print(&made, as_json, |made| {
                line(&format!("made network {}: {} and {}", made.name, made.prefix4, made.prefix6))?;
                eprintln!("next: gatewrt-coordinator code create {}", made.name);
                Ok(())
            })
        }
        Network::List => print(&client.list::<NetworkView>("networks")?, as_json, |all| network_table(all)),
        Network::Show { network } => {
            let shown: NetworkView = client.get(&format!("networks/{}", enc(&network)))?;
            print(&shown, as_json, |shown| network_table(std::slice::from_ref(shown)))
        }
        Network::Set { network, access, dns } => {
            let dns = (!dns.is_empty()).then(|| resolvers(&dns)).transpose()?;
            let patch = NetworkPatch { access: access.map(Into::into), dns };
            rules::set_network(client, &network, &patch, as_json)
        }
        Network::Delete { network, force } => {
            let gone: NetworkView = client.delete(&format!("networks/{}?force={force}", enc(&network)))?;
            print(&gone, as_json, |gone| line(&format!("deleted network {}", gone.name)))
        }
    }
}

/// Addresses, or `none` alone.
fn resolvers(texts: &[String]) -> Result<Vec<IpAddr>, ClientError> {
    let read = |text: &String| {
        text.parse().map_err(|_| {
            ClientError::Usage(format!("“{text}” is no address: --dns takes addresses, or none"))
        })
    };
    if texts == ["none"] { Ok(Vec::new()) } else { texts.iter().map(read).collect() }
}

fn network_table(networks: &[NetworkView]) -> std::io::Result<()> {
    let row = |network: &NetworkView| {
        vec![
            network.name.to_string(),
            network.id.to_string(),
            network.prefix4.to_string(),
            network.prefix6.to_string(),
            network.mtu.to_string(),
            format!("{}s", network.keepalive),
            word(&network.access),
            list(&network.dns),
            network.nodes.to_string(),
        ]
    };
    let heading = ["NETWORK", "ID", "IPV4", "IPV6", "MTU", "KEEPALIVE", "ACCESS", "DNS", "NODES"];
    table(&heading, &networks.iter().map(row).collect::<Vec<_>>())
}

fn run_code(client: &Client, command: Code, as_json: bool) -> Done {
    match command {
        Code::Create { network, uses, expires, roles } => {
            let roles = roles.into_iter().map(Into::into).collect();
            let wish = CodeWish { uses, expires_in: expires.as_secs(), roles };
            let made: CodeView = client.post(&format!("networks/{}/codes", enc(&network)), &wish)?;
            print(&made, as_json, |made| {
                line(made.code.as_deref().unwrap_or_default())?;
                let times = if made.uses == 1 { "once".to_owned() } else { format!("{} times", made.uses) };
                eprintln!("code {} can be used {times} within {}", made.id, span(made.expires_in));
                eprintln!("next, on the router: gatewrt join CODE");
                Ok(())
            })
        }
        Code::List { network } => {
            let all: Vec<CodeView> = client.list(&format!("networks/{}/codes", enc(&network)))?;
            print(&all, as_json, |all| code_table(all))
        }
        Code::Revoke { network, code } => {
            let gone: CodeView =
                client.delete(&format!("networks/{}/codes/{}", enc(&network), enc(&code)))?;
            print(&gone, as_json, |gone| line(&format!("revoked code {}", gone.id)))
        }
    }
}

fn code_table(codes: &[CodeView]) -> std::io::Result<()> {
    let row = |code: &CodeView| {
        let expires = if code.expires_in == 0 { "-".to_owned() } else { span(code.expires_in) };
        let used = format!("{} of {}", code.used, code.uses);
        vec![code.id.clone(), code.state.clone(), used, expires, list(code.roles.iter().map(word))]
    };
    table(&["CODE", "STATE", "USED", "EXPIRES IN", "ROLES"], &codes.iter().map(row).collect::<Vec<_>>())
}

fn run_node(client: &Client, command: Node, as_json: bool) -> Done {
    match command {
        Node::List { network } => {
            let all: Vec<NodeStatus> = client.list(&format!("networks/{}/nodes", enc(&network)))?;
            print(&all, as_json, |all| status::node_table(all))
        }
        Node::Show { network, node } => {
            let shown: NodeStatus = client.get(&node_path(&network, &node))?;
            print(&shown, as_json, status::node_details)
        }
        Node::Rename { network, node, name } => {
            let patch = NodePatch { name: Some(name), ..NodePatch::default() };
            let renamed: NodeView = client.patch(&node_path(&network, &node), &patch)?;
            print(&renamed, as_json, |renamed| line(&format!("node {} is now {}", renamed.id, renamed.name)))
        }
        Node::Remove { network, node, force } => {
            let gone: NodeView = client.delete(&format!("{}?force={force}", node_path(&network, &node)))?;
            print(&gone, as_json, |gone| line(&format!("removed node {} ({})", gone.name, gone.id)))
        }
        Node::Retry { network, node } => {
            let node: NodeView = client.post(&format!("{}/retry", node_path(&network, &node)), &())?;
            print(&node, as_json, |node| line(&format!("{} tries again what it took back", node.name)))
        }
        Node::SetConfirm { network, node, seconds } => {
            let patch = NodePatch { confirm_s: Some(seconds), ..NodePatch::default() };
            let node: NodeView = client.patch(&node_path(&network, &node), &patch)?;
            print(&node, as_json, |node| {
                let after = node.confirm_s;
                line(&format!("{} takes a change back that cuts it off for {after} s", node.name))
            })
        }
    }
}

fn node_path(network: &str, node: &str) -> String {
    format!("networks/{}/nodes/{}", enc(network), enc(node))
}

fn run_egress(client: &Client, command: Egress, as_json: bool) -> Done {
    match command {
        Egress::Set { network, node, prefix, nat, metric } => {
            let wish = EgressWish { prefix, nat: nat == OnOff::On, metric };
            let node: NodeView = client.put(&format!("{}/egress", node_path(&network, &node)), &wish)?;
            print(&node, as_json, |node| {
                let nat = if wish.nat { "on" } else { "off" };
                line(&format!("{} serves {} to {}, NAT {nat}", node.name, wish.prefix, node.network))?;
                warn(&node.warnings);
                Ok(())
            })
        }
        Egress::Unset { network, node, prefix } => {
            let path = format!("{}/egress?prefix={}", node_path(&network, &node), enc(&prefix.to_string()));
            let node: NodeView = client.delete(&path)?;
            print(&node, as_json, |node| line(&format!("{} serves {prefix} no more", node.name)))
        }
        Egress::List { network } => {
            let all: Vec<EgressView> = client.list(&format!("networks/{}/egress", enc(&network)))?;
            print(&all, as_json, |all| egress_table(all))
        }
    }
}

fn egress_table(all: &[EgressView]) -> std::io::Result<()> {
    let row = |egress: &EgressView| {
        let nat = if egress.nat { "on" } else { "off" };
        let metric = egress.metric.to_string();
        vec![
            egress.prefix.to_string(),
            egress.node.to_string(),
            nat.to_owned(),
            metric,
            list(&egress.used_by),
        ]
    };
    table(&["PREFIX", "NODE", "NAT", "METRIC", "USED BY"], &all.iter().map(row).collect::<Vec<_>>())
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {}", super::output::harmless(warning));
    }
}

#[cfg(test)]
mod tests {
    use super::enc;

    #[test]
    fn what_was_typed_stays_one_part_of_a_path() {
        assert_eq!(enc("home/../x?y#z"), "home%2F..%2Fx%3Fy%23z");
        assert_eq!(enc("fd00::/64"), "fd00%3A%3A%2F64");
    }
}
