//! Characters that a text should not have.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use unicode_script::{Script, UnicodeScript};

use super::{Corpus, Finding, Kind};
use crate::data::tokens::Tokens;

/// Scripts that belong together in one orthography: Japanese and Korean (UTS 39, 5.1, "augmented script sets").
const TOGETHER: [&[Script]; 2] =
    [&[Script::Han, Script::Hiragana, Script::Katakana], &[Script::Han, Script::Hangul]];

/// How much of some texts a vocabulary can spell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Characters, spaces left out.
    pub n_characters: u64,
    /// Those that it cannot spell, and how often they come.
    pub unknown: BTreeMap<char, u64>,
}

impl Spelling {
    /// The share of the characters that it cannot spell, 0 to 1.
    pub fn unknown_share(&self) -> f64 {
        self.unknown.values().sum::<u64>() as f64 / self.n_characters.max(1) as f64
    }

    /// The most frequent of those that it cannot spell, with their numbers.
    pub fn most_unknown(&self, n: usize) -> String {
        let mut unknown: Vec<_> = self.unknown.iter().collect();
        unknown.sort_by_key(|(_, count)| Reverse(**count)); // stable: of equally frequent ones the first
        let unknown: Vec<char> = unknown.into_iter().take(n).map(|(c, _)| *c).collect();
        names(&unknown)
    }
}

pub(super) fn check(
    corpus: &Corpus,
    tokens: Option<&Tokens>,
    findings: &mut Vec<Finding>,
) -> Option<Spelling> {
    let mut spelled = HashMap::<char, bool>::new();
    let mut spelling = Spelling::default();
    for placed in &corpus.cuts {
        let cut = &placed.cut;
        let is_empty = |text: &str| text.trim().is_empty();
        if is_empty(cut.output_text()) || (!cut.has_audio() && is_empty(&cut.text)) {
            let detail = match cut.has_audio() {
                true => format!("{:.2} s of {}", cut.duration_secs, cut.audio.display()),
                false => "and no recording either".to_owned(),
            };
            findings.push(corpus.finding(Kind::EmptyText, placed, detail));
        }
        // Each text by itself: a translation may be in another script.
        let texts = [Some(&*cut.text), cut.target_text.as_deref()];
        let of_each = |found: &dyn Fn(&str) -> Option<String>| -> Option<String> {
            texts.iter().flatten().find_map(|text| found(text))
        };
        if let Some(detail) = of_each(&odd) {
            findings.push(corpus.finding(Kind::OddCharacters, placed, detail));
        }
        if let Some(detail) = of_each(&mixed) {
            findings.push(corpus.finding(Kind::MixedScripts, placed, detail));
        }
        let Some(tokens) = tokens else { continue };
        let mut unknown: Vec<char> = cut.output_text().chars().collect();
        spelling.n_characters += unknown.iter().filter(|c| !c.is_whitespace()).count() as u64;
        unknown.retain(|c| !*spelled.entry(*c).or_insert_with(|| tokens.can_spell(*c)));
        unknown.iter().for_each(|c| *spelling.unknown.entry(*c).or_default() += 1);
        if !unknown.is_empty() {
            findings.push(corpus.finding(Kind::UnknownCharacters, placed, names(&unknown)));
        }
    }
    tokens.map(|_| spelling)
}

/// Control characters, private ones, and the mark of bytes that were no text. Line breaks are blanks.
fn odd(text: &str) -> Option<String> {
    let is_odd = |c: &char| {
        (c.is_control() && !c.is_whitespace())
            || *c == char::REPLACEMENT_CHARACTER
            || matches!(u32::from(*c), 0xe000..=0xf8ff | 0xf_0000..=0x10_ffff)
    };
    let found: Vec<_> = text.chars().filter(is_odd).collect();
    (!found.is_empty()).then(|| names(&found))
}

/// The scripts of a text's letters, when they do not belong together.
fn mixed(text: &str) -> Option<String> {
    let mut scripts = Vec::<(Script, char)>::new();
    for c in text.chars() {
        let script = c.script();
        let is_shared = matches!(script, Script::Common | Script::Inherited | Script::Unknown);
        if !is_shared && scripts.iter().all(|(known, _)| *known != script) {
            scripts.push((script, c));
        }
    }
    let belong = TOGETHER.iter().any(|together| scripts.iter().all(|(script, _)| together.contains(script)));
    if scripts.len() < 2 || belong {
        return None;
    }
    let shown: Vec<_> = scripts.iter().map(|(script, c)| format!("{} ({c})", script.full_name())).collect();
    Some(shown.join(", "))
}

/// Characters with their numbers, each once.
fn names(characters: &[char]) -> String {
    let mut sorted = characters.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let name = |c: &char| {
        if c.is_control() {
            format!("U+{:04X}", u32::from(*c))
        } else {
            format!("{c} U+{:04X}", u32::from(*c))
        }
    };
    sorted.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_belong_together_are_not_mixed() {
        for text in
            ["سلام دنیا، ۱۲", "hello, 12!", "これは漢字とカタカナ", "한국어 漢字", "naïve Ω".split_at(6).0, ""]
        {
            assert_eq!(mixed(text), None, "{text}");
        }
        assert_eq!(mixed("سلام ok").as_deref(), Some("Arabic (س), Latin (o)"));
        // A Cyrillic letter that looks like a Latin one.
        assert_eq!(mixed("p\u{430}ge").as_deref(), Some("Latin (p), Cyrillic (\u{430})"));
    }

    #[test]
    fn what_cannot_be_spelled_is_told_by_its_share_the_most_frequent_first() {
        let unknown = BTreeMap::from([('ب', 1), ('ت', 3), ('ج', 3)]);
        let spelling = Spelling { n_characters: 28, unknown };
        assert_eq!(spelling.unknown_share(), 0.25);
        assert_eq!(spelling.most_unknown(2), "ت U+062A, ج U+062C");
        assert_eq!(Spelling::default().unknown_share(), 0.0);
    }

    #[test]
    fn odd_characters_are_named_by_their_numbers() {
        assert_eq!(odd("a\tb\nc"), None);
        assert_eq!(odd("zero\u{200c}width joiners are letters' business"), None);
        assert_eq!(
            odd("\u{7}a\u{fffd}\u{e001}\u{7}").as_deref(),
            Some("U+0007, \u{e001} U+E001, \u{fffd} U+FFFD")
        );
    }
}
