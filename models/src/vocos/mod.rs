//! Vocos (Siuzdak 2023, arXiv 2306.00814): mel features to spectra, frame by frame, and these to sound by an inverse Fourier transform. Nothing
//! is ever upsampled, which is what makes it fast. Its weights are named as gemelo-ai/vocos names them.
//!
//! Unlike theirs, every convolution looks back and never ahead, so that speech can be heard while it is made.

mod block;
mod config;
mod stream;
#[cfg(test)]
mod tests;

pub use config::{VOCOS, VocosConfig};
pub use stream::VocosStream;

use std::sync::Arc;

use audio::features::FrameAlignment;
use audio::{FeatureSpec, Features, Waveform};
use candle_core::{Device, Tensor};

use self::block::ConvNextBlock;
use crate::Error;
use crate::bundle::BundleSource;
use crate::nn::{Conv1d, Istft, LayerNorm, Linear, from_polar};
use crate::params::{Params, Scope};
use crate::weights::Weights;

const EPS: f32 = 1e-6;
/// Largest magnitude of a bin (Vocos, `heads.py`): louder ones would be a mistake.
const MAX_MAGNITUDE: f32 = 100.0;

/// A vocoder: features of its spec to sound. Immutable; threads may share it.
pub struct Vocos {
    config: VocosConfig,
    embed: Conv1d,
    norm: LayerNorm,
    blocks: Vec<ConvNextBlock>,
    final_norm: LayerNorm,
    head: Linear,
    /// For training.
    synthesis: Istft,
    /// For serving, frame by frame.
    istft: audio::features::Istft,
    device: Device,
}

/// What each convolution remembers of a signal: frames before the next one, (1, kernel - 1, channels). That of the first and those
/// of the blocks.
struct Contexts {
    embed: Tensor,
    blocks: Vec<Tensor>,
}

/// `x` (B, T, C) after `n` frames: those of `context`, which then has the last ones of all; or `nothing`, again and again.
fn after(context: Option<&mut Tensor>, x: &Tensor, n: usize, nothing: f32) -> candle_core::Result<Tensor> {
    let Some(context) = context else {
        let (b, _, width) = x.dims3()?;
        return Tensor::cat(&[&Tensor::full(nothing, (b, n, width), x.device())?, x], 1);
    };
    let joined = Tensor::cat(&[&*context, x], 1)?;
    // A copy, as a part would keep all of it.
    *context = joined.narrow(1, joined.dim(1)? - n, n)?.force_contiguous()?;
    Ok(joined)
}

impl Vocos {
    /// Builds it from the parameters at a place: the root of its own bundle, or below another model's.
    ///
    /// # Errors
    /// Missing tensors and shapes other than `config` asks for, features that there is no way back from.
    pub fn load(scope: &Scope<'_>, config: &VocosConfig) -> Result<Self, Error> {
        let (spec, width) = (&config.feature_spec, config.hidden_size);
        let (backbone, istft) =
            (scope.sub("backbone"), audio::features::Istft::new(spec, FrameAlignment::Centred)?);
        let blocks = (0..config.num_layers)
            .map(|index| ConvNextBlock::load(&backbone.sub("convnext").sub(index), config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embed: Conv1d::load(&backbone.sub("embed"), spec.n_mels, width, config.kernel_size, 1, 0)?,
            norm: LayerNorm::load(&backbone.sub("norm"), width, EPS)?,
            blocks,
            final_norm: LayerNorm::load(&backbone.sub("final_layer_norm"), width, EPS)?,
            head: Linear::load(&scope.sub("head").sub("out"), width, 2 * istft.n_bins(), true)?,
            synthesis: Istft::new(spec, FrameAlignment::Centred)?,
            istft,
            config: config.clone(),
            device: scope.device().clone(),
        })
    }

    /// Loads a bundle to be used.
    ///
    /// # Errors
    /// What [`VocosConfig::read`] and [`Vocos::load`] refuse.
    pub fn open(source: &BundleSource, device: &Device) -> Result<Self, Error> {
        let config = VocosConfig::read(source)?;
        Self::load(&Params::frozen(Weights::from_source(source)?, device).root(), &config)
    }

    /// Its dimensions.
    pub fn config(&self) -> &VocosConfig {
        &self.config
    }

    /// What features must have been computed by.
    pub fn spec(&self) -> &FeatureSpec {
        &self.config.feature_spec
    }

    /// Features (B, T, F) to samples (B, N), `N = (T - 1) * hop`, T at least 2. Differentiable.
    ///
    /// # Errors
    /// Another number of bins, too few frames.
    pub fn forward(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        self.synthesize(&self.polar(features, None)?)
    }

    /// Logarithms of magnitudes and then phases, (B, T, 2 F), to samples (B, N). Differentiable.
    ///
    /// # Errors
    /// Another number of bins, too few frames.
    pub fn synthesize(&self, polar: &Tensor) -> candle_core::Result<Tensor> {
        self.synthesis.forward(&from_polar(polar, MAX_MAGNITUDE)?)
    }

    /// Features (B, T, F) to logarithms of magnitudes and then phases, (B, T, 2 F).
    fn polar(&self, features: &Tensor, contexts: Option<&mut Contexts>) -> candle_core::Result<Tensor> {
        let contexts = contexts.map(|contexts| (&mut contexts.embed, contexts.blocks.as_mut_slice()));
        let (embed, blocks) = contexts.unzip();
        let mut blocks = blocks.unwrap_or_default().iter_mut();
        // A signal begins in silence, which is no zero in logarithms.
        let silence = self.spec().silence();
        let x = self.embed.forward(&after(embed, features, self.config.kernel_size - 1, silence)?)?;
        let mut x = self.norm.forward(&x)?; // (B, T, D)
        for block in &self.blocks {
            x = block.forward(&x, blocks.next())?;
        }
        self.head.forward(&self.final_norm.forward(&x)?)
    }

    /// What lies before a signal.
    fn contexts(&self) -> Result<Contexts, Error> {
        let n_context = self.config.kernel_size - 1;
        let frames = |value: f32, width: usize| Tensor::full(value, (1, n_context, width), &self.device);
        let blocks = self.blocks.iter().map(|_| frames(0.0, self.config.hidden_size));
        let embed = frames(self.spec().silence(), self.spec().n_mels)?;
        Ok(Contexts { embed, blocks: blocks.collect::<Result<_, _>>()? })
    }

    /// Starts a signal whose features come piece by piece.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn stream(self: &Arc<Self>) -> Result<VocosStream, Error> {
        VocosStream::new(self.clone())
    }

    /// The sound of all features at once: T frames give `(T - 1) * hop` samples, none for no frame or one.
    ///
    /// # Errors
    /// Features of another number of bins, numbers that are not finite.
    pub fn waveform(self: &Arc<Self>, features: &Features) -> Result<Waveform, Error> {
        let mut stream = self.stream()?;
        let mut samples = stream.push(features)?;
        samples.extend(stream.finish());
        Ok(Waveform { samples, sample_rate: self.spec().sample_rate })
    }
}
