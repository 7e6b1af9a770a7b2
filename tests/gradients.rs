//! Every trainable parameter gets a gradient, and it is torch's: candle drops some without an error.

use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor};
use models::params::Params;
use models::whisper::Whisper;
use models::{Architecture, Bundle};
use serde_json::Value;

use crate::support::{difference, fixture, json, numbers};

fn rows(value: &Value) -> Vec<Vec<u32>> {
    value.as_array().into_iter().flatten().map(numbers).collect()
}

/// Mean cross-entropy over the labels that are not -100, with plain tensor operations.
fn loss(logits: &Tensor, labels: &Value) -> Result<Tensor> {
    let (_, u, v) = logits.dims3()?;
    let flat: Vec<(u32, u32)> = labels
        .as_array()
        .context("labels")?
        .iter()
        .flat_map(|row| row.as_array().into_iter().flatten())
        .enumerate()
        .filter_map(|(place, label)| Some((place as u32, u32::try_from(label.as_i64()?).ok()?)))
        .collect();
    ensure!(!flat.is_empty() && u > 0, "labels");
    let (places, labels): (Vec<u32>, Vec<u32>) = flat.into_iter().unzip();
    let n = places.len();
    let logits = logits.reshape(((), v))?.index_select(&Tensor::new(places, &Device::Cpu)?, 0)?;
    let log_probs = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let picked = log_probs.gather(&Tensor::from_vec(labels, (n, 1), &Device::Cpu)?, 1)?;
    Ok((picked.sum_all()?.neg()? / n as f64)?)
}

#[test]
fn every_parameter_has_the_gradient_that_torch_computes() -> Result<()> {
    for name in ["whisper-80", "whisper-128", "whisper-en"] {
        let dir = fixture(name);
        let expected = json(&dir.join("expected.json"))?;
        let tensors = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?;
        let bundle = Bundle::open(&dir)?;
        let Architecture::Whisper(config) = bundle.architecture().clone();
        let (n_mels, n_frames) = (config.num_mel_bins, config.max_source_frames());
        let params = Params::trainable(models::Weights::open(&dir)?, &Device::Cpu);
        let model = Whisper::load(&params, config)?;

        let training = &expected["training"];
        let ids = rows(&training["decoder_input_ids"]);
        let (b, u) = (ids.len(), ids[0].len());
        let ids = Tensor::from_vec(ids.concat(), (b, u), &Device::Cpu)?;
        let clips: Vec<Tensor> = (0..b)
            .map(|clip| {
                let features = crate::parity::features(clip, n_mels, n_frames);
                Tensor::from_vec(features.data, (n_mels, n_frames), &Device::Cpu)
            })
            .collect::<candle_core::Result<_>>()?;
        let encoded = model.encoder.forward(&Tensor::stack(&clips, 0)?, &|| true)?;
        let logits = model.decoder.logits(&model.decoder.forward(&ids, &encoded)?)?;
        let loss = loss(&logits, &training["labels"])?;
        let (ours, theirs) = (loss.to_scalar::<f32>()?, training["loss"].as_f64().context("loss")? as f32);
        ensure!((ours - theirs).abs() < 1e-4 * theirs, "{name}: loss {ours}, not {theirs}");

        let gradients = loss.backward()?;
        let norms = training["gradient_norms"].as_object().context("gradient_norms")?;
        let vars = params.vars();
        ensure!(vars.len() == norms.len(), "{name}: {} parameters, torch has {}", vars.len(), norms.len());
        for (parameter, var) in vars {
            let gradient =
                gradients.get(&var).with_context(|| format!("{name}: {parameter} has no gradient"))?;
            let norm = gradient.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
            let expected = norms[&parameter].as_f64().context("a norm")? as f32;
            ensure!(
                (norm - expected).abs() < 2e-3 * expected + 1e-6,
                "{name} {parameter}: {norm}, not {expected}"
            );
            if let Some(full) = tensors.get(&format!("grad.{parameter}")) {
                let worst = difference(gradient, full)?;
                ensure!(worst < 1e-3 * expected.max(1e-2), "{name} {parameter}: off by {worst}");
            }
        }
    }
    Ok(())
}
