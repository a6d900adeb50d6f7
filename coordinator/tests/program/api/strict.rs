//! Unknown fields and parameters, which every operation of the served document refuses.

use super::{
    client::{Answer, Api},
    fuzz::world,
    names,
};
use crate::{
    coordinator::{Coordinator, text},
    router::{Router, post_join},
};
use gatewrt_protocol::{JoinCode, JoinRequest, Kind};
use serde_json::{Value, json};

/// Name that no operation knows, and that is similar to none.
const UNKNOWN: &str = "__colour__";
/// The only operation whose body is no JSON: a signed record, whose unknown fields are ignored.
const JOIN: &str = "/v1/join";

/// Operation of the served document.
struct Operation<'a> {
    document: &'a Value,
    method: String,
    path: &'a str,
    description: &'a Value,
}

/// Query or body that an operation has to refuse, the type of the problem, and a part of what it says.
type Wrong = (String, &'static str, String);

impl<'a> Operation<'a> {
    fn all(document: &'a Value) -> Vec<Self> {
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, description)| Self {
                document,
                method: method.to_uppercase(),
                path,
                description,
            })
        });
        operations.collect()
    }

    /// Its query parameters.
    fn parameters(&self) -> Vec<&'a str> {
        let all = self.description["parameters"].as_array().into_iter().flatten();
        all.filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap()).collect()
    }

    /// Schema of its JSON body.
    fn schema(&self) -> Option<&'a Value> {
        self.description.pointer("/requestBody/content/application~1json/schema")
    }

    /// Query with the parameters that a sound request needs; a dry run if that is wanted and possible.
    fn sound_query(&self, dry_run: bool) -> String {
        let value = |name: &str| match name {
            "dry_run" => dry_run.then_some("true"),
            "force" => Some("true"),
            "prefix" => Some("192.168.77.0/24"),
            "from" | "to" => Some("all"),
            _ => None,
        };
        let parameters = self.parameters().into_iter();
        let pairs = parameters.filter_map(|name| value(name).map(|value| format!("{name}={value}")));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// Body that its handler accepts.
    fn sound_body(&self, api: &Api) -> Value {
        match (self.method.as_str(), self.path.trim_start_matches("/v1/networks/{net}")) {
            ("POST", "/v1/networks") => json!({"name": "work", "mtu": 1400}),
            ("PATCH", "") => json!({"access": "deny", "dns": ["9.9.9.9"]}),
            ("POST", "/codes") => json!({"uses": 2, "expires_in": 60, "roles": ["exit"]}),
            ("PATCH", "/nodes/{node}") => json!({"label": "x", "tags": ["a"], "confirm_s": 50}),
            ("PUT", "/nodes/{node}/egress") => json!({"prefix": "192.168.78.0/24", "nat": false}),
            ("PUT", "/nodes/{node}/ingress") => json!({"endpoint": "203.0.113.9:51820"}),
            ("PUT", "/nodes/{node}/exit") => json!({"dns": ["9.9.9.9"], "v6": false}),
            ("PUT", "/nodes/{node}/scopes/{scope}") => json!({"of": ["router"], "exits": ["cabin"]}),
            ("POST", "/clients") => json!({"name": "tablet", "gateways": ["office"]}),
            ("PATCH", "/clients/{client}") => json!({"enabled": false}),
            ("POST", "/clients/{client}/reissue") => json!({"psk": true}),
            ("POST", "/rules") => json!({"verdict": "deny", "from": ["all"], "to": ["all"]}),
            ("PATCH", "/rules/{rule}") => json!({"enabled": false, "note": "x"}),
            ("PUT", "/groups/{group}") => json!({"members": ["node:office"]}),
            ("POST", "/v1/tokens") => json!({"name": "ci", "rights": "admin", "expires_in": 60}),
            ("POST", "/v1/login") => json!({"token": api.token}),
            _ => json!({}),
        }
    }

    /// Queries and bodies that it has to refuse. Without the unknown part each request is sound, and no dry run.
    fn wrong_requests(&self, api: &Api) -> Vec<(String, String, &'static str, String)> {
        let (query, sound) = (self.sound_query(false), self.sound_body(api));
        let bodies = match self.schema() {
            Some(schema) => self.wrong_bodies(schema, &sound),
            None if self.path == JOIN => Vec::new(),
            None => bodies_where_none_belongs(),
        };
        let body = self.schema().map(|_| sound.to_string()).unwrap_or_default();
        let queries = self.wrong_parameters().into_iter();
        let queries = queries.map(|(more, kind, says)| (format!("{query}&{more}"), body.clone(), kind, says));
        queries
            .chain(bodies.into_iter().map(|(body, kind, says)| (query.clone(), body, kind, says)))
            .collect()
    }

    fn wrong_parameters(&self) -> Vec<Wrong> {
        let mut all = vec![(format!("{UNKNOWN}=1"), "unknown-parameter", format!("“{UNKNOWN}”"))];
        for name in self.parameters() {
            all.push((format!("{name}_=true"), "unknown-parameter", format!("did you mean “{name}”?")));
            all.push((format!("{name}=1&{name}=1"), "repeated-parameter", format!("“{name}”")));
        }
        all
    }

    fn wrong_bodies(&self, schema: &Value, sound: &Value) -> Vec<Wrong> {
        let fields = |more: &Value| {
            let mut body = sound.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body.to_string()
        };
        // As text: a value has no field twice, and no such number.
        let text = |name: &str, value: &str| match sound.to_string().strip_suffix('}').unwrap() {
            "{" => format!("{{\"{name}\":{value}}}"),
            fields => format!("{fields},\"{name}\":{value}}}"),
        };
        let mut all = vec![
            ("[]".to_owned(), "bad-request", "is a list".to_owned()),
            (text(UNKNOWN, "1e999"), "bad-request", "can't be read".to_owned()),
        ];
        let unknown = with_unknown_field(self.document, schema);
        assert!(!unknown.is_empty(), "{} {}: the body is no object", self.method, self.path);
        all.extend(unknown.iter().map(|more| (fields(more), "unknown-field", format!("“{UNKNOWN}”"))));
        let known =
            resolved(self.document, schema).into_iter().filter_map(|one| one["properties"].as_object());
        for name in known.flat_map(|properties| properties.keys()) {
            let meant = format!("did you mean “{name}”?");
            all.push((fields(&json!({ format!("{name}_"): 1 })), "unknown-field", meant));
        }
        for (name, value) in sound.as_object().unwrap() {
            all.push((text(name, &value.to_string()), "bad-request", format!("duplicate field `{name}`")));
        }
        all
    }
}

