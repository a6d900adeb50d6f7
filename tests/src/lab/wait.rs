//! Waiting for a condition, with a deadline and a name.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Types that a probe of [`eventually`] may return.
pub trait Outcome {
    /// Value once the condition holds.
    type Value;
    /// Returns the value, or a text that describes the present state.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "not there".to_owned())
    }
}

impl Outcome for bool {
    type Value = ();
    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

/// Polls every 20 ms until the probe gives `Ok`, `Some` or `true`, and prints how long that took. The error names what
/// was awaited and the last state seen.
pub fn eventually<O: Outcome>(deadline: Duration, what: &str, probe: impl FnMut() -> O) -> Result<O::Value> {
    let start = Instant::now();
    let value = until(deadline, what, probe)?;
    eprintln!("[{:>7.3} s] {what}", start.elapsed().as_secs_f64());
    Ok(value)
}

/// Polls as [`eventually`] does, and prints nothing.
pub fn until<O: Outcome>(deadline: Duration, what: &str, mut probe: impl FnMut() -> O) -> Result<O::Value> {
    let start = Instant::now();
    loop {
        let state = match probe().outcome() {
            Ok(value) => return Ok(value),
            Err(state) => state,
        };
        if start.elapsed() >= deadline {
            bail!("not within {:.1} s: {what}; last state: {state}", deadline.as_secs_f64());
        }
        std::thread::sleep(POLL);
    }
}
