//! How models are judged before and after a fine-tuning: by recordings that none of them has heard.

use std::{
    collections::HashSet,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::bail;
use models::{Bundle, BundleSource, DecodeOptions, Device, Transcriber};
use recipes::{
    config::RunConfig,
    data::manifest::Cut,
    evaluate::{Evaluation, Heard, Unheard},
    metrics::{Analysis, Comparison, Score, compare},
    run::{self, Outcome},
    text::Normaliser,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    super::{
        evaluate::{listen, scores, write_analysis},
        output::{status_line, write_file},
        progress::Style,
    },
    Stopped,
};
use crate::registry::{PRECISION_FILE, Summary};

/// What the base heard, on disk.
#[derive(Serialize, Deserialize)]
struct Before {
    /// All that decides it beside the recordings.
    key: Value,
    evaluation: Evaluation,
}

/// What a model heard, and its scores by each of the language's normalisers.
pub(super) struct Judged {
    evaluation: Evaluation,
    pub(super) scores: Vec<Score>,
}

/// A language and its test set.
pub(super) struct Judge<'a> {
    language: &'a str,
    test: &'a [Cut],
    device: Device,
    stop: &'a AtomicBool,
    style: Style,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        language: &'a str,
        test: &'a [Cut],
        device: Device,
        stop: &'a AtomicBool,
        style: Style,
    ) -> Self {
        Self { language, test, device, stop, style }
    }

    /// The base. What it heard is kept in the folder: a command that goes on does not listen again.
    pub(super) fn before(
        &self,
        config: &RunConfig,
        base: &BundleSource,
        out: &Path,
    ) -> anyhow::Result<Judged> {
        let path = out.join("before.json");
        let key = self.key(config, base)?;
        let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Before>(&bytes).ok());
        let kept = kept.filter(|before| before.key == key && is_of_test(&before.evaluation, self.test));
        let evaluation = match kept {
            Some(before) => before.evaluation,
            None => {
                let evaluation = self.listen(run::with_language(config, base.clone())?)?;
                let before = Before { key, evaluation };
                write_file(&path, &(serde_json::to_string_pretty(&before)? + "\n"))?;
                before.evaluation
            }
        };
        self.judged(evaluation)
    }

    /// What decides what the base hears: its files, the token that it gets, and how it is asked.
    fn key(&self, config: &RunConfig, base: &BundleSource) -> anyhow::Result<Value> {
        let files = Summary::open(base)?.files.into_iter().filter(|file| file.name != PRECISION_FILE);
        let files: Vec<_> = files.map(|file| (file.name, file.sha256)).collect();
        let key = (files, &config.model.like, self.options(true));
        // As it is read again: a number of single precision has more digits as a value.
        Ok(serde_json::from_str(&serde_json::to_string(&key)?)?)
    }

    fn options(&self, is_told_language: bool) -> DecodeOptions {
        let language = is_told_language.then(|| self.language.to_owned());
        DecodeOptions { language, fallback: false, ..DecodeOptions::default() }
    }

    fn judged(&self, evaluation: Evaluation) -> anyhow::Result<Judged> {
        Ok(Judged { scores: self.scores(&evaluation)?, evaluation })
    }

    /// The scores by each of the language's normalisers.
    fn scores(&self, evaluation: &Evaluation) -> anyhow::Result<Vec<Score>> {
        scores(evaluation, Normaliser::of_language(Some(self.language)), false)
    }

    fn listen(&self, bundle: Bundle) -> anyhow::Result<Evaluation> {
        let transcriber = Transcriber::load(bundle, &self.device)?;
        let options = self.options(transcriber.special_tokens().is_multilingual);
        let evaluation = listen(&transcriber, self.test, &options, false, self.stop, self.style);
        let n_done = evaluation.heard.len() + evaluation.failed.len();
        if n_done < self.test.len() && self.stop.load(Ordering::Relaxed) {
            return Err(Stopped.into());
        }
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
    pub(super) fn report(&self, model: &Path, outcome: &Outcome, folder: &Path) -> anyhow::Result<Judged> {
        let after = self.judged(self.listen(Bundle::open(model)?)?)?;
        let (errors, model) = (folder.join("errors"), model.display().to_string());
        if let Some((score, others)) = after.scores.split_first() {
            write_analysis(&errors, &model, &Analysis::new(score, Some(self.language), others)?, self.test)?;
        }
        let (card, page) = (outcome.card.display(), errors.join("analysis.html"));
        status_line(&format!("{model}: run card {card}, errors {}", page.display()));
        self.style.note(&format!("serve it: speechd serve --model {}={model}", self.language));
        let adapter = folder.join("adapter");
        if adapter.is_dir() {
            self.style.note(&format!(
                "its adapter alone is {}: a folder that is served like a model, and takes the memory of one",
                adapter.display()
            ));
        }
        self.style.note(&format!(
            "use it:   speechd transcribe FILES --language {} --model {model}",
            self.language
        ));
        Ok(after)
    }

    /// By how much a model's word error rate differs from the base's on what both of them heard; `None`, and why, where that says
    /// nothing.
    pub(super) fn difference(&self, before: &Judged, after: &Judged) -> anyhow::Result<Option<Comparison>> {
        let (before, after) = (&before.evaluation, &after.evaluation);
        let common = [heard_by_both(before, after), heard_by_both(after, before)];
        let n_left_out = [before, after].iter().map(|one| one.heard.len()).sum::<usize>()
            - common.iter().map(|one| one.heard.len()).sum::<usize>();
        if n_left_out > 0 {
            self.style.note(&format!(
                "{n_left_out} recordings that only one of the models could hear are not in their comparison"
            ));
        }
        let [before, after] = [self.scores(&common[0])?, self.scores(&common[1])?];
        let (Some(before), Some(after)) = (before.first(), after.first()) else { return Ok(None) };
        match compare(before, after) {
            Ok((words, _)) => Ok(Some(words)),
            Err(error) => {
                self.style.note(&format!("not compared with the base: {error}"));
                Ok(None)
            }
        }
    }
}

