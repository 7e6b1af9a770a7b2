//! The FastConformer encoder and NeMo's features are transformers': `tests/oracle/fast_conformer.py`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use audio::LogMel;
use candle_core::{Device, Tensor};
use models::Weights;
use models::fast_conformer::{Encoder, FastConformerConfig};
use models::nn::{backward, squared_norm};
use models::params::Params;
use serde_json::Value;

use crate::parity;
use crate::support::{devices, difference, fixture, json, numbers};

/// What positions attend to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Attention {
    Full,
    /// The oracle's `CONTEXT`.
    Limited,
}

const BOTH: [Attention; 2] = [Attention::Full, Attention::Limited];

struct Fixture {
    config: FastConformerConfig,
    attention: Attention,
    expected: Value,
    tensors: HashMap<String, Tensor>,
}

fn open(attention: Attention) -> Result<Fixture> {
    let dir = fixture("fast-conformer");
    let path = dir.join("config.json");
    let mut config: FastConformerConfig = serde_json::from_value(json(&path)?["encoder_config"].take())?;
    let expected = json(&dir.join("expected.json"))?;
    if attention == Attention::Limited {
        config.attention_context = serde_json::from_value(expected["context"].clone())?;
        ensure!(config.attention_context.is_some(), "no context");
    }
    config.check(&path)?;
    let tensors = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?;
    Ok(Fixture { config, attention, expected, tensors })
}

fn weights() -> Result<Weights> {
    Ok(Weights::open(&fixture("fast-conformer"))?)
}

impl Fixture {
    fn frozen(&self, device: &Device) -> Result<Encoder> {
        Ok(Encoder::load(&Params::frozen(weights()?, device).root(), self.config.clone())?)
    }

    fn frames(&self) -> Vec<usize> {
        numbers(&self.expected["frames"])
    }

    /// (1, F, T).
    fn features(&self, clip: usize, n_frames: usize, device: &Device) -> Result<Tensor> {
        let n_mels = self.config.num_mel_bins;
        let features = parity::features(clip, n_mels, n_frames);
        Ok(Tensor::from_vec(features.data, (1, n_mels, n_frames), device)?)
    }

