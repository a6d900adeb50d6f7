//! Odd configuration files: of each, which lines are lost, and what the network `home` is told all the same. With each of
//! them the router is in its network, and nothing is open that was closed.

use super::*;

/// The file that was good before.
const BEFORE: &str = "\
config gatewrt 'main'
	option heartbeat '30'
	option table '7777'
config network 'home'
	option mtu '1300'
	option listen_port '51900'
	option allow_egress '0'
	option allow_exit '1'
config exit 'guests'
	option network 'home'
	list scope 'dev:br-guest'
	list exit 'oslo'
	option allow_lan '0'
";

/// What is in effect in short: the daemon's, the network's, its scopes.
fn short(config: &Config) -> String {
    let mut text = String::new();
    if config.numbers != ReservedNumbers::default() {
        text += &format!("table {} ", config.numbers.table);
    }
    if config.heartbeat.as_secs() != 60 {
        text += &format!("heartbeat {} ", config.heartbeat.as_secs());
    }
    let home = config.networks.iter().find(|(name, _)| name.as_str() == "home");
    let Some((_, home)) = home else { return text + "home: defaults" };
    let roles: Vec<_> = home.allowed.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    text += &format!("home: {}", roles.join("+"));
    text += &home.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
    text += &home.listen_port.map(|port| format!(" port {port}")).unwrap_or_default();
    text += if home.enabled { "" } else { " disabled" };
    for own in home.scopes.iter().flatten() {
        let scope = &own.scope;
        let mut of: Vec<_> = scope.of.iter().map(ToString::to_string).collect();
        of.extend(own.lan.then(|| "lan".to_owned()));
        let mut exits: Vec<_> = own.exits.iter().map(ToString::to_string).collect();
        exits.extend(scope.auto.then(|| "auto".to_owned()));
        let switch = if scope.open { " open" } else { "" };
        let lan = if scope.forbid_lan { " without LAN" } else { "" };
        text += &format!("; {} {} > {}{switch}{lan}", scope.name, of.join(" "), exits.join(" "));
    }
    text
}

