//! Commands: each sends a request, and prints the answer as JSON or for people.

mod backup;
mod clients;
mod exits;
mod obeyed;
mod recovery;
mod rules;
mod status;
mod tokens;
mod watch;

pub(super) use backup::{backup, restore};

use super::{
    args::{CodeCommand, Command, EgressCommand, NetworkCommand, NodeCommand, OnOff},
    client::{ApiClient, CommandError},
    output::{json, line, list, span, stack, stacked_table, table, word},
};
use crate::{
    api::{CodeView, EgressSpec, EgressView, NetworkView, NodeStatus, NodeView},
    obeyed::Changed,
    registry::{CodeSpec, NetworkPatch, NetworkSpec, NodePatch},
};
use serde::Serialize;
use std::net::IpAddr;

pub(super) use obeyed::print_obeyed;

type CommandResult = Result<(), CommandError>;

pub(super) fn run(client: &ApiClient, command: Command, as_json: bool) -> CommandResult {
    match command {
        // These do not use the API.
        Command::Serve(_) | Command::Backup(_) | Command::Restore(_) | Command::Completions { .. } => Ok(()),
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
        Command::Recovery(command) => recovery::run(client, command, as_json),
        Command::Audit { network, last } => tokens::audit(client, network.as_deref(), last, as_json),
        Command::Status { network } => status::run(client, network.as_deref(), as_json),
        Command::Watch { network } => watch::run(client, network.as_deref(), as_json),
    }
}

/// Prints an answer as JSON, or by `show` as text for people.
fn print<T: Serialize>(
    value: &T,
    as_json: bool,
    show: impl FnOnce(&T) -> std::io::Result<()>,
) -> CommandResult {
    if as_json {
        json(value)?
    } else {
        show(value)?
    }
    Ok(())
}

