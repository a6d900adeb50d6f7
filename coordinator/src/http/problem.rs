//! Errors as answers (RFC 9457), and extractors that refuse with one.

use crate::{controller::ControllerError, store::StoreError};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
};
use gatewrt_protocol::Problem;
use serde::de::DeserializeOwned;

/// Error of an API request, answered as `application/problem+json`.
#[derive(Debug)]
pub struct ApiError(pub Problem);

impl ApiError {
    pub(super) fn new(status: StatusCode, kind: &str, title: impl ToString, detail: impl ToString) -> Self {
        let (title, detail) = (title.to_string(), detail.to_string());
        Self(Problem { status: status.as_u16(), kind: kind.to_owned(), title, detail })
    }

    pub(super) fn bad_request(title: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", title, "")
    }

    pub(super) fn unreadable_body(error: serde_json::Error) -> Self {
        Self::bad_request(format!("the body can't be read: {error}"))
    }

    pub(super) fn no_admin() -> Self {
        let detail = "send the text of admin.token of the coordinator's directory, or of another valid token, as “Authorization: Bearer …”; if admin.token was revoked, “gatewrt-coordinator token reset-admin” on the coordinator's machine makes a new one";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the admin token is missing or wrong", detail)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path", "the API is below /v1")
    }

    pub(super) fn no_such_method() -> Self {
        let title = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, "")
    }

    pub(super) fn too_long(most: usize) -> Self {
        let detail = format!("a body may have {} KiB", most / 1024);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "the body is too long or incomplete", detail)
    }

    pub(super) fn too_slow() -> Self {
        let title = "the request took too long";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            title,
            "try again; the coordinator's log may say why",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).expect("a problem is JSON");
        (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<ControllerError> for ApiError {
    fn from(error: ControllerError) -> Self {
        match error {
            ControllerError::Refused(refused) => {
                Self::new(status_of(refused.kind()), refused.kind(), &refused, refused.advice())
            }
            ControllerError::Store(error @ StoreError::Full) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", error, "then try again")
            }
            ControllerError::Store(error @ StoreError::Unsure { .. }) => {
                let detail = "the change may have been stored or not: look when the coordinator answers again; it tries each second";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage-unsure", error, detail)
            }
            ControllerError::NotTried(error) => {
                let detail = "this change was not tried: an earlier one failed; the coordinator tries each second to read the disk again";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage-unsure", error, detail)
            }
            ControllerError::Store(error) => {
                let detail = "nothing was changed; the coordinator's log says more";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", error, detail)
            }
            ControllerError::Record(error) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "too-long",
                ControllerError::Record(error),
                "nothing was changed: let the node serve fewer prefixes and let fewer clients in, or have one rule speak of several things, by a tag or a group",
            ),
            ControllerError::Changed(_) => {
                let detail =
                    "read it again: someone else has changed it; then repeat your change with its new ETag";
                Self::new(StatusCode::PRECONDITION_FAILED, "changed-meanwhile", error, detail)
            }
            ControllerError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", error, ""),
        }
    }
}

fn status_of(kind: &str) -> StatusCode {
    match kind {
        "not-found" => StatusCode::NOT_FOUND,
        "code-unknown" | "code-used" | "code-expired" | "code-revoked" => StatusCode::FORBIDDEN,
        "name-taken" | "not-an-exit" | "overlap" | "in-use" | "not-reachable" | "no-ingress"
        | "key-known" | "exhausted" => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// Extractor of a request's JSON body, whose errors are answered as problems.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes =
            bytes.map_err(|error| ApiError::new(error.status(), "bad-request", error.body_text(), ""))?;
        let body = serde_json::from_slice(&bytes);
        body.map(Self).map_err(ApiError::unreadable_body)
    }
}

/// Extractor of a request's query parameters, whose errors are answered as problems.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}
