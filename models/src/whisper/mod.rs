//! Whisper: an encoder-decoder over log-mel features.

mod config;
mod decoder;
mod encoder;
mod feed_forward;
mod generation;
mod tokens;

pub use config::WhisperConfig;
pub use decoder::{CrossCache, Decoder, RowCache, StepRow};
pub use encoder::Encoder;
pub use generation::GenerationConfig;
pub use tokens::{SpecialTokens, TIMESTAMP_SECS};

use crate::Error;
use crate::params::Params;

/// Weights of a Whisper model. Immutable: every bit of state is passed in, so threads share one model.
pub struct Whisper {
    /// Sizes, as in `config.json`.
    pub config: WhisperConfig,
    /// Features to hidden states.
    pub encoder: Encoder,
    /// Hidden states and tokens to logits.
    pub decoder: Decoder,
}

impl Whisper {
    /// Builds the model from `params`, under the names of Hugging Face checkpoints.
    ///
    /// # Errors
    /// Missing tensors and shapes other than `config` asks for.
    pub fn load(params: &Params, config: WhisperConfig) -> Result<Self, Error> {
        let root = params.root();
        let model = root.sub("model");
        let (encoder, decoder) = rayon::join(
            || Encoder::load(&model.sub("encoder"), &config),
            || Decoder::load(&model.sub("decoder"), &root, &config),
        );
        Ok(Self { encoder: encoder?, decoder: decoder?, config })
    }