/// Escapes a command's argument as one level of a path or one value of a query.
fn enc(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn run_network(client: &ApiClient, command: NetworkCommand, as_json: bool) -> CommandResult {
    match command {
        NetworkCommand::Create { name, prefix4, prefix6, mtu, keepalive } => {
            let spec = NetworkSpec { name, prefix4, prefix6, mtu, keepalive };
            let made: Changed<NetworkView> = client.post("networks", &spec)?;
            print(&made, as_json, |made| {
                line(&format!("created network {}: {} and {}", made.name, made.prefix4, made.prefix6))?;
                warn(&made.warnings);
                eprintln!("next: gatewrt-coordinator code create {}", made.name);
                Ok(())
            })
        }
        NetworkCommand::List => {
            print(&client.list::<NetworkView>("networks")?, as_json, |all| network_table(all))
        }
        NetworkCommand::Show { network } => {
            let shown: NetworkView = client.get(&format!("networks/{}", enc(&network)))?;
            print(&shown, as_json, |shown| network_table(std::slice::from_ref(shown)))
        }
        NetworkCommand::Set { network, access, dns } => {
            let dns = (!dns.is_empty()).then(|| resolvers(&dns)).transpose()?;
            let patch = NetworkPatch { access: access.map(Into::into), dns };
            rules::set_network(client, &network, &patch, as_json)
        }
        NetworkCommand::Delete { network, force } => {
            let gone: Changed<NetworkView> =
                client.delete(&format!("networks/{}?force={force}", enc(&network)))?;
            print(&gone, as_json, |gone| line(&format!("deleted network {}", gone.name)))
        }
    }
}

/// Parses the addresses of resolvers; `none` alone means an empty list.
fn resolvers(texts: &[String]) -> Result<Vec<IpAddr>, CommandError> {
    let read = |text: &String| {
        text.parse().map_err(|_| {
            CommandError::Usage(format!("“{text}” is no address: --dns takes addresses, or none"))
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

fn run_code(client: &ApiClient, command: CodeCommand, as_json: bool) -> CommandResult {
    match command {
        CodeCommand::Create { network, uses, expires, roles } => {
            let roles = roles.into_iter().map(Into::into).collect();
            let spec = CodeSpec { uses, expires_in: expires.as_secs(), roles };
            let made: Changed<CodeView> = client.post(&format!("networks/{}/codes", enc(&network)), &spec)?;
            print(&made, as_json, |made| {
                line(made.code.as_deref().unwrap_or_default())?;
                let times = if made.uses == 1 { "once".to_owned() } else { format!("{} times", made.uses) };
                eprintln!("code {} can be used {times} within {}", made.id, span(made.expires_in));
                eprintln!("next, on the router: gatewrt join CODE");
                Ok(())
            })
        }
        CodeCommand::List { network } => {
            let all: Vec<CodeView> = client.list(&format!("networks/{}/codes", enc(&network)))?;
            print(&all, as_json, |all| code_table(all))
        }
        CodeCommand::Revoke { network, code } => {
            let gone: Changed<CodeView> =
                client.delete(&format!("networks/{}/codes/{}", enc(&network), enc(&code)))?;
            print(&gone, as_json, |gone| line(&format!("revoked code {}", gone.id)))
        }
    }
}

fn code_table(codes: &[CodeView]) -> std::io::Result<()> {
    let row = |code: &CodeView| {
        let expires = if code.expires_in == 0 { "-".to_owned() } else { span(code.expires_in) };
        let used = format!("{} of {}", code.used, code.uses);
        vec![code.id.clone(), word(&code.state), used, expires, list(code.roles.iter().map(word))]
    };
    table(&["CODE", "STATE", "USED", "EXPIRES IN", "ROLES"], &codes.iter().map(row).collect::<Vec<_>>())
}

fn run_node(client: &ApiClient, command: NodeCommand, as_json: bool) -> CommandResult {
    match command {
        NodeCommand::List { network } => {
            let all: Vec<NodeStatus> = client.list(&format!("networks/{}/nodes", enc(&network)))?;
            print(&all, as_json, |all| status::node_table(all))
        }
        NodeCommand::Show { network, node } => {
            let shown: NodeStatus = client.get(&node_path(&network, &node))?;
            print(&shown, as_json, status::node_details)
        }
        NodeCommand::Rename { network, node, name } => {
            let patch = NodePatch { name: Some(name), ..NodePatch::default() };
            let renamed: Changed<NodeView> = client.patch(&node_path(&network, &node), &patch)?;
            print(&renamed, as_json, |renamed| line(&format!("node {} is now {}", renamed.id, renamed.name)))
        }
        NodeCommand::Remove { network, node, force } => {
            let gone: Changed<NodeView> =
                client.delete(&format!("{}?force={force}", node_path(&network, &node)))?;
            print(&gone, as_json, |gone| line(&format!("removed node {} ({})", gone.name, gone.id)))
        }
        NodeCommand::Retry { network, node } => {
            let node: Changed<NodeView> =
                client.post(&format!("{}/retry", node_path(&network, &node)), &())?;
            print(&node, as_json, |node| {
                line(&format!("{} retries the change that it rolled back", node.name))
            })
        }
        NodeCommand::SetConfirm { network, node, seconds } => {
            let patch = NodePatch { confirm_s: Some(seconds), ..NodePatch::default() };
            let node: Changed<NodeView> = client.patch(&node_path(&network, &node), &patch)?;
            print(&node, as_json, |node| {
                let after = node.confirm_s;
                line(&format!("{} rolls back a change that cuts it off for {after} s", node.name))
            })
        }
    }
}

fn node_path(network: &str, node: &str) -> String {
    format!("networks/{}/nodes/{}", enc(network), enc(node))
}

fn run_egress(client: &ApiClient, command: EgressCommand, as_json: bool) -> CommandResult {
    match command {
        EgressCommand::Set { network, node, prefix, nat, metric } => {
            let spec = EgressSpec { prefix, nat: nat == OnOff::On, metric };
            let node: Changed<NodeView> =
                client.put(&format!("{}/egress", node_path(&network, &node)), &spec)?;
            print(&node, as_json, |node| {
                let nat = if spec.nat { "on" } else { "off" };
                line(&format!("{} serves {} to {}, NAT {nat}", node.name, spec.prefix, node.network))?;
                warn(&node.warnings);
                Ok(())
            })
        }
        EgressCommand::Unset { network, node, prefix } => {
            let path = format!("{}/egress?prefix={}", node_path(&network, &node), enc(&prefix.to_string()));
            let node: Changed<NodeView> = client.delete(&path)?;
            print(&node, as_json, |node| line(&format!("{} no longer serves {prefix}", node.name)))
        }
        EgressCommand::List { network } => {
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
    fn argument_with_special_characters_stays_one_path_segment() {
        assert_eq!(enc("home/../x?y#z"), "home%2F..%2Fx%3Fy%23z");
        assert_eq!(enc("fd00::/64"), "fd00%3A%3A%2F64");
    }
}
