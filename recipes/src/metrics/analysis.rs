//! What a recogniser gets wrong, sorted: which letters it takes for which, word endings, loops, and text in another script.

use std::collections::BTreeMap;

use models::DecodeOptions;
use models::decode::compression_ratio;
use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::report::{Rate, Report};
use super::{Edit, Error, Score, align, characters, words};
use crate::text::{Normaliser, Script};

/// Something in the reference, and what was written for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// What was said; empty where something was added.
    pub reference: String,
    /// What was written; empty where something was left out.
    pub hypothesis: String,
    /// How often.
    pub count: usize,
}

/// A letter of the references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// It.
    pub letter: String,
    /// How often it was said.
    pub n_reference: usize,
    /// How often it was written where it should be.
    pub n_right: usize,
}

/// Words of which nothing but the last letter is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endings {
    /// All words that were replaced by others.
    pub n_substitutions: usize,
    /// Those that differ in the last letter alone, as a share of them; none where nothing was replaced.
    pub share: Option<f64>,
    /// Last letters, the most frequent pair first, each with its share of all words that were replaced.
    pub pairs: Vec<(Confusion, f64)>,
}

/// How well letters that belong together are told apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowErrors {
    /// The letters.
    pub name: String,
    /// How often they are in the references.
    pub n_reference: usize,
    /// How often they were written where they should be.
    pub n_right: usize,
    /// What was written for them otherwise, the most frequent first.
    pub confusions: Vec<Confusion>,
    /// Other letters that they were written for, the most frequent first.
    pub written_for: Vec<Confusion>,
}

/// In which letters the hypotheses are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptUse {
    /// Letters in the hypotheses.
    pub n_letters: usize,
    /// Those that are none of the language's, as a share; none without letters.
    pub foreign_share: Option<f64>,
    /// Letters that its neighbours lack, as a share of the references' letters and of the hypotheses'.
    pub own_share: [Option<f64>; 2],
}

/// Rates by another normaliser than that by which errors are sorted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherRates {
    /// Its name.
    pub normaliser: Normaliser,
    /// Word error rate.
    pub words: Rate,
    /// Character error rate.
    pub characters: Rate,
}

/// What is behind an error rate. Texts are compared as the normaliser leaves them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The language, where it decides what is looked at.
    pub language: Option<String>,
    /// Error rates, by duration too, and the worst utterances.
    pub report: Report,
    /// Rates by the language's other normalisers.
    pub others: Vec<OtherRates>,
    /// Letters for letters, all of them, the most frequent first.
    pub confusions: Vec<Confusion>,
    /// Each letter that was said: with the confusions, the whole confusion matrix.
    pub letters: Vec<Letter>,
    /// Wrong endings of words.
    pub endings: Endings,
    /// Letters that belong together, where they are known of the language.
    pub rows: Vec<RowErrors>,
    /// Letters of another script, where the language's are known.
    pub script: Option<ScriptUse>,
    /// The word error rate if what people write for letters that their keyboard lacks counts as right.
    pub substitutes: Option<Rate>,
    /// Hypotheses that go round in circles, as a share: they compress by more than decoding with fallback lets pass (2.4).
    pub loop_share: Option<f64>,
    /// Characters of the hypotheses for each of the references; none without references.
    pub length_ratio: Option<f64>,
}

/// Counts pairs.
#[derive(Default)]
struct Pairs(BTreeMap<(String, String), usize>);

impl Pairs {
    fn add(&mut self, reference: impl Into<String>, hypothesis: impl Into<String>) {
        *self.0.entry((reference.into(), hypothesis.into())).or_default() += 1;
    }

    fn sorted(self) -> Vec<Confusion> {
        let confusion = |((reference, hypothesis), count)| Confusion { reference, hypothesis, count };
        let mut pairs: Vec<_> = self.0.into_iter().map(confusion).collect();
        // Stable: what is as frequent stays in the alphabet's order.
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        pairs
    }
}

