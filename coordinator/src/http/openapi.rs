//! OpenAPI document, served at `/v1/openapi.json`. Handlers describe their own requests and answers.
//! Parameters and errors that all share are added here.

use super::{App, VERSION, obeyed, reply::PAGE};
use crate::obeyed::{Obeyed, PendingNode};
use axum::{
    Extension,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use std::collections::BTreeSet;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        AllOfBuilder, Components, Content, InfoBuilder, KnownFormat, ObjectBuilder, OpenApi, OpenApiBuilder,
        Ref, RefOr, Required, ResponseBuilder, Schema, SchemaFormat, SecurityRequirement, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        schema::{AdditionalProperties, ArrayItems},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Routes of the OpenAPI document.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// OpenAPI document as it is served: its JSON, shared by all answers.
#[derive(Clone)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn of(document: &OpenApi) -> Self {
        Self(document.to_json().expect("the document is JSON").into())
    }
}

/// This document. Open to anyone.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "coordinator", security(()), responses((status = 200, body = Object)))]
pub(super) async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Error of a request (RFC 9457, `application/problem+json`).
#[derive(ToSchema)]
#[allow(dead_code)] // It is a schema only, of `gatewrt_protocol::Problem`.
struct Problem {
    /// HTTP status.
    status: u16,
    /// Kind of the problem, stable: `not-found`, `overlap`, `changed-meanwhile`, …
    r#type: String,
    /// Problem in one sentence.
    title: String,
    /// Advice how to fix it.
    detail: Option<String>,
}

/// Completes the OpenAPI document that the handlers describe: parameters, errors and security of each path.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        complete_path(path, item);
    }
    close_requests(&mut document);
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    components.schemas.insert(Obeyed::name().into_owned(), Obeyed::schema());
    components.schemas.insert(PendingNode::name().into_owned(), PendingNode::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let cookie = ApiKeyValue::with_description("__Host-gatewrt", "a session of the page: see /v1/login");
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let info = InfoBuilder::new().title("GateWRT coordinator").version(VERSION).description(Some(ABOUT));
    let security =
        ["token", "session"].map(|scheme| SecurityRequirement::new::<_, [&str; 0], &str>(scheme, []));
    OpenApiBuilder::from(document).info(info.build()).security(Some(security)).build()
}

const ABOUT: &str = "API of the coordinator: all that the command line and the page can do. Networks, nodes, clients and groups are \
named by their names or ids. Errors are problem+json and say what to do. Changes take `?dry_run=true`, which checks and \
answers without changing anything, and `?wait=SECONDS`, which is how long the answer waits for the nodes that have to \
obey: it names those that have it in effect in `applied`, and those that have not confirmed it, with the reason, in \
`pending`. PUT, PATCH and DELETE take `If-Match` with the `ETag` that was read, and refuse with \
412 if the resource was changed meanwhile. Fields and parameters that are not described here, and parameters that are \
sent twice, are refused with 400. Answers may have more fields in newer versions: ignore those that you don't know.";

