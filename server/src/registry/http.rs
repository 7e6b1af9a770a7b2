//! One request to a hub: redirects, the token, and which failures are worth another try.

use std::{thread, time::Duration};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Method, Response, StatusCode, header},
};

use super::Error;

const MAX_REDIRECTS: usize = 8;
const MAX_ATTEMPTS: u32 = 5;
const MAX_DELAY: Duration = Duration::from_secs(30);

/// A hub's address, and how to speak with it.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    retry_delay: Duration,
}

/// Never printed.
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed, not before the hub's `retry-after`.
    Passing {
        message: String,
        after: Option<Duration>,
    },
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Failure {
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self::Passing { message: message.into(), after: None }
    }
}

/// An answer and the headers that redirects on the way carried.
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    /// `x-linked-etag`, `x-linked-size` and `x-repo-commit` of the first answer that had them.
    pub(crate) linked: HeaderMap,
}

impl Client {
    pub(crate) fn new(endpoint: &str, token: Option<String>, retry_delay: Duration) -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("speechd/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed here, so that the token stays with the hub and a HEAD stops at its door.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Sizes and ranges are those of the file itself.
            .accept_encoding("identity")
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A stalled connection is cut and resumed; a slow one is not.
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.filter(|token| !token.is_empty()).map(Token),
            retry_delay,
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Runs `attempt` until it succeeds, fails for good or has failed too often in a row without `progress`.
    pub(crate) fn retry<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut() -> Result<T, Failure>,
        mut progress: impl FnMut() -> u64,
    ) -> Result<T, Error> {
        let mut failures = 0;
        let mut reached = progress();
        loop {
            let (message, after) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { message, after }) => (message, after),
            };
            let now = progress();
            if now > reached {
                failures = 0;
            }
            reached = reached.max(now);
            failures += 1;
            if failures >= MAX_ATTEMPTS {
                return Err(Error::Network { url: url.to_owned(), message, attempts: failures });
            }
            let delay = after.unwrap_or(self.retry_delay * 2_u32.pow(failures - 1)).min(MAX_DELAY);
            tracing::debug!(url, message, ?delay, "the request failed, trying again");
            thread::sleep(delay);
        }
    }

    /// Asks for a file's headers. A redirect to another host is not followed: what is asked stands in the redirect.
    pub(crate) fn head(&self, url: &str, what: &str) -> Result<Reply, Failure> {
        self.send(&Method::HEAD, url, what, 0)
    }

    /// Asks for contents, from byte `offset` on.
    pub(crate) fn get(&self, url: &str, what: &str, offset: u64) -> Result<Reply, Failure> {
        self.send(&Method::GET, url, what, offset)
    }

    fn send(&self, method: &Method, url: &str, what: &str, offset: u64) -> Result<Reply, Failure> {
        let mut url = url.to_owned();
        let mut linked = HeaderMap::new();
        for _ in 0..MAX_REDIRECTS {
            let response = self.send_once(method, &url, offset)?;
            for name in ["x-linked-etag", "x-linked-size", "x-repo-commit"] {
                if let Some(value) = response.headers().get(name)
                    && !linked.contains_key(name)
                {
                    linked.insert(name, value.clone());
                }
            }
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return self.accept(response, what).map(|response| Reply { response, linked });
            }
            let Some(location) = header_text(response.headers(), header::LOCATION.as_str()) else {
                return Err(Failure::passing(format!("HTTP {status} without a location")));
            };
            let next = join(&url, location);
            if origin(&next) != origin(&url) {
                if method == Method::HEAD && linked.contains_key("x-linked-etag") {
                    return Ok(Reply { response, linked });
                }
                if url.starts_with("https://") && !next.starts_with("https://") {
                    return Err(Failure::Final(
                        self.refused(what, "redirects from https to an insecure address"),
                    ));
                }
            }
            url = next;
        }
        Err(Failure::Final(self.refused(what, "redirects in circles")))
    }

    fn send_once(&self, method: &Method, url: &str, offset: u64) -> Result<Response<Body>, Failure> {
        let mut request = if method == Method::HEAD { self.agent.head(url) } else { self.agent.get(url) };
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        if let Some(Token(token)) = &self.token
            && origin(url) == origin(&self.endpoint)
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call().map_err(|error| self.classify(error, url))
    }

    fn classify(&self, error: ureq::Error, url: &str) -> Failure {
        match error {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => {
                Failure::Final(self.refused(url, &format!("not a usable address: {error}")))
            }
            error => Failure::passing(error.to_string()),
        }
    }

    /// Turns a status into the answer, a passing failure or a refusal that says what to do.
    fn accept(&self, response: Response<Body>, what: &str) -> Result<Response<Body>, Failure> {
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        if status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        {
            let after = header_text(response.headers(), header::RETRY_AFTER.as_str())
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs);
            return Err(Failure::Passing { message: format!("HTTP {status}"), after });
        }
        let code = header_text(response.headers(), "x-error-code").unwrap_or_default();
        let message = match (code, status.as_u16()) {
            ("GatedRepo", _) => {
                "is gated: accept its conditions on its page and set HF_TOKEN to a token of that account"
                    .to_owned()
            }
            ("RevisionNotFound", _) => "no such revision; give a branch, tag or commit after `@`".to_owned(),
            ("EntryNotFound", _) => "no such file in the repository".to_owned(),
            ("RepoNotFound", _) | (_, 401 | 403 | 404) if self.token.is_none() => {
                "not found; check the spelling, or set HF_TOKEN if it is private".to_owned()
            }
            ("RepoNotFound", _) | (_, 404) => "not found, or HF_TOKEN may not read it".to_owned(),
            (_, 401 | 403) => "refused; HF_TOKEN is not valid here or may not read it".to_owned(),
            _ => format!("HTTP {status}"),
        };
        Err(Failure::Final(self.refused(what, &message)))
    }

    fn refused(&self, what: &str, message: &str) -> Error {
        Error::Refused { what: what.to_owned(), endpoint: self.endpoint.clone(), message: message.to_owned() }
    }
}

