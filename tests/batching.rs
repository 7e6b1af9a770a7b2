//! What a row computes does not depend, to the bit, on the rows beside it; nor on how its tokens are cut into steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use models::Transcriber;
use models::decode::{Attempt, Strategy, Thresholds, WindowRequest, WindowResult};
use models::{CrossCache, StepRow};

use crate::parity::{BUNDLES, features};
use crate::support::{difference, fixture, json, numbers, transcriber};

#[test]
fn steps_with_a_cache_equal_the_whole_sequence() -> Result<()> {
    let transcriber = transcriber(&fixture("whisper-80"))?;
    let decoder = transcriber.model().decoder()?;
    let architecture = transcriber.architecture();
    let encoded = transcriber.encode(features(1, architecture.n_mels(), architecture.window_frames()))?;
    let cross = transcriber.listen(&encoded)?;
    let ids = [301u32, 308, 311, 315, 40, 258, 17, 270, 75];
    let whole = decoder
        .forward(&Tensor::new(&ids, &Device::Cpu)?.unsqueeze(0)?, &encoded.unsqueeze(0)?)?
        .squeeze(0)?;
    let mut cache = decoder.row_cache(ids.len())?;
    let mut steps = Vec::new();
    for tokens in [&ids[..4], &ids[4..5], &ids[5..8], &ids[8..]] {
        steps.push(decoder.step(&mut [StepRow { tokens, cache: &mut cache, cross: &cross }])?);
    }
    let worst = difference(&Tensor::cat(&steps, 0)?, &whole)?;
    ensure!(worst < 1e-5, "{worst}");
    Ok(())
}

