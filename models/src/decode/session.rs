//! The step loop: windows of any number of requests decode as one ragged batch, one step at a time. Windows
//! join and leave between steps; what a window decodes to does not depend on its neighbours.

use std::sync::Arc;

use candle_core::Tensor;

use super::fallback::{Thresholds, compression_ratio};
use super::rules::{Rules, log_sum_exp};
use super::search::{Finished, Row, Search, Strategy};
use crate::Error;
use crate::tokenizer::Tokenizer;
use crate::whisper::{CrossCache, StepRow, Whisper};

/// One way to decode a window; the next one is tried when its result is rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attempt {
    /// Reported with the result.
    pub temperature: f32,
    /// How to search.
    pub strategy: Strategy,
}

/// A window to decode.
pub struct WindowRequest {
    /// What was heard.
    pub cross: Arc<CrossCache>,
    /// All tokens before the first that is decoded.
    pub prompt: Vec<u32>,
    /// Place of the start-of-transcript token in `prompt`: silence is judged there.
    pub start_index: usize,
    /// What may be written.
    pub rules: Arc<Rules>,
    /// Tried in order until a result is accepted. At least one.
    pub attempts: Vec<Attempt>,
    /// When a result is accepted.
    pub thresholds: Thresholds,
    /// Limit of tokens, end of text not counted.
    pub max_new_tokens: usize,
    /// Seed of the sampling attempts.
    pub seed: u64,
}

/// What a window decoded to.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowResult {
    /// Written tokens, without the end of text.
    pub tokens: Vec<u32>,
    /// Log-probability of each token among those allowed there.
    pub logprobs: Vec<f32>,
    /// Mean over the tokens and the end of text.
    pub avg_logprob: f32,
    /// Bytes of text over compressed bytes.
    pub compression_ratio: f32,
    /// Probability that nobody speaks.
    pub no_speech_prob: f32,
    /// Temperature of the accepted attempt.
    pub temperature: f32,
    /// Whether the token limit cut it short.
    pub reached_limit: bool,
    /// Whether the window is taken for silence: the tokens are then not to be used.
    pub is_silence: bool,
}

/// A window in the batch.
struct Group {
    id: u64,
    request: WindowRequest,
    /// Index of the attempt that runs.
    attempt: usize,
    rows: Vec<Row>,
    search: Search,
    no_speech_prob: Option<f32>,
    rejected: Vec<WindowResult>,
}

/// The batch. Weights are shared, all state is in here.
pub struct Session {
    model: Arc<Whisper>,
    tokenizer: Arc<Tokenizer>,
    no_speech: Option<u32>,
    groups: Vec<Group>,
}

impl Session {
    /// An empty batch. `no_speech` is the token whose probability at the start means silence.
    pub fn new(model: Arc<Whisper>, tokenizer: Arc<Tokenizer>, no_speech: Option<u32>) -> Self {
        Self { model, tokenizer, no_speech, groups: Vec::new() }
    }

    /// Adds a window; `id` comes back with its result.
    ///
    /// # Errors
    /// A prompt that leaves no room for text or does not hold its start; no attempts.
    pub fn join(&mut self, id: u64, mut request: WindowRequest) -> Result<(), Error> {
        let room = self.model.config.max_target_positions.saturating_sub(request.prompt.len());
        request.max_new_tokens = request.max_new_tokens.min(room);
        if request.max_new_tokens == 0 {
            let message = format!("{} tokens leave no room for text", request.prompt.len());
            return Err(Error::option("prompt", message));
        }
        if request.start_index >= request.prompt.len() {
            return Err(Error::option("prompt", "has no start of transcript"));
        }
        if request.attempts.is_empty()
            || request.attempts.iter().any(|attempt| attempt.strategy.n_rows() == 0)
        {
            return Err(Error::option("attempts", "need at least one, of at least one row"));
        }
        let (rows, search) = self.begin(&request, 0)?;
        self.groups.push(Group {
            id,
            request,
            attempt: 0,
            rows,
            search,
            no_speech_prob: None,
            rejected: Vec::new(),
        });
        Ok(())
    }

    /// Drops a window that nobody waits for any more.
    pub fn leave(&mut self, id: u64) {
        self.groups.retain(|group| group.id != id);
    }

    /// Whether no window is left.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Windows in the batch.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Rows in the batch: a window has one for each beam or sample.
    pub fn n_rows(&self) -> usize {
        self.groups.iter().map(|group| group.rows.len()).sum()
    }

