//! How the next tokens of one window's rows are chosen: greedy, beam, sampling. A search sees logits and rows;
//! it knows nothing of the model.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::draft::DraftRow;
use super::rules::{Rules, check_finite};
use crate::Error;
use crate::RowCache;
use crate::kernels::{argmax, largest_of, log_sum_exp};

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// The most probable token each time.
    Greedy,
    /// The `size` most probable prefixes.
    Beam {
        /// Prefixes kept.
        size: usize,
        /// `Some`: openai/whisper's rules, ending after `round(size * patience)` finished hypotheses. `None`:
        /// transformers' (`early_stopping=False`), ending when no prefix can still overtake the worst of `size`
        /// finished ones. They also differ in whether suppressed tokens are left out before normalising, and in
        /// whether the end of text counts in a hypothesis' length.
        patience: Option<f32>,
        /// Hypotheses are ranked by `sum / n^length_penalty`.
        length_penalty: f32,
    },
    /// Draws from the distribution.
    Sample {
        /// Logits are divided by this.
        temperature: f32,
        /// Independent rows, of which the best is kept.
        best_of: usize,
        /// As for beam search.
        length_penalty: f32,
    },
}

impl Strategy {
    /// Rows that decode side by side.
    pub fn n_rows(&self) -> usize {
        match self {
            Self::Greedy => 1,
            Self::Beam { size, .. } => *size,
            Self::Sample { best_of, .. } => *best_of,
        }
    }
}

/// A hypothesis that is still being written.
pub(super) struct Row {
    /// Written after the prompt.
    pub tokens: Vec<u32>,
    /// Log-probability of each token among those allowed there.
    pub logprobs: Vec<f32>,
    /// What the search ranks by: for beams, log-probabilities among all tokens, as transformers sums them.
    pub score: f32,
    /// Tokens that the cache has not seen.
    pub pending: Vec<u32>,
    /// How many of the last of them are only guessed. Each is judged by the logits of the token before it.
    pub n_drafted: usize,
    /// Keys and values of what it has seen.
    pub cache: RowCache,
    /// What a drafting model has read of it.
    pub draft: Option<DraftRow>,
    /// Its number among the rows of its window: a sampled row keeps its random numbers whoever leaves.
    pub index: usize,
}

impl Row {
    /// Positions whose logits are wanted of a step.
    pub fn n_logits(&self) -> usize {
        1 + self.n_drafted
    }
}

/// A hypothesis that has ended.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    /// Without the end of text.
    pub tokens: Vec<u32>,
    /// One per token, and one for the end of text if it was written.
    pub logprobs: Vec<f32>,
    /// Higher is better.
    pub rank: f32,
    /// Whether it ran into the token limit.
    pub reached_limit: bool,
}

/// The state of one search over one window.
pub(super) struct Search {
    strategy: Strategy,
    eot: u32,
    max_new_tokens: usize,
    rngs: Vec<ChaCha8Rng>,
    finished: Vec<Finished>,
}

/// One way to go on.
#[derive(Clone, Copy)]
struct Candidate {
    row: usize,
    token: u32,
    score: f32,
    logprob: f32,
}

