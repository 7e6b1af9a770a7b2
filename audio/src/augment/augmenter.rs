//! One recording, augmented: the same for the same seed, whatever else is switched on and however many threads there are.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use super::config::{Augment, Room};
use super::level::{check_samples, energy, limit_peak, peak};
use super::{
    ImpulseResponse, Shoebox, add_noise, change_gain, clip, colored_noise, decaying_noise, equalise,
    limit_bandwidth, noise_excerpt, opus_round_trip, perturb_speed, perturbed_secs, reverberate,
    sloped_gains_db, spec_augment, telephone,
};
use crate::{Error, Features, Waveform};

/// Recordings to draw from, at the sample rate of what is augmented; each is read once and kept.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Noise without speech, any length.
    pub noises: Vec<Waveform>,
    /// Rooms.
    pub impulse_responses: Vec<ImpulseResponse>,
}

/// Checked settings with their sources. Immutable; threads may share it.
#[derive(Debug, Clone)]
pub struct Augmenter {
    settings: Augment,
    sources: Sources,
}

/// The random stream of each augmentation. The numbers are part of what makes a run reproducible: never reuse one.
#[derive(Clone, Copy)]
enum Stream {
    Speed = 0,
    Reverb = 1,
    Noise = 2,
    Gain = 3,
    Clip = 4,
    Opus = 5,
    Telephone = 6,
    SpecAugment = 7,
    Equaliser = 8,
    Bandwidth = 9,
}

/// Random numbers for one recording in one epoch of a run: equal arguments, equal numbers, in the sampler as in any loader
/// thread.
pub fn cut_rng(seed: u64, epoch: u64, cut_id: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(epoch.to_le_bytes());
    hash.update(cut_id);
    ChaCha8Rng::from_seed(hash.finalize().into())
}

impl Augmenter {
    /// Checks settings and sources.
    ///
    /// # Errors
    /// [`Error::BadOption`] for settings out of range, for recorded noise or rooms that are asked for and not there, and
    /// for a source that is silent; [`Error::Undecodable`] for a source with samples that are not numbers or above 1e10.
    pub fn new(settings: Augment, sources: Sources) -> Result<Self, Error> {
        settings.check()?;
        let needs_noises = settings.noise.kinds.iter().any(|kind| kind.color().is_none());
        let needs_responses = settings.reverb.rooms.contains(&Room::Recorded);
        for (field, is_missing) in [
            ("noise.kinds", needs_noises && sources.noises.is_empty()),
            ("reverb.rooms", needs_responses && sources.impulse_responses.is_empty()),
        ] {
            if is_missing {
                let reason = "asks for recorded ones, and no recordings were given".to_owned();
                return Err(Error::BadOption { field, reason });
            }
        }
        for (index, noise) in sources.noises.iter().enumerate() {
            check_samples(noise)?;
            if energy(&noise.samples) == 0.0 {
                let reason = format!("recorded noise {index} (from 0) is silent: leave it out");
                return Err(Error::BadOption { field: "noise.kinds", reason });
            }
        }
        Ok(Augmenter { settings, sources })
    }

    /// What is applied.
    pub fn settings(&self) -> &Augment {
        &self.settings
    }

    /// The speed at which [`Augmenter::apply`] will play a recording, given the same numbers; 1 when it leaves it alone.
    ///
    /// Samplers ask before they sort recordings by length, and tasks with times in their targets divide these by it.
    pub fn speed_factor(&self, rng: &ChaCha8Rng) -> f64 {
        self.draw_speed(rng.clone().next_u64())
    }

    /// The length that [`Augmenter::apply`] will give a recording, to the sample, seconds.
    ///
    /// # Errors
    /// As [`perturbed_secs`].
    pub fn augmented_secs(
        &self,
        duration_secs: f64,
        sample_rate: u32,
        rng: &ChaCha8Rng,
    ) -> Result<f64, Error> {
        perturbed_secs(duration_secs, sample_rate, self.speed_factor(rng))
    }

