//! The step loop: windows of any number of requests decode as one ragged batch, one step at a time. Windows
//! join and leave between steps; what a window decodes to does not depend on its neighbours, nor on when it
//! was its turn. What goes wrong with one window is that window's result.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;

use super::draft::{Draft, Drafting};
use super::fallback::{Thresholds, compression_ratio};
use super::rules::{Rules, check_finite};
use super::search::{Finished, Row, Search, Strategy};
use crate::Error;
use crate::SpecialTokens;
use crate::draft::DraftWindow;
use crate::kernels::{for_each, log_sum_exp, together};
use crate::tokenizer::Tokenizer;
use crate::{CrossCache, Decoder, StepRow};

/// Rows and drafted tokens that are computed together: with more a step takes longer.
const MAX_DRAFTING_ROWS: usize = 8;
/// Tokens that a row may guess at once.
pub const MAX_DRAFT: usize = MAX_DRAFTING_ROWS - 1;

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
    /// What a drafting model ([`Session::with_draft`]) hears, if one is to guess.
    pub draft: Option<Arc<DraftWindow>>,
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
    /// Tokens that greedy attempts may guess in a step; with a drafting model, at first: how many it is right about decides. 0: none.
    pub draft_tokens: usize,
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
    /// Positions of the encoder in which the text is heard, where that is known.
    pub positions: Option<(usize, usize)>,
}

/// What a step brought.
#[derive(Debug, Default)]
pub struct Step {
    /// Rows that were computed together.
    pub n_rows: usize,
    /// Windows that ended: the result of each, or why it has none.
    pub ended: Vec<(u64, Result<WindowResult, Error>)>,
}

/// A window and how far it has come.
struct Window {
    id: u64,
    request: WindowRequest,
    /// Index of the attempt that runs, or that waits to.
    attempt: usize,
    no_speech_prob: Option<f32>,
    rejected: Vec<WindowResult>,
}

/// A window at work.
struct Group {
    window: Window,
    rows: Vec<Row>,
    search: Search,
}

/// What a group's rows are told in a step, and how it goes on.
struct Turn<'a> {
    id: u64,
    group: Option<Group>,
    /// Whether silence is to be judged: its logits at the start of the transcript then come first.
    judges_silence: bool,
    /// Of what may come next, for each row and after each token that it guessed: (rows and guesses, V).
    logits: &'a mut [f32],
    progress: Option<Result<Progress, Error>>,
}

/// How a window goes on after a step.
enum Progress {
    Rows(Group),
    /// With its next attempt.
    Again(Window),
    Done(WindowResult),
}

/// The batch. Weights are shared, all state is in here.
pub struct Session {
    decoder: Arc<Decoder>,
    tokenizer: Arc<Tokenizer>,
    special: Arc<SpecialTokens>,
    draft: Draft,
    max_rows: usize,
    groups: Vec<Group>,
    /// Windows whose next attempt waits for room; who has waited longest stands first.
    waiting: VecDeque<Window>,
    /// Memory for the logits of a step.
    logits: Vec<f32>,
}

impl Session {
    /// An empty batch with room for any number of rows.
    pub fn new(decoder: Arc<Decoder>, tokenizer: Arc<Tokenizer>, special: Arc<SpecialTokens>) -> Self {
        Self {
            decoder,
            tokenizer,
            special,
            draft: Draft::Lookup,
            max_rows: usize::MAX,
            groups: Vec::new(),
            waiting: VecDeque::new(),
            logits: Vec::new(),
        }
    }

    /// Never computes more than `max_rows` together: an attempt waits until there is room for all the rows that it may
    /// have, and nobody passes it by meanwhile. One that needs more than all the room gets it alone.
    #[must_use]
    pub fn limited_to(self, max_rows: usize) -> Self {
        Self { max_rows, ..self }
    }

    /// Lets `decoder`, a smaller one of the same vocabulary, guess what windows with [`WindowRequest::draft`] are going to say.
    #[must_use]
    pub fn with_draft(self, decoder: Arc<Decoder>) -> Self {
        Self { draft: Draft::Model { decoder, logits: Vec::new() }, ..self }
    }