fn complete_path(path: &str, item: &mut PathItem) {
    let has_names = path.contains('{');
    let looks = item.get.as_mut().map(|operation| (operation, OperationKind::Look));
    let makes = item.post.as_mut().map(|operation| (operation, OperationKind::Make));
    let others = [&mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten();
    for (operation, kind) in
        looks.into_iter().chain(makes).chain(others.map(|other| (other, OperationKind::Change)))
    {
        let is_open = operation.security.is_some();
        add_parameters(operation, kind, is_open);
        if kind != OperationKind::Look && !is_open {
            add_wait(operation);
        }
        if let Some(RefOr::T(mut tried)) = operation.responses.responses.get("201").cloned() {
            tried.description = "what would be created, with `dry_run`".into();
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

/// Closes the schemas of requests, as [`super::strict`] refuses fields that they do not name. Those of answers stay
/// open.
fn close_requests(document: &mut OpenApi) {
    let mut names = Vec::new();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.post, &mut item.put, &mut item.patch].into_iter().flatten();
        for body in operations.filter_map(|operation| operation.request_body.as_mut()) {
            let RefOr::T(body) = body else { continue };
            for content in body.content.values_mut() {
                let RefOr::T(Content { schema: Some(schema), .. }) = content else { continue };
                close(schema, &mut names);
            }
        }
    }
    let components = document.components.get_or_insert_with(Components::new);
    let mut closed = BTreeSet::new();
    while let Some(name) = names.pop() {
        let schema = components.schemas.get_mut(&name).filter(|_| closed.insert(name));
        schema.into_iter().for_each(|schema| close(schema, &mut names));
    }
}

/// Closes a schema and those within it, and adds the names of those that it refers to.
fn close(schema: &mut RefOr<Schema>, names: &mut Vec<String>) {
    match schema {
        RefOr::Ref(reference) => names.extend(reference.ref_location.rsplit('/').next().map(str::to_owned)),
        RefOr::T(Schema::Object(object)) => {
            if !object.properties.is_empty() {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
            object.properties.values_mut().for_each(|schema| close(schema, names));
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                close(items, names);
            }
        }
        RefOr::T(Schema::OneOf(one)) => one.items.iter_mut().for_each(|schema| close(schema, names)),
        RefOr::T(Schema::AnyOf(any)) => any.items.iter_mut().for_each(|schema| close(schema, names)),
        // Each part allows the fields of the others.
        RefOr::T(_) => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OperationKind {
    Look,
    Make,
    Change,
}

/// Errors that a path of the API can answer: each with its status and description.
fn problems(
    kind: OperationKind,
    is_open: bool,
    has_names: bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let changes = kind != OperationKind::Look;
    [
        (true, "400", "the request can't be read, or has an unknown field or parameter"),
        (!is_open || changes, "401", "no valid token was sent"),
        (!is_open || changes, "403", "the token does not allow it"),
        (has_names || !is_open, "404", "nothing has that name"),
        (changes, "409", "it conflicts with existing settings"),
        (kind == OperationKind::Change, "412", "it was changed meanwhile: read it again"),
        (changes, "413", "the body is too long"),
        (!is_open || changes, "422", "the request is not valid"),
        (is_open && changes, "429", "rate limit of this address exceeded: see Retry-After"),
        (true, "500", "a fault of the coordinator"),
        (true, "503", "the coordinator is stopping, or too slow"),
        (changes, "507", "the coordinator's disk is full"),
    ]
    .into_iter()
    .filter(|(applies, ..)| *applies)
    .map(|(_, status, what)| (status, what))
}

fn add_parameters(operation: &mut Operation, kind: OperationKind, is_open: bool) {
    let parameters = operation.parameters.get_or_insert_default();
    if kind != OperationKind::Look && !is_open {
        parameters.push(query("dry_run", "check and answer without changing anything", Type::Boolean).into());
    }
    if kind == OperationKind::Change {
        let tag = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::False);
        let tag = tag.description(Some("the ETag of the resource as it was read"));
        parameters.push(tag.schema(Some(ObjectBuilder::new().schema_type(Type::String))).build().into());
    }
    if is_list(&operation.responses.responses) {
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(PAGE));
        let limit = limit.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
        let limit = ParameterBuilder::from(query(
            "limit",
            "largest number of items; the header Link leads to the next part",
            Type::Integer,
        ))
        .schema(Some(limit))
        .build();
        parameters.extend(
            [limit, query("after", "key after which the part begins, as in Link", Type::String)]
                .map(RefOr::T),
        );
    }
}

/// Adds the wait for nodes to an operation whose answer can tell of it.
fn add_wait(operation: &mut Operation) {
    let answers = operation.responses.responses.values_mut().filter_map(|answer| match answer {
        RefOr::T(answer) => answer.content.get_mut("application/json"),
        RefOr::Ref(_) => None,
    });
    let schemas = answers.filter_map(|content| match content {
        RefOr::T(content) => content.schema.as_mut(),
        RefOr::Ref(_) => None,
    });
    let mut schemas: Vec<_> = schemas.collect();
    for schema in &mut schemas {
        let both = AllOfBuilder::new().item(schema.clone()).item(Ref::from_schema_name("Obeyed"));
        **schema = RefOr::T(Schema::AllOf(both.build()));
    }
    if schemas.is_empty() {
        return;
    }
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let seconds = seconds.maximum(Some(obeyed::LONGEST_S as f64));
    let what = "seconds to wait until all nodes that are online obey; 0 answers at once [default: 3]";
    let wait = ParameterBuilder::from(query("wait", what, Type::Integer)).schema(Some(seconds)).build();
    operation.parameters.get_or_insert_default().push(wait.into());
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
