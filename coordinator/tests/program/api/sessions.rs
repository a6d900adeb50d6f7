//! Sessions of the page, and the rate limit of logins.

use super::client::Api;
use crate::coordinator::Coordinator;
use serde_json::json;

#[test]
fn session_allows_changes_from_our_own_page_only() {
    let coordinator = Coordinator::with_home();
    let root = Api::of(&coordinator);
    let open = root.with_token("");
    assert_eq!(open.post("/v1/login", &json!({"token": "wrong"})).status, 401);
    let login = open.post("/v1/login", &json!({"token": root.token}));
    assert_eq!(login.status, 200);
    let set = login.header("set-cookie").to_owned();
    for part in ["__Host-gatewrt=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age="] {
        assert!(set.contains(part), "{part} in {set}");
    }
    let cookie = set.split(';').next().unwrap();
    let csrf = login.body["csrf"].as_str().unwrap();
    let me = open.call("GET", "/v1/me", &[("cookie", cookie)], None);
    assert_eq!((me.body["name"].as_str(), me.body["csrf"].as_str()), (Some("admin.token"), Some(csrf)));

    let spec = json!({"name": "work"});
    let change = |headers: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie)], headers].concat();
        open.call("POST", "/v1/networks", &headers, Some(&spec))
    };
    let origin = coordinator.url();
    let own = [("x-csrf-token", csrf), ("origin", &origin)];
    for headers in [
        &[][..],
        &[("x-csrf-token", csrf)],
        &[("origin", &origin)],
        &[("x-csrf-token", "x"), ("origin", &origin)],
        &[("x-csrf-token", csrf), ("origin", "https://evil.example")],
        &[("x-csrf-token", csrf), ("sec-fetch-site", "cross-site"), ("origin", &origin)],
    ] {
        assert_eq!(change(headers).problem(), "not-own-page", "{headers:?}");
    }
    assert_eq!(change(&own).status, 201);
    let evil = [("sec-fetch-site", "cross-site")];
    let login = open.call("POST", "/v1/login", &evil, Some(&json!({"token": root.token})));
    assert_eq!(login.status, 403, "no other site logs a browser in");

    let tried =
        open.call("POST", "/v1/logout?dry_run=true", &[&[("cookie", cookie)], &own[..]].concat(), None);
    assert_eq!((tried.status, tried.header("set-cookie")), (204, ""));
    assert_eq!(open.call("GET", "/v1/me", &[("cookie", cookie)], None).status, 200, "it was only tried");
    let out = open.call("POST", "/v1/logout", &[&[("cookie", cookie)], &own[..]].concat(), None);
    assert_eq!((out.status, out.header("set-cookie").contains("Max-Age=0")), (204, true));
    assert_eq!(open.call("GET", "/v1/me", &[("cookie", cookie)], None).status, 401);
}

#[test]
fn session_has_the_rights_of_its_token() {
    let coordinator = Coordinator::with_home();
    let root = Api::of(&coordinator);
    let made = root.post("/v1/tokens", &json!({"name": "look", "rights": "read"}));
    let login = root.with_token("").post("/v1/login", &json!({"token": made.body["token"]}));
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
    let csrf = login.body["csrf"].as_str().unwrap();
    let headers = [("cookie", cookie.as_str()), ("x-csrf-token", csrf), ("sec-fetch-site", "same-origin")];
    let open = root.with_token("");
    assert_eq!(open.call("GET", "/v1/networks", &headers, None).status, 200);
    let change = open.call("POST", "/v1/networks", &headers, Some(&json!({"name": "x"})));
    assert_eq!(change.problem(), "forbidden");
    root.delete("/v1/tokens/look");
    assert_eq!(open.call("GET", "/v1/networks", &headers, None).status, 401);
}

#[test]
fn source_over_the_login_rate_waits_and_others_do_not() {
    let coordinator = Coordinator::with_home();
    let root = Api::of(&coordinator);
    let open = root.with_token("");
    let tries = (0..100).map(|_| open.post("/v1/login", &json!({"token": "wrong"})));
    let stopped = tries.into_iter().find(|answer| answer.status != 401).expect("there is a limit");
    assert_eq!((stopped.status, stopped.problem()), (429, "rate-limited"));
    let wait: u64 = stopped.header("retry-after").parse().unwrap();
    assert!((1..=7).contains(&wait), "{wait}");
    assert_eq!(open.post("/v1/login", &json!({"token": root.token})).status, 429, "the right one waits too");
    assert_eq!(root.get("/v1/networks").status, 200, "who has a token does not log in");
    assert_eq!(open.post("/v1/join", &json!({})).status, 400, "joins have a limit of their own");
}
