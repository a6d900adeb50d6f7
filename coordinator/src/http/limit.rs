//! How often one source may try to log in or to join: token buckets by address, an IPv6 one by its /64, which
//! is what one host has. The table is bounded. Pure but for the middleware at the end.

use super::{App, Remote, problem::ApiError};
use axum::{
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
    time::{Duration, Instant},
};

/// Sources that are remembered at a time.
const SOURCES: usize = 4096;
/// Tokens can't be guessed; this keeps those who try from filling the log and the session table. Someone who
/// pastes a wrong one has twenty tries, then one in six seconds.
const LOGIN: Rate = Rate { burst: 20, every: Duration::from_secs(6) };
/// A whole fleet may stand behind one NAT and join with one code at once; each join costs a signature and a
/// certificate (a millisecond or so), and two a second are no load.
const JOIN: Rate = Rate { burst: 200, every: Duration::from_millis(500) };

/// So many at once, and one more after each `every`.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// When a source's bucket would be full again: all there is to know of it.
#[derive(Debug)]
struct Buckets {
    rate: Rate,
    full_at: BTreeMap<IpAddr, Instant>,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: BTreeMap::new() }
    }

    /// Takes one, or says how long to wait for it.
    fn take(&mut self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let source = source_of(from);
        let full_at = self.full_at.get(&source).copied().unwrap_or(now).max(now) + self.rate.every;
        let most = self.rate.every * self.rate.burst;
        if let Some(wait) = (full_at - now).checked_sub(most).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.make_room(now);
        self.full_at.insert(source, full_at);
        Ok(())
    }

    /// Forgets those that wait for nothing; and where that is not enough, the one that waits least.
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

fn source_of(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// See the module.
#[derive(Debug)]
pub struct Limits {
    login: Mutex<Buckets>,
    join: Mutex<Buckets>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { login: Mutex::new(Buckets::new(LOGIN)), join: Mutex::new(Buckets::new(JOIN)) }
    }
}

impl Limits {
    fn take(&self, path: &str, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let buckets = match path {
            "/v1/login" => &self.login,
            "/v1/join" => &self.join,
            _ => return Ok(()),
        };
        buckets.lock().expect("no holder of this lock panics").take(from, now)
    }
}

pub(super) async fn in_measure(Shared(app): Shared<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let from =
        request.extensions().get::<Remote>().expect("the server says where a request comes from").0.ip();
    match app.limits.take(path, from, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            // Rounded up: who waits that long gets in.
            let seconds = wait.as_secs() + 1;
            tracing::warn!(%from, path, "too many tries from one address");
            let detail = format!("try again in {seconds} s");
            let title = "too many tries from this address";
            let problem = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-tries", title, detail);
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
    fn a_burst_passes_then_one_at_a_time() {
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
    fn a_host_is_its_address_or_its_64() {
        let (mut buckets, now) = (buckets(), Instant::now());
        let mut take = |from: &str| buckets.take(from.parse().unwrap(), now).is_ok();
        assert!(take("2001:db8::1") && take("2001:db8::2") && take("2001:db8::ffff:0:1"));
        assert!(!take("2001:db8::3"), "the same /64");
        assert!(take("2001:db8:0:1::1"), "another /64");
        assert!(take("192.0.2.1") && take("::ffff:192.0.2.1") && take("192.0.2.1"));
        assert!(!take("::ffff:192.0.2.1"), "the same IPv4 address");
    }

    #[test]
    fn the_table_does_not_grow_without_end() {
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
