//! The HTTPS API: what admins and joining routers ask, turned into questions and orders for the desk.
//!
//! | path | method | who | what |
//! | --- | --- | --- | --- |
//! | `/v1/health` | GET | anyone | is it there |
//! | `/v1/join` | POST | who has a join code | [`gatewrt_protocol::JoinRequest`] as a JWS → [`gatewrt_protocol::JoinAnswer`] |
//! | `/v1/networks` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}` | GET, PATCH, DELETE `?force=true` | admin | show, change, delete |
//! | `/v1/networks/{net}/codes` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}/codes/{code}` | DELETE | admin | revoke |
//! | `/v1/networks/{net}/nodes` | GET | admin | list |
//! | `/v1/networks/{net}/nodes/{node}` | GET, PATCH, DELETE | admin | show, change, remove |
//! | `/v1/networks/{net}/nodes/{node}/egress` | PUT, DELETE `?prefix=` | admin | set, unset |
//! | `/v1/networks/{net}/egress` | GET | admin | list |
//! | `/v1/status` `?network=` | GET | admin | live state |
//! | `/v1/watch` `?network=` | GET | admin | changes as server-sent events |
//!
//! `{net}` and `{node}` are names or ids. An admin is who shows the token as `Authorization: Bearer …`.
//! Errors are [`gatewrt_protocol::Problem`]s.

mod join;
mod problem;
mod routes;
mod rules;
mod server;
mod watch;

pub use routes::VERSION;
pub use server::{HttpsError, HttpsServer};

use crate::{broker::Sessions, desk::DeskHandle, pki::Pki};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State as Shared},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post, put},
};
use problem::ApiError;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of a request body.
const BODY: usize = 64 * 1024;
/// From the end of a request's head to its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub SocketAddr);

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// Answers and obeys.
    pub desk: DeskHandle,
    /// Certificates, token, record key.
    pub pki: Arc<Pki>,
    /// `https://host:port`, as in join codes.
    pub url: String,
    /// `host:port` of the MQTT broker, best first.
    pub brokers: Vec<String>,
    /// The nodes with an MQTT session, and what was delivered to each.
    pub sessions: Arc<dyn Fn() -> Sessions + Send + Sync>,
    /// When the coordinator started.
    pub started: Instant,
}

/// All paths.
pub fn router(app: App) -> Router {
    let node = get(routes::show_node).merge(patch(routes::change_node)).merge(delete(routes::remove_node));
    let network =
        get(routes::show_network).merge(patch(rules::change_network)).merge(delete(routes::delete_network));
    let egress = put(routes::set_egress).merge(delete(routes::unset_egress));
    let admin = Router::new()
        .route("/v1/networks", get(routes::list_networks).merge(post(routes::create_network)))
        .route("/v1/networks/{net}", network)
        .route("/v1/networks/{net}/codes", get(routes::list_codes).merge(post(routes::create_code)))
        .route("/v1/networks/{net}/codes/{code}", delete(routes::revoke_code))
        .route("/v1/networks/{net}/nodes", get(routes::list_nodes))
        .route("/v1/networks/{net}/nodes/{node}", node)
        .route("/v1/networks/{net}/nodes/{node}/egress", egress)
        .route("/v1/networks/{net}/egress", get(routes::list_egress))
        .route("/v1/status", get(routes::status))
        .route("/v1/watch", get(watch::watch))
        .route_layer(from_fn_with_state(app.clone(), admins_only));
    let anyone = Router::new().route("/v1/health", get(routes::health)).route("/v1/join", post(join::join));
    admin
        .merge(anyone)
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|| async { ApiError::no_such_method() })
        .layer(from_fn(in_time))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(app)
}

async fn admins_only(Shared(app): Shared<App>, request: Request, next: Next) -> Response {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
    if is_same(token, app.pki.admin_token()) {
        next.run(request).await
    } else {
        ApiError::no_admin().into_response()
    }
}

/// Compares digests, so that the time it takes says nothing about the token.
fn is_same(given: &str, token: &str) -> bool {
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let (given, token) = (digest(given), digest(token));
    given.as_ref().iter().zip(token.as_ref()).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(PATIENCE, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::too_slow().into_response())
}