    /// Speed, room, noise, equaliser, gain, bandwidth, overload, codec, telephone, in this order.
    ///
    /// Exactly one number is drawn from `rng`, and every augmentation has a stream of its own that starts there, so
    /// switching one on, or changing what it draws, leaves the others as they were. Each first draws whether it happens.
    /// After room, noise, equaliser, gain and bandwidth a waveform that exceeds full scale is scaled down to it, unless it did so
    /// before or `limit_peak` is off: nothing is clipped but by the augmentations that are about clipping.
    ///
    /// # Errors
    /// [`Error::BadSampleRate`] when a source has another rate than the waveform, [`Error::Undecodable`] for samples that
    /// are not numbers or above 1e10, and what [`resample`](crate::resample) refuses.
    pub fn apply(&self, waveform: Waveform, rng: &mut ChaCha8Rng) -> Result<Waveform, Error> {
        check_samples(&waveform)?;
        let start = rng.next_u64();
        let speed = self.draw_speed(start);
        let mut waveform = if speed == 1.0 { waveform } else { perturb_speed(&waveform, speed)? };
        let limit = peak(&waveform.samples).max(1.0);
        for step in [Self::add_room, Self::mix_noise, Self::colour, Self::draw_gain, Self::narrow] {
            if let Some(changed) = step(self, &waveform, start)? {
                waveform = changed;
                if self.settings.limit_peak {
                    limit_peak(&mut waveform.samples, limit);
                }
            }
        }
        for step in [Self::overload, Self::encode, Self::call] {
            if let Some(changed) = step(self, &waveform, start)? {
                waveform = changed;
            }
        }
        Ok(waveform)
    }

    /// SpecAugment over the first `n_frames` frames, those that are not padding. Exactly one number is drawn from `rng`.
    pub fn apply_to_features(&self, features: Features, n_frames: usize, rng: &mut ChaCha8Rng) -> Features {
        let options = &self.settings.spec_augment;
        match happens(options.probability, rng.next_u64(), Stream::SpecAugment) {
            Some(mut rng) => spec_augment(&features, n_frames, options, &mut rng),
            None => features,
        }
    }

    fn draw_speed(&self, start: u64) -> f64 {
        let speed = &self.settings.speed;
        match happens(speed.probability, start, Stream::Speed) {
            Some(mut rng) => choose(&speed.factors, &mut rng),
            None => 1.0,
        }
    }

    fn add_room(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let reverb = &self.settings.reverb;
        let Some(mut rng) = happens(reverb.probability, start, Stream::Reverb) else {
            return Ok(None);
        };
        let (rt60_secs, drr_db) = (uniform(reverb.rt60_secs, &mut rng), uniform(reverb.drr_db, &mut rng));
        let synthetic = match choose(&reverb.rooms, &mut rng) {
            Room::Shoebox => {
                Shoebox::random(rt60_secs, &mut rng).impulse_response(waveform.sample_rate, &mut rng)?
            }
            Room::DecayingNoise => decaying_noise(rt60_secs, drr_db, waveform.sample_rate, &mut rng)?,
            Room::Recorded => {
                let responses = &self.sources.impulse_responses;
                let response = &responses[rng.random_range(0..responses.len())];
                return reverberate(waveform, response).map(Some);
            }
        };
        reverberate(waveform, &synthetic).map(Some)
    }

    fn mix_noise(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let noise = &self.settings.noise;
        let Some(mut rng) = happens(noise.probability, start, Stream::Noise) else {
            return Ok(None);
        };
        let snr_db = uniform(noise.snr_db, &mut rng);
        let n_samples = waveform.samples.len();
        let added = match choose(&noise.kinds, &mut rng).color() {
            Some(color) => colored_noise(color, n_samples, waveform.sample_rate, &mut rng)?,
            None => {
                let noises = &self.sources.noises;
                noise_excerpt(&noises[rng.random_range(0..noises.len())], n_samples, &mut rng)?
            }
        };
        add_noise(waveform, &added, snr_db).map(Some)
    }

