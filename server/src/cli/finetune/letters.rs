//! What the texts of a voice are spelled in, and what of that it will not learn to read.

use std::collections::{BTreeMap, BTreeSet};

use models::flow_lm::{FlowLmConfig, SymbolUnit, Symbols};
use recipes::{
    config::{RunConfig, TargetUnit},
    data::manifest::Cut,
    task::speak::spelled,
};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Recordings below which a symbol is hardly learnt.
const FEW: usize = 5;
/// Symbols that a line tells.
const MAX_TOLD: usize = 30;

/// The symbols of the texts that a voice learns from.
pub(super) struct Letters {
    unit: SymbolUnit,
    /// In how many texts each is.
    n_texts: BTreeMap<String, usize>,
    /// Those that the voice to start from reads; `None` where there is no such.
    known: Option<BTreeSet<String>>,
}

impl Letters {
    /// Those of `cuts`, for a voice that starts from `base` or from nothing.
    ///
    /// # Errors
    /// Cuts without phonemes where they are what is read.
    pub(super) fn of(
        cuts: &[Cut],
        config: &RunConfig,
        base: Option<&FlowLmConfig>,
    ) -> Result<Self, recipes::Error> {
        let unit = unit_of(config, base);
        let mut n_texts = BTreeMap::new();
        for cut in cuts {
            for symbol in symbols(unit, cut, config)? {
                *n_texts.entry(symbol).or_default() += 1;
            }
        }
        let known = base.map(|base| base.symbols.iter().cloned().collect());
        Ok(Self { unit, n_texts, known })
    }

    /// What is to be told of them, and of those of recordings that it does not learn from.
    ///
    /// # Errors
    /// Cuts without phonemes where they are what is read.
    pub(super) fn notes(&self, held_out: &[Cut], config: &RunConfig) -> Result<Vec<String>, recipes::Error> {
        let language = &config.data.language;
        let is_new = |symbol: &str| self.known.as_ref().is_some_and(|known| !known.contains(symbol));
        let what = match self.unit {
            SymbolUnit::Characters => "characters",
            SymbolUnit::Phonemes => "phonemes",
        };
        let mut notes = vec![format!("{what} of the texts: {}", self.n_texts.len())];
        let new: Vec<&str> = self.names().filter(|&symbol| is_new(symbol)).collect();
        if !new.is_empty() {
            notes.push(format!("new to the voice that it starts from: {} ({})", new.len(), told(&new)));
        }
        let is_rare = |symbol: &str| {
            // What a voice reads already it has learnt before.
            let is_to_learn = self.known.is_none() || is_new(symbol);
            is_to_learn && self.n_texts.get(symbol).is_some_and(|n| *n < FEW)
        };
        let rare: Vec<&str> = self.names().filter(|&symbol| is_rare(symbol)).collect();
        if !rare.is_empty() {
            notes.push(format!(
                "warning: hardly to be learnt, as fewer than {FEW} recordings have it: {}",
                told(&rare)
            ));
        }
        let is_digit = |c: char| c.general_category() == GeneralCategory::DecimalNumber;
        let digits: Vec<&str> = self.names().filter(|symbol| symbol.chars().all(is_digit)).collect();
        if self.unit == SymbolUnit::Characters && !digits.is_empty() {
            notes.push(format!(
                "warning: digits of `{language}` are not read out, and each is learnt as a letter of its own ({}); write numbers as \
                 they are said",
                told(&digits)
            ));
        }
        let mut unread = BTreeSet::new();
        let mut n_unread = 0;
        for cut in held_out {
            let symbols = symbols(self.unit, cut, config)?.into_iter();
            let lacking: Vec<String> = symbols.filter(|symbol| !self.is_read(symbol)).collect();
            n_unread += usize::from(!lacking.is_empty());
            unread.extend(lacking);
        }
        if !unread.is_empty() {
            let unread: Vec<&str> = unread.iter().map(String::as_str).collect();
            notes.push(format!(
                "warning: {n_unread} held-out texts have what no recording to learn from has: {}",
                told(&unread)
            ));
        }
        Ok(notes)
    }

