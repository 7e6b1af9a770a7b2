//! Where speech is.

use earshot::Detector;
use serde::{Deserialize, Serialize};

use crate::window::energy_profile;
use crate::{Error, Span, Waveform};

/// The detector's sample rate, Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Samples per frame: 16 ms.
const FRAME_SAMPLES: usize = 256;
/// Frames between two looks at whether anybody still waits: 16 s of audio.
const FRAMES_PER_LOOK: usize = 1000;
/// Seconds per frame of [`Vad::probabilities`].
pub const FRAME_SECS: f64 = FRAME_SAMPLES as f64 / SAMPLE_RATE as f64;

/// How frame probabilities become spans; the fields are those of Silero's and faster-whisper's tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VadOptions {
    /// Speech starts at a frame with at least this probability. Default 0.5.
    pub threshold: f32,
    /// Speech goes on while the probability is at least this; at most `threshold`. Default 0.35.
    pub end_threshold: f32,
    /// A span counts only if it reaches this somewhere; at least `threshold`. Steady noise hovers around the
    /// threshold, speech passes well above it (noise was seen to reach
    /// 0.81, clips of speech 0.95 and more). Default 0.85.
    pub peak_threshold: f32,
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
            peak_threshold: 0.85,
            min_speech_secs: 0.1,
            min_silence_secs: 0.5,
            pad_secs: 0.2,
        }
    }
}

