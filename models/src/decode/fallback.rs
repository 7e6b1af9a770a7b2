//! When a result looks wrong and is decoded again at a higher temperature
//! (openai/whisper `transcribe.py: decode_with_fallback`).

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Temperatures tried one after the other.
pub const LADDER: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// What a good result looks like. `None` turns a check off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Highest compression ratio.
    pub compression_ratio: Option<f32>,
    /// Lowest mean log-probability.
    pub logprob: Option<f32>,
    /// Probability of silence above which an unsure window is skipped.
    pub no_speech: Option<f32>,
}

impl Thresholds {
    /// Whether the text repeats itself too much.
    pub fn is_repetitive(&self, compression_ratio: f32) -> bool {
        self.compression_ratio.is_some_and(|threshold| compression_ratio > threshold)
    }

    fn is_unsure(&self, avg_logprob: f32) -> bool {
        self.logprob.is_some_and(|threshold| avg_logprob < threshold)
    }

    /// Whether the window is taken for silence: probably no speech, and not sure of the text either.
    pub fn is_silence(&self, no_speech_prob: f32, avg_logprob: f32) -> bool {
        let sure = self.logprob.is_some_and(|threshold| avg_logprob > threshold);
        self.no_speech.is_some_and(|threshold| no_speech_prob > threshold) && !sure
    }

    /// Whether to try the next temperature.
    pub fn reject(&self, compression_ratio: f32, avg_logprob: f32, no_speech_prob: f32) -> bool {
        let silent = self.no_speech.is_some_and(|threshold| no_speech_prob > threshold);
        let unsure = self.is_unsure(avg_logprob);
        (self.is_repetitive(compression_ratio) || unsure) && !(silent && unsure)
    }
}

/// Bytes of `text` over its bytes compressed by zlib at its default level; 0 for no text.
pub fn compression_ratio(text: &str) -> f32 {
    if text.is_empty() {
        return 0.0;
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    // Writing to memory does not fail; were it to, the ratio of 0 rejects nothing.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    compressed.map_or(0.0, |bytes| text.len() as f32 / bytes.len() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Thresholds =
        Thresholds { compression_ratio: Some(2.4), logprob: Some(-1.0), no_speech: Some(0.6) };

    #[test]
    fn ratios_are_zlibs() {
        assert!((compression_ratio(&"ha ".repeat(50)) - 10.71).abs() < 0.01);
        assert!((compression_ratio("hello world") - 0.579).abs() < 0.001);
    }

    /// `tests/oracle/compression.py`. Deflate implementations differ by a few bytes; none may move a text over the
    /// threshold.
    #[test]
    fn sizes_are_those_that_the_reference_compresses_to() -> Result<(), Box<dyn std::error::Error>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/compression.json");
        let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let texts = expected["texts"].as_array().ok_or("texts")?;
        assert_eq!(texts.len(), 12);
        for row in texts {
            let text = row["text"].as_str().ok_or("text")?;
            let (n_bytes, theirs) = (row["bytes"].as_u64(), row["ratio"].as_f64().ok_or("ratio")? as f32);
            assert_eq!(n_bytes, Some(text.len() as u64));
            let ours = compression_ratio(text);
            let n_compressed = text.len() as f32 / ours;
            let n_theirs = row["zlib_bytes"].as_f64().ok_or("zlib_bytes")? as f32;
            assert!((n_compressed - n_theirs).abs() <= 3.0, "{text}: {n_compressed} bytes, not {n_theirs}");
            assert_eq!(USUAL.is_repetitive(ours), theirs > 2.4, "{text}: {ours}, not {theirs}");
        }
        assert_eq!(compression_ratio(""), 0.0);
        Ok(())
    }

    #[test]
    fn thresholds_that_are_off_never_reject() {
        let off = Thresholds { compression_ratio: None, logprob: None, no_speech: None };
        assert!(!off.reject(99.0, -99.0, 0.0) && !off.is_silence(1.0, -99.0));
        // Without a threshold of sureness, the probability of silence alone decides.
        let no_speech = Thresholds { no_speech: Some(0.6), ..off };
        assert!(no_speech.is_silence(0.7, -0.1) && !no_speech.is_silence(0.5, -9.0));
        // A repetitive text is decoded again even if the window may be silent, as long as it is sure of it.
        assert!(USUAL.reject(2.5, -0.5, 0.9) && !USUAL.reject(2.5, -1.1, 0.9));
    }

    #[test]
    fn repetition_and_doubt_are_rejected_and_silence_is_not() {
        assert!(USUAL.reject(2.5, -0.1, 0.0));
        assert!(USUAL.reject(1.0, -1.1, 0.0));
        assert!(!USUAL.reject(1.0, -0.5, 0.9));
        assert!(!USUAL.reject(1.0, -1.1, 0.9));
        assert!(USUAL.is_silence(0.9, -1.1) && !USUAL.is_silence(0.9, -0.5) && !USUAL.is_silence(0.1, -2.0));
    }
}
