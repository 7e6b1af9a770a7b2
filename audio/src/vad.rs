//! Where speech is.

use earshot::Detector;

use crate::{Error, Span, Waveform};

/// The detector's sample rate, Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Samples per frame: 16 ms.
const FRAME_SAMPLES: usize = 256;
/// Seconds per frame of [`Vad::probabilities`].
pub const FRAME_SECS: f64 = FRAME_SAMPLES as f64 / SAMPLE_RATE as f64;

/// How frame probabilities become spans; the fields are those of Silero's and faster-whisper's tools.
#[derive(Debug, Clone, PartialEq)]
pub struct VadOptions {
    /// Speech starts at a frame with at least this probability. Default 0.5.
    pub threshold: f32,
    /// Speech goes on while the probability is at least this; at most `threshold`. Default 0.35.
    pub end_threshold: f32,
    /// Shorter bursts are dropped, seconds. Default 0.1.
    pub min_speech_secs: f64,
    /// Shorter pauses do not end a span, seconds. Default 0.5.
    pub min_silence_secs: f64,
    /// Added on both sides of each span, seconds; neighbours that would overlap share the pause. Default 0.2.
    pub pad_secs: f64,
}

impl Default for VadOptions {
    fn default() -> Self {
        VadOptions {
            threshold: 0.5,
            end_threshold: 0.35,
            min_speech_secs: 0.1,
            min_silence_secs: 0.5,
            pad_secs: 0.2,
        }
    }
}

impl VadOptions {
    fn check(&self) -> Result<(), Error> {
        let bad =
            |field: &'static str, reason: &str| Err(Error::BadOption { field, reason: reason.to_owned() });
        if !(0.0..=1.0).contains(&self.threshold) {
            return bad("threshold", "must be 0 to 1");
        }
        if !(0.0..=self.threshold).contains(&self.end_threshold) {
            return bad("end_threshold", "must be 0 to threshold");
        }
        let lengths = [
            ("min_speech_secs", self.min_speech_secs),
            ("min_silence_secs", self.min_silence_secs),
            ("pad_secs", self.pad_secs),
        ];
        match lengths.iter().find(|(_, secs)| !secs.is_finite() || *secs < 0.0) {
            Some((field, _)) => bad(field, "must be a length of time"),
            None => Ok(()),
        }
    }
}

/// A voice activity detector: the `earshot` network on 16 ms frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vad;

impl Vad {
    /// A detector. The network is part of the program; nothing is loaded.
    pub fn new() -> Self {
        Vad
    }

    /// Probability of speech in each frame of [`FRAME_SECS`]; the last, partial frame is padded with silence.
    ///
    /// # Errors
    /// [`Error::BadSampleRate`] unless the waveform has 16 kHz.
    pub fn probabilities(&self, waveform: &Waveform) -> Result<Vec<f32>, Error> {
        if waveform.sample_rate != SAMPLE_RATE {
            let expected = format!("{SAMPLE_RATE} Hz");
            return Err(Error::BadSampleRate { sample_rate: waveform.sample_rate, expected });
        }
        let mut detector = Detector::default();
        let mut frame = [0.0; FRAME_SAMPLES];
        let probability = |chunk: &[f32]| {
            frame.fill(0.0);
            for (value, sample) in frame.iter_mut().zip(chunk) {
                // The network is defined on [-1, 1]; mixes and float files exceed it.
                *value = if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
            }
            detector.predict_f32(&frame)
        };
        Ok(waveform.samples.chunks(FRAME_SAMPLES).map(probability).collect())
    }

    /// Stretches of speech, in order, not overlapping, within the recording.
    ///
    /// # Errors
    /// [`Error::BadSampleRate`] unless the waveform has 16 kHz, [`Error::BadOption`] for options out of range.
    pub fn speech_spans(&self, waveform: &Waveform, options: &VadOptions) -> Result<Vec<Span>, Error> {
        options.check()?;
        Ok(spans_from_probabilities(&self.probabilities(waveform)?, waveform.duration_secs(), options))
    }
}

