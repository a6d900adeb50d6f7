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
//! | `/v1/networks/{net}/exits` | GET | admin | list |
//! | `/v1/networks/{net}/nodes/{node}/exit` | PUT, DELETE `?force=true` | admin | take others' Internet traffic, or no more |
//! | `/v1/networks/{net}/nodes/{node}/scopes` | GET | admin | which of its Internet traffic goes through others |
//! | `/v1/networks/{net}/nodes/{node}/scopes/{scope}` | GET, PUT, DELETE | admin | show, set, unset |
//! | `/v1/networks/{net}/nodes/{node}/retry` | POST | admin | try again what it took back |
//! | `/v1/networks/{net}/rules` | GET, POST | admin | list, create |
//! | `/v1/networks/{net}/rules/{rule}` | GET, PATCH, DELETE | admin | show, change, delete |
//! | `/v1/networks/{net}/groups` | GET | admin | list |
//! | `/v1/networks/{net}/groups/{group}` | GET, PUT, DELETE | admin | show, set, delete |
//! | `/v1/networks/{net}/check` `?from=&to=&service=` | GET | admin | may X reach Y, and why |
//! | `/v1/status` `?network=` | GET | admin | live state |
//! | `/v1/events` `?network=` | GET | admin | live state and changes as server-sent events |
//! | `/v1/watch` `?network=` | GET | admin | changes as server-sent events |
//! | `/v1/audit` `?network=` | GET | admin | who changed what |
//! | `/v1/tokens` | GET, POST | admin | list, create |
//! | `/v1/tokens/{id}` | DELETE | admin | revoke |
//! | `/v1/login`, `/v1/logout` | POST | who has a token | a session with a cookie, for the page |
//! | `/v1/me` | GET | admin | who asks, and what they may |
//! | `/v1/openapi.json` | GET | anyone | all of this with what is taken and answered |
//!
//! `{net}`, `{node}` and the like are names or ids. An admin is who shows a token as `Authorization: Bearer …`
//! or the cookie of a session; what the token is for and whether it is to look only is seen to in [`grant`] and
//! [`caller`]. Errors are [`gatewrt_protocol::Problem`]s. Every change takes `?dry_run=true`, and `If-Match`
//! where there is something to match; lists take `?limit=&after=`.

mod caller;
mod clients;
mod events;
mod exits;
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

/// All paths.
pub fn router(app: App) -> Router {
    let known = for_the_known().route_layer(from_fn_with_state(app.clone(), grant::known_only));
    let anyone = for_anyone().route_layer(from_fn_with_state(app.clone(), limit::in_measure));
    let (router, paths) = known.merge(anyone).split_for_parts();
    router
        .layer(Extension(Document::of(&openapi::complete(paths))))
        .layer(map_response(unkept))
        .merge(page::router())
        .fallback(|| async { ApiError::no_such_path() })
        .method_not_allowed_fallback(|| async { ApiError::no_such_method() })
        .layer(from_fn(in_time))
        .with_state(app)
}

/// A path stands in one place, with its description for the OpenAPI document.
fn for_the_known() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(routes::router())
        .merge(rules::router())
        .merge(clients::router())
        .merge(exits::router())
        .merge(tokens::router())
        .merge(events::router())
        .merge(watch::router())
}

fn for_anyone() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(openapi::router())
        .merge(tokens::open_router())
        .routes(routes!(routes::health))
        .routes(routes!(join::join))
}

/// Answers hold tokens and private keys: no one on the way, and no browser, keeps one.
async fn unkept(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_is_served_that_is_not_described() {
        for router in [for_the_known(), for_anyone()] {
            let (router, document) = router.split_for_parts();
            // What a router serves is told by its debug form alone.
            let debug = format!("{router:?}");
            let served: BTreeSet<_> = debug.split('"').filter(|text| text.starts_with("/v1/")).collect();
            let described: BTreeSet<_> = document.paths.paths.keys().map(String::as_str).collect();
            assert!(!served.is_empty());
            assert_eq!(served, described);
        }
    }
}
