//! Features back to a waveform, without a model.

mod search;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::features::{FrameAlignment, Istft, LogMel, SpectrumKind};
use crate::{Error, FeatureSpec, Features, Waveform};
use search::Search;

/// Steps from mel energies to a spectrum; on LJ Speech, four times as many bring it 0.5 to 1 % nearer to the true one.
const N_MEL_STEPS: usize = 50;

/// How long, and from where, phases are looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GriffinLimConfig {
    /// Iterations, 1 to 10000. Default 32: on LJ Speech, 60 leave 7 % less to the magnitudes, 100 leave 10 % less.
    pub n_iterations: usize,
    /// How far an iteration goes on in the direction of the last one: 0 (Griffin and Lim's own, which never gets worse) to
    /// less than 1. Default 0.99, which is after 32 iterations where 0 is not after 100.
    pub momentum: f64,
    /// Of the phases to start from. Default 0.
    pub seed: u64,
}

impl Default for GriffinLimConfig {
    fn default() -> Self {
        GriffinLimConfig { n_iterations: 32, momentum: 0.99, seed: 0 }
    }
}

impl GriffinLimConfig {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::BadOption`] with the field and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let bad =
            |field: &'static str, reason: &str| Err(Error::BadOption { field, reason: reason.to_owned() });
        if !(1..=10_000).contains(&self.n_iterations) {
            return bad("n_iterations", "must be 1 to 10000");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return bad("momentum", "must be at least 0 and below 1");
        }
        Ok(())
    }
}

/// Speech from features when there is no vocoder for them: a spectrum under the mel filters, then phases that fit it, by
/// the fast Griffin-Lim algorithm (Perraudin, Balazs and Sondergaard 2013). What comes of it is understood, and hollow.
/// Immutable; threads may share it.
pub struct GriffinLim {
    log_mel: LogMel,
    istft: Istft,
    config: GriffinLimConfig,
}

impl GriffinLim {
    /// Prepares for features of a spec.
    ///
    /// # Errors
    /// [`Error::BadOption`] for settings out of range and for a spec without a way back: `normalizer` per bin, pre-emphasis,
    /// frames that are not centred, or hops so long that samples lie under no window.
    pub fn new(spec: &FeatureSpec, config: GriffinLimConfig) -> Result<Self, Error> {
        config.check()?;
        let log_mel = LogMel::new(spec)?;
        log_mel.denormalizer()?;
        let istft = Istft::new(spec, FrameAlignment::Centred)?;
        Ok(GriffinLim { log_mel, istft, config })
    }

    /// What features must have been computed by.
    pub fn spec(&self) -> &FeatureSpec {
        self.log_mel.spec()
    }

    /// A waveform with these features, more or less: T frames give `(T - 1) * hop` samples at the spec's sample rate, none
    /// for no frame or one. Equal features and seeds give equal samples, whatever the number of threads. The last hop of
    /// a spec that leaves out the last frame is not restored.
    ///
    /// Takes about 20 KB of memory a frame for a transform of 1024 samples, 2 MB for a second.
    ///
    /// # Errors
    /// [`Error::BadFeatures`] for features of another number of bins, or with values that no sound has.
    pub fn waveform(&self, features: &Features) -> Result<Waveform, Error> {
        self.waveform_while(features, &|| true)
    }

    /// [`GriffinLim::waveform`] that asks `keep_going` before every iteration.
    ///
    /// # Errors
    /// As there, and [`Error::Cancelled`] when `keep_going` says no.
    pub fn waveform_while(
        &self,
        features: &Features,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Waveform, Error> {
        let energies = self.log_mel.energies(features)?;
        let sample_rate = self.spec().sample_rate;
        if self.istft.n_samples(features.n_frames) == 0 {
            return Ok(Waveform { samples: Vec::new(), sample_rate });
        }
        if !keep_going() {
            return Err(Error::Cancelled);
        }
        let magnitudes = self.magnitudes(&energies);
        let mut search = Search::new(self.log_mel.stft(), &self.istft, magnitudes, self.config.seed);
        for iteration in 0..self.config.n_iterations {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            // The first one has no direction yet.
            search.step(if iteration == 0 { 0.0 } else { self.config.momentum });
        }
        let signal = search.signal();
        let margin = self.istft.margin_samples();
        let samples = signal[margin..signal.len() - margin].iter().map(|value| *value as f32).collect();
        Ok(Waveform { samples, sample_rate })
    }

    /// Magnitudes under the mel filters, (T, F): of energies, (T, mel bins).
    fn magnitudes(&self, energies: &[f64]) -> Vec<f64> {
        let (filters, is_power) = (self.log_mel.filters(), self.spec().spectrum == SpectrumKind::Power);
        let frames: Vec<_> = energies.chunks_exact(self.spec().n_mels).collect();
        let rows: Vec<Vec<f64>> = frames
            .into_par_iter()
            .map(|frame| {
                let mut spectrum = filters.invert(frame, N_MEL_STEPS);
                if is_power {
                    spectrum.iter_mut().for_each(|power| *power = power.sqrt());
                }
                spectrum
            })
            .collect();
        rows.concat()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::f64::consts::TAU;

    use super::*;
    use crate::features::Stft;
    use crate::{LogKind, Normalizer, Padding};

    /// A second of a vowel: harmonics of 120 Hz with vibrato under three formants, three syllables.
    fn vowel(sample_rate: u32) -> Vec<f32> {
        const FORMANTS: [(f64, f64, f64); 3] =
            [(700.0, 130.0, 1.0), (1_220.0, 140.0, 0.5), (2_600.0, 160.0, 0.25)];
        let sample = |index: u32| {
            let t = f64::from(index) / f64::from(sample_rate);
            let harmonic = |k: u32| {
                let (k, hz) = (f64::from(k), 120.0 * f64::from(k));
                let formant =
                    |(centre, width, gain): (f64, f64, f64)| gain / (1.0 + ((hz - centre) / width).powi(2));
                let phase = TAU * hz * t + 0.15 * k * (TAU * 4.0 * t).sin() + k * k;
                FORMANTS.map(formant).iter().sum::<f64>() * phase.sin()
            };
            let syllables = 0.55 + 0.45 * (TAU * 3.0 * t).sin();
            (0.1 * syllables * (1..33).map(harmonic).sum::<f64>()) as f32
        };
        (0..sample_rate).map(sample).collect()
    }

    fn config(n_iterations: usize, momentum: f64) -> GriffinLimConfig {
        GriffinLimConfig { n_iterations, momentum, ..GriffinLimConfig::default() }
    }

    fn features(spec: &FeatureSpec, samples: &[f32]) -> Features {
        LogMel::new(spec).unwrap().compute(samples)
    }

    fn bytes(waveform: &Waveform) -> Vec<u8> {
        waveform.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }

    #[test]
    fn a_sine_keeps_its_frequency() {
        let samples: Vec<f32> =
            (0..24_000).map(|t| (0.5 * (TAU * 440.0 * f64::from(t) / 24_000.0).sin()) as f32).collect();
        let spec = FeatureSpec::vocoder(24_000, 100);
        let griffin_lim = GriffinLim::new(&spec, GriffinLimConfig::default()).unwrap();
        let restored = griffin_lim.waveform(&features(&spec, &samples)).unwrap();
        let spectrogram = Stft::new(&spec).unwrap().spectrogram(&restored.samples);
        let power = |bin: usize| -> f64 {
            (0..spectrogram.n_frames).map(|frame| spectrogram.frame(frame)[bin].norm_sqr()).sum()
        };
        let peak = (0..spectrogram.n_bins).max_by(|a, b| power(*a).total_cmp(&power(*b)));
        // Bins are 23.4 Hz apart.
        assert_eq!(peak, Some((440.0_f64 * 1_024.0 / 24_000.0).round() as usize));
        let mean_square =
            |samples: &[f32]| samples.iter().map(|x| f64::from(x * x)).sum::<f64>() / samples.len() as f64;
        let level = (mean_square(&restored.samples) / mean_square(&samples)).sqrt();
        assert!((level - 1.0).abs() < 0.1, "{level}");
    }

    /// In nats (0.1 is 0.9 dB), over what is within 61 dB of the loudest: mel filters forget what lies between harmonics.
    #[test]
    fn a_vowel_keeps_its_features() {
        for (sample_rate, n_mels, tolerance) in [(24_000, 100, 0.15), (16_000, 80, 0.18)] {
            let spec = FeatureSpec::vocoder(sample_rate, n_mels);
            let original = features(&spec, &vowel(sample_rate));
            let griffin_lim = GriffinLim::new(&spec, GriffinLimConfig::default()).unwrap();
            let restored = griffin_lim.waveform(&original).unwrap();
            assert_eq!(restored.sample_rate, sample_rate);
            assert_eq!(restored.samples.len(), (original.n_frames - 1) * 256);
            let restored = features(&spec, &restored.samples);
            assert_eq!(restored.n_frames, original.n_frames);
            let loudest = original.data.iter().copied().fold(f32::MIN, f32::max);
            let loud = original.data.iter().zip(&restored.data).filter(|(value, _)| **value > loudest - 7.0);
            let distances: Vec<f32> = loud.map(|(a, b)| (a - b).abs()).collect();
            let mean = distances.iter().sum::<f32>() / distances.len() as f32;
            assert!(mean < tolerance, "{sample_rate} Hz: {mean} over {} values", distances.len());
        }
    }

    #[test]
    fn equal_seeds_give_equal_samples_on_any_number_of_threads() {
        let spec = FeatureSpec::vocoder(16_000, 80);
        let features = features(&spec, &vowel(16_000).repeat(2));
        assert!(features.n_frames > search::FRAMES_PER_TASK);
        let restored = |seed: u64, n_threads: usize| {
            let config = GriffinLimConfig { seed, ..config(3, 0.99) };
            let griffin_lim = GriffinLim::new(&spec, config).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            bytes(&pool.install(|| griffin_lim.waveform(&features)).unwrap())
        };
        assert_eq!(restored(5, 1), restored(5, 3));
        assert_ne!(restored(5, 1), restored(6, 1));
    }

    #[test]
    fn few_or_no_frames_give_few_or_no_samples() {
        let spec = FeatureSpec::vocoder(24_000, 100);
        let griffin_lim = GriffinLim::new(&spec, GriffinLimConfig::default()).unwrap();
        for (n_frames, n_samples) in [(0, 0), (1, 0), (2, 256)] {
            let features = Features { data: vec![-2.0; 100 * n_frames], n_mels: 100, n_frames };
            let waveform = griffin_lim.waveform(&features).unwrap();
            assert_eq!((waveform.samples.len(), waveform.sample_rate), (n_samples, 24_000));
            assert!(waveform.samples.iter().all(|sample| sample.is_finite()));
        }
        let other = Features { data: vec![0.0; 80], n_mels: 80, n_frames: 1 };
        assert!(matches!(griffin_lim.waveform(&other), Err(Error::BadFeatures { .. })));
    }

    #[test]
    fn the_extremes_of_features_are_no_trouble() {
        let spec = FeatureSpec::vocoder(24_000, 100);
        let griffin_lim = GriffinLim::new(&spec, config(3, 0.99)).unwrap();
        let data: Vec<f32> = (0..1_000).map(|at| if at % 7 < 3 { 34.0 } else { -f32::MAX }).collect();
        for data in [data, vec![34.0; 1_000], vec![-200.0; 1_000], vec![-f32::MAX; 1_000]] {
            let waveform = griffin_lim.waveform(&Features { data, n_mels: 100, n_frames: 10 }).unwrap();
            assert!(waveform.samples.iter().all(|sample| sample.is_finite()));
        }
    }

    #[test]
    fn nobody_waits_for_what_is_given_up() {
        let spec = FeatureSpec::vocoder(24_000, 100);
        let griffin_lim = GriffinLim::new(&spec, GriffinLimConfig::default()).unwrap();
        let features = Features { data: vec![-2.0; 500], n_mels: 100, n_frames: 5 };
        let n_asked = Cell::new(0);
        let result = griffin_lim.waveform_while(&features, &|| n_asked.replace(n_asked.get() + 1) < 3);
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(n_asked.get(), 4);
    }

    #[test]
    fn what_has_no_way_back_is_refused() {
        let refused = |spec: FeatureSpec, config| match GriffinLim::new(&spec, config) {
            Err(Error::BadOption { field, .. }) => field,
            Err(error) => panic!("{error}"),
            Ok(_) => "",
        };
        let spec = FeatureSpec::vocoder(24_000, 100);
        let config = GriffinLimConfig::default;
        assert_eq!(refused(spec.clone(), config()), "");
        let normalizer = Normalizer::PerBin { epsilon: 1e-5 };
        assert_eq!(refused(FeatureSpec { normalizer, ..spec.clone() }, config()), "normalizer");
        assert_eq!(refused(FeatureSpec { preemphasis: Some(0.97), ..spec.clone() }, config()), "preemphasis");
        assert_eq!(refused(FeatureSpec { padding: Padding::None, ..spec.clone() }, config()), "padding");
        assert_eq!(refused(FeatureSpec { hop_samples: 1_024, ..spec.clone() }, config()), "hop_samples");
        let log = LogKind::Ln { floor: 0.0 };
        assert_eq!(refused(FeatureSpec { log, ..spec.clone() }, config()), "log");
        for momentum in [-0.1, 1.0, f64::NAN] {
            assert_eq!(refused(spec.clone(), GriffinLimConfig { momentum, ..config() }), "momentum");
        }
        assert_eq!(refused(spec, GriffinLimConfig { n_iterations: 0, ..config() }), "n_iterations");
    }
}
