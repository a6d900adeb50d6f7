//! Answers: JSON with an entity tag (RFC 9110, 8.8.3), lists in parts with a link to the next (RFC 8288).
//!
//! A tag stands for what an admin wants of a thing, not for how the thing is just now: counters and reports
//! move by themselves, and must not make every second change fail with “changed meanwhile”. So a thing that has
//! such parts is never answered with 304: the parts that are not in the tag may be others.

use super::problem::ApiError;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;

/// What a handler answers.
pub type Answer<V> = Result<Reply<V>, ApiError>;
/// What a handler of a list answers.
pub type Listed<V> = Answer<Vec<V>>;

/// Items of a list in one answer: what is asked for is at most this, and this where nothing is asked for.
pub const PAGE: u32 = 1000;

/// One thing with a path of its own.
pub trait Resource: Serialize {
    /// What the audit log calls it: its kind and name, such as `node office`.
    fn called(&self) -> String;

    /// The part of it that an admin wants and changes; `None` where that is all of it.
    fn wanted(&self) -> Option<Value> {
        None
    }
}

/// A JSON object without some of its fields: how [`Resource::wanted`] is made.
pub fn without(view: &impl Serialize, fields: &[&str]) -> Option<Value> {
    let mut value = serde_json::to_value(view).expect("views are JSON");
    if let Value::Object(object) = &mut value {
        object.retain(|name, _| !fields.contains(&name.as_str()));
    }
    Some(value)
}

/// An entity tag, with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// Of what is wanted.
    pub fn of(view: &impl Resource) -> Self {
        match view.wanted() {
            Some(wanted) => Self::exact(&json(&wanted)),
            None => Self::exact(&json(view)),
        }
    }

    fn exact(body: &[u8]) -> Self {
        Self(format!("\"{}\"", BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, body).as_ref())))
    }

    /// Whether `If-Match` or `If-None-Match` names it. One marked as weak is never meant.
    pub fn is_in(&self, header: &str) -> bool {
        header.split(',').map(str::trim).any(|tag| tag == "*" || tag == self.0)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Reply<V> {
    /// 200 mostly.
    pub status: StatusCode,
    /// What is said.
    pub body: V,
    tag: Tag,
    link: Option<String>,
}

impl<V: Resource> Reply<V> {
    /// After a change.
    pub fn of(body: V) -> Self {
        Self { status: StatusCode::OK, tag: Tag::of(&body), body, link: None }
    }

    pub(super) fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn shown(body: V, if_none_match: Option<&str>) -> Self {
        let has_it = |tag: &Tag| body.wanted().is_none() && if_none_match.is_some_and(|seen| tag.is_in(seen));
        let tag = Tag::of(&body);
        Self { status: status(has_it(&tag)), body, tag, link: None }
    }
}

impl<V: Serialize> Reply<Vec<V>> {
    pub(super) fn listed(body: Vec<V>, link: Option<String>, if_none_match: Option<&str>) -> Self {
        let tag = Tag::exact(&json(&body));
        Self { status: status(if_none_match.is_some_and(|seen| tag.is_in(seen))), body, tag, link }
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
        let body = if self.status == StatusCode::NOT_MODIFIED { Vec::new() } else { json(&self.body) };
        (self.status, headers, body).into_response()
    }
}

fn text(header: String) -> HeaderValue {
    header.try_into().expect("hashes, paths as they came, and keys that are escaped")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("views are JSON")
}

/// Which part of a list is asked for: `?limit=&after=`.
#[derive(Debug, Clone)]
pub struct Page {
    path: String,
    query: Vec<(String, String)>,
    /// At most this many.
    pub limit: u32,
    /// Those after this key.
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

    /// The part of it, in order of the keys, and the link to the next.
    pub fn cut<V>(&self, mut all: Vec<(String, V)>) -> (Vec<V>, Option<String>) {
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let from = all.partition_point(|(key, _)| self.after.as_ref().is_some_and(|after| key <= after));
        let rest = all.len() - from;
        let part: Vec<_> = all.into_iter().skip(from).take(self.limit as usize).collect();
        let last = part.last().map(|(key, _)| key.clone()).filter(|_| part.len() < rest);
        (part.into_iter().map(|(_, view)| view).collect(), last.map(|last| self.link(&last)))
    }

    /// The header that leads to what follows `last`.
    pub fn link(&self, last: &str) -> String {
        let other = self.query.iter().map(|(name, value)| format!("{name}={value}&")).collect::<String>();
        format!("<{}?{other}limit={}&after={}>; rel=\"next\"", self.path, self.limit, escaped(last))
    }
}

/// As one value of a query.
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
    fn parts_are_in_order_and_end() {
        let (part, link) = page("/v1/x?limit=2&q=a%20b", 2, None).cut(items(&["c", "a", "b/"]));
        assert_eq!(part, ["A", "B/"]);
        assert_eq!(link.unwrap(), "</v1/x?q=a%20b&limit=2&after=b%2F>; rel=\"next\"");
        let (part, link) = page("/v1/x", 2, Some("b/")).cut(items(&["c", "a", "b/"]));
        assert_eq!((part, link), (vec!["C".to_owned()], None));
    }

    #[test]
    fn what_went_meanwhile_does_not_lose_the_place() {
        let (part, _) = page("/v1/x", 9, Some("b")).cut(items(&["d", "c", "a"]));
        assert_eq!(part, ["C", "D"]);
    }

    #[test]
    fn a_part_of_a_bad_size_is_refused() {
        for limit in [0, PAGE + 1] {
            assert_eq!(Page::new(&"/".parse().unwrap(), Some(limit), None).unwrap_err().0.status, 400);
        }
    }

    #[test]
    fn a_tag_is_met_by_itself_alone() {
        let tag = Tag::exact(b"x");
        assert!(tag.is_in("*") && tag.is_in(&tag.0) && tag.is_in(&format!("\"y\", {}", tag.0)));
        assert!(!tag.is_in("") && !tag.is_in("\"y\"") && !tag.is_in(&format!("W/{}", tag.0)));
    }
}
