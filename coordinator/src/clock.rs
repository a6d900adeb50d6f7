//! Time of the coordinator, and what is kept of it: a machine's clock may be unset at a start, be ahead for a while, or go
//! back.
//!
//! - The time is what the clock shows. One that shows a time before 2026 was never set: then the time counts on from the
//!   latest one that was seen.
//! - An expiry is carried out once, in the database ([`crate::registry::Registry::expire`]): what has expired stays so,
//!   whatever the clock shows later.
//! - The latest time that was seen is stored. While the clock is behind it, the log, `status` and the health check say
//!   so. It decides nothing else: a clock that was ahead for a minute would stop the time for as long as it was ahead.
//! - Sessions of the page, rate limits and timeouts use a clock that nobody sets.

use serde::{Deserialize, Serialize};
use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Start of 2026, in seconds since 1970. A clock that shows an earlier time was never set.
pub const FLOOR: u64 = 1_767_225_600;
/// Largest number of seconds that a clock is set back without a word: NTP does it.
const TOLERANCE: u64 = 60;
/// Number of seconds after which a clock that went back is taken to be right.
const BELIEVED: u64 = 7 * 86_400;

/// Time from which the coordinator counts while the clock is not set, and when it began to.
static COUNTED: OnceLock<(u64, Instant)> = OnceLock::new();

/// Current time in seconds since 1970.
pub fn now() -> u64 {
    match shown() {
        time if is_set(time) => time,
        _ => {
            let (from, began) = COUNTED.get_or_init(|| (FLOOR, Instant::now()));
            from + began.elapsed().as_secs()
        }
    }
}

/// Time that the clock shows, in seconds since 1970; 0 if it is earlier.
pub fn shown() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Counts on from the latest time that was seen, as long as the clock is not set. Called once, before anything asks.
pub fn count_from(latest: u64) {
    let _ = COUNTED.set((latest.max(FLOOR), Instant::now()));
}

/// True unless the clock shows a time before 1970. Linux takes none, but the libraries that speak TLS and MQTT here
/// would end the program at one.
pub fn is_usable() -> bool {
    SystemTime::now() >= UNIX_EPOCH
}

fn is_set(shown: u64) -> bool {
    shown >= FLOOR
}

/// Last second of the year 9999: texts of dates end there.
pub const LATEST: u64 = 253_402_300_799;

/// Date and time in UTC, such as `2026-12-01T09:30:00Z`. A time that has no such form is given in seconds.
pub fn date(at: u64) -> String {
    let date = UNIX_EPOCH.checked_add(Duration::from_secs(at)).filter(|_| at <= LATEST);
    date.map_or_else(
        || format!("{at} s after 1970"),
        |date| humantime::format_rfc3339_seconds(date).to_string(),
    )
}

/// Latest time that a coordinator has seen on its clock, as the database keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Latest time, in seconds since 1970.
    pub latest: u64,
    /// Earliest time that the clock has shown since it is behind; none while it is not.
    #[serde(default)]
    pub behind_since: Option<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { latest: FLOOR, behind_since: None }
    }
}

impl Seen {
    /// State after the clock has shown `shown`; `now` is the time, see [`now`]. A clock that stays behind for a week is
    /// taken to be right: then it was ahead before.
    pub fn after(self, shown: u64, now: u64) -> Self {
        let latest = self.latest.max(now);
        match self.behind_since {
            _ if shown + TOLERANCE >= latest => Self { latest, behind_since: None },
            Some(since) if is_set(shown) && shown >= since.saturating_add(BELIEVED) => {
                Self { latest: shown, behind_since: None }
            }
            since => Self { latest, behind_since: Some(since.map_or(shown, |since| since.min(shown))) },
        }
    }

    /// Seconds by which the clock, which shows `shown`, is behind the latest time; `None` while it is not.
    pub fn behind(self, shown: u64) -> Option<u64> {
        self.behind_since.map(|_| self.latest.saturating_sub(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const THEN: u64 = FLOOR + 100 * DAY;

    fn after(seen: Seen, shown: u64) -> Seen {
        seen.after(shown, if is_set(shown) { shown } else { seen.latest })
    }

    #[test]
    fn clock_that_was_ahead_is_behind_until_it_is_believed() {
        let seen = after(after(Seen::default(), THEN), THEN + 10 * DAY);
        assert_eq!((seen.latest, seen.behind(THEN + 10 * DAY)), (THEN + 10 * DAY, None));
        let back = after(seen, THEN + 1);
        assert_eq!(back.behind(THEN + 1), Some(10 * DAY - 1));
        let later = after(back, THEN + 6 * DAY);
        assert_eq!((later.latest, later.behind(THEN + 6 * DAY)), (THEN + 10 * DAY, Some(4 * DAY)));
        let believed = after(later, THEN + 8 * DAY);
        assert_eq!((believed.latest, believed.behind(THEN + 8 * DAY)), (THEN + 8 * DAY, None));
    }

    #[test]
    fn clock_that_catches_up_is_not_behind_any_more() {
        let back = after(after(Seen::default(), THEN + 2 * DAY), THEN);
        assert!(back.behind(THEN).is_some());
        assert_eq!(after(back, THEN + 2 * DAY), Seen { latest: THEN + 2 * DAY, behind_since: None });
    }

    #[test]
    fn clock_set_back_a_little_is_not_behind() {
        let seen = after(after(Seen::default(), THEN), THEN - TOLERANCE);
        assert_eq!(seen, Seen { latest: THEN, behind_since: None });
        assert_eq!(after(seen, THEN - TOLERANCE - 1).behind(THEN - TOLERANCE - 1), Some(TOLERANCE + 1));
    }

    #[test]
    fn unset_clock_is_behind_and_never_believed() {
        let seen = after(Seen::default(), 5);
        assert_eq!(seen.behind(5), Some(FLOOR - 5));
        assert!(after(seen, 5 + 2 * BELIEVED).behind_since.is_some());
        assert_eq!(after(seen, THEN), Seen { latest: THEN, behind_since: None });
    }

    #[test]
    fn date_of_any_number_is_a_text() {
        assert_eq!(date(FLOOR), "2026-01-01T00:00:00Z");
        for at in [253_402_300_800, 1 << 60, u64::MAX] {
            assert_eq!(date(at), format!("{at} s after 1970"));
        }
    }
}
