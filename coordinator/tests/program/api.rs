//! Tests of the HTTPS API, as other programs and the page use it.

pub mod client;
mod custom_certificate;
mod fuzz;
mod sessions;
mod streams;
mod strict;
mod together;

use crate::coordinator::{Coordinator, local_admin};
use client::{Answer, Api};
use serde_json::{Value, json};

/// Every path and method that the served document describes.
fn described(api: &Api) -> Vec<(String, String, bool)> {
    let document = api.get("/v1/openapi.json").body;
    let paths = document["paths"].as_object().unwrap().clone();
    let operations = paths.into_iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().clone().into_iter();
        operations.map(move |(method, operation)| (method.to_uppercase(), path.clone(), is_open(&operation)))
    });
    operations.collect()
}

fn is_open(operation: &Value) -> bool {
    operation["security"].as_array().is_some_and(|schemes| schemes.contains(&json!({})))
}

/// Path with the names of existing objects.
fn filled(path: &str) -> String {
    let path = path.replace("{net}", "home");
    path.split('/')
        .map(|part| if part.starts_with('{') { "nothing" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// As [`filled`], for a request that changes nothing.
fn tried(method: &str, path: &str, open: bool) -> String {
    filled(path) + if method == "GET" || open { "" } else { "?dry_run=true" }
}

#[test]
fn every_route_enforces_the_rights_of_its_caller() {
    let coordinator = Coordinator::with_home();
    coordinator.ok(&["network", "create", "work"]);
    let root = Api::of(&coordinator);
    let token = |name: &str, rights: &str, network: Option<&str>| {
        let made = root.post("/v1/tokens", &json!({"name": name, "rights": rights, "network": network}));
        assert_eq!(made.status, 201, "{}", made.body);
        root.with_token(made.body["token"].as_str().unwrap())
    };
    let callers = [
        ("no one", root.with_token(""), Caller { rights: None, net: None }),
        ("a wrong token", root.with_token(&"x".repeat(43)), Caller { rights: None, net: None }),
        ("admin.token", root.clone(), Caller { rights: Some("admin"), net: None }),
        ("admin", token("all", "admin", None), Caller { rights: Some("admin"), net: None }),
        ("read", token("look", "read", None), Caller { rights: Some("read"), net: None }),
        (
            "admin of home",
            token("a", "admin", Some("home")),
            Caller { rights: Some("admin"), net: Some("home") },
        ),
        (
            "reader of home",
            token("b", "read", Some("home")),
            Caller { rights: Some("read"), net: Some("home") },
        ),
        (
            "admin of work",
            token("c", "admin", Some("work")),
            Caller { rights: Some("admin"), net: Some("work") },
        ),
        (
            "reader of work",
            token("d", "read", Some("work")),
            Caller { rights: Some("read"), net: Some("work") },
        ),
    ];
    let before = root.get("/v1/networks").body;
    let routes = described(&root);
    assert!(routes.len() >= 30, "{routes:?}");
    for (method, path, open) in &routes {
        for (who, api, caller) in &callers {
            let answer = api.call(method, &tried(method, path, *open), &[], Some(&json!({})));
            let expected = caller.expected(method, path, *open);
            assert!(expected.fits(&answer), "{who}: {method} {path}: {expected:?}, got {answer:?}");
        }
    }
    assert_eq!(root.get("/v1/networks").body, before, "what was only tried changed something");
}

#[derive(Debug)]
struct Caller {
    rights: Option<&'static str>,
    net: Option<&'static str>,
}

#[derive(Debug)]
enum Expected {
    /// Status of a request that authorization did not refuse.
    Passes,
    Is(u16),
}

impl Caller {
    /// Rights of callers, stated independently of the program.
    fn expected(&self, method: &str, path: &str, open: bool) -> Expected {
        let about_home = path.starts_with("/v1/networks/{net}");
        let for_all = ["/v1/me", "/v1/logout", "/v1/status", "/v1/watch", "/v1/events", "/v1/audit"]
            .contains(&path)
            || (path == "/v1/networks" && method == "GET");
        match (self.rights, self.net) {
            _ if open => Expected::Passes,
            (None, _) => Expected::Is(401),
            (_, Some(_)) if !about_home && !for_all => Expected::Is(403),
            (Some("read"), _) if method != "GET" && path != "/v1/logout" => Expected::Is(403),
            (_, Some("work")) if about_home => Expected::Is(404),
            _ => Expected::Passes,
        }
    }
}

impl Expected {
    fn fits(&self, answer: &Answer) -> bool {
        match self {
            // Login is open to anyone, and the body has no valid token.
            Self::Passes => ![401, 403].contains(&answer.status) && answer.status < 500,
            Self::Is(404) => answer.status == 404 && answer.body["detail"] == "networks here: work",
            Self::Is(status) => answer.status == *status && answer.is_problem(),
        }
    }
}

#[test]
fn every_route_has_request_and_answers_in_the_openapi_document() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    let routes = described(&api);
    let paths: std::collections::BTreeSet<_> = routes.iter().map(|(_, path, _)| path).collect();
    for path in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let known = routes.iter().find(|(is, at, _)| is == method && at == path);
            let path = known.map_or(filled(path), |(_, _, open)| tried(method, path, *open));
            let (answer, known) = (api.call(method, &path, &[], Some(&json!({}))), known.is_some());
            assert_eq!(answer.status != 405, known, "{method} {path}: described: {known}, {answer:?}");
        }
    }
    let document = api.get("/v1/openapi.json").body;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let (at, answers) = (format!("{method} {path}"), operation["responses"].as_object().unwrap());
            assert!(operation["summary"].is_string(), "{at} says nothing of itself");
            assert!(answers.keys().any(|status| status.starts_with('2')), "{at} says not what it answers");
            let problem = &answers["500"]["content"]["application/problem+json"]["schema"];
            assert_eq!(problem["$ref"], "#/components/schemas/Problem", "{at}");
            let takes = ["put", "patch"].contains(&method.as_str());
            assert!(!takes || operation["requestBody"].is_object(), "{at} says not what it takes");
        }
    }
}