impl Search {
    pub fn new(strategy: Strategy, eot: u32, max_new_tokens: usize, seed: u64) -> Self {
        let rng = |row: usize| {
            // Mixed by an odd constant, so that neighbouring seeds and rows share no stream.
            ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(row as u64))
        };
        let rngs = match strategy {
            Strategy::Sample { best_of, .. } => (0..best_of).map(rng).collect(),
            Strategy::Greedy | Strategy::Beam { .. } => Vec::new(),
        };
        Self { strategy, eot, max_new_tokens, rngs, finished: Vec::new() }
    }

    /// Gives every row its next token from its raw logits, and returns the rows that go on. Logits are (rows, V), but a row that
    /// has drafted tokens comes with as many more, those after each of them, and gets as many more tokens as were guessed right.
    ///
    /// # Errors
    /// Logits that are not finite numbers.
    pub fn advance(&mut self, rows: Vec<Row>, logits: &mut [f32], rules: &Rules) -> Result<Vec<Row>, Error> {
        match self.strategy {
            Strategy::Beam { size, patience, length_penalty } => {
                self.advance_beams(rows, logits, rules, size, patience, length_penalty)
            }
            Strategy::Greedy => {
                self.advance_each(rows, logits, rules, 1.0, |_, _, logits| argmax(logits) as u32)
            }
            Strategy::Sample { temperature, best_of, length_penalty } => {
                let choose = |rngs: &mut [ChaCha8Rng], index: usize, logits: &[f32]| {
                    sample(logits, temperature, &mut rngs[index])
                };
                if matches!(rows.as_slice(), [row] if row.tokens.is_empty()) {
                    // One row has read the prompt for all of them.
                    let rows = spread(rows, best_of)?;
                    let mut logits = logits.repeat(best_of);
                    return self.advance_each(rows, &mut logits, rules, length_penalty, choose);
                }
                self.advance_each(rows, logits, rules, length_penalty, choose)
            }
        }
    }

    /// The best hypothesis, once no row goes on.
    pub fn take_best(&mut self) -> Option<Finished> {
        std::mem::take(&mut self.finished)
            .into_iter()
            .reduce(|best, next| if next.rank > best.rank { next } else { best })
    }

    fn advance_each(
        &mut self,
        rows: Vec<Row>,
        logits: &mut [f32],
        rules: &Rules,
        length_penalty: f32,
        choose: impl Fn(&mut [ChaCha8Rng], usize, &[f32]) -> u32,
    ) -> Result<Vec<Row>, Error> {
        let mut going_on = Vec::with_capacity(rows.len());
        let n_ids = n_ids(logits, &rows);
        let mut left = logits;
        'rows: for mut row in rows {
            let (own, others) = std::mem::take(&mut left).split_at_mut(row.n_logits() * n_ids);
            left = others;
            let drafted = row.pending.split_off(row.pending.len() - row.n_drafted);
            // What each drafted token is to be judged by, and what follows the last.
            let judged = drafted.iter().map(Some).chain([None]).zip(own.chunks_exact_mut(n_ids));
            let mut n_read = row.cache.n_positions() - drafted.len();
            row.n_drafted = 0;
            for (guess, logits) in judged {
                // Not those after a wrong guess: nobody asks what follows it.
                check_finite("logits", logits)?;
                rules.apply(&row.tokens, logits);
                let allowed = log_sum_exp(logits);
                if allowed == f32::NEG_INFINITY {
                    // A configuration that suppresses everything: nothing can follow.
                    self.finish(row.tokens, row.logprobs, row.score, length_penalty, false);
                    continue 'rows;
                }
                let token = choose(&mut self.rngs, row.index, logits);
                let logprob = logits[token as usize] - allowed;
                row.logprobs.push(logprob);
                row.score += logprob;
                let ends = token == self.eot;
                if !ends {
                    row.tokens.push(token);
                }
                let reached_limit = row.tokens.len() >= self.max_new_tokens;
                if ends || reached_limit {
                    self.finish(row.tokens, row.logprobs, row.score, length_penalty, !ends);
                    continue 'rows;
                }
                row.pending = vec![token];
                if guess != Some(&token) {
                    break;
                }
                n_read += 1;
            }
            row.cache.truncate(n_read);
            going_on.push(row);
        }
        Ok(going_on)
    }

    fn advance_beams(
        &mut self,
        rows: Vec<Row>,
        logits: &mut [f32],
        rules: &Rules,
        size: usize,
        patience: Option<f32>,
        length_penalty: f32,
    ) -> Result<Vec<Row>, Error> {
        let mut candidates = Vec::with_capacity(2 * size * rows.len());
        for (i, (row, logits)) in rows.iter().zip(logits.chunks_exact_mut(n_ids(logits, &rows))).enumerate() {
            check_finite("logits", logits)?;
            let among_all = log_sum_exp(logits);
            rules.apply(&row.tokens, logits);
            let among_allowed = log_sum_exp(logits);
            // openai/whisper filters before it normalises, transformers after.
            let total = if patience.is_some() { among_allowed } else { among_all };
            candidates.extend(largest(logits, 2 * size).into_iter().map(|token| {
                let logit = logits[token as usize];
                Candidate { row: i, token, score: row.score + logit - total, logprob: logit - among_allowed }
            }));
        }
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(2 * size);
        let n_tokens = rows.first().map_or(0, |row| row.tokens.len()) + 1;
        let at_limit = n_tokens >= self.max_new_tokens;
        let wanted = patience.map_or(size, |patience| (size as f32 * patience).round().max(1.0) as usize);
        let mut going_on: Vec<Candidate> = Vec::with_capacity(size);
        for (place, candidate) in candidates.into_iter().enumerate() {
            let ends = candidate.token == self.eot;
            if ends || (at_limit && patience.is_none()) {
                // transformers counts an end among the `size` best candidates only; openai/whisper whichever comes
                // before the `size` best that go on, and the first ones stay.
                let counts = match patience {
                    None => place < size,
                    Some(_) => going_on.len() < size && self.finished.len() < wanted,
                };
                if counts {
                    self.finish_beam(&rows, candidate, length_penalty);
                }
            } else if going_on.len() < size {
                going_on.push(candidate);
            }
        }
        let complete = if patience.is_some() {
            if at_limit {
                for candidate in going_on.drain(..) {
                    if self.finished.len() < size {
                        self.finish_beam(&rows, candidate, length_penalty);
                    }
                }
            }
            self.finished.len() >= wanted
        } else {
            self.finished.sort_by(|a, b| b.rank.total_cmp(&a.rank));
            self.finished.truncate(size);
            let best_running = going_on.first().map(|best| rank(best.score, n_tokens, length_penalty));
            let worst = self.finished.last().map_or(f32::NEG_INFINITY, |worst| worst.rank);
            self.finished.len() == size && best_running.is_none_or(|best| best <= worst)
        };
        if complete { Ok(Vec::new()) } else { Ok(descend(rows, &going_on)?) }
    }

    /// Ends the hypothesis that `candidate` extends.
    fn finish_beam(&mut self, rows: &[Row], candidate: Candidate, length_penalty: f32) {
        let parent = &rows[candidate.row];
        let ends = candidate.token == self.eot;
        let mut tokens = parent.tokens.clone();
        tokens.extend((!ends).then_some(candidate.token));
        let mut logprobs = parent.logprobs.clone();
        logprobs.push(candidate.logprob);
        self.finish(tokens, logprobs, candidate.score, length_penalty, !ends);
    }

    fn finish(
        &mut self,
        tokens: Vec<u32>,
        logprobs: Vec<f32>,
        score: f32,
        length_penalty: f32,
        reached_limit: bool,
    ) {
        // openai/whisper does not count the end of text, transformers does.
        let counts_end = !matches!(self.strategy, Strategy::Beam { patience: Some(_), .. });
        let n = if counts_end { logprobs.len() } else { tokens.len() };
        let rank = rank(score, n, length_penalty);
        self.finished.push(Finished { tokens, logprobs, rank, reached_limit });
    }
}

