//! Admin's web page: built-in files, with headers that forbid foreign scripts and content.
//!
//! `/` is the page. Its other files are below `/assets/{hash}/`, where the hash covers all files: browsers
//! cache them forever, and never mix two versions. The page uses the API like any other client.

use axum::{
    Router,
    extract::Path,
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use rust_embed::RustEmbed;
use std::{borrow::Cow, sync::LazyLock};

#[derive(RustEmbed)]
#[folder = "src/web/"]
struct Files;

/// Placeholder in `index.html` for the path of the other files.
const PLACEHOLDER: &str = "{assets}";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Security headers of all files of the page.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

const CACHE_FOREVER: &str = "public, max-age=31536000, immutable";
const REVALIDATE: &str = "no-cache";

/// Routes of the web page, without any authorization.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(index))
        .route("/favicon.ico", get(icon))
        .route("/assets/{version}/{*name}", get(asset))
}

async fn index(headers: HeaderMap) -> Response {
    let page = Files::get("index.html").expect("the page is built in");
    let text = String::from_utf8_lossy(&page.data).replace(PLACEHOLDER, &format!("/assets/{}", version()));
    send(&headers, "text/html; charset=utf-8", REVALIDATE, text.into())
}

async fn icon(headers: HeaderMap) -> Response {
    file(&headers, "icon.svg", REVALIDATE)
}

/// Serves a file of the web page. Files of an older version are gone: the newest is sent instead, and must not be
/// cached under the old path.
async fn asset(Path((asked, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let caching = if asked == version() { CACHE_FOREVER } else { REVALIDATE };
    file(&headers, &name, caching)
}

fn file(headers: &HeaderMap, name: &str, caching: &'static str) -> Response {
    match (Files::get(name), kind(name)) {
        (Some(file), Some(kind)) => send(headers, kind, caching, shared(file.data)),
        _ => super::ApiError::no_such_path().into_response(),
    }
}

/// Content of a page's file, which all answers share.
fn shared(content: Cow<'static, [u8]>) -> Bytes {
    match content {
        Cow::Borrowed(built_in) => Bytes::from_static(built_in),
        Cow::Owned(read) => read.into(),
    }
}

/// Media type of a page's file, by its extension; `None` for files that are not served.
fn kind(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

fn send(headers: &HeaderMap, kind: &'static str, caching: &'static str, body: Bytes) -> Response {
    let tag = format!("\"{}\"", short(&ring::digest::digest(&SHA256, &body)));
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
    let about = [(CACHE_CONTROL, caching.to_owned()), (ETAG, tag)];
    if is_known {
        (StatusCode::NOT_MODIFIED, SECURITY_HEADERS, about).into_response()
    } else {
        (SECURITY_HEADERS, about, [(CONTENT_TYPE, kind)], body).into_response()
    }
}

/// Version of the web page: the hash of all its files.
fn version() -> &'static str {
    static BUILT_IN: LazyLock<String> = LazyLock::new(hash_of_all);
    &BUILT_IN
}

fn hash_of_all() -> String {
    let mut names: Vec<_> = Files::iter().collect();
    names.sort_unstable();
    let mut hash = Context::new(&SHA256);
    for name in names {
        hash.update(name.as_bytes());
        hash.update(&Files::get(&name).map(|file| file.metadata.sha256_hash()).unwrap_or_default());
    }
    short(&hash.finish())
}

fn short(digest: &ring::digest::Digest) -> String {
    HEXLOWER.encode(digest.as_ref().first_chunk::<12>().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::to_bytes, extract::Request, http::header::HOST};
    use tower::ServiceExt;

    async fn ask(path: &str, known: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header(HOST, "gw").header(IF_NONE_MATCH, known);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = router::<()>().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn texts() -> Vec<(String, String)> {
        let text = |name: &str| String::from_utf8(Files::get(name).unwrap().data.into_owned()).unwrap();
        Files::iter().map(|name| (name.to_string(), text(&name))).collect()
    }

    #[tokio::test]
    async fn page_links_existing_files_that_are_cached_forever() {
        let (status, _, page) = ask("/", "").await;
        assert_eq!(status, StatusCode::OK);
        let named: Vec<_> = page.split('"').filter(|text| text.starts_with("/assets/")).collect();
        assert!(named.len() >= 2, "{page}");
        for path in named {
            let (status, headers, _) = ask(path, "").await;
            assert_eq!(
                (status, &headers[CACHE_CONTROL]),
                (StatusCode::OK, &CACHE_FOREVER.parse().unwrap()),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn every_page_answer_has_security_headers() {
        for path in ["/", "/favicon.ico", "/assets/old/app.js", "/assets/old/style.css"] {
            let (status, headers, _) = ask(path, "").await;
            assert_eq!(status, StatusCode::OK, "{path}");
            for (name, value) in SECURITY_HEADERS {
                assert_eq!(headers[name], value, "{path}");
            }
        }
        assert!(!POLICY.contains("unsafe"));
    }

    #[tokio::test]
    async fn file_with_known_etag_is_not_sent_again() {
        let (_, headers, _) = ask("/", "").await;
        let (status, _, body) = ask("/", headers[ETAG].to_str().unwrap()).await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    }

    #[tokio::test]
    async fn path_outside_the_page_is_not_found() {
        for path in ["/assets/x/index.html", "/assets/x/..%2f..%2fhttp.rs", "/assets/x/none.js"] {
            assert_eq!(ask(path, "").await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    /// As long as none of these is used, foreign names stay text and the policy stays strict.
    #[test]
    fn page_scripts_never_build_markup_or_ask_elsewhere() {
        const BANNED: [&str; 12] = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "srcdoc",
            "eval(",
            "new Function",
            "createContextualFragment",
            "style=\"",
            "onclick=\"",
            "@import",
        ];
        for (name, text) in texts() {
            for banned in BANNED {
                assert!(!text.contains(banned), "{name} has {banned}");
            }
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !foreign.contains("http://") && !foreign.contains("https://"),
                "{name} names another site"
            );
        }
    }

    /// A wrong path in an import would make the page empty.
    #[test]
    fn every_page_import_exists() {
        for (name, text) in texts().iter().filter(|(name, _)| name.ends_with(".js")) {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            for line in text.lines().filter(|line| line.contains(" from \"")) {
                let wanted = line.rsplit('"').nth(1).unwrap();
                let path = match wanted.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None => format!("{folder}/{}", wanted.trim_start_matches("./")),
                };
                assert!(Files::get(path.trim_start_matches('/')).is_some(), "{name}: {wanted}");
            }
        }
    }
}
