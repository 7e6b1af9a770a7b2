//! A training step is torch's: every trainable parameter gets a gradient (candle drops some without an error), the same one, and
//! ten steps lose what they lose there.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use models::nn::{AdamW, Moments, Targets, adamw_step, backward, cross_entropy, squared_norm};
use models::params::Params;
use models::{Bundle, SpeechModel};
use serde_json::Value;

use crate::parity::cases;
use crate::support::{devices, difference, fixture, floats, json, numbers};

/// A model in training, its batch, and what torch makes of both.
struct Training {
    model: SpeechModel,
    vars: Vec<(String, Var)>,
    features: Tensor, // (B, F, T)
    ids: Tensor,      // (B, U)
    targets: Targets,
    expected: Value,
    tensors: HashMap<String, Tensor>,
}

fn open(name: &str, device: &Device, checkpointing: bool) -> Result<Training> {
    let dir = fixture(name);
    let expected = json(&dir.join("expected.json"))?["training"].take();
    let architecture = Bundle::open(&dir)?.architecture().clone();
    let (n_mels, n_frames) = (architecture.n_mels(), architecture.window_frames());
    let params = Params::trainable(models::Weights::open(&dir)?, device).with_checkpointing(checkpointing);
    let model = SpeechModel::load(&params, &architecture)?;

    let rows = |key: &str| expected[key].as_array().cloned().with_context(|| key.to_owned());
    let ids: Vec<Vec<u32>> = rows("decoder_input_ids")?.iter().map(numbers).collect();
    let (b, u) = (ids.len(), ids[0].len());
    let labels = rows("labels")?;
    let labels = labels.iter().flat_map(|row| row.as_array().into_iter().flatten());
    // What carries no loss is -100 there.
    let labels: Vec<Option<u32>> =
        labels.map(|label| label.as_i64().and_then(|id| u32::try_from(id).ok())).collect();
    let clips: Vec<Tensor> = (0..b)
        .map(|clip| {
            let features = crate::parity::features(clip, n_mels, n_frames);
            Tensor::from_vec(features.data, (n_mels, n_frames), device)
        })
        .collect::<candle_core::Result<_>>()?;
    Ok(Training {
        model,
        vars: params.vars(),
        features: Tensor::stack(&clips, 0)?,
        ids: Tensor::from_vec(ids.concat(), (b, u), device)?,
        targets: Targets {
            labels: labels.iter().map(|label| label.unwrap_or(0)).collect(),
            weights: labels.iter().map(|label| if label.is_some() { 1.0 } else { 0.0 }).collect(),
            smoothing: 0.0,
        },
        tensors: candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu)?,
        expected,
    })
}

impl Training {
    /// Sum over the labels that count.
    fn loss_sum(&self, targets: Targets) -> Result<Tensor> {
        let decoder = self.model.decoder()?;
        let encoded = self.model.encoder.forward(&self.features, &|| true)?;
        let logits = decoder.logits(&decoder.forward(&self.ids, &encoded)?)?;
        Ok(cross_entropy(&logits, targets)?)
    }

    /// Mean loss, and its gradients.
    fn pass(&self) -> Result<(f32, GradStore)> {
        let loss = (self.loss_sum(self.targets.clone())? / self.targets.weight())?;
        Ok((loss.to_scalar()?, backward(&loss)?))
    }

    /// In order of name, none missing.
    fn gradients<'a>(&self, found: &'a GradStore) -> Result<Vec<&'a Tensor>> {
        let gradient =
            |(name, var): &(String, Var)| found.get(var).with_context(|| format!("{name} has no gradient"));
        self.vars.iter().map(gradient).collect()
    }
}

fn global_norm(gradients: &[&Tensor]) -> Result<f64> {
    let squares = gradients.iter().map(|gradient| squared_norm(gradient));
    Ok(squares.sum::<candle_core::Result<f64>>()?.sqrt())
}

#[test]
fn every_parameter_has_the_gradient_that_torch_computes() -> Result<()> {
    for (name, device) in cases() {
        let training = open(name, device, false)?;
        let (ours, found) = training.pass()?;
        let theirs = training.expected["loss"].as_f64().context("loss")? as f32;
        ensure!((ours - theirs).abs() < 1e-5 * theirs, "{name}: loss {ours}, not {theirs}");

        let norms = training.expected["gradient_norms"].as_object().context("gradient_norms")?;
        let names: Vec<&String> = training.vars.iter().map(|(parameter, _)| parameter).collect();
        let mut expected: Vec<&String> = norms.keys().collect();
        expected.sort();
        ensure!(names == expected, "{name}: {names:?} are trained, in torch {expected:?}");
        for (parameter, gradient) in names.into_iter().zip(training.gradients(&found)?) {
            let norm = squared_norm(gradient)?.sqrt();
            let expected = norms[parameter].as_f64().context("a norm")?;
            ensure!(
                (norm - expected).abs() < 1e-3 * expected + 1e-6,
                "{name} {parameter}: {norm}, not {expected}"
            );
        }

        let gradients: HashMap<_, _> = training
            .vars
            .iter()
            .map(|(parameter, _)| parameter.as_str())
            .zip(training.gradients(&found)?)
            .collect();
        let mut n_compared = 0;
        for (key, full) in training.tensors.iter().collect::<BTreeMap<_, _>>() {
            let Some(part) = key.strip_prefix("grad.") else { continue };
            let (parameter, rows) = rows(part).with_context(|| format!("{name}: what is `{key}`?"))?;
            let gradient =
                gradients.get(parameter).with_context(|| format!("{name}: `{key}` is of no parameter"))?;
            let gradient = match rows {
                Some((begin, end)) => gradient.narrow(0, begin, end - begin)?,
                None => (*gradient).clone(),
            };
            ensure!(
                gradient.dims() == full.dims(),
                "{name} {part}: {:?}, not {:?}",
                gradient.dims(),
                full.dims()
            );
            let norm = norms[parameter].as_f64().context("a norm")?;
            let worst = difference(&gradient, full)?;
            ensure!(f64::from(worst) < 1e-3 * norm.max(1e-2), "{name} {part}: off by {worst}");
            n_compared += 1;
        }
        ensure!(n_compared == 12, "{name}: {n_compared} gradients were compared");
    }
    Ok(())
}

