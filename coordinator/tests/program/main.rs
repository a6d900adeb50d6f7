//! Tests of the real program over real HTTPS and MQTT.
#![allow(clippy::unwrap_used)]

mod admin;
mod admin_token;
mod advertise;
mod api;
mod attack;
mod backup;
mod clients;
mod coordinator;
mod crash;
mod exits;
mod first_start;
mod joining;
mod live;
mod obeyed;
mod recovery;
mod removal;
mod restore;
mod router;
mod rules;
mod storage;
mod weather;

use std::time::{Duration, Instant};

/// Polls until `what` holds.
pub fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
