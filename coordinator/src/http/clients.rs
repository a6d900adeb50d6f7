//! Routes of ingress nodes and external clients. A client's private key is generated here, is in the one
//! answer that issues it, and is overwritten.

use super::{
    App,
    caller::{AuditedChange, Caller},
    problem::{Body, Params},
    query::ForceQuery,
    reply::{Answer, Listed},
    resource::{current_client, current_node},
};
use crate::{
    api::{
        ClientConfig, ClientIssued, ClientPatch, ClientSpec, ClientView, IngressSpec, IngressView, NodeView,
        ReissueRequest,
    },
    controller::{ControllerState, now},
    pki,
    registry::{Client, ClientFile, Moment, NewKeys, Registry, Tunnel, is_private},
    secret::PrivateKey,
    wgconf::{self, Qr, Secret},
};
use axum::extract::Path;
use gatewrt_protocol::{PresharedKey, Role, WgPublicKey};
use std::net::{IpAddr, SocketAddr};
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

/// Routes of ingress nodes and external clients.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(set_ingress, unset_ingress))
        .routes(routes!(list_ingress))
        .routes(routes!(list_clients, create_client))
        .routes(routes!(show_client, change_client, delete_client))
        .routes(routes!(reissue_client))
        .routes(routes!(show_config, mark_issued))
}

/// Lets external clients in at a node, or changes how.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/ingress", tag = "clients", request_body = IngressSpec, responses((status = 200, body = NodeView)))]
pub(super) async fn set_ingress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(spec): Body<IngressSpec>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("ingress.set", current_node(&net, &node)).with_detail(&spec);
    let plan = move |registry: &Registry, _: &Moment| registry.set_ingress(&net, &node, &spec);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

/// Stops a node from letting external clients in.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/ingress", tag = "clients", params(ForceQuery), responses((status = 200, body = NodeView)))]
pub(super) async fn unset_ingress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(ForceQuery { force }): Params<ForceQuery>,
) -> Answer<NodeView> {
    let act = AuditedChange::of("ingress.unset", current_node(&net, &node));
    let plan = move |registry: &Registry, _: &Moment| registry.unset_ingress(&net, &node, force);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// Nodes that let external clients in, and nodes that may; those have no blocks.
#[utoipa::path(get, path = "/v1/networks/{net}/ingress", tag = "clients", responses((status = 200, body = Vec<IngressView>)))]
pub(super) async fn list_ingress(by: Caller, Path(net): Path<String>) -> Listed<IngressView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let nodes = state.registry.live_nodes(network.id).filter(|node| node.roles.contains(&Role::Ingress));
        Ok(nodes.map(|node| (node.name.to_string(), IngressView::of(state, node))).collect())
    })
    .await
}

/// External clients of a network, by name.
#[utoipa::path(get, path = "/v1/networks/{net}/clients", tag = "clients", responses((status = 200, body = Vec<ClientView>)))]
pub(super) async fn list_clients(by: Caller, Path(net): Path<String>) -> Listed<ClientView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let clients = state.registry.live_clients(network.id);
        Ok(clients.map(|client| (client.name.to_string(), ClientView::of(state, client, now()))).collect())
    })
    .await
}

/// Creates an external client. If it has no key of its own, a private key is generated and is only in this
/// answer.
#[utoipa::path(post, path = "/v1/networks/{net}/clients", tag = "clients", request_body = ClientSpec, responses((status = 201, body = ClientIssued)))]
pub(super) async fn create_client(
    by: Caller,
    Path(net): Path<String>,
    Body(spec): Body<ClientSpec>,
) -> Answer<ClientIssued> {
    let act = AuditedChange::new("client.create", format!("client {}", spec.name)).with_detail(&spec);
    let (keys, private) = new_keys(spec.key);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_client(&net, &spec, &keys, moment);
    let tried = by.is_dry_run();
    by.create(act, plan, move |state, client| issued(state, &client, private.as_ref(), tried)).await
}

/// Shows one external client with its current state.
#[utoipa::path(get, path = "/v1/networks/{net}/clients/{client}", tag = "clients", responses((status = 200, body = ClientView)))]
pub(super) async fn show_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientView> {
    by.show(current_client(&net, &client)).await
}

/// Changes an external client. Its file may be stale then.
#[utoipa::path(patch, path = "/v1/networks/{net}/clients/{client}", tag = "clients", request_body = ClientPatch, responses((status = 200, body = ClientView)))]
pub(super) async fn change_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
    Body(patch): Body<ClientPatch>,
) -> Answer<ClientView> {
    let act = AuditedChange::of("client.change", current_client(&net, &client)).with_detail(&patch);
    let plan =
        move |registry: &Registry, moment: &Moment| registry.change_client(&net, &client, &patch, moment);
    by.change(act, plan, |state, client| ClientView::with_warnings(state, &client, now())).await
}

