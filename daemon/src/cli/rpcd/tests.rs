use super::*;
use crate::control::Request;
use proptest::prelude::*;

fn named(name: &str) -> &'static Method {
    METHODS.iter().find(|method| method.name == name).expect(name)
}

/// Request that a method makes with these arguments.
fn asks(method: &str, arguments: &[u8]) -> Result<Request, CliError> {
    let asked = asked(named(method), "/nowhere", &mut &*arguments)?;
    assert!(asked.json, "rpcd throws away what is no JSON");
    request(&asked.command).map_err(misuse)
}

fn as_on_the_command_line(line: &str) -> Request {
    let asked = super::super::parse(line.split_whitespace().map(Into::into).collect()).expect(line);
    request(&asked.command).expect(line)
}

/// Answer to a call without a daemon.
fn answer(method: &str, arguments: &[u8]) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    std::fs::write(&file, format!("config gatewrt 'main'\n\toption run_dir '{}'\n", dir.path().display()))
        .unwrap();
    let text = call(method, file.to_str().unwrap(), &mut &*arguments).unwrap_or_else(|error| failure(&error));
    serde_json::from_str(&text).expect(&text)
}

#[test]
fn method_makes_the_request_of_its_command() {
    for (method, arguments, line) in [
        ("status", "{}", "status"),
        ("status", "", "status"),
        ("peers", r#"{"network":"home"}"#, "peers home"),
        ("clients", r#"{"network":null}"#, "clients"),
        ("exit_list", "{ }", "exit list"),
        ("leave", r#"{"network":"home"}"#, "leave home"),
        ("exit_disable", "{}", "exit disable"),
        ("exit_disable", r#"{"scope":"guests","network":"home"}"#, "exit disable guests --network home"),
        ("exit_forget", r#"{"network":"home"}"#, "exit forget --network home"),
        (
            "exit_enable",
            r#"{"exits":["berlin","oslo","auto"],"network":"home","scope":["dev:br-guest","192.168.7.0/24"],
                "as":"guests","no_kill_switch":true,"forbid_lan":true,"ipv6":"wan","exclude":["203.0.113.0/24"],
                "dns":["9.9.9.9"],"keep_dns":true,"ubus_rpc_session":"0123456789abcdef"}"#,
            "exit enable berlin oslo auto --network home --scope dev:br-guest --scope 192.168.7.0/24 --as guests \
             --no-kill-switch --forbid-lan --ipv6 wan --exclude 203.0.113.0/24 --dns 9.9.9.9 --keep-dns",
        ),
        ("exit_enable", r#"{"exits":["auto"],"no_kill_switch":false,"scope":[]}"#, "exit enable auto"),
    ] {
        let asked = asks(method, arguments.as_bytes()).expect(arguments);
        assert_eq!(
            format!("{asked:?}"),
            format!("{:?}", as_on_the_command_line(line)),
            "{method} {arguments}"
        );
    }
}

#[test]
fn unusable_argument_is_refused_by_name() {
    for (method, arguments, said) in [
        ("status", r#"{"network":"home"}"#, "“network” is no argument of this method"),
        ("peers", r#"{"netwrok":"home"}"#, "“netwrok” is no argument"),
        ("peers", r#"{"network":["home"]}"#, "“network”: invalid type: sequence, expected a string"),
        (
            "peers",
            r#"{"network":5}"#,
            "“network”: invalid type: integer `5`, expected a string at line 1 column 12",
        ),
        ("peers", r#"{"network":{"a":1}}"#, "expected a string"),
        ("peers", "[]", "can't be used"),
        ("peers", r#"{"network":"ho"#, "can't be used"),
        ("peers", "{} {}", "can't be used"),
        ("peers", "5", "expected an object"),
        ("leave", "{}", "needs a network"),
        ("leave", r#"{"network":"--teardown"}"#, "“--teardown” can't be a name"),
        ("leave", r#"{"network":"no such name"}"#, "name"),
        ("join", "{}", "needs a join code"),
        ("join", r#"{"code":"gw1.x"}"#, "code"),
        ("join", r#"{"code":"-"}"#, "code"),
        ("join", r#"{"code":true}"#, "“code”: invalid type: boolean `true`, expected a string"),
        ("exit_enable", "{}", "which exit?"),
        ("exit_enable", r#"{"exits":"auto"}"#, "“exits”: invalid type: string \"auto\", expected a sequence"),
        ("exit_enable", r#"{"exits":["auto",["x"]]}"#, "“exits”: invalid type: sequence, expected a string"),
        (
            "exit_enable",
            r#"{"exits":["auto"],"keep_dns":"yes"}"#,
            "“keep_dns”: invalid type: string \"yes\", expected a boolean",
        ),
        ("exit_enable", r#"{"exits":["--keep-dns"]}"#, "“--keep-dns” can't be used"),
        ("exit_enable", r#"{"exits":["auto"],"as":"a --keep-dns"}"#, "“a --keep-dns”"),
        ("exit_enable", r#"{"exits":["auto"],"keep-dns":true}"#, "“keep-dns” is no argument"),
        ("exit_enable", r#"{"exits":["auto"],"scope":["br-lan"]}"#, "dev:<interface>"),
        ("exit_disable", r#"{"scope":"No Such"}"#, "“No Such”"),
    ] {
        let error = asks(method, arguments.as_bytes()).expect_err(arguments);
        let answer: serde_json::Value = serde_json::from_str(&failure(&error)).unwrap();
        assert_eq!(answer["error"]["kind"], "usage", "{method} {arguments}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(said) && !message.contains("--help"), "{method} {arguments}: {message}");
    }
}

#[test]
fn list_has_every_method_with_typed_arguments() {
    let list: serde_json::Value = serde_json::from_str(&list().expect("JSON")).expect("JSON");
    assert_eq!(list.as_object().unwrap().len(), METHODS.len());
    assert_eq!(list["status"], serde_json::json!({}));
    assert_eq!(list["join"], serde_json::json!({"code": "", "name": ""}));
    assert_eq!(list["exit_enable"]["exits"], serde_json::json!([]));
    assert_eq!(list["exit_enable"]["no_kill_switch"], true);
}

#[test]
fn method_and_its_arguments_are_in_the_readme() {
    let readme = include_str!("../../../../openwrt-package/README.md");
    let rows: Vec<_> =
        readme.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 5).collect();
    for method in &METHODS {
        let named = |name: &str| format!("`{}`", ubus_name(name));
        let row = rows
            .iter()
            .find(|row| row.split('|').nth(1).is_some_and(|cell| cell.contains(&named(method.name))));
        let row = row.unwrap_or_else(|| panic!("no row for {}", method.name));
        for (argument, _) in method.takes {
            assert!(row.contains(&named(argument)), "{} of {}", argument, method.name);
        }
    }
}

#[test]
fn call_without_a_daemon_says_that_none_runs() {
    for Method { name: method, .. } in METHODS {
        let arguments = match method {
            "leave" => r#"{"network":"home"}"#,
            "exit_enable" => r#"{"exits":["auto"]}"#,
            "join" | "diag" | "version" => continue,
            _ => "{}",
        };
        let answer = answer(method, arguments.as_bytes());
        assert_eq!(answer["error"]["kind"], "not_running", "{method}: {answer}");
        assert!(
            answer["error"]["message"].as_str().unwrap().contains("/etc/init.d/gatewrt start"),
            "{answer}"
        );
    }
    for method in ["fly", ""] {
        assert_eq!(answer(method, b"{}")["error"]["message"], format!("“{method}” is no method"));
    }
    assert_eq!(answer("version", b""), serde_json::json!({"version": env!("CARGO_PKG_VERSION")}));
}

#[test]
fn too_long_arguments_are_refused_unparsed() {
    let long = format!(r#"{{"network":"{}"}}"#, "a".repeat(1 << 20));
    let mut input = long.as_bytes();
    let error = asked(named("peers"), "/nowhere", &mut input).expect_err("too long");
    assert!(error.to_string().contains("longer than 65536 bytes") && input.len() > 900_000, "{error}");
}

/// Arbitrary JSON, with the names of real arguments in it.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".*".prop_map(Into::into),
        r"(auto|home|dev:br-lan|all|lan|wan|block|192\.168\.0\.0/16|gw1\.[A-Za-z0-9_-]{0,200})"
            .prop_map(Into::into),
    ];
    let names: Vec<_> =
        METHODS.iter().flat_map(|method| method.takes).map(|(name, _)| ubus_name(name)).collect();
    let name = prop_oneof![
        3 => prop::sample::select(names),
        1 => ".*",
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Asserts that the call results in a request, or in an error as JSON.
fn becomes_a_request_or_an_error(method: &str, arguments: &[u8]) {
    if let Err(error) = asks(method, arguments) {
        let told: serde_json::Value = serde_json::from_str(&failure(&error)).expect("JSON");
        assert_eq!(told["error"]["kind"], "usage", "{told}");
        assert!(!told["error"]["message"].as_str().unwrap().is_empty());
    }
}

proptest! {
    #[test]
    fn arbitrary_json_never_panics(method in 0..METHODS.len(), arguments in json()) {
        becomes_a_request_or_an_error(METHODS[method].name, arguments.to_string().as_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic(method in 0..METHODS.len(), arguments in any::<Vec<u8>>(), head in "[{\\[\" ]{0,300}") {
        becomes_a_request_or_an_error(METHODS[method].name, &[head.as_bytes(), &arguments].concat());
    }
}
