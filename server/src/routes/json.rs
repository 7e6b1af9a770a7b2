//! A JSON body: an object, read whole, whose members are taken by name. What nobody takes is unknown, and refused.

use std::{fmt, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;
use tokio::time::timeout;

use super::form::shown_name;
use crate::{
    config::Serve,
    error::{Error, quoted},
};

/// The only type of these bodies.
const EXPECTED: &str = "application/json";
/// Largest body. That of the longest text, each of its characters escaped as two halves (`\ud83d\ude00`), has 49 kB and a little more.
pub(super) const MAX_BYTES: usize = 128 << 10;

/// Reads a body that is said to be JSON.
///
/// # Errors
/// Another type, more bytes than the longest request has, a client that takes too long or leaves.
pub(super) async fn read(headers: &HeaderMap, body: Body, limits: &Serve) -> Result<Vec<u8>, Error> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING) {
        // Nothing that unpacks is unpacked: a small body stays small.
        if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
            return Err(Error::ContentEncoding(quoted(&String::from_utf8_lossy(encoding.as_bytes()))));
        }
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case(EXPECTED) {
        return Err(Error::ContentType { expected: EXPECTED });
    }
    // Said, not yet true: it only spares both sides a useless upload.
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|n_bytes| n_bytes > MAX_BYTES as u64) {
        return Err(Error::LongJson { limit_bytes: MAX_BYTES });
    }
    // What is so small has no reason to come slowly.
    let limit = limits.upload_idle_secs;
    let late = |_| Error::SlowUpload { what: "the whole of it", limit_secs: limit.get() };
    timeout(limit.duration().max(Duration::from_millis(1)), collect(body)).await.map_err(late)?
}

async fn collect(body: Body) -> Result<Vec<u8>, Error> {
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Error::Disconnected)?;
        if bytes.len() + piece.len() > MAX_BYTES {
            return Err(Error::LongJson { limit_bytes: MAX_BYTES });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A value, as far as bodies have it: what is in a list is read and forgotten. An object has its members in their order, those that are
/// given twice included.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Switch(bool),
    Number(Number),
    Text(String),
    List,
    Object(Vec<(String, Node)>),
}

/// The members of an object, taken by name.
pub(super) struct Members {
    all: Vec<(String, Node)>,
    /// Every name that was asked for.
    asked: Vec<&'static str>,
}

impl Members {
    /// Reads an object.
    ///
    /// # Errors
    /// Bytes that are no JSON, or JSON that is no object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let node = serde_json::from_slice(bytes).map_err(|error: serde_json::Error| {
            // What the parser repeats of the client's text may be anything.
            let place = format!("line {}, column {}", error.line(), error.column());
            Error::Json(match error.classify() {
                serde_json::error::Category::Eof => "it breaks off".into(),
                _ => format!("it is not JSON: see {place}").into(),
            })
        })?;
        match node {
            Node::Object(all) => Ok(Self { all, asked: Vec::new() }),
            _ => Err(Error::Json("it is not an object".into())),
        }
    }

    /// The value of a member that may be given once; `null` is as good as none.
    pub(super) fn take(&mut self, name: &'static str) -> Result<Option<Node>, Error> {
        self.asked.push(name);
        let Some(position) = self.all.iter().position(|(found, _)| found == name) else { return Ok(None) };
        let (_, value) = self.all.remove(position);
        if self.all.iter().any(|(found, _)| found == name) {
            return Err(Error::invalid(name, "given twice"));
        }
        Ok(Some(value).filter(|value| *value != Node::Null))
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        self.take(name)?.map(|value| text(name, value)).transpose()
    }

    /// A number with a fraction.
    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<f64>, Error> {
        let number = |value: Node| match &value {
            Node::Number(number) => number.as_f64().ok_or_else(|| wrong(name, "a number", &value)),
            _ => Err(wrong(name, "a number", &value)),
        };
        self.take(name)?.map(number).transpose()
    }

    /// A number without one, from 0.
    pub(super) fn integer(&mut self, name: &'static str) -> Result<Option<u64>, Error> {
        let integer = |value: Node| match &value {
            Node::Number(number) => number.as_u64().ok_or_else(|| wrong(name, "an integer from 0", &value)),
            _ => Err(wrong(name, "an integer from 0", &value)),
        };
        self.take(name)?.map(integer).transpose()
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.all.first() {
            Some((name, _)) => Err(Error::Unknown { param: shown_name(name), known: self.asked.join(", ") }),
            None => Ok(()),
        }
    }
}

/// A value that is a text.
pub(super) fn text(name: &'static str, value: Node) -> Result<String, Error> {
    match value {
        Node::Text(text) => Ok(text),
        value => Err(wrong(name, "a string", &value)),
    }
}

