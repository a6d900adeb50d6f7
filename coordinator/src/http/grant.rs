//! Who may do what: a token, shown in the header of each request or once for a session, is looked up, and what
//! it allows goes with the request as a [`Grant`]. Which network a request is about is seen to by
//! [`super::caller::Scope`].

use super::{App, problem::ApiError, session::is_own};
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
use std::time::{Duration, Instant};

/// What the file's token is called in the audit log, and in `/v1/me`.
pub const ROOT: &str = "admin.token";

/// Also for those who may only look.
const LOGOUT: &str = "/v1/logout";

/// How often it is seen to that the reader of an answer without end still may.
pub(super) const RECHECK: Duration = Duration::from_secs(2);

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
    /// Whether it was shown by a session's cookie.
    pub in_session: bool,
}

impl Grant {
    /// Of the token in the file: all there is.
    pub fn root(who: &str) -> Self {
        Self { who: who.to_owned(), rights: Rights::Admin, network: None, token: None, in_session: false }
    }

    /// Of a token that holds.
    pub fn of(token: &Token) -> Self {
        let (who, token_id) = (token.name.clone(), token.id.clone());
        Self { who, rights: token.rights, network: token.net, token: Some(token_id), in_session: false }
    }

    /// Whether its token was neither taken back since nor has come to its end.
    pub async fn still_holds(&self, app: &App) -> bool {
        let Some(id) = self.token.clone() else { return true };
        app.desk.view(move |state| state.registry.token(&id, now()).is_some()).await.unwrap_or(false)
    }

    /// Waits until it does not hold any more: an answer without end has one then.
    pub async fn ended(&self, app: &App) {
        while self.still_holds(app).await {
            tokio::time::sleep(RECHECK).await;
        }
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
    const FILTERED: [&str; 6] = ["/v1/status", "/v1/watch", "/v1/events", "/v1/audit", "/v1/me", LOGOUT];
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
    let looks = [Method::GET, Method::HEAD].contains(&request.method);
    let grant = match bearer(&request.headers) {
        Some(token) => grant_of(app, token, is_command_line(&request.headers)).await?,
        None => grant_in_session(app, &request.headers, looks).await?,
    };
    let path = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    if path != "/v1/networks" || !looks {
        grant.may_use(path)?;
    }
    if !looks && path != LOGOUT {
        grant.may_change()?;
    }
    Ok(grant)
}

/// What the cookie's token allows. A change has to come from our own page.
async fn grant_in_session(app: &App, headers: &HeaderMap, looks: bool) -> Result<Grant, ApiError> {
    let session = app.logins.of(headers, Instant::now()).ok_or_else(ApiError::no_admin)?;
    if !looks && !is_own(&session, headers) {
        return Err(ApiError::not_own());
    }
    let grant = match session.token {
        None => Grant::root(ROOT),
        Some(id) => {
            let find = move |state: &State| state.registry.token(&id, now()).map(Grant::of);
            app.desk.view(find).await?.ok_or_else(ApiError::no_admin)?
        }
    };
    Ok(Grant { in_session: true, ..grant })
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
    pub(super) fn not_own() -> Self {
        let detail =
            "show what /v1/me says as “csrf” in the header X-CSRF-Token; other sites may change nothing here";
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
