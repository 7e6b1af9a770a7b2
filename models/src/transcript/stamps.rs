//! Words that a decoder timed as it wrote them: a time before each and one after it (NeMo's Canary, whose tokens
//! [`WordTimes`] are).

use crate::{SpecialTokens, WordTimes};

/// When each of the text tokens among `tokens` begins and ends, seconds from the start of a window of `window_secs`: all tokens between
/// two times have these. A decoder is free to write anything: a time that is left out is the nearest that is known, and none
/// goes back.
pub(super) fn stamped(
    tokens: &[u32],
    times: WordTimes,
    special: &SpecialTokens,
    window_secs: f64,
) -> Vec<(f64, f64)> {
    let mut stamped = Vec::new();
    let (mut latest, mut n_open) = (0.0, 0);
    for id in tokens {
        match times.secs(*id) {
            Some(secs) => {
                let secs = secs.clamp(latest, window_secs.max(latest));
                close(&mut stamped, n_open, secs);
                (latest, n_open) = (secs, 0);
            }
            None if special.is_text(*id) => {
                stamped.push((latest, latest));
                n_open += 1;
            }
            None => {}
        }
    }
    close(&mut stamped, n_open, window_secs.max(latest));
    stamped
}

/// Ends the last `n_open` tokens at `secs`.
fn close(stamped: &mut [(f64, f64)], n_open: usize, secs: f64) {
    stamped.iter_mut().rev().take(n_open).for_each(|token| token.1 = secs);
}

#[cfg(test)]
mod tests {
    use crate::Error;
    use crate::special_tokens::canary_of_times;

    #[test]
    fn tokens_have_the_times_around_them() -> Result<(), Error> {
        let (tokenizer, special) = canary_of_times()?;
        let times = special.word_times().ok_or(Error::Cancelled)?;
        let at = |position: usize| tokenizer.special(&position.to_string()).unwrap_or_default();
        let [a, b, c] = ["a", "b", "c"].map(|text| tokenizer.encode(text).unwrap_or_default()[0]);
        let stamped = |tokens: &[u32]| -> Vec<(f64, f64)> {
            let round = |secs: f64| (secs * 1e6).round() / 1e6;
            super::stamped(tokens, times, &special, 9.0)
                .into_iter()
                .map(|(start, end)| (round(start), round(end)))
                .collect()
        };
        assert_eq!(stamped(&[at(0), a, b, at(5), at(10), c, at(12)]), [(0.0, 0.4), (0.0, 0.4), (0.8, 0.96)]);
        // One time ends a word and begins the next, the last has no end, and nothing was said before the first.
        assert_eq!(stamped(&[a, at(5), b, at(10), c]), [(0.0, 0.4), (0.4, 0.8), (0.8, 9.0)]);
        // Times that go back, and some beyond the window.
        assert_eq!(stamped(&[at(10), a, at(5), b, at(124)]), [(0.8, 0.8), (0.8, 9.0)]);
        assert_eq!(stamped(&[at(3), at(4)]), []);
        Ok(())
    }
}
