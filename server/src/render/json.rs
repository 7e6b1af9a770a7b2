//! `response_format=json` of the OpenAI audio API.

use models::Transcript;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// `{"text", "usage"}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Json<'a> {
    /// All of the text.
    pub text: &'a str,
    /// What was spent on it.
    pub usage: Usage,
}

/// The audio that was transcribed, for billing and accounting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Usage {
    /// Always `duration`: seconds are counted, not tokens.
    pub r#type: &'static str,
    /// Whole seconds, rounded up.
    pub seconds: u64,
}

impl Usage {
    /// The usage of so much audio.
    pub fn of(duration_secs: f64) -> Self {
        Self { r#type: "duration", seconds: duration_secs.max(0.0).ceil() as u64 }
    }
}

impl<'a> From<&'a Transcript> for Json<'a> {
    fn from(transcript: &'a Transcript) -> Self {
        Self { text: &transcript.text, usage: Usage::of(transcript.duration_secs) }
    }
}

/// The transcript as `{"text", "usage"}`.
pub fn json(transcript: &Transcript) -> Value {
    serde_json::to_value(Json::from(transcript)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript};
    use super::*;

    #[test]
    fn json_has_the_text_and_the_seconds() {
        let transcript = transcript(vec![segment(0, 0.0, 1.0, " \"سلام\"\u{1}")]);
        assert_eq!(
            serde_json::to_string(&Json::from(&transcript)).expect("serialised"),
            r#"{"text":"\"سلام\"\u0001","usage":{"type":"duration","seconds":4}}"#
        );
        assert_eq!(json(&transcript)["usage"]["seconds"], 4);
    }
}
