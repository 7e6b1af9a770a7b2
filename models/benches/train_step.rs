//! A whole training step of Whisper: seconds, peak memory and the share of each component, `cargo bench -p models --bench
//! train_step [-- [--checkpointing] shape ..]`. `models/benches/train_step.py` runs the same step in torch beside it.
//!
//! A step is forward pass, loss, gradients, global-norm clip and AdamW, on one batch of noise. Each shape runs in a process of its
//! own, so that peaks of memory do not mix. Components are timed alone, forwards and backwards, and counted as often as the model
//! has them; what they leave of the step is the graph's own (additions, copies, fresh memory).

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod noise;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};
use models::Error;
use models::kernels::{Activation, keep_freed_memory, leave_threads_to_kernels};
use models::nn::{
    AdamW, Conv1d, Embedding, LayerNorm, Linear, Mask, Moments, MultiHeadAttention, Projections, Targets,
    activate, adamw_step, backward, cross_entropy, squared_norm,
};
use models::params::Params;
use models::whisper::WhisperConfig;
use models::{Architecture, SpeechModel};

use self::noise::noise;

/// What a batch and its model look like.
struct Shape {
    name: &'static str,
    d_model: usize,
    heads: usize,
    encoder_layers: usize,
    decoder_layers: usize,
    n_mels: usize,
    vocab_size: usize,
    /// Encoder positions: 50 for a second.
    n_positions: usize,
    batch: usize,
    n_tokens: usize,
}

/// Whisper tiny over 5 s and over its whole window, and a model of width 128 over 8 s with a large and with a small
/// vocabulary.
const SHAPES: [Shape; 4] = [
    Shape { name: "tiny-5s", n_positions: 250, ..TINY },
    TINY,
    Shape { name: "micro-8s", vocab_size: 51866, ..MICRO },
    MICRO,
];

const TINY: Shape = Shape {
    name: "tiny-30s",
    d_model: 384,
    heads: 6,
    encoder_layers: 4,
    decoder_layers: 4,
    n_mels: 80,
    vocab_size: 51865,
    n_positions: 1500,
    batch: 4,
    n_tokens: 64,
};

const MICRO: Shape = Shape {
    name: "micro-8s-v1024",
    d_model: 128,
    heads: 2,
    encoder_layers: 4,
    decoder_layers: 2,
    n_mels: 128,
    vocab_size: 1024,
    n_positions: 400,
    batch: 8,
    n_tokens: 32,
};

/// Computes blocks again in the backward pass.
const CHECKPOINTING: &str = "--checkpointing";

/// Steps of each shape after the first, which also fetches memory.
const MIN_STEPS: usize = 3;
const MAX_STEPS: usize = 12;
const ENOUGH: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    leave_threads_to_kernels();
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| ["--bench", CHECKPOINTING].contains(&argument.as_str()));
    let checkpointing = flags.iter().any(|flag| flag == CHECKPOINTING);
    keep_freed_memory(usize::MAX);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--list"] => SHAPES.iter().for_each(|shape| println!("{}", shape.json())),
        ["--json", name] => println!("{}", run(find(name)?, checkpointing)?.json()),
        ["--table", name] => table(find(name)?, checkpointing)?,
        ["--components", name] => {
            let rows = components(find(name)?)?;
            println!("{}", serde_json::json!(rows));
        }
        names => {
            let mut shapes =
                names.iter().map(|name| find(name)).collect::<Result<Vec<&'static Shape>, String>>()?;
            if shapes.is_empty() {
                shapes = SHAPES.iter().collect();
            }
            for shape in shapes {
                let flags = flags.iter().map(String::as_str);
                let arguments = flags.chain(["--table", shape.name]);
                let status = Command::new(std::env::current_exe()?).args(arguments).status()?;
                if !status.success() {
                    return Err(format!("{}: {status}", shape.name).into());
                }
            }
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Shape, String> {
    SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| {
        let names = SHAPES.map(|shape| shape.name).join(", ");
        format!("no shape is named {name}; there are {names}")
    })
}

