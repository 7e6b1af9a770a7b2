//! Guesses at what comes next from what was there before: names, and the pieces of words that a vocabulary has no token for,
//! come again (prompt lookup: <https://github.com/apoorvumang/prompt-lookup-decoding>). A step that reads guesses beside the token
//! that they follow computes what as many steps would; those that were right need no step of their own.

/// Tokens that must have come before in the same order: after one alone anything may follow.
const MIN_SEEN: usize = 2;
/// Longer than this, what came last is as good a guide as what came before it.
const MAX_SEEN: usize = 6;

/// At most `n` tokens that followed where the end of `tokens` was read before: the longest end, and of equals the last place.
pub(super) fn draft(tokens: &[u32], n: usize) -> &[u32] {
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
        assert_eq!(draft(&[1, 2, 3, 9, 2, 3, 4, 5, 1, 2, 3], 3), [9, 2, 3]);
        assert_eq!(draft(&[1, 2, 3, 1, 2, 4, 7, 1, 2], 2), [4, 7]);
        assert_eq!(draft(&[1, 2, 3, 1, 2, 4, 7, 1, 2], 9), [4, 7, 1, 2]);
        assert_eq!(draft(&[5, 5, 5, 5], 3), [5]);
        for none in [&[][..], &[1], &[1, 1], &[1, 2, 3, 2], &[1, 2, 3, 4]] {
            assert_eq!(draft(none, 3), [0u32; 0], "{none:?}");
        }
        assert_eq!(draft(&[1, 2, 1, 2], 0), [0u32; 0]);
    }
}
