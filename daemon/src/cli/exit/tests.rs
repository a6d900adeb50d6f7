use super::*;
use crate::{
    cli::{Command, parse},
    show::exits::joined,
};

fn exit_of(line: &str) -> Result<Exit, CliError> {
    let args = line.split_whitespace().map(Into::into).collect();
    match parse(args)?.command {
        Command::Exit(exit) => Ok(exit),
        other => panic!("{other:?}"),
    }
}

fn asked(line: &str) -> Result<Request, CliError> {
    request(&exit_of(line)?)
}

fn enabled(line: &str) -> (Option<String>, Option<String>, OwnScope) {
    match asked(line).expect(line) {
        Request::ExitEnable { network, only, scope } => {
            (network.map(|it| it.to_string()), only.map(|it| it.to_string()), *scope)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn enable_with_every_option_is_parsed() {
    let (network, only, own) = enabled(
        "exit --network home enable berlin oslo auto --scope dev:br-guest --scope 192.168.7.0/24 --as guests \
         --no-kill-switch --forbid-lan --exclude 203.0.113.0/24 --dns 9.9.9.9 --keep-dns --ipv6 wan",
    );
    assert_eq!((network.as_deref(), only.as_deref()), (Some("home"), Some("guests")));
    let names: Vec<_> = own.exits.iter().map(ToString::to_string).collect();
    assert_eq!((names, own.lan, own.scope.auto), (vec!["berlin".to_owned(), "oslo".to_owned()], false, true));
    assert_eq!(joined(&own.scope.of), "dev:br-guest 192.168.7.0/24");
    let scope = own.scope;
    assert!(scope.open && scope.forbid_lan && scope.keep_dns && scope.v6_wan);
    assert_eq!((joined(&scope.exclude), joined(&scope.dns)), ("203.0.113.0/24".into(), "9.9.9.9".into()));
}

#[test]
fn enable_without_options_takes_every_lan_and_stays_closed() {
    let (network, only, own) = enabled("exit enable auto");
    assert_eq!((network, only, own.lan, own.exits.len()), (None, None, true, 0));
    let auto = ExitScope::auto(own.scope.name.clone(), Vec::new());
    assert_eq!(own.scope, auto);
}

#[test]
fn command_without_a_scope_is_parsed() {
    let one = |line: &str| asked(line).expect(line);
    assert!(matches!(one("exit disable"), Request::ExitDisable { network: None, only: None }));
    assert!(matches!(
        one("exit disable guests --network home"),
        Request::ExitDisable { network: Some(_), only: Some(_) }
    ));
    assert!(matches!(one("exit forget"), Request::ExitForget { network: None }));
    assert!(matches!(one("exit list --json"), Request::Status));
    assert!(matches!(one("exit status"), Request::Status));
    assert_eq!(exit_of("exit").unwrap(), Exit::Help);
    assert_eq!(exit_of("exit enable --help").unwrap(), Exit::Help);
}

#[test]
fn wrong_usage_is_refused_with_what_is_allowed() {
    for (line, said) in [
        ("exit fly", "no command"),
        ("exit enable", "names of nodes"),
        ("exit enable auto berlin", "names of nodes"),
        ("exit enable Berlin", "names of nodes"),
        ("exit enable auto --scope br-lan", "dev:<interface>"),
        ("exit enable auto --dns 127.0.0.1", "a resolver's address"),
        ("exit enable auto --exclude 0.0.0.0/0", "not the whole Internet"),
        ("exit enable auto --ipv6 on", "block, or wan"),
        ("exit enable auto --frobnicate", "frobnicate"),
        ("exit enable auto --name x", "--name does not go with this command"),
        ("exit disable a b", "one word too many"),
        ("exit disable --keep-dns", "only --network"),
        ("exit list --scope all", "only --network"),
        ("status --scope all", "--scope does not go with this command"),
    ] {
        let error = asked(line).expect_err(line);
        assert!(error.exit() == 2 && error.to_string().contains(said), "{line}: {error}");
    }
}

#[test]
fn request_sent_as_json_arrives_unchanged() {
    for line in ["exit enable berlin --as a --scope lan --network home", "exit disable a", "exit forget"] {
        let request = asked(line).expect(line);
        let text = serde_json::to_string(&request).unwrap();
        let read: Request = serde_json::from_str(&text).expect(&text);
        assert_eq!(format!("{read:?}"), format!("{request:?}"));
    }
}

#[test]
fn readme_example_is_parsed() {
    let readme = include_str!("../../../../README.md");
    let lines = readme.lines().filter_map(|line| line.strip_prefix("    gatewrt "));
    let commands: Vec<_> = lines.map(|line| line.split(" # ").next().unwrap_or_default()).collect();
    assert!(commands.iter().filter(|line| line.starts_with("exit ")).count() > 4);
    for line in commands {
        let asked = parse(line.split_whitespace().map(Into::into).collect()).expect(line);
        if let Command::Exit(exit) = asked.command {
            request(&exit).expect(line);
        }
    }
    let sections = readme.split("\n\n").filter(|part| part.starts_with("    config "));
    let text: Vec<_> = sections.filter(|part| part.contains("exit")).collect();
    assert!(!text.is_empty());
    let config = crate::config::Config::parse("README.md", text.join("\n").as_bytes()).expect("sound");
    assert_eq!(config.warnings, []);
    let scopes = config.networks.values().filter_map(|network| network.scopes.as_ref()).map(Vec::len);
    assert_eq!(scopes.sum::<usize>(), 2);
}
