//! Several admins at once: no change is overwritten unseen, each is in the audit log, lists come in parts.

use super::{client::Api, names};
use crate::{
    coordinator::{Coordinator, local_admin, text},
    eventually,
    router::Router,
};
use gatewrt_protocol::JoinCode;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

#[test]
fn change_with_stale_etag_is_refused() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    Router::new(1, "office").join(&coordinator.code(&[]), &text(&coordinator.data().join("ca.crt"))).unwrap();
    let seen = api.get("/v1/networks/home/nodes/office");
    let tag = seen.header("etag").to_owned();
    let rename = |to: &str, from: &str, tag: &str| {
        let spec = json!({"name": to});
        api.call("PATCH", &format!("/v1/networks/home/nodes/{from}"), &[("if-match", tag)], Some(&spec))
    };
    let first = rename("cabin", "office", &tag);
    assert_eq!(first.status, 200);
    let node = seen.body["id"].as_str().unwrap();
    let second = rename("hut", node, &tag);
    assert_eq!((second.status, second.problem()), (412, "changed-meanwhile"));
    assert!(second.body["detail"].as_str().unwrap().contains("read it again"));
    assert_eq!(rename("hut", node, first.header("etag")).status, 200, "the answer's tag is the next one's");
    assert_eq!(rename("office", node, "*").status, 200);
    let tag = api.get("/v1/networks/home/nodes/office").header("etag").to_owned();
    let gone = api.call("DELETE", "/v1/networks/home/nodes/office", &[("if-match", "\"x\"")], None);
    assert_eq!(gone.status, 412);
    let gone = api.call("DELETE", "/v1/networks/home/nodes/office", &[("if-match", &tag)], None);
    assert_eq!(gone.status, 200);
}

#[test]
fn report_does_not_change_the_etag() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    let (code, router) = (coordinator.code(&[]), Router::new(1, "office"));
    let answer = router.join(&code, &text(&coordinator.data().join("ca.crt"))).unwrap();
    let path = "/v1/networks/home/nodes/office";
    let before = api.get(path);
    let link = router.connect(&answer, code.parse::<JoinCode>().unwrap().record_key);
    link.report(&router.report(&answer, 1));
    let after = eventually("the report", || {
        let after = api.call("GET", path, &[("if-none-match", before.header("etag"))], None);
        assert_eq!(after.status, 200, "live parts are always sent");
        after.body["report"].is_object().then_some(after)
    });
    assert_ne!(before.body, after.body);
    assert_eq!(before.header("etag"), after.header("etag"));
    assert_eq!(after.header("cache-control"), "no-store");
}

#[test]
fn scope_change_with_stale_etag_is_refused() {
    let coordinator = Coordinator::with_home();
    let (api, ca) = (Api::of(&coordinator), text(&coordinator.data().join("ca.crt")));
    let code = coordinator.code(&["--uses", "2"]);
    let (office, cabin) = (Router::new(1, "office"), Router::new(2, "cabin"));
    let answers = [&office, &cabin].map(|router| router.join(&code, &ca).unwrap());
    let record_key = code.parse::<JoinCode>().unwrap().record_key;
    let (node, scope) = ("/v1/networks/home/nodes/cabin", "/v1/networks/home/nodes/cabin/scopes/tv");
    let put = |headers: &[(&str, &str)], spec: Value| api.call("PUT", scope, headers, Some(&spec));
    let tried = api.call("PUT", "/v1/networks/home/nodes/office/exit?dry_run=true", &[], Some(&json!({})));
    assert_eq!((tried.status, &tried.body["exit"]["enabled"]), (200, &json!(true)));
    assert_eq!(
        put(&[], json!({"of": ["all"], "exits": ["office"]})).problem(),
        "not-an-exit",
        "it was only tried"
    );
    let exit = api.call("PUT", "/v1/networks/home/nodes/office/exit", &[], Some(&json!({})));
    assert_eq!(exit.status, 200);

    let first = put(&[], json!({"of": ["all"], "exits": ["office"]}));
    assert_eq!(first.status, 200);
    let (tag, node_tag) = (first.header("etag").to_owned(), api.get(node).header("etag").to_owned());
    assert_eq!(api.get(scope).header("etag"), tag);
    let link = cabin.connect(&answers[1], record_key);
    let mut report = cabin.report(&answers[1], 1);
    report.scopes = vec![gatewrt_protocol::ScopeReport {
        name: "tv".parse().unwrap(),
        state: gatewrt_protocol::ScopeState::Exit,
        exit: Some(answers[0].node),
        rtt_ms: Some(9),
        why: String::new(),
    }];
    link.report(&report);
    let exits = "/v1/networks/home/exits";
    eventually("the report", || (api.get(exits).body[1]["used_by"][0]["now"] == true).then_some(()));
    assert_eq!(api.get(scope).body["live"]["exit"], "office");
    assert_eq!(api.get(scope).header("etag"), tag, "what becomes of it is no one's change");
    assert_eq!(api.get(node).header("etag"), node_tag);

    assert_eq!(put(&[("if-match", &tag)], json!({"of": ["router"]})).status, 200);
    let second = put(&[("if-match", &tag)], json!({"of": ["router"], "kill_switch": false}));
    assert_eq!(second.problem(), "changed-meanwhile");
    assert_eq!(api.call("DELETE", scope, &[("if-match", &tag)], None).status, 412);
    assert_eq!(api.get(scope).body["kill_switch"], true);
    assert_eq!(api.delete(scope).status, 200);
    assert_eq!(api.get(scope).problem(), "not-found");
    let log = names(&api.get("/v1/audit?limit=4").body, "/action");
    assert_eq!(log, ["scope.unset", "scope.set", "scope.set", "exit.set"], "only what was done");
}

