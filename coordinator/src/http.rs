//! HTTPS API: requests of admins and joining routers, as queries and changes for the controller.
//!
//! | path | method | caller | effect |
//! | --- | --- | --- | --- |
//! | `/`, `/assets/…` | GET | anyone | the admin's web page |
//! | `/v1/health` | GET | anyone | health check |
//! | `/v1/join` | POST | who has a join code | [`gatewrt_protocol::JoinRequest`] as a JWS → [`gatewrt_protocol::JoinAnswer`] |
//! | `/v1/networks` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}` | GET, PATCH, DELETE `?force=true` | admin | show, change, delete |
//! | `/v1/networks/{net}/codes` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}/codes/{code}` | DELETE | admin | revoke |
//! | `/v1/networks/{net}/nodes` | GET | admin | list |
//! | `/v1/networks/{net}/nodes/{node}` | GET, PATCH, DELETE | admin | show, change, remove |
//! | `/v1/networks/{net}/nodes/{node}/egress` | PUT, DELETE `?prefix=` | admin | set, unset |
//! | `/v1/networks/{net}/egress` | GET | admin | list |
//! | `/v1/networks/{net}/nodes/{node}/ingress` | PUT, DELETE `?force=true` | admin | let external clients in, or stop |
//! | `/v1/networks/{net}/ingress` | GET | admin | list |
//! | `/v1/networks/{net}/clients` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}/clients/{client}` | GET, PATCH, DELETE | admin | show, change, delete |
//! | `/v1/networks/{net}/clients/{client}/reissue` | POST | admin | new key, another gateway |
//! | `/v1/networks/{net}/clients/{client}/config` | GET, POST | admin | show the file without secrets; mark it as issued |
//! | `/v1/networks/{net}/exits` | GET | admin | list |
//! | `/v1/networks/{net}/nodes/{node}/exit` | PUT, DELETE `?force=true` | admin | make the node an exit, or stop |
//! | `/v1/networks/{net}/nodes/{node}/scopes` | GET | admin | list |
//! | `/v1/networks/{net}/nodes/{node}/scopes/{scope}` | GET, PUT, DELETE | admin | show, set, unset |
//! | `/v1/networks/{net}/nodes/{node}/retry` | POST | admin | retry the change that was rolled back |
//! | `/v1/networks/{net}/rules` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}/rules/{rule}` | GET, PATCH, DELETE | admin | show, change, delete |
//! | `/v1/networks/{net}/groups` | GET | admin | list |
//! | `/v1/networks/{net}/groups/{group}` | GET, PUT, DELETE | admin | show, set, delete |
//! | `/v1/networks/{net}/check` `?from=&to=&service=` | GET | admin | may X reach Y, and why |
//! | `/v1/status` `?network=` | GET | admin | live state |
//! | `/v1/events` `?network=` | GET | admin | live state and changes as server-sent events |
//! | `/v1/watch` `?network=` | GET | admin | changes as server-sent events |
//! | `/v1/audit` `?network=` | GET | admin | audit log |
//! | `/v1/recovery` | GET | admin | what became of the coordinator after it was set back |
//! | `/v1/recovery/strays/{id}` | POST, DELETE | admin | adopt who is not known any more, or cut it off |
//! | `/v1/recovery/rules/{node}` | DELETE | admin | let a node go by the coordinator's access rules alone |
//! | `/v1/tokens` | GET, POST | admin | list, create |
//! | `/v1/tokens/{id}` | DELETE | admin | revoke |
//! | `/v1/login`, `/v1/logout` | POST | owner of a token | begin or end a session with a cookie, for the page |
//! | `/v1/me` | GET | admin | name and rights of the caller |
//! | `/v1/openapi.json` | GET | anyone | OpenAPI document |
//!
//! `{net}`, `{node}` and the like are names or ids. An admin sends a token as `Authorization: Bearer …` or
//! the cookie of a session, or comes over the unix socket of [`local`]; its rights are checked by [`grant`] and
//! [`caller`]. Errors are [`gatewrt_protocol::Problem`]s. Every change takes `?dry_run=true`, `?wait=SECONDS` for the
//! nodes that have to obey ([`obeyed`]), and `If-Match` if it changes an existing resource; lists take `?limit=&after=`.
//! Fields and parameters that a path does not take are refused
//! by [`strict`].