/// The spans that frame probabilities (one per [`FRAME_SECS`]) of a recording of `duration_secs` amount to.
fn spans_from_probabilities(probabilities: &[f32], duration_secs: f64, options: &VadOptions) -> Vec<Span> {
    let mut runs: Vec<Span> = Vec::new();
    let mut start = None;
    let threshold_at = |is_speech: bool| if is_speech { options.end_threshold } else { options.threshold };
    for (index, probability) in probabilities.iter().enumerate() {
        let is_speech = *probability >= threshold_at(start.is_some());
        match (start, is_speech) {
            (None, true) => start = Some(index),
            (Some(first), false) => {
                push_run(&mut runs, first, index, options);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(first) = start {
        push_run(&mut runs, first, probabilities.len(), options);
    }
    runs.retain(|run| run.duration_secs() >= options.min_speech_secs);
    pad(&mut runs, duration_secs, options.pad_secs);
    runs
}

/// Appends frames `first .. end`, joining them to the run before when the pause between is too short to count.
fn push_run(runs: &mut Vec<Span>, first: usize, end: usize, options: &VadOptions) {
    let (start_secs, end_secs) = (first as f64 * FRAME_SECS, end as f64 * FRAME_SECS);
    match runs.last_mut() {
        Some(last) if start_secs - last.end_secs < options.min_silence_secs => last.end_secs = end_secs,
        _ => runs.push(Span { start_secs, end_secs }),
    }
}

fn pad(runs: &mut [Span], duration_secs: f64, pad_secs: f64) {
    let mut before_secs = 0.0;
    for index in 0..runs.len() {
        let next_secs = runs.get(index + 1).map(|next| next.start_secs);
        let run = &mut runs[index];
        let pause_after = next_secs.map_or(duration_secs, |next| (run.end_secs + next) / 2.0);
        let end_secs = (run.end_secs + pad_secs).min(pause_after).min(duration_secs);
        run.start_secs = (run.start_secs - pad_secs).max(before_secs);
        before_secs = pause_after;
        run.end_secs = end_secs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> VadOptions {
        VadOptions {
            threshold: 0.5,
            end_threshold: 0.3,
            min_speech_secs: 0.03,
            min_silence_secs: 0.04,
            pad_secs: 0.0,
        }
    }

    #[test]
    fn hysteresis_joins_and_drops() {
        // Frames of 16 ms: speech 2..5 (held by 0.4), a pause of 2 frames, speech 7..9, a lone click at 14.
        let mut probabilities = [0.0_f32; 16];
        probabilities[2..5].copy_from_slice(&[0.9, 0.4, 0.4]);
        probabilities[7..9].copy_from_slice(&[0.6, 0.6]);
        probabilities[14] = 0.9;
        let spans = spans_from_probabilities(&probabilities, 0.256, &options());
        assert_eq!(spans, [Span { start_secs: 2.0 * FRAME_SECS, end_secs: 9.0 * FRAME_SECS }]);
    }

    #[test]
    fn padding_stays_inside_and_neighbours_share_the_pause() {
        let mut probabilities = [0.0_f32; 20];
        probabilities[1..6].fill(1.0);
        probabilities[10..20].fill(1.0);
        let padded = VadOptions { pad_secs: 1.0, ..options() };
        let spans = spans_from_probabilities(&probabilities, 0.31, &padded);
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].start_secs, 0.0);
        assert_eq!(spans[0].end_secs, spans[1].start_secs);
        assert_eq!(spans[1].end_secs, 0.31);
    }

    #[test]
    fn silence_and_nothing_hold_no_speech() {
        for n_samples in [0, 1, 16_000] {
            let waveform = Waveform { samples: vec![0.0; n_samples], sample_rate: 16_000 };
            assert_eq!(Vad::new().speech_spans(&waveform, &VadOptions::default()).unwrap(), []);
        }
    }

    #[test]
    fn other_rates_and_bad_options_are_refused() {
        let waveform = Waveform { samples: vec![0.0; 80], sample_rate: 8_000 };
        let refused = Vad::new().speech_spans(&waveform, &VadOptions::default());
        assert!(matches!(refused, Err(Error::BadSampleRate { sample_rate: 8_000, .. })));
        let options = VadOptions { end_threshold: 0.9, ..VadOptions::default() };
        let refused = Vad::new().speech_spans(&Waveform { sample_rate: 16_000, ..waveform }, &options);
        assert!(matches!(refused, Err(Error::BadOption { field: "end_threshold", .. })));
    }

    #[test]
    fn samples_out_of_range_do_not_panic() {
        let waveform =
            Waveform { samples: vec![f32::NAN, 7.0, f32::NEG_INFINITY, -9.0], sample_rate: 16_000 };
        assert_eq!(Vad::new().probabilities(&waveform).unwrap().len(), 1);
    }
}
