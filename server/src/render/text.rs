//! The text alone.

use models::Transcript;

/// The text and a line end.
pub fn text(transcript: &Transcript) -> String {
    format!("{}\n", transcript.text)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript};

    #[test]
    fn text_is_one_line() {
        let transcript = transcript(vec![segment(0, 0.0, 1.0, " سلام"), segment(1, 1.0, 2.0, " نړۍ")]);
        assert_eq!(super::text(&transcript), "سلام نړۍ\n");
    }
}
