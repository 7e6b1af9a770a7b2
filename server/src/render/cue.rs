//! What SubRip and WebVTT share: segments become cues that no player trips over.

use models::Transcript;

/// A subtitle: one or more lines of text and when it is shown, in milliseconds.
pub(super) struct Cue {
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    pub(super) text: String,
}

/// The segments that have text, in order, none starting before the one before it ends, each at least a millisecond long.
pub(super) fn cues(transcript: &Transcript) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for segment in &transcript.segments {
        // An empty line would end the cue.
        let lines: Vec<_> = segment.text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            continue;
        }
        let start_ms = ms(segment.start_secs).max(cues.last().map_or(0, |cue| cue.end_ms));
        let end_ms = ms(segment.end_secs).max(start_ms + 1);
        cues.push(Cue { start_ms, end_ms, text: lines.join("\n") });
    }
    cues
}

/// `hh:mm:ss`, a separator and milliseconds; more hours take more digits.
pub(super) fn timestamp(ms: u64, separator: char) -> String {
    let (secs, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}{separator}{ms:03}", secs / 3600, secs / 60 % 60, secs % 60)
}

fn ms(secs: f64) -> u64 {
    // A cast of NaN or a negative number gives 0.
    (secs * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript};
    use super::*;

    #[test]
    fn times_are_written_in_full() {
        assert_eq!(timestamp(0, ','), "00:00:00,000");
        assert_eq!(timestamp(3_723_004, '.'), "01:02:03.004");
        assert_eq!(timestamp(100 * 3_600_000 + 59_999, '.'), "100:00:59.999");
        assert_eq!(ms(59.9996), 60_000);
    }

    #[test]
    fn cues_are_monotone_and_never_empty() {
        let cues = cues(&transcript(vec![
            segment(0, -1.0, 2.0, " a"),
            segment(1, 1.5, 1.8, " b\n\n c "),
            segment(2, 2.0, 3.0, "  \n"),
            segment(3, f64::NAN, f64::NAN, " d"),
        ]));
        let times: Vec<_> = cues.iter().map(|cue| (cue.start_ms, cue.end_ms, cue.text.as_str())).collect();
        assert_eq!(times, [(0, 2000, "a"), (2000, 2001, "b\nc"), (2001, 2002, "d")]);
    }
}
