//! Words that a voice is judged by: what it is learnt from never has them, nor a form of one.

use super::script::lines;

/// The words, one a line.
const WORDS: &str = include_str!("../../../tts_en/words.txt");
/// What a word of fewer than [`TELLING`] letters may have behind it and still be the same: nothing, or an ending of inflection.
const ENDINGS: [&str; 17] = [
    "", "e", "y", "s", "es", "ed", "er", "ers", "est", "ing", "ings", "ly", "ies", "ied", "ier", "iest",
    "ily",
];
/// Letters of a stem behind which anything may stand: `garden`, `gardener`, `gardenia`.
const TELLING: usize = 4;

/// The held-out words.
pub(super) struct HeldOut(Vec<&'static str>);

impl HeldOut {
    /// All of them, in alphabetical order.
    pub(super) fn new() -> Self {
        Self(lines(WORDS))
    }

    /// The words.
    pub(super) fn words(&self) -> &[&'static str] {
        &self.0
    }

    /// Whether a text has one of them in it, or a form of one.
    pub(super) fn are_in(&self, text: &str) -> bool {
        words(text).any(|word| self.with_first_letter_of(word).any(|base| is_form(word, base)))
    }

    /// Those that begin as a word does, as each of its forms does: few are looked at of them all.
    fn with_first_letter_of(&self, word: &str) -> impl Iterator<Item = &str> {
        let first = word.chars().next();
        let from = self.0.partition_point(|base| base.chars().next() < first);
        self.0[from..].iter().copied().take_while(move |base| base.chars().next() == first)
    }
}

/// The words of a clause, without its mark.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.trim_end_matches('?').split(' ')
}

/// A word without the last letter that its forms may lack: `bake`, `lazy`.
fn stem(word: &str) -> &str {
    word.strip_suffix(['e', 'y']).unwrap_or(word)
}

/// Whether a word is a form of another, or spelt so much like one that it would tell how that is read: it begins with its stem, and of a
/// short one has only an ending of inflection behind it, maybe after a doubled letter (`digging`). What follows an apostrophe does not count.
/// Wider than grammar has it: `happen` is taken for a form of `happy`. Irregular forms are other words (`mice`).
fn is_form(word: &str, base: &str) -> bool {
    let word = word.split('\'').next().unwrap_or_default();
    let stem = stem(base);
    let Some(rest) = word.strip_prefix(stem) else { return false };
    if stem.len() >= TELLING || ENDINGS.contains(&rest) {
        return true;
    }
    let doubled = stem.chars().next_back().and_then(|last| rest.strip_prefix(last));
    doubled.is_some_and(|rest| ENDINGS.contains(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_the_letters_that_they_begin_with() {
        for (word, base) in [
            ("garden", "garden"),
            ("gardeners", "garden"),
            ("garden's", "garden"),
            ("baked", "bake"),
            ("baking", "bake"),
            ("baker", "bake"),
            ("lazily", "lazy"),
            ("ponies", "pony"),
            ("digging", "dig"),
            ("digs", "dig"),
            ("pigs'", "pig"),
            ("happen", "happy"),
        ] {
            assert!(is_form(word, base), "{word} {base}");
        }
        for (word, base) in [
            ("digital", "dig"),
            ("pigment", "pig"),
            ("bad", "bake"),
            ("mice", "mouse"),
            ("regarden", "garden"),
            ("gard", "garden"),
            ("dig", "digs"),
        ] {
            assert!(!is_form(word, base), "{word} {base}");
        }
        let held_out = HeldOut::new();
        assert!(held_out.are_in("is it in the garden?") && held_out.are_in("two pigs"));
        assert!(!held_out.are_in("how are you today?"));
    }
}