fn rank(score: f32, n_tokens: usize, length_penalty: f32) -> f32 {
    score / (n_tokens.max(1) as f32).powf(length_penalty)
}

/// The rows that `chosen` leads to. The first child takes its parent's cache, further ones copy it.
fn descend(rows: Vec<Row>, chosen: &[Candidate]) -> candle_core::Result<Vec<Row>> {
    let mut caches: Vec<Option<RowCache>> = Vec::with_capacity(rows.len());
    let mut parents = Vec::with_capacity(rows.len());
    for row in rows {
        caches.push(Some(row.cache));
        parents.push((row.tokens, row.logprobs));
    }
    let mut children = Vec::with_capacity(chosen.len());
    for (index, candidate) in chosen.iter().enumerate() {
        let is_last_child = chosen[index + 1..].iter().all(|other| other.row != candidate.row);
        let slot = &mut caches[candidate.row];
        let cache =
            if is_last_child { slot.take() } else { slot.as_ref().map(RowCache::fork).transpose()? };
        let Some(cache) = cache else { candle_core::bail!("beam search lost a cache") };
        let (tokens, logprobs) = &parents[candidate.row];
        children.push(Row {
            tokens: [tokens.as_slice(), &[candidate.token]].concat(),
            logprobs: [logprobs.as_slice(), &[candidate.logprob]].concat(),
            score: candidate.score,
            pending: vec![candidate.token],
            n_drafted: 0,
            cache,
            draft: None,
            index,
        });
    }
    Ok(children)
}

/// V.
fn n_ids(logits: &[f32], rows: &[Row]) -> usize {
    let n: usize = rows.iter().map(Row::n_logits).sum();
    (logits.len() / n.max(1)).max(1)
}

/// `n` rows that go on from where one is.
fn spread(mut rows: Vec<Row>, n: usize) -> candle_core::Result<Vec<Row>> {
    for index in 1..n {
        let cache = rows[0].cache.fork()?;
        rows.push(Row {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            score: 0.0,
            pending: Vec::new(),
            n_drafted: 0,
            cache,
            draft: None,
            index,
        });
    }
    Ok(rows)
}

/// The `n` largest finite logits, largest first, earlier ids first among equals.
pub(super) fn largest(logits: &[f32], n: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(n + 1);
    for (id, logit) in logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY) {
        if best.len() == n && best.last().is_some_and(|last| *logit <= logits[*last as usize]) {
            continue;
        }
        let place = best.partition_point(|other| logits[*other as usize] >= *logit);
        best.insert(place, id as u32);
        best.truncate(n);
    }
    best
}

fn sample(logits: &[f32], temperature: f32, rng: &mut ChaCha8Rng) -> u32 {
    let max = largest_of(logits);
    let weight = |logit: &f32| f64::from(((logit - max) / temperature).exp());
    let total: f64 = logits.iter().map(weight).sum();
    let mut left = total * (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    for (id, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left <= 0.0 {
            return id as u32;
        }
    }
    argmax(logits) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logits_in_order() {
        let logits = [0.5, f32::NEG_INFINITY, 2.0, 1.0, 2.0, -3.0];
        assert_eq!(largest(&logits, 3), [2, 4, 3]);
        assert_eq!(largest(&logits, 9), [2, 4, 3, 0, 5]);
        assert_eq!(argmax(&logits), 2);
    }

    #[test]
    fn samples_follow_the_distribution_at_its_temperature() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let logits = [0.0, 1.0, f32::NEG_INFINITY, 2.0];
        let temperature = 0.5;
        let mut counts = [0f64; 4];
        let n = 20_000;
        for _ in 0..n {
            counts[sample(&logits, temperature, &mut rng) as usize] += 1.0;
        }
        let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / 0.5).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let expected = weight / total;
            assert!((count / f64::from(n) - expected).abs() < 0.01, "{counts:?}");
        }
        assert_eq!(counts[2], 0.0);
    }
}
