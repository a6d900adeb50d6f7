//! Strict requests: fields and parameters that an operation does not take are refused, so that a misspelled one is
//! never ignored. What an operation takes is read from the OpenAPI document, where each handler describes it. One
//! middleware checks the names of all requests before a handler sees them, and an operation that the document does not
//! describe takes nothing. Values are left to the handlers, which parse them.
//!
//! A join request is exempt. It is no JSON but a signed record, and unknown fields of records are ignored: a router with
//! a newer daemon can join an older coordinator. So are answers, which clients of the API read: they may have new fields.

use super::{MAX_BODY, problem::ApiError};
use axum::{
    Extension,
    extract::{MatchedPath, Query, Request},
    http::{Method, StatusCode, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::Arc,
};
use utoipa::openapi::OpenApi;

/// Similarity (Jaro) from which a known name is suggested for an unknown one, as on the command line.
const SIMILAR: f64 = 0.7;
/// Number of characters of an unknown name that an answer repeats.
const SHOWN: usize = 64;

/// Names of the fields and parameters that each operation of the API takes. See the module.
#[derive(Clone)]
pub(super) struct KnownNames(Arc<Value>);

/// Middleware that refuses requests with unknown fields or parameters.
pub(super) async fn refuse_unknown(
    Extension(names): Extension<KnownNames>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return ApiError::too_long(MAX_BODY).into_response();
    };
    match names.check(&parts.method, path.as_str(), &parts.uri, &body) {
        Ok(()) => next.run(Request::from_parts(parts, body.into())).await,
        Err(error) => error.into_response(),
    }
}

impl KnownNames {
    pub(super) fn of(document: &OpenApi) -> Self {
        Self(Arc::new(serde_json::to_value(document).expect("the document is JSON")))
    }

    /// Checks a request to `path`, a path of the document.
    fn check(&self, method: &Method, path: &str, uri: &Uri, body: &[u8]) -> Result<(), ApiError> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let operation = &self.0["paths"][path][method.as_str().to_lowercase()];
        check_parameters(operation, uri)?;
        match &operation["requestBody"]["content"] {
            Value::Null => check_no_body(body),
            content => content.get("application/json").map_or(Ok(()), |json| {
                // A body that this parser refuses and the handler's does not would get its unknown fields past the check.
                let body = serde_json::from_slice(body).map_err(ApiError::unreadable_body)?;
                self.check_fields(&json["schema"], &body, "")
            }),
        }
    }

    /// Checks the names of all fields of a value at `place`. Objects whose schema names no fields are the handler's.
    fn check_fields(&self, schema: &Value, value: &Value, place: &str) -> Result<(), ApiError> {
        let alternatives = self.alternatives(schema);
        let known = alternatives.iter().filter_map(|schema| schema["properties"].as_object()).flatten();
        let known: BTreeMap<_, _> = known.map(|(name, schema)| (name.as_str(), schema)).collect();
        let items = alternatives.iter().find_map(|schema| schema.get("items"));
        match value {
            Value::Object(fields) if !known.is_empty() => fields.iter().try_for_each(|(name, value)| {
                let names = || known.keys().copied().collect::<Vec<_>>();
                let schema =
                    known.get(name.as_str()).ok_or_else(|| ApiError::unknown_field(name, place, &names()))?;
                let dot = if place.is_empty() { "" } else { "." };
                self.check_fields(schema, value, &format!("{place}{dot}{name}"))
            }),
            Value::Array(values) => match items {
                Some(items) => values.iter().enumerate().try_for_each(|(number, value)| {
                    self.check_fields(items, value, &format!("{place}[{number}]"))
                }),
                // The parsers take a list for an object too: its fields in order.
                None if !known.is_empty() => Err(ApiError::no_object(place)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A schema and all that it stands for or consists of, with references followed.
    fn alternatives<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let referred = schema["$ref"].as_str().and_then(|at| self.0.pointer(at.trim_start_matches('#')));
        let parts = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|kind| schema[kind].as_array());
        let inner = referred.into_iter().chain(parts.flatten());
        iter::once(schema).chain(inner.flat_map(|inner| self.alternatives(inner))).collect()
    }
}

fn check_parameters(operation: &Value, uri: &Uri) -> Result<(), ApiError> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let known = parameters.filter(|parameter| parameter["in"] == "query");
    let known: Vec<_> = known.filter_map(|parameter| parameter["name"].as_str()).collect();
    let Query(sent) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| ApiError::bad_request(error.body_text()))?;
    let mut seen = BTreeSet::new();
    sent.iter().try_for_each(|(name, _)| {
        if !known.contains(&name.as_str()) {
            return Err(ApiError::unknown_parameter(name, &known));
        }
        seen.insert(name).then_some(()).ok_or_else(|| ApiError::repeated_parameter(name))
    })
}

