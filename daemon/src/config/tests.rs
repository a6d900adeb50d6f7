use super::*;
use gatewrt_protocol::PublicKey;
use proptest::prelude::*;
use std::fs;

mod corpus;

fn read(text: &str) -> Config {
    Config::parse("test", text.as_bytes()).expect("sound")
}

fn error(text: &str) -> String {
    Config::parse("test", text.as_bytes()).expect_err(text).to_string()
}

fn network(text: &str) -> NetworkConfig {
    let config = read(&format!("config network 'home'\n{text}"));
    config.networks.into_iter().next().expect("one network").1
}

#[test]
fn empty_file_is_the_default() {
    assert_eq!(read(""), Config::default());
    assert_eq!(read("config gatewrt 'main'"), Config::default());
    assert_eq!(network(""), NetworkConfig::default());
}

#[test]
fn full_file_sets_every_option() {
    let code = JoinCode {
        network: "site-2".parse().unwrap(),
        url: "https://gw:1".into(),
        ca: [1; 32],
        record_key: PublicKey([2; 32]),
        secret: [3; 16],
    };
    let config = read(&format!(
        "config gatewrt 'main'\n option enabled 'off'\n option log_level 'debug'\n option state_dir '/a'\n
         option run_dir '/b'\n option wireguard 'boringtun-cli'\n option firewall 'iptables'\n option table '0x77'\n option priority '800'\n
         option metric '7'\n option mask '0x60'\n option heartbeat '30'\n
         config network 'site_2'\n option enabled '0'\n option join_code '{code}'\n option listen_port '51820'\n
         list endpoint '198.51.100.1:51820'\n list endpoint '[2001:db8::1]:51821'\n option allow_egress '0'\n
         option allow_ingress 'yes'\n option allow_exit '1'\n option name 'barn'\n option mtu '1280'\n"
    ));
    let site = NetworkConfig {
        enabled: false,
        join_code: Some(code),
        listen_port: NonZeroU16::new(51820),
        endpoints: vec!["198.51.100.1:51820".parse().unwrap(), "[2001:db8::1]:51821".parse().unwrap()],
        allowed: [Role::Ingress, Role::Exit].into_iter().collect(),
        name: Some("barn".parse().unwrap()),
        mtu: Some(1280),
        scopes: None,
    };
    let expected = Config {
        enabled: false,
        log_level: LevelFilter::Debug,
        state_dir: "/a".into(),
        run_dir: "/b".into(),
        wireguard: WireGuard::Program("boringtun-cli".into()),
        firewall: FirewallChoice::Iptables,
        numbers: ReservedNumbers {
            table: 0x77,
            priority: 800,
            exit_priority: 810,
            metric: 7,
            mask: 0x60,
            bypass: 0x20,
            masquerade: 0x40,
            ..ReservedNumbers::default()
        },
        heartbeat: Duration::from_secs(30),
        networks: [("site-2".parse().unwrap(), site)].into_iter().collect(),
        warnings: Vec::new(),
    };
    assert_eq!(config, expected);
}

#[test]
fn default_mask_gives_the_default_marks() {
    let mask = ReservedNumbers::default().mask;
    assert_eq!(
        read(&format!("config gatewrt main\noption mask {mask:#x}")).numbers,
        ReservedNumbers::default()
    );
}

#[test]
fn empty_option_is_absent_and_the_last_of_two_wins() {
    assert_eq!(network("option listen_port ''"), NetworkConfig::default());
    assert_eq!(network("option mtu 1300\noption mtu 1400").mtu, Some(1400));
}

#[test]
fn error_names_file_line_option_and_allowed_values() {
    let text = "config gatewrt 'main'\n\toption enabled 'maybe'\n";
    assert_eq!(error(text), "test:2: option enabled: “maybe” can't be used; allowed: 1 or 0");
    let text = "config network 'home'\n\n\toption listen_port '0'\n";
    assert!(
        error(text)
            .starts_with("test:3: option listen_port: “0” can't be used; allowed: a port from 1 to 65535")
    );
}