impl Shape {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "d_model": self.d_model, "heads": self.heads,
            "encoder_layers": self.encoder_layers, "decoder_layers": self.decoder_layers,
            "n_mels": self.n_mels, "vocab_size": self.vocab_size, "n_positions": self.n_positions,
            "batch": self.batch, "n_tokens": self.n_tokens,
        })
    }

    fn config(&self) -> WhisperConfig {
        WhisperConfig {
            d_model: self.d_model,
            encoder_layers: self.encoder_layers,
            encoder_attention_heads: self.heads,
            encoder_ffn_dim: 4 * self.d_model,
            decoder_layers: self.decoder_layers,
            decoder_attention_heads: self.heads,
            decoder_ffn_dim: 4 * self.d_model,
            num_mel_bins: self.n_mels,
            max_source_positions: self.n_positions,
            max_target_positions: 448,
            vocab_size: self.vocab_size,
            scale_embedding: false,
            activation_function: "gelu".to_owned(),
            tie_word_embeddings: true,
            decoder_start_token_id: 2,
            eos_token_id: 1,
            suppress_tokens: None,
            begin_suppress_tokens: None,
            median_filter_width: 7,
            variable_length: false,
        }
    }

    /// Random ids, no special ones.
    fn ids(&self, seed: u32) -> Vec<u32> {
        let ids = noise(self.batch * self.n_tokens, seed).into_iter();
        ids.map(|x| {
            3 + ((x + 1.0) / 2.0 * (self.vocab_size - 3) as f32) as u32 % (self.vocab_size as u32 - 3)
        })
        .collect()
    }
}

fn tensor(shape: impl Into<candle_core::Shape>, seed: u32) -> candle_core::Result<Tensor> {
    let shape = shape.into();
    Tensor::from_vec(noise(shape.elem_count(), seed), shape, &Device::Cpu)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Memory that this process holds (`VmRSS`) or has held at most (`VmHWM`), in MB; nothing where Linux does not tell.
fn memory_mb(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// Medians over the steps.
struct Report {
    step_secs: f64,
    forward_secs: f64,
    backward_secs: f64,
    optimiser_secs: f64,
    /// The peak less what the process held before it built the model.
    memory_mb: Option<f64>,
    loss: f32,
}

impl Report {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "step_secs": self.step_secs, "forward_secs": self.forward_secs,
            "backward_secs": self.backward_secs, "optimiser_secs": self.optimiser_secs,
            "memory_mb": self.memory_mb, "loss": self.loss,
        })
    }
}

