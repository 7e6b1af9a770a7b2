//! How far speech that was synthesised lies from a recording of the same words: the distortion of its spectrum and the error of its pitch.
//!
//! Mel-cepstral distortion (Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", 1993) is
//! `10 / ln 10 * sqrt(2 * sum (c_k - c'_k)^2)` dB for a pair of frames, here over `c_1 .. c_13`: loudness does not count. The cepstra are
//! those of our own features, of vocoders at 16 kHz: `ln S_m = sum c_k cos(pi k (m + 1/2) / M)` over the 80 mel bins, of which what lies more
//! than 80 dB below the loudest is silence. It compares systems here with each other; other programs make cepstra of other spectra (WORLD's,
//! with 24 coefficients), and their figures are others. Frames are paired by dynamic time warping: the path with the least sum of
//! distortions, each step counted once, from the first pair to the last.
//!
//! The pitch is YIN's, compared over the same path: its error in cents where both are voiced, and the share of the pairs where one is.

use std::ops::Add;

use audio::{FeatureSpec, Features, LogMel, PitchConfig, PitchTracker, Waveform, resample};
use models::transcript::dtw;
use serde::{Deserialize, Serialize};

use super::Error;

/// Rate at which speech is compared, Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Mel bins, M.
const N_MELS: usize = 80;
/// Coefficients that count, from the first: the 0th is loudness.
const N_CEPSTRA: usize = 13;
/// How far below the loudest mel energy there is anything to compare.
const RANGE_DB: f64 = 80.0;

/// Sums over pairs of frames. They add up, so that a corpus is never a mean of means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeechDistance {
    /// Pairs of frames.
    pub n_pairs: usize,
    /// Their distortions, dB.
    pub distortion_db_sum: f64,
    /// Pairs of which both are voiced.
    pub n_voiced: usize,
    /// The squares of their differences in pitch, cents.
    pub squared_cents_sum: f64,
    /// Pairs of which one is voiced and the other is not.
    pub n_voicing_errors: usize,
}

impl SpeechDistance {
    /// Mel-cepstral distortion, dB; `None` where nothing was compared.
    pub fn distortion_db(&self) -> Option<f64> {
        (self.n_pairs > 0).then(|| self.distortion_db_sum / self.n_pairs as f64)
    }

    /// Root of the mean squared error of the pitch, cents (a semitone has 100); `None` where nothing is voiced in both.
    pub fn pitch_error_cents(&self) -> Option<f64> {
        (self.n_voiced > 0).then(|| (self.squared_cents_sum / self.n_voiced as f64).sqrt())
    }

    /// Share of the pairs of which one is voiced and the other is not; `None` where nothing was compared.
    pub fn voicing_error(&self) -> Option<f64> {
        (self.n_pairs > 0).then(|| self.n_voicing_errors as f64 / self.n_pairs as f64)
    }
}

impl Add for SpeechDistance {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            n_pairs: self.n_pairs + other.n_pairs,
            distortion_db_sum: self.distortion_db_sum + other.distortion_db_sum,
            n_voiced: self.n_voiced + other.n_voiced,
            squared_cents_sum: self.squared_cents_sum + other.squared_cents_sum,
            n_voicing_errors: self.n_voicing_errors + other.n_voicing_errors,
        }
    }
}

/// Compares speech with recordings. Immutable; threads may share it.
pub struct SpeechComparer {
    log_mel: LogMel,
    pitch: PitchTracker,
}

