//! Requests to every path of the served document, with unexpected values.

use super::client::Api;
use crate::{
    coordinator::{Coordinator, text},
    router::Router,
};
use serde_json::{Value, json};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/api/schemathesis");

#[test]
fn any_request_is_never_a_server_error() {
    let (coordinator, api, names) = world();
    let output = Command::new(SCRIPT)
        .arg(coordinator.url())
        .args(["ca.crt", "admin.token"].map(|file| coordinator.data().join(file)))
        .args(names.iter().map(|(name, value)| format!("{name}={value}")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", errors(&coordinator));
    assert_eq!(errors(&coordinator), "", "the log has errors");
    assert_eq!(api.get("/v1/health").status, 200);
}

/// Coordinator with one of each object. Returns their ids too, as names may change meanwhile.
pub fn world() -> (Coordinator, Api, Vec<(&'static str, String)>) {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    Router::new(1, "office").join(&coordinator.code(&[]), &text(&coordinator.data().join("ca.crt"))).unwrap();
    Router::new(2, "cabin").join(&coordinator.code(&[]), &text(&coordinator.data().join("ca.crt"))).unwrap();
    let id = |answer: super::Answer, at: &str| {
        assert!(answer.status < 300, "{answer:?}");
        answer.body.pointer(at).map(|id| id.as_str().map_or(id.to_string(), str::to_owned)).unwrap()
    };
    let home = |path: &str| format!("/v1/networks/home/{path}");
    let put = |path: &str, body: &Value| api.call("PUT", &home(path), &[], Some(body));
    put("nodes/office/ingress", &json!({"endpoint": "203.0.113.1:51820"}));
    put("nodes/cabin/exit", &json!({}));
    let scope = json!({"of": ["all"], "exits": ["cabin"], "auto": true});
    let scope = put("nodes/office/scopes/everything", &scope);
    put("groups/all-of-it", &json!({"members": ["all"]}));
    let client = api.post(&home("clients"), &json!({"name": "phone", "gateways": ["office"]}));
    let rule = json!({"verdict": "allow", "from": ["client:phone"], "to": ["all"]});
    let ids = vec![
        ("net", id(api.get("/v1/networks/home"), "/id")),
        ("node", id(api.get(&home("nodes/office")), "/id")),
        ("code", id(api.post(&home("codes"), &json!({})), "/id")),
        ("client", id(client, "/client/id")),
        ("rule", id(api.post(&home("rules"), &rule), "/id")),
        ("group", "all-of-it".into()),
        ("scope", id(scope, "/name")),
        ("id", id(api.post("/v1/tokens", &json!({"name": "t", "rights": "read"})), "/id")),
    ];
    (coordinator, api, ids)
}

fn errors(coordinator: &Coordinator) -> String {
    let log = coordinator.log();
    let bad = log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked"));
    bad.take(20).collect::<Vec<_>>().join("\n")
}
