//! Answers: JSON with an entity tag (RFC 9110, 8.8.3), and lists in parts with a link to the next (RFC 8288).
//!
//! An entity tag covers the spec of a resource, not its live state: counters and reports change all the time,
//! and must not make changes fail with “changed meanwhile”. So a resource with live state is never answered
//! with 304: that state is not in the tag and may differ.

use super::{problem::ApiError, resource::Resource};
use crate::obeyed::{Changed, Obeyed};
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use serde::Serialize;
use std::borrow::Cow;

/// Answer of an API handler: a reply or an error.
pub type Answer<V> = Result<Reply<V>, ApiError>;
/// Answer of an API handler that lists items.
pub type Listed<V> = Answer<Vec<V>>;

/// Largest and default number of items of a list in one answer.
pub const PAGE: u32 = 1000;

/// Entity tag (`ETag`) of a resource, with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// Entity tag of a resource, computed from its spec: it stays while only the resource's state changes.
    pub fn of(view: &impl Resource) -> Self {
        match view.spec() {
            Some(wanted) => Self::exact(&json(&wanted)),
            None => Self::exact(&json(view)),
        }
    }

    fn exact(body: &[u8]) -> Self {
        Self(format!("\"{}\"", BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, body).as_ref())))
    }

    /// True if the value of an `If-Match` or `If-None-Match` header contains the tag. Weak tags never match.
    pub fn is_in(&self, header: &str) -> bool {
        header.split(',').map(str::trim).any(|tag| tag == "*" || tag == self.0)
    }
}

/// Reply of the API: status and body, with the body's entity tag. See the module.
#[derive(Debug)]
pub struct Reply<V> {
    /// Status, mostly 200.
    pub status: StatusCode,
    /// View that the answer shows.
    pub body: V,
    tag: EntityTag,
    link: Option<String>,
    obeyed: Option<Obeyed>,
}

impl<V: Resource> Reply<V> {
    /// Reply to a request that changed a resource, with status 200.
    pub fn of(body: V) -> Self {
        Self { status: StatusCode::OK, tag: EntityTag::of(&body), body, link: None, obeyed: None }
    }

    /// Adds who obeys the change that the reply is about. It is no part of the entity tag.
    pub(super) fn obeyed(self, obeyed: Option<Obeyed>) -> Self {
        Self { obeyed, ..self }
    }

    pub(super) fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn shown(body: V, if_none_match: Option<&str>) -> Self {
        let has_it =
            |tag: &EntityTag| body.spec().is_none() && if_none_match.is_some_and(|seen| tag.is_in(seen));
        let tag = EntityTag::of(&body);
        Self { status: status(has_it(&tag)), body, tag, link: None, obeyed: None }
    }
}

impl<V: Serialize> Reply<Vec<V>> {
    pub(super) fn listed(body: Vec<V>, link: Option<String>, if_none_match: Option<&str>) -> Self {
        let tag = EntityTag::exact(&json(&body));
        let status = status(if_none_match.is_some_and(|seen| tag.is_in(seen)));
        Self { status, body, tag, link, obeyed: None }
    }
}

fn status(has_it: bool) -> StatusCode {
    if has_it { StatusCode::NOT_MODIFIED } else { StatusCode::OK }
}

impl<V: Serialize> IntoResponse for Reply<V> {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("application/json");
        let mut headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, kind), (header::ETAG, text(self.tag.0))]);
        headers.extend(self.link.map(|link| (header::LINK, text(link))));
        let body = match (self.status, self.obeyed) {
            (StatusCode::NOT_MODIFIED, _) => Vec::new(),
            (_, None) => json(&self.body),
            (_, obeyed) => json(&Changed { view: &self.body, obeyed }),
        };
        (self.status, headers, body).into_response()
    }
}

fn text(header: String) -> HeaderValue {
    header.try_into().expect("hashes, paths as they came, and keys that are escaped")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("views are JSON")
}

/// Part of a list that a request asks for: `?limit=&after=`.
#[derive(Debug, Clone)]
pub struct Page {
    path: String,
    query: Vec<(String, String)>,
    /// Largest number of items.
    pub limit: u32,
    /// Key after which the part begins.
    pub after: Option<String>,
}

impl Page {
    pub(super) fn new(uri: &Uri, limit: Option<u32>, after: Option<String>) -> Result<Self, ApiError> {
        let limit = limit.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&limit) {
            let title = format!("limit {limit} is out of range");
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "out-of-range",
                title,
                format!("allowed: 1 to {PAGE}; the header “Link” has the address of what follows"),
            ));
        }
        let parts = uri.query().unwrap_or_default().split('&').filter_map(|part| part.split_once('='));
        let kept = parts.filter(|(name, _)| !["limit", "after"].contains(name));
        let query = kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { path: uri.path().to_owned(), query, limit, after })
    }

    /// Cuts the requested part out of a list, which it orders by key, with the link to the next part.
    pub fn cut<V>(&self, mut all: Vec<(String, V)>) -> (Vec<V>, Option<String>) {
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let from = all.partition_point(|(key, _)| self.after.as_ref().is_some_and(|after| key <= after));
        let rest = all.len() - from;
        let part: Vec<_> = all.into_iter().skip(from).take(self.limit as usize).collect();
        let last = part.last().map(|(key, _)| key.clone()).filter(|_| part.len() < rest);
        (part.into_iter().map(|(_, view)| view).collect(), last.map(|last| self.link(&last)))
    }

    /// Value of the `Link` header to the part of a list that follows the key `last`.
    pub fn link(&self, last: &str) -> String {
        let other = self.query.iter().map(|(name, value)| format!("{name}={value}&")).collect::<String>();
        format!("<{}?{other}limit={}&after={}>; rel=\"next\"", self.path, self.limit, escaped(last))
    }
}

/// Text escaped as one value of a query.
fn escaped(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(plain) {
        return text.into();
    }
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str, limit: u32, after: Option<&str>) -> Page {
        Page::new(&text.parse().unwrap(), Some(limit), after.map(str::to_owned)).unwrap()
    }

    fn items(keys: &[&str]) -> Vec<(String, String)> {
        keys.iter().map(|key| ((*key).to_owned(), key.to_uppercase())).collect()
    }

    #[test]
    fn list_in_parts_is_ordered_and_ends() {
        let (part, link) = page("/v1/x?limit=2&q=a%20b", 2, None).cut(items(&["c", "a", "b/"]));
        assert_eq!(part, ["A", "B/"]);
        assert_eq!(link.unwrap(), "</v1/x?q=a%20b&limit=2&after=b%2F>; rel=\"next\"");
        let (part, link) = page("/v1/x", 2, Some("b/")).cut(items(&["c", "a", "b/"]));
        assert_eq!((part, link), (vec!["C".to_owned()], None));
    }

    #[test]
    fn item_deleted_between_parts_keeps_the_position() {
        let (part, _) = page("/v1/x", 9, Some("b")).cut(items(&["d", "c", "a"]));
        assert_eq!(part, ["C", "D"]);
    }

    #[test]
    fn limit_out_of_range_is_refused() {
        for limit in [0, PAGE + 1] {
            assert_eq!(Page::new(&"/".parse().unwrap(), Some(limit), None).unwrap_err().0.status, 400);
        }
    }

    #[test]
    fn entity_tag_matches_only_itself() {
        let tag = EntityTag::exact(b"x");
        assert!(tag.is_in("*") && tag.is_in(&tag.0) && tag.is_in(&format!("\"y\", {}", tag.0)));
        assert!(!tag.is_in("") && !tag.is_in("\"y\"") && !tag.is_in(&format!("W/{}", tag.0)));
    }
}
