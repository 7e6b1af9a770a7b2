//! Which augmentations are on, how often, and within which bounds.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::level::check_value;
use super::{
    Companding, NoiseColor, SpecAugment, bandwidth, clip, equaliser, gain, noise, opus, room, speed,
};
use crate::Error;

/// All augmentations, in the order in which they are applied. Every `probability` is the share of recordings that are
/// changed, and 0 by default: everything is off. Ranges are `[least, most]`, drawn uniformly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Faster and slower.
    pub speed: Speed,
    /// In a room.
    pub reverb: Reverb,
    /// With noise around.
    pub noise: Noise,
    /// Through a microphone with a frequency response of its own.
    pub equaliser: Equaliser,
    /// Louder and quieter.
    pub gain: Gain,
    /// At a lower sample rate.
    pub bandwidth: Bandwidth,
    /// Overloaded.
    pub clip: Clip,
    /// Through a lossy codec.
    pub opus: Opus,
    /// Through a telephone.
    pub telephone: Telephone,
    /// With stripes of the features hidden.
    pub spec_augment: SpecAugment,
    /// Whether what exceeds full scale after reverberation, noise, equaliser, gain and bandwidth is scaled back to it. Default
    /// true; a recording that exceeded it before may do so still.
    pub limit_peak: bool,
}

/// [`perturb_speed`](super::perturb_speed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Speed {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Factors, one of which is drawn; 1 may be among them. Few simple ones are resampled fastest. Default 0.9, 1, 1.1.
    pub factors: Vec<f64>,
}

/// [`reverberate`](super::reverberate).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reverb {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Where impulse responses come from; one is drawn. Default shoebox.
    pub rooms: Vec<Room>,
    /// Reverberation time of synthetic rooms, seconds. Default 0.1 to 0.8.
    pub rt60_secs: [f64; 2],
    /// Direct-to-reverberant ratio of decaying noise, decibels. Default 0 to 12.
    pub drr_db: [f64; 2],
}

/// Where an impulse response comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// [`Shoebox::random`](super::Shoebox::random).
    Shoebox,
    /// [`decaying_noise`](super::decaying_noise).
    DecayingNoise,
    /// One of [`Sources::impulse_responses`](super::Sources::impulse_responses).
    Recorded,
}

/// [`add_noise`](super::add_noise).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Noise {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Where noise comes from; one is drawn. Default white, pink and brown.
    pub kinds: Vec<NoiseKind>,
    /// Signal-to-noise ratio over active speech, decibels. Default 5 to 20.
    pub snr_db: [f64; 2],
}

/// Where noise comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseKind {
    /// [`NoiseColor::White`].
    White,
    /// [`NoiseColor::Pink`].
    Pink,
    /// [`NoiseColor::Brown`].
    Brown,
    /// One of [`Sources::noises`](super::Sources::noises).
    Recorded,
}

impl NoiseKind {
    /// The colour of synthesised noise.
    pub(super) fn color(self) -> Option<NoiseColor> {
        match self {
            NoiseKind::White => Some(NoiseColor::White),
            NoiseKind::Pink => Some(NoiseColor::Pink),
            NoiseKind::Brown => Some(NoiseColor::Brown),
            NoiseKind::Recorded => None,
        }
    }
}

/// [`equalise`](super::equalise).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Equaliser {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// How steeply gains rise with frequency, decibels an octave. Default -4 to 4.
    pub slope_db: [f64; 2],
    /// How far each band may lie above or below that slope, decibels. Default 2.
    pub ripple_db: f64,
}

/// [`change_gain`](super::change_gain).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gain {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Decibels. Default -6 to 6.
    pub gain_db: [f64; 2],
}

/// [`limit_bandwidth`](super::limit_bandwidth).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bandwidth {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Sample rates of the recorder, Hz, one of which is drawn. Default 8000.
    pub sample_rates: Vec<u32>,
}

/// [`clip`](super::clip()).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clip {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// How far below the peak, decibels. Default 3 to 15.
    pub depth_db: [f64; 2],
}

/// [`opus_round_trip`](super::opus_round_trip).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opus {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Bits per second. Default 8000 to 24000.
    pub bitrate_bps: [u32; 2],
}

/// [`telephone`](super::telephone()).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telephone {
    /// Share of recordings. Default 0.
    pub probability: f64,
    /// Laws, one of which is drawn. Default both.
    pub companding: Vec<Companding>,
}

impl Default for Augment {
    fn default() -> Self {
        Augment {
            speed: Speed::default(),
            reverb: Reverb::default(),
            noise: Noise::default(),
            equaliser: Equaliser::default(),
            gain: Gain::default(),
            bandwidth: Bandwidth::default(),
            clip: Clip::default(),
            opus: Opus::default(),
            telephone: Telephone::default(),
            spec_augment: SpecAugment::default(),
            limit_peak: true,
        }
    }
}

