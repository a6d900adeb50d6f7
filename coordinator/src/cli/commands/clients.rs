//! Commands `ingress …` and `client …`. Only the file goes to stdout, messages go to stderr.

mod file;

use super::{
    CommandResult, enc, line, list, node_path, print, span, stack, stacked_table, table, warn, word,
};
use crate::{
    api::{
        ClientConfig, ClientIssued, ClientPatch, ClientSpec, ClientView, IngressSpec, IngressView, NodeView,
        ReissueRequest,
    },
    cli::{
        args::{
            AddClient, ClientCommand, ConfigOutput, IngressCommand, KeyFile, OnOff, OneClient, SetClient,
            TunnelArg,
        },
        client::ApiClient,
        output::{harmless, json},
    },
    clock::date,
    obeyed::Changed,
    registry::Tunnel,
    wgconf::Qr,
};
use file::{Out, with_secrets};
use std::io::{StdoutLock, Write};

pub(super) fn run_ingress(client: &ApiClient, command: IngressCommand, as_json: bool) -> CommandResult {
    match command {
        IngressCommand::Set { network, node, endpoint, block4, block6 } => {
            let spec = IngressSpec { endpoint, block4, block6 };
            let node: Changed<NodeView> =
                client.put(&format!("{}/ingress", node_path(&network, &node)), &spec)?;
            print(&node, as_json, |node| {
                let ingress = node.ingress.iter();
                for ingress in ingress {
                    let (at, blocks) = (list(&ingress.endpoint), list(&ingress.blocks));
                    line(&format!("{} lets external clients in at {at}: {blocks}", node.name))?;
                }
                warn(&node.warnings);
                eprintln!(
                    "next: gatewrt-coordinator client add {} NAME --gateway {}",
                    node.network, node.name
                );
                Ok(())
            })
        }
        IngressCommand::Unset { network, node, force } => {
            let path = format!("{}/ingress?force={force}", node_path(&network, &node));
            let node: Changed<NodeView> = client.delete(&path)?;
            print(&node, as_json, |node| line(&format!("{} no longer lets external clients in", node.name)))
        }
        IngressCommand::List { network } => {
            let all: Vec<IngressView> = client.list(&format!("networks/{}/ingress", enc(&network)))?;
            print(&all, as_json, |all| ingress_table(all))
        }
    }
}

fn ingress_table(all: &[IngressView]) -> std::io::Result<()> {
    let row = |ingress: &IngressView| {
        let is_on = !ingress.blocks.is_empty();
        vec![
            stack([&ingress.node]),
            stack([if is_on { "on" } else { "off" }]),
            stack([ingress.endpoint.as_deref().unwrap_or("not reachable")]),
            stack(&ingress.blocks),
            stack([ingress.clients]),
        ]
    };
    let heading = ["NODE", "INGRESS", "ENDPOINT", "BLOCKS", "CLIENTS"];
    stacked_table(&heading, &all.iter().map(row).collect::<Vec<_>>())?;
    for ingress in all.iter().filter(|ingress| !ingress.blocks.is_empty()) {
        ingress.why.iter().for_each(|why| eprintln!("warning: {}", harmless(why)));
    }
    Ok(())
}

