//! A transcript for the tests of this folder, and of those who write it.

use models::{Coverage, Gap, GapReason, Segment, Task, Transcript, Word};

pub(crate) fn segment(id: usize, start_secs: f64, end_secs: f64, text: &str) -> Segment {
    Segment {
        id,
        seek_secs: 30.0 * id as f64,
        start_secs,
        end_secs,
        text: text.to_owned(),
        token_ids: vec![50364, 440, 50414],
        token_logprobs: vec![-0.1, -0.2, -0.3],
        temperature: 0.0,
        avg_logprob: -0.3,
        compression_ratio: 1.25,
        no_speech_prob: 0.01,
        words: None,
    }
}

pub(crate) fn transcript(segments: Vec<Segment>) -> Transcript {
    let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
    Transcript {
        text: text.trim().to_owned(),
        language: Some("ps".to_owned()),
        language_probability: Some(0.9),
        task: Task::Transcribe,
        to_language: None,
        cascade: None,
        duration_secs: 3.3,
        segments,
        coverage: Coverage {
            speech_secs: 3.0,
            decoded_secs: 2.5,
            gaps: vec![Gap { start_secs: 2.5, end_secs: 3.0, reason: GapReason::TokenLimit }],
        },
    }
}

pub(crate) fn word(text: &str, start_secs: f64, end_secs: f64) -> Word {
    Word { text: text.to_owned(), start_secs, end_secs, probability: 0.5 }
}
