//! Commands of an admin, on the same machine and from another.

use crate::{
    coordinator::{Coordinator, run, text},
    router::Router,
};

#[test]
fn network_is_created_listed_shown_and_deleted() {
    let coordinator = Coordinator::start();
    assert!(
        coordinator
            .ok(&["network", "create", "home", "--prefix4", "10.9.0.0/16", "--mtu", "1400"])
            .contains("10.9.0.0/16")
    );
    coordinator.ok(&["network", "create", "work"]);
    let names: Vec<_> = coordinator
        .json(&["network", "list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["name"].clone())
        .collect();
    assert_eq!(names, ["home", "work"]);
    let home = coordinator.json(&["network", "show", "home"]);
    assert_eq!((&home["prefix4"], &home["mtu"]), (&"10.9.0.0/16".into(), &1400.into()));
    assert_eq!(coordinator.json(&["network", "show", home["id"].as_str().unwrap()]), home);
    coordinator.ok(&["network", "delete", "work"]);
    assert!(coordinator.refused(&["network", "show", "work"]).contains("networks here: home"));
}

#[test]
fn refused_command_prints_reason_and_advice() {
    let coordinator = Coordinator::with_home();
    let prefix = coordinator.json(&["network", "show", "home"])["prefix4"].as_str().unwrap().to_owned();
    for (args, parts) in [
        (&["network", "create", "home"][..], &["home", "exists already", "another name"][..]),
        (
            &["network", "create", "other", "--prefix4", &prefix],
            &["overlaps", "network other", "network home"],
        ),
        (&["network", "create", "other", "--prefix4", "127.0.0.0/8"], &["127.0.0.0/8", "not for hosts"]),
        (&["network", "create", "other", "--mtu", "9000"], &["9000", "1280 to 1420"]),
        (&["network", "show", "nowhere"], &["nowhere", "home"]),
        (&["node", "show", "home", "x"], &["no node “x”", "no router has joined"]),
        (&["code", "revoke", "home", "x"], &["no join code x", "code list"]),
        (&["code", "create", "home", "--uses", "0"], &["uses 0", "1 to"]),
        (&["network", "show", "../home"], &["../home"]),
    ] {
        let said = coordinator.refused(args);
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

#[test]
fn exit_code_distinguishes_usage_from_unreachable_coordinator() {
    let mut coordinator = Coordinator::with_home();
    assert_eq!(coordinator.command(&["network", "create", "Not_A_Name"]).status.code(), Some(2));
    assert_eq!(coordinator.command(&["nonsense"]).status.code(), Some(2));
    coordinator.terminate();
    let gone = coordinator.command(&["status"]);
    assert_eq!(gone.status.code(), Some(3));
    let said = String::from_utf8(gone.stderr).unwrap();
    assert!(said.contains(&coordinator.url()) && said.contains("is it running"), "{said}");
    let nowhere = run(&["status"], &["--data", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("--data DIR"));
}

#[test]
fn command_from_another_machine_needs_url_ca_and_token() {
    let coordinator = Coordinator::with_home();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = |name: &str| elsewhere.path().join(name).to_str().unwrap().to_owned();
    for name in ["ca.crt", "admin.token"] {
        std::fs::copy(coordinator.data().join(name), file(name)).unwrap();
    }
    let (url, ca, token) = (coordinator.url(), file("ca.crt"), file("admin.token"));
    let remote = ["--data", "/nonexistent", "--url", &url, "--ca-file", &ca, "--token-file", &token];
    assert!(run(&["network", "list"], &remote).status.success());

    std::fs::write(file("admin.token"), "x".repeat(43)).unwrap();
    let wrong = run(&["network", "list"], &remote);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("admin token is missing or wrong"));

    let other = Coordinator::start();
    std::fs::copy(other.data().join("ca.crt"), file("ca.crt")).unwrap();
    assert_eq!(run(&["network", "list"], &remote).status.code(), Some(3), "another CA is not trusted");
}

#[test]
fn request_without_token_gets_only_health_and_join() {
    let coordinator = Coordinator::with_home();
    let ca = ureq::tls::Certificate::from_pem(text(&coordinator.data().join("ca.crt")).as_bytes()).unwrap();
    let tls = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]));
    let agent: ureq::Agent =
        ureq::Agent::config_builder().tls_config(tls.build()).http_status_as_error(false).build().into();
    let get = |path: &str, token: &str| {
        let answer =
            agent.get(format!("{}{path}", coordinator.url())).header("Authorization", token).call().unwrap();
        let kind = answer.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind)
    };
    let problem = "application/problem+json".to_owned();
    assert_eq!(get("/v1/health", "").0, 200);
    let token = text(&coordinator.data().join("admin.token")).trim().to_owned();
    for path in ["/v1/networks", "/v1/networks/home", "/v1/networks/home/nodes", "/v1/status", "/v1/watch"] {
        for wrong in [
            String::new(),
            token.clone(),
            format!("Bearer {}", &token[1..]),
            format!("Bearer {token}x"),
            "Bearer ".into(),
        ] {
            assert_eq!(get(path, &wrong), (401, problem.clone()), "{path} with “{wrong}”");
        }
    }
    assert_eq!(get("/v1/networks", &format!("Bearer {token}")).0, 200);
    assert_eq!(get("/v1/nothing", ""), (404, problem.clone()));
    assert_eq!(get("/v1/join", ""), (405, problem.clone()));
    let big = agent
        .post(format!("{}/v1/networks", coordinator.url()))
        .header("Authorization", format!("Bearer {token}"));
    assert_eq!(big.send(vec![b' '; 70_000]).unwrap().status().as_u16(), 413);
}