impl Analysis {
    /// Sorts the errors of a test set in `language`. `others` are scores of the same utterances by other normalisers.
    ///
    /// # Errors
    /// An empty test set.
    pub fn new(score: &Score, language: Option<&str>, others: &[Score]) -> Result<Self, Error> {
        let script = language.and_then(Script::of);
        let loop_ratio = DecodeOptions::default().compression_ratio_threshold.unwrap_or(f32::INFINITY);
        let texts: Vec<(&str, &str)> = score.texts().collect();
        let mut letters = Pairs::default();
        let mut endings = Pairs::default();
        let (mut n_substitutions, mut n_endings) = (0, 0);
        let (mut n_reference, mut n_hypothesis) = (0, 0);
        for (reference, hypothesis) in &texts {
            let (a, b) = (characters(reference), characters(hypothesis));
            (n_reference, n_hypothesis) = (n_reference + a.len(), n_hypothesis + b.len());
            for edit in align(&a, &b).edits {
                let at = |side: &[char], index: Option<usize>| {
                    index.map_or_else(String::new, |index| side[index].to_string())
                };
                letters.add(at(&a, edit.reference()), at(&b, edit.hypothesis()));
            }
            let (a, b) = (words(reference), words(hypothesis));
            for edit in align(&a, &b).edits {
                if let Edit::Substitution { reference, hypothesis } = edit {
                    n_substitutions += 1;
                    if let Some((right, wrong)) = wrong_ending(a[reference], b[hypothesis]) {
                        n_endings += 1;
                        endings.add(right, wrong);
                    }
                }
            }
        }
        let (right, confusions): (Vec<_>, Vec<_>) =
            letters.sorted().into_iter().partition(|pair| pair.reference == pair.hypothesis);
        let n_loops = texts.iter().filter(|(_, text)| compression_ratio(text) > loop_ratio).count();
        let rate = |score: &Score| -> Result<_, Error> {
            let report = score.report()?;
            Ok(OtherRates {
                normaliser: report.normaliser,
                words: report.words,
                characters: report.characters,
            })
        };
        Ok(Self {
            language: language.map(str::to_owned),
            others: others.iter().map(rate).collect::<Result<_, _>>()?,
            endings: Endings {
                n_substitutions,
                share: share(n_endings, n_substitutions),
                pairs: endings
                    .sorted()
                    .into_iter()
                    .map(|pair| {
                        let share = pair.count as f64 / n_substitutions as f64;
                        (pair, share)
                    })
                    .collect(),
            },
            rows: script.map_or_else(Vec::new, |script| rows(script, &texts, &confusions)),
            script: script.map(|script| script_use(script, &texts)),
            substitutes: script.filter(|script| !script.substitutes.is_empty()).map(|script| {
                let errors = |(reference, hypothesis): &(&str, &str)| {
                    align(&Word::all(script, reference), &Word::all(script, hypothesis)).errors()
                };
                Rate::new(texts.iter().map(errors).sum())
            }),
            loop_share: share(n_loops, texts.len()),
            length_ratio: share(n_hypothesis, n_reference),
            report: score.report()?,
            letters: letters_of(&right, &confusions),
            confusions,
        })
    }
}

/// A word that is the same as another if people write one for the other.
struct Word<'a> {
    script: &'static Script,
    text: &'a str,
}

impl<'a> Word<'a> {
    fn all(script: &'static Script, text: &'a str) -> Vec<Self> {
        words(text).into_iter().map(|text| Self { script, text }).collect()
    }
}

impl PartialEq for Word<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.script.may_be_the_same(self.text, other.text)
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The last letters of two words that are the same but for these.
fn wrong_ending(reference: &str, hypothesis: &str) -> Option<(char, char)> {
    let (mut a, mut b) = (reference.chars(), hypothesis.chars());
    let last = (a.next_back()?, b.next_back()?);
    (last.0 != last.1 && a.as_str() == b.as_str() && !a.as_str().is_empty()).then_some(last)
}

/// How often each letter was said, by what was written for it, in the alphabet's order.
fn letters_of(right: &[Confusion], confusions: &[Confusion]) -> Vec<Letter> {
    let mut letters = BTreeMap::<&str, (usize, usize)>::new();
    for pair in right.iter().chain(confusions).filter(|pair| !pair.reference.is_empty()) {
        let (n_reference, n_right) = letters.entry(&pair.reference).or_default();
        *n_reference += pair.count;
        *n_right += if pair.reference == pair.hypothesis { pair.count } else { 0 };
    }
    let letter = |(letter, (n_reference, n_right)): (&str, (usize, usize))| Letter {
        letter: letter.to_owned(),
        n_reference,
        n_right,
    };
    letters.into_iter().map(letter).collect()
}

fn rows(script: &Script, texts: &[(&str, &str)], confusions: &[Confusion]) -> Vec<RowErrors> {
    let row = |row: &crate::text::Row| {
        let is_in = |text: &str| text.chars().next().is_some_and(|c| row.letters.contains(c));
        let n_reference =
            texts.iter().flat_map(|(text, _)| text.chars()).filter(|c| row.letters.contains(*c)).count();
        let (own, others): (Vec<_>, Vec<_>) =
            confusions.iter().cloned().partition(|confusion| is_in(&confusion.reference));
        let n_wrong: usize = own.iter().map(|confusion| confusion.count).sum();
        let written_for = others.into_iter().filter(|confusion| is_in(&confusion.hypothesis)).collect();
        let (name, n_right) = (row.name.to_owned(), n_reference - n_wrong);
        RowErrors { name, n_reference, n_right, confusions: own, written_for }
    };
    script.rows.iter().map(row).collect()
}

