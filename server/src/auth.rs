//! Who may call: API keys, hashed in memory and compared in constant time.

use std::{fmt, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{error::Error, state::AppState};

/// The environment variable that holds the keys.
pub const VARIABLE: &str = "SPEECHD_API_KEYS";

/// The SHA-256 of every key. Without keys, everybody may call.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads keys that are separated by commas or white space.
    pub fn parse(list: &str) -> Self {
        let separated = list.split(|separator: char| separator == ',' || separator.is_whitespace());
        Self(separated.filter(|key| !key.is_empty()).map(|key| hash(key.as_bytes())).collect())
    }

    /// Whether everybody may call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request with these headers may pass. Every key is looked at, whatever the first ones say; equal
    /// hashes of unequal lengths are out of reach, so that neither length nor prefix of a key can be timed.
    fn admit(&self, headers: &HeaderMap) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(key) = bearer(headers) else { return false };
        let key = hash(key);
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&key));
        found.into()
    }
}

/// Says how many there are, and nothing else.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The key of `Authorization: Bearer KEY`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

/// Lets requests with a valid key pass.
pub(crate) async fn require_key(
    State(state): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    if state.keys.admit(request.headers()) { Ok(next.run(request).await) } else { Err(Error::Unauthorized) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(keys: &str, authorization: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        Keys::parse(keys).admit(&headers)
    }

    #[test]
    fn a_whole_key_passes_and_nothing_else() {
        for keys in ["one,two", "one two", " one\n,, two,"] {
            for (authorization, passes) in [
                (Some("Bearer one"), true),
                (Some("bearer two"), true),
                (Some("Bearer  two "), true),
                (Some("Bearer tw"), false),
                (Some("Bearer twoo"), false),
                (Some("Bearer one,two"), false),
                (Some("Bearer "), false),
                (Some("Bearer"), false),
                (Some("Basic one"), false),
                (Some("one"), false),
                (None, false),
            ] {
                assert_eq!(admits(keys, authorization), passes, "{keys:?} {authorization:?}");
            }
        }
        assert!(!admits("one", Some(&format!("Bearer {}", "one".repeat(10_000)))));
    }

    #[test]
    fn without_keys_everybody_may_call() {
        assert!(Keys::parse(" , ").is_empty() && admits("", None));
    }

    #[test]
    fn keys_do_not_show() {
        assert_eq!(format!("{:?}", Keys::parse("secret,key")), "Keys(2)");
    }
}