    /// Adds a window; `id` comes back with its result.
    ///
    /// # Errors
    /// A prompt that leaves no room for text, does not hold its start or has a token that the model does not know; no
    /// attempts.
    pub fn join(&mut self, id: u64, mut request: WindowRequest) -> Result<(), Error> {
        let room = self.decoder.max_positions().saturating_sub(request.prompt.len());
        request.max_new_tokens = request.max_new_tokens.min(room);
        if request.max_new_tokens == 0 {
            let message = format!("{} tokens leave no room for text", request.prompt.len());
            return Err(Error::option("prompt", message));
        }
        if request.start_index >= request.prompt.len() {
            return Err(Error::option("prompt", "has no start of transcript"));
        }
        let n_vocab = self.decoder.n_vocab();
        if let Some(unknown) = request.prompt.iter().find(|token| **token as usize >= n_vocab) {
            let message = format!("token {unknown} is not among the model's {n_vocab}");
            return Err(Error::option("prompt", message));
        }
        if request.attempts.is_empty()
            || request.attempts.iter().any(|attempt| attempt.strategy.n_rows() == 0)
        {
            return Err(Error::option("attempts", "need at least one, of at least one row"));
        }
        self.waiting.push_back(Window {
            id,
            request,
            attempt: 0,
            no_speech_prob: None,
            rejected: Vec::new(),
        });
        Ok(())
    }

    /// Drops a window that nobody waits for any more.
    pub fn leave(&mut self, id: u64) {
        self.groups.retain(|group| group.window.id != id);
        self.waiting.retain(|window| window.id != id);
    }