fn bodies_where_none_belongs() -> Vec<Wrong> {
    let field = (json!({ UNKNOWN: 1 }).to_string(), "unknown-field", format!("“{UNKNOWN}”"));
    let others = ["[]", "1", "\"x\"", "x=1", "{} {}"].into_iter();
    let others = others.map(|body| (body.to_owned(), "unexpected-body", "takes no body".to_owned()));
    std::iter::once(field).chain(others).collect()
}

/// A schema and all that it stands for or consists of.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let referred = schema["$ref"].as_str().map(|at| document.pointer(at.trim_start_matches('#')).unwrap());
    let parts = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|kind| schema[kind].as_array());
    let inner = referred.into_iter().chain(parts.flatten());
    std::iter::once(schema).chain(inner.flat_map(|inner| resolved(document, inner))).collect()
}

fn is_object(schema: &Value) -> bool {
    schema["type"] == "object"
        || schema["type"].as_array().is_some_and(|types| types.contains(&json!("object")))
}

/// Values with an unknown field in one of the objects of a schema: one value for each object.
fn with_unknown_field(document: &Value, schema: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for schema in resolved(document, schema) {
        if is_object(schema) {
            all.push(json!({ UNKNOWN: 1 }));
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let inner = with_unknown_field(document, inner).into_iter();
            all.extend(inner.map(|value| json!({ name.clone(): value })));
        }
        let items = schema.get("items").map(|items| with_unknown_field(document, items));
        all.extend(items.into_iter().flatten().map(|value| json!([value])));
    }
    all
}

/// Everything that requests can change, as the API shows it.
fn state(api: &Api) -> Vec<Value> {
    let home = ["", "/clients", "/rules", "/groups", "/egress", "/ingress", "/exits", "/nodes"];
    let home = home.map(|path| format!("/v1/networks/home{path}"));
    let all = ["/v1/networks", "/v1/tokens", "/v1/audit"].map(str::to_owned);
    all.iter()
        .chain(&home)
        .map(|path| api.get(path))
        .map(|answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.body
        })
        .collect()
}

#[test]
fn every_operation_refuses_unknown_fields_and_parameters() {
    let (_coordinator, api, ids) = world();
    for (path, body) in [("egress", json!({"prefix": "192.168.77.0/24"})), ("exit", json!({}))] {
        let path = format!("/v1/networks/home/nodes/office/{path}");
        assert_eq!(api.call("PUT", &path, &[], Some(&body)).status, 200);
    }
    let document = api.get("/v1/openapi.json").body;
    let operations = Operation::all(&document);
    assert!(operations.len() >= 50, "{}", operations.len());
    let before = state(&api);
    for operation in &operations {
        let Operation { method, path, .. } = operation;
        let at = ids.iter().fold((*path).to_owned(), |at, (name, id)| at.replace(&format!("{{{name}}}"), id));
        let ask = |query: &str, body: &str| {
            let at = format!("{at}?{query}");
            if body.is_empty() { api.call(method, &at, &[], None) } else { api.send(method, &at, body) }
        };
        if *path != JOIN {
            let body = operation.schema().map(|_| operation.sound_body(&api).to_string()).unwrap_or_default();
            let sound = ask(&operation.sound_query(true), &body);
            // A coordinator that was never set back has no strays, and no rules from before.
            let is_sound = |status| match path.starts_with("/v1/recovery/") {
                true => status == 404,
                false => (200..300).contains(&status),
            };
            assert!(is_sound(sound.status), "{method} {path}: give it a sound request: {sound:?}");
        }
        for (query, body, kind, says) in operation.wrong_requests(&api) {
            let answer = ask(&query, &body);
            let about = format!("{method} {path}?{query}: {body}: {answer:?}");
            assert_eq!((answer.status, answer.is_problem()), (400, true), "{about}");
            assert_eq!(answer.problem(), kind, "{about}");
            let said = format!("{} {}", answer.body["title"], answer.body["detail"]);
            assert!(said.contains(&says), "{says}: {about}");
        }
        assert_eq!(state(&api), before, "{method} {path}: something has changed");
    }
}

