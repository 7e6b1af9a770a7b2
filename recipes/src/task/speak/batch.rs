//! Utterances side by side.

use candle_core::{Device, Tensor};
use models::flow_lm::{FlowLmConfig, Noise};

use super::recordings::Row;
use crate::Error;
use crate::task::Extent;

/// Noise of what is said before, among that of a patch.
const HISTORY: u64 = 16;

/// What one forward pass takes.
pub struct Batch {
    /// Symbols of each utterance, both edges included.
    pub texts: Vec<Vec<u32>>,
    /// What of them the model is told: edges alone where it is told nothing.
    pub told: Vec<Vec<u32>>,
    /// Mel frames of each.
    pub n_frames: Vec<usize>,
    /// Patches of each.
    pub n_patches: Vec<usize>,
    /// Patches of each voice prompt; none where it is told nothing.
    pub n_prompts: Vec<usize>,
    /// Whether each is told nothing.
    pub is_dropped: Vec<bool>,
    /// Standardised mel frames.
    pub mels: Tensor, // (B, T, F)
    /// Standardised patches of all utterances, one after the other.
    pub said: Tensor, // (N, patch)
    /// The same as the model hears what it has said.
    pub heard: Tensor, // (N, patch)
    /// Patches of all prompts.
    pub prompts: Option<Tensor>, // (P, patch)
    /// Noise of each patch.
    pub noise: Vec<Noise>,
    /// What it is made of.
    pub extent: Extent,
}

/// What rows become tensors by.
pub(super) struct Collation<'a> {
    pub config: &'a FlowLmConfig,
    /// Share of noise in what was said, at most.
    pub history_noise: f64,
    pub device: &'a Device,
}

impl Collation<'_> {
    /// Rows side by side.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn batch(&self, rows: &[Row]) -> Result<Batch, Error> {
        let Self { config, device, .. } = self;
        let (b, f, patch) = (rows.len(), config.feature_spec.n_mels, config.patch_size());
        let n_frames: Vec<usize> = rows.iter().map(|row| row.features.n_frames).collect();
        let longest = n_frames.iter().copied().max().unwrap_or(0);
        let (mut mels, mut said, mut prompts) = (vec![0f32; b * longest * f], Vec::new(), Vec::new());
        let (mut noise, mut n_patches, mut n_prompts) = (Vec::new(), Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            let own = config.patches(&row.features, 0..row.features.n_frames);
            let n_values = row.features.n_frames * f;
            mels[i * longest * f..][..n_values].copy_from_slice(&own[..n_values]);
            let n = own.len() / patch;
            n_patches.push(n);
            said.extend(own);
            noise.extend((0..n as u64).map(|at| row.noise.at(at)));
            let n_before = prompts.len();
            if let Some((features, frames)) = &row.prompt {
                prompts.extend(config.patches(features, frames.clone()));
            }
            n_prompts.push((prompts.len() - n_before) / patch);
        }
        let mut heard = said.clone();
        for (noise, patch) in noise.iter().zip(heard.chunks_exact_mut(patch)) {
            let noise = noise.at(HISTORY);
            let share = self.history_noise as f32 * noise.uniform(0);
            let mut drawn = vec![0f32; patch.len()];
            noise.at(0).fill_normal(share.sqrt(), &mut drawn);
            let kept = (1.0 - share).sqrt();
            patch.iter_mut().zip(drawn).for_each(|(value, noise)| *value = kept * *value + noise);
        }
        let n = noise.len();
        let n_heard = prompts.len() / patch;
        let prompts = match n_heard {
            0 => None,
            _ => Some(Tensor::from_vec(prompts, (n_heard, patch), device)?),
        };
        let edge = config.edge();
        let is_dropped: Vec<bool> = rows.iter().map(|row| row.is_dropped).collect();
        let texts: Vec<Vec<u32>> = rows.iter().map(|row| row.text.clone()).collect();
        let told = texts.iter().zip(&is_dropped);
        let told = told.map(|(text, is_dropped)| if *is_dropped { vec![edge, edge] } else { text.clone() });
        let longest_secs = rows.iter().map(|row| row.duration_secs).fold(0.0, f64::max);
        let longest_text = texts.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Batch {
            told: told.collect(),
            n_frames,
            n_patches,
            n_prompts,
            mels: Tensor::from_vec(mels, (b, longest, f), device)?,
            said: Tensor::from_vec(said, (n, patch), device)?,
            heard: Tensor::from_vec(heard, (n, patch), device)?,
            prompts,
            noise,
            extent: Extent {
                n_cuts: b,
                audio_secs: rows.iter().map(|row| row.duration_secs).sum(),
                padded_secs: b as f64 * longest_secs,
                n_tokens: texts.iter().map(Vec::len).sum(),
                padded_tokens: b * longest_text,
                n_too_short: 0,
            },
            is_dropped,
            texts,
        })
    }
}
