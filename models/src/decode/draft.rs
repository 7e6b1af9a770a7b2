//! Guesses at what comes next. A step that reads guesses beside the token that they follow computes what as many steps would; those
//! that were right need no step of their own, and what comes out is what plain decoding writes.
//!
//! They come from a smaller model that hears the same window (speculative decoding, Leviathan et al. 2023; Distil-Whisper section 4)
//! or, where there is none, from what was there before: names, and the pieces of words that a vocabulary has no token for, come
//! again (prompt lookup: <https://github.com/apoorvumang/prompt-lookup-decoding>).

use std::sync::Arc;

use candle_core::Tensor;

use super::rules::Rules;
use super::search::Row;
use crate::draft::DraftWindow;
use crate::kernels::argmax;
use crate::{CrossCache, Decoder, Error, RowCache, StepRow};

/// Tokens that must have come before in the same order: after one alone anything may follow.
const MIN_SEEN: usize = 2;
/// Longer than this, what came last is as good a guide as what came before it.
const MAX_SEEN: usize = 6;
/// A model whose guesses were all right guesses so many more the next time; otherwise one less (transformers'
/// `num_assistant_tokens_schedule`).
const MORE: usize = 2;

/// A row of one window, and what there is to guess by.
pub(super) struct Drafting<'a> {
    pub row: &'a mut Row,
    pub prompt: &'a [u32],
    pub rules: &'a Rules,
    /// What the drafting model hears of the window, where there is one.
    pub heard: Option<&'a DraftWindow>,
    /// Tokens that a row guesses at first.
    pub n_first: usize,
    /// Tokens that it may guess at most, at least one.
    pub n_most: usize,
    pub eot: u32,
}

/// What a drafting model knows of a row.
pub(super) struct DraftRow {
    cache: RowCache,
    /// The tokens in it.
    read: Vec<u32>,
    /// Its last guesses, which follow so many tokens of prompt and row.
    guesses: Vec<u32>,
    n_before: usize,
    /// Guesses to make next.
    n_next: usize,
}

/// What guesses.
pub(super) enum Draft {
    /// What was there before.
    Lookup,
    /// A smaller decoder of the same vocabulary.
    Model {
        /// Its weights.
        decoder: Arc<Decoder>,
        /// Memory for the logits of a step.
        logits: Vec<f32>,
    },
}

impl Draft {
    /// Adds guesses to what rows have to read.
    ///
    /// # Errors
    /// When a tensor operation of the drafting model fails.
    pub fn guess(&mut self, rows: Vec<Drafting<'_>>) -> Result<(), Error> {
        let (mut by_model, mut others) = (Vec::new(), Vec::new());
        for row in rows {
            match (&*self, row.heard) {
                (Self::Model { .. }, Some(heard)) => by_model.push((row, heard.cross()?)),
                _ => others.push(row),
            }
        }
        for Drafting { row, prompt, n_first, n_most, .. } in others {
            let read = [prompt, &row.tokens].concat();
            add(row, lookup(&read, n_first.min(n_most)));
        }
        if let Self::Model { decoder, logits } = self {
            guess_by_model(decoder, logits, by_model)?;
        }
        Ok(())
    }
}

/// A row while a model guesses for it.
struct Guessing<'a> {
    drafting: Drafting<'a>,
    heard: &'a CrossCache,
    state: DraftRow,
    /// What the row has written, guesses included.
    tokens: Vec<u32>,
    /// What the model has not read yet.
    unread: Vec<u32>,
    n_left: usize,
}