/// Refuses a body that says something. Clients that always send one send `{}` or `null`.
fn check_no_body(body: &[u8]) -> Result<(), ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Null) => Ok(()),
        Ok(Value::Object(fields)) => match fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::unknown_field(name, "", &[])),
        },
        _ => Err(ApiError::unexpected_body()),
    }
}

/// Known name that is most similar to an unknown one, if any is similar.
fn similar<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let rated = known.iter().map(|known| (strsim::jaro(&name, known), *known));
    let similar = rated.filter(|(similarity, _)| *similarity > SIMILAR);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// Advice for an unknown name: the known one that was probably meant, and all known ones.
fn advice(name: &str, known: &[&str], what: &str, none: &str) -> String {
    if known.is_empty() {
        return none.to_owned();
    }
    let all = format!("{what}: {}", known.join(", "));
    similar(name, known).map_or(all.clone(), |similar| format!("did you mean “{similar}”? {all}"))
}

fn shown(name: &str) -> String {
    let dots = if name.chars().nth(SHOWN).is_some() { "…" } else { "" };
    name.chars().take(SHOWN).collect::<String>() + dots
}

impl ApiError {
    fn unknown_field(name: &str, place: &str, known: &[&str]) -> Self {
        let name = shown(name);
        let of = if place.is_empty() { String::new() } else { format!("“{place}” of ") };
        let title = format!("unknown field “{name}” in {of}the body");
        let detail = advice(&name, known, "fields here", "this request takes no body");
        Self::new(StatusCode::BAD_REQUEST, "unknown-field", title, detail)
    }

    fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let name = shown(name);
        let title = format!("unknown parameter “{name}” in the query");
        let detail = advice(&name, known, "parameters here", "this request takes no parameters");
        Self::new(StatusCode::BAD_REQUEST, "unknown-parameter", title, detail)
    }

    fn repeated_parameter(name: &str) -> Self {
        let title = format!("parameter “{name}” is in the query twice");
        Self::new(StatusCode::BAD_REQUEST, "repeated-parameter", title, "send it once")
    }

    fn no_object(place: &str) -> Self {
        let of = if place.is_empty() { String::new() } else { format!("“{place}” of ") };
        Self::bad_request(format!("{of}the body is a list: send an object, with the names of its fields"))
    }

    fn unexpected_body() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unexpected-body", "this request takes no body", "send it without")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Names of a document with `PUT /sites/{site}`, which takes lists and objects within objects.
    fn names() -> KnownNames {
        let hours =
            json!({"type": "object", "properties": {"from": {"type": "integer"}, "to": {"type": "integer"}}});
        let host = json!({"type": "object", "properties": {
            "name": {"type": "string"},
            "hours": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Hours"}]},
        }});
        let site = json!({"type": "object", "properties": {
            "label": {"type": "string"},
            "hosts": {"type": "array", "items": {"$ref": "#/components/schemas/Host"}},
        }});
        let put = json!({
            "parameters": [
                {"in": "path", "name": "site"}, {"in": "header", "name": "If-Match"},
                {"in": "query", "name": "dry_run"}, {"in": "query", "name": "force"},
            ],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Site"}}}},
        });
        let join = json!({"requestBody": {"content": {"text/plain": {"schema": {"type": "string"}}}}});
        KnownNames(Arc::new(json!({
            "paths": {"/sites/{site}": {"put": put, "get": {}}, "/join": {"post": join}},
            "components": {"schemas": {"Site": site, "Host": host, "Hours": hours}},
        })))
    }

    fn check(method: Method, path: &str, query: &str, body: &str) -> Result<(), (String, String, String)> {
        let outcome = names().check(&method, path, &format!("/x{query}").parse().unwrap(), body.as_bytes());
        outcome.map_err(|ApiError(problem)| (problem.kind, problem.title, problem.detail))
    }

    fn put(query: &str, body: &str) -> Result<(), (String, String, String)> {
        check(Method::PUT, "/sites/{site}", query, body)
    }

    fn refused(kind: &str, title: &str, detail: &str) -> Result<(), (String, String, String)> {
        Err((kind.to_owned(), title.to_owned(), detail.to_owned()))
    }

    #[test]
    fn unknown_field_is_named_with_its_place_and_a_similar_one() {
        for (body, title, detail) in [
            (r#"{"lable": 1}"#, "“lable” in the body", "did you mean “label”? fields here: hosts, label"),
            (r#"{"LABEL": 1}"#, "“LABEL” in the body", "did you mean “label”? fields here: hosts, label"),
            (r#"{"x": 1}"#, "“x” in the body", "fields here: hosts, label"),
            (r#"{"": 1}"#, "“” in the body", "fields here: hosts, label"),
            (
                r#"{"hosts": [{}, {"nam": 1}]}"#,
                "“nam” in “hosts[1]” of the body",
                "did you mean “name”? fields here: hours, name",
            ),
            (
                r#"{"hosts": [{"hours": {"until": 1}}]}"#,
                "“until” in “hosts[0].hours” of the body",
                "fields here: from, to",
            ),
        ] {
            assert_eq!(put("", body), refused("unknown-field", &format!("unknown field {title}"), detail));
        }
        let (_, title, _) = put("", &format!(r#"{{"{}": 1}}"#, "ö".repeat(5000))).unwrap_err();
        assert_eq!(title, format!("unknown field “{}…” in the body", "ö".repeat(64)));
    }

    #[test]
    fn unknown_or_repeated_parameter_is_named() {
        let known = "parameters here: dry_run, force";
        for (query, title, detail) in [
            ("?dryrun=true", "“dryrun” in the query", format!("did you mean “dry_run”? {known}")),
            ("?force=true&x", "“x” in the query", known.to_owned()),
            ("?=", "“” in the query", known.to_owned()),
            ("?If-Match=x", "“If-Match” in the query", known.to_owned()),
            ("?site=x", "“site” in the query", known.to_owned()),
        ] {
            assert_eq!(
                put(query, "{}"),
                refused("unknown-parameter", &format!("unknown parameter {title}"), &detail)
            );
        }
        for twice in ["?force=true&force=true", "?force=true&f%6frce=false"] {
            let title = "parameter “force” is in the query twice";
            assert_eq!(put(twice, "{}"), refused("repeated-parameter", title, "send it once"), "{twice}");
        }
    }

    #[test]
    fn known_names_pass_with_any_value() {
        for body in [
            "{}",
            "null",
            r#"{"label": {"deep": 1}, "hosts": [{"name": null, "hours": null}, null, 1]}"#,
            r#"{"hosts": [{"hours": {"from": 1, "to": []}}]}"#,
        ] {
            assert_eq!(put("?dry_run=true&force", body), Ok(()), "{body}");
        }
        for empty in ["", " ", "{}", "null"] {
            assert_eq!(check(Method::GET, "/sites/{site}", "", empty), Ok(()), "{empty}");
            assert_eq!(check(Method::HEAD, "/sites/{site}", "?&", empty), Ok(()), "{empty}");
        }
        assert_eq!(check(Method::POST, "/join", "", "a.signed.record"), Ok(()));
    }

    #[test]
    fn list_in_place_of_an_object_is_refused() {
        for (body, of) in [("[1, []]", ""), (r#"{"hosts": [["x"]]}"#, "“hosts[0]” of ")] {
            let title = format!("{of}the body is a list: send an object, with the names of its fields");
            assert_eq!(put("", body), refused("bad-request", &title, ""));
        }
    }

    /// The handlers' parser skips the value of an unknown field, whatever it is.
    #[test]
    fn unreadable_value_does_not_hide_an_unknown_field() {
        for body in [r#"{"lable": 1e999}"#, r#"{"lable": "\ud800"}"#, "{\"lable\": \"\u{1}\"}", ""] {
            assert_eq!(put("", body).unwrap_err().0, "bad-request", "{body}");
        }
    }

    #[test]
    fn operation_without_body_or_description_takes_nothing() {
        for (method, path) in
            [(Method::GET, "/sites/{site}"), (Method::DELETE, "/sites/{site}"), (Method::POST, "/new")]
        {
            let ask = |query: &str, body: &str| check(method.clone(), path, query, body);
            let none = "this request takes no parameters";
            assert_eq!(
                ask("?x=1", ""),
                refused("unknown-parameter", "unknown parameter “x” in the query", none)
            );
            let none = "this request takes no body";
            assert_eq!(
                ask("", r#"{"x": 1}"#),
                refused("unknown-field", "unknown field “x” in the body", none)
            );
            for body in ["[]", "1", "x=1", "{}{}"] {
                assert_eq!(ask("", body), refused("unexpected-body", none, "send it without"), "{body}");
            }
        }
    }
}
