//! Sessions of the page: a token is sent once and a cookie is used from then on. Bounded in time and number,
//! and in memory only: after a restart the user logs in again. The rights of a session's token are looked up
//! with each request, so that revoking the token ends its sessions.

use crate::registry::{TokenId, token_hash};
use axum::http::HeaderMap;
use data_encoding::BASE64URL_NOPAD;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Lifetime of a session of the page: a working day.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Largest number of sessions of the page; one more replaces the oldest.
const LIMIT: usize = 1000;
/// Name of the session's cookie. With `__Host-` browsers accept it over HTTPS only, for this host and all its paths.
const COOKIE: &str = "__Host-gatewrt";
/// Header of a change that proves that it comes from the page: no other site can read its value.
const CSRF: &str = "x-csrf-token";

/// Id of a session of the page: the hash of its cookie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(String);

/// Session of one login to the page.
#[derive(Debug, Clone)]
pub struct Session {
    /// Id of the session.
    pub id: SessionId,
    /// Token of the login.
    pub token: TokenId,
    /// Value that each change has to send.
    pub csrf: String,
    began: Instant,
}

impl SessionId {
    fn of(cookie: &str) -> Self {
        Self(token_hash(cookie))
    }
}

impl Session {
    /// Remaining time of the session, in seconds.
    pub fn left(&self, now: Instant) -> u64 {
        LIFE.saturating_sub(now.duration_since(self.began)).as_secs()
    }
}

/// All sessions of the page. See the module.
#[derive(Debug, Default)]
pub struct Logins(Mutex<BTreeMap<SessionId, Session>>);

impl Logins {
    /// Begins a session of the page. Returns the value of its cookie, and the session.
    pub fn begin(&self, token: TokenId, now: Instant) -> (String, Session) {
        let secret = || BASE64URL_NOPAD.encode(&crate::pki::random::<32>());
        let cookie = secret();
        let session = Session { id: SessionId::of(&cookie), token, csrf: secret(), began: now };
        let mut sessions = self.all();
        sessions.retain(|_, session| session.left(now) > 0);
        if sessions.len() >= LIMIT {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.began).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(session.id.clone(), session.clone());
        (cookie, session)
    }

    /// Session that a request's cookie belongs to.
    pub fn of(&self, headers: &HeaderMap, now: Instant) -> Option<Session> {
        let id = SessionId::of(cookie_in(headers)?);
        self.all().get(&id).filter(|session| session.left(now) > 0).cloned()
    }

    /// True until a session of the page ends.
    pub fn is_open(&self, id: &SessionId, now: Instant) -> bool {
        self.all().get(id).is_some_and(|session| session.left(now) > 0)
    }

    /// Ends the session that a request's cookie belongs to.
    pub fn end(&self, headers: &HeaderMap) {
        if let Some(cookie) = cookie_in(headers) {
            self.all().remove(&SessionId::of(cookie));
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SessionId, Session>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

fn cookie_in(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).next()
}

/// Value of the `Set-Cookie` header for a session; an empty cookie deletes it.
pub(super) fn set_cookie(value: &str) -> String {
    let life = if value.is_empty() { 0 } else { LIFE.as_secs() };
    format!("{COOKIE}={value}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Strict")
}

/// True if a change comes from our own page: it sends the value that only the page knows, and the browser confirms the
/// origin.
pub(super) fn is_own(session: &Session, headers: &HeaderMap) -> bool {
    let shown = headers.get(CSRF).and_then(|value| value.to_str().ok()).unwrap_or_default();
    token_hash(shown) == token_hash(&session.csrf) && same_origin(headers) == Some(true)
}

/// True if the browser says that a request comes from our own page; `None` if it says nothing, as other programs do.
pub(super) fn same_origin(headers: &HeaderMap) -> Option<bool> {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = header("sec-fetch-site") {
        return Some(site == "same-origin");
    }
    let origin = header("origin")?;
    Some(header("host").is_some_and(|host| origin.strip_prefix("https://") == Some(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenId {
        serde_json::from_value("1".into()).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        HeaderMap::from_iter(pairs.collect::<Vec<(axum::http::HeaderName, _)>>())
    }

    #[test]
    fn session_ends_after_its_lifetime_and_at_logout() {
        let (logins, now) = (Logins::default(), Instant::now());
        let (cookie, Session { id, .. }) = logins.begin(token(), now);
        let shown = headers(&[("cookie", &format!("a=b; {COOKIE}={cookie}"))]);
        assert!(logins.of(&shown, now + LIFE - Duration::from_secs(2)).is_some());
        assert!(logins.of(&shown, now + LIFE).is_none());
        assert!(logins.is_open(&id, now) && !logins.is_open(&id, now + LIFE));
        assert!(logins.of(&headers(&[("cookie", &format!("{COOKIE}=x"))]), now).is_none());
        logins.end(&shown);
        assert!(logins.of(&shown, now).is_none() && !logins.is_open(&id, now));
    }

    #[test]
    fn sessions_over_the_limit_replace_the_oldest() {
        let (logins, now) = (Logins::default(), Instant::now());
        let (first, _) = logins.begin(token(), now);
        for number in 1..=LIMIT {
            logins.begin(token(), now + Duration::from_millis(number as u64));
        }
        assert_eq!(logins.all().len(), LIMIT);
        assert!(logins.of(&headers(&[("cookie", &format!("{COOKIE}={first}"))]), now).is_none());
    }

    #[test]
    fn change_from_another_origin_is_not_our_own() {
        let session = Logins::default().begin(token(), Instant::now()).1;
        let csrf = session.csrf.as_str();
        for (pairs, own) in [
            (&[("x-csrf-token", csrf), ("sec-fetch-site", "same-origin")][..], true),
            (&[("x-csrf-token", csrf), ("origin", "https://gw:1"), ("host", "gw:1")], true),
            (&[("x-csrf-token", csrf), ("origin", "https://evil"), ("host", "gw:1")], false),
            (&[("x-csrf-token", csrf), ("origin", "http://gw:1"), ("host", "gw:1")], false),
            (&[("x-csrf-token", csrf), ("sec-fetch-site", "same-site")], false),
            (&[("x-csrf-token", csrf)], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("x-csrf-token", "x"), ("sec-fetch-site", "same-origin")], false),
        ] {
            assert_eq!(is_own(&session, &headers(pairs)), own, "{pairs:?}");
        }
    }
}
