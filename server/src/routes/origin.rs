//! Which web pages may change something here. A browser sends forms to wherever a page says, without asking first, and a server
//! without keys on somebody's own machine would keep what any page that is visited there brings.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, header, request::Parts},
};

use crate::{
    error::{Error, quoted},
    state::AppState,
};

/// By it browsers say how far a page is from here, where they do not name it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Of a page of where it asks.
const SAME_ORIGIN: &[u8] = b"same-origin";

/// A request that no foreign page has sent: it comes from no page at all, from one of this server, or from one that the settings let call
/// (`serve.cors_origins`).
pub(super) struct KnownOrigin;

impl FromRequestParts<Arc<AppState>> for KnownOrigin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Error> {
        match foreign(parts, &state.config.serve.cors_origins) {
            None => Ok(Self),
            Some(origin) => Err(Error::ForeignOrigin(origin)),
        }
    }
}

/// The page that sent a request and may not, as it may be repeated.
///
/// Browsers alone write `Sec-Fetch-Site`, and know better than any header of a proxy's whether a page is of where it asks. What neither tells is a page
/// whose host's name leads here by now (DNS rebinding): to its browser it is of this server. Keys keep that out.
fn foreign(parts: &Parts, allowed: &[String]) -> Option<String> {
    let is_allowed =
        |origin: &[u8]| allowed.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin);
    let shown = |text: &HeaderValue| quoted(&String::from_utf8_lossy(text.as_bytes()));
    match (parts.headers.get(header::ORIGIN), parts.headers.get(FETCH_SITE)) {
        (_, Some(site)) if site.as_bytes() == SAME_ORIGIN => None,
        (Some(origin), _) => {
            (!is_allowed(origin.as_bytes()) && !is_own(parts, origin)).then(|| shown(origin))
        }
        (None, Some(site)) => {
            // Typed, or from a bookmark.
            let is_of_nobody = site.as_bytes() == b"none";
            (!is_of_nobody && !is_allowed(b"*")).then(|| shown(site))
        }
        (None, None) => None,
    }
}

/// Whether a page is of this server, whatever it is called: `/docs` tries requests.
fn is_own(parts: &Parts, origin: &HeaderValue) -> bool {
    let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
    // Requests of HTTP/2 have it in their address.
    let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str().as_bytes()));
    let of_origin = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1.as_bytes()));
    host.is_some() && host == of_origin
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};

    use super::*;

    /// Whether a request with these headers is a foreign page's.
    fn is_foreign(uri: &str, headers: &[(&str, &str)], allowed: &[&str]) -> bool {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, _) = request.body(Body::empty()).expect("a request").into_parts();
        let allowed: Vec<_> = allowed.iter().map(|&origin| origin.to_owned()).collect();
        foreign(&parts, &allowed).is_some()
    }

    #[test]
    fn only_pages_that_may_call_change_something() {
        let host = ("host", "127.0.0.1:8000");
        let app = "https://app.example.org";
        for (headers, allowed, expected) in [
            (&[host][..], &[][..], false),
            (&[host, ("origin", "http://127.0.0.1:8000")], &[], false),
            (&[host, ("origin", "http://127.0.0.1:8001")], &[], true),
            (&[host, ("origin", app)], &[], true),
            (&[host, ("origin", app)], &[app], false),
            (&[host, ("origin", app)], &["*"], false),
            (&[host, ("origin", "https://app.example.org.evil.example")], &[app], true),
            (&[host, ("origin", "null")], &[app], true),
            (&[host, ("origin", "")], &[], true),
            (&[("origin", "null")], &[], true),
            (&[host, ("sec-fetch-site", "cross-site")], &[], true),
            (&[host, ("sec-fetch-site", "same-site")], &[], true),
            (&[host, ("sec-fetch-site", "same-origin")], &[], false),
            // Behind a proxy that calls it otherwise.
            (&[host, ("origin", app), ("sec-fetch-site", "same-origin")], &[], false),
            (&[host, ("origin", app), ("sec-fetch-site", "same-site")], &[], true),
            (&[host, ("origin", app), ("sec-fetch-site", "none")], &[], true),
            (&[host, ("sec-fetch-site", "none")], &[], false),
            (&[host, ("sec-fetch-site", "cross-site")], &["*"], false),
        ] {
            assert_eq!(is_foreign("/", headers, allowed), expected, "{headers:?} {allowed:?}");
        }
        // As HTTP/2 has it.
        assert!(!is_foreign("http://h:1/", &[("origin", "http://h:1")], &[]));
        assert!(is_foreign("http://h:1/", &[("origin", "http://h:2")], &[]));
    }
}