impl SpeechComparer {
    /// A comparer.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn new() -> Result<Self, Error> {
        let range = RANGE_DB / 20.0 * std::f64::consts::LN_10;
        let spec = FeatureSpec { dynamic_range: Some(range), ..FeatureSpec::vocoder(SAMPLE_RATE, N_MELS) };
        let pitch = PitchTracker::new(SAMPLE_RATE, spec.hop_samples, &PitchConfig::default())?;
        Ok(Self { log_mel: LogMel::new(&spec)?, pitch })
    }

    /// How far `spoken` lies from `recorded`, at any sample rates. Nothing is compared where one of them is empty.
    ///
    /// # Errors
    /// Sample rates that are none.
    pub fn compare(&self, recorded: &Waveform, spoken: &Waveform) -> Result<SpeechDistance, Error> {
        let (recorded, spoken) = (resample(recorded, SAMPLE_RATE)?, resample(spoken, SAMPLE_RATE)?);
        let cepstra = |waveform: &Waveform| mel_cepstra(&self.log_mel.compute(&waveform.samples));
        let (one, other) = (cepstra(&recorded), cepstra(&spoken));
        let pitches = [recorded, spoken].map(|waveform| self.pitch.track(&waveform.samples));
        let mut distance = SpeechDistance::default();
        for (row, frame) in alignment(&one, &other) {
            distance.n_pairs += 1;
            distance.distortion_db_sum += distortion_db(&one[row], &other[frame]);
            match [pitches[0].get(row), pitches[1].get(frame)].map(|pitch| pitch.copied().flatten()) {
                [Some(recorded), Some(spoken)] => {
                    distance.n_voiced += 1;
                    let cents: f64 = 1200.0 * (spoken / recorded).log2();
                    distance.squared_cents_sum += cents.powi(2);
                }
                [None, None] => {}
                _ => distance.n_voicing_errors += 1,
            }
        }
        Ok(distance)
    }
}

/// Mel-cepstral coefficients 1 to 13 of each frame of logarithms of mel magnitudes.
fn mel_cepstra(features: &Features) -> Vec<[f64; N_CEPSTRA]> {
    let n_mels = features.n_mels;
    let cosine = |k: usize, mel: usize| {
        (std::f64::consts::PI * k as f64 * (mel as f64 + 0.5) / n_mels as f64).cos() * 2.0 / n_mels as f64
    };
    let basis: Vec<Vec<f64>> =
        (1..=N_CEPSTRA).map(|k| (0..n_mels).map(|mel| cosine(k, mel)).collect()).collect();
    let frame = |t: usize| {
        std::array::from_fn(|k| {
            let values = (0..n_mels).map(|mel| f64::from(features.data[mel * features.n_frames + t]));
            values.zip(&basis[k]).map(|(value, weight)| value * weight).sum()
        })
    };
    (0..features.n_frames).map(frame).collect()
}

/// Distortion of a frame, dB.
fn distortion_db(one: &[f64; N_CEPSTRA], other: &[f64; N_CEPSTRA]) -> f64 {
    let squares = one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f64>();
    10.0 / std::f64::consts::LN_10 * (2.0 * squares).sqrt()
}

