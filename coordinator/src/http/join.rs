//! Join of a router: checks its signed request, creates the node, issues its certificate.

use super::{App, Remote, caller::with_audit_entry, problem::ApiError};
use crate::{
    audit::Entry,
    controller::{ControllerState, Mode},
    registry::{Changes, Moment, Row},
};
use axum::{Extension, Json, body::Bytes, extract::State as Shared, http::StatusCode};
use gatewrt_protocol::{JoinAnswer, JoinRequest, MAX_RECORD, NodeId, Topic, jws};
use std::net::IpAddr;

/// Lets a router join with a join code. The request is signed; the answer contains all that the router needs.
/// Unlike elsewhere, unknown fields of the request are ignored, as in all records: a newer router can join.
#[utoipa::path(post, path = "/v1/join", tag = "coordinator", security(()),
    request_body(content = String, content_type = "text/plain", description = "a join request as a JWS in compact serialisation, signed with the identity key it names"),
    responses((status = 200, body = Object, description = "who the router is from now on: `net`, `node`, `name`, `brokers`, `certificate` and its first signed records")))]
pub(super) async fn join(
    Shared(app): Shared<App>,
    Extension(Remote(remote)): Extension<Remote>,
    body: Bytes,
) -> Result<Json<JoinAnswer>, ApiError> {
    let request = open(&body)?;
    let identity = request.identity;
    let plan = move |state: &ControllerState, moment: &Moment| {
        let (rows, node) = state.registry.join(&request, Some(remote.ip()), moment)?;
        Ok((with_join_entry(rows, remote.ip(), moment), node))
    };
    let answer = app.controller.change(Mode::Real, plan, answer).await;
    let answer = answer.inspect_err(|error| tracing::warn!(%remote, "a join was refused: {error}"))?;
    tracing::info!(%remote, node = %answer.node, name = %answer.name, network = %answer.network, "node joined");
    let certificate = app.pki.client_certificate(answer.node, &identity).map_err(|error| {
        let title = format!("no certificate could be made for this identity key: {error}");
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-key", title, "make new keys on the router")
    })?;
    Ok(Json(JoinAnswer {
        brokers: app.brokers.clone(),
        ca: app.pki.ca_pem().to_owned(),
        certificate,
        ..answer
    }))
}

/// Adds an entry about a router that has joined to the audit log. The name of the router is in the rows.
fn with_join_entry(rows: Changes, from: IpAddr, moment: &Moment) -> Changes {
    let joined =
        rows.iter().find_map(|row| if let Row::Node(_, Some(node)) = row { Some(node) } else { None });
    let networks =
        rows.iter().find_map(|row| if let Row::Network(_, Some(net)) = row { Some(net) } else { None });
    let Some(node) = joined else { return rows };
    let entry = Entry {
        at: moment.now,
        who: format!("join code {}", node.code),
        from,
        net: Some(node.net),
        network: networks.map(|network| network.name.clone()),
        action: "node.join".into(),
        target: format!("node {}", node.name),
        detail: String::new(),
    };
    with_audit_entry(rows, entry)
}

/// Verifies a join request with the key that it contains, which proves possession of the key.
fn open(body: &[u8]) -> Result<JoinRequest, ApiError> {
    let refused =
        |why: &dyn ToString| ApiError::bad_request(format!("this is no join request: {}", why.to_string()));
    if body.len() > MAX_RECORD {
        return Err(refused(&"too long"));
    }
    let text = std::str::from_utf8(body).map_err(|error| refused(&error))?.trim();
    let claimed = jws::peek(text).and_then(|payload| serde_json::from_value::<JoinRequest>(payload).ok());
    let claimed = claimed.ok_or_else(|| refused(&"not a signed record of that form"))?;
    jws::open(text.as_bytes(), &claimed.identity).map_err(|error| refused(&error))
}

/// Answer to a join request, as far as the controller knows it.
fn answer(state: &ControllerState, node: NodeId) -> JoinAnswer {
    let node = state.registry.live_node(node).expect("it has just joined");
    let network = state.registry.network(node.net).expect("a live node's network exists");
    let signed =
        |topic| state.signed(&topic).expect("a live node has an assignment and its network a policy");
    JoinAnswer {
        net: node.net,
        node: node.id,
        network: network.name.clone(),
        name: node.name.clone(),
        brokers: Vec::new(),
        ca: String::new(),
        certificate: String::new(),
        policy: signed(Topic::Policy(node.net)),
        assignment: signed(Topic::Assignment(node.id)),
    }
}