/// That a value is of another type than the one that is expected.
pub(super) fn wrong(name: &'static str, expected: &str, found: &Node) -> Error {
    let found = match found {
        Node::Null => "null".to_owned(),
        Node::Switch(switch) => switch.to_string(),
        Node::Number(number) => quoted(&number.to_string()),
        Node::Text(text) => quoted(text),
        Node::List => "a list".to_owned(),
        Node::Object(_) => "an object".to_owned(),
    };
    Error::invalid(name, format!("{found} is not {expected}"))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, switch: bool) -> Result<Node, E> {
                Ok(Node::Switch(switch))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Number(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Number(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
                // JSON has no others than finite ones.
                Ok(Number::from_f64(number).map_or(Node::Null, Node::Number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Node, E> {
                Ok(Node::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Node::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }

        deserializer.deserialize_any(Collect)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn bodies_of_another_kind_or_size_are_refused() {
        let limits = Config::load(None).expect("the defaults").serve;
        let headers = |pairs: &[(header::HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let json = headers(&[(header::CONTENT_TYPE, "Application/JSON; charset=utf-8")]);
        assert_eq!(read(&json, Body::from("{}"), &limits).await.expect("read"), b"{}");
        let large = headers(&[(header::CONTENT_TYPE, EXPECTED), (header::CONTENT_LENGTH, "131073")]);
        let packed = headers(&[(header::CONTENT_TYPE, EXPECTED), (header::CONTENT_ENCODING, "gzip")]);
        for (headers, n_bytes, code) in [
            (HeaderMap::new(), 2, "unsupported_content_type"),
            (headers(&[(header::CONTENT_TYPE, "text/plain")]), 2, "unsupported_content_type"),
            (packed, 2, "unsupported_content_encoding"),
            (json.clone(), MAX_BYTES + 1, "body_too_large"),
            (large, 2, "body_too_large"),
        ] {
            let error = read(&headers, Body::from(vec![b' '; n_bytes]), &limits).await.expect_err("refused");
            assert_eq!(error.code(), code);
        }
        assert_eq!(
            read(&json, Body::from(vec![b' '; MAX_BYTES]), &limits).await.expect("read").len(),
            MAX_BYTES
        );
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
        let mut limits = Config::load(None).expect("the defaults").serve;
        limits.upload_idle_secs = 0.01.try_into().expect("seconds");
        let json = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(EXPECTED))]);
        let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let error = read(&json, never, &limits).await.expect_err("late");
        assert_eq!(error.code(), "upload_timeout");
    }

    #[test]
    fn what_is_no_object_says_so_and_repeats_nothing() {
        for (text, part) in [
            ("", "breaks off"),
            ("{\"a\": ", "breaks off"),
            ("[]", "not an object"),
            ("\"a\"", "not an object"),
            ("{\"secret\u{1b}\": }", "line 1"),
            ("{\"a\": nan}", "line 1"),
            ("{'a': 1}", "line 1"),
            ("null", "not an object"),
            ("{} {}", "line 1"),
        ] {
            let Err(error) = Members::parse(text.as_bytes()) else { panic!("{text} is read") };
            let message = error.to_string();
            assert!(error.code() == "invalid_json" && message.contains(part), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(Members::parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(Members::parse(format!("{{\"a\": {}", "[".repeat(100_000)).as_bytes()).is_err());
        assert!(Members::parse(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn values_are_what_they_were_and_what_is_given_twice_is_seen() {
        let body = r#"{"a": {"id": "x", "id": {"b": null}}, "b": [1, "[", {}], "c": -1.5, "d": 18446744073709551615}"#;
        let node: Node = serde_json::from_str(body).expect("JSON");
        let text = |text: &str| Node::Text(text.to_owned());
        let object = |members: Vec<(&str, Node)>| {
            Node::Object(members.into_iter().map(|(name, node)| (name.to_owned(), node)).collect())
        };
        let inner = object(vec![("id", text("x")), ("id", object(vec![("b", Node::Null)]))]);
        let number = |number: f64| Node::Number(Number::from_f64(number).expect("finite"));
        let largest = Node::Number(u64::MAX.into());
        assert_eq!(node, object(vec![("a", inner), ("b", Node::List), ("c", number(-1.5)), ("d", largest)]));
    }

    #[test]
    fn members_are_taken_once_by_their_type_and_the_rest_is_named() {
        let members = || {
            Members::parse(br#"{"a": "x", "b": 1.5, "c": null, "d": 7, "d": 8, "e": -1}"#).expect("an object")
        };
        let mut taken = members();
        assert_eq!(taken.text("a").expect("a text").as_deref(), Some("x"));
        assert_eq!(taken.number("b").expect("a number"), Some(1.5));
        assert_eq!(taken.text("c").expect("nothing"), None);
        let refused = |error: Error| (error.code(), error.body(None).error.param);
        assert_eq!(refused(taken.take("d").expect_err("twice")), ("invalid_value", Some("d".to_owned())));
        assert_eq!(
            refused(taken.integer("e").expect_err("negative")),
            ("invalid_value", Some("e".to_owned()))
        );
        assert_eq!(
            refused(members().number("a").expect_err("a text")),
            ("invalid_value", Some("a".to_owned()))
        );
        assert_eq!(
            refused(members().text("b").expect_err("a number")),
            ("invalid_value", Some("b".to_owned()))
        );
        assert_eq!(
            refused(members().finish().expect_err("all of it")),
            ("unknown_parameter", Some("a".to_owned()))
        );
    }
}
