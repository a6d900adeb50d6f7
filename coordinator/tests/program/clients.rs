//! External clients: commands of the admin, assignments of the gateway, secrecy of keys.

use crate::{
    coordinator::{Coordinator, text},
    eventually,
    router::{Link, Router},
};
use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use gatewrt_protocol::{
    Assignment, ClientReport, JoinAnswer, MemberUpdate, Report, Roster, Topic, WgPublicKey,
};
use serde_json::Value;
use std::{os::unix::fs::PermissionsExt, path::Path};

struct Home {
    coordinator: Coordinator,
    router: Router,
    gateway: JoinAnswer,
    link: Link,
    other: Link,
}

impl Home {
    /// Nodes `office`, which lets clients in, and `cabin`.
    fn new() -> Self {
        let coordinator = Coordinator::with_home();
        let (code, ca) = (coordinator.code(&["--uses", "9"]), text(&coordinator.data().join("ca.crt")));
        let (router, gateway, link) = Router::online(1, "office", &code, &ca);
        let (_, _, other) = Router::online(2, "cabin", &code, &ca);
        let said = coordinator.ok(&["ingress", "set", "home", "office"]);
        assert!(said.contains("203.0.113.1:51820"), "{said}");
        let home = Self { coordinator, router, gateway, link, other };
        home.assignment(|assignment| assignment.ingress.is_some());
        [&home.link, &home.other].into_iter().for_each(|link| home.wait_for_all(link));
        home
    }

    /// Waits until a node has got all that the ingress made the coordinator say. The roster comes last.
    fn wait_for_all(&self, link: &Link) {
        let Self { gateway, .. } = self;
        link.wait_for(Topic::Member(gateway.net, gateway.node), |update: &MemberUpdate| {
            matches!(update, MemberUpdate::Member(member) if member.clients.len() == 2)
        });
        let members = || link.members(gateway.net);
        link.wait_for(Topic::Roster(gateway.net), |roster: &Roster| roster.describes(&members()));
    }

    fn add(&self, name: &str, more: &[&str]) -> String {
        self.coordinator.ok(&[&["client", "add", "home", name, "--gateway", "office"], more].concat())
    }

    fn client(&self, name: &str) -> Value {
        self.coordinator.json(&["client", "show", "home", name])
    }

    fn assignment(&self, what: impl Fn(&Assignment) -> bool) -> Assignment {
        self.link.wait_for(Topic::Assignment(self.gateway.node), what)
    }
}

fn let_in(assignment: &Assignment) -> usize {
    assignment.ingress.as_ref().map_or(0, |ingress| ingress.clients.len())
}