    /// Whether training keeps what blocks compute for the backward pass, or computes it again there: a forward pass more for the
    /// memory of all blocks but one. Gradients then need [`nn::backward`](crate::nn::backward()). Off at first.
    pub fn set_checkpointing(&mut self, checkpointing: bool) {
        self.encoder.checkpointing = checkpointing;
        self.decoder.checkpointing = checkpointing;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::nn::test_support::{assert_close, composed, noise};
    use crate::nn::{CtcTargets, Targets, backward, cross_entropy, ctc};
    use crate::params::TrainedPart;
    use crate::{Architecture, Bundle, Lora, Weights};

    type Failure = Box<dyn std::error::Error + Send + Sync>;

    /// What a model of noise computes in training and in decoding: hidden states, logits, loss, all gradients, steps.
    fn everything() -> Result<Vec<(String, Tensor)>, Failure> {
        let config = serde_json::json!({
            "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
            "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "num_mel_bins": 16,
            "max_source_positions": 30, "max_target_positions": 12, "vocab_size": 50,
            "decoder_start_token_id": 2, "eos_token_id": 1,
        });
        let params = Params::seeded(3, &Device::Cpu);
        let model = Whisper::load(&params, serde_json::from_value(config)?)?;
        let encoded = model.encoder.forward(&noise((2, 16, 60), 1)?, &|| true)?;
        let ids: Vec<u32> = (0..10).map(|i| 3 + i * 7 % 47).collect();
        let hidden = model.decoder.forward_padded(
            &Tensor::from_slice(&ids, (2, 5), &Device::Cpu)?,
            &encoded,
            &[30, 20],
        )?;
        let logits = model.decoder.logits(&hidden)?;
        let weights = (0..10).map(|i| if i == 4 { 0.0 } else { 1.0 }).collect();
        let loss = cross_entropy(&logits, Targets { labels: ids.clone(), weights, smoothing: 0.1 })?;
        let gradients = backward(&loss)?;
        let mut all = vec![
            ("encoded".to_owned(), encoded.clone()),
            ("logits".to_owned(), logits),
            ("loss".to_owned(), loss),
        ];
        for (name, var) in params.vars() {
            let gradient = gradients.get(&var).ok_or_else(|| format!("{name} has no gradient"))?;
            all.push((name, gradient.clone()));
        }
        let windows = [encoded.get(0)?.detach(), encoded.get(1)?.detach()];
        let [first, second] =
            [model.decoder.cross_cache(&windows[0])?, model.decoder.cross_cache(&windows[1])?];
        let [mut one, mut two] = [model.decoder.row_cache(8)?, model.decoder.row_cache(8)?];
        for (some, others) in [(&ids[..3], &ids[5..6]), (&ids[3..4], &ids[6..8])] {
            let mut rows = [
                StepRow { tokens: some, cache: &mut one, cross: &first },
                StepRow { tokens: others, cache: &mut two, cross: &second },
            ];
            let hidden = model.decoder.step(&mut rows)?;
            let mut logits = Vec::new();
            model.decoder.logits_into(&hidden, &mut logits)?;
            all.push(("step".to_owned(), hidden));
            all.push(("step's logits".to_owned(), Tensor::new(logits.as_slice(), &Device::Cpu)?));
        }
        Ok(all)
    }

    /// What a checkpoint computes that never changes, and one beside which factors are trained.
    fn of_checkpoint() -> Result<Vec<(String, Tensor)>, Failure> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let bundle = Bundle::open(dir.as_ref())?;
        let Architecture::Whisper(config) = bundle.architecture().clone();
        let mel = noise((1, config.num_mel_bins, 90), 1)?;
        let weights = || Weights::open(dir.as_ref());
        let frozen = Whisper::load(&Params::frozen(weights()?, &Device::Cpu), config.clone())?;
        let encoded = frozen.encoder.forward(&mel, &|| true)?;
        let cross = frozen.decoder.cross_cache(&encoded.get(0)?)?;
        let mut cache = frozen.decoder.row_cache(4)?;
        let hidden =
            frozen.decoder.step(&mut [StepRow { tokens: &[7, 3, 9], cache: &mut cache, cross: &cross }])?;
        let mut logits = Vec::new();
        frozen.decoder.logits_into(&hidden, &mut logits)?;
        let logits = Tensor::new(logits.as_slice(), &Device::Cpu)?;
        let mut all = vec![
            ("encoded".to_owned(), encoded),
            ("hidden".to_owned(), hidden),
            ("logits".to_owned(), logits),
        ];

        let targets = ["q_proj", "v_proj", "fc1"].map(str::to_owned).to_vec();
        let lora = Lora { rank: 2, alpha: 4.0, targets };
        let part = TrainedPart { frozen: vec![String::new()], lora: Some((lora, 1)) };
        let params = Params::trainable(weights()?, &Device::Cpu).with_part(part);
        let model = Whisper::load(&params, config)?;
        let encoded = model.encoder.forward(&mel, &|| true)?;
        let hidden = model.decoder.forward(&Tensor::new(&[[7u32, 3, 9]], &Device::Cpu)?, &encoded)?;
        let targets = Targets { labels: vec![3, 9, 1], weights: vec![1.0; 3], smoothing: 0.0 };
        let labels = CtcTargets { labels: vec![vec![3, 9]], lengths: vec![45], weights: vec![1.0], blank: 0 };
        let heard = model.decoder.logits(&encoded)?;
        let loss = (cross_entropy(&model.decoder.logits(&hidden)?, targets)? + ctc(&heard, labels)?)?;
        let gradients = backward(&loss)?;
        all.push(("loss".to_owned(), loss));
        for (name, var) in params.vars() {
            let gradient = gradients.get(&var).ok_or_else(|| format!("{name} has no gradient"))?;
            all.push((name, gradient.clone()));
        }
        Ok(all)
    }

    #[test]
    fn a_device_without_kernels_computes_the_same() -> Result<(), Failure> {
        for compute in [everything, of_checkpoint] {
            let (kernels, plain) = (compute()?, composed(compute)??);
            assert_eq!(kernels.len(), plain.len());
            for ((name, ours), (_, plain)) in kernels.iter().zip(&plain) {
                let largest = plain.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
                assert_close(ours, plain, 1e-5 + 1e-4 * largest)
                    .map_err(|error| format!("{name}: {error}"))?;
            }
            // They are not the same code.
            let differ = |(a, b): (&(String, Tensor), &(String, Tensor))| {
                a.1.flatten_all().and_then(|x| x.to_vec1::<f32>()).ok()
                    != b.1.flatten_all().and_then(|x| x.to_vec1::<f32>()).ok()
            };
            assert!(kernels.iter().zip(&plain).filter(|pair| differ(*pair)).count() > 10);
        }
        Ok(())
    }
}