/// Whether what was heard is as long as the cut is now: of other audio under the same name it says nothing.
fn is_as_long(heard: &Heard, cut: &Cut) -> bool {
    (heard.duration_secs - cut.duration_secs).abs() < 0.02
}

/// Whether these are all of the recordings, heard or not, and nothing else.
fn is_of_test(evaluation: &Evaluation, test: &[Cut]) -> bool {
    let mut heard = evaluation.heard.iter().peekable();
    let mut failed: Vec<&str> = evaluation.failed.iter().map(|unheard| &*unheard.name).collect();
    let mut is_in = |cut: &Cut| {
        let is_heard = heard
            .next_if(|heard| {
                *heard.name == *cut.id && *heard.reference == *cut.text && is_as_long(heard, cut)
            })
            .is_some();
        is_heard
            || failed.iter().position(|name| **name == *cut.id).map(|at| failed.swap_remove(at)).is_some()
    };
    test.iter().all(&mut is_in) && heard.next().is_none() && failed.is_empty()
}

/// What one model heard of what the other heard, too.
fn heard_by_both(one: &Evaluation, other: &Evaluation) -> Evaluation {
    let names: HashSet<&str> = other.heard.iter().map(|heard| &*heard.name).collect();
    let mut one = one.clone();
    one.heard.retain(|heard| names.contains(&*heard.name));
    one
}

#[cfg(test)]
mod tests {
    use recipes::evaluate::Heard;

    use super::*;

    fn evaluation(heard: &[(&str, &str)], failed: &[&str]) -> Evaluation {
        let heard = heard.iter().map(|(name, hypothesis)| Heard {
            name: (*name).to_owned(),
            reference: "one two".to_owned(),
            hypothesis: (*hypothesis).to_owned(),
            duration_secs: 1.0,
        });
        let failed = failed.iter().map(|name| Unheard { name: (*name).to_owned(), reason: String::new() });
        Evaluation { heard: heard.collect(), failed: failed.collect(), ..Evaluation::default() }
    }

    #[test]
    fn models_are_compared_by_what_both_of_them_heard() {
        let stop = AtomicBool::new(false);
        let judge = Judge::new("ps", &[], Device::Cpu, &stop, Style::new(true));
        let judged = |heard: &[(&str, &str)]| judge.judged(evaluation(heard, &[])).expect("scores");
        let before = judged(&[("a", "one"), ("b", "two"), ("c", "one two")]);
        let after = judged(&[("a", "one two"), ("c", "one two"), ("d", "")]);
        let difference = judge.difference(&before, &after).expect("compared").expect("a difference");
        // One of four words less.
        assert_eq!(difference.difference, -0.25);
        assert!(judge.difference(&before, &judged(&[("x", "")])).expect("nothing in common").is_none());
    }

    fn cut(id: &str) -> Cut {
        Cut {
            id: id.into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 1.0,
            channel: None,
            text: "one two".into(),
            language: None,
            speaker: None,
            target_text: None,
            target_language: None,
            extra: None,
        }
    }

    #[test]
    fn what_was_heard_belongs_to_a_test_set_with_what_failed() {
        let test = ["a", "b", "c"].map(cut);
        for (heard, failed, expected) in [
            (&["a", "b", "c"][..], &[][..], true),
            (&["a", "c"], &["b"], true),
            (&["c"], &["b", "a"], true),
            (&["a", "c"], &[], false),
            (&["b", "a", "c"], &[], false),
            (&["a", "b", "c"], &["c"], false),
            (&["a", "b", "c", "d"], &[], false),
        ] {
            let heard: Vec<_> = heard.iter().map(|name| (*name, "")).collect();
            assert_eq!(is_of_test(&evaluation(&heard, failed), &test), expected, "{heard:?} {failed:?}");
        }
    }

    #[test]
    fn who_is_asked_to_stop_listens_to_nothing_more_and_keeps_nothing() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper-80");
        let (stop, test) = (AtomicBool::new(true), [cut("a")]);
        let judge = Judge::new("ps", &test, Device::Cpu, &stop, Style::new(true));
        let config = RunConfig::load(
            Some(Path::new("finetune")),
            &["data.train=[\"a.jsonl\"]".to_owned(), "data.language=ps".to_owned()],
        );
        let out = tempfile::tempdir().expect("a folder");
        let stopped = judge.before(&config.expect("settings"), &base.as_path().into(), out.path());
        assert!(stopped.err().is_some_and(|error| error.is::<Stopped>()));
        assert!(!out.path().join("before.json").exists());
    }
}
