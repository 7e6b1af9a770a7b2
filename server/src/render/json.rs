//! `response_format=json` of the OpenAI audio API.

use models::{Segment, TextToken, Transcript};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    stream::Tokens,
    verbose_json::{CoverageJson, finite},
};

/// The text, and what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Json<'a> {
    /// All of the text.
    pub text: &'a str,
    /// The language of the text, where the model says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<LanguageJson<'a>>,
    /// All tokens, when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<LogprobJson>>,
    /// The model that translated the transcript of another one, where a cascade was asked for. Not part of the OpenAI API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<&'a str>,
    /// What was spent on it.
    pub usage: Usage,
    /// Which seconds of speech were decoded. Not part of the OpenAI API, whose clients ignore it.
    pub coverage: CoverageJson,
}

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LanguageJson<'a> {
    /// Its code.
    pub code: &'a str,
}

/// A token and how sure the decoder was of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LogprobJson {
    /// Its text; bytes that are only a part of a character are U+FFFD.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Log-probability among the tokens that were allowed there.
    pub logprob: f32,
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

impl<'a> Json<'a> {
    /// With log-probabilities when `tokens` says how a segment's tokens are found.
    pub fn new(transcript: &'a Transcript, tokens: Tokens<'_>) -> Self {
        Self {
            text: &transcript.text,
            languages: LanguageJson::of(transcript),
            logprobs: tokens.map(|tokens| logprobs(&transcript.segments, tokens)),
            cascade: transcript.cascade.as_deref(),
            usage: Usage::of(transcript.duration_secs),
            coverage: CoverageJson::from(&transcript.coverage),
        }
    }
}

impl<'a> From<&'a Transcript> for Json<'a> {
    fn from(transcript: &'a Transcript) -> Self {
        Self::new(transcript, None)
    }
}

impl<'a> LanguageJson<'a> {
    /// What the text of a transcript is written in.
    pub(super) fn of(transcript: &'a Transcript) -> Vec<Self> {
        let code = transcript.written_language();
        code.map(|code| Self { code }).into_iter().collect()
    }
}

/// The tokens of segments as JSON.
pub(super) fn logprobs(
    segments: &[Segment],
    tokens: &dyn Fn(&Segment) -> Vec<TextToken>,
) -> Vec<LogprobJson> {
    let json = |TextToken { bytes, logprob }| LogprobJson {
        token: String::from_utf8_lossy(&bytes).into_owned(),
        bytes,
        logprob: finite(logprob),
    };
    segments.iter().flat_map(tokens).map(json).collect()
}

/// The transcript as `json`, without log-probabilities.
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
            serde_json::to_string(&Json::new(&transcript, None)).expect("serialised"),
            concat!(
                r#"{"text":"\"سلام\"\u0001","languages":[{"code":"ps"}],"usage":{"type":"duration","seconds":4},"#,
                r#""coverage":{"speech_seconds":3.0,"decoded_seconds":2.5,"gaps":[{"start":2.5,"end":3.0,"#,
                r#""reason":"token_limit"}]}}"#
            )
        );
        assert_eq!(json(&transcript)["usage"]["seconds"], 4);
        let translated = Transcript { cascade: Some("opus".to_owned()), ..transcript };
        assert_eq!(json(&translated)["cascade"], "opus");
    }
}
