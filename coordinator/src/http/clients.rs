//! Ingress nodes and external clients: each handler is one question or change. A client's private key is made here,
//! stands in the one answer that issues it, and is overwritten.

use super::{
    App,
    caller::{Act, Caller},
    problem::{Body, Params},
    reply::{Answer, Listed, Resource, without},
    routes::{ForceRemove, the_node},
};
use crate::{
    api::{
        ClientConfig, ClientIssued, ClientPatch, ClientView, ClientWish, IngressView, IngressWish, NodeView,
        ReissueWish,
    },
    desk::{State, now},
    pki,
    registry::{Client, ClientFile, Moment, NewKeys, Registry, RegistryError, Tunnel, is_private},
    secret::PrivateKey,
    wgconf::{self, Qr, Secret},
};
use axum::extract::Path;
use gatewrt_protocol::{PresharedKey, Role, WgPublicKey};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(set_ingress, unset_ingress))
        .routes(routes!(list_ingress))
        .routes(routes!(list_clients, create_client))
        .routes(routes!(show_client, change_client, delete_client))
        .routes(routes!(reissue_client))
        .routes(routes!(show_config, mark_issued))
}

impl Resource for ClientView {
    fn called(&self) -> String {
        format!("client {}", self.name)
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &["live", "stale", "state"])
    }
}

impl Resource for ClientIssued {
    fn called(&self) -> String {
        self.client.called()
    }
    fn wanted(&self) -> Option<Value> {
        self.client.wanted()
    }
}

impl Resource for ClientConfig {
    fn called(&self) -> String {
        "a client's file".into()
    }
}

/// A client as it is now.
fn the_client(
    net: &str,
    client: &str,
) -> impl FnOnce(&State) -> Result<ClientView, RegistryError> + Send + 'static {
    let (net, client) = (net.to_owned(), client.to_owned());
    move |state| state.registry.find_client(&net, &client).map(|client| ClientView::of(state, client, now()))
}

/// Lets external clients in at a node, or changes how.
#[utoipa::path(put, path = "/v1/networks/{net}/nodes/{node}/ingress", tag = "clients", request_body = IngressWish, responses((status = 200, body = NodeView)))]
pub(super) async fn set_ingress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Body(wish): Body<IngressWish>,
) -> Answer<NodeView> {
    let act = Act::of("ingress.set", the_node(&net, &node)).saying(&wish);
    let plan = move |registry: &Registry, _: &Moment| registry.set_ingress(&net, &node, &wish);
    by.change(act, plan, |state, node| NodeView::with_warnings(state, &node)).await
}

/// Lets no external clients in at a node any more.
#[utoipa::path(delete, path = "/v1/networks/{net}/nodes/{node}/ingress", tag = "clients", params(ForceRemove), responses((status = 200, body = NodeView)))]
pub(super) async fn unset_ingress(
    by: Caller,
    Path((net, node)): Path<(String, String)>,
    Params(ForceRemove { force }): Params<ForceRemove>,
) -> Answer<NodeView> {
    let act = Act::of("ingress.unset", the_node(&net, &node));
    let plan = move |registry: &Registry, _: &Moment| registry.unset_ingress(&net, &node, force);
    by.change(act, plan, |state, node| NodeView::of(state, &node)).await
}

/// The nodes that let external clients in, and those that may, whose list of blocks is empty.
#[utoipa::path(get, path = "/v1/networks/{net}/ingress", tag = "clients", responses((status = 200, body = Vec<IngressView>)))]
pub(super) async fn list_ingress(by: Caller, Path(net): Path<String>) -> Listed<IngressView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let nodes = state.registry.live_nodes(network.id).filter(|node| node.roles.contains(&Role::Ingress));
        Ok(nodes.map(|node| (node.name.to_string(), IngressView::of(state, node))).collect())
    })
    .await
}

/// The external clients of a network, by name.
#[utoipa::path(get, path = "/v1/networks/{net}/clients", tag = "clients", responses((status = 200, body = Vec<ClientView>)))]
pub(super) async fn list_clients(by: Caller, Path(net): Path<String>) -> Listed<ClientView> {
    by.list(move |state| {
        let network = state.registry.find_network(&net)?;
        let clients = state.registry.live_clients(network.id);
        Ok(clients.map(|client| (client.name.to_string(), ClientView::of(state, client, now()))).collect())
    })
    .await
}

/// Makes an external client. Its private key, where it has none of its own, is in this answer only.
#[utoipa::path(post, path = "/v1/networks/{net}/clients", tag = "clients", request_body = ClientWish, responses((status = 201, body = ClientIssued)))]
pub(super) async fn create_client(
    by: Caller,
    Path(net): Path<String>,
    Body(wish): Body<ClientWish>,
) -> Answer<ClientIssued> {
    let act = Act::new("client.create", format!("client {}", wish.name)).saying(&wish);
    let (keys, private) = new_keys(wish.key);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_client(&net, &wish, &keys, moment);
    let tried = by.is_rehearsal();
    by.create(act, plan, move |state, client| issued(state, &client, private.as_ref(), tried)).await
}

/// One external client.
#[utoipa::path(get, path = "/v1/networks/{net}/clients/{client}", tag = "clients", responses((status = 200, body = ClientView)))]
pub(super) async fn show_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientView> {
    by.show(the_client(&net, &client)).await
}

