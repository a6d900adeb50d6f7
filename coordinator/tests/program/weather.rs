//! Clocks that are ahead, go back, or were never set.

use crate::{
    api::client::Api,
    coordinator::{Coordinator, PROGRAM, text},
    eventually,
    router::Router,
};
use gatewrt_protocol::{Assignment, JoinAnswer, JoinCode, PublicKey, Topic};
use serde_json::{Value, json};
use std::{ffi::OsString, fs, path::PathBuf, process::Command};
use tempfile::TempDir;

/// Start of 2026: a clock that shows an earlier time was never set.
const FLOOR: u64 = 1_767_225_600;
const DAY: u64 = 86_400;

/// A coordinator whose clock is set by a file of libfaketime.
struct Faked {
    coordinator: Coordinator,
    clock: PathBuf,
    _dir: TempDir,
}

impl Faked {
    fn start(clock: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("clock");
        fs::write(&file, clock).unwrap();
        let mut coordinator = Coordinator::prepared();
        coordinator.environment = environment();
        coordinator.environment.push(("FAKETIME_TIMESTAMP_FILE".into(), file.clone().into()));
        coordinator.start_again();
        Self { coordinator, clock: file, _dir: dir }
    }

    /// Sets the clock: `+2d`, or a date.
    fn set(&self, clock: &str) {
        let aside = self.clock.with_extension("new");
        fs::write(&aside, format!("{clock}\n")).unwrap();
        fs::rename(aside, &self.clock).unwrap();
    }

    fn behind(&self) -> Option<u64> {
        let api = Api::of(&self.coordinator);
        let said = [api.get("/v1/status").body, api.get("/v1/health").body];
        let [status, health] = said.map(|said| said["clock_behind_s"].as_u64());
        assert!(status.unwrap_or(0).abs_diff(health.unwrap_or(0)) < 30, "{status:?} {health:?}");
        status
    }
}