/// Deletes an external client permanently: its key is refused from now on.
#[utoipa::path(delete, path = "/v1/networks/{net}/clients/{client}", tag = "clients", responses((status = 200, body = ClientView)))]
pub(super) async fn delete_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientView> {
    let act = AuditedChange::of("client.delete", current_client(&net, &client));
    let plan = move |registry: &Registry, moment: &Moment| registry.delete_client(&net, &client, moment);
    by.change(act, plan, |state, client| ClientView::of(state, &client, now())).await
}

/// Issues a new key and file to an external client, and another gateway if one is named. The old key is never
/// accepted again.
#[utoipa::path(post, path = "/v1/networks/{net}/clients/{client}/reissue", tag = "clients", request_body = ReissueRequest, responses((status = 200, body = ClientIssued)))]
pub(super) async fn reissue_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
    Body(spec): Body<ReissueRequest>,
) -> Answer<ClientIssued> {
    let act = AuditedChange::of("client.reissue", current_client(&net, &client)).with_detail(&spec);
    let (keys, private) = new_keys(spec.key);
    let plan = move |registry: &Registry, moment: &Moment| {
        registry.reissue_client(&net, &client, &spec, &keys, moment)
    };
    let tried = by.is_dry_run();
    by.change(act, plan, move |state, client| issued(state, &client, private.as_ref(), tried)).await
}

/// Client's file as it would be issued now, with comments in place of secrets.
#[utoipa::path(get, path = "/v1/networks/{net}/clients/{client}/config", tag = "clients", responses((status = 200, body = ClientConfig)))]
pub(super) async fn show_config(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientConfig> {
    by.show(move |state| state.registry.find_client(&net, &client).map(|client| config(state, client))).await
}

/// Records that the client has the file that it would be issued now, so that it is not stale any more.
#[utoipa::path(post, path = "/v1/networks/{net}/clients/{client}/config", tag = "clients", responses((status = 200, body = ClientView)))]
pub(super) async fn mark_issued(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientView> {
    let act = AuditedChange::of("client.update-file", current_client(&net, &client));
    let plan = move |registry: &Registry, moment: &Moment| registry.mark_issued(&net, &client, moment);
    by.change(act, plan, |state, client| ClientView::of(state, &client, now())).await
}

/// Keys for a client: its own public key, or a new pair with the private key.
fn new_keys(own: Option<WgPublicKey>) -> (NewKeys, Option<PrivateKey>) {
    let psk = PresharedKey(pki::random());
    if let Some(key) = own {
        return (NewKeys { key, psk }, None);
    }
    let private = PrivateKey::from_entropy(&mut pki::random());
    (NewKeys { key: private.public(), psk }, Some(private))
}

/// Creates the answer with a client's newly issued file. A dry run shows no secrets: they are not stored anywhere.
fn issued(
    state: &ControllerState,
    client: &Client,
    private: Option<&PrivateKey>,
    tried: bool,
) -> ClientIssued {
    let shown = |psk| if tried { Secret::Hidden } else { Secret::Shown(psk) };
    let private = private.filter(|_| !tried).map_or(Secret::Hidden, Secret::Shown);
    let text = wgconf::text(&client.file, private, client.psk.map_or(Secret::None, shown));
    let qr = Qr::new(&text).map(|qr| Zeroizing::new(qr.svg()));
    let mut warnings = warnings(&client.file, client.tunnel, qr.is_some());
    warnings.extend(state.registry.client_warnings(client));
    ClientIssued { client: ClientView::of(state, client, now()), config: text, qr, warnings }
}

fn config(state: &ControllerState, client: &Client) -> ClientConfig {
    let file = state.registry.client_file(client).unwrap_or_else(|| client.file.clone());
    let psk = if client.psk.is_some() { Secret::Hidden } else { Secret::None };
    let config = wgconf::text(&file, Secret::Hidden, psk);
    ClientConfig { config, stale: state.registry.stale(client) }
}

/// Warnings about a client's file: a DNS server or an endpoint that it may not reach, a QR code that is missing.
fn warnings(file: &ClientFile, tunnel: Tunnel, has_picture: bool) -> Vec<String> {
    let inside = |addr: IpAddr| file.allowed.iter().any(|prefix| prefix.contains(addr));
    let lost = file.dns.iter().filter(|addr| is_private(**addr) && !inside(**addr));
    let lost = lost.map(|addr| {
        format!("DNS server {addr} is private, and the file does not send it through the tunnel")
    });
    let at = file.endpoint.parse::<SocketAddr>().ok().filter(|at| tunnel == Tunnel::Split && inside(at.ip()));
    let swallowed = at.map(|at| {
        format!(
            "the gateway's endpoint {at} is inside the prefixes of the tunnel: some devices will not reach it"
        )
    });
    let none = (tunnel == Tunnel::Full && file.dns.is_empty()).then(|| {
        "no DNS server is set: with a full tunnel, one of the network that the client happens to be in may not answer"
            .to_owned()
    });
    let long =
        (!has_picture).then(|| "the file is too long for a QR code: hand it over as a file".to_owned());
    lost.chain(swallowed).chain(none).chain(long).collect()
}
