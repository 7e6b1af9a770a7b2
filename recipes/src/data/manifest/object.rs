//! Values of a JSON object by type, each with an error that names it.

use serde_json::{Map, Value};

use super::{Cut, Reason, reject::short};

/// What a line holds.
pub(super) fn parse(line: &[u8]) -> Result<Map<String, Value>, Reason> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Reason::NotAnObject(short(&other.to_string()))),
        Err(error) => Err(Reason::BadJson(explain(line, &error))),
    }
}

/// The parser's words, or better ones for what Python writes and JSON does not know.
fn explain(line: &[u8], error: &serde_json::Error) -> String {
    if line.starts_with(b"[") {
        return "a list; a manifest has one object on each line".to_owned();
    }
    // The column is that of the byte that did not fit; the line is always the first.
    let column = error.column();
    let around = &line[column.saturating_sub(12).min(line.len())..(column + 12).min(line.len())];
    for word in ["NaN", "Infinity"] {
        if around.windows(word.len()).any(|window| window == word.as_bytes()) {
            return format!("{word} at column {column} is no number");
        }
    }
    match error.classify() {
        serde_json::error::Category::Eof => format!("the line ends at column {column} within a value"),
        _ => error.to_string().replace(" at line 1", ""),
    }
}

/// Takes a string out; `null` is as good as nothing.
pub(super) fn take_text(
    object: &mut Map<String, Value>,
    key: &'static str,
) -> Result<Option<Box<str>>, Reason> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.into())),
        Some(other) => Err(Reason::wrong_type(key, &other, "a string")),
    }
}

/// Takes a name out: a string, or a number as speakers often are.
pub(super) fn take_name(
    object: &mut Map<String, Value>,
    key: &'static str,
) -> Result<Option<Box<str>>, Reason> {
    let name: Box<str> = match object.remove(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.into(),
        Some(Value::Number(number)) => number.to_string().into(),
        Some(other) => return Err(Reason::wrong_type(key, &other, "a string or a number")),
    };
    Ok((!name.trim().is_empty()).then_some(name))
}

/// Takes a start out: 0 or more.
pub(super) fn take_start(object: &mut Map<String, Value>, key: &'static str) -> Result<Option<f64>, Reason> {
    let Some(secs) = take_number(object, key)? else { return Ok(None) };
    if (0.0..=Cut::MAX_SECS).contains(&secs) {
        // Not -0.
        return Ok(Some(secs.abs()));
    }
    Err(Reason::bad_time(key, secs, "a time from 0 to 1e7 s"))
}

/// Takes a length out: above 0.
pub(super) fn take_duration(
    object: &mut Map<String, Value>,
    key: &'static str,
) -> Result<Option<f64>, Reason> {
    let Some(secs) = take_number(object, key)? else { return Ok(None) };
    if secs > 0.0 && secs <= Cut::MAX_SECS {
        return Ok(Some(secs));
    }
    Err(Reason::bad_time(key, secs, "a length above 0 and up to 1e7 s"))
}

/// Takes a number out.
pub(super) fn take_number(object: &mut Map<String, Value>, key: &'static str) -> Result<Option<f64>, Reason> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(Reason::wrong_type(key, &value, "a number")),
        },
    }
}

/// Takes a channel out.
pub(super) fn take_channel(
    object: &mut Map<String, Value>,
    key: &'static str,
) -> Result<Option<u16>, Reason> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .and_then(|channel| u16::try_from(channel).ok())
            .map(Some)
            .ok_or_else(|| Reason::wrong_type(key, &value, "a channel, counted from 0")),
    }
}
