//! The data of a fine-tuning: imported once, looked at before anything is trained.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Context;
use models::{BundleSource, Description, Tokenizer, flow_lm::FlowLmConfig};
use parking_lot::Mutex;
use recipes::{
    config::{RunConfig, StrategyKind},
    data::{
        check::{self, Report, Severity, Spelling, check},
        manifest::{Cut, Needs},
        stats::{Stats, stats},
        tokens::Tokens,
    },
    run::{self, Place},
};

use super::{
    super::{
        Usage,
        manifests::read_cuts,
        output::write_file,
        progress::{Items, Style},
        tokenizer::read_texts,
    },
    go_on,
    letters::Letters,
};

/// Tokens a word above which a vocabulary of one's own is worth a thought: English has 1.3 in Whisper's.
const MANY_TOKENS: f64 = 3.0;

/// Characters that are told of those that cannot be spelled.
const MANY_CHARACTERS: usize = 20;

/// Share of the characters that cannot be spelled above which nothing would be learnt: most words have some.
const UNSPELLABLE: f64 = 0.5;

/// The manifests of a run.
pub(super) struct Data {
    train: Vec<PathBuf>,
    dev: Vec<PathBuf>,
    /// Without a test set of its own this is dev: what was chosen by.
    test: Vec<PathBuf>,
    /// What a related language is learnt from and chosen by, where there is one.
    related: [Vec<PathBuf>; 2],
}

/// Where the corpora of a run are.
pub(super) struct Corpora {
    /// What is said of those that are nowhere.
    pub(super) missing: Vec<String>,
    /// Whether the run's folder has manifests of one.
    is_any_imported: bool,
    /// Whether one is yet to be made manifests of.
    is_any_left: bool,
}

impl Corpora {
    /// Whether all that are no manifests were made such before.
    pub(super) fn are_imported(&self) -> bool {
        self.is_any_imported && !self.is_any_left
    }

    /// Looks for all of them, and reads none.
    pub(super) fn find(config: &RunConfig, out: &Path) -> Self {
        let (data, stage) = (&config.data, &config.strategy.stage);
        let mut found = Self { missing: Vec::new(), is_any_imported: false, is_any_left: false };
        for (entries, what, language, flag) in [
            (&data.train, "data.train", &data.language, "--data"),
            (&data.dev, "data.dev", &data.language, "--data"),
            (&stage.train, "strategy.stage.train", &stage.language, "--related-data"),
            (&stage.dev, "strategy.stage.dev", &stage.language, "--related-data"),
        ] {
            for entry in entries {
                match run::find(entry, what, language, out) {
                    Ok(place) => {
                        found.is_any_imported |= place == Place::Imported;
                        found.is_any_left |= place == Place::Corpus;
                    }
                    Err(error) => {
                        let missing = format!("{error} ({flag} FOLDER)");
                        // Each of a corpus's parts lacks the same.
                        if !found.missing.contains(&missing) {
                            found.missing.push(missing);
                        }
                    }
                }
            }
        }
        found
    }
}