fn run(shape: &Shape, checkpointing: bool) -> Result<Report, Error> {
    let started_mb = memory_mb("VmRSS");
    let params = Params::seeded(0, &Device::Cpu).with_checkpointing(checkpointing);
    let model = SpeechModel::load(&params, &Architecture::Whisper(shape.config()))?;
    let decoder = model.decoder()?;
    let mel = tensor((shape.batch, shape.n_mels, 2 * shape.n_positions), 1)?;
    let ids = Tensor::from_vec(shape.ids(2), (shape.batch, shape.n_tokens), &Device::Cpu)?;
    let n = shape.batch * shape.n_tokens;
    let targets = Targets { labels: shape.ids(3), weights: vec![1.0; n], smoothing: 0.0 };
    let vars = params.vars();
    let mut moments = BTreeMap::new();
    for (name, var) in &vars {
        moments.insert(name.clone(), Moments::zeros(var)?);
    }
    let mut times: [Vec<f64>; 4] = Default::default();
    let mut last_loss = f32::NAN;
    let started = Instant::now();
    for step in 1..=MAX_STEPS as u64 + 1 {
        let at = [Instant::now(); 4];
        let encoded = model.encoder.forward(&mel, &|| true)?;
        let logits = decoder.logits(&decoder.forward(&ids, &encoded)?)?;
        let loss = (cross_entropy(&logits, targets.clone())? / targets.weight())?;
        drop((encoded, logits));
        let at = [at[0], Instant::now(), at[2], at[3]];
        let gradients = backward(&loss)?;
        last_loss = loss.to_scalar()?;
        drop(loss);
        let at = [at[0], at[1], Instant::now(), at[3]];
        let mut norm = 0.0;
        for (_, var) in &vars {
            norm += gradients.get(var).map_or(Ok(0.0), squared_norm)?;
        }
        let adamw = AdamW {
            learning_rate: 1e-5,
            step,
            gradient_scale: (1.0 / norm.sqrt()).min(1.0),
            ..AdamW::default()
        };
        for (name, var) in &vars {
            if let (Some(gradient), Some(moments)) = (gradients.get(var), moments.get_mut(name)) {
                adamw_step(var, gradient, moments, &adamw)?;
            }
        }
        drop(gradients);
        let end = Instant::now();
        if step > 1 {
            let spans = [(at[0], end), (at[0], at[1]), (at[1], at[2]), (at[2], end)];
            for (times, (from, to)) in times.iter_mut().zip(spans) {
                times.push((to - from).as_secs_f64());
            }
            if times[0].len() >= MIN_STEPS && started.elapsed() > ENOUGH {
                break;
            }
        }
    }
    let [step_secs, forward_secs, backward_secs, optimiser_secs] = times.map(median);
    let memory_mb = memory_mb("VmHWM").zip(started_mb).map(|(peak, started)| peak - started);
    Ok(Report { step_secs, forward_secs, backward_secs, optimiser_secs, memory_mb, loss: last_loss })
}