    fn colour(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let settings = &self.settings.equaliser;
        happens(settings.probability, start, Stream::Equaliser)
            .map(|mut rng| {
                let slope_db = uniform(settings.slope_db, &mut rng);
                let most = settings.ripple_db;
                let ripples_db = std::array::from_fn(|_| uniform([-most, most], &mut rng));
                equalise(waveform, &sloped_gains_db(slope_db, &ripples_db))
            })
            .transpose()
    }

    fn draw_gain(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let gain = &self.settings.gain;
        happens(gain.probability, start, Stream::Gain)
            .map(|mut rng| change_gain(waveform, uniform(gain.gain_db, &mut rng)))
            .transpose()
    }

    fn narrow(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let settings = &self.settings.bandwidth;
        happens(settings.probability, start, Stream::Bandwidth)
            .map(|mut rng| limit_bandwidth(waveform, choose(&settings.sample_rates, &mut rng)))
            .transpose()
    }

    fn overload(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let settings = &self.settings.clip;
        happens(settings.probability, start, Stream::Clip)
            .map(|mut rng| clip(waveform, uniform(settings.depth_db, &mut rng)))
            .transpose()
    }

    fn encode(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let [least, most] = self.settings.opus.bitrate_bps;
        happens(self.settings.opus.probability, start, Stream::Opus)
            .map(|mut rng| opus_round_trip(waveform, rng.random_range(least..=most)))
            .transpose()
    }

    fn call(&self, waveform: &Waveform, start: u64) -> Result<Option<Waveform>, Error> {
        let settings = &self.settings.telephone;
        happens(settings.probability, start, Stream::Telephone)
            .map(|mut rng| telephone(waveform, choose(&settings.companding, &mut rng)))
            .transpose()
    }
}

/// The stream of an augmentation, when its first number says that it happens.
fn happens(probability: f64, start: u64, stream: Stream) -> Option<ChaCha8Rng> {
    let mut rng = ChaCha8Rng::seed_from_u64(start);
    rng.set_stream(stream as u64);
    (rng.random::<f64>() < probability).then_some(rng)
}

/// A value between bounds that [`Augment::check`] has seen.
fn uniform([least, most]: [f64; 2], rng: &mut ChaCha8Rng) -> f64 {
    rng.random_range(least..=most)
}

