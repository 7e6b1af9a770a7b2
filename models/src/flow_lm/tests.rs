//! The Transformer in its two ways, and flows whose results are known.

use audio::{FeatureSpec, LogKind};
use candle_core::{Device, Var};

use super::*;
use crate::nn::test_support::{assert_close, noise};

fn config() -> FlowLmConfig {
    FlowLmConfig {
        feature_spec: FeatureSpec { log: LogKind::Ln { floor: 1e-3 }, ..FeatureSpec::vocoder(16_000, 4) },
        mel_mean: vec![0.5; 4],
        mel_std: vec![2.0; 4],
        patch_frames: 2,
        unit: SymbolUnit::Characters,
        symbols: [" ", "a", "b", "c"].map(str::to_owned).to_vec(),
        languages: vec!["en".to_owned()],
        voices: Vec::new(),
        max_text_positions: 20,
        max_patches: 30,
        max_prompt_patches: 10,
        max_advance: 3,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        num_text_layers: 1,
        head_hidden_size: 12,
        num_head_layers: 2,
        aligner_size: 6,
        flow_map: false,
        sampling: Sampling::default(),
        vocoder: None,
    }
}

/// A model whose weights are all drawn, those that begin with nothing, too.
fn model(params: &Params) -> Result<FlowLm, Error> {
    let model = FlowLm::load(params, &config(), true)?;
    for (seed, (_, var)) in (100u32..).zip(params.vars()) {
        var.set(&(var.as_tensor() + (noise(var.shape(), seed)? * 0.2)?)?)?;
    }
    Ok(model)
}

const TEXTS: [&[u32]; 3] = [&[4, 1, 2, 0, 3, 4], &[4, 3, 4], &[4, 4]];
const POINTERS: [&[u32]; 3] = [&[0, 0, 2, 3, 5], &[0, 1], &[1, 1, 1]];
const N_PROMPT: [usize; 3] = [2, 3, 0];

fn sequences() -> Vec<Sequence<'static>> {
    (0..3).map(|i| Sequence { text: TEXTS[i], n_prompt: N_PROMPT[i], pointers: POINTERS[i] }).collect()
}

#[test]
fn what_is_beside_a_sequence_changes_nothing() -> Result<(), Error> {
    let params = Params::seeded(1, &Device::Cpu);
    let model = model(&params)?;
    let (prompts, said) = (noise((5, 8), 1)?, noise((10, 8), 2)?);
    let together = model.backbone.states(&sequences(), Some(&prompts), &said)?;
    let (mut prompt_at, mut at) = (0, 0);
    for sequence in sequences() {
        let (n_prompt, n) = (sequence.n_prompt, sequence.pointers.len());
        let prompt = prompts.narrow(0, prompt_at, n_prompt)?;
        let alone = model.backbone.states(
            &[sequence],
            Some(&prompt).filter(|_| n_prompt > 0),
            &said.narrow(0, at, n)?,
        )?;
        assert_close(&alone, &together.narrow(0, at, n)?, 1e-5)?;
        (prompt_at, at) = (prompt_at + n_prompt, at + n);
    }
    // What is said now or later is not seen.
    let mut values = said.flatten_all()?.to_vec1::<f32>()?;
    values[3 * 8..5 * 8].fill(9.0);
    let other = Tensor::from_vec(values, (10, 8), &Device::Cpu)?;
    let changed = model.backbone.states(&sequences(), Some(&prompts), &other)?;
    assert_close(&changed.narrow(0, 0, 4)?, &together.narrow(0, 0, 4)?, 0.0)?;
    assert!((changed.get(4)? - together.get(4)?)?.abs()?.sum_all()?.to_scalar::<f32>()? > 1e-3);
    assert_close(&changed.narrow(0, 5, 5)?, &together.narrow(0, 5, 5)?, 0.0).map_err(Error::from)
}

