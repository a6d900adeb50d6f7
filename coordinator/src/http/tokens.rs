//! Routes of tokens, logins and the audit log.

use super::{
    App, Remote,
    caller::{AuditedChange, Caller},
    grant::{self, Grant},
    problem::{ApiError, Body},
    query::NetworkQuery,
    reply::{Answer, Listed, Reply},
    session::{same_origin, set_cookie},
};
use crate::{
    api::{AuditView, LoginRequest, Me, TokenView},
    controller::{ControllerState, now},
    registry::{Moment, Registry, TokenSpec},
};
use axum::{
    Extension, Json,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of tokens, sessions and the audit log that require a token.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(me))
        .routes(routes!(logout))
        .routes(routes!(audit))
}

/// Routes of the login, which are open to anyone.
pub(super) fn open_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(login))
}

/// Lists all API tokens by name, without their texts. That from the file `admin.token` of the coordinator's directory has
/// this name.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = Vec<TokenView>)))]
pub(super) async fn list_tokens(by: Caller) -> Listed<TokenView> {
    by.list(|state| {
        let views = state.registry.tokens().map(|token| TokenView::of(&state.registry, token, now()));
        Ok(views.map(|view| (view.name.clone(), view)).collect())
    })
    .await
}

/// Creates an API token. Its text is only in this answer.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenSpec, responses((status = 201, body = TokenView)))]
pub(super) async fn create_token(by: Caller, Body(spec): Body<TokenSpec>) -> Answer<TokenView> {
    let act = AuditedChange::new("token.create", format!("token {}", spec.name.trim())).with_detail(&spec);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_token(&spec, moment);
    by.create(act, plan, |state, (token, text)| TokenView {
        token: Some(text),
        ..TokenView::of(&state.registry, &token, now())
    })
    .await
}

/// Revokes an API token at once. Its sessions and its endless answers end too. After that of the file `admin.token`, root
/// on the coordinator's machine makes a new one by “gatewrt-coordinator token reset-admin”.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", responses((status = 200, body = TokenView)))]
pub(super) async fn revoke_token(by: Caller, Path(id): Path<String>) -> Answer<TokenView> {
    let named = id.clone();
    let act = AuditedChange::of("token.revoke", move |state| {
        let token = state.registry.find_token(&named)?;
        Ok(TokenView::of(&state.registry, token, now()))
    });
    let plan = move |registry: &Registry, moment: &Moment| registry.revoke_token(&id, moment);
    let gone = |state: &ControllerState, token| TokenView {
        valid: false,
        ..TokenView::of(&state.registry, &token, now())
    };
    by.change(act, plan, gone).await
}

/// Begins a session of the page: takes a token and sets a cookie. Changes made with the cookie must send `csrf` as
/// `X-CSRF-Token`.
#[utoipa::path(post, path = "/v1/login", tag = "tokens", security(()), request_body = LoginRequest, responses((status = 200, body = Me)))]
pub(super) async fn login(
    Shared(app): Shared<App>,
    Extension(Remote(remote)): Extension<Remote>,
    headers: HeaderMap,
    Body(spec): Body<LoginRequest>,
) -> Result<Response, ApiError> {
    if same_origin(&headers) == Some(false) {
        return Err(ApiError::not_own());
    }
    let grant = grant::grant_of(&app, spec.token.trim(), false)
        .await
        .inspect_err(|_| tracing::warn!(%remote, "a login was refused"))?;
    let token = grant.token.clone().ok_or_else(ApiError::no_admin)?;
    let (cookie, session) = app.logins.begin(token, Instant::now());
    tracing::info!(%remote, who = grant.who, "logged in");
    let me = me_of(&app, &grant, Some((session.csrf.clone(), session.left(Instant::now())))).await?;
    Ok(([(header::SET_COOKIE, set_cookie(&cookie))], Json(me)).into_response())
}

/// Ends the session of the page that the request was made in.
#[utoipa::path(post, path = "/v1/logout", tag = "tokens", responses((status = 204)))]
pub(super) async fn logout(by: Caller, headers: HeaderMap) -> Response {
    if by.is_dry_run() {
        return StatusCode::NO_CONTENT.into_response();
    }
    by.app.logins.end(&headers);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie(""))]).into_response()
}

/// Name and rights of the token that the request was made with.
#[utoipa::path(get, path = "/v1/me", tag = "tokens", responses((status = 200, body = Me)))]
pub(super) async fn me(by: Caller, headers: HeaderMap) -> Answer<Me> {
    let session = by.app.logins.of(&headers, Instant::now()).filter(|_| by.grant.session.is_some());
    let session = session.map(|session| (session.csrf.clone(), session.left(Instant::now())));
    Ok(Reply::of(me_of(&by.app, &by.grant, session).await?))
}

async fn me_of(app: &App, grant: &Grant, session: Option<(String, u64)>) -> Result<Me, ApiError> {
    let net = grant.network;
    let name = move |state: &ControllerState| {
        net.and_then(|net| state.registry.network(net)).map(|net| net.name.clone())
    };
    let network = app.controller.view(name).await?;
    let (csrf, expires_in) = session.unzip();
    Ok(Me { name: grant.who.clone(), rights: grant.rights, network, csrf, expires_in })
}

/// Lists the entries of the audit log, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "coordinator", params(NetworkQuery), responses((status = 200, body = Vec<AuditView>)))]
pub(super) async fn audit(by: Caller) -> Listed<AuditView> {
    let filter = by.filter();
    let net = by.view(move |state| filter.requested(&state.registry)).await?;
    let page = by.page();
    let before = page.after.as_deref().map(str::parse).transpose();
    let before =
        before.map_err(|_| ApiError::bad_request("after is no number of an entry of the audit log"))?;
    let entries = by.app.controller.audit(net, before, page.limit + 1).await?;
    let more = entries.len() > page.limit as usize;
    let part = entries.into_iter().take(page.limit as usize);
    let part: Vec<_> = part.map(|(id, entry)| AuditView::of(id, entry)).collect();
    let link = part.last().filter(|_| more).map(|last| page.link(&last.id.to_string()));
    Ok(by.listed(part, link))
}
