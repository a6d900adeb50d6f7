//! The HTTPS API: what admins and joining routers ask, turned into questions and orders for the desk.
//!
//! | path | method | who | what |
//! | --- | --- | --- | --- |
//! | `/`, `/assets/…` | GET | anyone | the admin's web page |
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
//! | `/v1/networks/{net}/nodes/{node}/ingress` | PUT, DELETE `?force=true` | admin | let external clients in, or no more |
//! | `/v1/networks/{net}/ingress` | GET | admin | list |
//! | `/v1/networks/{net}/clients` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}/clients/{client}` | GET, PATCH, DELETE | admin | show, change, delete |
//! | `/v1/networks/{net}/clients/{client}/reissue` | POST | admin | new key, another gateway |
//! | `/v1/networks/{net}/clients/{client}/config` | GET, POST | admin | file without secrets; the client has it |
//! | `/v1/status` `?network=` | GET | admin | live state |
//! | `/v1/watch` `?network=` | GET | admin | changes as server-sent events |
//!
//! `{net}` and `{node}` are names or ids. An admin is who shows the token as `Authorization: Bearer …`.
//! Errors are [`gatewrt_protocol::Problem`]s.

mod caller;
mod clients;
mod events;
mod given;
mod grant;
mod join;
mod limit;
mod openapi;
mod page;
mod problem;
mod reply;
mod routes;
mod rules;
mod server;
mod session;
mod tokens;
mod watch;

pub use caller::{Act, Caller, Scope};
pub use given::GivenCert;
pub use grant::USER_AGENT;
pub use limit::Limits;
pub use problem::{ApiError, Body, Params};
pub use reply::{Answer, Listed, Page, Reply, Resource, without};
pub use routes::VERSION;
pub use server::{HttpsError, HttpsServer};
pub use session::Logins;

use crate::{broker::Sessions, desk::DeskHandle, pki::Pki};
use axum::{
    Extension, Router,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use openapi::Document;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use utoipa_axum::{router::OpenApiRouter, routes};

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
    /// Who has logged in on the page.
    pub logins: Arc<Logins>,
    /// How often one address may try.
    pub limits: Arc<Limits>,
    /// When the coordinator started.
    pub started: Instant,
}

/// All paths, and what the OpenAPI document says of them. A path stands in one place, with its description:
/// none can be served without being described.
pub fn router(app: App) -> Router {
    let known = OpenApiRouter::new()
        .merge(routes::router())
        .merge(rules::router())
        .merge(clients::router())
        .merge(tokens::router())
        .merge(events::router())
        .merge(watch::router())
        .route_layer(from_fn_with_state(app.clone(), grant::known_only));
    let anyone = OpenApiRouter::new()
        .merge(openapi::router())
        .merge(tokens::open_router())
        .routes(routes!(routes::health))
        .routes(routes!(join::join))
        .route_layer(from_fn_with_state(app.clone(), limit::in_measure));
    let (router, paths) = known.merge(anyone).split_for_parts();
    router
        .layer(Extension(Document::of(&openapi::complete(paths))))
        .merge(page::router())
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|| async { ApiError::no_such_method() })
        .layer(from_fn(in_time))
        .with_state(app)
}

async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(PATIENCE, whole(request, next)).await;
    answer.unwrap_or_else(|_| ApiError::too_slow().into_response())
}

/// Takes in the body before anything is answered: one that is refused unread would end the connection under
/// whoever still sends, and the answer with it.
async fn whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, BODY).await {
        Ok(body) => next.run(Request::from_parts(parts, body.into())).await,
        Err(_) => ApiError::too_long(BODY).into_response(),
    }
}