/// Environment in which libfaketime sets the clock, and nothing else.
fn environment() -> Vec<(OsString, OsString)> {
    let library = fs::read_dir("/usr/lib").unwrap().find_map(|dir| {
        let library = dir.unwrap().path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    });
    let library = library.expect("libfaketime is installed, as by make test");
    let pairs = [
        ("LD_PRELOAD", library.into_os_string()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
        ("TZ", "UTC".into()),
    ];
    pairs.map(|(name, value)| (name.into(), value)).into()
}

/// A network whose node `office` lets the client `phone` in, a token and a code, each of which expires in a day.
struct Expiring {
    faked: Faked,
    router: Router,
    office: JoinAnswer,
    record_key: PublicKey,
    token: Api,
    code: String,
}

impl Expiring {
    fn start() -> Self {
        let faked = Faked::start("+0");
        let coordinator = &faked.coordinator;
        coordinator.ok(&["network", "create", "home"]);
        let code = coordinator.code(&["--uses", "9", "--expires", "1d"]);
        let record_key = code.parse::<JoinCode>().unwrap().record_key;
        let router = Router::new(1, "office");
        let office = router.join(&code, &text(&coordinator.data().join("ca.crt"))).unwrap();
        coordinator.ok(&["ingress", "set", "home", "office"]);
        coordinator.ok(&["client", "add", "home", "phone", "--gateway", "office", "--expires", "1d"]);
        let root = Api::of(coordinator);
        let made = root.post("/v1/tokens", &json!({"name": "day", "rights": "read", "expires_in": DAY}));
        let token = root.with_token(made.body["token"].as_str().unwrap());
        Self { faked, router, office, record_key, token, code }
    }

    fn client(&self) -> Value {
        self.faked.coordinator.json(&["client", "show", "home", "phone"])
    }

    /// Waits until the router's assignment lets that many clients in.
    fn wait_for_clients(&self, count: usize) -> u64 {
        let link = self.router.connect(&self.office, self.record_key);
        let lets_in = |assignment: &Assignment| {
            assignment.ingress.as_ref().map_or(0, |ingress| ingress.clients.len()) == count
        };
        link.wait_for(Topic::Assignment(self.office.node), lets_in).rev
    }

    /// All that has expired is expired for everyone who asks, and for the router.
    fn check_expired(&self) {
        assert_eq!(self.client()["state"], "expired");
        self.wait_for_clients(0);
        assert_eq!(self.token.get("/v1/me").status, 401);
        let listed = Api::of(&self.faked.coordinator).get("/v1/tokens").body;
        assert_eq!((&listed[1]["name"], &listed[1]["valid"]), (&"day".into(), &false.into()));
        let code = &self.faked.coordinator.json(&["code", "list", "home"])[0];
        assert_eq!((&code["state"], &code["expires_in"]), (&"expired".into(), &0.into()));
        let ca = text(&self.faked.coordinator.data().join("ca.crt"));
        assert_eq!(Router::new(2, "cabin").join(&self.code, &ca).unwrap_err().kind, "code-expired");
    }
}

#[test]
fn what_expired_while_the_clock_was_ahead_stays_so_until_an_admin_acts() {
    let mut world = Expiring::start();
    world.wait_for_clients(1);
    assert_eq!((world.client()["state"].as_str(), world.faked.behind()), (Some("enabled"), None));
    world.faked.set("+2d");
    eventually("the client to expire", || (world.client()["state"] == "expired").then_some(()));
    world.check_expired();
    assert_eq!(world.faked.behind(), None);

    world.faked.set("+0");
    let behind = eventually("the clock to be seen behind", || world.faked.behind());
    assert!((2 * DAY - 120..=2 * DAY).contains(&behind), "{behind}");
    world.check_expired();
    let status = world.faked.coordinator.ok(&["status"]);
    assert!(status.contains("behind the latest time"), "{status}");
    assert!(world.faked.coordinator.log().contains("behind the latest time that was seen"));
    world.faked.coordinator.kill();
    world.faked.coordinator.start_again();
    world.check_expired();
    assert!(world.faked.behind().is_some(), "it is stored");

    let coordinator = &world.faked.coordinator;
    let said = coordinator.command(&["client", "enable", "home", "phone"]);
    assert!(String::from_utf8(said.stderr).unwrap().contains("client set home phone --expires"));
    coordinator.ok(&["client", "set", "home", "phone", "--expires", "1d"]);
    assert_eq!(world.client()["state"], "enabled");
    world.wait_for_clients(1);
    let root = Api::of(coordinator);
    let made = root.post("/v1/tokens", &json!({"name": "short", "rights": "read", "expires_in": 2}));
    let short = root.with_token(made.body["token"].as_str().unwrap());
    assert_eq!(short.get("/v1/me").status, 200, "what is new is not shut out for two days");
    eventually("it to expire in time", || (short.get("/v1/me").status == 401).then_some(()));
}

#[test]
fn same_expiry_again_lets_a_client_in_that_a_wrong_clock_shut_out() {
    let world = Expiring::start();
    world.faked.set("+2d");
    eventually("the client to expire", || (world.client()["state"] == "expired").then_some(()));
    world.faked.set("+0");
    eventually("the clock to be seen behind", || world.faked.behind());
    let root = Api::of(&world.faked.coordinator);
    let path = "/v1/networks/home/clients/phone";
    let expires = world.client()["expires"].clone();
    let changed = root.call("PATCH", path, &[], Some(&json!({"label": "x"})));
    assert_eq!(changed.body["state"], "expired", "another change is no decision about that");
    let changed = root.call("PATCH", path, &[], Some(&json!({"expires": expires})));
    assert_eq!(changed.body["state"], "enabled", "{}", changed.body);
    world.wait_for_clients(1);
}

#[test]
fn clock_in_the_past_at_start_revives_nothing() {
    let mut faked = Faked::start("+0");
    faked.coordinator.ok(&["network", "create", "home"]);
    let ca = text(&faked.coordinator.data().join("ca.crt"));
    let code = faked.coordinator.code(&["--expires", "1s"]);
    let root = Api::of(&faked.coordinator);
    let made = root.post("/v1/tokens", &json!({"name": "short", "rights": "read", "expires_in": 1}));
    let short = root.with_token(made.body["token"].as_str().unwrap());
    eventually("the token to expire", || (short.get("/v1/me").status == 401).then_some(()));
    // What an answer takes for expired is stored before.
    faked.coordinator.kill();
    faked.set("-10d");
    faked.coordinator.start_again();
    assert_eq!(short.get("/v1/me").status, 401);
    assert_eq!(Router::new(1, "office").join(&code, &ca).unwrap_err().kind, "code-expired");
    assert!(faked.behind().unwrap() > 9 * DAY);
}

#[test]
fn unset_clock_counts_on_from_the_latest_time() {
    let mut faked = Faked::start("@1970-01-01 00:00:05");
    faked.coordinator.ok(&["network", "create", "home"]);
    let at =
        |coordinator: &Coordinator| coordinator.json(&["audit", "--last", "1"])[0]["at"].as_u64().unwrap();
    let first = at(&faked.coordinator);
    assert!((FLOOR..FLOOR + DAY).contains(&first), "{first}");
    assert!(faked.behind().unwrap() > 50 * 365 * DAY);
    faked.set("+0");
    eventually("the clock to be right", || faked.behind().is_none().then_some(()));
    let code = faked.coordinator.code(&[]);
    let right = at(&faked.coordinator);
    assert!(right > first);
    faked.coordinator.terminate();
    faked.set("@1970-01-01 00:00:05");
    faked.coordinator.start_again();
    faked.coordinator.ok(&["network", "create", "work"]);
    assert!((right..right + DAY).contains(&at(&faked.coordinator)));
    let ca = text(&faked.coordinator.data().join("ca.crt"));
    Router::new(1, "office").join(&code, &ca).unwrap();
}

#[test]
fn clock_before_1970_is_reported() {
    let dir = TempDir::new().unwrap();
    for args in [&["serve", "--https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"][..], &["status"]] {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--data").arg(dir.path().join("data"));
        command.envs(environment()).env("FAKETIME", "1969-12-31 12:00:00");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("before 1970: set it") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn date_beyond_all_calendars_is_shown() {
    let world = Expiring::start();
    let far = json!({"expires": 1u64 << 60});
    let changed =
        Api::of(&world.faked.coordinator).call("PATCH", "/v1/networks/home/clients/phone", &[], Some(&far));
    assert_eq!(changed.status, 200, "{}", changed.body);
    let shown = world.faked.coordinator.ok(&["client", "show", "home", "phone"]);
    assert!(shown.contains("s after 1970"), "{shown}");
}