/// One of choices that [`Augment::check`] found not to be empty.
fn choose<T: Copy>(choices: &[T], rng: &mut ChaCha8Rng) -> T {
    choices[rng.random_range(0..choices.len())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    // Named, because proptest brings a newer trait with the same methods.
    use rand_chacha::rand_core::RngCore;

    use super::*;
    use crate::augment::config::{Gain, Noise, NoiseKind, Reverb, Speed};
    use crate::augment::{Preset, active_power};

    fn speech(n_samples: usize) -> Waveform {
        let sample = |t: usize| 0.6 * (t as f32 * 0.13).sin() * (t as f32 * 0.0007).sin();
        Waveform { samples: (0..n_samples).map(sample).collect(), sample_rate: 16_000 }
    }

    fn augmenter(settings: Augment) -> Augmenter {
        Augmenter::new(settings, Sources::default()).unwrap()
    }

    /// Everything on, always.
    fn everything() -> Augment {
        let mut settings = Augment::preset(Preset::Telephone);
        settings.reverb = Reverb { rooms: vec![Room::Shoebox, Room::DecayingNoise], ..settings.reverb };
        for probability in [
            &mut settings.reverb.probability,
            &mut settings.noise.probability,
            &mut settings.equaliser.probability,
            &mut settings.bandwidth.probability,
            &mut settings.clip.probability,
            &mut settings.opus.probability,
            &mut settings.telephone.probability,
        ] {
            *probability = 1.0;
        }
        settings
    }

    #[test]
    fn off_is_the_identity() {
        let waveform = Waveform { samples: vec![0.5, -1.7, 0.0], sample_rate: 16_000 };
        let same = augmenter(Augment::default()).apply(waveform.clone(), &mut cut_rng(1, 2, "a")).unwrap();
        assert_eq!(same, waveform);
    }

    #[test]
    fn one_seed_one_result_and_another_another() {
        let augmenter = augmenter(everything());
        let run = |seed, epoch, id| augmenter.apply(speech(8_000), &mut cut_rng(seed, epoch, id)).unwrap();
        assert_eq!(run(1, 2, "a"), run(1, 2, "a"));
        assert_ne!(run(1, 2, "a"), run(1, 3, "a"));
        assert_ne!(run(1, 2, "a"), run(2, 2, "a"));
        assert_ne!(run(1, 2, "a"), run(1, 2, "b"));
    }

    #[test]
    fn the_first_numbers_of_a_recording_never_change() {
        // A resumed run must go on as it began, also after an upgrade.
        let mut rng = cut_rng(1, 2, "cut");
        assert_eq!([rng.next_u64(), rng.next_u64()], [0x7d0e_8f25_4af0_83e9, 0x0dde_dbea_dc7a_f33b]);
    }

    #[test]
    fn every_setting_draws_one_number() {
        for settings in [Augment::default(), Augment::preset(Preset::FineTuning), everything()] {
            let augmenter = augmenter(settings);
            for n_samples in [0, 1, 5_000] {
                let mut rng = cut_rng(3, 0, "a");
                augmenter.apply(speech(n_samples), &mut rng).unwrap();
                assert_eq!(rng.get_word_pos(), 2);
                augmenter.apply_to_features(Features::default(), 0, &mut rng);
                assert_eq!(rng.get_word_pos(), 4);
            }
        }
    }

    /// The noise that is added is the same with and without gain after it and a telephone after that.
    #[test]
    fn one_augmentation_does_not_shift_the_numbers_of_another() {
        let noise = Noise { probability: 0.5, ..Noise::default() };
        let alone = Augment { noise: noise.clone(), ..Augment::default() };
        let louder = Augment { gain: Gain { probability: 0.7, gain_db: [-20.0, -20.0] }, ..alone.clone() };
        let (alone, louder) = (augmenter(alone), augmenter(louder));
        let (mut n_noisy, mut n_louder) = (0, 0);
        for index in 0..40 {
            let id = format!("cut {index}");
            let quiet = Waveform {
                samples: speech(4_000).samples.iter().map(|s| s * 0.1).collect(),
                sample_rate: 16_000,
            };
            let a = alone.apply(quiet.clone(), &mut cut_rng(0, 0, &id)).unwrap();
            let b = louder.apply(quiet.clone(), &mut cut_rng(0, 0, &id)).unwrap();
            n_noisy += usize::from(a != quiet);
            n_louder += usize::from(a != b);
            let scale = if a == b { 1.0 } else { 0.1 };
            assert!(a.samples.iter().zip(&b.samples).all(|(a, b)| (a * scale - b).abs() < 1e-6), "{id}");
        }
        assert!((10..30).contains(&n_noisy) && (20..36).contains(&n_louder), "{n_noisy} {n_louder}");
    }

    #[test]
    fn the_speed_is_known_before_and_keeps_its_share() {
        let settings = Augment {
            speed: Speed { probability: 0.5, factors: vec![0.8, 1.25] },
            ..Augment::preset(Preset::FineTuning)
        };
        let augmenter = augmenter(settings);
        let waveform = speech(3_000);
        let mut counts = [0; 3];
        for index in 0..60 {
            let mut rng = cut_rng(9, 1, &format!("{index}"));
            let factor = augmenter.speed_factor(&rng);
            counts[[0.8, 1.0, 1.25].iter().position(|known| *known == factor).unwrap()] += 1;
            let expected_secs = augmenter.augmented_secs(waveform.duration_secs(), 16_000, &rng).unwrap();
            assert_eq!(augmenter.apply(waveform.clone(), &mut rng).unwrap().duration_secs(), expected_secs);
        }
        assert!(counts[0] > 5 && counts[1] > 20 && counts[2] > 5, "{counts:?}");
    }

    #[test]
    fn recorded_sources_are_used_and_checked() {
        let settings = Augment {
            noise: Noise { probability: 1.0, kinds: vec![NoiseKind::Recorded], snr_db: [10.0, 10.0] },
            reverb: Reverb { probability: 1.0, rooms: vec![Room::Recorded], ..Reverb::default() },
            ..Augment::default()
        };
        let tone: Vec<f32> = (0..700).map(|t| (t as f32 * 0.5).sin()).collect();
        let sources = Sources {
            noises: vec![Waveform { samples: tone, sample_rate: 16_000 }],
            impulse_responses: vec![
                ImpulseResponse::recorded(Waveform { samples: vec![1.0], sample_rate: 16_000 }).unwrap(),
            ],
        };
        let augmenter = Augmenter::new(settings.clone(), sources.clone()).unwrap();
        let dry = Waveform {
            samples: speech(6_000).samples.iter().map(|s| s * 0.3).collect(),
            sample_rate: 16_000,
        };
        let noisy = augmenter.apply(dry.clone(), &mut cut_rng(0, 0, "a")).unwrap();
        let added: Vec<f32> = noisy.samples.iter().zip(&dry.samples).map(|(a, b)| a - b).collect();
        let snr_db = 10.0 * (active_power(&dry).unwrap() / (energy(&added) / 6_000.0)).log10();
        assert!((snr_db - 10.0).abs() < 0.01, "{snr_db}");

        let refused = |sources: Sources| Augmenter::new(settings.clone(), sources).err();
        assert!(matches!(refused(Sources::default()), Some(Error::BadOption { field: "noise.kinds", .. })));
        let without_rooms = Sources { impulse_responses: Vec::new(), ..sources.clone() };
        assert!(matches!(refused(without_rooms), Some(Error::BadOption { field: "reverb.rooms", .. })));
        let silent = Waveform { samples: vec![0.0; 9], sample_rate: 16_000 };
        let with_silence = Sources { noises: vec![silent], ..sources };
        assert!(matches!(refused(with_silence), Some(Error::BadOption { field: "noise.kinds", .. })));
        let slow = Waveform { samples: vec![0.1; 9], sample_rate: 8_000 };
        assert!(matches!(augmenter.apply(slow, &mut cut_rng(0, 0, "a")), Err(Error::BadSampleRate { .. })));
    }

    #[test]
    fn broken_samples_are_refused() {
        let broken = Waveform { samples: vec![0.0, f32::NAN], sample_rate: 16_000 };
        let refused = augmenter(Augment::default()).apply(broken, &mut cut_rng(0, 0, "a"));
        assert!(matches!(refused, Err(Error::Undecodable { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn results_are_finite_within_full_scale_and_of_the_promised_length(
            n_samples in prop::sample::select(vec![0_usize, 1, 2, 160, 3_000, 7_001]),
            loudness in prop::sample::select(vec![0.0_f32, 1e-6, 0.3, 1.0]),
            seed in 0_u64..1_000,
            everything_on in any::<bool>(),
        ) {
            let settings = if everything_on { everything() } else { Augment::preset(Preset::FarField) };
            let augmenter = augmenter(settings);
            let mut waveform = speech(n_samples);
            waveform.samples.iter_mut().for_each(|sample| *sample *= loudness);
            let mut rng = cut_rng(seed, 0, "cut");
            let expected_secs = augmenter.augmented_secs(waveform.duration_secs(), 16_000, &rng).unwrap();
            let augmented = augmenter.apply(waveform, &mut rng).unwrap();
            prop_assert_eq!(augmented.duration_secs(), expected_secs);
            // Codec and telephone overshoot a little, as they do in life; nothing else may.
            let limit = if everything_on { 1.5 } else { 1.0 };
            prop_assert!(augmented.samples.iter().all(|sample| sample.abs() <= limit));
            if loudness == 0.0 {
                // G.711 has no zero: its smallest value is 8 of 32768.
                prop_assert!(augmented.samples.iter().all(|sample| sample.abs() < 1e-3));
            }
        }
    }
}