impl Speed {
    /// The lowest factor that may be drawn, at most 1: a recording of `window_secs * slowest` fits a window whatever is drawn.
    pub fn slowest(&self) -> f64 {
        if self.probability == 0.0 { 1.0 } else { self.factors.iter().copied().fold(1.0, f64::min) }
    }
}

impl Default for Speed {
    fn default() -> Self {
        Speed { probability: 0.0, factors: vec![0.9, 1.0, 1.1] }
    }
}

impl Default for Reverb {
    fn default() -> Self {
        Reverb { probability: 0.0, rooms: vec![Room::Shoebox], rt60_secs: [0.1, 0.8], drr_db: [0.0, 12.0] }
    }
}

impl Default for Noise {
    fn default() -> Self {
        let kinds = vec![NoiseKind::White, NoiseKind::Pink, NoiseKind::Brown];
        Noise { probability: 0.0, kinds, snr_db: [5.0, 20.0] }
    }
}

impl Default for Equaliser {
    fn default() -> Self {
        Equaliser { probability: 0.0, slope_db: [-4.0, 4.0], ripple_db: 2.0 }
    }
}

impl Default for Gain {
    fn default() -> Self {
        Gain { probability: 0.0, gain_db: [-6.0, 6.0] }
    }
}

impl Default for Bandwidth {
    fn default() -> Self {
        Bandwidth { probability: 0.0, sample_rates: vec![8_000] }
    }
}

impl Default for Clip {
    fn default() -> Self {
        Clip { probability: 0.0, depth_db: [3.0, 15.0] }
    }
}

impl Default for Opus {
    fn default() -> Self {
        Opus { probability: 0.0, bitrate_bps: [8_000, 24_000] }
    }
}

impl Default for Telephone {
    fn default() -> Self {
        Telephone { probability: 0.0, companding: vec![Companding::MuLaw, Companding::ALaw] }
    }
}

/// Settings that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Nothing: the control that an augmented run is compared with.
    Off,
    /// Fine-tuning on a few hours: speed 0.9, 1 and 1.1, gain within 6 dB, noise at 5 to 20 dB in half of the
    /// recordings, rooms in three of ten, SpecAugment.
    FineTuning,
    /// [`Preset::FineTuning`] for calls: a telephone or a codec in most recordings.
    Telephone,
    /// [`Preset::FineTuning`] for microphones across the room: rooms in most recordings, noise from 0 dB on.
    FarField,
}