/// `name`, or `name[begin:end]` for some of its rows, as Python has it; `None` is neither.
fn rows(part: &str) -> Option<(&str, Option<(usize, usize)>)> {
    let Some((parameter, rest)) = part.split_once('[') else { return Some((part, None)) };
    let (begin, end) = rest.strip_suffix(']')?.split_once(':')?;
    let begin = if begin.is_empty() { 0 } else { begin.parse().ok()? };
    let end = end.parse().ok().filter(|end| *end > begin)?;
    Some((parameter, Some((begin, end))))
}

#[test]
fn smoothed_losses_are_torchs() -> Result<()> {
    for (name, device) in cases() {
        let training = open(name, device, false)?;
        let smoothed = Targets { smoothing: 0.1, ..training.targets.clone() };
        let ours = training.loss_sum(smoothed)?.to_scalar::<f32>()?;
        let theirs = training.expected["loss_sum_label_smoothing_0_1"].as_f64().context("a loss")? as f32;
        ensure!((ours - theirs).abs() < 1e-5 * theirs, "{name}: {ours}, not {theirs}");
    }
    Ok(())
}

/// Forward, backward, clipping and AdamW together, as llm.c's `test_gpt2` has it.
#[test]
fn ten_steps_lose_what_they_lose_in_torch() -> Result<()> {
    devices().try_for_each(ten_steps)
}

fn ten_steps(device: &Device) -> Result<()> {
    let training = open("whisper-80", device, false)?;
    let adamw = &training.expected["adamw"];
    let number = |value: &Value| value.as_f64().context("a number");
    let clip = number(&adamw["clip_grad_norm"])?;
    let moments = training.vars.iter().map(|(_, var)| Moments::zeros(var));
    let mut moments = moments.collect::<candle_core::Result<Vec<_>>>()?;
    let norms = floats(&adamw["gradient_norms_before_clipping"]);
    let losses = floats(&adamw["losses"]);
    ensure!(losses.len() == 10, "{} losses", losses.len());
    for (step, (theirs, their_norm)) in (1..).zip(losses.iter().zip(norms)) {
        let (ours, found) = training.pass()?;
        ensure!((ours - theirs).abs() < 1e-4 * theirs, "step {step}: loss {ours}, not {theirs}");
        let gradients = training.gradients(&found)?;
        let norm = global_norm(&gradients)?;
        ensure!(
            (norm as f32 - their_norm).abs() < 1e-3 * their_norm,
            "step {step}: {norm}, not {their_norm}"
        );
        let step = AdamW {
            learning_rate: number(&adamw["lr"])?,
            beta1: number(&adamw["betas"][0])?,
            beta2: number(&adamw["betas"][1])?,
            eps: number(&adamw["eps"])?,
            weight_decay: number(&adamw["weight_decay"])?,
            step,
            gradient_scale: (clip / (norm + 1e-6)).min(1.0),
        };
        for (((_, var), gradient), moments) in training.vars.iter().zip(gradients).zip(&mut moments) {
            adamw_step(var, gradient, moments, &step)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_computed_again_gives_the_same_loss_and_gradients() -> Result<()> {
    let training = open("whisper-80", &Device::Cpu, false)?;
    let (kept_loss, kept) = training.pass()?;
    let computed_again = open("whisper-80", &Device::Cpu, true)?;
    let (loss, again) = computed_again.pass()?;
    ensure!(loss.to_bits() == kept_loss.to_bits(), "{loss}, not {kept_loss}");
    let kept = training.gradients(&kept)?;
    for ((parameter, _), (again, kept)) in
        training.vars.iter().zip(computed_again.gradients(&again)?.into_iter().zip(kept))
    {
        let (worst, norm) = (difference(again, kept)?, squared_norm(kept)?.sqrt() as f32);
        ensure!(worst <= 1e-6 * norm.max(1.0), "{parameter}: off by {worst} of {norm}");
    }
    // Who forgets how gradients get out is told so.
    let loss = computed_again.loss_sum(training.targets.clone())?;
    ensure!(loss.backward().is_err(), "gradients were lost without an error");
    Ok(())
}