    /// One token for every row of every window. Returns the windows that are done.
    ///
    /// # Errors
    /// When a tensor operation fails; the batch is then not usable any more.
    pub fn step(&mut self) -> Result<Vec<(u64, WindowResult)>, Error> {
        let mut logits = self.forward()?.into_iter();
        let mut done = Vec::new();
        for mut group in std::mem::take(&mut self.groups) {
            if let Some(id) = self.no_speech.filter(|_| group.awaits_no_speech()) {
                group.no_speech_prob = logits.next().map(|at_start| probability(&at_start, id));
            }
            let row_logits: Vec<_> = logits.by_ref().take(group.rows.len()).collect();
            let rows = std::mem::take(&mut group.rows);
            group.rows = group.search.advance(rows, row_logits, &group.request.rules)?;
            if !group.rows.is_empty() {
                self.groups.push(group);
            } else if let Some(result) = self.judge(&mut group)? {
                done.push((group.id, result));
            } else {
                self.groups.push(group);
            }
        }
        Ok(done)
    }

    /// Runs the decoder on every row's pending tokens. Per group: the logits at the start token if silence is to be
    /// judged, then each row's next-token logits.
    fn forward(&mut self) -> Result<Vec<Vec<f32>>, Error> {
        let (mut steps, mut wanted, mut offset) = (Vec::new(), Vec::new(), 0);
        for group in &mut self.groups {
            if self.no_speech.is_some() && group.awaits_no_speech() {
                wanted.push((offset + group.request.start_index) as u32);
            }
            for row in &mut group.rows {
                offset += row.pending.len();
                wanted.push((offset - 1) as u32);
                steps.push(StepRow {
                    tokens: &row.pending,
                    cache: &mut row.cache,
                    cross: &group.request.cross,
                });
            }
        }
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.model.decoder.step(&mut steps)?; // (N, D)
        let n_wanted = wanted.len();
        let wanted = Tensor::from_vec(wanted, n_wanted, hidden.device())?;
        let logits = self.model.decoder.logits(&hidden.index_select(&wanted, 0)?)?; // (rows, V)
        Ok(logits.to_vec2::<f32>()?)
    }

    /// Accepts the result of a finished search, or begins the next attempt and returns nothing.
    fn judge(&self, group: &mut Group) -> Result<Option<WindowResult>, Error> {
        let finished = group.search.take_best();
        let result = self.result(finished, group)?;
        let request = &group.request;
        let rejected =
            request.thresholds.reject(result.compression_ratio, result.avg_logprob, result.no_speech_prob);
        if !rejected {
            return Ok(Some(result));
        }
        group.rejected.push(result);
        if group.attempt + 1 < request.attempts.len() {
            group.attempt += 1;
            (group.rows, group.search) = self.begin(request, group.attempt)?;
            return Ok(None);
        }
        // No attempt was good: the surest that does not repeat itself is the best there is.
        let thresholds = request.thresholds;
        let merit =
            |result: &WindowResult| (!thresholds.is_repetitive(result.compression_ratio), result.avg_logprob);
        let best = std::mem::take(&mut group.rejected).into_iter().reduce(|a, b| {
            let ((a_varied, a_sure), (b_varied, b_sure)) = (merit(&a), merit(&b));
            if (b_varied, b_sure) > (a_varied, a_sure) { b } else { a }
        });
        Ok(best)
    }

    fn result(&self, finished: Option<Finished>, group: &Group) -> Result<WindowResult, Error> {
        let finished = finished.unwrap_or(Finished {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            rank: f32::NEG_INFINITY,
            reached_limit: false,
        });
        let n_tokens = finished.tokens.len();
        let avg_logprob = finished.logprobs.iter().sum::<f32>() / (n_tokens + 1) as f32;
        let no_speech_prob = group.no_speech_prob.unwrap_or(0.0);
        let text_limit = group.request.rules.timestamps.map_or(u32::MAX, |rules| rules.begin);
        let text: Vec<u32> = finished.tokens.iter().copied().filter(|id| *id < text_limit).collect();
        let mut logprobs = finished.logprobs;
        logprobs.truncate(n_tokens);
        Ok(WindowResult {
            compression_ratio: compression_ratio(self.tokenizer.decode(&text)?.trim()),
            tokens: finished.tokens,
            logprobs,
            avg_logprob,
            no_speech_prob,
            temperature: group.request.attempts[group.attempt].temperature,
            reached_limit: finished.reached_limit,
            is_silence: group.request.thresholds.is_silence(no_speech_prob, avg_logprob),
        })
    }