/// Changes an external client; what its file says may be stale then.
#[utoipa::path(patch, path = "/v1/networks/{net}/clients/{client}", tag = "clients", request_body = ClientPatch, responses((status = 200, body = ClientView)))]
pub(super) async fn change_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
    Body(patch): Body<ClientPatch>,
) -> Answer<ClientView> {
    let act = Act::of("client.change", the_client(&net, &client)).saying(&patch);
    let plan =
        move |registry: &Registry, moment: &Moment| registry.change_client(&net, &client, &patch, moment);
    by.change(act, plan, |state, client| ClientView::of(state, &client, now())).await
}

/// Deletes an external client for ever: its key is refused from now on.
#[utoipa::path(delete, path = "/v1/networks/{net}/clients/{client}", tag = "clients", responses((status = 200, body = ClientView)))]
pub(super) async fn delete_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientView> {
    let act = Act::of("client.delete", the_client(&net, &client));
    let plan = move |registry: &Registry, moment: &Moment| registry.delete_client(&net, &client, moment);
    by.change(act, plan, |state, client| ClientView::of(state, &client, now())).await
}

/// Gives an external client a new key and file, and another gateway where one is named. The old key is dead for good.
#[utoipa::path(post, path = "/v1/networks/{net}/clients/{client}/reissue", tag = "clients", request_body = ReissueWish, responses((status = 200, body = ClientIssued)))]
pub(super) async fn reissue_client(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
    Body(wish): Body<ReissueWish>,
) -> Answer<ClientIssued> {
    let act = Act::of("client.reissue", the_client(&net, &client)).saying(&wish);
    let (keys, private) = new_keys(wish.key);
    let plan = move |registry: &Registry, moment: &Moment| {
        registry.reissue_client(&net, &client, &wish, &keys, moment)
    };
    let tried = by.is_rehearsal();
    by.change(act, plan, move |state, client| issued(state, &client, private.as_ref(), tried)).await
}

/// A client's file as it would be issued now, with a comment where a secret belongs.
#[utoipa::path(get, path = "/v1/networks/{net}/clients/{client}/config", tag = "clients", responses((status = 200, body = ClientConfig)))]
pub(super) async fn show_config(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientConfig> {
    by.show(move |state| state.registry.find_client(&net, &client).map(|client| config(state, client))).await
}

/// Takes note that the client has the file that it would be issued now.
#[utoipa::path(post, path = "/v1/networks/{net}/clients/{client}/config", tag = "clients", responses((status = 200, body = ClientView)))]
pub(super) async fn mark_issued(
    by: Caller,
    Path((net, client)): Path<(String, String)>,
) -> Answer<ClientView> {
    let act = Act::of("client.update-file", the_client(&net, &client));
    let plan = move |registry: &Registry, moment: &Moment| registry.mark_issued(&net, &client, moment);
    by.change(act, plan, |state, client| ClientView::of(state, &client, now())).await
}

/// The keys of a client to be issued: its own public one, or a new pair whose private half is to be shown.
fn new_keys(own: Option<WgPublicKey>) -> (NewKeys, Option<PrivateKey>) {
    let psk = PresharedKey(pki::random());
    if let Some(key) = own {
        return (NewKeys { key, psk }, None);
    }
    let private = PrivateKey::from_entropy(&mut pki::random());
    (NewKeys { key: private.public(), psk }, Some(private))
}

/// What the client is handed. Where it was only tried, no secrets are shown: nobody has them.
fn issued(state: &State, client: &Client, private: Option<&PrivateKey>, tried: bool) -> ClientIssued {
    let shown = |psk| if tried { Secret::Hidden } else { Secret::Shown(psk) };
    let private = private.filter(|_| !tried).map_or(Secret::Hidden, Secret::Shown);
    let text = wgconf::text(&client.file, private, client.psk.map_or(Secret::None, shown));
    let qr = Qr::new(&text).map(|qr| Zeroizing::new(qr.svg()));
    let warnings = warnings(&client.file, client.tunnel, qr.is_some());
    ClientIssued { client: ClientView::of(state, client, now()), config: text, qr, warnings }
}

fn config(state: &State, client: &Client) -> ClientConfig {
    let file = state.registry.client_file(client).unwrap_or_else(|| client.file.clone());
    let psk = if client.psk.is_some() { Secret::Hidden } else { Secret::None };
    let config = wgconf::text(&file, Secret::Hidden, psk);
    ClientConfig { config, stale: state.registry.stale(client) }
}

/// What will surprise about a file.
fn warnings(file: &ClientFile, tunnel: Tunnel, has_picture: bool) -> Vec<String> {
    let inside = |addr: IpAddr| file.allowed.iter().any(|prefix| prefix.contains(addr));
    let lost = file.dns.iter().filter(|addr| is_private(**addr) && !inside(**addr));
    let lost = lost.map(|addr| {
        format!("DNS server {addr} is private, and the file does not send it through the tunnel")
    });
    let at = file.endpoint.parse::<SocketAddr>().ok().filter(|at| tunnel == Tunnel::Split && inside(at.ip()));
    let swallowed = at.map(|at| {
        format!("{at}, where the gateway is reached, is in what goes through the tunnel: some devices will not reach it")
    });
    let none = (tunnel == Tunnel::Full && file.dns.is_empty()).then(|| {
        "no DNS server is set: with a full tunnel, one of the network that the client happens to be in may not answer"
            .to_owned()
    });
    let long =
        (!has_picture).then(|| "the file is too long for a QR code: hand it over as a file".to_owned());
    lost.chain(swallowed).chain(none).chain(long).collect()
}