fn bits(values: &Tensor) -> Result<Vec<u32>> {
    Ok(values.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn hidden_states_and_logits_of_unequal_rows_in_one_batch_equal_each_alone() -> Result<()> {
    for name in BUNDLES {
        let stage = Stage::open(name)?;
        let decoder = stage.transcriber.model().decoder()?;
        let texts: [&[u32]; 4] =
            [&[301, 40, 258], &[17], &[301, 75, 270, 9, 33, 128, 64, 5, 300, 12, 7, 81, 256], &[88, 260]];
        // In one batch, and each in a batch of its own; then two steps of one token more.
        let mut together = Vec::new();
        let mut alone = vec![Vec::new(); texts.len()];
        let new_caches =
            || texts.iter().map(|text| decoder.row_cache(text.len() + 2)).collect::<Result<Vec<_>, _>>();
        let (mut caches, mut lone_caches) = (new_caches()?, new_caches()?);
        let singles: Vec<[u32; 1]> = (0..texts.len() as u32).map(|row| [20 + row]).collect();
        for step in 0..3 {
            let tokens = |row: usize| if step == 0 { texts[row] } else { &singles[row] };
            let cross = |row: usize| &*stage.listened[row % stage.listened.len()];
            let mut rows: Vec<_> = caches
                .iter_mut()
                .enumerate()
                .map(|(row, cache)| StepRow { tokens: tokens(row), cache, cross: cross(row) })
                .collect();
            let hidden = decoder.step(&mut rows)?;
            together.push((bits(&hidden)?, bits(&decoder.logits(&hidden)?)?));
            for (row, cache) in lone_caches.iter_mut().enumerate() {
                let hidden =
                    decoder.step(&mut [StepRow { tokens: tokens(row), cache, cross: cross(row) }])?;
                alone[row].push((bits(&hidden)?, bits(&decoder.logits(&hidden)?)?));
            }
        }
        for (step, (hidden, logits)) in together.into_iter().enumerate() {
            let rows = || alone.iter().map(|steps| &steps[step]);
            ensure!(
                hidden == rows().flat_map(|row| row.0.clone()).collect::<Vec<_>>(),
                "{name}: states, step {step}"
            );
            ensure!(
                logits == rows().flat_map(|row| row.1.clone()).collect::<Vec<_>>(),
                "{name}: logits, step {step}"
            );
        }
    }
    Ok(())
}

#[test]
fn windows_encoded_in_one_batch_equal_each_alone() -> Result<()> {
    let transcriber = transcriber(&fixture("whisper-80"))?;
    let encoder = &transcriber.model().encoder;
    let clips = (0..3)
        .map(|clip| Ok(Tensor::from_vec(features(clip, 80, 3000).data, (80, 3000), &Device::Cpu)?))
        .collect::<Result<Vec<_>>>()?;
    let together = encoder.forward(&Tensor::stack(&clips, 0)?, &|| true)?;
    for (clip, features) in clips.iter().enumerate() {
        let alone = encoder.forward(&features.unsqueeze(0)?, &|| true)?;
        ensure!(bits(&together.get(clip)?)? == bits(&alone)?, "clip {clip}");
    }
    Ok(())
}

const OFF: Thresholds = Thresholds { compression_ratio: None, logprob: None, no_speech: None };

/// A bundle, what it hears in its three clips, and prompts for it.
struct Stage {
    transcriber: Transcriber,
    listened: Vec<Arc<CrossCache>>,
    prompt: Vec<u32>,
    /// With text before it, and for timestamps.
    long_prompt: Vec<u32>,
}

impl Stage {
    fn open(name: &str) -> Result<Self> {
        let transcriber = transcriber(&fixture(name))?;
        let architecture = transcriber.architecture();
        let (n_mels, n_frames) = (architecture.n_mels(), architecture.window_frames());
        let listened = (0..3)
            .map(|clip| Ok(transcriber.listen(&transcriber.encode(features(clip, n_mels, n_frames))?)?))
            .collect::<Result<_>>()?;
        let expected = json(&fixture(name).join("expected.json"))?;
        let prompt = numbers(&expected["greedy"][0]["prompt"]);
        let long_prompt = numbers(&expected["greedy_timestamps"][1]["prompt"]);
        Ok(Self { transcriber, listened, prompt, long_prompt })
    }

    fn request(&self, clip: usize, strategy: Strategy) -> WindowRequest {
        WindowRequest {
            cross: self.listened[clip].clone(),
            draft: None,
            prompt: self.prompt.clone(),
            start_index: 0,
            rules: Arc::new(self.transcriber.rules(false)),
            attempts: vec![Attempt { temperature: 0.0, strategy }],
            thresholds: OFF,
            max_new_tokens: 24,
            // Steps are counted, and alone they would be fewer.
            draft_tokens: 0,
            seed: 5 + clip as u64,
        }
    }

    /// A different request for each id: clip, prompt, search and rules vary.
    fn mixed(&self, id: u64) -> Result<WindowRequest> {
        let strategies = [
            Strategy::Greedy,
            beam(3, None),
            Strategy::Sample { temperature: 0.8, best_of: 3, length_penalty: 1.0 },
            beam(2, Some(1.5)),
        ];
        let clip = id as usize % 3;
        let mut request = self.request(clip, strategies[id as usize % 4]);
        if id % 2 == 1 {
            request.prompt = self.long_prompt.clone();
            let start = self.transcriber.special_tokens().start;
            request.start_index =
                request.prompt.iter().position(|token| *token == start).context("a start token")?;
            request.rules = Arc::new(self.transcriber.rules(true));
        }
        request.max_new_tokens = 10 + 3 * id as usize;
        Ok(request)
    }

    /// The result, and after how many steps it came.
    fn alone(&self, request: WindowRequest) -> Result<(WindowResult, usize)> {
        let mut session = self.transcriber.session()?;
        session.join(0, request)?;
        for n_steps in 1.. {
            if let Some((_, result)) = session.step()?.ended.pop() {
                return Ok((result?, n_steps));
            }
        }
        unreachable!("the loop has no end")
    }
}

/// To the bit.
fn ensure_same(id: u64, ours: &WindowResult, alone: &WindowResult) -> Result<()> {
    let figures = |result: &WindowResult| {
        let WindowResult { avg_logprob, compression_ratio, no_speech_prob, temperature, .. } = *result;
        [&result.logprobs, [avg_logprob, compression_ratio, no_speech_prob, temperature].as_slice()]
            .concat()
            .into_iter()
            .map(f32::to_bits)
            .collect::<Vec<_>>()
    };
    ensure!(ours == alone && figures(ours) == figures(alone), "{id}: {ours:?}, alone {alone:?}");
    Ok(())
}

fn beam(size: usize, patience: Option<f32>) -> Strategy {
    Strategy::Beam { size, patience, length_penalty: 1.0 }
}

#[test]
fn greedy_beam_and_sampled_rows_in_one_batch_equal_each_alone() -> Result<()> {
    for name in BUNDLES {
        let stage = Stage::open(name)?;
        let mut session = stage.transcriber.session()?;
        for id in 0..8 {
            session.join(id, stage.mixed(id)?)?;
        }
        let mut n_steps = 0;
        while !session.is_empty() {
            n_steps += 1;
            for (id, result) in session.step()?.ended {
                let result = result?;
                let (alone, n_alone) = stage.alone(stage.mixed(id)?)?;
                ensure_same(id, &result, &alone).context(name)?;
                ensure!(n_steps == n_alone, "{name} {id}: {n_steps} steps, alone {n_alone}");
            }
        }
    }
    Ok(())
}

#[test]
fn windows_join_and_leave_between_steps_without_a_trace() -> Result<()> {
    let stage = Stage::open("whisper-80")?;
    let mut session = stage.transcriber.session()?;
    let mut results = BTreeMap::new();
    for id in 0..4 {
        session.join(id, stage.mixed(id)?)?;
    }
    for step in 0.. {
        match step {
            // One from the middle, one with several rows, one that came late, one that is not there.
            2 => session.leave(0),
            5 => {
                session.leave(1);
                session.join(4, stage.mixed(4)?)?;
                session.join(5, stage.mixed(5)?)?;
            }
            6 => session.join(6, stage.mixed(6)?)?,
            7 => session.leave(4),
            8 => session.leave(99),
            _ => {}
        }
        for (id, result) in session.step()?.ended {
            results.insert(id, result?);
        }
        if session.is_empty() {
            break;
        }
    }
    ensure!(results.keys().copied().collect::<Vec<_>>() == [2, 3, 5, 6], "{:?}", results.keys());
    for (id, result) in results {
        let (alone, _) = stage.alone(stage.mixed(id)?)?;
        ensure_same(id, &result, &alone)?;
    }
    Ok(())
}

#[test]
fn a_rejected_window_walks_the_ladder_and_its_neighbours_do_not_notice() -> Result<()> {
    let stage = Stage::open("whisper-80")?;
    let (greedy, n_greedy) = stage.alone(stage.request(0, Strategy::Greedy))?;
    let (searched, n_searched) = stage.alone(stage.request(0, beam(5, None)))?;
    ensure!(searched.avg_logprob > greedy.avg_logprob + 0.02, "{searched:?} {greedy:?}");
    let between = f32::midpoint(greedy.avg_logprob, searched.avg_logprob);
    let ladder = || {
        let mut request = stage.request(0, Strategy::Greedy);
        request.thresholds.logprob = Some(between);
        let attempt = |temperature, strategy| Attempt { temperature, strategy };
        request.attempts = vec![
            attempt(0.0, Strategy::Greedy),
            attempt(0.2, Strategy::Greedy),
            attempt(0.4, beam(5, None)),
            attempt(0.6, Strategy::Greedy),
        ];
        request
    };
    // Two attempts are too unsure, the third is accepted, the fourth never runs.
    let (accepted, n_steps) = stage.alone(ladder())?;
    ensure!(accepted.temperature == 0.4 && accepted.tokens == searched.tokens, "{accepted:?}");
    ensure!(n_steps == 2 * n_greedy + n_searched, "{n_steps} steps");
    // Beside others: the same, and only the rejected window is decoded again.
    let mut session = stage.transcriber.session()?;
    session.join(10, stage.request(1, Strategy::Greedy))?;
    session.join(11, ladder())?;
    session.join(12, stage.request(2, beam(3, None)))?;
    let mut ended = BTreeMap::new();
    for n_steps in 1.. {
        for (id, result) in session.step()?.ended {
            ended.insert(id, (result?, n_steps));
        }
        if session.is_empty() {
            break;
        }
    }
    for (id, (alone, n_alone)) in [
        (10, stage.alone(stage.request(1, Strategy::Greedy))?),
        (11, (accepted, n_steps)),
        (12, stage.alone(stage.request(2, beam(3, None)))?),
    ] {
        let (result, n_steps) = &ended[&id];
        ensure_same(id, result, &alone)?;
        ensure!(*n_steps == n_alone, "{id}: {n_steps} steps, alone {n_alone}");
    }
    Ok(())
}

#[test]
fn when_every_attempt_is_rejected_the_surest_is_kept_with_its_temperature() -> Result<()> {
    let stage = Stage::open("whisper-80")?;
    let sample = |temperature| Strategy::Sample { temperature, best_of: 2, length_penalty: 1.0 };
    let request = || {
        let mut request = stage.request(1, Strategy::Greedy);
        request.thresholds.logprob = Some(-0.01);
        request.attempts = vec![
            Attempt { temperature: 0.9, strategy: sample(0.9) },
            Attempt { temperature: 0.0, strategy: Strategy::Greedy },
            Attempt { temperature: 1.0, strategy: sample(1.0) },
        ];
        request
    };
    let (kept, _) = stage.alone(request())?;
    let (greedy, _) = stage.alone(stage.request(1, Strategy::Greedy))?;
    ensure!(kept.avg_logprob >= greedy.avg_logprob, "{kept:?}, {greedy:?}");
    ensure!(kept.temperature != 0.0 || kept.tokens == greedy.tokens, "{kept:?}, {greedy:?}");
    // A sure text that repeats itself is worse than an unsure one that does not.
    let mut strict = request();
    strict.thresholds.compression_ratio = Some(f32::midpoint(0.0, greedy.compression_ratio));
    ensure!(stage.alone(strict)?.0.tokens == kept.tokens, "all repeat themselves: the surest stays");
    Ok(())
}

#[test]
fn a_silent_window_is_not_decoded_again() -> Result<()> {
    let stage = Stage::open("whisper-80")?;
    let (greedy, n_greedy) = stage.alone(stage.request(0, Strategy::Greedy))?;
    let mut request = stage.request(0, Strategy::Greedy);
    request.thresholds = Thresholds {
        compression_ratio: None,
        logprob: Some(greedy.avg_logprob + 0.1),
        no_speech: Some(greedy.no_speech_prob / 2.0),
    };
    request.attempts.push(Attempt { temperature: 1.0, strategy: beam(2, None) });
    let (silent, n_steps) = stage.alone(request)?;
    ensure!(silent.is_silence && silent.temperature == 0.0 && n_steps == n_greedy, "{silent:?}");
    Ok(())
}