/// A header's value as text.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Escapes one segment of a path, slashes too.
pub(crate) fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// The address that a `location` header means.
fn join(base: &str, location: &str) -> String {
    let scheme_len = base.find("://").map_or(0, |at| at + 1);
    if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}{location}", &base[..scheme_len])
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else {
        let path = base.split(['?', '#']).next().unwrap_or(base);
        let directory = path.rfind('/').filter(|at| *at >= origin(base).len()).unwrap_or(path.len());
        format!("{}/{location}", &path[..directory])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined_as_a_browser_does() {
        let base = "https://hub.test:8443/a/b?c=/d";
        assert_eq!(origin(base), "https://hub.test:8443");
        for (location, expected) in [
            ("https://cdn.test/x?sig=1", "https://cdn.test/x?sig=1"),
            ("//cdn.test/x", "https://cdn.test/x"),
            ("/x/y", "https://hub.test:8443/x/y"),
            ("y", "https://hub.test:8443/a/y"),
        ] {
            assert_eq!(join(base, location), expected);
        }
        assert_eq!(join("https://hub.test", "x"), "https://hub.test/x");
    }

    #[test]
    fn path_segments_are_escaped() {
        assert_eq!(escape("refs/pr/3"), "refs%2Fpr%2F3");
        assert_eq!(escape("a b#é.json"), "a%20b%23%C3%A9.json");
    }

    #[test]
    fn the_token_is_never_printed() {
        let client = Client::new("https://hub.test/", Some("hf_secret".to_owned()), Duration::ZERO);
        assert!(!format!("{client:?}").contains("hf_secret"));
        assert_eq!(client.endpoint(), "https://hub.test");
    }
}