fn script_use(script: &Script, texts: &[(&str, &str)]) -> ScriptUse {
    let count = |is_counted: &dyn Fn(char) -> bool, text: &dyn Fn(&(&str, &str)) -> String| -> usize {
        texts.iter().map(|pair| text(pair).chars().filter(|c| is_counted(*c)).count()).sum()
    };
    let (said, written) = (|pair: &(&str, &str)| pair.0.to_owned(), |pair: &(&str, &str)| pair.1.to_owned());
    // No marks, which are alphabetic to Unicode.
    let is_letter = |c: char| c.general_category_group() == GeneralCategoryGroup::Letter;
    let is_own = |c: char| script.own_letters.contains(c);
    let n_letters = count(&is_letter, &written);
    let n_foreign = count(&|c| is_letter(c) && !script.has(c), &written);
    ScriptUse {
        n_letters,
        foreign_share: share(n_foreign, n_letters),
        own_share: [
            share(count(&is_own, &said), count(&is_letter, &said)),
            share(count(&is_own, &written), n_letters),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ScoreOptions;

    fn score(normaliser: Normaliser, pairs: &[(&str, &str)]) -> Score {
        let mut score = Score::new(ScoreOptions { normaliser, ..ScoreOptions::default() }).expect("options");
        for (reference, hypothesis) in pairs {
            score.add(reference, hypothesis, 1.0).expect("an utterance");
        }
        score
    }

    fn shown(confusions: &[Confusion]) -> Vec<(&str, &str, usize)> {
        confusions.iter().map(|one| (&*one.reference, &*one.hypothesis, one.count)).collect()
    }

    #[test]
    fn errors_are_sorted_by_letters_endings_and_rows() {
        let pairs = [
            ("سړی راغی", "سړې راغی"), // an ending
            ("ښه ځای", "خه زای"),     // two keyboards' letters
            ("سړی", "سری"),           // a retroflex
            ("کور", "house کور"),     // another script
            ("ټول", "ټول"),
            ("ته", "ټه"), // a retroflex that is none
        ];
        let strict = score(Normaliser::PsStrict, &pairs);
        let lenient = score(Normaliser::PsLenient, &pairs);
        let analysis = Analysis::new(&strict, Some("ps"), &[lenient]).expect("an analysis");

        assert!(shown(&analysis.confusions).contains(&("ی", "ې", 1)), "{:?}", analysis.confusions);
        assert_eq!(analysis.report.words.errors.substitutions, 5);
        assert_eq!(analysis.report.words.errors.insertions, 1);
        // Of the words that the lenient normaliser folds, none is wrong any more.
        assert_eq!(analysis.others[0].normaliser, Normaliser::PsLenient);
        assert_eq!(analysis.others[0].words.errors.substitutions, 4);

        assert_eq!((analysis.endings.n_substitutions, analysis.endings.share), (5, Some(0.2)));
        let (endings, shares): (Vec<_>, Vec<_>) = analysis.endings.pairs.iter().cloned().unzip();
        assert_eq!((shown(&endings), shares), (vec![("ی", "ې", 1)], vec![0.2]));

        let letter = |letter: &str| {
            let found = analysis.letters.iter().find(|one| one.letter == letter).expect("a letter");
            (found.n_reference, found.n_right)
        };
        assert_eq!((letter("ټ"), letter("ړ"), letter("ت")), ((1, 1), (2, 1), (1, 0)));

        let row = |name: &str| analysis.rows.iter().find(|row| row.name == name).expect("a row");
        assert_eq!((row("retroflex").n_reference, row("retroflex").n_right), (3, 2));
        assert_eq!(shown(&row("retroflex").confusions), [("ړ", "ر", 1)]);
        assert_eq!(shown(&row("retroflex").written_for), [("ت", "ټ", 1)]);
        assert_eq!((row("affricates").n_reference, row("affricates").n_right), (1, 0));

        let script = analysis.script.expect("known");
        assert_eq!(script.foreign_share, Some(5.0 / script.n_letters as f64));
        // Letters for which people have no key count as right; the ending and the foreign word do not.
        let substitutes = analysis.substitutes.expect("known");
        assert_eq!((substitutes.errors.substitutions, substitutes.errors.insertions), (1, 1));
        assert_eq!(analysis.loop_share, Some(0.0));
    }

    #[test]
    fn loops_and_lengths_are_counted_in_any_language() {
        let again = "one two ".repeat(40);
        let score = score(Normaliser::Basic, &[("one two", &again), ("three", "")]);
        let analysis = Analysis::new(&score, Some("en"), &[]).expect("an analysis");
        assert_eq!((analysis.loop_share, analysis.rows.len(), analysis.script), (Some(0.5), 0, None));
        assert!(analysis.length_ratio.is_some_and(|ratio| ratio > 20.0));
        assert_eq!(wrong_ending("a", "b"), None);
        assert_eq!(wrong_ending("سړی", "سړی"), None);
        assert_eq!(wrong_ending("cats", "cat"), None);
        assert!(Analysis::new(&Score::new(ScoreOptions::default()).expect("options"), None, &[]).is_err());
    }
}