/// Pairs of frames along the path with the least sum of distortions; none where there are no frames.
fn alignment(one: &[[f64; N_CEPSTRA]], other: &[[f64; N_CEPSTRA]]) -> Vec<(usize, usize)> {
    if one.is_empty() || other.is_empty() {
        return Vec::new();
    }
    let rows = one.iter().flat_map(|row| other.iter().map(|frame| distortion_db(row, frame) as f32));
    dtw(&rows.collect::<Vec<_>>(), one.len(), other.len())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixtures;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// As `tests/oracle/common.py` has it.
    fn synthetic_mel(n_mels: usize, n_frames: usize, clip: f64) -> Features {
        let value = |m: f64, t: f64| {
            0.9 * (0.11 * (clip + 1.0) * m + 0.013 * t).sin() + 0.5 * (0.0007 * (m + 1.0) * t + clip).cos()
        };
        let data =
            (0..n_mels * n_frames).map(|at| value((at / n_frames) as f64, (at % n_frames) as f64) as f32);
        Features { data: data.collect(), n_mels, n_frames }
    }

    /// As `tests/oracle/speech_distance.py` makes it: overtones of a pitch that moves, a pause, and noise.
    fn synthetic_voice(hz: f64, slope: f64, n_samples: usize) -> Waveform {
        let mut state = 12_345_u64;
        let samples = (0..n_samples).map(|at| {
            state = (1_664_525 * state + 1_013_904_223) % (1 << 32);
            let noise = state as f64 / 2_147_483_648.0 - 1.0;
            let t = at as f64 / 16_000.0;
            let phase = std::f64::consts::TAU * (hz * t + slope / 2.0 * t * t);
            let voice: f64 = (1..=10).map(f64::from).map(|k| (k * phase + k).sin() / k).sum();
            let is_pause = (0.3..0.45).contains(&t);
            (if is_pause { 0.001 * noise } else { 0.2 * voice + 0.002 * noise }) as f32
        });
        Waveform { samples: samples.collect(), sample_rate: 16_000 }
    }

    /// `tests/oracle/speech_distance.py`.
    #[test]
    fn cepstra_and_distortion_are_those_of_scipy_along_the_path_of_librosa() -> Outcome {
        let expected = fixtures::committed("speech-distance.json")?;
        let one: Vec<_> = mel_cepstra(&synthetic_mel(80, 800, 0.0)).into_iter().step_by(35).collect();
        let other: Vec<_> = mel_cepstra(&synthetic_mel(80, 800, 0.05)).into_iter().step_by(26).collect();
        assert_eq!(Some(one.len()), expected["cepstra"].as_array().map(Vec::len));
        for (frame, expected) in one.iter().zip(expected["cepstra"].as_array().ok_or("cepstra")?) {
            let expected: [f64; N_CEPSTRA] = serde_json::from_value(expected.clone())?;
            assert!(frame.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-6));
        }
        let path = alignment(&one, &other);
        assert_eq!(serde_json::json!(path), expected["path"]);
        let sum: f64 = path.iter().map(|(row, frame)| distortion_db(&one[*row], &other[*frame])).sum();
        let expected = expected["distortion_db"].as_f64().ok_or("distortion")?;
        assert!((sum / path.len() as f64 - expected).abs() < 1e-5, "{sum}");
        Ok(())
    }

    /// `tests/oracle/speech_distance.py`: the definition as the paper has it, and librosa's, whose window shrinks with the lag.
    #[test]
    fn the_pitch_is_that_of_the_paper_and_nearly_that_of_librosa() -> Outcome {
        let expected = fixtures::committed("speech-distance.json")?;
        let pitches = |key: &str| -> Result<Vec<Option<f64>>, serde_json::Error> {
            serde_json::from_value(expected["pitch"][key].clone())
        };
        let track = PitchTracker::new(16_000, 256, &PitchConfig::default())?
            .track(&synthetic_voice(130.0, 60.0, 12_000).samples);
        let cents = |one: f64, other: f64| (1200.0 * (one / other).log2()).abs();
        let paper = pitches("paper")?;
        assert_eq!(track.len(), paper.len());
        for (t, (ours, theirs)) in track.iter().zip(paper).enumerate() {
            assert_eq!(ours.is_some(), theirs.is_some(), "frame {t}");
            assert!(ours.zip(theirs).is_none_or(|(ours, theirs)| cents(ours, theirs) < 1e-3), "frame {t}");
        }
        let both = track.iter().zip(pitches("librosa")?).filter_map(|(ours, theirs)| (*ours).zip(theirs));
        let errors: Vec<_> = both.map(|(ours, theirs)| cents(ours, theirs)).collect();
        assert!(errors.len() > 20 && errors.iter().all(|cents| *cents < 10.0), "{errors:?}");
        Ok(())
    }

    /// Parseval: with all coefficients it is the root of the mean squared difference of the spectra's levels, without their means.
    #[test]
    fn one_cosine_in_the_levels_is_its_amplitude_over_the_root_of_two() {
        let features = |db: f64| {
            let level = |mel: usize| db * (std::f64::consts::PI * 3.0 * (mel as f64 + 0.5) / 80.0).cos();
            let data = (0..80).map(|mel| (level(mel) / 20.0 * std::f64::consts::LN_10) as f32);
            mel_cepstra(&Features { data: data.collect(), n_mels: 80, n_frames: 1 })
        };
        let (flat, waved) = (features(0.0), features(6.0));
        assert!((distortion_db(&flat[0], &waved[0]) - 6.0 / 2.0_f64.sqrt()).abs() < 1e-5);
        // Loudness does not count.
        let loud = Features { data: vec![5.0; 80], n_mels: 80, n_frames: 1 };
        assert!(distortion_db(&flat[0], &mel_cepstra(&loud)[0]) < 1e-5);
    }

    /// The least sum over all paths by steps of (1, 0), (0, 1) and (1, 1).
    fn least(costs: &[Vec<f64>], row: usize, frame: usize) -> f64 {
        let before = match (row, frame) {
            (0, 0) => 0.0,
            (0, _) => least(costs, 0, frame - 1),
            (_, 0) => least(costs, row - 1, 0),
            _ => least(costs, row - 1, frame - 1).min(least(costs, row - 1, frame)).min(least(
                costs,
                row,
                frame - 1,
            )),
        };
        costs[row][frame] + before
    }

    #[test]
    fn no_path_is_cheaper_than_that_of_the_alignment() {
        for (n_rows, n_frames) in [(1, 1), (1, 6), (5, 1), (4, 7), (6, 6)] {
            let cepstra = |clip: f64, n: usize| mel_cepstra(&synthetic_mel(80, n * 9, clip));
            let thin = |cepstra: Vec<[f64; N_CEPSTRA]>| cepstra.into_iter().step_by(9).collect::<Vec<_>>();
            let (one, other) = (thin(cepstra(0.0, n_rows)), thin(cepstra(0.2, n_frames)));
            let costs: Vec<Vec<_>> =
                one.iter().map(|row| other.iter().map(|frame| distortion_db(row, frame)).collect()).collect();
            let path = alignment(&one, &other);
            assert_eq!((path.first(), path.last()), (Some(&(0, 0)), Some(&(n_rows - 1, n_frames - 1))));
            let steps = path.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
            assert!(steps.into_iter().all(|step| [(1, 0), (0, 1), (1, 1)].contains(&step)));
            let sum: f64 = path.iter().map(|(row, frame)| costs[*row][*frame]).sum();
            assert!(
                (sum - least(&costs, n_rows - 1, n_frames - 1)).abs() < 1e-4,
                "{n_rows} x {n_frames}: {sum}"
            );
        }
    }

    #[test]
    fn speech_is_no_distance_from_itself_and_a_semitone_from_what_is_a_semitone_higher() -> Outcome {
        let comparer = SpeechComparer::new()?;
        let voice = synthetic_voice(130.0, 0.0, 12_000);
        let same = comparer.compare(&voice, &voice)?;
        assert_eq!(
            (same.distortion_db(), same.pitch_error_cents(), same.voicing_error()),
            (Some(0.0), Some(0.0), Some(0.0))
        );
        let louder = Waveform { samples: voice.samples.iter().map(|sample| 2.0 * sample).collect(), ..voice };
        let loud = comparer.compare(&voice, &louder)?;
        assert!(loud.distortion_db().is_some_and(|db| db < 1e-3), "{loud:?}");
        let higher =
            comparer.compare(&voice, &synthetic_voice(130.0 * 2.0_f64.powf(1.0 / 12.0), 0.0, 12_000))?;
        assert!(higher.pitch_error_cents().is_some_and(|cents| (cents - 100.0).abs() < 8.0), "{higher:?}");
        assert!(higher.voicing_error().is_some_and(|share| share < 0.15), "{higher:?}");
        assert!(higher.distortion_db().is_some_and(|db| db > 0.5), "{higher:?}");
        let silence = Waveform { samples: vec![0.0; 12_000], sample_rate: 16_000 };
        let silent = comparer.compare(&voice, &silence)?;
        assert_eq!(silent.pitch_error_cents(), None);
        assert!(silent.voicing_error().is_some_and(|share| share > 0.6), "{silent:?}");
        let nothing = comparer.compare(&voice, &Waveform { samples: Vec::new(), sample_rate: 16_000 })?;
        assert_eq!((nothing, nothing.distortion_db()), (SpeechDistance::default(), None));
        let sum = same + higher;
        assert_eq!(sum.n_pairs, same.n_pairs + higher.n_pairs);
        assert!(sum.distortion_db().is_some_and(|db| db > 0.0 && db < higher.distortion_db().unwrap_or(0.0)));
        Ok(())
    }

    #[test]
    fn other_sample_rates_are_compared_at_one() -> Outcome {
        let voice = synthetic_voice(150.0, 40.0, 12_000);
        let other = resample(&voice, 24_000)?;
        let distance = SpeechComparer::new()?.compare(&voice, &other)?;
        assert!(distance.pitch_error_cents().is_some_and(|cents| cents < 5.0), "{distance:?}");
        assert!(distance.distortion_db().is_some_and(|db| db < 8.0), "{distance:?}");
        let json: Value = serde_json::to_value(distance)?;
        assert_eq!(serde_json::from_value::<SpeechDistance>(json)?, distance);
        Ok(())
    }
}