mod caller;
mod clients;
mod custom_certificate;
mod deadline;
mod events;
mod exits;
mod grant;
mod join;
mod local;
mod obeyed;
mod openapi;
mod page;
mod problem;
mod query;
mod rate_limit;
mod recovery;
mod reply;
mod resource;
mod routes;
mod rules;
mod server;
mod session;
mod strict;
mod tls;
mod tokens;
mod watch;

pub use caller::{AuditedChange, Caller, NetworkFilter};
pub use custom_certificate::CustomCertificate;
pub use grant::USER_AGENT;
pub use local::{LOCAL_SOCKET, LocalServer};
pub use problem::{ApiError, Body, Params};
pub use rate_limit::RateLimits;
pub use reply::{Answer, Listed, Page, Reply};
pub use resource::{Resource, without};
pub use server::HttpsServer;
pub use session::Logins;
pub use tls::HttpsError;

use crate::{broker::Sessions, controller::ControllerHandle, pki::Pki};
use axum::{
    Extension, Router,
    extract::Request,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{Next, from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
};
use openapi::Document;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use strict::KnownNames;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Version of the coordinator.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Largest body of a request to the API, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Time from the end of a request's head to its answer, without the wait for nodes that it asks for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Source address of an HTTP request.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub SocketAddr);

/// State that all handlers of the HTTPS API share.
#[derive(Clone)]
pub struct App {
    /// Handle of the controller.
    pub controller: ControllerHandle,
    /// Certificates, admin token, record key.
    pub pki: Arc<Pki>,
    /// URL of the API, `https://host:port`, as in join codes.
    pub url: String,
    /// Addresses of the MQTT broker, `host:port`, best first.
    pub brokers: Vec<String>,
    /// Nodes with an MQTT session, and what was delivered to each.
    pub sessions: Arc<dyn Fn() -> Sessions + Send + Sync>,
    /// Sessions of the page.
    pub logins: Arc<Logins>,
    /// Rate limits of logins and joins.
    pub limits: Arc<RateLimits>,
    /// Start time of the coordinator.
    pub started: Instant,
}

/// Creates the router of the HTTPS API and the page, with all their paths.
pub fn router(app: App) -> Router {
    let known = token_routes()
        .route_layer(from_fn(strict::refuse_unknown))
        .route_layer(from_fn_with_state(app.clone(), grant::require_token));
    let anyone = open_routes()
        .route_layer(from_fn(strict::refuse_unknown))
        .route_layer(from_fn_with_state(app.clone(), rate_limit::enforce_rate_limits));
    let (router, paths) = known.merge(anyone).split_for_parts();
    let document = openapi::complete(paths);
    router
        .layer(Extension(KnownNames::of(&document)))
        .layer(Extension(Document::of(&document)))
        .layer(map_response(no_store))
        .merge(page::router())
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|| async { ApiError::no_such_method() })
        .layer(from_fn(deadline::with_deadline))
        .with_state(app)
}

/// Routes of the API that require a token. Each path is stated once, with its description for the OpenAPI document.
fn token_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(routes::router())
        .merge(rules::router())
        .merge(clients::router())
        .merge(exits::router())
        .merge(recovery::router())
        .merge(tokens::router())
        .merge(events::router())
        .merge(watch::router())
}

fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(openapi::router())
        .merge(tokens::open_router())
        .routes(routes!(routes::health))
        .routes(routes!(join::join))
}

/// Middleware that forbids caching of answers: they contain tokens and private keys.
async fn no_store(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Middleware that reads a request's body before anything is answered. If a request is refused before its body was
/// read, the connection ends while the caller still sends, and the answer is lost.
async fn with_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => next.run(Request::from_parts(parts, body.into())).await,
        Err(_) => ApiError::too_long(MAX_BODY).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_served_route_is_in_the_openapi_document() {
        for router in [token_routes(), open_routes()] {
            let (router, document) = router.split_for_parts();
            // The debug form is the only way to list the routes of a router.
            let debug = format!("{router:?}");
            let served: BTreeSet<_> = debug.split('"').filter(|text| text.starts_with("/v1/")).collect();
            let described: BTreeSet<_> = document.paths.paths.keys().map(String::as_str).collect();
            assert!(!served.is_empty());
            assert_eq!(served, described);
        }
    }
}
