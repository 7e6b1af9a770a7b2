//! How models are judged before and after a fine-tuning: by recordings that none of them has heard.

use std::path::Path;

use anyhow::bail;
use candle_core::Device;
use models::{Bundle, DecodeOptions, Transcriber};
use recipes::{
    data::manifest::Cut,
    evaluate::{Evaluation, Unheard},
    metrics::{Analysis, Score},
    run::Outcome,
    text::Normaliser,
};
use serde::{Deserialize, Serialize};

use super::super::{
    evaluate::{listen, scores, write_analysis},
    output::{status_line, write_file},
    progress::Style,
};

/// What the base heard, on disk.
#[derive(Serialize, Deserialize)]
struct Before {
    base: String,
    evaluation: Evaluation,
}

/// A language and its test set.
pub(super) struct Judge<'a> {
    language: &'a str,
    test: &'a [Cut],
    style: Style,
}

impl<'a> Judge<'a> {
    pub(super) fn new(language: &'a str, test: &'a [Cut], style: Style) -> Self {
        Self { language, test, style }
    }

    /// The scores of the base. What it heard is kept in the folder: a command that goes on does not listen again.
    pub(super) fn before(
        &self,
        base: &str,
        out: &Path,
        bundle: impl FnOnce() -> anyhow::Result<Bundle>,
    ) -> anyhow::Result<Vec<Score>> {
        let path = out.join("before.json");
        let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Before>(&bytes).ok());
        let evaluation =
            match kept.filter(|before| before.base == base && self.is_of_test(&before.evaluation)) {
                Some(before) => before.evaluation,
                None => {
                    let evaluation = self.listen(bundle()?)?;
                    let before = Before { base: base.to_owned(), evaluation };
                    write_file(&path, &(serde_json::to_string_pretty(&before)? + "\n"))?;
                    before.evaluation
                }
            };
        self.scores(&evaluation)
    }

    /// Whether all of these recordings were heard, and nothing else.
    fn is_of_test(&self, evaluation: &Evaluation) -> bool {
        let heard = evaluation.heard.iter().map(|heard| (&*heard.name, &*heard.reference));
        heard.eq(self.test.iter().map(|cut| (&*cut.id, &*cut.text)))
    }

    /// The scores by each of the language's normalisers.
    fn scores(&self, evaluation: &Evaluation) -> anyhow::Result<Vec<Score>> {
        scores(evaluation, Normaliser::of_language(Some(self.language)), false)
    }

    fn listen(&self, bundle: Bundle) -> anyhow::Result<Evaluation> {
        let transcriber = Transcriber::load(bundle, &Device::Cpu)?;
        let language = transcriber.special_tokens().is_multilingual.then(|| self.language.to_owned());
        let options = DecodeOptions { language, fallback: false, ..DecodeOptions::default() };
        let evaluation = listen(&transcriber, self.test, &options, false, self.style);
        if let Some(Unheard { name, reason }) = evaluation.failed.first() {
            let n_failed = evaluation.failed.len();
            if evaluation.heard.is_empty() {
                bail!(
                    "none of the {n_failed} recordings to be judged by can be heard; the first: {name}: {reason}"
                );
            }
            self.style.note(&format!("not heard: {n_failed} recordings; the first: {name}: {reason}"));
        }
        Ok(evaluation)
    }

    /// Judges what was trained, writes what is behind its errors, and says how to use it.
    pub(super) fn report(
        &self,
        model: &Path,
        outcome: &Outcome,
        folder: &Path,
    ) -> anyhow::Result<Vec<Score>> {
        let after = self.scores(&self.listen(Bundle::open(model)?)?)?;
        let (errors, model) = (folder.join("errors"), model.display().to_string());
        if let Some((score, others)) = after.split_first() {
            write_analysis(&errors, &model, &Analysis::new(score, Some(self.language), others)?, self.test)?;
        }
        let (card, page) = (outcome.card.display(), errors.join("analysis.html"));
        status_line(&format!("{model}: run card {card}, errors {}", page.display()));
        self.style.note(&format!("serve it: speechd serve --model {}={model}", self.language));
        self.style.note(&format!(
            "use it:   speechd transcribe FILES --language {} --model {model}",
            self.language
        ));
        Ok(after)
    }
}
