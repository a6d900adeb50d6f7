//! Who may do what: a token, shown in the header of each request or once for a session, is looked up, and what
//! it allows goes with the request as a [`Grant`]. Which network a request is about is seen to by
//! [`super::caller::Scope`].

use super::{App, problem::ApiError};
use crate::{
    desk::{State, now},
    registry::{Rights, Token, TokenId, token_hash},
};
use axum::{
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, Method, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatewrt_protocol::NetworkId;

/// What the file's token is called in the audit log, and in `/v1/me`.
pub const ROOT: &str = "admin.token";

/// What a request may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// For the audit log.
    pub who: String,
    /// To look, or to change too.
    pub rights: Rights,
    /// Only there.
    pub network: Option<NetworkId>,
    /// The token behind it; none for the file's.
    pub token: Option<TokenId>,
}

impl Grant {
    /// Of the token in the file: all there is.
    pub fn root(who: &str) -> Self {
        Self { who: who.to_owned(), rights: Rights::Admin, network: None, token: None }
    }

    /// Of a token that holds.
    pub fn of(token: &Token) -> Self {
        let (who, token_id) = (token.name.clone(), token.id.clone());
        Self { who, rights: token.rights, network: token.net, token: Some(token_id) }
    }

    /// Refuses where the token is to look only.
    pub fn may_change(&self) -> Result<(), ApiError> {
        match self.rights {
            Rights::Admin => Ok(()),
            Rights::Read => {
                Err(ApiError::forbidden("this token is to look only", "use one with the right “admin”"))
            }
        }
    }

    fn may_use(&self, path: &str) -> Result<(), ApiError> {
        let whole = self.network.is_none() || is_within_networks(path);
        let detail = "this is about the whole coordinator: use a token that is not for one network";
        whole.then_some(()).ok_or_else(|| ApiError::forbidden("this token is for one network only", detail))
    }
}

/// Paths that show a part of what they have to who may see one network only. All others are closed to them.
fn is_within_networks(path: &str) -> bool {
    const FILTERED: [&str; 5] = ["/v1/status", "/v1/watch", "/v1/events", "/v1/audit", "/v1/me"];
    path.starts_with("/v1/networks/{net}") || FILTERED.contains(&path)
}

/// Lets pass who shows a token that allows it.
pub(super) async fn known_only(Shared(app): Shared<App>, request: Request, next: Next) -> Response {
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
    let token = bearer(&request.headers).ok_or_else(ApiError::no_admin)?;
    let grant = grant_of(app, token, is_command_line(&request.headers)).await?;
    let path = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let looks = [Method::GET, Method::HEAD].contains(&request.method);
    if path != "/v1/networks" || !looks {
        grant.may_use(path)?;
    }
    if !looks {
        grant.may_change()?;
    }
    Ok(grant)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// How our own command line calls itself. Only a name for the log: it opens nothing.
pub const USER_AGENT: &str = "gatewrt-coordinator";

fn is_command_line(headers: &HeaderMap) -> bool {
    let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with(USER_AGENT))
}

/// What a token's text allows. Hashes are compared, so the time it takes says nothing about the text.
pub(super) async fn grant_of(app: &App, text: &str, command_line: bool) -> Result<Grant, ApiError> {
    if token_hash(text) == token_hash(app.pki.admin_token()) {
        return Ok(Grant::root(if command_line { "command line" } else { ROOT }));
    }
    let text = text.to_owned();
    let find = move |state: &State| state.registry.token_of(&text, now()).map(Grant::of);
    app.desk.view(find).await?.ok_or_else(ApiError::no_admin)
}

impl ApiError {
    pub(super) fn forbidden(title: &str, detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", title, detail)
    }
}
