//! The service that is loaded.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;
use axum::body::Body;
use bytes::Bytes;
use hyper::{
    Method, Request, Uri,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue},
};

use super::recordings;
use crate::cli::Usage;

/// Where the service is, and who asks.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Looked up once: a name service is not what is measured.
    pub(super) address: SocketAddr,
    authority: String,
    authorization: Option<HeaderValue>,
}

impl Target {
    /// Refuses every host but this one unless `allow_remote`: load is an attack on whoever has not asked for it.
    pub(super) fn new(url: &str, api_key: Option<&str>, allow_remote: bool) -> anyhow::Result<Self> {
        let wrong = |what: &str| Usage(format!("--url {url}: {what}; it looks like http://127.0.0.1:8000"));
        let uri: Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("is not an http:// address").into());
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has a path").into());
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = (host, authority.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .with_context(|| format!("--url {url}: the host cannot be looked up"))?
            .next()
            .ok_or_else(|| wrong("the host has no address"))?;
        if !allow_remote && !address.ip().is_loopback() {
            let why = "is another machine; load it only if it is yours, with --allow-remote";
            return Err(Usage(format!("--url {url}: {why}")).into());
        }
        let authorization = api_key
            .map(|key| HeaderValue::try_from(format!("Bearer {key}")))
            .transpose()
            .map_err(|_| Usage("--api-key: has characters that no header can carry".to_owned()))?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        Ok(Self { address, authority: authority.to_string(), authorization })
    }

    /// A request for a transcript.
    pub(super) fn transcription(&self, form: &Bytes) -> anyhow::Result<Request<Body>> {
        let mut request = self.request(Method::POST, "/v1/audio/transcriptions", Body::from(form.clone()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(recordings::CONTENT_TYPE));
        headers.insert(CONTENT_LENGTH, form.len().into());
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// A request to `path` without a body.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Request<Body>> {
        self.request(Method::GET, path, Body::empty())
    }

    fn request(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Request<Body>> {
        Ok(Request::builder().method(method).uri(path).header(HOST, &self.authority).body(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loaded_unless_told_otherwise() {
        for url in ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:9/", "http://127.9.9.9"] {
            assert!(Target::new(url, None, false).is_ok(), "{url}");
        }
        let remote = "http://192.0.2.1:8000";
        let message = Target::new(remote, None, false).expect_err("refused").to_string();
        assert!(message.contains(remote) && message.contains("--allow-remote"), "{message}");
        assert!(Target::new(remote, None, true).is_ok());
    }

    #[test]
    fn addresses_that_cannot_be_loaded_say_why() {
        for (url, part) in [
            ("https://127.0.0.1", "not an http:// address"),
            ("127.0.0.1:8000", "not a"),
            ("http://127.0.0.1/v1", "has a path"),
            ("http:///x", "--url http:///x"),
        ] {
            let message = Target::new(url, None, false).expect_err("refused").to_string();
            assert!(message.contains(part), "{url}: {message}");
        }
        assert!(Target::new("http://127.0.0.1", Some("a\nb"), false).is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let target = Target::new("http://127.0.0.1", Some("s3cret"), false).expect("a target");
        assert!(!format!("{target:?}").contains("s3cret"));
    }
}