impl Augment {
    /// How probable each transformation is, by its key.
    fn probabilities(&self) -> [(&'static str, f64); 10] {
        [
            ("speed.probability", self.speed.probability),
            ("reverb.probability", self.reverb.probability),
            ("noise.probability", self.noise.probability),
            ("equaliser.probability", self.equaliser.probability),
            ("gain.probability", self.gain.probability),
            ("bandwidth.probability", self.bandwidth.probability),
            ("clip.probability", self.clip.probability),
            ("opus.probability", self.opus.probability),
            ("telephone.probability", self.telephone.probability),
            ("spec_augment.probability", self.spec_augment.probability),
        ]
    }

    /// Whether recordings stay as they are.
    pub fn is_off(&self) -> bool {
        self.probabilities().iter().all(|(_, probability)| *probability == 0.0)
    }

    /// The settings of a preset.
    pub fn preset(preset: Preset) -> Self {
        let fine_tuning = Augment {
            speed: Speed { probability: 1.0, ..Speed::default() },
            reverb: Reverb { probability: 0.3, ..Reverb::default() },
            noise: Noise { probability: 0.5, ..Noise::default() },
            gain: Gain { probability: 1.0, ..Gain::default() },
            spec_augment: SpecAugment { probability: 1.0, ..SpecAugment::default() },
            ..Augment::default()
        };
        match preset {
            Preset::Off => Augment::default(),
            Preset::FineTuning => fine_tuning,
            Preset::Telephone => Augment {
                clip: Clip { probability: 0.1, ..Clip::default() },
                opus: Opus { probability: 0.3, ..Opus::default() },
                telephone: Telephone { probability: 0.7, ..Telephone::default() },
                ..fine_tuning
            },
            Preset::FarField => Augment {
                reverb: Reverb { probability: 0.8, rt60_secs: [0.2, 1.0], ..Reverb::default() },
                noise: Noise { probability: 0.7, snr_db: [0.0, 20.0], ..Noise::default() },
                ..fine_tuning
            },
        }
    }

    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::BadOption`] with the field and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        for (field, probability) in self.probabilities() {
            check_value(field, probability, 0.0..=1.0)?;
        }
        check_values("speed.factors", &self.speed.factors, speed::FACTORS)?;
        check_choices("reverb.rooms", &self.reverb.rooms)?;
        check_range("reverb.rt60_secs", self.reverb.rt60_secs, room::RT60S_SECS)?;
        check_range("reverb.drr_db", self.reverb.drr_db, room::DRRS_DB)?;
        check_choices("noise.kinds", &self.noise.kinds)?;
        check_range("noise.snr_db", self.noise.snr_db, noise::SNRS_DB)?;
        check_range("equaliser.slope_db", self.equaliser.slope_db, equaliser::SLOPES_DB)?;
        check_value("equaliser.ripple_db", self.equaliser.ripple_db, equaliser::RIPPLES_DB)?;
        check_range("gain.gain_db", self.gain.gain_db, gain::GAINS_DB)?;
        check_values("bandwidth.sample_rates", &self.bandwidth.sample_rates, bandwidth::SAMPLE_RATES)?;
        check_range("clip.depth_db", self.clip.depth_db, clip::DEPTHS_DB)?;
        let (least, most) = (f64::from(*opus::BITRATES_BPS.start()), f64::from(*opus::BITRATES_BPS.end()));
        check_range("opus.bitrate_bps", self.opus.bitrate_bps.map(f64::from), least..=most)?;
        check_choices("telephone.companding", &self.telephone.companding)?;
        self.spec_augment.check()
    }
}

fn check_choices<T>(field: &'static str, choices: &[T]) -> Result<(), Error> {
    if choices.is_empty() {
        return Err(Error::BadOption { field, reason: "names nothing to choose from".to_owned() });
    }
    Ok(())
}

/// Choices, each of which is allowed.
fn check_values<T: Copy + Into<f64>>(
    field: &'static str,
    choices: &[T],
    allowed: RangeInclusive<f64>,
) -> Result<(), Error> {
    check_choices(field, choices)?;
    choices.iter().try_for_each(|value| check_value(field, (*value).into(), allowed.clone()))
}

fn check_range(field: &'static str, range: [f64; 2], allowed: RangeInclusive<f64>) -> Result<(), Error> {
    let [least, most] = range;
    check_value(field, least, allowed.clone())?;
    check_value(field, most, allowed)?;
    if least > most {
        let reason = format!("is [{least}, {most}]: the smaller bound comes first");
        return Err(Error::BadOption { field, reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_off_by_default_and_every_preset_is_valid() {
        let parsed: Augment = serde_json::from_str("{}").unwrap();
        assert_eq!(parsed, Augment::default());
        assert_eq!(Augment::preset(Preset::Off), Augment::default());
        let value = serde_json::to_value(&parsed).unwrap();
        for (name, part) in value.as_object().unwrap() {
            if name != "limit_peak" {
                assert_eq!(part["probability"], 0.0, "{name}");
            }
        }
        for preset in [Preset::Off, Preset::FineTuning, Preset::Telephone, Preset::FarField] {
            let settings = Augment::preset(preset);
            settings.check().unwrap();
            let text = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<Augment>(&text).unwrap(), settings);
        }
    }

    #[test]
    fn unknown_fields_name_themselves() {
        for text in [r#"{"echo": {}}"#, r#"{"noise": {"snr": [1, 2]}}"#, r#"{"spec_augment": {"masks": 1}}"#]
        {
            let error = serde_json::from_str::<Augment>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn values_that_make_no_sense_name_their_field() {
        for (text, field) in [
            (r#"{"speed": {"factors": []}}"#, "speed.factors"),
            (r#"{"speed": {"factors": [1.0, 3.0]}}"#, "speed.factors"),
            (r#"{"reverb": {"probability": 1.5}}"#, "reverb.probability"),
            (r#"{"reverb": {"rt60_secs": [0.0, 0.5]}}"#, "reverb.rt60_secs"),
            (r#"{"noise": {"snr_db": [20.0, 5.0]}}"#, "noise.snr_db"),
            (r#"{"equaliser": {"slope_db": [-13.0, 0.0]}}"#, "equaliser.slope_db"),
            (r#"{"equaliser": {"ripple_db": -1.0}}"#, "equaliser.ripple_db"),
            (r#"{"gain": {"gain_db": [-500.0, 0.0]}}"#, "gain.gain_db"),
            (r#"{"bandwidth": {"sample_rates": []}}"#, "bandwidth.sample_rates"),
            (r#"{"bandwidth": {"sample_rates": [8000, 500]}}"#, "bandwidth.sample_rates"),
            (r#"{"clip": {"depth_db": [-1.0, 0.0]}}"#, "clip.depth_db"),
            (r#"{"opus": {"bitrate_bps": [1, 8000]}}"#, "opus.bitrate_bps"),
            (r#"{"telephone": {"companding": []}}"#, "telephone.companding"),
            (r#"{"spec_augment": {"max_time_share": 1.1}}"#, "spec_augment.max_time_share"),
        ] {
            let refused = serde_json::from_str::<Augment>(text).unwrap().check();
            assert!(
                matches!(refused, Err(Error::BadOption { field: named, .. }) if named == field),
                "{text}"
            );
        }
    }
}