fn value<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    let pairs = file.lines().filter_map(|line| line.split_once(" = "));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// Output of `wg pubkey` for a private key.
fn public(private: &str) -> String {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut wg = Command::new("wg");
    let mut child = wg.arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(private.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn phone_is_admitted_by_its_gateway_only() {
    let home = Home::new();
    let before = home.other.counts();
    let file = home.add("phone", &["--psk", "--dns", "10.0.0.53"]);
    let assignment = home.assignment(|assignment| let_in(assignment) == 1);
    let told = &assignment.ingress.unwrap().clients[0];
    assert_eq!(public(value(&file, "PrivateKey").unwrap()), told.key.to_string());
    assert_eq!(value(&file, "PresharedKey").unwrap(), told.psk.unwrap().to_string());
    let addresses: Vec<_> = value(&file, "Address").unwrap().split(", ").collect();
    assert_eq!(addresses, [format!("{}/32", told.addresses[0]), format!("{}/128", told.addresses[1])]);
    assert_eq!(value(&file, "PublicKey").unwrap(), home.router.request.key.to_string());
    assert_eq!(value(&file, "Endpoint"), Some("203.0.113.1:51820"));
    assert_eq!(value(&file, "DNS"), Some("10.0.0.53"));
    let network = home.coordinator.json(&["network", "show", "home"]);
    let both = format!("{}, {}", network["prefix4"].as_str().unwrap(), network["prefix6"].as_str().unwrap());
    assert_eq!(value(&file, "AllowedIPs").unwrap(), both);
    assert!(told.psk.is_some() && !told.internet && !told.reachable);
    assert_eq!(home.other.counts(), before, "no other node is told");
}

/// Counts what 200 clients cost, at the gateway and elsewhere.
#[test]
fn each_of_two_hundred_clients_costs_one_message() {
    let home = Home::new();
    let assignment = home.assignment(|_| true).rev;
    let before = (home.link.counts(), home.other.counts());
    for number in 1..=200 {
        home.add(
            &format!("phone-{number}"),
            &["--psk", "--key", &WgPublicKey([number + 40; 32]).to_string()],
        );
    }
    let last = home.assignment(|assignment| let_in(assignment) == 200);
    assert_eq!(last.rev, assignment + 200);
    let mut wanted = before.0;
    *wanted.entry(Topic::Assignment(home.gateway.node).to_string()).or_default() += 200;
    assert_eq!(home.link.counts(), wanted);
    assert_eq!(home.other.counts(), before.1, "no record on another node");
}

#[test]
fn disabled_deleted_and_reissued_clients_lose_access_at_the_gateway() {
    let home = Home::new();
    let own = WgPublicKey([77; 32]).to_string();
    home.add(
        "van",
        &["--key", &own, "--prefix", "192.168.77.0/24", "--tag", "vans", "--label", "the <b>van</b>"],
    );
    let prefixes = |update: &MemberUpdate, count| matches!(update, MemberUpdate::Member(member) if member.prefixes.len() == count);
    let member = Topic::Member(home.gateway.net, home.gateway.node);
    home.other.wait_for(member, |update: &MemberUpdate| prefixes(update, 1));
    home.assignment(|assignment| let_in(assignment) == 1);
    home.coordinator.ok(&["client", "disable", "home", "van"]);
    home.assignment(|assignment| let_in(assignment) == 0);
    home.other.wait_for(member, |update: &MemberUpdate| prefixes(update, 0));
    assert_eq!(home.client("van")["state"], "disabled");
    home.coordinator.ok(&["client", "enable", "home", "van"]);
    home.coordinator.ok(&["client", "reachable", "home", "van", "on"]);
    home.assignment(|assignment| {
        let_in(assignment) == 1 && assignment.ingress.as_ref().unwrap().clients[0].reachable
    });
    home.coordinator.ok(&["client", "rename", "home", "van", "truck"]);
    assert_eq!(home.client("truck")["label"], "the <b>van</b>");

    let file = home.coordinator.ok(&["client", "reissue", "home", "truck"]);
    let new = public(value(&file, "PrivateKey").unwrap());
    home.assignment(|assignment| {
        let clients = &assignment.ingress.as_ref().unwrap().clients;
        clients.len() == 1 && clients[0].key.to_string() == new
    });
    let refused = |key: &str| {
        home.coordinator.refused(&["client", "add", "home", "x", "--gateway", "office", "--key", key])
    };
    assert!(refused(&own).contains("was that of client truck"), "{}", refused(&own));
    home.coordinator.ok(&["client", "delete", "home", "truck"]);
    home.assignment(|assignment| let_in(assignment) == 0);
    home.other.wait_for(member, |update: &MemberUpdate| prefixes(update, 0));
    assert!(refused(&new).contains("used once and never again"));
    assert!(home.coordinator.refused(&["client", "show", "home", "truck"]).contains("client add"));
    let again = home.add("van", &[]);
    assert!(!value(&again, "Address").unwrap().contains(value(&file, "Address").unwrap()), "a new address");
}

#[test]
fn expired_client_is_shut_out_at_once() {
    let home = Home::new();
    home.add("guest", &["--expires", "3s"]);
    home.assignment(|assignment| let_in(assignment) == 1);
    let expires = home.client("guest")["expires"].as_u64().unwrap();
    home.assignment(|assignment| let_in(assignment) == 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((expires..=expires + 2).contains(&now), "{now} for {expires}");
    assert_eq!(home.client("guest")["state"], "expired");
    home.coordinator.ok(&["client", "set", "home", "guest", "--expires", "never"]);
    home.assignment(|assignment| let_in(assignment) == 1);
}

#[test]
fn node_unreachable_for_phones_is_refused_as_ingress() {
    let home = Home::new();
    let (code, ca) =
        (home.coordinator.code(&["--roles", "egress"]), text(&home.coordinator.data().join("ca.crt")));
    Router::new(3, "shop").join(&code, &ca).unwrap();
    let said = home.coordinator.refused(&["ingress", "set", "home", "shop"]);
    assert!(said.contains("--roles"), "{said}");
    let code = home.coordinator.code(&[]);
    let mut hidden = Router::new(4, "flat");
    hidden.request.endpoints.clear();
    hidden.join(&code, &ca).unwrap();
    let said = home.coordinator.refused(&["ingress", "set", "home", "flat"]);
    assert!(said.contains("can't be reached from outside") && said.contains("--endpoint"), "{said}");
    let list = home.coordinator.json(&["ingress", "list", "home"]);
    let flat = list.as_array().unwrap().iter().find(|view| view["node"] == "flat").unwrap();
    assert!(flat["reachable"] == false && flat["why"].as_str().unwrap().contains("51820"), "{flat}");
    home.coordinator.ok(&["ingress", "set", "home", "flat", "--endpoint", "VPN.example.org:4500"]);
    let file = home.coordinator.ok(&["client", "add", "home", "laptop", "--gateway", "flat", "--full"]);
    assert_eq!(value(&file, "Endpoint"), Some("vpn.example.org:4500"));
    assert_eq!(value(&file, "AllowedIPs"), Some("0.0.0.0/0, ::/0"));

    let said = home.coordinator.refused(&["ingress", "unset", "home", "flat"]);
    assert!(said.contains("laptop") && said.contains("--force"), "{said}");
    assert!(home.coordinator.refused(&["node", "remove", "home", "flat"]).contains("laptop"));
    home.coordinator.ok(&["node", "remove", "home", "flat", "--force"]);
    assert_eq!(home.client("laptop")["state"], "no-gateway");
    home.coordinator.ok(&["client", "reissue", "home", "laptop", "--gateway", "office"]);
    home.assignment(|assignment| let_in(assignment) == 1);
    assert_eq!(home.client("laptop")["gateways"].as_array().unwrap().len(), 2);
}

#[test]
fn file_is_stale_until_the_new_one_is_issued() {
    let home = Home::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("laptop.conf");
    let out = path.to_str().unwrap();
    assert_eq!(home.add("laptop", &["--psk", "--out", out]), "");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let foreign = dir.path().join("foreign");
    std::fs::write(&foreign, "").unwrap();
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o644)).unwrap();
    let get = ["client", "config", "home", "laptop", "--out", foreign.to_str().unwrap()];
    assert!(home.coordinator.refused(&get).contains("chmod 600"), "others could read the keys in it");
    assert_eq!(mode(&foreign), 0o644, "its mode is its owner's business");
    let old = text(&path);
    assert_eq!(home.client("laptop")["stale"], serde_json::json!([]));
    home.coordinator.ok(&["egress", "set", "home", "cabin", "192.168.9.0/24"]);
    let stale = home.client("laptop")["stale"].to_string();
    assert!(stale.contains("prefix 192.168.9.0/24 is new"), "{stale}");

    let get = ["client", "config", "home", "laptop"];
    let shown = home.coordinator.ok(&get);
    assert!(shown.contains("# PrivateKey") && shown.contains("# PresharedKey"), "{shown}");
    let filled = home.coordinator.ok(&[&get[..], &["--private-key-file", out, "--mark"]].concat());
    assert_eq!(filled.replace(", 192.168.9.0/24", ""), old, "the same secrets, one prefix more");
    assert_eq!(home.client("laptop")["stale"], serde_json::json!([]));
    let instead = home.coordinator.ok(&["client", "qr", "home", "laptop", "--private-key-file", out]);
    assert_eq!(instead, filled, "stdout is no terminal: the file takes the place of the QR code");
    assert!(home.coordinator.refused(&["client", "qr", "home", "laptop"]).contains("--private-key-file"));
    std::fs::write(&path, BASE64.encode(&[9; 32])).unwrap();
    let said = home.coordinator.refused(&["client", "qr", "home", "laptop", "--private-key-file", out]);
    assert!(said.contains("not that of client laptop"), "{said}");
}

#[test]
fn client_is_shown_as_its_gateway_reports_it() {
    let home = Home::new();
    let own = WgPublicKey([77; 32]);
    home.add("phone", &["--key", &own.to_string()]);
    assert_eq!(home.client("phone")["live"], Value::Null);
    let seen = ClientReport {
        key: own,
        endpoint: Some("198.51.100.7:4500".parse().unwrap()),
        handshake_s: Some(7),
        rx: 1000,
        tx: 2000,
    };
    home.link.report(&Report { clients: vec![seen], ..home.router.report(&home.gateway, 1) });
    let live =
        eventually("the report", || Some(home.client("phone")["live"].clone()).filter(Value::is_object));
    assert_eq!((&live["online"], &live["rx"], &live["tx"]), (&true.into(), &1000.into(), &2000.into()));
    assert_eq!(live["endpoint"], "198.51.100.7:4500");
    assert!(
        home.coordinator.ok(&["client", "list", "home"]).contains("198.51.100.7")
            || live["handshake_s"].as_u64() >= Some(7)
    );
}

/// Looks for a private key, and for a preshared key where only the gateway's record may be, after both were shown.
#[test]
fn private_key_is_stored_nowhere() {
    let mut home = Home::new();
    let file = home.add("phone", &["--psk"]);
    let again = home.coordinator.ok(&["client", "reissue", "home", "phone"]);
    home.assignment(|assignment| let_in(assignment) == 1);
    let secrets: Vec<_> =
        [&file, &again].map(|file| value(file, "PrivateKey").unwrap().to_owned()).into_iter().collect();
    let psk = value(&again, "PresharedKey").unwrap().to_owned();
    assert_ne!(value(&file, "PresharedKey").unwrap(), psk);

    let mut said = String::new();
    for args in [
        &["client", "show", "home", "phone"][..],
        &["client", "list", "home"],
        &["client", "config", "home", "phone"],
        &["ingress", "list", "home"],
        &["node", "show", "home", "office"],
        &["status"],
    ] {
        said += &home.coordinator.json(args).to_string();
    }
    assert!(!said.contains(&psk), "a preshared key is not shown again");
    home.coordinator.terminate();
    let log = home.coordinator.log();
    assert!(!log.contains(&psk), "nor written to the log");
    for secret in &secrets {
        let bytes = BASE64.decode(secret.as_bytes()).unwrap();
        let forms = [
            BASE64.encode(&bytes),
            BASE64URL.encode(&bytes),
            BASE64URL_NOPAD.encode(&bytes),
            HEXLOWER.encode(&bytes),
            HEXUPPER.encode(&bytes),
        ];
        let found = |place: &str, content: &[u8]| {
            assert!(!holds(content, &bytes), "the bytes are in {place}");
            for form in &forms {
                assert!(!holds(content, form.trim_end_matches('=').as_bytes()), "{form} is in {place}");
            }
        };
        found("the log", log.as_bytes());
        found("an answer", said.as_bytes());
        let files = files(&home.coordinator.data());
        assert!(files.iter().any(|path| path.extension().is_some_and(|name| name == "db")), "{files:?}");
        for path in files {
            found(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
    // Proves that the search works: the public key is in the database.
    let key = public(&secrets[1]);
    let found = |path: &std::path::PathBuf| holds(&std::fs::read(path).unwrap(), key.as_bytes());
    assert!(files(&home.coordinator.data()).iter().any(found));
}

fn holds(content: &[u8], wanted: &[u8]) -> bool {
    content.windows(wanted.len()).any(|part| part == wanted)
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(files).filter(|path| path.is_file()).collect()
}

#[test]
fn dry_run_creates_nothing_and_shows_no_key() {
    let home = Home::new();
    let roster = home.link.record::<Roster>(Topic::Roster(home.gateway.net));
    let token = text(&home.coordinator.data().join("admin.token"));
    let ca =
        ureq::tls::Certificate::from_pem(text(&home.coordinator.data().join("ca.crt")).as_bytes()).unwrap();
    let tls = ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let spec = serde_json::json!({"name": "phone", "gateways": ["office"], "psk": true});
    let answer = agent
        .post(format!("{}/v1/networks/home/clients?dry_run=true", home.coordinator.url()))
        .header("Authorization", format!("Bearer {}", token.trim()))
        .send_json(&spec)
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap();
    let config = answer["config"].as_str().unwrap();
    assert!(config.contains("Address = ") && value(config, "PrivateKey").is_none(), "{config}");
    assert!(value(config, "PresharedKey").is_none());
    assert!(home.coordinator.refused(&["client", "show", "home", "phone"]).contains("no client"));
    assert_eq!(home.link.record::<Roster>(Topic::Roster(home.gateway.net)), roster);
}