    /// Whether no window is left.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.waiting.is_empty()
    }

    /// Windows in the batch.
    pub fn len(&self) -> usize {
        self.groups.len() + self.waiting.len()
    }

    /// Rows that the windows in the batch may have at once, those of attempts that wait included: a window has one for
    /// each beam or sample.
    pub fn n_rows(&self) -> usize {
        let n_waiting: usize = self.waiting.iter().map(Window::n_rows).sum();
        self.n_reserved_rows() + n_waiting
    }

    /// Rows that the attempts at work may still have.
    fn n_reserved_rows(&self) -> usize {
        self.groups.iter().map(Group::n_reserved_rows).sum()
    }

    /// One token for every row of every window that has room, and as many more as a row guessed right.
    ///
    /// # Errors
    /// When a tensor operation fails that all windows share; the batch is then not usable any more.
    pub fn step(&mut self) -> Result<Step, Error> {
        together(|| self.step_together())
    }

    fn step_together(&mut self) -> Result<Step, Error> {
        let mut ended: Vec<_> =
            self.begin_waiting().into_iter().map(|(id, error)| (id, Err(error))).collect();
        self.guess()?;
        let judging = self.forward()?;
        let groups = std::mem::take(&mut self.groups);
        let n_rows = groups.iter().map(|group| group.rows.len()).sum();
        let mut logits = std::mem::take(&mut self.logits);
        let mut left = logits.as_mut_slice();
        let mut turns = Vec::with_capacity(groups.len());
        for (group, judges_silence) in groups.into_iter().zip(judging) {
            let n = group.rows.iter().map(Row::n_logits).sum::<usize>() + usize::from(judges_silence);
            let (logits, others) = left.split_at_mut(n * self.decoder.n_vocab());
            left = others;
            let id = group.window.id;
            turns.push(Turn { id, group: Some(group), judges_silence, logits, progress: None });
        }
        for_each(&mut turns, |turn| {
            let group = turn.group.take();
            turn.progress = group.map(|group| self.advance(group, turn.judges_silence, turn.logits));
        });
        for Turn { id, progress, .. } in turns {
            match progress {
                Some(Ok(Progress::Rows(group))) => self.groups.push(group),
                Some(Ok(Progress::Again(window))) => self.waiting.push_back(window),
                Some(Ok(Progress::Done(result))) => ended.push((id, Ok(result))),
                Some(Err(error)) => ended.push((id, Err(error))),
                // Every turn was taken.
                None => {}
            }
        }
        self.logits = logits;
        Ok(Step { n_rows, ended })
    }

    /// Begins the attempts that there is room for, in the order in which they came to wait. Says which windows failed.
    fn begin_waiting(&mut self) -> Vec<(u64, Error)> {
        let mut failed = Vec::new();
        while let Some(window) = self.waiting.pop_front() {
            let has_room = self.groups.is_empty()
                || self.n_reserved_rows().saturating_add(window.n_rows()) <= self.max_rows;
            if !has_room {
                self.waiting.push_front(window);
                break;
            }
            let id = window.id;
            match self.begin(window) {
                Ok(group) => self.groups.push(group),
                Err(error) => failed.push((id, error)),
            }
        }
        failed
    }

    /// Lets rows read guesses at what comes next beside what they have to read: as long as there are few, a step takes hardly more
    /// time for them. What the rows decode to is the same.
    fn guess(&mut self) -> Result<(), Error> {
        let n_rows: usize = self.groups.iter().map(|group| group.rows.len()).sum();
        let n_each = MAX_DRAFTING_ROWS.min(self.max_rows).saturating_sub(n_rows) / n_rows.max(1);
        // Rows of any number give the same bits on the CPU alone.
        if n_each == 0 || !self.decoder.device().is_cpu() {
            return Ok(());
        }
        let mut drafting = Vec::new();
        let greedy = |group: &&mut Group| group.window.attempt().strategy == Strategy::Greedy;
        for group in self.groups.iter_mut().filter(greedy) {
            let WindowRequest { prompt, max_new_tokens, draft_tokens, rules, draft, .. } =
                &group.window.request;
            for row in group.rows.iter_mut().filter(|row| !row.tokens.is_empty()) {
                let n_most = n_each.min(max_new_tokens - row.tokens.len() - 1);
                if n_most > 0 && *draft_tokens > 0 {
                    let (heard, n_first, eot) = (draft.as_deref(), *draft_tokens, self.special.end);
                    drafting.push(Drafting { row, prompt, rules, heard, n_first, n_most, eot });
                }
            }
        }
        self.draft.guess(drafting)
    }

    /// Runs the decoder on every row's pending tokens: `logits` are then those of each group, first where silence is to be judged,
    /// then of each row: after the last token that is known, and after each that is guessed. Says where that is.
    fn forward(&mut self) -> Result<Vec<bool>, Error> {
        let (mut steps, mut wanted, mut offset) = (Vec::new(), Vec::new(), 0);
        let mut judging = Vec::with_capacity(self.groups.len());
        for group in &mut self.groups {
            let judges_silence = self.special.no_speech.is_some() && group.awaits_no_speech();
            if judges_silence {
                wanted.push((offset + group.window.request.start_index) as u32);
            }
            judging.push(judges_silence);
            for row in &mut group.rows {
                offset += row.pending.len();
                wanted.extend((offset - row.n_logits()..offset).map(|place| place as u32));
                steps.push(StepRow {
                    tokens: &row.pending,
                    cache: &mut row.cache,
                    cross: &group.window.request.cross,
                });
            }
        }
        if steps.is_empty() {
            return Ok(judging);
        }
        let hidden = self.decoder.step(&mut steps)?; // (N, D)
        let n_wanted = wanted.len();
        let wanted = Tensor::from_vec(wanted, n_wanted, hidden.device())?;
        self.decoder.logits_into(&hidden.index_select(&wanted, 0)?, &mut self.logits)?; // (rows, V)
        Ok(judging)
    }

    /// Gives a group's rows their next tokens, and judges the result when no row goes on.
    fn advance(&self, mut group: Group, judges_silence: bool, logits: &mut [f32]) -> Result<Progress, Error> {
        let n_at_start = if judges_silence { self.decoder.n_vocab() } else { 0 };
        let (at_start, next) = logits.split_at_mut(n_at_start);
        if let (Some(id), true) = (self.special.no_speech, judges_silence) {
            check_finite("logits", at_start)?;
            group.window.no_speech_prob = Some(probability(at_start, id));
        }
        let rows = std::mem::take(&mut group.rows);
        group.rows = group.search.advance(rows, next, &group.window.request.rules)?;
        if group.rows.is_empty() { self.judge(group) } else { Ok(Progress::Rows(group)) }
    }

    /// Accepts the result of a finished search, or asks for the next attempt.
    fn judge(&self, group: Group) -> Result<Progress, Error> {
        let Group { mut window, mut search, .. } = group;
        let result = self.result(search.take_best(), &window)?;
        let thresholds = window.request.thresholds;
        if !thresholds.reject(result.compression_ratio, result.avg_logprob, result.no_speech_prob) {
            return Ok(Progress::Done(result));
        }
        if window.attempt + 1 < window.request.attempts.len() {
            window.rejected.push(result);
            window.attempt += 1;
            return Ok(Progress::Again(window));
        }
        // No attempt was good: the surest that does not repeat itself is the best there is, of equals the first.
        let merit =
            |result: &WindowResult| (!thresholds.is_repetitive(result.compression_ratio), result.avg_logprob);
        let mut best = result;
        for earlier in window.rejected.into_iter().rev() {
            if merit(&earlier) >= merit(&best) {
                best = earlier;
            }
        }
        Ok(Progress::Done(best))
    }

    fn result(&self, finished: Option<Finished>, window: &Window) -> Result<WindowResult, Error> {
        let finished = finished.unwrap_or(Finished {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            rank: f32::NEG_INFINITY,
            reached_limit: false,
        });
        let request = &window.request;
        let n_tokens = finished.tokens.len();
        let avg_logprob = finished.logprobs.iter().sum::<f32>() / (n_tokens + 1) as f32;
        let no_speech_prob = window.no_speech_prob.unwrap_or(0.0);
        let text_limit = request.rules.timestamps.map_or(u32::MAX, |rules| rules.begin);
        let text: Vec<u32> = finished.tokens.iter().copied().filter(|id| *id < text_limit).collect();
        let mut logprobs = finished.logprobs;
        logprobs.truncate(n_tokens);
        Ok(WindowResult {
            compression_ratio: compression_ratio(self.tokenizer.decode(&text)?.trim()),
            tokens: finished.tokens,
            logprobs,
            avg_logprob,
            no_speech_prob,
            temperature: window.attempt().temperature,
            reached_limit: finished.reached_limit,
            is_silence: request.thresholds.is_silence(no_speech_prob, avg_logprob),
            positions: None,
        })
    }

    /// Begins a window's attempt. Until its first step it has one row, which reads the prompt for all.
    fn begin(&self, window: Window) -> Result<Group, Error> {
        let request = &window.request;
        let row = Row {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            score: 0.0,
            pending: request.prompt.clone(),
            n_drafted: 0,
            cache: self.decoder.row_cache(request.prompt.len() + request.max_new_tokens)?,
            draft: None,
            index: 0,
        };
        let seed = request.seed.wrapping_add((window.attempt as u64) << 32);
        let eot = self.special.end;
        let search = Search::new(window.attempt().strategy, eot, request.max_new_tokens, seed);
        Ok(Group { window, rows: vec![row], search })
    }
}

impl Window {
    fn attempt(&self) -> Attempt {
        self.request.attempts[self.attempt]
    }

    /// Rows that its attempt may have.
    fn n_rows(&self) -> usize {
        self.attempt().strategy.n_rows()
    }
}

impl Group {
    /// Whether its rows are still the one that reads the prompt.
    fn is_fresh(&self) -> bool {
        matches!(self.rows.as_slice(), [row] if row.tokens.is_empty())
    }

    /// Whether its prompt is read for the first time: a later attempt hears the same silence.
    fn awaits_no_speech(&self) -> bool {
        self.window.no_speech_prob.is_none() && self.is_fresh()
    }

    /// Rows that it may still have: a sample that ended does not come back, a beam may.
    fn n_reserved_rows(&self) -> usize {
        match self.window.attempt().strategy {
            Strategy::Sample { .. } if !self.is_fresh() => self.rows.len(),
            strategy => strategy.n_rows(),
        }
    }
}

fn probability(logits: &[f32], id: u32) -> f32 {
    logits.get(id as usize).map_or(0.0, |logit| (logit - log_sum_exp(logits)).exp())
}

#[cfg(test)]
mod tests;
