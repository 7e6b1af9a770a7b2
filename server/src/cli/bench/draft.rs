//! What a draft saves: a window written with and without its guesses, token for token.

use audio::Features;
use models::{
    DecodeOptions, Transcriber,
    decode::{Session, WindowRequest},
};
use serde::Serialize;

use super::{middle, parts::greedy_window, seconds_of};

/// A window written greedily, with a draft and without.
#[derive(Debug, Serialize)]
pub(super) struct DraftSpeed {
    pub draft: String,
    pub has_own_encoder: bool,
    pub tokens: usize,
    /// Whether both wrote the same.
    pub is_identical: bool,
    pub steps: usize,
    pub steps_without: usize,
    /// What the draft does to hear the window, and the decoding.
    pub secs: f64,
    pub secs_without: f64,
    /// By guesses from earlier text, as without a draft.
    pub secs_by_lookup: f64,
    /// Beside decoding without any guesses.
    pub times_as_fast: f64,
}

/// Where guesses come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guesses {
    ByDraft,
    ByLookup,
    None,
}

/// Writes the window of `features` whose hidden states are `encoded` `runs` times in each way, in turn; medians.
pub(super) fn measure(
    (transcriber, draft): (&Transcriber, &str),
    features: &Features,
    max_new_tokens: usize,
    runs: u32,
) -> anyhow::Result<Option<DraftSpeed>> {
    let Some(has_own_encoder) = transcriber.draft_has_own_encoder() else { return Ok(None) };
    let encoded = transcriber.encode(features.clone())?;
    let cross = transcriber.listen(&encoded)?;
    let write = |guesses: Guesses| -> anyhow::Result<(usize, Vec<u32>)> {
        let heard = match guesses {
            Guesses::ByDraft => transcriber.listen_by_draft(features.clone(), &encoded),
            Guesses::ByLookup | Guesses::None => None,
        };
        let draft_tokens = if guesses == Guesses::None { 0 } else { DecodeOptions::default().draft_tokens };
        let mut session = transcriber.session()?;
        let request = greedy_window(transcriber, &cross, transcriber.rules(false), max_new_tokens)?;
        session.join(0, WindowRequest { draft: heard, draft_tokens, ..request })?;
        run(&mut session)
    };
    let (mut by_draft, mut without, mut by_lookup) = (Vec::new(), Vec::new(), Vec::new());
    let mut written = (write(Guesses::ByDraft)?, write(Guesses::None)?);
    for _ in 0..runs {
        written.0 = seconds_of(&mut by_draft, || write(Guesses::ByDraft))?;
        written.1 = seconds_of(&mut without, || write(Guesses::None))?;
        seconds_of(&mut by_lookup, || write(Guesses::ByLookup))?;
    }
    let (secs, secs_without, secs_by_lookup) = (middle(by_draft), middle(without), middle(by_lookup));
    let ((steps, tokens), (steps_without, tokens_without)) = written;
    Ok(Some(DraftSpeed {
        draft: draft.to_owned(),
        has_own_encoder,
        tokens: tokens.len(),
        is_identical: tokens == tokens_without,
        steps,
        steps_without,
        secs,
        secs_without,
        secs_by_lookup,
        times_as_fast: secs_without / secs,
    }))
}

/// Steps that a session of one window takes, and what it writes.
fn run(session: &mut Session) -> anyhow::Result<(usize, Vec<u32>)> {
    let (mut n_steps, mut tokens) = (0, Vec::new());
    while !session.is_empty() {
        n_steps += 1;
        for (_, result) in session.step()?.ended {
            tokens = result?.tokens;
        }
    }
    Ok((n_steps, tokens))
}
