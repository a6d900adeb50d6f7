//! Join codes and join requests.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{self, Router, post_join},
};
use gatewrt_protocol::{Assignment, JoinCode, JoinRequest, Policy, Signer, jws};
use ring::digest::{SHA256, digest};

fn ca(coordinator: &Coordinator) -> String {
    text(&coordinator.data().join("ca.crt"))
}

fn states(coordinator: &Coordinator) -> Vec<String> {
    let codes = coordinator.json(&["code", "list", "home"]);
    codes.as_array().unwrap().iter().map(|code| code["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn joining_router_gets_records_and_certificate() {
    let coordinator = Coordinator::with_home();
    let code = coordinator.code(&[]);
    let record_key = code.parse::<JoinCode>().unwrap().record_key;
    let answer = Router::new(1, "office").join(&code, &ca(&coordinator)).unwrap();
    assert_eq!((answer.network.as_str(), answer.name.as_str()), ("home", "office"));
    assert_eq!(answer.brokers, [coordinator.mqtt()]);
    let policy: Policy = jws::open(answer.policy.as_bytes(), &record_key).unwrap();
    let assignment: Assignment = jws::open(answer.assignment.as_bytes(), &record_key).unwrap();
    assert_eq!((policy.net, assignment.node), (answer.net, answer.node));
    assert_eq!(assignment.addresses.len(), 2);
    for (addr, prefix) in assignment.addresses.iter().zip(&policy.prefixes) {
        assert!(prefix.contains(*addr));
    }
    let control: Vec<_> = assignment.control.iter().map(ToString::to_string).collect();
    assert!(control.contains(&coordinator.mqtt()), "{control:?}");
    assert_eq!(answer.ca, ca(&coordinator));
}

#[test]
fn server_chain_contains_the_pinned_ca() {
    let coordinator = Coordinator::with_home();
    let code: JoinCode = coordinator.code(&[]).parse().unwrap();
    for addr in [coordinator.url().replace("https://", ""), coordinator.mqtt()] {
        let shown = router::chain_of(&addr, &ca(&coordinator));
        let digests = shown.iter().map(|certificate| digest(&SHA256, certificate));
        assert!(digests.into_iter().any(|digest| digest.as_ref() == code.ca), "{addr} shows {}", shown.len());
    }
}

#[test]
fn code_used_up_expired_or_revoked_is_refused() {
    let coordinator = Coordinator::with_home();
    let (code, ca) = (coordinator.code(&["--uses", "2"]), ca(&coordinator));
    let refused = |number: u8, code: &str| Router::new(number, "x").join(code, &ca).unwrap_err();
    Router::new(1, "a").join(&code, &ca).unwrap();
    Router::new(2, "b").join(&code, &ca).unwrap();
    let problem = refused(3, &code);
    assert_eq!((problem.kind.as_str(), problem.status), ("code-used", 403));
    assert!(problem.detail.contains("code create"), "{problem:?}");

    let revoked = coordinator.json(&["code", "create", "home"]);
    coordinator.ok(&["code", "revoke", "home", revoked["id"].as_str().unwrap()]);
    assert_eq!(refused(3, revoked["code"].as_str().unwrap()).kind, "code-revoked");

    let short = coordinator.code(&["--expires", "1s"]);
    eventually("the code to expire", || states(&coordinator).contains(&"expired".to_owned()).then_some(()));
    assert_eq!(refused(3, &short).kind, "code-expired");

    let mut foreign: JoinCode = coordinator.code(&[]).parse().unwrap();
    foreign.secret = [7; 16];
    assert_eq!(refused(3, &foreign.to_string()).kind, "code-unknown");
    let mut states = states(&coordinator);
    states.sort();
    assert_eq!(states, ["expired", "revoked", "usable", "used"]);
    assert_eq!(coordinator.json(&["node", "list", "home"]).as_array().unwrap().len(), 2);
}

#[test]
fn repeated_join_is_idempotent() {
    let mut coordinator = Coordinator::with_home();
    let (code, ca) = (coordinator.code(&[]), ca(&coordinator));
    let router = Router::new(1, "office");
    let first = router.join(&code, &ca).unwrap();
    coordinator.kill();
    coordinator.start_again();
    let second = router.join(&code, &ca).unwrap();
    assert_eq!((first.node, first.assignment, first.policy), (second.node, second.assignment, second.policy));
    assert_eq!(coordinator.json(&["code", "list", "home"])[0]["used"], 1);

    let mut other = Router::new(2, "thief");
    other.request.key = router.request.key;
    assert_eq!(
        other.join(&code, &ca).unwrap_err().kind,
        "code-used",
        "the same WireGuard key is not the same router"
    );
}

#[test]
fn key_of_any_node_is_never_accepted_again() {
    let coordinator = Coordinator::with_home();
    let (code, ca) = (coordinator.code(&["--uses", "9"]), ca(&coordinator));
    let router = Router::new(1, "office");
    router.join(&code, &ca).unwrap();
    let other_code = coordinator.code(&[]);
    assert_eq!(router.join(&other_code, &ca).unwrap_err().kind, "key-known");
    coordinator.ok(&["node", "remove", "home", "office"]);
    let problem = router.join(&code, &ca).unwrap_err();
    assert_eq!(problem.kind, "key-known");
    assert!(
        problem.title.contains("removed node office") && problem.detail.contains("gatewrt leave"),
        "{problem:?}"
    );
}

#[test]
fn join_request_signed_with_another_key_is_refused() {
    let coordinator = Coordinator::with_home();
    let (code, ca) = (coordinator.code(&[]), ca(&coordinator));
    let code: JoinCode = code.parse().unwrap();
    let router = Router::new(1, "office");
    let request = JoinRequest { secret: code.secret_text(), ..router.request.clone() };
    let forged = Signer::from_seed(&[9; 32]).sign(&request).unwrap();
    let sound = router.signer().sign(&request).unwrap();
    let altered = format!("{}A{}", &sound[..200], &sound[201..]);
    for body in [forged.as_str(), &altered, "", "x.y.z", "{}", &"x".repeat(60_000)] {
        let problem = post_join(&code, &ca, body).unwrap_err();
        assert_eq!((problem.kind.as_str(), problem.status), ("bad-request", 400), "{problem:?}");
    }
    assert_eq!(coordinator.json(&["node", "list", "home"]).as_array().unwrap().len(), 0);
    post_join(&code, &ca, &sound).unwrap();
}