#[test]
fn steps_with_caches_give_what_whole_sequences_give() -> Result<(), Error> {
    let params = Params::seeded(1, &Device::Cpu);
    let backbone = &model(&params)?.backbone;
    let live = FlowLm::load(&params.detached(), &config(), false)?.backbone;
    let (prompts, said) = (noise((5, 8), 1)?, noise((10, 8), 2)?);
    let whole = backbone.states(&sequences(), Some(&prompts), &said)?;
    let (mut caches, mut texts, mut prefixes, mut prompt_at) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for sequence in sequences() {
        let prompt = prompts.narrow(0, prompt_at, sequence.n_prompt)?;
        prompt_at += sequence.n_prompt;
        let text = live.text(sequence.text)?;
        prefixes.push(live.prefix(Some(&prompt).filter(|_| sequence.n_prompt > 0), &text)?);
        caches.push(live.cache(20, &Device::Cpu)?);
        texts.push(text);
    }
    let n_new: Vec<usize> = prefixes.iter().map(|x| x.dim(0)).collect::<Result<_, _>>()?;
    let steps = caches.iter_mut().zip(&n_new).map(|(cache, n_new)| SequenceStep { n_new: *n_new, cache });
    live.step(&Tensor::cat(&prefixes, 0)?, &mut steps.collect::<Vec<_>>())?;
    let starts = [0, 5, 7];
    let longest = POINTERS.iter().map(|pointers| pointers.len()).max().unwrap_or(0);
    let steps: Vec<usize> = (0..longest).collect();
    for i in steps {
        // Rows leave when they have said all.
        let rows: Vec<usize> = (0..3).filter(|row| i < POINTERS[*row].len()).collect();
        let before: Vec<Tensor> = rows
            .iter()
            .map(|row| said.get((starts[*row] + i).saturating_sub(1)))
            .collect::<Result<_, _>>()?;
        let symbols: Vec<Tensor> =
            rows.iter().map(|row| texts[*row].get(POINTERS[*row][i] as usize)).collect::<Result<_, _>>()?;
        let x = live.speech(
            &Tensor::stack(&before, 0)?,
            &vec![i == 0; rows.len()],
            &Tensor::stack(&symbols, 0)?,
        )?;
        let steps = caches.iter_mut().enumerate().filter(|(row, _)| rows.contains(row));
        let mut steps: Vec<_> = steps.map(|(_, cache)| SequenceStep { n_new: 1, cache }).collect();
        let states = live.step(&x, &mut steps)?;
        for (place, row) in rows.iter().enumerate() {
            assert_close(&states.get(place)?, &whole.get(starts[*row] + i)?, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn every_parameter_learns() -> Result<(), Error> {
    let params = Params::seeded(1, &Device::Cpu);
    let model = model(&params)?;
    let states = model.backbone.states(&sequences(), Some(&noise((5, 8), 1)?), &noise((10, 8), 2)?)?;
    let (x, times) = (noise((10, 8), 3)?, [0.1f32, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]);
    let velocity = model.head.velocity(&x, [&times, &times], &model.head.condition(&states)?)?;
    let texts: Vec<Vec<u32>> = TEXTS.iter().map(|text| text.to_vec()).collect();
    let aligner = model.aligner.as_ref().expect("an aligner");
    let n_frames = [8, 5, 3];
    let scores = aligner.scores(&noise((3, 8, 4), 4)?, &n_frames, &texts)?;
    let Continuation { ends, advances } = model.continuation(&states, &noise((10, 8), 9)?)?;
    let parts = [
        (velocity * noise((10, 8), 5)?)?.sum_all()?,
        (ends * noise(10, 6)?)?.sum_all()?,
        (advances * noise((10, 4), 7)?)?.sum_all()?,
        Aligner::loss(&scores, &n_frames, &texts, &[1.0; 3])?,
    ];
    let loss = parts.into_iter().reduce(|a, b| (a + b).expect("a sum")).expect("parts");
    let gradients = crate::nn::backward(&loss)?;
    for (name, var) in params.vars() {
        let gradient = gradients.get(&var).map(|g| g.abs()?.sum_all()?.to_scalar::<f32>()).transpose()?;
        assert!(gradient.is_some_and(|sum| sum > 0.0), "{name}: {gradient:?}");
    }
    Ok(())
}

#[test]
fn sums_over_ways_are_those_of_brute_force() -> Result<(), Error> {
    // Four frames, two positions, and none, which nobody says.
    let scores = (noise((1, 4, 2), 8)? * 2.0)?;
    let nothing = Tensor::full(-1e9f32, (1, 4, 1), &Device::Cpu)?;
    let loss = Aligner::loss(&Tensor::cat(&[&scores, &nothing], 2)?, &[4], &[vec![0, 0]], &[1.0])?;
    let loss = loss.to_scalar::<f32>()?;
    let rows = scores.squeeze(0)?.to_vec2::<f32>()?;
    let ways = (1..4).map(|n| (0..4).map(|frame| rows[frame][usize::from(frame >= n)]).sum::<f32>().exp());
    let sum: f32 = ways.sum();
    assert!((loss + sum.ln()).abs() < 1e-4, "{loss} {}", -sum.ln());
    // Of three positions two frames say none.
    let scores = noise((1, 2, 4), 9)?;
    assert_eq!(Aligner::loss(&scores, &[2], &[vec![0; 3]], &[1.0])?.to_scalar::<f32>()?, 0.0);
    Ok(())
}

/// The velocity of the way from N(0, 1) to N(mean, std^2): methods, 2.3.
fn gaussian(x: &Tensor, t: f32, mean: f64, std: f64) -> candle_core::Result<Tensor> {
    let (t, variance) = (f64::from(t), std * std);
    let slope = (t * variance - (1.0 - t)) / ((1.0 - t).powi(2) + t * t * variance);
    ((x - t * mean)? * slope)? + mean
}

fn spread(x: &Tensor) -> candle_core::Result<f64> {
    let x = x.flatten_all()?.to_vec1::<f32>()?;
    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / x.len() as f64;
    Ok((x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
}

#[test]
fn solvers_lose_of_a_gaussian_what_is_known() -> Result<(), Error> {
    let mut values = vec![0f32; 20_000];
    Noise::new(1).fill_normal(1.0, &mut values);
    let noise = Tensor::from_vec(values, (20_000, 1), &Device::Cpu)?;
    let unit = spread(&noise)?;
    let share = |solver, n_steps| -> Result<f64, Error> {
        Ok(spread(&integrate(&noise, solver, n_steps, |x, from, _| gaussian(x, from, 0.0, 1.0))?)? / unit)
    };
    for (n_steps, expected) in [(1, 0.0), (2, 0.5), (4, 0.72), (8, 0.851), (16, 0.923), (32, 0.961)] {
        let share = share(Solver::Euler, n_steps)?;
        assert!((share - expected).abs() < 2e-3, "{n_steps}: {share}");
    }
    for (n_steps, expected) in [(1, 1.0), (4, 0.998)] {
        let share = share(Solver::Midpoint, n_steps)?;
        assert!((share - expected).abs() < 2e-3, "{n_steps}: {share}");
    }
    // The mean velocity over a step is exact, whatever the step: X(x) = t mean + sqrt(V_t / V_s) (x - s mean).
    let (mean, std) = (0.7, 0.5);
    let variance = |t: f64| (1.0 - t).powi(2) + t * t * std * std;
    for n_steps in [1, 3] {
        let said = integrate(&noise, Solver::FlowMap, n_steps, |x, from, to| {
            let (from, to) = (f64::from(from), f64::from(to));
            let there = (((x - from * mean)? * (variance(to) / variance(from)).sqrt())? + to * mean)?;
            (there - x)? / (to - from)
        })?;
        let average = said.mean_all()?.to_scalar::<f32>()?;
        assert!((spread(&said)? / unit - std).abs() < 1e-3 && (f64::from(average) - mean).abs() < 0.01);
    }
    Ok(())
}

#[test]
fn guidance_is_linear_and_one_is_none() -> Result<(), Error> {
    let (told, nobody) = (noise((3, 4), 1)?, noise((3, 4), 2)?);
    assert_close(&guided(&told, &nobody, 1.0)?, &told, 1e-6)?;
    assert_close(&guided(&told, &nobody, 0.0)?, &nobody, 0.0)?;
    let middle = ((guided(&told, &nobody, 1.0)? + guided(&told, &nobody, 3.0)?)? * 0.5)?;
    Ok(assert_close(&guided(&told, &nobody, 2.0)?, &middle, 1e-6)?)
}

#[test]
fn patches_hold_frames_in_order_and_are_restored() {
    let config = FlowLmConfig { mel_mean: vec![0.5, 0.5, 0.5, 1.5], ..config() };
    let data: Vec<f32> = (0..20).map(|i| i as f32).collect(); // (F 4, T 5)
    let features = audio::Features { data, n_mels: 4, n_frames: 5 };
    let patches = config.patches(&features, 1..4);
    let of = |value: f32| (value - 0.5) / 2.0;
    let last = |value: f32| (value - 1.5) / 2.0;
    let quiet = 1e-3f32.ln();
    let frame = |t: f32| [of(t), of(5.0 + t), of(10.0 + t), last(15.0 + t)];
    let silent = [of(quiet), of(quiet), of(quiet), last(quiet)];
    assert_eq!(patches, [frame(1.0), frame(2.0), frame(3.0), silent].concat());
    let restored = config.features(&config.patches(&features, 0..5));
    assert_eq!((restored.n_mels, restored.n_frames), (4, 6));
    for bin in 0..4 {
        let (restored, row) = (restored.row(bin), features.row(bin));
        assert!(restored.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!((restored[5] - quiet).abs() < 1e-5);
    }
}

#[test]
fn configurations_that_make_no_sense_are_refused_by_key() {
    let path = std::path::Path::new("config.json");
    assert!(config().check(path).is_ok());
    for (key, config) in [
        ("patch_frames", FlowLmConfig { patch_frames: 0, ..config() }),
        ("num_attention_heads", FlowLmConfig { num_attention_heads: 3, ..config() }),
        ("mel_mean", FlowLmConfig { mel_mean: vec![0.0; 3], ..config() }),
        ("mel_std", FlowLmConfig { mel_std: vec![1.0, 1.0, 0.0, 1.0], ..config() }),
        ("mel_std", FlowLmConfig { mel_std: vec![1.0, 1.0, f32::NAN, 1.0], ..config() }),
        ("voices", FlowLmConfig { voices: vec!["../a".to_owned()], ..config() }),
        ("symbols", FlowLmConfig { symbols: Vec::new(), ..config() }),
        ("hidden_size", FlowLmConfig { hidden_size: 1 << 30, ..config() }),
        ("max_text_positions", FlowLmConfig { max_text_positions: 2, ..config() }),
        ("max_patches", FlowLmConfig { max_patches: 1 << 14, hidden_size: 1 << 13, ..config() }),
        (
            "feature_spec.log",
            FlowLmConfig {
                feature_spec: FeatureSpec { log: LogKind::Log10 { floor: 1e-3 }, ..config().feature_spec },
                ..config()
            },
        ),
    ] {
        let message = config.check(path).expect_err(key).to_string();
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
    }
}

#[test]
fn texts_are_spelled_in_what_is_known_and_nothing_is_passed_over_in_silence() -> Result<(), Error> {
    let symbols = Symbols::new(&config());
    assert_eq!(symbols.encode(" A\u{301}b  C! ")?, [4, 1, 2, 0, 3, 4]);
    assert_eq!(symbols.encode("")?, [4, 4]);
    // What parts words does so, apostrophes and joiners do not.
    assert_eq!(symbols.encode("-a-b/ c\u{b7}.")?, [4, 1, 0, 2, 0, 3, 4]);
    assert_eq!(symbols.encode("a'b\u{200c}c\u{2019}")?, [4, 1, 2, 3, 4]);
    for (text, unknown) in [("abd", "`d`"), ("a1", "`1`"), ("سلام", "`س`")] {
        let message = symbols.encode(text).expect_err(text).to_string();
        assert!(message.contains(unknown), "{message}");
    }
    let phonemes = FlowLmConfig {
        unit: SymbolUnit::Phonemes,
        symbols: Symbols::of_texts(SymbolUnit::Phonemes, ["t ʃ a", "a t"]),
        ..config()
    };
    assert_eq!(Symbols::new(&phonemes).encode("t a ʃ")?, [3, 1, 0, 2, 3]);
    assert!(Symbols::new(&phonemes).encode("t b").is_err());
    assert_eq!(Symbols::of_texts(SymbolUnit::Characters, ["Ba", "a c"]), [" ", "a", "b", "c"]);
    Ok(())
}

#[test]
fn both_times_count() -> Result<(), Error> {
    let params = Params::seeded(2, &Device::Cpu);
    let model = model(&params)?;
    let x = Var::from_tensor(&noise((2, 8), 1)?)?;
    let condition = model.head.condition(&noise((2, 16), 2)?)?;
    let at = |from: f32, to: f32| model.head.velocity(&x, [&[from; 2], &[to; 2]], &condition);
    assert!((at(0.1, 0.5)? - at(0.1, 0.9)?)?.abs()?.sum_all()?.to_scalar::<f32>()? > 1e-4);
    assert!((at(0.1, 0.5)? - at(0.3, 0.5)?)?.abs()?.sum_all()?.to_scalar::<f32>()? > 1e-4);
    Ok(())
}

/// `tests/oracle/flow_lm.py`.
#[test]
fn a_vocoder_is_torchs() -> Result<(), Error> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    let source = std::path::Path::new(fixtures).join("flow-lm").as_path().into();
    let config = FlowLmConfig::read(&source)?.vocoder.expect("a vocoder");
    let known = candle_core::safetensors::load(format!("{fixtures}/flow-lm.safetensors"), &Device::Cpu)?;
    let params = Params::frozen(crate::Weights::from_source(&source)?, &Device::Cpu);
    let vocoder = crate::vocos::Vocos::load(&params.root().sub("vocoder"), &config)?;
    assert_close(&vocoder.forward(&known["features"])?, &known["sound"], 1e-4).map_err(Error::from)
}

/// `tests/oracle/flow_lm.py`.
#[test]
fn states_velocities_and_gradients_are_torchs() -> Result<(), Error> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    let source = std::path::Path::new(fixtures).join("flow-lm").as_path().into();
    let config = FlowLmConfig::read(&source)?;
    let known = candle_core::safetensors::load(format!("{fixtures}/flow-lm.safetensors"), &Device::Cpu)?;
    let params = Params::trainable(crate::Weights::from_source(&source)?, &Device::Cpu);
    let model = FlowLm::load(&params, &config, true)?;
    let edge = config.edge();
    let texts = [vec![edge, 12, 13, 0, 14, edge], vec![edge, 20, edge], vec![edge, edge]];
    let sequences: Vec<Sequence<'_>> =
        (0..3).map(|i| Sequence { text: &texts[i], n_prompt: N_PROMPT[i], pointers: POINTERS[i] }).collect();
    let states = model.backbone.states(&sequences, Some(&known["prompts"]), &known["said"])?;
    let times = known["times"].to_vec2::<f32>()?;
    let condition = model.head.condition(&states)?;
    let velocity = model.head.velocity(&known["noise"], [&times[0], &times[1]], &condition)?;
    let n_frames = [17, 8, 9];
    let Some(aligner) = &model.aligner else { unreachable!("an aligner") };
    let scores = aligner.scores(&known["mels"], &n_frames, &texts)?;
    let alignment = Aligner::loss(&scores, &n_frames, &texts, &[1.0; 3])?;
    assert_close(&alignment.reshape(1)?, &known["alignment"], 1e-3)?;
    let Continuation { ends, advances } = model.continuation(&states, &known["said"])?;
    let mut loss = alignment;
    for (name, output) in
        [("states", states.clone()), ("velocity", velocity), ("ends", ends), ("advances", advances)]
    {
        assert_close(&output, &known[name], 5e-5)?;
        loss = (loss + (output * &known[&format!("direction.{name}")])?.sum_all()?)?;
    }
    let gradients = crate::nn::backward(&loss)?;
    let vars = params.vars();
    assert_eq!(vars.len(), known.keys().filter(|name| name.starts_with("gradient.")).count());
    for (name, var) in vars {
        let expected = &known[&format!("gradient.{name}")];
        let largest = expected.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        let Some(gradient) = gradients.get(&var) else { unreachable!("{name} has no gradient") };
        let worst = (gradient - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(worst <= 2e-4 * largest.max(1.0), "{name}: off by {worst} of {largest}");
    }
    Ok(())
}

#[test]
fn a_model_learns_to_read_more_and_keeps_what_it_knows() -> Result<(), Error> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/flow-lm");
    let source = std::path::Path::new(fixtures).into();
    let before = VoiceBundle::open(&source)?;
    let config = before.config.clone();
    let table = |bundle: VoiceBundle| -> Result<Vec<Vec<f32>>, Error> {
        let n = bundle.config.symbols.len() + 1;
        let weights = bundle.into_weights();
        Ok(weights.read("text_encoder.embed_tokens.weight", &[n, 16], &Device::Cpu)?.to_vec2()?)
    };
    let symbols = ["a", "ß", "ç"].map(str::to_owned);
    let after = VoiceBundle::open(&source)?.reading(&symbols, "de");
    assert_eq!(after.config.symbols.len(), config.symbols.len() + 2);
    assert_eq!((after.config.languages.len(), &*after.config.languages[2]), (3, "de"));
    let (before, after) = (table(before)?, table(after)?);
    let n = config.symbols.len();
    assert_eq!(after[..n], before[..n]);
    assert_eq!(after[n + 2], before[n]);
    for (column, value) in after[n].iter().enumerate() {
        let mean = before[..n].iter().map(|row| row[column]).sum::<f32>() / n as f32;
        assert!((value - mean).abs() < 1e-5 && after[n + 1][column] == *value);
    }
    // What it knows all of stays as it is.
    let same = VoiceBundle::open(&source)?.reading(&symbols[..1], "ps");
    assert_eq!(same.config, config);
    let vocoder = AttachedVocoder::open(&source, &Device::Cpu)?;
    assert!(vocoder.is_some_and(|vocoder| vocoder.tensors.keys().all(|name| name.starts_with("vocoder."))));
    Ok(())
}