pub(super) fn run(client: &ApiClient, command: ClientCommand, as_json: bool) -> CommandResult {
    match command {
        ClientCommand::Add(add) => run_add(client, *add, as_json),
        ClientCommand::List { network } => {
            let all: Vec<ClientView> = client.list(&format!("networks/{}/clients", enc(&network)))?;
            print(&all, as_json, |all| client_table(all))
        }
        ClientCommand::Show(which) => print(&client.get::<ClientView>(&path(&which))?, as_json, details),
        ClientCommand::Config { which, key, out } => {
            run_config(client, &which, &key, ConfigOutput { qr: false, out }, as_json)
        }
        ClientCommand::Qr { which, key } => {
            run_config(client, &which, &key, ConfigOutput { qr: true, out: None }, as_json)
        }
        ClientCommand::Enable(which) => {
            let patch = ClientPatch { enabled: Some(true), ..ClientPatch::default() };
            change(client, &which, &patch, as_json, "is let in")
        }
        ClientCommand::Disable(which) => {
            let patch = ClientPatch { enabled: Some(false), ..ClientPatch::default() };
            change(client, &which, &patch, as_json, "is cut off")
        }
        ClientCommand::Reachable { which, on } => {
            let on = on == OnOff::On;
            let done =
                if on { "can be reached by others" } else { "can't be reached by others, only answered" };
            let patch = ClientPatch { reachable: Some(on), ..ClientPatch::default() };
            change(client, &which, &patch, as_json, done)
        }
        ClientCommand::Rename { which, name } => {
            let patch = ClientPatch { name: Some(name), ..ClientPatch::default() };
            change(client, &which, &patch, as_json, "was renamed")
        }
        ClientCommand::Set(set) => {
            let (which, patch) = patch(*set);
            change(client, &which, &patch, as_json, "is changed")
        }
        ClientCommand::Delete(which) => {
            let gone: Changed<ClientView> = client.delete(&path(&which))?;
            print(&gone, as_json, |gone| {
                line(&format!("deleted client {}: its key is never accepted again", gone.name))
            })
        }
        ClientCommand::Reissue { which, gateway, key, psk, output } => {
            let psk = psk.map(|psk| psk == OnOff::On);
            let spec = ReissueRequest { gateway, key, psk };
            let out = Out::open(&output)?;
            let issued: Changed<ClientIssued> = client.post(&format!("{}/reissue", path(&which)), &spec)?;
            print_issued(issued, out, as_json)
        }
    }
}

fn path(which: &OneClient) -> String {
    format!("networks/{}/clients/{}", enc(&which.network), enc(&which.client))
}

fn run_add(client: &ApiClient, add: AddClient, as_json: bool) -> CommandResult {
    let spec = ClientSpec {
        name: add.name,
        label: add.label,
        gateways: add.gateway,
        key: add.key,
        addresses: add.address,
        psk: add.psk,
        dns: add.dns,
        tunnel: if add.full { Tunnel::Full } else { Tunnel::Split },
        routes: add.route.into_iter().collect(),
        prefixes: add.prefix.into_iter().collect(),
        reachable: add.reachable,
        expires: add.expires.and_then(|expires| expires.0),
        tags: add.tag.into_iter().collect(),
    };
    // Opened before the client is created: a key that can't be written would be lost.
    let out = Out::open(&add.output)?;
    let issued: Changed<ClientIssued> =
        client.post(&format!("networks/{}/clients", enc(&add.network)), &spec)?;
    print_issued(issued, out, as_json)
}

fn print_issued(issued: Changed<ClientIssued>, out: Out, as_json: bool) -> CommandResult {
    let client = &issued.client;
    let made_here = !issued.config.contains("# PrivateKey");
    if as_json {
        json(&issued)?;
        out.write_only(&issued.config)?;
        return Ok(());
    }
    eprintln!(
        "client {} of {}: {}, gateway {}",
        client.name,
        client.network,
        list(&client.addresses),
        client.gateway
    );
    warn(&issued.warnings);
    out.write(client, &issued.config)?;
    if made_here {
        eprintln!("its private key is shown only this once; for a new one: client reissue");
    } else {
        eprintln!(
            "put the private key in: client config {} {} --private-key-file FILE",
            client.network, client.name
        );
    }
    Ok(())
}

fn run_config(
    client: &ApiClient,
    which: &OneClient,
    key: &KeyFile,
    output: ConfigOutput,
    as_json: bool,
) -> CommandResult {
    let out = Out::open(&output)?;
    let mut shown: ClientConfig = client.get(&format!("{}/config", path(which)))?;
    let view: ClientView = client.get(&path(which))?;
    if let Some(file) = &key.private_key_file {
        shown.config = with_secrets(&shown.config, &view, file)?;
    } else if output.qr {
        return Err(file::key_is_needed(which));
    }
    if as_json {
        json(&shown)?;
        out.write_only(&shown.config)?;
    } else {
        for stale in &shown.stale {
            eprintln!("the file that {} has is stale: {}", view.name, harmless(stale));
        }
        out.write(&view, &shown.config)?;
    }
    if key.mark {
        let _: Changed<ClientView> = client.post(&format!("{}/config", path(which)), &())?;
        eprintln!("recorded: {} has this file", view.name);
    }
    Ok(())
}

