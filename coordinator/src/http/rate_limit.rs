//! Rate limits of logins and joins: a token bucket for each [`Source`]. The table is bounded. Pure except for the
//! middleware at the end.

use super::{App, Remote, problem::ApiError};
use crate::admission::Source;
use axum::{
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Largest number of sources of requests that are remembered.
const SOURCES: usize = 4096;
/// Rate of logins. Tokens can't be guessed; the limit protects the log and the session table. After twenty
/// wrong tokens, one more try every six seconds.
const LOGIN: Rate = Rate { burst: 20, every: Duration::from_secs(6) };
/// Rate of joins. A whole fleet behind one NAT may join with one code at once. A join costs a signature and a
/// certificate, about a millisecond: two a second are no load.
const JOIN: Rate = Rate { burst: 200, every: Duration::from_millis(500) };

/// Rate of requests from one source: `burst` at once, and one more after each `every`.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// Token buckets, one for each source of requests: the time when a bucket is full again determines its state.
#[derive(Debug)]
struct Buckets {
    rate: Rate,
    full_at: BTreeMap<Source, Instant>,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: BTreeMap::new() }
    }

    /// Takes a token from the bucket of a source. An error is the time to wait for one.
    fn take(&mut self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let source = Source::of(from);
        let full_at = self.full_at.get(&source).copied().unwrap_or(now).max(now) + self.rate.every;
        let most = self.rate.every * self.rate.burst;
        if let Some(wait) = (full_at - now).checked_sub(most).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.make_room(now);
        self.full_at.insert(source, full_at);
        Ok(())
    }

    /// Removes full buckets if the table of sources is full; if there are none, the one that is full soonest.
    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() < SOURCES {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= SOURCES {
            let least = self.full_at.iter().min_by_key(|(_, full_at)| **full_at).map(|(source, _)| *source);
            least.and_then(|least| self.full_at.remove(&least));
        }
    }
}

/// Rate limits of logins and joins, by source of the requests. See the module.
#[derive(Debug)]
pub struct RateLimits {
    login: Mutex<Buckets>,
    join: Mutex<Buckets>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { login: Mutex::new(Buckets::new(LOGIN)), join: Mutex::new(Buckets::new(JOIN)) }
    }
}

impl RateLimits {
    fn take(&self, path: &str, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let buckets = match path {
            "/v1/login" => &self.login,
            "/v1/join" => &self.join,
            _ => return Ok(()),
        };
        buckets.lock().expect("no holder of this lock panics").take(from, now)
    }
}

pub(super) async fn enforce_rate_limits(Shared(app): Shared<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let from = request
        .extensions()
        .get::<Remote>()
        .expect("the server adds the source address to each request")
        .0
        .ip();
    match app.limits.take(path, from, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            // Rounded up, so that a caller who waits that long succeeds.
            let seconds = wait.as_secs() + 1;
            tracing::warn!(%from, path, "rate limit of an address exceeded");
            let detail = format!("try again in {seconds} s");
            let title = "rate limit of this address exceeded";
            let problem = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", title, detail);
            let mut response = problem.into_response();
            response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets() -> Buckets {
        Buckets::new(Rate { burst: 3, every: Duration::from_secs(2) })
    }

    #[test]
    fn source_after_its_burst_gets_one_at_a_time() {
        let (mut buckets, from, start) = (buckets(), "192.0.2.1".parse().unwrap(), Instant::now());
        let mut take = |seconds| buckets.take(from, start + Duration::from_secs(seconds));
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(Duration::from_secs(2)));
        assert_eq!(take(1), Err(Duration::from_secs(1)));
        assert_eq!(take(2), Ok(()));
        assert_eq!(take(2), Err(Duration::from_secs(2)));
        assert_eq!([take(60), take(60), take(60)], [Ok(()); 3]);
        assert!(take(60).is_err());
    }

    #[test]
    fn hosts_of_one_ipv6_64_share_a_bucket() {
        let (mut buckets, now) = (buckets(), Instant::now());
        let mut take = |from: &str| buckets.take(from.parse().unwrap(), now).is_ok();
        assert!(take("2001:db8::1") && take("2001:db8::2") && take("2001:db8::ffff:0:1"));
        assert!(!take("2001:db8::3"), "the same /64");
        assert!(take("2001:db8:0:1::1"), "another /64");
    }

    #[test]
    fn table_of_sources_is_bounded() {
        let (mut buckets, now) = (buckets(), Instant::now());
        let busy = "198.51.100.1".parse().unwrap();
        for _ in 0..3 {
            buckets.take(busy, now).unwrap();
        }
        for number in 0..2 * SOURCES as u32 {
            buckets.take(std::net::Ipv4Addr::from_bits(number).into(), now).unwrap();
        }
        assert_eq!(buckets.full_at.len(), SOURCES);
        assert!(buckets.take(busy, now).is_err(), "who tried most is forgotten last");
    }
}
