//! Endless answers end with the right to read them.

use super::client::Api;
use crate::{
    coordinator::{Coordinator, PROGRAM},
    eventually,
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

const PATHS: [&str; 2] = ["/v1/events", "/v1/watch"];

/// Lines of an endless answer; the channel closes at its end.
struct Stream(Receiver<String>);

impl Stream {
    fn open(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = api.agent.get(format!("{}{path}", api.url));
        if !api.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", api.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.call().unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let (sender, lines) = channel();
        let body = BufReader::new(answer.into_body().into_reader());
        std::thread::spawn(move || {
            body.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)))
        });
        Self(lines)
    }

    /// Lines up to the end of the answer.
    fn rest(self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.0.recv_timeout(Duration::from_secs(10)) {
                Ok(line) => lines.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return lines,
                Err(_) => panic!("the answer goes on after {lines:?}"),
            }
        }
    }
}

/// Checks that an answer has ended, without the changes that came after.
fn check_end(stream: Stream) {
    let lines = stream.rest();
    assert!(!lines.iter().any(|line| line.contains("after")), "{lines:?}");
}

#[test]
fn stream_ends_at_logout() {
    let coordinator = Coordinator::with_home();
    let root = Api::of(&coordinator);
    let open = root.with_token("");
    let login = open.post("/v1/login", &json!({"token": root.token}));
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
    let csrf = login.body["csrf"].as_str().unwrap().to_owned();
    let own = [("cookie", cookie.as_str()), ("x-csrf-token", &csrf), ("sec-fetch-site", "same-origin")];
    let streams = PATHS.map(|path| Stream::open(&open, path, &own));
    let other = Stream::open(&root, "/v1/watch", &[]);
    assert_eq!(open.call("POST", "/v1/logout", &own, None).status, 204);
    root.post("/v1/networks", &json!({"name": "after"}));
    for stream in streams {
        check_end(stream);
    }
    let policy = |line: &String| line.contains("after") && line.contains("policy");
    assert!(other.0.iter().any(|line| policy(&line)), "others go on");
}

#[test]
fn stream_ends_when_its_token_is_revoked_or_expires() {
    let coordinator = Coordinator::with_home();
    let root = Api::of(&coordinator);
    let token = |spec| root.with_token(root.post("/v1/tokens", &spec).body["token"].as_str().unwrap());
    let revoked = token(json!({"name": "revoked", "rights": "read"}));
    let deleted = token(json!({"name": "deleted", "rights": "read", "network": "home"}));
    let expired = token(json!({"name": "expired", "rights": "read", "expires_in": 2}));
    let open = |api: &Api| PATHS.map(|path| Stream::open(api, path, &[]));
    let streams = [open(&revoked), open(&deleted), open(&expired), open(&root)];
    assert_eq!(root.delete("/v1/tokens/revoked").status, 200);
    assert_eq!(root.delete("/v1/networks/home").status, 200, "its token goes with it");
    eventually("the token to expire", || (expired.get("/v1/me").status == 401).then_some(()));
    assert_eq!(root.delete("/v1/tokens/admin.token").status, 200);
    for stream in streams.into_iter().flatten() {
        check_end(stream);
    }
}

#[test]
fn watch_command_says_why_it_ended() {
    let coordinator = Coordinator::with_home();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, coordinator.ok(&["token", "create", "ci", "--rights", "read"])).unwrap();
    let mut watch = Command::new(PROGRAM)
        .args(["watch", "--json", "--data"])
        .arg(coordinator.data())
        .arg("--token-file")
        .arg(file.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = channel();
    let stdout = BufReader::new(watch.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    // It is connected once it sees a change.
    let mut number = 0;
    eventually("the watcher to see a change", || {
        number += 1;
        coordinator.ok(&["network", "create", &format!("net{number}")]);
        lines.try_iter().next()
    });
    coordinator.ok(&["token", "revoke", "ci"]);
    let output = watch.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("token is missing or wrong"), "{said}");
}