    /// All clips side by side, zeros after them: (B, F, T).
    fn batch(&self, device: &Device) -> Result<Tensor> {
        let frames = self.frames();
        let longest = frames.iter().copied().max().context("a clip")?;
        let clips = frames
            .iter()
            .enumerate()
            .map(|(clip, n)| Ok(self.features(clip, *n, device)?.pad_with_zeros(2, 0, longest - n)?));
        Ok(Tensor::cat(&clips.collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.find(name).with_context(|| format!("no {name}"))
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        match self.attention {
            Attention::Full => self.tensors.get(name),
            Attention::Limited => self.tensors.get(&format!("limited.{name}")),
        }
    }

    fn gradient_norms(&self) -> &Value {
        match self.attention {
            Attention::Full => &self.expected["gradient_norms"],
            Attention::Limited => &self.expected["limited_gradient_norms"],
        }
    }
}

#[test]
fn hidden_states_are_transformers_alone_and_in_a_padded_batch() -> Result<()> {
    for (device, attention) in devices().flat_map(|device| BOTH.map(|attention| (device, attention))) {
        let fixture = open(attention)?;
        let encoder = fixture.frozen(device)?;
        let (frames, positions) = (fixture.frames(), numbers::<usize>(&fixture.expected["positions"]));
        let padded = encoder.forward_padded(&fixture.batch(device)?, &frames)?;
        for (clip, (n_frames, n)) in frames.iter().zip(positions).enumerate() {
            ensure!(fixture.config.n_positions(*n_frames) == n, "{n_frames} frames give {n} positions");
            let alone = encoder.forward(&fixture.features(clip, *n_frames, device)?, &|| true)?.get(0)?;
            let worst = difference(&alone, fixture.tensor(&format!("encoded.{clip}"))?)?;
            ensure!(worst < 2e-4, "{attention:?}, clip {clip}: {worst}");
            let row = padded.get(clip)?.narrow(0, 0, n)?;
            let worst = difference(&row, &fixture.tensor("padded")?.get(clip)?.narrow(0, 0, n)?)?;
            ensure!(worst < 2e-4, "{attention:?}, clip {clip} in a batch: {worst}");
            if device.is_cpu() {
                ensure!(
                    row.to_vec2::<f32>()? == alone.to_vec2::<f32>()?,
                    "{attention:?}, clip {clip} is another in a batch"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_training_step_is_torchs_with_statistics_of_the_batch() -> Result<()> {
    // What is computed twice is seen once.
    let cases = BOTH.map(|attention| [(attention, false), (attention, true)]).concat();
    for (device, (attention, checkpointing)) in
        devices().flat_map(|device| cases.iter().map(move |case| (device, *case)))
    {
        let fixture = open(attention)?;
        let params = Params::trainable(weights()?, device).with_checkpointing(checkpointing);
        let encoder = Encoder::load(&params.root(), fixture.config.clone())?;
        let n_frames = fixture.expected["trained_frames"].as_u64().context("trained_frames")? as usize;
        let clips =
            (0..2).map(|clip| fixture.features(clip, n_frames, device)).collect::<Result<Vec<_>>>()?;
        let out = encoder.forward(&Tensor::cat(&clips, 0)?, &|| true)?;
        let worst = difference(&out, fixture.tensor("trained")?)?;
        ensure!(worst < 2e-4, "{attention:?}: {worst}");
        let (_, t, width) = out.dims3()?;
        let target = parity::features(7, width, t);
        let target = Tensor::from_vec(target.data, (width, t), device)?.t()?;
        let found = backward(&out.broadcast_mul(&target)?.sum_all()?)?;
        let norms = fixture.gradient_norms().as_object().context("gradient_norms")?;
        ensure!(params.vars().len() == norms.len(), "{} and {} gradients", params.vars().len(), norms.len());
        for (name, var) in params.vars() {
            let gradient = found.get(&var).with_context(|| format!("{name} has no gradient"))?;
            let (norm, expected) = (squared_norm(gradient)?.sqrt(), norms[&name].as_f64().context("norm")?);
            // A shift of what is normalised after it, or of all keys, changes nothing.
            ensure!((norm - expected).abs() < 1e-3 * expected + 3e-4, "{name}: {norm}, not {expected}");
            if let Some(expected) = fixture.find(&format!("gradient.{name}")) {
                let worst = difference(gradient, expected)?;
                let largest = expected.abs()?.max_all()?.to_scalar::<f32>()?;
                ensure!(worst < 1e-3 * largest + 1e-5, "{name}: {worst} of {largest}");
            }
        }
        encoder.follow(true)?;
        ensure!(params.statistics().len() == 4, "{} running statistics", params.statistics().len());
        for (name, var) in params.statistics() {
            if let Some(expected) = fixture.find(&format!("running.{name}")) {
                let worst = difference(var.as_tensor(), expected)?;
                ensure!(worst < 1e-5, "{name}: {worst}");
            }
        }
    }
    Ok(())
}

#[test]
fn features_are_nemos() -> Result<()> {
    let fixture = open(Attention::Full)?;
    let mut state = 12_345_u32;
    let samples: Vec<f32> = (0..21_000)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let t = f64::from(i) / 16_000.0;
            let turn = std::f64::consts::TAU;
            let noise = f64::from(state) / f64::from(1_u32 << 31) - 1.0;
            (0.4 * (turn * (220.0 * t + 300.0 * t * t)).sin()
                + 0.2 * (turn * 1234.5 * t).sin()
                + 0.05 * noise) as f32
        })
        .collect();
    for n_mels in [80, 128] {
        let spec = FastConformerConfig { num_mel_bins: n_mels, ..fixture.config.clone() }.feature_spec();
        let features = LogMel::new(&spec)?.compute(&samples);
        let ours = Tensor::from_vec(features.data, (n_mels, features.n_frames), &Device::Cpu)?;
        let worst = difference(&ours.t()?, fixture.tensor(&format!("features.{n_mels}"))?)?;
        ensure!(worst < 2e-3, "{n_mels} bins: {worst}");
    }
    Ok(())
}
