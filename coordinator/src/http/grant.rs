//! Authorization: looks up the token, which is in the header of each request or was sent once to begin a
//! session; commands on this machine need none (see [`super::local`]). Its rights go with the request as a [`Grant`]. Access to networks is checked by
//! [`super::caller::NetworkFilter`].

use super::{
    App,
    problem::ApiError,
    session::{SessionId, is_own},
};
use crate::{
    admission::{Permit, Stage},
    controller::{ControllerState, now},
    registry::{Rights, Token, TokenId},
};
use axum::{
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, Method, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatewrt_protocol::NetworkId;
use std::{sync::Arc, time::Instant};

/// Path that read-only tokens may use too.
const LOGOUT: &str = "/v1/logout";

/// Grant of a request: the token that it was made with, and the token's rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name for the audit log.
    pub who: String,
    /// Right to read or to change.
    pub rights: Rights,
    /// Only network of the token; none means all.
    pub network: Option<NetworkId>,
    /// Id of the token; none if none was needed.
    pub token: Option<TokenId>,
    /// Session whose cookie was used; none if a token was sent.
    pub session: Option<SessionId>,
}

/// Caller over the unix socket who is admin without a token, by a name for the audit log.
#[derive(Debug, Clone)]
pub(super) struct LocalAdmin(pub(super) Arc<str>);

impl Grant {
    /// Grant with the rights of a valid token.
    pub fn of(token: &Token) -> Self {
        let (who, token_id) = (token.name.clone(), token.id.clone());
        Self { who, rights: token.rights, network: token.net, token: Some(token_id), session: None }
    }

    /// Grant with all rights, of a caller on this machine who needs no token.
    pub(super) fn local(LocalAdmin(who): &LocalAdmin) -> Self {
        Self { who: who.to_string(), rights: Rights::Admin, network: None, token: None, session: None }
    }

    /// True unless the session of the grant has ended, or its token was revoked, has expired or grants something else now.
    pub async fn still_holds(&self, app: &App) -> bool {
        if self.session.as_ref().is_some_and(|session| !app.logins.is_open(session, Instant::now())) {
            return false;
        }
        let Some(id) = self.token.clone() else { return true };
        let (rights, network) = (self.rights, self.network);
        let is_same = move |token: &Token| (token.rights, token.net) == (rights, network);
        let asked = move |state: &ControllerState| state.registry.token(&id, now()).is_some_and(is_same);
        app.controller.view(asked).await.unwrap_or(false)
    }

    /// Refuses changes with a read-only token.
    pub fn may_change(&self) -> Result<(), ApiError> {
        match self.rights {
            Rights::Admin => Ok(()),
            Rights::Read => {
                Err(ApiError::forbidden("this token is read-only", "use a token with the right “admin”"))
            }
        }
    }

    fn may_use(&self, path: &str) -> Result<(), ApiError> {
        let whole = self.network.is_none() || is_within_networks(path);
        let detail = "this request concerns all networks: use a token for all networks";
        whole.then_some(()).ok_or_else(|| ApiError::forbidden("this token is for one network only", detail))
    }
}

/// True for paths of the API that filter their answer by network. A token for one network may use no others.
fn is_within_networks(path: &str) -> bool {
    const FILTERED: [&str; 6] = ["/v1/status", "/v1/watch", "/v1/events", "/v1/audit", "/v1/me", LOGOUT];
    path.starts_with("/v1/networks/{net}") || FILTERED.contains(&path)
}

/// Middleware that requires a token with sufficient rights.
pub(super) async fn require_token(Shared(app): Shared<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match granted(&app, &parts).await {
        Ok(grant) => {
            parts.extensions.insert(grant);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    }
}

async fn granted(app: &App, request: &Parts) -> Result<Grant, ApiError> {
    let looks = [Method::GET, Method::HEAD].contains(&request.method);
    let grant = match bearer(&request.headers) {
        Some(token) => grant_of(app, token, is_command_line(&request.headers)).await?,
        None => match request.extensions.get::<LocalAdmin>() {
            Some(admin) => Grant::local(admin),
            None => grant_in_session(app, &request.headers, looks).await?,
        },
    };
    if let Some(permit) = request.extensions.get::<Arc<Permit>>() {
        // Without room there, the connection goes on where it is.
        let _ = permit.rise_to(Stage::Authenticated);
    }
    let path = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    if path != "/v1/networks" || !looks {
        grant.may_use(path)?;
    }
    if !looks && path != LOGOUT {
        grant.may_change()?;
    }
    Ok(grant)
}

/// Grant of a request that was made with a session's cookie. Changes must come from our own page.
async fn grant_in_session(app: &App, headers: &HeaderMap, looks: bool) -> Result<Grant, ApiError> {
    let session = app.logins.of(headers, Instant::now()).ok_or_else(ApiError::no_admin)?;
    if !looks && !is_own(&session, headers) {
        return Err(ApiError::not_own());
    }
    let id = session.token;
    let find = move |state: &ControllerState| state.registry.token(&id, now()).map(Grant::of);
    let grant = app.controller.view(find).await?.ok_or_else(ApiError::no_admin)?;
    Ok(Grant { session: Some(session.id), ..grant })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// User agent of our own command line. It is only a name for the log, and grants nothing.
pub const USER_AGENT: &str = "gatewrt-coordinator";

fn is_command_line(headers: &HeaderMap) -> bool {
    let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with(USER_AGENT))
}

/// Grant of the token with this text. Hashes are compared, so that the time it takes reveals nothing about the text.
pub(super) async fn grant_of(app: &App, text: &str, command_line: bool) -> Result<Grant, ApiError> {
    let text = text.to_owned();
    let find = move |state: &ControllerState| {
        let token = state.registry.token_of(&text, now())?;
        let of_command_line = command_line && token.is_admin_token();
        let who = if of_command_line { "command line".to_owned() } else { token.name.clone() };
        Some(Grant { who, ..Grant::of(token) })
    };
    app.controller.view(find).await?.ok_or_else(ApiError::no_admin)
}

impl ApiError {
    pub(super) fn not_own() -> Self {
        let detail = "send the value “csrf” of /v1/me in the header X-CSRF-Token; other sites may not change anything here";
        Self::new(
            StatusCode::FORBIDDEN,
            "not-own-page",
            "this change does not come from the coordinator's own page",
            detail,
        )
    }

    pub(super) fn forbidden(title: &str, detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", title, detail)
    }
}