#[test]
fn resource_with_known_etag_is_not_sent_again() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    for path in ["/v1/networks", "/v1/networks/home/egress"] {
        let tag = api.get(path).header("etag").to_owned();
        let again = api.call("GET", path, &[("if-none-match", &tag)], None);
        assert_eq!((again.status, &again.body), (304, &Value::Null), "{path}");
    }
    let tag = api.get("/v1/networks").header("etag").to_owned();
    coordinator.ok(&["network", "create", "work"]);
    assert_eq!(api.call("GET", "/v1/networks", &[("if-none-match", &tag)], None).status, 200);
}

#[test]
fn dry_run_answers_like_the_change_and_changes_nothing() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    let tried = api.post("/v1/networks?dry_run=true", &json!({"name": "work", "prefix4": "10.9.0.0/16"}));
    assert_eq!((tried.status, tried.body["prefix4"].as_str()), (200, Some("10.9.0.0/16")));
    assert_eq!(api.post("/v1/networks?dry_run=true", &json!({"name": "home"})).problem(), "name-taken");
    assert_eq!(api.delete("/v1/networks/home?dry_run=true&force=true").status, 200);
    assert_eq!(names(&api.get("/v1/networks").body, "/name"), ["home"]);
    assert_eq!(names(&api.get("/v1/audit").body, "/action"), ["network.create"], "only what was done");
}