/// Seconds that `forward` takes and the gradients of the sum of what it gives.
fn component(forward: impl Fn() -> Result<Tensor, Error>) -> Result<f64, Error> {
    let mut times = Vec::new();
    for _ in 0..4 {
        let started = Instant::now();
        let y = forward()?;
        let forward_secs = started.elapsed().as_secs_f64();
        let loss = y.sum_all()?;
        let started = Instant::now();
        black_box(backward(&loss)?);
        drop((y, loss));
        times.push(forward_secs + started.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

/// Components by name, each as often as the model has it, seconds.
type Components = Vec<(&'static str, f64)>;

fn components(shape: &Shape) -> Result<Components, Error> {
    let (b, d, u, t) = (shape.batch, shape.d_model, shape.n_tokens, shape.n_positions);
    let (encoder, decoder) = (shape.encoder_layers as f64, shape.decoder_layers as f64);
    let params = Params::seeded(0, &Device::Cpu);
    let root = params.root();
    let heard = Var::from_tensor(&tensor((b, t, d), 1)?)?;
    let wide = Var::from_tensor(&tensor((b, t, 4 * d), 1)?)?;
    let said = Var::from_tensor(&tensor((b, u, d), 2)?)?;
    let said_wide = Var::from_tensor(&tensor((b, u, 4 * d), 2)?)?;
    let square = Linear::load(&root.sub("square"), d, d, true)?;
    let up = Linear::load(&root.sub("up"), d, 4 * d, true)?;
    let down = Linear::load(&root.sub("down"), 4 * d, d, true)?;
    let norm = LayerNorm::load(&root.sub("norm"), d, 1e-5)?;
    let attention = MultiHeadAttention::load(&root.sub("attention"), d, shape.heads, Projections::WHISPER)?;
    let conv1 = Conv1d::load(&root.sub("conv1"), shape.n_mels, d, 3, 1, 1)?;
    let conv2 = Conv1d::load(&root.sub("conv2"), d, d, 3, 2, 1)?;
    let embedding = Embedding::load(&root.sub("embedding"), shape.vocab_size, d)?;
    let output = embedding.tied();
    let mel = tensor((b, 2 * t, shape.n_mels), 1)?;
    let conv1_out = Var::from_tensor(&tensor((b, 2 * t, d), 1)?)?;
    let ids = Tensor::from_vec(shape.ids(2), b * u, &Device::Cpu)?;
    let logits = Var::from_tensor(&tensor((b * u, shape.vocab_size), 3)?)?;
    let targets = Targets { labels: shape.ids(3), weights: vec![1.0; b * u], smoothing: 0.0 };
    let squares = component(|| Ok(square.forward(&heard)?))?;
    let said_squares = component(|| Ok(square.forward(&said)?))?;
    let alone = |secs: f64, others: f64| (secs - others).max(0.0);
    let norms = component(|| Ok(norm.forward(&heard)?))?;
    let said_norms = component(|| Ok(norm.forward(&said)?))?;
    // With the norm before it and the residual.
    let itself = component(|| Ok(attention.residual(&norm, &heard, &Mask::NONE)?))?;
    let causal = component(|| Ok(attention.residual(&norm, &said, &Mask::CAUSAL)?))?;
    let across = component(|| Ok(attention.residual_cross(&norm, &said, &heard, &Mask::NONE)?))?;
    Ok(vec![
        ("linear, encoder", 4.0 * encoder * squares),
        ("feed-forward, encoder", {
            encoder * (component(|| Ok(up.forward(&heard)?))? + component(|| Ok(down.forward(&wide)?))?)
        }),
        ("GELU, encoder", encoder * component(|| Ok(activate(Activation::Gelu, &wide)?))?),
        ("layer norm, encoder", (2.0 * encoder + 1.0) * norms),
        ("attention, encoder", encoder * alone(itself, norms + 4.0 * squares)),
        ("convolutions and GELU", {
            component(|| Ok(activate(Activation::Gelu, &conv1.forward(&mel)?)?))?
                + component(|| Ok(activate(Activation::Gelu, &conv2.forward(&conv1_out)?)?))?
        }),
        ("linear, decoder", decoder * (6.0 * said_squares + 2.0 * squares)),
        ("feed-forward, decoder", {
            decoder * (component(|| Ok(up.forward(&said)?))? + component(|| Ok(down.forward(&said_wide)?))?)
        }),
        ("GELU, decoder", decoder * component(|| Ok(activate(Activation::Gelu, &said_wide)?))?),
        ("layer norm, decoder", (3.0 * decoder + 1.0) * said_norms),
        ("attention, decoder", {
            let squares = 2.0 * said_squares + 2.0 * squares;
            decoder * (alone(causal, said_norms + 4.0 * said_squares) + alone(across, said_norms + squares))
        }),
        ("embedding", component(|| Ok(embedding.forward(&ids)?))?),
        ("logits", component(|| Ok(output.forward(&said)?))?),
        ("cross-entropy", component(|| Ok(cross_entropy(&logits, targets.clone())?))?),
    ])
}

fn table(shape: &Shape, checkpointing: bool) -> Result<(), Error> {
    let report = run(shape, checkpointing)?;
    println!(
        "{}: {:.3} s a step (forward {:.3}, backward {:.3}, clip and AdamW {:.3}), {} MB, {} threads",
        shape.name,
        report.step_secs,
        report.forward_secs,
        report.backward_secs,
        report.optimiser_secs,
        report.memory_mb.map_or("?".to_owned(), |memory| format!("{memory:.0}")),
        rayon::current_num_threads()
    );
    let mut rows = components(shape)?;
    rows.push(("clip and AdamW", report.optimiser_secs));
    for (name, secs) in &rows {
        println!("  {name:24} {secs:7.3} s {:5.1} %", 100.0 * secs / report.step_secs);
    }
    let rest = report.step_secs - rows.iter().map(|(_, secs)| secs).sum::<f64>();
    println!("  {:24} {rest:7.3} s {:5.1} %", "the rest", 100.0 * rest / report.step_secs);
    Ok(())
}