impl VadOptions {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::BadOption`] with the field and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let bad =
            |field: &'static str, reason: &str| Err(Error::BadOption { field, reason: reason.to_owned() });
        if !(0.0..=1.0).contains(&self.threshold) {
            return bad("threshold", "must be 0 to 1");
        }
        if !(0.0..=self.threshold).contains(&self.end_threshold) {
            return bad("end_threshold", "must be 0 to threshold");
        }
        if !(self.threshold..=1.0).contains(&self.peak_threshold) {
            return bad("peak_threshold", "must be threshold to 1");
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

/// Level to which quiet recordings are raised, RMS of their loud frames: 26 dB below full scale.
const LOUD_RMS: f32 = 0.05;
/// Largest amplification: 40 dB. Room tone must not become a roar.
const MAX_GAIN: f32 = 100.0;

/// A voice activity detector: the `earshot` network on 16 ms frames.
///
/// The network judges by absolute level as well, and misses speech that was recorded 40 dB too quietly, so quiet
/// recordings are amplified first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vad;

impl Vad {
    /// A detector. The network is part of the program; nothing is loaded.
    pub fn new() -> Self {
        Vad
    }

    /// Probability of speech in each frame of [`FRAME_SECS`]; the last, partial frame is padded with silence.
    /// `keep_going` is asked now and then, so that abandoned work stops.
    ///
    /// # Errors
    /// [`Error::BadSampleRate`] unless the waveform has 16 kHz, [`Error::Cancelled`] when `keep_going` says no.
    pub fn probabilities(
        &self,
        waveform: &Waveform,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>, Error> {
        if waveform.sample_rate != SAMPLE_RATE {
            let expected = format!("{SAMPLE_RATE} Hz");
            return Err(Error::BadSampleRate { sample_rate: waveform.sample_rate, expected });
        }
        let gain = gain(waveform);
        let mut detector = Detector::default();
        let mut frame = [0.0; FRAME_SAMPLES];
        let probability = |chunk: &[f32]| {
            frame.fill(0.0);
            for (value, sample) in frame.iter_mut().zip(chunk) {
                // The network is defined on [-1, 1]; mixes and float files exceed it.
                *value = if sample.is_finite() { (gain * sample).clamp(-1.0, 1.0) } else { 0.0 };
            }
            detector.predict_f32(&frame)
        };
        let mut probabilities = Vec::with_capacity(waveform.samples.len().div_ceil(FRAME_SAMPLES));
        let mut frames = waveform.samples.chunks(FRAME_SAMPLES).map(probability).peekable();
        while frames.peek().is_some() {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            probabilities.extend(frames.by_ref().take(FRAMES_PER_LOOK));
        }
        Ok(probabilities)
    }

    /// Stretches of speech, in order, not overlapping, within the recording.
    ///
    /// # Errors
    /// What [`Vad::probabilities`] refuses; [`Error::BadOption`] for options out of range.
    pub fn speech_spans(
        &self,
        waveform: &Waveform,
        options: &VadOptions,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<Span>, Error> {
        spans_from_probabilities(
            &self.probabilities(waveform, keep_going)?,
            waveform.duration_secs(),
            options,
        )
    }
}

/// The amplification, at least 1, that brings the loud frames (95th percentile) of a recording to [`LOUD_RMS`].
fn gain(waveform: &Waveform) -> f32 {
    let mut energies: Vec<f32> =
        energy_profile(waveform, FRAME_SAMPLES).into_iter().filter(|energy| energy.is_finite()).collect();
    if energies.is_empty() {
        return 1.0;
    }
    let loud = energies.len() * 95 / 100;
    let (_, loud_energy, _) = energies.select_nth_unstable_by(loud, f32::total_cmp);
    let rms = loud_energy.sqrt();
    if rms > 0.0 { (LOUD_RMS / rms).clamp(1.0, MAX_GAIN) } else { 1.0 }
}

/// The spans that frame probabilities (one per [`FRAME_SECS`]) of a recording of `duration_secs` amount to.
///
/// # Errors
/// [`Error::BadOption`] for options out of range.
pub fn spans_from_probabilities(
    probabilities: &[f32],
    duration_secs: f64,
    options: &VadOptions,
) -> Result<Vec<Span>, Error> {
    options.check()?;
    let mut runs: Vec<Run> = Vec::new();
    let mut start = None;
    let threshold_at = |is_speech: bool| if is_speech { options.end_threshold } else { options.threshold };
    for (index, probability) in probabilities.iter().enumerate() {
        let is_speech = *probability >= threshold_at(start.is_some());
        match (start, is_speech) {
            (None, true) => start = Some(index),
            (Some(first), false) => {
                push_run(&mut runs, first, &probabilities[first..index], options);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(first) = start {
        push_run(&mut runs, first, &probabilities[first..], options);
    }
    let is_kept =
        |run: &Run| run.span.duration_secs() >= options.min_speech_secs && run.peak >= options.peak_threshold;
    let mut spans: Vec<Span> = runs.iter().filter(|run| is_kept(run)).map(|run| run.span).collect();
    pad(&mut spans, duration_secs, options.pad_secs);
    Ok(spans)
}

/// A span in the making and its highest probability.
struct Run {
    span: Span,
    peak: f32,
}

/// Appends the frames from `first` on, joining them to the run before when the pause between is too short to count.
fn push_run(runs: &mut Vec<Run>, first: usize, probabilities: &[f32], options: &VadOptions) {
    let start_secs = first as f64 * FRAME_SECS;
    let end_secs = (first + probabilities.len()) as f64 * FRAME_SECS;
    let peak = probabilities.iter().copied().fold(0.0, f32::max);
    match runs.last_mut() {
        Some(last) if start_secs - last.span.end_secs < options.min_silence_secs => {
            last.span.end_secs = end_secs;
            last.peak = last.peak.max(peak);
        }
        _ => runs.push(Run { span: Span { start_secs, end_secs }, peak }),
    }
}

fn pad(spans: &mut [Span], duration_secs: f64, pad_secs: f64) {
    let mut before_secs = 0.0;
    for index in 0..spans.len() {
        let next_secs = spans.get(index + 1).map(|next| next.start_secs);
        let run = &mut spans[index];
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
            peak_threshold: 0.5,
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
        let spans = spans_from_probabilities(&probabilities, 0.256, &options()).unwrap();
        assert_eq!(spans, [Span { start_secs: 2.0 * FRAME_SECS, end_secs: 9.0 * FRAME_SECS }]);
    }

    #[test]
    fn padding_stays_inside_and_neighbours_share_the_pause() {
        let mut probabilities = [0.0_f32; 20];
        probabilities[1..6].fill(1.0);
        probabilities[10..20].fill(1.0);
        let padded = VadOptions { pad_secs: 1.0, ..options() };
        let spans = spans_from_probabilities(&probabilities, 0.31, &padded).unwrap();
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].start_secs, 0.0);
        assert_eq!(spans[0].end_secs, spans[1].start_secs);
        assert_eq!(spans[1].end_secs, 0.31);
    }

    #[test]
    fn silence_and_nothing_hold_no_speech() {
        for n_samples in [0, 1, 16_000] {
            let waveform = Waveform { samples: vec![0.0; n_samples], sample_rate: 16_000 };
            assert_eq!(Vad::new().speech_spans(&waveform, &VadOptions::default(), &|| true).unwrap(), []);
        }
    }

    #[test]
    fn abandoned_work_stops_at_the_next_look() {
        let waveform =
            Waveform { samples: vec![0.0; FRAME_SAMPLES * FRAMES_PER_LOOK * 5], sample_rate: 16_000 };
        let looks = std::cell::Cell::new(0);
        let twice = || {
            looks.set(looks.get() + 1);
            looks.get() <= 2
        };
        assert!(matches!(Vad::new().probabilities(&waveform, &twice), Err(Error::Cancelled)));
        assert_eq!(looks.get(), 3);
    }

    #[test]
    fn other_rates_and_bad_options_are_refused() {
        let waveform = Waveform { samples: vec![0.0; 80], sample_rate: 8_000 };
        let refused = Vad::new().speech_spans(&waveform, &VadOptions::default(), &|| true);
        assert!(matches!(refused, Err(Error::BadSampleRate { sample_rate: 8_000, .. })));
        let options = VadOptions { end_threshold: 0.9, ..VadOptions::default() };
        let refused =
            Vad::new().speech_spans(&Waveform { sample_rate: 16_000, ..waveform }, &options, &|| true);
        assert!(matches!(refused, Err(Error::BadOption { field: "end_threshold", .. })));
    }

    #[test]
    fn samples_out_of_range_do_not_panic() {
        let waveform =
            Waveform { samples: vec![f32::NAN, 7.0, f32::NEG_INFINITY, -9.0], sample_rate: 16_000 };
        assert_eq!(Vad::new().probabilities(&waveform, &|| true).unwrap().len(), 1);
    }
}
