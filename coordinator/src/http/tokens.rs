//! Tokens, logins, and the audit log of what was done with them.

use super::{
    App, Remote,
    caller::{Act, Caller},
    grant::{self, Grant},
    problem::{ApiError, Body},
    reply::{Answer, Listed, Reply, Resource, without},
    routes::Of,
    session::{same_origin, set_cookie},
};
use crate::{
    api::{AuditView, LoginWish, Me, TokenView},
    desk::{State, now},
    registry::{Moment, Registry, TokenWish},
};
use axum::{
    Extension, Json,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use std::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The paths of this file that need a token.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(me))
        .routes(routes!(logout))
        .routes(routes!(audit))
}

/// The path of this file that is open to anyone.
pub(super) fn open_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(login))
}

impl Resource for TokenView {
    fn called(&self) -> String {
        format!("token {}", self.name)
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &["valid", "token"])
    }
}

impl Resource for Me {
    fn called(&self) -> String {
        self.name.clone()
    }
    fn wanted(&self) -> Option<Value> {
        without(self, &["expires_in"])
    }
}

/// All tokens by name, without their texts. The one in the file `admin.token` is not among them.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = Vec<TokenView>)))]
pub(super) async fn list_tokens(by: Caller) -> Listed<TokenView> {
    by.list(|state| {
        let views = state.registry.tokens().map(|token| TokenView::of(&state.registry, token, now()));
        Ok(views.map(|view| (view.name.clone(), view)).collect())
    })
    .await
}

/// Makes a token. Its text is in this answer only.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenWish, responses((status = 201, body = TokenView)))]
pub(super) async fn create_token(by: Caller, Body(wish): Body<TokenWish>) -> Answer<TokenView> {
    let act = Act::new("token.create", format!("token {}", wish.name.trim())).saying(&wish);
    let plan = move |registry: &Registry, moment: &Moment| registry.create_token(&wish, moment);
    by.create(act, plan, |state, (token, text)| TokenView {
        token: Some(text),
        ..TokenView::of(&state.registry, &token, now())
    })
    .await
}

/// Takes a token back at once; its sessions end with it.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", responses((status = 200, body = TokenView)))]
pub(super) async fn revoke_token(by: Caller, Path(id): Path<String>) -> Answer<TokenView> {
    let named = id.clone();
    let act = Act::of("token.revoke", move |state| {
        let token = state.registry.find_token(&named)?;
        Ok(TokenView::of(&state.registry, token, now()))
    });
    let plan = move |registry: &Registry, _: &Moment| registry.revoke_token(&id);
    let gone =
        |state: &State, token| TokenView { valid: false, ..TokenView::of(&state.registry, &token, now()) };
    by.change(act, plan, gone).await
}

/// Begins a session: shows a token once, gets a cookie. Changes made with the cookie must show `csrf` as
/// `X-CSRF-Token`.
#[utoipa::path(post, path = "/v1/login", tag = "tokens", security(()), request_body = LoginWish, responses((status = 200, body = Me)))]
pub(super) async fn login(
    Shared(app): Shared<App>,
    Extension(Remote(remote)): Extension<Remote>,
    headers: HeaderMap,
    Body(wish): Body<LoginWish>,
) -> Result<Response, ApiError> {
    if same_origin(&headers) == Some(false) {
        return Err(ApiError::not_own());
    }
    let grant = grant::grant_of(&app, wish.token.trim(), false)
        .await
        .inspect_err(|_| tracing::warn!(%remote, "a login was refused"))?;
    let (cookie, session) = app.logins.begin(grant.token.clone(), Instant::now());
    tracing::info!(%remote, who = grant.who, "logged in");
    let me = me_of(&app, &grant, Some((session.csrf.clone(), session.left(Instant::now())))).await?;
    Ok(([(header::SET_COOKIE, set_cookie(&cookie))], Json(me)).into_response())
}

/// Ends the session.
#[utoipa::path(post, path = "/v1/logout", tag = "tokens", responses((status = 204)))]
pub(super) async fn logout(by: Caller, headers: HeaderMap) -> Response {
    by.app.logins.end(&headers);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie(""))]).into_response()
}

/// Who asks, and what they may.
#[utoipa::path(get, path = "/v1/me", tag = "tokens", responses((status = 200, body = Me)))]
pub(super) async fn me(by: Caller, headers: HeaderMap) -> Answer<Me> {
    let session = by.app.logins.of(&headers, Instant::now()).filter(|_| by.grant.in_session);
    let session = session.map(|session| (session.csrf.clone(), session.left(Instant::now())));
    Ok(Reply::of(me_of(&by.app, &by.grant, session).await?))
}

async fn me_of(app: &App, grant: &Grant, session: Option<(String, u64)>) -> Result<Me, ApiError> {
    let net = grant.network;
    let name =
        move |state: &State| net.and_then(|net| state.registry.network(net)).map(|net| net.name.clone());
    let network = app.desk.view(name).await?;
    let (csrf, expires_in) = session.unzip();
    Ok(Me { name: grant.who.clone(), rights: grant.rights, network, csrf, expires_in })
}

/// Who changed what, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "coordinator", params(Of), responses((status = 200, body = Vec<AuditView>)))]
pub(super) async fn audit(by: Caller) -> Listed<AuditView> {
    let scope = by.scope();
    let net = by.view(move |state| scope.wanted(&state.registry)).await?;
    let page = by.page();
    let before = page.after.as_deref().map(str::parse).transpose();
    let before =
        before.map_err(|_| ApiError::bad_request("after is no number of an entry of the audit log"))?;
    let entries = by.app.desk.audit(net, before, page.limit + 1).await?;
    let more = entries.len() > page.limit as usize;
    let part = entries.into_iter().take(page.limit as usize);
    let part: Vec<_> = part.map(|(id, entry)| AuditView::of(id, entry)).collect();
    let link = part.last().filter(|_| more).map(|last| page.link(&last.id.to_string()));
    Ok(by.listed(part, link))
}
