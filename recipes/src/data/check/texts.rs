//! Characters that a text should not have.

use std::collections::HashMap;

use unicode_script::{Script, UnicodeScript};

use super::{Corpus, Finding, Kind};
use crate::data::tokens::Tokens;

/// Scripts that belong together in one orthography: Japanese and Korean (UTS 39, 5.1, "augmented script sets").
const TOGETHER: [&[Script]; 2] =
    [&[Script::Han, Script::Hiragana, Script::Katakana], &[Script::Han, Script::Hangul]];

pub(super) fn check(corpus: &Corpus, tokens: Option<&Tokens>, findings: &mut Vec<Finding>) {
    let mut spelled = HashMap::<char, bool>::new();
    for placed in &corpus.cuts {
        let cut = &placed.cut;
        if cut.output_text().trim().is_empty() {
            let detail = format!("{:.2} s of {}", cut.duration_secs, cut.audio.display());
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
        unknown.retain(|c| !*spelled.entry(*c).or_insert_with(|| tokens.can_spell(*c)));
        if !unknown.is_empty() {
            findings.push(corpus.finding(Kind::UnknownCharacters, placed, names(&unknown)));
        }
    }
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
    fn odd_characters_are_named_by_their_numbers() {
        assert_eq!(odd("a\tb\nc"), None);
        assert_eq!(odd("zero\u{200c}width joiners are letters' business"), None);
        assert_eq!(
            odd("\u{7}a\u{fffd}\u{e001}\u{7}").as_deref(),
            Some("U+0007, \u{e001} U+E001, \u{fffd} U+FFFD")
        );
    }
}
