//! What an answer says, without what may differ between equal answers.

use serde_json::Value;

/// The part of an answer that must be the same to the byte however busy the service is: the body; of a stream its last event,
/// since where text is cut into deltas depends on time.
///
/// # Errors
/// What is wrong with a stream: an error in it, no last event, or deltas that are not its text.
pub(super) fn content(body: &[u8], is_stream: bool) -> Result<Vec<u8>, String> {
    if !is_stream {
        return Ok(body.to_vec());
    }
    let text = std::str::from_utf8(body).map_err(|_| "a stream that is not UTF-8".to_owned())?;
    let (mut deltas, mut done) = (String::new(), None);
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start) {
        if data == "[DONE]" {
            continue;
        }
        let event: Value =
            serde_json::from_str(data).map_err(|_| format!("an event that is not JSON: {data}"))?;
        if let Some(error) = event.get("error") {
            return Err(format!("an error in a stream: {error}"));
        }
        let part = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("transcript.text.delta") if done.is_none() => deltas.push_str(&part("delta")),
            Some("transcript.text.done") if done.is_none() => done = Some((part("text"), data.to_owned())),
            _ => return Err(format!("an event that has no place here: {data}")),
        }
    }
    match done {
        None => Err("a stream without transcript.text.done".to_owned()),
        Some((text, _)) if text != deltas => {
            Err(format!("deltas that add up to {deltas:?}, not to {text:?}"))
        }
        Some((_, data)) => Ok(data.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(events: &[&str]) -> Result<Vec<u8>, String> {
        let body: String = events.iter().map(|event| format!("{event}\n\n")).collect();
        content(body.as_bytes(), true)
    }

    const DONE: &str = r#"data: {"type":"transcript.text.done","text":"one two"}"#;

    #[test]
    fn streams_are_equal_however_they_are_cut() {
        let delta = |text: &str| format!(r#"data: {{"type":"transcript.text.delta","delta":"{text}"}}"#);
        let one = stream(&[&delta("one two"), DONE]).expect("a stream");
        let two =
            stream(&[": keep-alive", &delta("one"), &delta(" two"), DONE, "data: [DONE]"]).expect("a stream");
        assert_eq!(one, two);
        assert!(one.starts_with(b"{\"type\":\"transcript.text.done\""));
    }

    #[test]
    fn wrong_streams_say_what_is_wrong() {
        for (events, part) in [
            (&[][..], "without"),
            (&[DONE][..], "add up to \"\""),
            (&[r#"data: {"error":{"code":"x"}}"#][..], "{\"code\":\"x\"}"),
            (&["data: {\"type\":\"transcription.chunk\"}"][..], "no place"),
            (&["data: {"][..], "not JSON"),
        ] {
            let message = stream(events).expect_err("refused");
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn other_answers_are_taken_whole() {
        assert_eq!(content(b"data: x", false), Ok(b"data: x".to_vec()));
    }
}