fn guess_by_model(
    decoder: &Decoder,
    logits: &mut Vec<f32>,
    rows: Vec<(Drafting<'_>, &CrossCache)>,
) -> candle_core::Result<()> {
    let mut guessing = Vec::with_capacity(rows.len());
    for (drafting, heard) in rows {
        let (prompt, row) = (drafting.prompt, &mut *drafting.row);
        let n_read = prompt.len() + row.tokens.len();
        let mut state = match row.draft.take() {
            Some(state) => state,
            None => DraftRow {
                cache: decoder.row_cache(decoder.max_positions())?,
                read: Vec::new(),
                guesses: Vec::new(),
                n_before: 0,
                n_next: drafting.n_first,
            },
        };
        let known = [prompt, &row.tokens].concat();
        if !state.guesses.is_empty() {
            let all = known[state.n_before..].starts_with(&state.guesses);
            state.n_next = if all { state.n_next + MORE } else { state.n_next - 1 };
            state.n_next = state.n_next.clamp(1, super::MAX_DRAFT);
        }
        // Wrong guesses are forgotten, and the last token is always read: it says what comes next.
        let n_common = state.read.iter().zip(&known[..n_read - 1]).take_while(|(a, b)| a == b).count();
        state.read.truncate(n_common);
        state.cache.truncate(n_common);
        let unread = known[n_common..].to_vec();
        let n_left = state.n_next.min(drafting.n_most).min(decoder.max_positions().saturating_sub(n_read));
        let tokens = row.tokens.clone();
        guessing.push(Guessing { drafting, heard, state, tokens, unread, n_left });
    }
    let n_vocab = decoder.n_vocab();
    loop {
        let mut active: Vec<_> = guessing.iter_mut().filter(|row| row.n_left > 0).collect();
        if active.is_empty() {
            break;
        }
        let mut last = Vec::with_capacity(active.len());
        let mut n_read = 0u32;
        let mut steps = Vec::with_capacity(active.len());
        for Guessing { heard, state, unread, .. } in active.iter_mut().map(|row| &mut **row) {
            state.read.extend_from_slice(unread);
            n_read += unread.len() as u32;
            last.push(n_read - 1);
            steps.push(StepRow { tokens: unread, cache: &mut state.cache, cross: heard });
        }
        let hidden = decoder.step(&mut steps)?; // (N, D)
        let n_rows = last.len();
        let last = Tensor::from_vec(last, n_rows, hidden.device())?;
        decoder.logits_into(&hidden.index_select(&last, 0)?, logits)?; // (rows, V)
        for (row, logits) in active.into_iter().zip(logits.chunks_exact_mut(n_vocab)) {
            // As the row itself will be judged: the same rules after the same tokens.
            row.drafting.rules.apply(&row.tokens, logits);
            let token = argmax(logits) as u32;
            row.unread.clear();
            row.n_left -= 1;
            // Nothing follows an end. What cannot be compared is no guess either.
            if token == row.drafting.eot || !logits[token as usize].is_finite() {
                row.n_left = 0;
            } else {
                row.tokens.push(token);
                row.unread.push(token);
            }
        }
    }
    for Guessing { drafting, mut state, tokens, .. } in guessing {
        let row = drafting.row;
        let guesses = tokens[row.tokens.len()..].to_vec();
        add(row, &guesses);
        (state.guesses, state.n_before) = (guesses, drafting.prompt.len() + row.tokens.len());
        row.draft = Some(state);
    }
    Ok(())
}

fn add(row: &mut Row, guesses: &[u32]) {
    row.n_drafted = guesses.len();
    row.pending.extend(guesses);
}

/// At most `n` tokens that followed where the end of `tokens` was read before: the longest end, and of equals the last place.
fn lookup(tokens: &[u32], n: usize) -> &[u32] {
    for n_seen in (MIN_SEEN..=MAX_SEEN.min(tokens.len().saturating_sub(1))).rev() {
        let (before, end) = (&tokens[..tokens.len() - 1], &tokens[tokens.len() - n_seen..]);
        if let Some(place) = before.windows(n_seen).rposition(|seen| seen == end) {
            let next = &tokens[place + n_seen..];
            return &next[..n.min(next.len())];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_end_last_is_guessed() {
        assert_eq!(lookup(&[1, 2, 3, 9, 2, 3, 4, 5, 1, 2, 3], 3), [9, 2, 3]);
        assert_eq!(lookup(&[1, 2, 3, 1, 2, 4, 7, 1, 2], 2), [4, 7]);
        assert_eq!(lookup(&[1, 2, 3, 1, 2, 4, 7, 1, 2], 9), [4, 7, 1, 2]);
        assert_eq!(lookup(&[5, 5, 5, 5], 3), [5]);
        for none in [&[][..], &[1], &[1, 1], &[1, 2, 3, 2], &[1, 2, 3, 4]] {
            assert_eq!(lookup(none, 3), [0u32; 0], "{none:?}");
        }
        assert_eq!(lookup(&[1, 2, 1, 2], 0), [0u32; 0]);
    }
}
