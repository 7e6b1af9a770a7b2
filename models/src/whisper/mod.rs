//! Whisper: an encoder-decoder over log-mel features.

mod config;
mod decoder;
mod encoder;

pub use config::WhisperConfig;
pub use encoder::Encoder;

use crate::params::Params;
use crate::{Decoder, Error, SpeechModel};

/// Builds the model from `params`, under the names of Hugging Face checkpoints.
///
/// # Errors
/// Missing tensors and shapes other than `config` asks for.
pub(crate) fn load(params: &Params, config: &WhisperConfig) -> Result<SpeechModel, Error> {
    let encoder = params.root().sub("model").sub("encoder");
    let (encoder, decoder) = rayon::join(|| Encoder::load(&encoder, config), || load_decoder(params, config));
    Ok(SpeechModel::with_decoder(crate::Encoder::Whisper(encoder?), decoder?))
}

/// Builds the decoder alone.
///
/// # Errors
/// What [`load`] refuses.
pub(crate) fn load_decoder(params: &Params, config: &WhisperConfig) -> Result<Decoder, Error> {
    let root = params.root();
    decoder::load(&root.sub("model").sub("decoder"), &root, config)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::nn::test_support::{assert_close, composed, noise};
    use crate::nn::{CtcTargets, Targets, backward, cross_entropy, ctc};
    use crate::params::TrainedPart;
    use crate::{Bundle, Lora, StepRow, Weights};

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
        let model = load(&params, &serde_json::from_value(config)?)?;
        let decoder: &Decoder = model.decoder()?;
        let encoded = model.encoder.forward(&noise((2, 16, 60), 1)?, &|| true)?;
        let ids: Vec<u32> = (0..10).map(|i| 3 + i * 7 % 47).collect();
        let hidden =
            decoder.forward_padded(&Tensor::from_slice(&ids, (2, 5), &Device::Cpu)?, &encoded, &[30, 20])?;
        let logits = decoder.logits(&hidden)?;
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
        let [first, second] = [decoder.cross_cache(&windows[0])?, decoder.cross_cache(&windows[1])?];
        let [mut one, mut two] = [decoder.row_cache(8)?, decoder.row_cache(8)?];
        for (some, others) in [(&ids[..3], &ids[5..6]), (&ids[3..4], &ids[6..8])] {
            let mut rows = [
                StepRow { tokens: some, cache: &mut one, cross: &first },
                StepRow { tokens: others, cache: &mut two, cross: &second },
            ];
            let hidden = decoder.step(&mut rows)?;
            let mut logits = Vec::new();
            decoder.logits_into(&hidden, &mut logits)?;
            all.push(("step".to_owned(), hidden));
            all.push(("step's logits".to_owned(), Tensor::new(logits.as_slice(), &Device::Cpu)?));
        }
        Ok(all)
    }

    /// What a checkpoint computes that never changes, and one beside which factors are trained.
    fn of_checkpoint() -> Result<Vec<(String, Tensor)>, Failure> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let bundle = Bundle::open(dir.as_ref())?;
        let config = bundle.architecture().require_whisper("this test")?.clone();
        let mel = noise((1, config.num_mel_bins, 90), 1)?;
        let weights = || Weights::open(dir.as_ref());
        let frozen = load(&Params::frozen(weights()?, &Device::Cpu), &config)?;
        let decoder: &Decoder = frozen.decoder()?;
        let encoded = frozen.encoder.forward(&mel, &|| true)?;
        let cross = decoder.cross_cache(&encoded.get(0)?)?;
        let mut cache = decoder.row_cache(4)?;
        let hidden = decoder.step(&mut [StepRow { tokens: &[7, 3, 9], cache: &mut cache, cross: &cross }])?;
        let mut logits = Vec::new();
        decoder.logits_into(&hidden, &mut logits)?;
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
        let model = load(&params, &config)?;
        let decoder: &Decoder = model.decoder()?;
        let encoded = model.encoder.forward(&mel, &|| true)?;
        let hidden = decoder.forward(&Tensor::new(&[[7u32, 3, 9]], &Device::Cpu)?, &encoded)?;
        let targets = Targets { labels: vec![3, 9, 1], weights: vec![1.0; 3], smoothing: 0.0 };
        let labels = CtcTargets { labels: vec![vec![3, 9]], lengths: vec![45], weights: vec![1.0], blank: 0 };
        let heard = decoder.logits(&encoded)?;
        let loss = (cross_entropy(&decoder.logits(&hidden)?, targets)? + ctc(&heard, labels)?)?;
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
