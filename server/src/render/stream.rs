//! What a stream of server-sent events says: the events of the OpenAI API, of which no others may be made up, because
//! clients take unknown ones for something else. What is ours goes into further keys of known events.

use std::slice;

use models::{Segment, TextPart, TextToken, Transcript};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    json::{LanguageJson, LogprobJson, logprobs},
    verbose_json::CoverageJson,
};

/// More of the text. All deltas put together are the text of [`Done`].
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = TextDelta)]
pub struct Delta<'a> {
    #[schema(example = "transcript.text.delta")]
    r#type: &'static str,
    /// What comes after what was told before.
    pub delta: &'a str,
    /// Its tokens, when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<LogprobJson>>,
}

/// The last event.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = TextDone)]
pub struct Done<'a> {
    #[schema(example = "transcript.text.done")]
    r#type: &'static str,
    /// All of the text.
    pub text: &'a str,
    /// The language of the text, by its code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<LanguageJson<'a>>,
    /// All tokens, when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<LogprobJson>>,
    /// What was spent on it.
    pub usage: TokenUsage,
    /// Which seconds of speech were decoded. Not part of the OpenAI API, whose clients ignore it.
    pub coverage: CoverageJson,
}

/// Tokens that went in and came out; a stream's usage has no other form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenUsage {
    #[schema(example = "tokens")]
    r#type: &'static str,
    /// Positions of the encoder that hold sound: fifty a second.
    pub input_tokens: u64,
    /// Tokens that were written, timestamps included.
    pub output_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

/// Positions of the encoder in a second.
const POSITIONS_PER_SEC: f64 = 50.0;

/// How a segment's tokens are found: `Some` when the client asked for log-probabilities.
pub type Tokens<'a> = Option<&'a dyn Fn(&Segment) -> Vec<TextToken>>;

/// A part as an event.
pub fn delta<'a>(part: &'a TextPart, tokens: Tokens<'_>) -> Delta<'a> {
    Delta {
        r#type: "transcript.text.delta",
        delta: &part.delta,
        logprobs: tokens.map(|tokens| logprobs(slice::from_ref(&part.segment), tokens)),
    }
}

/// The whole as an event.
pub fn done<'a>(transcript: &'a Transcript, tokens: Tokens<'_>) -> Done<'a> {
    let input_tokens = (transcript.duration_secs * POSITIONS_PER_SEC).ceil() as u64;
    let n_written: usize = transcript.segments.iter().map(|segment| segment.token_ids.len()).sum();
    let output_tokens = n_written as u64;
    Done {
        r#type: "transcript.text.done",
        text: &transcript.text,
        languages: LanguageJson::of(transcript),
        logprobs: tokens.map(|tokens| logprobs(&transcript.segments, tokens)),
        usage: TokenUsage {
            r#type: "tokens",
            input_tokens,
            output_tokens,
            total_tokens: input_tokens + output_tokens,
        },
        coverage: CoverageJson::from(&transcript.coverage),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript};
    use super::*;

    fn tokens(_: &Segment) -> Vec<TextToken> {
        // The two halves of one letter.
        vec![
            TextToken { bytes: vec![0xD8], logprob: -0.5 },
            TextToken { bytes: vec![0xB3], logprob: f32::NEG_INFINITY },
        ]
    }

    #[test]
    fn events_are_those_of_the_api() {
        let spoken = segment(0, 0.0, 1.0, " سلام");
        let part = TextPart { delta: "سلام".to_owned(), segment: spoken.clone() };
        assert_eq!(
            serde_json::to_string(&delta(&part, None)).expect("serialised"),
            r#"{"type":"transcript.text.delta","delta":"سلام"}"#
        );
        assert_eq!(
            serde_json::to_string(&delta(&part, Some(&tokens))).expect("serialised"),
            concat!(
                r#"{"type":"transcript.text.delta","delta":"سلام","logprobs":[{"token":"�","bytes":[216],"#,
                r#""logprob":-0.5},{"token":"�","bytes":[179],"logprob":-3.4028235e+38}]}"#
            )
        );
        assert_eq!(
            serde_json::to_string(&done(&transcript(vec![spoken]), None)).expect("serialised"),
            concat!(
                r#"{"type":"transcript.text.done","text":"سلام","languages":[{"code":"ps"}],"usage":{"type":"tokens","#,
                r#""input_tokens":165,"output_tokens":3,"total_tokens":168},"coverage":{"speech_seconds":3.0,"#,
                r#""decoded_seconds":2.5,"gaps":[{"start":2.5,"end":3.0,"reason":"token_limit"}]}}"#
            )
        );
    }
}
