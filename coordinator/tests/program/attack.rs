//! Service to sound callers while one host does its worst, and the way of local commands past it.

mod attacker;

use crate::{
    api::client::Api,
    coordinator::{Coordinator, local_admin, run, text},
    router::{Link, Router},
};
use attacker::{Attacker, Worst};
use gatewrt_protocol::{Policy, Topic};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// Host that attacks, and opens another connection for each that is closed.
const HOST: (Ipv4Addr, bool) = (Ipv4Addr::new(127, 0, 0, 2), true);
/// Host that holds what it gets, and has the address of sound callers, as behind one NAT.
const NEIGHBOUR: (Ipv4Addr, bool) = (Ipv4Addr::LOCALHOST, false);
/// Largest growth of the coordinator's memory in an attack, in KiB: a thousand connections, and each reads nothing.
const GROWTH: u64 = 128 * 1024;
/// Largest number of lines in the log of an attack.
const LINES: usize = 200;

/// Coordinator before an attack, with what it takes to compare.
struct Target {
    coordinator: Coordinator,
    ca: String,
    memory: u64,
    lines: usize,
    slowest: Duration,
}

impl Target {
    fn new() -> Self {
        raise_open_files();
        let coordinator = Coordinator::with_home();
        let ca = text(&coordinator.data().join("ca.crt"));
        let (memory, lines) = (coordinator.memory(), coordinator.log().lines().count());
        Self { coordinator, ca, memory, lines, slowest: Duration::ZERO }
    }

    fn https(&self) -> String {
        self.coordinator.url().trim_start_matches("https://").to_owned()
    }

    /// Does what has to be answered during an attack.
    fn sound<T>(&mut self, what: impl FnOnce(&Coordinator) -> T) -> T {
        let began = Instant::now();
        let answer = what(&self.coordinator);
        self.slowest = self.slowest.max(began.elapsed());
        answer
    }

    /// Checks what an attack costs, while it goes on.
    fn check(&self, attack: &[Attacker]) {
        let opened: usize = attack.iter().map(Attacker::opened).sum();
        let grown = self.coordinator.memory().saturating_sub(self.memory);
        let log = self.coordinator.log();
        let lines = log.lines().count() - self.lines;
        println!(
            "{opened} connections of attackers: slowest answer {:?}, memory + {grown} KiB, {lines} lines of log",
            self.slowest
        );
        assert!(grown < GROWTH, "memory grew by {grown} KiB");
        assert!(
            lines < LINES,
            "{lines} lines: {}",
            log.lines().take(self.lines + 40).collect::<Vec<_>>().join("\n")
        );
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    }
}