#[test]
fn schemas_of_requests_are_closed_and_those_of_answers_open() {
    let coordinator = Coordinator::start();
    let document = Api::of(&coordinator).get("/v1/openapi.json").body;
    for operation in Operation::all(&document) {
        let at = format!("{} {}", operation.method, operation.path);
        let has_text = operation.description["requestBody"].is_object() && operation.schema().is_none();
        assert_eq!(has_text, operation.path == JOIN, "{at}: only a signed record is no JSON");
        for object in operation.schema().map(|schema| objects(&document, schema)).unwrap_or_default() {
            assert_eq!(object["additionalProperties"], false, "{at}: {object}");
        }
        for answer in operation.description["responses"].as_object().unwrap().values() {
            let content = answer["content"].as_object().into_iter().flatten();
            for object in content.flat_map(|(_, content)| objects(&document, &content["schema"])) {
                assert_ne!(object["additionalProperties"], false, "{at}: {object}");
            }
        }
    }
}

/// Schemas of all objects within a schema.
fn objects<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let all = resolved(document, schema).into_iter();
    let within = all.flat_map(|schema| {
        let properties = schema["properties"].as_object().into_iter().flatten().map(|(_, inner)| inner);
        let inner = properties.chain(schema.get("items")).flat_map(|inner| objects(document, inner));
        inner.chain(is_object(schema).then_some(schema)).collect::<Vec<_>>()
    });
    within.collect()
}

fn told(answer: &Answer) -> (u16, &str, &str, &str) {
    let text = |name: &str| answer.body[name].as_str().unwrap();
    (answer.status, answer.problem(), text("title"), text("detail"))
}

#[test]
fn misspelled_field_or_parameter_changes_nothing_and_is_explained() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    let before = state(&api);
    let home = "/v1/networks/home";
    let known = "fields here: expires_in, name, network, rights";
    for (spec, wrong, meant) in [
        (json!({"name": "ci", "rights": "admin", "expires_in_s": 60}), "expires_in_s", "expires_in"),
        (json!({"name": "ci", "rights": "admin", "net": "home"}), "net", "network"),
    ] {
        let (title, detail) =
            (format!("unknown field “{wrong}” in the body"), format!("did you mean “{meant}”? {known}"));
        assert_eq!(told(&api.post("/v1/tokens", &spec)), (400, "unknown-field", &*title, &*detail));
    }
    assert_eq!(
        told(&api.call("PATCH", home, &[], Some(&json!({"acces": "deny"})))),
        (
            400,
            "unknown-field",
            "unknown field “acces” in the body",
            "did you mean “access”? fields here: access, dns"
        )
    );
    assert_eq!(
        told(&api.delete("/v1/networks/home?dryrun=true")),
        (
            400,
            "unknown-parameter",
            "unknown parameter “dryrun” in the query",
            "did you mean “dry_run”? parameters here: force, dry_run, wait"
        )
    );
    assert_eq!(
        told(&api.send("DELETE", home, r#"{"dry_run": true}"#)),
        (400, "unknown-field", "unknown field “dry_run” in the body", "this request takes no body")
    );
    assert_eq!(told(&api.get("/v1/tokens?network=home")).1, "unknown-parameter", "it would list all tokens");
    assert_eq!(state(&api), before);
    assert_eq!(api.with_token("").get("/v1/networks?x=1").status, 401, "only who has a token is told");
}

#[test]
fn router_of_a_newer_version_joins() {
    let coordinator = Coordinator::with_home();
    let code: JoinCode = coordinator.code(&[]).parse().unwrap();
    let router = Router::new(1, "office");
    let request = JoinRequest { secret: code.secret_text(), ..router.request.clone() };
    let mut request = serde_json::to_value(&request).unwrap();
    request[UNKNOWN] = json!({"of": "a newer version"});
    let signed = router.signer().sign_bytes(Kind::Join, request.to_string().as_bytes());
    let joined = post_join(&code, &text(&coordinator.data().join("ca.crt")), &signed).unwrap();
    assert_eq!(joined.name.as_str(), "office");
    assert_eq!(names(&Api::of(&coordinator).get("/v1/networks/home/nodes").body, "/name"), ["office"]);
}