#[test]
fn token_for_one_network_sees_only_that() {
    let coordinator = Coordinator::with_home();
    coordinator.ok(&["network", "create", "club"]);
    let root = Api::of(&coordinator);
    let made = root.post("/v1/tokens", &json!({"name": "w", "rights": "admin", "network": "club"}));
    let club = root.with_token(made.body["token"].as_str().unwrap());
    assert_eq!(names(&club.get("/v1/networks").body, "/name"), ["club"]);
    assert_eq!(names(&club.get("/v1/status").body["networks"], "/network/name"), ["club"]);
    assert_eq!(club.get("/v1/status?network=home").status, 404);
    assert_eq!(club.get("/v1/audit?network=home").status, 404);
    assert_eq!(club.post("/v1/networks/club/codes", &json!({})).status, 201);
    let log = club.get("/v1/audit").body;
    assert_eq!(names(&log, "/action"), ["code.create"]);
    assert_eq!((&log[0]["who"], &log[0]["network"]), (&"w".into(), &"club".into()));
    assert_eq!(club.get("/v1/me").body["network"], "club");
    assert!(!club.get("/v1/networks/home").body.to_string().contains("home,"), "no list of what others have");

    coordinator.ok(&["network", "delete", "club"]);
    assert_eq!(club.get("/v1/me").status, 401, "a network's tokens go with it");
}

fn names(list: &Value, at: &str) -> Vec<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item.pointer(at).unwrap().as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn token_is_shown_once_stored_hashed_and_can_be_revoked() {
    let coordinator = Coordinator::with_home();
    let root = Api::of(&coordinator);
    let spec = json!({"name": "ci", "rights": "read", "expires_in": 3600});
    let made = root.post("/v1/tokens", &spec);
    let text = made.body["token"].as_str().unwrap().to_owned();
    assert!(text.starts_with("gwt_") && text.len() == 47, "{text}");
    let listed = root.get("/v1/tokens").body;
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin.token", "ci"]);
    assert_eq!(listed[1]["valid"], true);
    assert!(listed[0].get("token").is_none() && listed[1].get("token").is_none());
    assert_eq!(root.post("/v1/tokens", &spec).problem(), "name-taken");
    for (wrong, kind) in [
        (json!({"name": "", "rights": "read"}), "bad-name"),
        (json!({"name": "command line", "rights": "read"}), "name-taken"),
        (json!({"name": "local root", "rights": "read"}), "name-taken"),
        (json!({"name": "x", "rights": "read", "network": "nowhere"}), "not-found"),
        (json!({"name": "x", "rights": "read", "expires_in": 0}), "out-of-range"),
        (json!({"name": "x", "rights": "all"}), "bad-request"),
    ] {
        assert_eq!(root.post("/v1/tokens", &wrong).problem(), kind, "{wrong}");
    }

    let reader = root.with_token(&text);
    assert_eq!(reader.get("/v1/networks").status, 200);
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(root.delete(&format!("/v1/tokens/{id}")).status, 200);
    assert_eq!(reader.get("/v1/networks").status, 401);
    assert!(!coordinator.finds(text.as_bytes()), "the token is somewhere in the data or the log");
}

#[test]
fn expired_token_is_refused() {
    let coordinator = Coordinator::start();
    let root = Api::of(&coordinator);
    let made = root.post("/v1/tokens", &json!({"name": "short", "rights": "read", "expires_in": 1}));
    let short = root.with_token(made.body["token"].as_str().unwrap());
    crate::eventually("the token to end", || (short.get("/v1/me").status == 401).then_some(()));
    let listed = root.get("/v1/tokens").body;
    assert_eq!((listed[1]["name"].as_str(), listed[1]["valid"].as_bool()), (Some("short"), Some(false)));
}

#[test]
fn tokens_and_audit_log_work_on_the_command_line() {
    let coordinator = Coordinator::with_home();
    let text = coordinator.ok(&[
        "token",
        "create",
        "ci",
        "--rights",
        "read",
        "--network",
        "home",
        "--expires",
        "1h",
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &text).unwrap();
    let reader = ["--token-file", file.path().to_str().unwrap()];
    assert!(coordinator.ok(&[&["network", "list"], &reader[..]].concat()).contains("home"));
    let said = coordinator.refused(&[&["network", "create", "x"], &reader[..]].concat());
    assert!(said.contains("one network only"), "{said}");
    let said = coordinator.refused(&[&["code", "create", "home"], &reader[..]].concat());
    assert!(said.contains("read-only") && said.contains("“admin”"), "{said}");
    let list = coordinator.ok(&["token", "list"]);
    assert!(list.contains("EXPIRES IN") && list.contains("read    home"), "{list}");
    coordinator.ok(&["token", "revoke", "ci"]);
    let said = coordinator.refused(&[&["network", "list"], &reader[..]].concat());
    assert!(said.contains("token is missing or wrong"), "{said}");
    let log = coordinator.ok(&["audit"]);
    for part in ["token.revoke", "token ci", &local_admin(), "network.create"] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert_eq!(coordinator.json(&["audit", "--last", "2"]).as_array().unwrap().len(), 2);
    assert!(coordinator.refused(&["token", "revoke", "ci"]).contains("token list"));
    assert!(coordinator.ok(&["completions", "bash"]).contains("gatewrt-coordinator"));
}
