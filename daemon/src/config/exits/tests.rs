use super::*;
use crate::config::Config;
use sorted_vec::SortedSet;

fn read(text: &str) -> Config {
    Config::parse("test", text.as_bytes()).expect("sound")
}

fn error(text: &str) -> String {
    Config::parse("test", text.as_bytes()).expect_err(text).to_string()
}

fn scopes(text: &str) -> Vec<OwnScope> {
    let config = read(text);
    assert_eq!(config.warnings, [], "{text}");
    config.networks[&"home".parse::<NetworkName>().unwrap()].scopes.clone().expect("the owner said something")
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

#[test]
fn scope_section_is_read() {
    let scopes = scopes(
        "config exit 'the_kids'\n option network 'home'\n list scope '192.168.7.0/24'\n list scope 'dev:br-kids'\n
         list exit 'berlin'\n list exit 'oslo'\n list exit 'auto'\n option kill_switch '0'\n option allow_lan '0'\n
         option ipv6 'wan'\n list exclude '203.0.113.0/24'\n list exclude '198.51.100.7'\n list dns '9.9.9.9'\n
         option redirect_dns '0'\n option enabled '1'\n",
    );
    let expected = OwnScope {
        exits: vec![name("berlin"), name("oslo")],
        lan: false,
        scope: ExitScope {
            name: "the-kids".parse().unwrap(),
            of: vec!["192.168.7.0/24".parse().unwrap(), "dev:br-kids".parse().unwrap()],
            exits: Vec::new(),
            auto: true,
            open: true,
            forbid_lan: true,
            v6_wan: true,
            exclude: vec!["203.0.113.0/24".parse().unwrap(), "198.51.100.7/32".parse().unwrap()],
            dns: vec!["9.9.9.9".parse().unwrap()],
            keep_dns: true,
        },
    };
    assert_eq!(scopes, [expected]);
}

#[test]
fn empty_scope_section_is_the_closed_lan_with_the_exits_resolver() {
    let scopes = scopes("config exit 'x'\n option network 'home'\n list exit 'berlin'");
    let scope = ExitScope { auto: false, ..ExitScope::auto("x".parse().unwrap(), Vec::new()) };
    assert_eq!(scopes, [OwnScope { exits: vec![name("berlin")], lan: true, scope }]);
}

#[test]
fn short_form_in_a_network_is_read() {
    let short = |option: &str| scopes(&format!("config network 'home'\n{option}"));
    let own = |exits: &[&str], auto| OwnScope {
        exits: exits.iter().map(|text| name(text)).collect(),
        lan: true,
        scope: ExitScope { auto, ..ExitScope::auto("home".parse().unwrap(), Vec::new()) },
    };
    assert_eq!(short("option exit_client 'auto'"), [own(&[], true)]);
    assert_eq!(short("option exit_client 'berlin oslo'"), [own(&["berlin", "oslo"], false)]);
    assert_eq!(short("option exit_client 'berlin auto'"), [own(&["berlin"], true)]);
    assert_eq!(short("option exit_client '0'"), []);
    let all = short("option exit_client 'auto'\n list exit_scope 'all'");
    assert_eq!((all[0].lan, all[0].scope.of.clone()), (false, vec![Traffic::All]));
}

#[test]
fn sections_and_the_short_form_add_up_in_any_order() {
    let of_network = "config network 'home'\n option exit_client 'auto'\n option mtu '1300'\n";
    let of_scope = "config exit 'router'\n option network 'home'\n list exit 'oslo'\n list scope 'router'\n";
    for text in [format!("{of_network}{of_scope}"), format!("{of_scope}{of_network}")] {
        let config = read(&text);
        let home = &config.networks[&"home".parse::<NetworkName>().unwrap()];
        assert_eq!(home.mtu, Some(1300));
        let names: SortedSet<_> =
            home.scopes.iter().flatten().map(|own| own.scope.name.to_string()).collect();
        assert_eq!(names, ["home", "router"].map(str::to_owned).into_iter().collect());
    }
}

#[test]
fn disabled_section_is_ignored() {
    let config = read("config exit 'x'\n option network 'home'\n list exit 'auto'\n option enabled '0'");
    assert!(config.networks.is_empty());
}

#[test]
fn error_names_the_line_the_option_and_allowed_values() {
    let exit = "config exit 'x'\n option network 'home'\n";
    for (text, said) in [
        ("config exit\n option network 'home'", "test:1: config exit: the name is missing"),
        (
            "config exit 'X'\n option network 'home'",
            "test:1: config exit 'X': the name is missing or unsound",
        ),
        ("config exit 'x'\n list exit 'auto'", "test:1: config exit 'x': without option network"),
        (exit, "test:1: list exit: none, twice the same"),
        (&format!("{exit} list exit 'auto'\n list exit 'oslo'"), "test:3: list exit: none, twice the same"),
        (&format!("{exit} list exit 'oslo'\n list exit 'oslo'"), "test:3: list exit: none, twice the same"),
        (&format!("{exit} list exit 'os lo'"), "test:3: list exit: “os lo” can't be used"),
        (
            &format!("{exit} list exit 'oslo'\n list scope 'br-lan'"),
            "test:4: list scope: “br-lan” can't be used",
        ),
        (&format!("{exit} list exit 'oslo'\n list scope '0.0.0.0/0'"), "test:4: list scope: “0.0.0.0/0”"),
        (
            &format!("{exit} list exit 'oslo'\n list scope 'lan'\n list scope 'lan'"),
            "test:4: list scope: “lan” is",
        ),
        (
            &format!("{exit} list exit 'oslo'\n option kill_switch 'maybe'"),
            "test:4: option kill_switch: “maybe”",
        ),
        (&format!("{exit} list exit 'oslo'\n option ipv6 '1'"), "test:4: option ipv6: “1” can't be used"),
        (&format!("{exit} list exit 'oslo'\n list exclude '::/0'"), "test:4: list exclude: “::/0” can't"),
        (&format!("{exit} list exit 'oslo'\n list dns '127.0.0.1'"), "test:4: list dns: “127.0.0.1” can't"),
        (&format!("{exit} list exit 'oslo'\n list dns 'fe80::1'"), "test:4: list dns: “fe80::1” can't"),
        ("config network 'home'\n option exit_client '1'", "test:2: option exit_client: “1” can't be used"),
        (
            "config network 'home'\n option exit_client 'auto oslo'",
            "test:2: option exit_client: “auto oslo” can't",
        ),
        (
            "config network 'home'\n list exit_scope 'all'",
            "test:2: list exit_scope: without option exit_client",
        ),
        (
            &format!("{exit} list exit 'auto'\nconfig network 'home'\n option exit_client '0'"),
            "test:5: option exit_client: no exit here, but config exit 'x' asks for one",
        ),
        (
            "config network 'x'\n option exit_client 'auto'\nconfig exit 'x'\n option network 'x'\n list exit 'auto'\n list scope 'all'",
            "test:3: config exit 'x': a second scope of this name",
        ),
        (
            &format!("{exit} list exit 'auto'\nconfig exit 'y'\n option network 'other'\n list exit 'auto'"),
            "test:4: list scope: “lan” is there twice",
        ),
    ] {
        let error = error(text);
        assert!(error.starts_with(said) && error.contains("; allowed: "), "{text}\n{error}");
    }
}

#[test]
fn too_many_scopes_are_refused() {
    let section = |n: usize| {
        format!("config exit 's{n}'\n option network 'home'\n list exit 'auto'\n list scope '10.0.0.{n}'\n")
    };
    let text = |most: usize| (1..=most).map(section).collect::<String>();
    assert_eq!(scopes(&text(ExitScope::MOST)).len(), ExitScope::MOST);
    assert!(error(&text(ExitScope::MOST + 1)).contains("one scope too many; allowed: 16 on a router"));
}

#[test]
fn tables_and_rules_of_scopes_stay_clear_of_others() {
    let main = |options: &str| format!("config gatewrt 'main'\n{options}");
    let numbers = read(&main("option exit_table '30000'\n option exit_priority '950'")).numbers;
    assert_eq!((numbers.exit_table, numbers.exit_priority), (30000, 950));
    assert_eq!(read(&main("option priority '800'")).numbers.exit_priority, 810);
    for (options, said) in [
        ("option exit_table '250'", "test:2: option exit_table: tables 250 to 281 are not free"),
        ("option exit_table '0'", "test:2: option exit_table: tables 0 to 31"),
        ("option exit_table '26480'", "test:2: option exit_table: tables 26480 to 26511 are not free beside"),
        ("option table '26510'", "test:1: option exit_table: tables 26500 to 26531 are not free"),
        ("option exit_table '4294967290'", "test:2: option exit_table"),
        ("option exit_priority '900'", "test:2: option exit_priority: rules 900 to 964 do not fit behind"),
        ("option exit_priority '32755'", "test:2: option exit_priority: rules 32755 to 32819"),
        ("option priority '32760'", "test:1: option exit_priority: rules 32770"),
    ] {
        let error = error(&main(options));
        assert!(error.starts_with(said), "{options}\n{error}");
    }
}
