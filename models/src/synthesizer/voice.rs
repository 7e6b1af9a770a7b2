//! Whose voice it is: a piece of a recording, which a model hears before it speaks.

use std::sync::Arc;

use audio::{LogMel, Waveform, resample};
use candle_core::Tensor;

use crate::Error;
use crate::flow_lm::FlowLm;

/// Seconds of a recording that a voice is made of, at least.
pub const MIN_VOICE_SECS: f64 = 1.0;
/// What frames are louder than in which somebody speaks, nepers above the quietest value that there is.
const SPOKEN: f32 = 2.5;

/// A voice of a model.
#[derive(Debug, Clone)]
pub struct Voice {
    name: Arc<str>,
    /// Standardised patches.
    pub(super) prompt: Arc<Tensor>, // (P, patch)
}

impl Voice {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The voice of a recording: the loudest piece of it that a model takes.
    pub(super) fn of(name: &str, sample: &Waveform, model: &FlowLm, log_mel: &LogMel) -> Result<Self, Error> {
        let config = &model.config;
        let secs = sample.duration_secs();
        if secs < MIN_VOICE_SECS {
            let message = format!(
                "`{name}`: its recording is {secs:.2} s long; give one of {MIN_VOICE_SECS} s or more"
            );
            return Err(Error::option("voice", message));
        }
        let waveform = resample(sample, config.feature_spec.sample_rate)?;
        let features = log_mel.compute(&waveform.samples);
        let most = config.max_prompt_patches.min(config.max_patches) * config.patch_frames;
        // Whole patches, as in training: the rest of the last one would be a silence that nobody has made.
        let n_frames = features.n_frames.min(most);
        let n_frames = n_frames - n_frames % config.patch_frames.min(n_frames.max(1));
        let loudness: Vec<f64> = (0..features.n_frames)
            .map(|frame| (0..features.n_mels).map(|mel| f64::from(features.row(mel)[frame])).sum())
            .collect();
        let floor = f64::from(config.feature_spec.silence() + SPOKEN) * features.n_mels as f64;
        if loudness.iter().all(|loudness| *loudness < floor) {
            return Err(Error::option("voice", format!("`{name}`: nobody speaks in its recording")));
        }
        let sum = |start: usize| loudness[start..start + n_frames].iter().sum::<f64>();
        let starts = 0..=features.n_frames - n_frames;
        let start = starts.max_by(|a, b| sum(*a).total_cmp(&sum(*b))).unwrap_or(0);
        let patches = config.patches(&features, start..start + n_frames);
        let n = patches.len() / config.patch_size();
        let prompt = Tensor::from_vec(patches, (n, config.patch_size()), model.device())?;
        Ok(Self { name: name.into(), prompt: Arc::new(prompt) })
    }
}