fn change(
    client: &ApiClient,
    which: &OneClient,
    patch: &ClientPatch,
    as_json: bool,
    done: &str,
) -> CommandResult {
    let changed: Changed<ClientView> = client.patch(&path(which), patch)?;
    print(&changed, as_json, |changed| {
        line(&format!("client {} {done}", changed.name))?;
        let state = word(&changed.state);
        if changed.enabled && state != "enabled" {
            eprintln!("but it is not let in: {}", state_text(changed));
            if state == "expired" {
                eprintln!(
                    "for a new expiry: gatewrt-coordinator client set {} {} --expires 30d",
                    changed.network, changed.name
                );
            }
        }
        for stale in &changed.stale {
            eprintln!("its file is stale: {}", harmless(stale));
        }
        warn(&changed.warnings);
        Ok(())
    })
}

fn patch(set: SetClient) -> (OneClient, ClientPatch) {
    let tunnel = set.tunnel.map(|tunnel| match tunnel {
        TunnelArg::Split => Tunnel::Split,
        TunnelArg::Full => Tunnel::Full,
    });
    let patch = ClientPatch {
        label: set.label,
        tags: set.tag.map(|tags| tags.0.into_iter().collect()),
        expires: set.expires.map(|expires| expires.0),
        dns: set.dns.map(|dns| dns.0),
        tunnel,
        routes: set.route.map(|routes| routes.0.into_iter().collect()),
        prefixes: set.prefix.map(|prefixes| prefixes.0.into_iter().collect()),
        ..ClientPatch::default()
    };
    (set.which, patch)
}

fn client_table(all: &[ClientView]) -> std::io::Result<()> {
    let row = |client: &ClientView| {
        let live = client.live.as_ref();
        vec![
            stack([&client.name]),
            stack([state_text(client)]),
            stack(&client.addresses),
            stack([&client.gateway]),
            stack([word(&client.tunnel)]),
            stack([seen(client)]),
            stack(live.map(|live| live.rx)),
            stack(live.map(|live| live.tx)),
            stack([if client.stale.is_empty() { "fresh" } else { "stale" }]),
        ]
    };
    let heading = ["CLIENT", "STATE", "ADDRESSES", "GATEWAY", "TUNNEL", "HANDSHAKE", "RX", "TX", "FILE"];
    stacked_table(&heading, &all.iter().map(row).collect::<Vec<_>>())
}

fn state_text(client: &ClientView) -> String {
    match word(&client.state).as_str() {
        "no-gateway" => format!("cut off: {} lets no clients in", client.gateway),
        state => state.to_owned(),
    }
}

fn seen(client: &ClientView) -> String {
    let handshake = client.live.as_ref().and_then(|live| live.handshake_s);
    handshake.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", span(seconds)))
}

fn details(client: &ClientView) -> std::io::Result<()> {
    let seat = |seat: &crate::api::SeatView| format!("{} ({})", seat.node, list(&seat.addresses));
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let or = |text: String, none: &str| if text == "-" { none.to_owned() } else { text };
    let rows = [
        ("name", client.name.to_string()),
        ("label", client.label.clone()),
        ("id", client.id.to_string()),
        ("network", client.network.to_string()),
        ("state", state_text(client)),
        ("WireGuard key", client.key.to_string()),
        ("preshared key", yes(client.psk)),
        ("addresses", list(&client.addresses)),
        ("gateway", client.gateway.to_string()),
        ("possible gateways", list(client.gateways.iter().map(seat))),
        ("tags", list(&client.tags)),
        ("DNS", or(list(&client.dns), "the network's")),
        ("tunnel", word(&client.tunnel)),
        ("routes", or(list(&client.routes), "all that the network serves")),
        ("prefixes behind it", list(&client.prefixes)),
        ("reachable", yes(client.reachable)),
        ("expires", client.expires.map_or_else(|| "never".to_owned(), date)),
        ("created", date(client.created)),
        ("file issued", date(client.issued)),
        ("last handshake", seen(client)),
        ("endpoint", list(client.live.as_ref().and_then(|live| live.endpoint))),
    ];
    table(&["CLIENT", ""], &rows.map(|(what, value)| vec![what.to_owned(), value]))?;
    client.stale.iter().try_for_each(|stale| line(&format!("its file is stale: {stale}")))
}

/// Prints the QR code of a client's file to stdout.
fn print_qr(config: &str, mut stdout: StdoutLock<'_>) -> Result<(), crate::cli::client::CommandError> {
    let too_long = crate::cli::client::CommandError::TooLong;
    let qr = Qr::new(config).ok_or(too_long)?;
    Ok(stdout.write_all(qr.blocks().as_bytes())?)
}
