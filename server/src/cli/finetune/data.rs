//! The data of a fine-tuning: imported once, looked at before anything is trained.

use std::path::{Path, PathBuf};

use anyhow::Context;
use models::{BundleSource, Tokenizer};
use parking_lot::Mutex;
use recipes::{
    config::RunConfig,
    data::{
        check::{self, Severity, check},
        manifest::{Cut, Needs},
        stats::stats,
        tokens::Tokens,
    },
    run,
};

use super::super::{
    manifests::read_cuts,
    progress::{Items, Style},
};

/// The manifests of a run.
pub(super) struct Data {
    train: Vec<PathBuf>,
    dev: Vec<PathBuf>,
    /// Without a test set of its own this is dev: what was chosen by.
    test: Vec<PathBuf>,
}

impl Data {
    /// Makes manifests of all corpora, once for all strategies.
    pub(super) fn import(
        config: &RunConfig,
        out: &Path,
        tell: &mut (dyn FnMut(run::Progress<'_>) + Send),
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        let mut all = |entries: &[String], what: &str| {
            entries
                .iter()
                .map(|entry| run::manifest_of(entry, what, config, out, tell))
                .collect::<Result<Vec<_>, _>>()
        };
        let train = all(&config.data.train, "data.train")?;
        let dev = all(&config.data.dev, "data.dev")?;
        // What is reported is never what was chosen by, where there is anything else.
        let beside = |path: &PathBuf| path.with_file_name("test.jsonl");
        let test: Vec<_> = train.iter().map(beside).filter(|path| path.is_file()).collect();
        let test = if test.is_empty() { dev.clone() } else { test };
        Ok(Self { train, dev, test })
    }

    pub(super) fn put_into(&self, config: &mut RunConfig) {
        let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        (config.data.train, config.data.dev) = (texts(&self.train), texts(&self.dev));
    }

    /// Hours, tokens, and what is wrong.
    pub(super) fn look(&self, config: &RunConfig, base: &BundleSource, style: Style) -> anyhow::Result<()> {
        let mut paths: Vec<PathBuf> = self.train.iter().chain(&self.dev).cloned().collect();
        paths.extend(self.test.iter().filter(|path| !self.dev.contains(path)).cloned());
        if self.test == self.dev {
            style.note("no test set: models are judged by the dev set, which checkpoints are chosen by, too");
        }
        let tokenizer = Tokenizer::from_source(base)?;
        let tokens = Tokens::Model(Box::new(tokenizer));
        let found = stats(&paths, &tokens, &mut |_| {})?;
        for (path, sum) in &found.by_manifest {
            style.note(&format!("{}: {} cuts, {:.2} h", path.display(), sum.n_cuts, sum.total_secs / 3600.0));
        }
        let words = Tokens::Words;
        let n_words = stats(&paths, &words, &mut |_| {})?.total.n_tokens;
        let longest = found.tokens.iter().copied().fold(0.0, f32::max);
        style.note(&format!(
            "tokens of {}: {:.2} a word, {:.1} a second; the longest text has {longest}",
            config.model.base,
            found.total.n_tokens as f64 / n_words.max(1) as f64,
            found.total.n_tokens as f64 / found.total.total_secs.max(1e-9),
        ));
        let progress = Mutex::new(Items::start(style, "listening to the data", Some(0)));
        let options = check::Options { tokens: Some(tokens), skip_audio: false };
        let report = check(&paths, &options, &|done, total| progress.lock().update_of(done, total));
        progress.lock().clear();
        let report = report?;
        for group in report.groups() {
            let severity = if group.severity == Severity::Error { "error" } else { "warning" };
            style.note(&format!("{severity}: {} {}", group.findings.len(), group.kind.describe()));
        }
        if !report.findings.is_empty() {
            let folder = self.train.first().and_then(|path| path.parent()).unwrap_or(Path::new("."));
            style.note(&format!("which ones: speechd data check {}", folder.display()));
        }
        Ok(())
    }

    pub(super) fn test(&self, style: Style) -> anyhow::Result<Vec<Cut>> {
        read_cuts(&self.test, Needs { text: false, ..Needs::default() }, style)
    }
}