#[test]
fn egress_commands_set_change_list_and_unset() {
    let coordinator = Coordinator::with_home();
    let code = coordinator.code(&["--uses", "2"]);
    let ca = text(&coordinator.data().join("ca.crt"));
    for (number, name) in [(1, "office"), (2, "cabin")] {
        Router::new(number, name).join(&code, &ca).unwrap();
    }
    let set = |node: &str, prefix: &str, nat: &str| {
        ["egress", "set", "home", node, prefix, "--nat", nat].map(str::to_owned)
    };
    let ok = |args: [String; 7]| coordinator.ok(&args.each_ref().map(String::as_str));
    let refused = |args: [String; 7]| coordinator.refused(&args.each_ref().map(String::as_str));
    assert!(ok(set("office", "192.168.1.0/24", "off")).contains("NAT off"));
    ok(set("office", "192.168.1.0/24", "on"));
    ok(set("cabin", "fd00:2::/64", "off"));
    let list = coordinator.json(&["egress", "list", "home"]);
    assert_eq!(
        (&list[0]["node"], &list[0]["nat"], &list[1]["nat"]),
        (&"office".into(), &true.into(), &false.into())
    );

    let network = coordinator.json(&["network", "show", "home"])["prefix4"].as_str().unwrap().to_owned();
    let control = "127.0.0.0/8";
    for (prefix, parts) in [
        ("192.168.0.0/16", &["cabin", "192.168.1.0/24", "served by node office of network home"][..]),
        (&network, &["cabin", "the addresses of network home"]),
        ("0.0.0.0/0", &["default route", "exit"]),
        ("::/0", &["default route", "exit"]),
        (control, &["can't be used here"]),
    ] {
        let said = refused(set("cabin", prefix, "on"));
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    // What a router says of itself warns only.
    let warned = coordinator.command(&["egress", "set", "home", "cabin", "203.0.113.0/24"]);
    assert!(warned.status.success(), "{warned:?}");
    let said = String::from_utf8(warned.stderr).unwrap();
    let claim =
        "203.0.113.0/24 served by cabin holds 203.0.113.1:51820, where office says that it is reached";
    assert!(said.contains(&format!("warning: {claim}")), "{said}");
    assert!(coordinator.ok(&["status", "home"]).contains(claim));
    coordinator.ok(&["egress", "unset", "home", "cabin", "203.0.113.0/24"]);
    let warned = coordinator.command(&["network", "create", "wide", "--prefix4", "203.0.112.0/23"]);
    assert!(warned.status.success(), "{warned:?}");
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(
        said.contains("203.0.113.2:51820, where cabin of network home says that it is reached"),
        "{said}"
    );
    let made = coordinator.json(&["network", "show", "wide"]);
    assert_eq!((&made["prefix4"], &made["warnings"]), (&"203.0.112.0/23".into(), &serde_json::Value::Null));
    coordinator.ok(&["network", "delete", "wide"]);
    let said = coordinator.refused(&["network", "create", "other", "--prefix4", "192.168.0.0/16"]);
    assert!(said.contains("network other") && said.contains("node office"), "{said}");

    let warned = coordinator.command(&["egress", "set", "home", "cabin", "192.168.1.128/25"]);
    assert_eq!(warned.status.code(), Some(1));
    coordinator.ok(&["egress", "unset", "home", "office", "192.168.1.0/24"]);
    let warned = coordinator.command(&["egress", "set", "home", "cabin", "192.168.1.0/24"]);
    assert!(warned.status.success());
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(said.contains("192.168.1.0/24 on br-lan of office"), "the other site has that LAN: {said}");
    assert!(
        coordinator
            .refused(&["egress", "unset", "home", "office", "192.168.1.0/24"])
            .contains("serves no prefix")
    );
}

#[test]
fn code_with_roles_limits_joining_nodes() {
    let coordinator = Coordinator::with_home();
    let code = coordinator.code(&["--roles", "exit"]);
    Router::new(1, "office").join(&code, &text(&coordinator.data().join("ca.crt"))).unwrap();
    let said = coordinator.refused(&["egress", "set", "home", "office", "192.168.1.0/24"]);
    assert!(said.contains("may not be an") && said.contains("--roles"), "{said}");
}

#[test]
fn renamed_node_keeps_names_unique() {
    let coordinator = Coordinator::with_home();
    let (code, ca) = (coordinator.code(&["--uses", "3"]), text(&coordinator.data().join("ca.crt")));
    let names: Vec<_> = (1..=3)
        .map(|number| Router::new(number, "openwrt").join(&code, &ca).unwrap().name.to_string())
        .collect();
    assert_eq!(names, ["openwrt", "openwrt-2", "openwrt-3"]);
    coordinator.ok(&["node", "rename", "home", "openwrt-2", "cabin"]);
    assert!(
        coordinator.refused(&["node", "rename", "home", "openwrt-3", "cabin"]).contains("exists already")
    );
    assert_eq!(coordinator.node("cabin")["rev"], 2);
}