/// Raises the limit of open files to what the system allows.
fn raise_open_files() -> usize {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let (_, hard) = getrlimit(RLIMIT_NOFILE).unwrap();
    setrlimit(RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap()
}

/// Waits until each attack has opened all its connections, however slow this machine is.
fn opened(attack: &[Attacker]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !attack.iter().all(Attacker::is_complete) {
        let opened: Vec<_> = attack.iter().map(Attacker::opened).collect();
        assert!(Instant::now() < deadline, "connections of attackers so far: {opened:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn https_answers_while_a_host_holds_all_it_can() {
    let mut target = Target::new();
    let (to, ca) = (target.https(), target.ca.clone());
    let attack: Vec<_> = [
        (HOST, Worst::Idle, 1100),
        (HOST, Worst::HalfHandshake, 100),
        (HOST, Worst::SlowHead, 80),
        (HOST, Worst::SlowBody, 80),
        (HOST, Worst::UnreadAnswers, 120),
        (HOST, Worst::UnreadHeads, 80),
        (NEIGHBOUR, Worst::HalfHandshake, 300),
        (NEIGHBOUR, Worst::SlowBody, 300),
    ]
    .map(|((from, is_stubborn), worst, count)| Attacker::start(from, is_stubborn, &to, &ca, worst, count))
    .into();
    opened(&attack);
    let code = target.sound(|coordinator| coordinator.code(&["--uses", "9"]));
    for number in 1..=5 {
        let networks = target.sound(|coordinator| Api::of(coordinator).get("/v1/networks"));
        assert_eq!(networks.body[0]["name"], "home");
        let mut anyone = Api::of(&target.coordinator);
        anyone.token.clear();
        assert_eq!(target.sound(|_| anyone.get("/v1/health")).status, 200);
        let router = Router::new(number, &format!("router{number}"));
        target.sound(|_| router.join(&code, &ca)).unwrap();
        target.sound(|coordinator| coordinator.ok(&["node", "list", "home"]));
    }
    target.check(&attack);
}

#[test]
fn mqtt_takes_routers_while_a_host_holds_all_it_can() {
    let mut target = Target::new();
    let (to, ca) = (target.coordinator.mqtt(), target.ca.clone());
    let code = target.coordinator.code(&["--uses", "9"]);
    let connected = |number| -> Link {
        let (_, answer, link) = Router::online(number, &format!("router{number}"), &code, &ca);
        link.wait_for(Topic::Policy(answer.net), |_: &Policy| true);
        link
    };
    let before = connected(1);
    // One more than the broker has room for, if the system allows.
    let idle = 10_001.min(raise_open_files().saturating_sub(1_000));
    let attack: Vec<_> = [
        (HOST, Worst::Idle, idle),
        (HOST, Worst::HalfHandshake, 300),
        (NEIGHBOUR, Worst::Idle, 300),
        (NEIGHBOUR, Worst::HalfHandshake, 300),
    ]
    .map(|((from, is_stubborn), worst, count)| Attacker::start(from, is_stubborn, &to, &ca, worst, count))
    .into();
    opened(&attack);
    let links: Vec<_> = (2..=6).map(|number| target.sound(|_| connected(number))).collect();
    target.sound(|coordinator| coordinator.ok(&["node", "list", "home"]));
    assert!(!before.has_ended(), "a session that was there goes on");
    assert!(links.iter().all(|link| !link.has_ended()));
    target.check(&attack);
}

#[test]
fn command_on_this_machine_needs_no_token() {
    let mut coordinator = Coordinator::with_home();
    let token = coordinator.data().join("admin.token");
    let aside = coordinator.data().join("aside");
    std::fs::rename(&token, &aside).unwrap();
    assert!(coordinator.ok(&["network", "list"]).contains("home"));
    coordinator.ok(&["code", "create", "home"]);
    let entry = coordinator.json(&["audit", "--last", "1"])[0].clone();
    assert_eq!((entry["who"].as_str(), entry["from"].as_str()), (Some(&*local_admin()), Some("127.0.0.1")));
    assert!(coordinator.refused(&["token", "create", "local ci", "--rights", "read"]).contains("local ci"));

    std::fs::rename(&aside, &token).unwrap();
    coordinator.kill();
    assert!(coordinator.data().join("api.sock").exists(), "left by the kill");
    assert_eq!(coordinator.command(&["network", "list"]).status.code(), Some(3));
    coordinator.start_again();
    std::fs::remove_file(&token).unwrap();
    assert!(coordinator.ok(&["network", "list"]).contains("home"));
    assert_eq!(coordinator.terminate(), Some(0));
    assert!(!coordinator.data().join("api.sock").exists());
}

#[test]
fn command_with_a_token_file_has_the_rights_of_that_token() {
    let coordinator = Coordinator::with_home();
    let token = coordinator.ok(&["token", "create", "reader", "--rights", "read"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, token).unwrap();
    let (data, file) = (coordinator.data(), file.path().to_str().unwrap());
    let options = ["--data", data.to_str().unwrap(), "--token-file", file];
    assert!(run(&["network", "list"], &options).status.success());
    assert_eq!(run(&["network", "create", "work"], &options).status.code(), Some(1));
}
