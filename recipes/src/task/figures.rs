//! Figures of what a model wrote: error rates of transcripts, BLEU, chrF and TER of translations.

use std::collections::BTreeMap;

use crate::Error;
use crate::evaluate::{Evaluation, Heard};
use crate::metrics::{BleuOptions, ChrfOptions, ScoreOptions, TerOptions};
use crate::text::Normaliser;

/// Figures of an evaluation by name, such as `wer`.
pub type Figures = BTreeMap<String, f64>;

/// Figures of which a better model has more; of all others it has less.
const HIGHER_IS_BETTER: [&str; 2] = ["bleu", "chrf"];

/// Whether a value of a figure is better than another one.
pub fn is_better(figure: &str, value: f64, than: f64) -> bool {
    if HIGHER_IS_BETTER.contains(&figure) { value > than } else { value < than }
}

/// `wer` and `cer` of what was said, and `bleu`, `chrf` and `ter` of what was translated; where all is translated, the first two of that, too.
pub(super) fn of_texts(
    evaluation: &Evaluation,
    is_translation: &dyn Fn(&Heard) -> bool,
    normaliser: Normaliser,
) -> Result<Figures, Error> {
    let mut figures = Figures::new();
    let (translated, said): (Vec<Heard>, Vec<Heard>) =
        evaluation.heard.iter().cloned().partition(is_translation);
    let plain = ScoreOptions { normaliser, ..ScoreOptions::default() };
    let scored = |heard: Vec<Heard>, options: &ScoreOptions| {
        let evaluation = Evaluation { heard, ..Evaluation::default() };
        evaluation.score(options)?.map(|score| score.report()).transpose()
    };
    let options = ScoreOptions {
        bleu: Some(BleuOptions::default()),
        chrf: Some(ChrfOptions::default()),
        ter: Some(TerOptions::default()),
        ..plain.clone()
    };
    let translations = scored(translated, &options)?;
    let transcripts = scored(said, &plain)?;
    if let Some(report) = transcripts.as_ref().or(translations.as_ref()) {
        let rates = [("wer", report.words.rate), ("cer", report.characters.rate)];
        figures.extend(rates.into_iter().filter_map(|(name, rate)| Some((name.to_owned(), rate?))));
    }
    if let Some(report) = translations {
        let scores = [("bleu", report.bleu), ("chrf", report.chrf), ("ter", report.ter)];
        figures.extend(scores.into_iter().filter_map(|(name, score)| Some((name.to_owned(), score?.score))));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_and_translations_have_figures_of_their_own() {
        let heard = |name: &str, reference: &str, hypothesis: &str| Heard {
            name: name.to_owned(),
            reference: reference.to_owned(),
            hypothesis: hypothesis.to_owned(),
            duration_secs: 1.0,
        };
        let said = heard("a", "one two three four", "one two three five");
        let translated = heard("a > ps", "a b c d e", "a b c d e");
        let of = |heard: &[&Heard]| {
            let heard = heard.iter().copied().cloned().collect();
            let evaluation = Evaluation { heard, ..Evaluation::default() };
            of_texts(&evaluation, &|heard| heard.name.contains('>'), Normaliser::None).expect("figures")
        };
        let both = of(&[&said, &translated]);
        assert_eq!((both["wer"], both["bleu"].round(), both["chrf"].round()), (0.25, 100.0, 100.0));
        assert_eq!((of(&[&translated])["wer"], both["ter"]), (0.0, 0.0));
        assert_eq!(of(&[&said]).keys().collect::<Vec<_>>(), ["cer", "wer"]);
        assert!(of(&[]).is_empty());
        assert!(is_better("bleu", 2.0, 1.0) && is_better("wer", 1.0, 2.0) && !is_better("chrf", 1.0, 1.0));
        assert!(is_better("ter", 99.0, 101.0));
    }
}