    fn begin(&self, request: &WindowRequest, attempt: usize) -> Result<(Vec<Row>, Search), Error> {
        let capacity = request.prompt.len() + request.max_new_tokens;
        let row = Row {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            score: 0.0,
            pending: request.prompt.clone(),
            cache: self.model.decoder.row_cache(capacity)?,
            index: 0,
        };
        let seed = request.seed.wrapping_add((attempt as u64) << 32);
        let strategy = request.attempts[attempt].strategy;
        let search = Search::new(strategy, self.model.config.eos_token_id, request.max_new_tokens, seed);
        Ok((vec![row], search))
    }
}

impl Group {
    /// Whether its prompt is read for the first time: a later attempt hears the same silence.
    fn awaits_no_speech(&self) -> bool {
        self.no_speech_prob.is_none() && matches!(self.rows.as_slice(), [row] if row.tokens.is_empty())
    }
}

fn probability(logits: &[f32], id: u32) -> f32 {
    logits.get(id as usize).map_or(0.0, |logit| (logit - log_sum_exp(logits)).exp())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{Bundle, Transcriber};

    const OFF: Thresholds = Thresholds { compression_ratio: None, logprob: None, no_speech: None };
    const PROMPT: [u32; 4] = [301, 308, 311, 315];

    fn transcriber() -> Result<Transcriber, Error> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        Transcriber::load(Bundle::open(dir.as_ref())?, &Device::Cpu)
    }

    fn request(transcriber: &Transcriber, strategy: Strategy) -> Result<WindowRequest, Error> {
        let encoded = transcriber.encode(transcriber.window_features(&[]))?;
        Ok(WindowRequest {
            cross: transcriber.listen(&encoded)?,
            prompt: PROMPT.to_vec(),
            start_index: 0,
            rules: Arc::new(transcriber.rules(false)),
            attempts: vec![Attempt { temperature: 0.0, strategy }],
            thresholds: OFF,
            max_new_tokens: 20,
            seed: 1,
        })
    }

    /// What a step costs, without a clock: each row brings the one token that its cache has not seen, whatever
    /// it has written so far, so that decoding is linear in tokens.
    #[test]
    fn a_step_computes_one_position_per_row() -> Result<(), Error> {
        let transcriber = transcriber()?;
        let mut session = transcriber.session();
        let strategies = [
            Strategy::Greedy,
            Strategy::Beam { size: 3, patience: None, length_penalty: 1.0 },
            Strategy::Sample { temperature: 1.0, best_of: 2, length_penalty: 1.0 },
        ];
        for (id, strategy) in strategies.into_iter().enumerate() {
            session.join(id as u64, request(&transcriber, strategy)?)?;
        }
        // The prompt is computed once per window, not once per row.
        let n_first: usize =
            session.groups.iter().flat_map(|group| &group.rows).map(|row| row.pending.len()).sum();
        assert_eq!(n_first, 3 * PROMPT.len());
        session.step()?;
        let mut n_steps = 1;
        while !session.is_empty() {
            for group in &session.groups {
                assert_eq!(group.rows.len(), group.request.attempts[0].strategy.n_rows());
                for row in &group.rows {
                    assert_eq!(row.pending, row.tokens[n_steps - 1..], "only what the cache has not seen");
                    assert_eq!(row.cache.n_positions(), PROMPT.len() + n_steps - 1);
                }
            }
            session.step()?;
            n_steps += 1;
        }
        assert!(n_steps <= 20, "{n_steps} steps for 20 tokens");
        Ok(())
    }

    #[test]
    fn windows_that_cannot_be_decoded_are_refused_when_they_join() -> Result<(), Error> {
        let transcriber = transcriber()?;
        let mut session = transcriber.session();
        let usual = || request(&transcriber, Strategy::Greedy);
        let beams = |size| Strategy::Beam { size, patience: None, length_penalty: 1.0 };
        for (what, broken) in [
            ("too long a prompt", WindowRequest { prompt: vec![301; 448], ..usual()? }),
            ("no prompt", WindowRequest { prompt: Vec::new(), ..usual()? }),
            ("a start after the prompt", WindowRequest { start_index: 4, ..usual()? }),
            ("no attempts", WindowRequest { attempts: Vec::new(), ..usual()? }),
            ("no room", WindowRequest { max_new_tokens: 0, ..usual()? }),
            ("no beams", request(&transcriber, beams(0))?),
        ] {
            assert!(matches!(session.join(7, broken), Err(Error::Option { .. })), "{what}");
        }
        assert!(session.is_empty() && session.step()?.is_empty());
        // The last prompt that leaves room for one token.
        session.join(7, WindowRequest { prompt: vec![301; 447], ..usual()? })?;
        let done = session.step()?;
        assert!(matches!(done.as_slice(), [(7, result)] if result.reached_limit && result.tokens.len() == 1));
        Ok(())
    }
}
