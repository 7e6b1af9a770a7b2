//! WebVTT subtitles, <https://www.w3.org/TR/webvtt1/>.

use models::Transcript;

use super::cue::{cues, timestamp};

/// The header, then the cues.
pub fn vtt(transcript: &Transcript) -> String {
    let mut vtt = String::from("WEBVTT\n\n");
    for cue in cues(transcript) {
        let (start, end) = (timestamp(cue.start_ms, '.'), timestamp(cue.end_ms, '.'));
        vtt.push_str(&format!("{start} --> {end}\n{}\n\n", escape(&cue.text)));
    }
    vtt
}

/// `<` opens a tag and `&` an entity; a `>` left alone could complete an arrow.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::sample::{segment, transcript};
    use super::vtt;

    #[test]
    fn markup_is_escaped() {
        let transcript = transcript(vec![
            segment(0, 0.0, 1.5, " سلام <b> &amp; x --> y"),
            segment(1, 3661.25, 3662.0, " two"),
        ]);
        assert_eq!(
            vtt(&transcript),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nسلام &lt;b&gt; &amp;amp; x --&gt; y\n\n\
             01:01:01.250 --> 01:01:02.000\ntwo\n\n"
        );
    }

    #[test]
    fn silence_is_a_valid_file() {
        assert_eq!(vtt(&transcript(vec![])), "WEBVTT\n\n");
    }
}
