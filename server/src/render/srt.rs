//! SubRip subtitles. The format has no specification: this is what every player reads.

use models::Transcript;

use super::cue::{cues, timestamp};

/// Numbered cues; nothing at all when there is no text.
pub fn srt(transcript: &Transcript) -> String {
    let mut srt = String::new();
    for (index, cue) in cues(transcript).iter().enumerate() {
        let (start, end) = (timestamp(cue.start_ms, ','), timestamp(cue.end_ms, ','));
        // Players take any line with an arrow for times, and know no escape.
        let text = cue.text.replace("-->", "->");
        srt.push_str(&format!("{}\n{start} --> {end}\n{text}\n\n", index + 1));
    }
    srt
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript};
    use super::srt;

    #[test]
    fn cues_are_numbered_and_arrows_defused() {
        let transcript = transcript(vec![
            segment(0, 0.0, 1.5, " سلام <b> & x --> y"),
            segment(1, 1.5, 1.6, " "),
            segment(2, 3661.25, 3662.0, " two"),
        ]);
        assert_eq!(
            srt(&transcript),
            "1\n00:00:00,000 --> 00:00:01,500\nسلام <b> & x -> y\n\n2\n01:01:01,250 --> 01:01:02,000\ntwo\n\n"
        );
    }

    #[test]
    fn silence_has_no_cues() {
        assert_eq!(srt(&transcript(vec![])), "");
    }
}