#[test]
fn audit_log_has_author_action_and_source() {
    let coordinator = Coordinator::with_home();
    let api = Api::of(&coordinator);
    let made = api.post("/v1/tokens", &json!({"name": "ci", "rights": "admin"}));
    let ci = api.with_token(made.body["token"].as_str().unwrap());
    let code = coordinator.code(&[]);
    Router::new(1, "office").join(&code, &text(&coordinator.data().join("ca.crt"))).unwrap();
    ci.call("PATCH", "/v1/networks/home/nodes/office", &[], Some(&json!({"name": "cabin"})));
    ci.call("PATCH", "/v1/networks/home/nodes/cabin", &[], Some(&json!({"name": "cabin"})));
    ci.call("PATCH", "/v1/networks/home/nodes/nothing", &[], Some(&json!({"name": "x"})));
    let log = api.get("/v1/audit").body;
    let line = |at: usize| {
        let entry = &log[at];
        ["who", "action", "target", "network"].map(|field| entry[field].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(
        line(0),
        ["ci", "node.change", "node office", "home"],
        "what changed nothing or was refused is no entry"
    );
    assert_eq!(log[0]["detail"], "{\"name\":\"cabin\"}");
    let [who, action, target, network] = line(1);
    assert!(who.starts_with("join code "), "{who}");
    assert_eq!([action, target, network], ["node.join", "node office", "home"]);
    assert_eq!(line(2), [&*local_admin(), "code.create", "a join code", "home"]);
    assert_eq!(line(3), ["admin.token", "token.create", "token ci", "-"]);
    assert_eq!(line(4), [&*local_admin(), "network.create", "network home", "-"]);
    assert!(log[0]["from"].as_str().unwrap().starts_with("127."));
    let secret = code.rsplit('.').next().unwrap();
    assert!(!log.to_string().contains(secret) && !log.to_string().contains("gwt_"), "{log}");
}

#[test]
fn list_in_parts_is_linked() {
    let coordinator = Coordinator::start();
    let api = Api::of(&coordinator);
    let wanted: Vec<_> = (0..7).map(|number| format!("net{number}")).collect();
    for name in &wanted {
        assert_eq!(api.post("/v1/networks", &json!({"name": name})).status, 201);
    }
    for (path, at, mut wanted) in [
        ("/v1/networks?limit=3", "/name", wanted.clone()),
        ("/v1/audit?limit=2", "/target", wanted.iter().rev().map(|name| format!("network {name}")).collect()),
    ] {
        let (mut next, mut found) = (Some(path.to_owned()), Vec::new());
        while let Some(path) = next {
            let part = api.get(&path);
            found.extend(names(&part.body, at));
            next = part.header("link").split(['<', '>']).nth(1).map(str::to_owned);
            assert!(found.len() <= wanted.len(), "{path}");
        }
        assert_eq!(found, wanted);
        wanted.clear();
    }
    assert_eq!(api.get("/v1/networks?limit=0").problem(), "out-of-range");
    assert_eq!(api.get("/v1/networks?limit=x").problem(), "bad-request");
    assert_eq!(api.get("/v1/audit?after=x").problem(), "bad-request");
    assert_eq!(coordinator.json(&["network", "list"]).as_array().unwrap().len(), 7);
}

#[test]
fn events_follow_changes_within_the_rights_of_the_reader() {
    let coordinator = Coordinator::with_home();
    coordinator.ok(&["network", "create", "work"]);
    let api = Api::of(&coordinator);
    let made = api.post("/v1/tokens", &json!({"name": "w", "rights": "read", "network": "work"}));
    let work = api.with_token(made.body["token"].as_str().unwrap());
    let (all, only_work) = (events(&api), events(&work));
    let states = |events: &Events| {
        let events = events.lock().unwrap();
        let states = events.iter().filter(|(name, _)| name == "status");
        states.map(|(_, data)| data["network"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("both states", || {
        (states(&all) == ["home", "work"] || states(&all) == ["work", "home"]).then_some(())
    });
    eventually("its state", || (states(&only_work) == ["work"]).then_some(()));
    let router = Router::new(1, "office");
    let code = coordinator.code(&[]);
    let answer = router.join(&code, &text(&coordinator.data().join("ca.crt"))).unwrap();
    let _link = router.connect(&answer, code.parse::<JoinCode>().unwrap().record_key);
    let online = |(name, data): &(String, Value)| name == "status" && data["nodes"][0]["online"] == true;
    eventually("the node online", || all.lock().unwrap().iter().any(online).then_some(()));
    let change = |(name, data): &(String, Value)| name == "change" && data["what"] == "connected";
    assert!(all.lock().unwrap().iter().any(change));
    coordinator.ok(&["network", "delete", "home", "--force"]);
    eventually("the end of home", || {
        all.lock().unwrap().iter().any(|(name, data)| name == "gone" && data == "home").then_some(())
    });
    assert!(!format!("{:?}", only_work.lock().unwrap()).contains("home"), "it is no one else's matter");
    let mut watch = work.agent.get(format!("{}/v1/watch", work.url));
    watch = watch.header("authorization", format!("Bearer {}", work.token));
    let watch = watch.call().unwrap();
    api.delete("/v1/tokens/w");
    assert_eq!(watch.into_body().read_to_string().unwrap(), "", "a watch ends with its token");
    eventually("the end of the stream", || {
        only_work.lock().unwrap().iter().any(|(name, _)| name == "end").then_some(())
    });
}

type Events = std::sync::Arc<std::sync::Mutex<Vec<(String, Value)>>>;

/// Events of `/v1/events`, and `end` when it ends.
fn events(api: &Api) -> Events {
    let (events, api) = (Events::default(), api.clone());
    let shared = events.clone();
    std::thread::spawn(move || {
        let request = api.agent.get(format!("{}/v1/events", api.url));
        let request = request.header("authorization", format!("Bearer {}", api.token));
        let answer = request.config().timeout_global(None).build().call().unwrap();
        let mut name = String::new();
        for line in BufReader::new(answer.into_body().into_reader()).lines().map_while(Result::ok) {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(data).unwrap_or_else(|_| data.into());
                shared.lock().unwrap().push((name.clone(), data));
            }
        }
        shared.lock().unwrap().push(("end".into(), Value::Null));
    });
    events
}