    /// All but blanks.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.n_texts.keys().map(String::as_str).filter(|symbol| !symbol.trim().is_empty())
    }

    fn is_read(&self, symbol: &str) -> bool {
        let is_known = self.known.as_ref().is_some_and(|known| known.contains(symbol));
        is_known || self.n_texts.contains_key(symbol)
    }
}

/// What a voice reads that starts from `base` or from nothing.
pub(super) fn unit_of(config: &RunConfig, base: Option<&FlowLmConfig>) -> SymbolUnit {
    let of_new = match config.target.unit {
        TargetUnit::Tokens => SymbolUnit::Characters,
        TargetUnit::Phonemes => SymbolUnit::Phonemes,
    };
    base.map_or(of_new, |base| base.unit)
}

/// Symbols of a cut's text, each once.
fn symbols(unit: SymbolUnit, cut: &Cut, config: &RunConfig) -> Result<Vec<String>, recipes::Error> {
    let text = spelled(unit, cut, &config.data.language)?;
    Ok(Symbols::of_texts(unit, [text.as_str()]))
}

fn told(symbols: &[&str]) -> String {
    let more = if symbols.len() > MAX_TOLD { " ..." } else { "" };
    symbols.iter().copied().take(MAX_TOLD).collect::<Vec<_>>().join(" ") + more
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn cut(text: &str) -> Cut {
        Cut {
            id: "a".into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 1.0,
            channel: None,
            text: text.into(),
            language: Some("de".into()),
            speaker: None,
            target_text: None,
            target_language: None,
            extra: None,
        }
    }

    fn config() -> RunConfig {
        let settings = ["data.train=[\"a.jsonl\"]".to_owned(), "data.language=de".to_owned()];
        RunConfig::load(Some(Path::new("finetune_voice")), &settings).expect("settings")
    }

    #[test]
    fn what_is_new_rare_or_not_read_is_told() {
        let config = config();
        let cuts: Vec<Cut> = ["aß", "Aß b", "ab ß", "aß 7", "ab", "ß b"].map(cut).to_vec();
        let notes = |base: Option<&FlowLmConfig>, held_out: &[Cut]| {
            let letters = Letters::of(&cuts, &config, base).expect("letters");
            letters.notes(held_out, &config).expect("notes")
        };
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/flow-lm");
        let base = FlowLmConfig::read(&Path::new(fixture).into()).expect("a base");
        let found = notes(Some(&base), &[]);
        assert_eq!(found[0], "characters of the texts: 5");
        assert_eq!(found[1], "new to the voice that it starts from: 2 (7 ß)");
        // `b` is in four texts, and known.
        assert!(found[2].contains("fewer than 5") && found[2].ends_with("it: 7"), "{found:?}");
        assert!(found[3].contains("digits of `de`") && found.len() == 4, "{found:?}");

        let found = notes(None, &[cut("ab"), cut("äx"), cut("x")]);
        assert!(found[1].contains("fewer than 5") && found[1].ends_with("it: 7 b"), "{found:?}");
        assert_eq!(
            found.last().map(String::as_str),
            Some("warning: 2 held-out texts have what no recording to learn from has: x ä")
        );
    }

    #[test]
    fn digits_of_any_script_are_told_and_other_numbers_are_not() {
        let config = config();
        let digits_of = |text: &str| {
            let letters = Letters::of(&[cut(text)], &config, None).expect("letters");
            let notes = letters.notes(&[], &config).expect("notes");
            notes.into_iter().find(|note| note.contains("digits of `de`"))
        };
        assert!(digits_of("a \u{664} 7").is_some_and(|note| note.contains("(7 \u{664})")));
        // The ideographic zero is a number, and no digit.
        assert_eq!(digits_of("a \u{3007}"), None);
    }

    #[test]
    fn phonemes_are_what_is_counted_where_they_are_read() {
        let mut config = config();
        config.target.unit = TargetUnit::Phonemes;
        assert!(Letters::of(&[cut("a")], &config, None).is_err());
        let mut spelt = cut("a");
        spelt.extra = Some(Box::new([("phonemes".to_owned(), "t e s t".into())].into_iter().collect()));
        let letters = Letters::of(&[spelt], &config, None).expect("phonemes");
        assert_eq!(letters.notes(&[], &config).expect("notes")[0], "phonemes of the texts: 3");
    }
}