impl Data {
    /// Makes manifests of all corpora, once for all strategies. `stop` is looked at before each.
    pub(super) fn import(
        config: &RunConfig,
        out: &Path,
        stop: &AtomicBool,
        tell: &mut (dyn FnMut(run::Progress<'_>) + Send),
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        let mut all = |entries: &[String], what: &str, language: &str| {
            let import = |entry: &String| {
                go_on(stop)?;
                Ok(run::manifest_of(entry, what, language, out, tell)?)
            };
            entries.iter().map(import).collect::<anyhow::Result<Vec<_>>>()
        };
        let (data, stage) = (&config.data, &config.strategy.stage);
        let train = all(&data.train, "data.train", &data.language)?;
        let dev = all(&data.dev, "data.dev", &data.language)?;
        let related = [
            all(&stage.train, "strategy.stage.train", &stage.language)?,
            all(&stage.dev, "strategy.stage.dev", &stage.language)?,
        ];
        // What is reported is never what was chosen by, where there is anything else.
        let beside = |path: &PathBuf| path.with_file_name("test.jsonl");
        let test: Vec<_> = train.iter().map(beside).filter(|path| path.is_file()).collect();
        let test = if test.is_empty() { dev.clone() } else { test };
        Ok(Self { train, dev, test, related })
    }

    pub(super) fn put_into(&self, config: &mut RunConfig) {
        let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        (config.data.train, config.data.dev) = (texts(&self.train), texts(&self.dev));
        let [train, dev] = &self.related;
        (config.strategy.stage.train, config.strategy.stage.dev) = (texts(train), texts(dev));
    }

    /// Learns a vocabulary of all texts that are trained on, for the base's window and prompts, and puts it where the run looks.
    pub(super) fn learn_vocabulary(
        &self,
        n_text_tokens: usize,
        config: &RunConfig,
        base: &BundleSource,
        style: Style,
    ) -> anyhow::Result<()> {
        let mut paths = self.train.clone();
        paths.extend_from_slice(&self.related[0]);
        let texts = read_texts(&paths, style)?;
        let contents =
            run::learn_vocabulary(config, base, n_text_tokens, &texts).map_err(|error| match error {
                recipes::Error::Config { .. } => Usage(error.to_string()).into(),
                error => anyhow::Error::from(error),
            })?;
        write_file(&Path::new(&config.model.tokenizer).join("tokenizer.json"), &contents)
    }

    /// Hours, tokens, and what is wrong: of the language that is taught, and of a related one by itself.
    pub(super) fn look(
        &self,
        config: &RunConfig,
        base: &BundleSource,
        stop: &Arc<AtomicBool>,
        style: Style,
    ) -> anyhow::Result<()> {
        let paths = self.paths();
        if self.test == self.dev {
            style.note("no test set: models are judged by the dev set, which checkpoints are chosen by, too");
        }
        let per_word = look_at(&paths, &config.data.language, config, base, stop, style)?;
        // Without a decoder a token costs no step.
        let (_, n_decoder_blocks) = Description::open(base.clone())?.architecture().n_layers();
        let is_possible = config.model.tokenizer.is_empty()
            && config.strategy.kind != StrategyKind::Lora
            && n_decoder_blocks > 0;
        if is_possible && per_word > MANY_TOKENS {
            style.note(
                "so many are slow and hard to learn: --new-vocabulary gives the model tokens of its own",
            );
        }
        let related = self.related.concat();
        if !related.is_empty() {
            let language = &config.strategy.stage.language;
            style.note(&format!("the related language, {language}"));
            look_at(&related, language, config, base, stop, style)?;
        }
        Ok(())
    }

    /// Hours, speakers, letters, and what is wrong, for a voice that starts from `base` or from nothing. Says whether all that it learns from is
    /// taken for one voice.
    pub(super) fn look_for_voice(
        &self,
        config: &RunConfig,
        base: Option<&FlowLmConfig>,
        stop: &Arc<AtomicBool>,
        style: Style,
    ) -> anyhow::Result<bool> {
        let paths = self.paths();
        let found = stats(&paths, &Tokens::Chars, &mut |_| {})?;
        note_hours(&found, style);
        let speakers = stats(&self.train, &Tokens::Chars, &mut |_| {})?.by_speaker;
        let n_unnamed = speakers.get(&None).map_or(0, |sum| sum.n_cuts);
        let n_named = speakers.len() - usize::from(n_unnamed > 0);
        style.note(&match (n_named, n_unnamed) {
            (0, _) => "no recording says who speaks (`speaker`): all are taken for one voice".to_owned(),
            (n, 0) => format!("speakers to learn from: {n}"),
            (n, unnamed) => format!(
                "speakers to learn from: {n}; {unnamed} recordings do not say who speaks, and become no voice"
            ),
        });
        note_other_languages(&found, &config.data.language, config, style);
        let needs = Needs { text: true, transcript: true, recording: true, ..Needs::default() };
        let read = |paths: &[PathBuf]| {
            let mut cuts = read_cuts(paths, needs, Style::new(true))?;
            if config.data.force_language {
                run::force_language(&mut cuts, &config.data.language);
            }
            anyhow::Ok(cuts)
        };
        let held_out: Vec<PathBuf> =
            paths.iter().filter(|path| !self.train.contains(path)).cloned().collect();
        let letters = Letters::of(&read(&self.train)?, config, base)?;
        letters.notes(&read(&held_out)?, config)?.iter().for_each(|note| style.note(note));
        listen(&paths, None, stop, style)?;
        Ok(n_named == 0)
    }

    /// All manifests of the language that is taught, each once.
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.train.iter().chain(&self.dev).cloned().collect();
        paths.extend(self.test.iter().filter(|path| !self.dev.contains(path)).cloned());
        paths
    }

    /// What models are judged by, told its language as what they are trained on.
    pub(super) fn test(&self, config: &RunConfig, style: Style) -> anyhow::Result<Vec<Cut>> {
        let mut cuts =
            read_cuts(&self.test, Needs { text: false, transcript: true, ..Needs::default() }, style)?;
        if config.data.force_language {
            run::force_language(&mut cuts, &config.data.language);
        }
        Ok(cuts)
    }
}

/// Tells about manifests of one language, and says how many tokens of the model a word of it takes.
fn look_at(
    paths: &[PathBuf],
    language: &str,
    config: &RunConfig,
    base: &BundleSource,
    stop: &Arc<AtomicBool>,
    style: Style,
) -> anyhow::Result<f64> {
    let n_words = stats(paths, &Tokens::Words, &mut |_| {})?.total.n_tokens;
    let count = |vocabulary: &str, tokenizer: Tokenizer| -> anyhow::Result<_> {
        let tokens = Tokens::Model(Box::new(tokenizer));
        let found = stats(paths, &tokens, &mut |_| {})?;
        let per_word = found.total.n_tokens as f64 / n_words.max(1) as f64;
        let told = format!(
            "tokens of {vocabulary}: {per_word:.2} a word, {:.1} a second; the longest text has {}",
            found.total.n_tokens as f64 / found.total.total_secs.max(1e-9),
            found.tokens.iter().copied().fold(0.0, f32::max),
        );
        Ok((found, tokens, per_word, told))
    };
    let (found, tokens, per_word, told) = count(&config.model.base, Tokenizer::from_source(base)?)?;
    note_hours(&found, style);
    style.note(&told);
    let (tokens, per_word) = match config.model.tokenizer.as_str() {
        "" => (tokens, per_word),
        dir => {
            let (_, tokens, per_word, told) = count(dir, Tokenizer::open(Path::new(dir))?)?;
            style.note(&told);
            (tokens, per_word)
        }
    };
    note_other_languages(&found, language, config, style);
    let report = listen(paths, Some(tokens), stop, style)?;
    if let Some(spelling) = &report.spelling {
        told_of(spelling, config.strategy.kind, style)?;
    }
    Ok(per_word)
}

fn note_hours(found: &Stats, style: Style) {
    for (path, sum) in &found.by_manifest {
        style.note(&format!("{}: {} cuts, {:.2} h", path.display(), sum.n_cuts, sum.total_secs / 3600.0));
    }
}

/// Tells of cuts that state another language than they are taken for.
fn note_other_languages(found: &Stats, language: &str, config: &RunConfig, style: Style) {
    if !config.data.force_language {
        return;
    }
    let others = found.by_language.iter().filter_map(|(other, sum)| Some((other.as_deref()?, sum.n_cuts)));
    let (codes, counts): (Vec<_>, Vec<_>) = others.filter(|(other, _)| *other != language).unzip();
    if !codes.is_empty() {
        style.note(&format!(
            "{} cuts state another language ({}); they are taken as `{language}`, as all are (data.force_language)",
            counts.iter().sum::<u64>(),
            codes.join(", ")
        ));
    }
}

/// Listens to all recordings, and tells what is wrong with them and their texts.
fn listen(
    paths: &[PathBuf],
    tokens: Option<Tokens>,
    stop: &Arc<AtomicBool>,
    style: Style,
) -> anyhow::Result<Report> {
    let progress = Mutex::new(Items::start(style, "listening to the data", Some(0)));
    let options = check::Options { tokens, stop: Some(stop.clone()), skip_audio: false };
    let report = check(paths, &options, &|done, total| progress.lock().update_of(done, total));
    progress.lock().clear();
    go_on(stop)?;
    let report = report?;
    for group in report.groups() {
        let severity = if group.severity == Severity::Error { "error" } else { "warning" };
        style.note(&format!("{severity}: {} {}", group.findings.len(), group.kind.describe()));
    }
    if !report.findings.is_empty() {
        let folder = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("."));
        style.note(&format!("which ones: speechd data check {}", folder.display()));
    }
    Ok(report)
}

/// Tells what of the texts the model's vocabulary cannot spell, and refuses what it would learn nothing of.
fn told_of(spelling: &Spelling, strategy: StrategyKind, style: Style) -> anyhow::Result<()> {
    let share = spelling.unknown_share();
    if share == 0.0 {
        return Ok(());
    }
    let remedy = match strategy {
        StrategyKind::Lora => {
            "write the texts as the model does (small letters?), or take --strategy full with --new-vocabulary N"
        }
        _ => {
            "write the texts as the model does (small letters?), or give it tokens of these texts: --new-vocabulary N"
        }
    };
    let message = format!(
        "{:.1} % of the characters cannot be spelled with the model's tokens: {}; {remedy}",
        100.0 * share,
        spelling.most_unknown(MANY_CHARACTERS)
    );
    if share > UNSPELLABLE {
        return Err(Usage(message).into());
    }
    style.note(&format!("warning: {message}. As it is, it learns that something unknown was said there"));
    Ok(())
}
