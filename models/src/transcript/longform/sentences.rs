//! Sentences of a window whose words have times but whose text has none: what a subtitle shows.

use crate::Error;
use crate::tokenizer::Tokenizer;
use crate::transcript::segment::Piece;

/// What ends a sentence, in the scripts that end them at all.
const ENDS: &str = ".!?。！？؟۔।…";
/// What may stand behind it and still belong to it.
const CLOSING: &str = "\"'”’»)]}」』";
/// What stands before what it belongs to.
const OPENING: &str = "「『“‘«([{（【《¿¡";
/// Nobody speaks for so long: a sentence ends there too, whatever is written.
const MIN_PAUSE_SECS: f64 = 1.0;

/// Splits text tokens, of which `secs` tell when each begins and ends, seconds from the start of the window, into the
/// sentences that they spell. Pieces are in positions of `position_secs`.
///
/// # Errors
/// What the tokenizer refuses.
pub(super) fn sentences(
    ids: &[u32],
    secs: &[(f64, f64)],
    position_secs: f64,
    tokenizer: &Tokenizer,
    language: Option<&str>,
) -> Result<Vec<Piece>, Error> {
    let words = tokenizer.split_words(ids, language)?;
    let mut pieces = Vec::new();
    let (mut first, mut end) = (0, 0);
    for (i, (_, n_ids)) in words.iter().enumerate() {
        end += n_ids;
        let next = words.get(i + 1).map(|(text, _)| text.as_str());
        let is_last = match next {
            None => true,
            // What stands at a word belongs to it.
            Some(next) if is_mark(next) => false,
            Some(_) => {
                let pause_secs = secs[end].0 - secs[end - 1].1;
                ends_sentence(&words[..=i]) || pause_secs >= MIN_PAUSE_SECS
            }
        };
        if is_last {
            let (start_secs, end_secs) = (secs[first].0, secs[end - 1].1);
            pieces.push(Piece {
                start: start_secs / position_secs,
                // What is heard in no time at all is shown for some.
                end: (end_secs / position_secs).max(start_secs / position_secs + 1.0),
                tokens: first..end,
            });
            first = end;
        }
    }
    Ok(pieces)
}

/// Whether a word is but punctuation of the one before it: an opening mark has its space before it, or is one that opens alone.
pub(super) fn is_mark(text: &str) -> bool {
    let is_of_before = |c: char| !c.is_alphanumeric() && !OPENING.contains(c);
    !text.is_empty() && !text.starts_with(' ') && text.chars().all(is_of_before)
}

/// Whether a sentence ends with the last of some words and the marks at it.
fn ends_sentence(words: &[(String, usize)]) -> bool {
    let last = words.iter().rposition(|(text, _)| !is_mark(text)).unwrap_or(0);
    let text: String = words[last..].iter().map(|(text, _)| text.as_str()).collect();
    text.trim_end_matches(|c: char| c.is_whitespace() || CLOSING.contains(c)).ends_with(|c| ENDS.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bundle;

    fn split(text: &str, language: &str, pause_before: Option<usize>) -> Result<Vec<String>, Error> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let (tokenizer, ..) = Bundle::open(dir.as_ref())?.description().vocabulary()?;
        let ids = tokenizer.encode(text)?;
        let later = |i: usize| if pause_before.is_some_and(|at| i >= at) { 1.5 } else { 0.0 };
        let secs: Vec<_> =
            (0..ids.len()).map(|i| (i as f64 * 0.1 + later(i), (i + 1) as f64 * 0.1 + later(i))).collect();
        let pieces = sentences(&ids, &secs, 0.08, &tokenizer, Some(language))?;
        // None is lost, none is told twice, and each has its times.
        let ends: Vec<_> = pieces.iter().map(|piece| piece.tokens.end).collect();
        assert!(
            pieces.iter().map(|piece| piece.tokens.start).eq([0].into_iter().chain(ends).take(pieces.len()))
        );
        for piece in &pieces {
            assert!(
                (piece.start * 0.08 - secs[piece.tokens.start].0).abs() < 1e-9 && piece.end > piece.start
            );
        }
        pieces.into_iter().map(|piece| tokenizer.decode(&ids[piece.tokens])).collect()
    }

    #[test]
    fn sentences_end_at_their_marks() -> Result<(), Error> {
        assert_eq!(
            split(" He said 3.5. \"Go!\" Who? me", "en", None)?,
            [" He said 3.5.", " \"Go!\"", " Who?", " me"]
        );
        assert_eq!(split(" څنګه یې؟ ښه یم۔ مننه", "ps", None)?, [" څنګه یې؟", " ښه یم۔", " مننه"]);
        assert_eq!(split("你好。再见", "zh", None)?, ["你好。", "再见"]);
        assert_eq!(split("你好。「再见」吗", "zh", None)?, ["你好。", "「再见」吗"]);
        assert_eq!(split("", "en", None)?, [] as [&str; 0]);
        assert_eq!(
            split(" Wait... What?! Fruit, e.g., pears. (Yes.) No", "en", None)?,
            [" Wait...", " What?!", " Fruit, e.g., pears.", " (Yes.)", " No"]
        );
        Ok(())
    }

    #[test]
    fn a_long_pause_ends_one_too() -> Result<(), Error> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let (tokenizer, ..) = Bundle::open(dir.as_ref())?.description().vocabulary()?;
        let n_first = tokenizer.encode(" one two")?.len();
        assert_eq!(split(" one two three", "en", Some(n_first))?, [" one two", " three"]);
        Ok(())
    }
}