fn lines(config: &Config) -> Vec<u32> {
    let mut lines: Vec<u32> = config.warnings.iter().map(|warning| warning.line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Asserts what is lost of a file, and what is in effect: without settings from before, and with them.
#[track_caller]
fn assert_read(text: &[u8], lost: &[u32], fresh: &str, again: &str) {
    let shown = String::from_utf8_lossy(text);
    let (first, used) = Config::read("test", text, &[]);
    assert_eq!((short(&first).as_str(), lines(&first).as_slice()), (fresh, lost), "{shown}");
    let before = uci::parse(BEFORE.as_bytes()).sections;
    let (second, kept) = Config::read("test", text, &before);
    assert_eq!(
        (short(&second).as_str(), lines(&second).as_slice()),
        (again, lost),
        "with what was before: {shown}"
    );
    // What is kept is sound, and is the same again: after one reboot and after the next.
    for (used, expected) in [(used, fresh), (kept, again)] {
        let kept = uci::parse(uci::text(&used).as_bytes());
        assert_eq!(kept.faults, [], "{shown}");
        assert_eq!(
            short(&Config::read("test", text, &kept.sections).0),
            expected,
            "at the next start: {shown}"
        );
    }
}

#[test]
fn one_bad_option_is_lost_alone() {
    let home = |options: &str| format!("config network 'home'\n{options}");
    for (options, lost, fresh, again) in [
        ("option mtu '1500'", &[2][..], "home: egress+ingress", "home: egress+ingress mtu 1300"),
        (
            "option mtu '1500'\noption listen_port 5",
            &[2],
            "home: egress+ingress port 5",
            "home: egress+ingress mtu 1300 port 5",
        ),
        ("option listen_port 'seventy'", &[2], "home: egress+ingress", "home: egress+ingress port 51900"),
        ("option allow_egress 'flase'", &[2], "home: ingress", "home: ingress"),
        ("option allow_ingress 'x'", &[2], "home: egress", "home: egress"),
        ("option allow_exit 'True'", &[2], "home: egress+ingress", "home: egress+ingress+exit"),
        ("option enabled 'maybe'", &[2], "home: egress+ingress", "home: egress+ingress"),
        ("list mtu '1300'", &[2], "home: egress+ingress", "home: egress+ingress mtu 1300"),
        (
            "option name 'Barn'\noption mtu 1290",
            &[2],
            "home: egress+ingress mtu 1290",
            "home: egress+ingress mtu 1290",
        ),
        (
            "option exit_client 'yes'",
            &[2],
            "home: egress+ingress; home lan > ",
            "home: egress+ingress; home lan > ",
        ),
        (
            "option exit_client 'oslo'\nlist exit_scope 'lam'",
            &[3],
            "home: egress+ingress; home lan > oslo",
            "home: egress+ingress; home lan > oslo",
        ),
        ("option join_code 'gw1.x'", &[2], "home: egress+ingress", "home: egress+ingress"),
        ("option colour 'red'", &[2], "home: egress+ingress", "home: egress+ingress"),
    ] {
        assert_read(home(options).as_bytes(), lost, fresh, again);
    }
}

#[test]
fn value_is_read_as_libuci_reads_it() {
    let home = |options: &str| format!("config network 'home'\n{options}");
    for (options, now) in [
        ("option mtu ' 1300 '", "home: egress+ingress mtu 1300"),
        ("option mtu ' '", "home: egress+ingress"),
        ("option mtu 1300\noption mtu 1290", "home: egress+ingress mtu 1290"),
        ("option mtu 1300\noption mtu ''", "home: egress+ingress"),
        ("option mtu 1500\noption mtu 1300", "home: egress+ingress mtu 1300"),
        ("option allow_exit on", "home: egress+ingress+exit"),
        ("option allow_exit \"true\"", "home: egress+ingress+exit"),
        ("option allow_exit 'enabled'\noption allow_egress disabled", "home: ingress+exit"),
        ("option allow_exit ' yes'\noption allow_egress 'no '\noption allow_ingress off", "home: exit"),
        ("o mtu 1300; o allow_exit 1 # rest", "home: egress+ingress+exit mtu 1300"),
        ("\r\n\toption\tmtu\t'1300'\r", "home: egress+ingress mtu 1300"),
        ("option mtu 13\\\n00", "home: egress+ingress mtu 1300"),
        (
            "config network home\noption allow_exit 1\nconfig network 'home'\noption mtu 1300",
            "home: egress+ingress+exit mtu 1300",
        ),
        ("option exit_client oslo\nlist exit_scope ''", "home: egress+ingress; home lan > oslo"),
    ] {
        assert_read(home(options).as_bytes(), &[], now, now);
    }
}

#[test]
fn scope_with_a_fault_is_closed() {
    let exit =
        |options: &str| format!("config network home\nconfig exit 'guests'\noption network home\n{options}");
    for (options, lost, fresh, again) in [
        (
            "list scope dev:br-guest\nlist exit 'Oslo'",
            &[5][..],
            "guests dev:br-guest > ",
            "guests dev:br-guest > oslo",
        ),
        ("list scope 'br-guest'\nlist exit oslo", &[4], "guests lan > oslo", "guests dev:br-guest > oslo"),
        (
            "list exit oslo\nlist scope dev:br-guest\noption kill_switch 'of'",
            &[6],
            "guests dev:br-guest > oslo",
            "guests dev:br-guest > oslo",
        ),
        (
            "list exit oslo\nlist scope dev:x\noption allow_lan 'nope'",
            &[6],
            "guests dev:x > oslo without LAN",
            "guests dev:x > oslo without LAN",
        ),
        ("list scope dev:x", &[2], "guests dev:x > ", "guests dev:x > "),
        (
            "list exit auto\nlist exit oslo\nlist scope dev:x",
            &[4],
            "guests dev:x > oslo",
            "guests dev:x > oslo",
        ),
        (
            "list exit oslo\nlst scope dev:br-guest",
            &[5],
            "guests lan > oslo without LAN",
            "guests dev:br-guest > oslo without LAN",
        ),
    ] {
        let [fresh, again] = [fresh, again].map(|scope| format!("home: egress+ingress; {scope}"));
        assert_read(exit(options).as_bytes(), lost, &fresh, &again);
    }
    let anonymous = "config network home\nconfig exit\noption network home\nlist exit oslo\nlist scope dev:x";
    let closed = "home: egress+ingress; line-2 dev:x > oslo";
    assert_read(anonymous.as_bytes(), &[2], closed, closed);
    let homeless = "config network home\nconfig exit 'x'\nlist exit oslo\nlist scope dev:x";
    let closed = "home: egress+ingress; x dev:x > ";
    assert_read(homeless.as_bytes(), &[2], closed, closed);
}

#[test]
fn lost_line_or_section_is_as_it_was() {
    let again = "table 7777 heartbeat 30 home: ingress+exit mtu 1300 port 51900; guests dev:br-guest > oslo without LAN";
    for (text, lost, fresh) in [
        // A power cut leaves blocks of zeros.
        (&b"\0\0\0\0\0\0"[..], &[1][..], "home: defaults"),
        (b"\xff\xfe\x00config network home", &[1], "home: defaults"),
        (b"this is no configuration", &[1], "home: defaults"),
        (b"confg gatewrt main\n\toption heartbeat 20\nonfig network home\n\toption mtu 1400\nCONFIG exit guests\n", &[1, 3, 5], "home: defaults"),
        (b"config netwrok 'home'\n\toption mtu 1400\nconfig network 'Home'\n", &[1, 3], "home: defaults"),
    ] {
        assert_read(text, lost, fresh, again);
    }
    let quote =
        "config network 'home'\n\toption mtu '1400\n\toption allow_exit '1'\n\toption allow_egress '0'\n";
    assert_read(quote.as_bytes(), &[2], "home: exit", "home: ingress+exit mtu 1300 port 51900");
    // The same number of quotes, so that libuci reads one value of many lines.
    let swallowed = "config network 'home'\n\toption mtu '1400\nconfig exit 'guests\n";
    assert_read(swallowed.as_bytes(), &[2], "home: ", again);
}

#[test]
fn numbers_that_do_not_fit_together_are_those_of_before() {
    let main = |options: &str| format!("config gatewrt main\n{options}");
    for (options, lost) in [
        ("option mask 0x30\noption bypass 0x40", &[1][..]),
        ("option exit_table 250", &[2]),
        ("option priority 32760", &[1]),
    ] {
        assert_read(main(options).as_bytes(), lost, "home: defaults", "table 7777 home: defaults");
    }
    assert_read(
        b"config gatewrt main\noption table 'x'\noption heartbeat 5",
        &[2, 3],
        "home: defaults",
        "table 7777 heartbeat 30 home: defaults",
    );
    assert_read(
        b"config gatewrt main\nconfig gatewrt other\noption table 5",
        &[2],
        "home: defaults",
        "home: defaults",
    );
}

#[test]
fn removed_setting_does_not_come_back() {
    assert_read(
        BEFORE.as_bytes(),
        &[],
        short(&Config::parse("test", BEFORE.as_bytes()).unwrap()).as_str(),
        short(&Config::parse("test", BEFORE.as_bytes()).unwrap()).as_str(),
    );
    assert_read(b"# nothing", &[], "home: defaults", "home: defaults");
    assert_read(b"config network home", &[], "home: egress+ingress", "home: egress+ingress");
}

/// The file is gone, empty or a folder, or its option of where the state is can't be used: the settings on disk count.
#[test]
fn settings_on_disk_take_the_place_of_a_lost_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("gatewrt"), dir.path().join("state"));
    let main = format!("config gatewrt 'main'\n\toption state_dir '{}'\n", state.display());
    let good = format!("{main}config network 'home'\n\toption mtu '1300'\n");
    fs::write(&file, &good).unwrap();
    last::load(&file).keep(false).unwrap();
    assert!(!state.exists(), "a router in no network keeps nothing");
    last::load(&file).keep(true).unwrap();
    fs::write(&file, format!("{main}config network 'home'\n\toption mtu '1500'\n")).unwrap();
    let loaded = last::load(&file);
    assert_eq!(
        (short(&loaded.config), lines(&loaded.config)),
        ("home: egress+ingress mtu 1300".to_owned(), vec![4])
    );
    loaded.keep(true).unwrap();
    assert_eq!(short(&Config::load(&file)), "home: egress+ingress mtu 1300");
    loaded.keep(false).unwrap();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    assert_eq!(short(&Config::load(&file)), "home: egress+ingress");
}