#[test]
fn bad_option_in_the_main_section_is_refused() {
    for option in [
        "table 0",
        "table 253",
        "table 254",
        "table 255",
        "table x",
        "table -1",
        "table 4294967296",
        "priority 0",
        "priority 32766",
        "metric 0",
        "mask 0",
        "mask 0x1000",
        "mask 0x+30",
        "bypass 0",
        "bypass 0x10000000",
        "bypass 0x2000000",
        "masquerade 0x1000000",
        "masquerade 0x30000000",
        "heartbeat 9",
        "heartbeat 3601",
        "log_level loud",
        "log_level off",
        "state_dir etc",
        "firewall 'ipfw'",
        "wireguard 'a b'",
        "enabled 2",
    ] {
        let text = format!("config gatewrt 'main'\noption {option}");
        assert!(error(&text).starts_with("test:"), "{option}");
    }
}

#[test]
fn bad_option_in_a_network_is_refused() {
    for option in [
        "listen_port 65536",
        "listen_port -1",
        "endpoint 198.51.100.1",
        "endpoint gw.example:51820",
        "endpoint 0.0.0.0:51820",
        "endpoint 198.51.100.1:0",
        "mtu 1279",
        "mtu 1421",
        "name Barn",
        "allow_exit 5",
        "join_code hello",
    ] {
        assert!(
            error(&format!("config network a\noption {option}")).starts_with("test:2: option "),
            "{option}"
        );
    }
    assert!(error("config network a\nlist mtu 1300").contains("a list, where one value is expected"));
    for section in
        ["config network", "config network Home", "config network thirteen_char", "config network ../etc"]
    {
        assert!(error(section).contains("a network's name is missing or unsound"), "{section}");
    }
}

#[test]
fn second_main_section_or_shared_port_is_refused() {
    assert!(error("config gatewrt main\nconfig gatewrt other").contains("a second section"));
    let shared = "config network a\noption listen_port 1\nconfig network b\noption listen_port 1";
    assert!(error(shared).contains("listen_port 1 is that of network a too"), "{}", error(shared));
}

#[test]
fn unknown_option_is_skipped_with_a_warning() {
    let config =
        read("config gatewrt main\noption colour red\nconfig cow\noption milk 1\nconfig network a\nlist x 1");
    let warnings: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
    let expected = [
        "test:2: option colour: unknown here, skipped",
        "test:3: config cow: unknown type of section, skipped",
        "test:6: list x: unknown here, skipped",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn join_code_of_another_network_is_refused() {
    let code = JoinCode {
        network: "site-2".parse().unwrap(),
        url: "https://gw:1".into(),
        ca: [1; 32],
        record_key: PublicKey([2; 32]),
        secret: [3; 16],
    };
    let error = error(&format!("config network 'home'\n option join_code '{code}'"));
    assert!(error.starts_with("test:2: option join_code: this code is for network site-2"), "{error}");
}

#[test]
fn bad_join_code_is_not_repeated_in_the_error() {
    let code = "gw1.AAAAsecretsecret";
    assert!(!error(&format!("config network a\noption join_code {code}")).contains("secret"));
}

#[test]
fn missing_file_is_the_default_and_unreadable_one_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Config::load(&dir.path().join("none")), Config::default());
    let config = Config::load(dir.path());
    assert_eq!(config.networks, LiteMap::new());
    assert!(config.warnings[0].to_string().contains(": can't be read: "), "{:?}", config.warnings);
}

proptest! {
    #[test]
    fn any_values_parse_or_fail(option in "(enabled|table|mask|bypass|endpoint|mtu|name|join_code|wireguard)", value in "[^']*") {
        for section in ["gatewrt 'main'", "network 'home'"] {
            let _ = Config::parse("test", format!("config {section}\n\toption {option} '{value}'\n").as_bytes());
        }
    }

    #[test]
    fn marks_of_any_accepted_mask_fit_it(mask: u32) {
        if let Ok(config) = Config::parse("test", format!("config gatewrt main\noption mask {mask}").as_bytes()) {
            let ReservedNumbers { mask, bypass, masquerade, .. } = config.numbers;
            prop_assert!(bypass != masquerade && bypass != 0 && masquerade != 0 && (bypass | masquerade) & !mask == 0);
        }
    }
}

/// The packaged configuration file parses, also with its examples uncommented.
#[test]
fn packaged_file_parses() {
    let text = include_str!("../../../openwrt-package/gatewrt/files/gatewrt.config");
    let config = Config::parse("gatewrt.config", text.as_bytes()).unwrap();
    assert_eq!(config, Config::default());
    let examples = text.replace("\n#\t#", "\n\t#").replace("\n#\t", "\n\t").replace("\n#config", "\nconfig");
    let examples = examples.replace("option join_code", "# option join_code");
    let config = Config::parse("gatewrt.config", examples.as_bytes()).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.networks.len(), 1);
}
