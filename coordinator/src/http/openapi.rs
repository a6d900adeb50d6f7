//! The OpenAPI document, served at `/v1/openapi.json`. What a path takes and answers stands at its handler;
//! what is common to all of them is added here: parameters that each takes, and the problems it may answer.

use super::{App, reply::PAGE, routes::VERSION};
use axum::{
    Extension,
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, Content, InfoBuilder, KnownFormat, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
        Required, ResponseBuilder, Schema, SchemaFormat, SecurityRequirement, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The paths of this file.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// The document as it is served.
#[derive(Clone)]
pub(super) struct Document(Arc<str>);

impl Document {
    pub(super) fn of(document: &OpenApi) -> Self {
        Self(document.to_json().expect("the document is JSON").into())
    }
}

/// This document. Open to anyone.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "coordinator", security(()), responses((status = 200, body = Object)))]
pub(super) async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

/// Why a request was refused or failed (RFC 9457, `application/problem+json`).
#[derive(ToSchema)]
#[allow(dead_code)] // It is a schema only, of `gatewrt_protocol::Problem`.
struct Problem {
    /// The HTTP status.
    status: u16,
    /// What kind of problem, stable: `not-found`, `overlap`, `changed-meanwhile`, …
    r#type: String,
    /// What was wrong, in one sentence.
    title: String,
    /// What to do about it.
    detail: Option<String>,
}

/// The whole document from what the handlers say.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        complete_path(path, item);
    }
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let cookie = ApiKeyValue::with_description("__Host-gatewrt", "a session of the page: see /v1/login");
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let info = InfoBuilder::new().title("GateWRT coordinator").version(VERSION).description(Some(ABOUT));
    let security =
        ["token", "session"].map(|scheme| SecurityRequirement::new::<_, [&str; 0], &str>(scheme, []));
    OpenApiBuilder::from(document).info(info.build()).security(Some(security)).build()
}

const ABOUT: &str = "What the command line and the page do, others can do too. Networks, nodes, clients and groups are \
named by their names or ids. Errors are problem+json and say what to do. Changes take `?dry_run=true`, which checks and \
answers without doing; PUT, PATCH and DELETE take `If-Match` with the `ETag` of what one saw, and refuse with 412 where \
it was changed meanwhile.";

fn complete_path(path: &str, item: &mut PathItem) {
    let has_names = path.contains('{');
    let looks = item.get.as_mut().map(|operation| (operation, Kind::Look));
    let makes = item.post.as_mut().map(|operation| (operation, Kind::Make));
    let others = [&mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
    for (operation, kind) in looks.into_iter().chain(makes).chain(others.map(|other| (other, Kind::Change))) {
        let is_open = operation.security.is_some();
        add_parameters(operation, kind, is_open);
        if let Some(RefOr::T(mut tried)) = operation.responses.responses.get("201").cloned() {
            tried.description = "what would be made, with `dry_run`".into();
            operation.responses.responses.insert("200".into(), RefOr::T(tried));
        }
        for (status, what) in problems(kind, is_open, has_names) {
            let answer = ResponseBuilder::new().description(what);
            let answer = answer
                .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))));
            operation
                .responses
                .responses
                .entry(status.to_owned())
                .or_insert_with(|| RefOr::T(answer.build()));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Look,
    Make,
    Change,
}

/// Which problems are answered where.
fn problems(
    kind: Kind,
    is_open: bool,
    has_names: bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let changes = kind != Kind::Look;
    [
        (true, "400", "the request can't be read"),
        (!is_open || changes, "401", "no token was shown, or one that does not hold"),
        (!is_open || changes, "403", "the token does not allow it"),
        (has_names || !is_open, "404", "there is nothing of that name"),
        (changes, "409", "it can't stand beside what is there"),
        (kind == Kind::Change, "412", "it was changed meanwhile: look again"),
        (changes, "413", "the body is too long"),
        (!is_open || changes, "422", "it makes no sense"),
        (is_open && changes, "429", "too many tries from this address: see Retry-After"),
        (true, "500", "a fault of the coordinator"),
        (true, "503", "the coordinator is stopping, or too slow"),
        (changes, "507", "the coordinator's disk is full"),
    ]
    .into_iter()
    .filter(|(applies, ..)| *applies)
    .map(|(_, status, what)| (status, what))
}

fn add_parameters(operation: &mut Operation, kind: Kind, is_open: bool) {
    let parameters = operation.parameters.get_or_insert_default();
    if kind != Kind::Look && !is_open {
        parameters.push(query("dry_run", "check and answer without doing", Type::Boolean).into());
    }
    if kind == Kind::Change {
        let tag = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::False);
        let tag = tag.description(Some("the ETag of what is to be changed, as one saw it"));
        parameters.push(tag.schema(Some(ObjectBuilder::new().schema_type(Type::String))).build().into());
    }
    if is_list(&operation.responses.responses) {
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(PAGE));
        let limit = limit.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
        let limit = ParameterBuilder::from(query(
            "limit",
            "at most so many; the header Link leads to what follows",
            Type::Integer,
        ))
        .schema(Some(limit))
        .build();
        parameters.extend(
            [limit, query("after", "those after this key, as Link says it", Type::String)].map(RefOr::T),
        );
    }
}

fn query(name: &str, what: &str, kind: Type) -> Parameter {
    let parameter =
        ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
    parameter.description(Some(what)).schema(Some(ObjectBuilder::new().schema_type(kind))).build()
}

fn is_list(responses: &std::collections::BTreeMap<String, RefOr<utoipa::openapi::Response>>) -> bool {
    let Some(RefOr::T(response)) = responses.get("200") else { return false };
    let Some(RefOr::T(content)) = response.content.get("application/json") else { return false };
    matches!(content.schema, Some(RefOr::T(Schema::Array(_))))
}
