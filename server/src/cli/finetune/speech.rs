//! What became of a voice: held-out losses, and what a recogniser understands of its speech.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail};
use models::{BundleSource, Synthesizer, Voice, flow_lm::FlowLmConfig};
use recipes::{
    config::RunConfig,
    data::manifest::Cut,
    metrics_log::{JSONL_NAME, Scalar, read_scalars},
    run::Outcome,
    task::Figures,
    text::Normaliser,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    super::{
        evaluate::{
            judge::SpeechJudge,
            spoken::{describe, first_of, judge_all, write_speech},
            to_speak::{Setting, say, texts_to_speak, voice_of},
        },
        output::{print, table, write_file},
        progress::Style,
        speak::load_speaker,
    },
    go_on,
};
use crate::{compute::Compute, registry};

/// Where some of the speech lies in the run's folder.
const SPEECH: &str = "speech";
/// What is kept in it for programs.
const REPORT: &str = "finetune.json";

/// A recogniser that will judge.
pub(super) struct Recogniser<'a> {
    pub(super) name: &'a str,
    pub(super) source: BundleSource,
    pub(super) compute: Compute,
    pub(super) language: &'a str,
}

impl Recogniser<'_> {
    /// Loads it, and makes sure that it hears the language.
    pub(super) fn load(&self, style: Style) -> anyhow::Result<SpeechJudge> {
        SpeechJudge::load(self.name, self.source.clone(), &self.compute, Some(self.language), None, style)
            .with_context(|| format!("--judge {}", self.name))
    }
}

/// What is kept of it for programs: `finetune.json`.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    language: &'a str,
    /// Empty for a new voice.
    base: &'a str,
    n_steps: u64,
    n_parameters: usize,
    hours: f64,
    /// The first evaluation, and after how many updates it was.
    first: (u64, Figures),
    /// Of the voice that is kept.
    figures: &'a Figures,
    /// SHA-256 of its files, by their names: what was judged of others says nothing of it.
    model: BTreeMap<String, String>,
    /// What the recogniser understands of its speech, the last one that was asked.
    judged: Option<Value>,
}

impl<'a> Report<'a> {
    /// Of a run in `out` that is complete.
    pub(super) fn new(
        config: &'a RunConfig,
        outcome: &Outcome,
        (model, figures): (&Path, &'a Figures),
        out: &Path,
    ) -> anyhow::Result<Self> {
        let files = registry::files(&model.into())?;
        let model = files.into_iter().map(|file| (file.name, file.sha256)).collect();
        Ok(Self {
            language: &config.data.language,
            base: &config.model.base,
            n_steps: outcome.state.step,
            n_parameters: outcome.n_parameters,
            hours: outcome.state.busy_secs / 3600.0,
            first: first_figures(&read_scalars(&out.join(JSONL_NAME))?),
            figures,
            judged: judged_before(out, outcome.state.step, &model),
            model,
        })
    }

    /// Writes it into the run's folder.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<()> {
        write_file(&out.join(REPORT), &(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// Says how the voice is used.
    pub(super) fn tell_use(&self, model: &Path, style: Style) -> anyhow::Result<()> {
        let (language, config) = (self.language, FlowLmConfig::read(&model.into())?);
        let model = model.display();
        style.note(&format!("its voices: {}", config.voices.join(", ")));
        style.note(&format!("try it:   speechd speak TEXT --language {language} -o out.wav --model {model}"));
        style.note(&format!("serve it: speechd serve --model {language}={model}"));
        if config.vocoder.is_none() {
            style.note("it has no vocoder, and sounds hollow: the same command with --vocoder gives it one");
        }
        Ok(())
    }

    /// Lets the recogniser hear it say held-out texts, beside the recordings of these. `is_one_voice`: what it learnt from names no speakers.
    pub(super) fn judge(
        &mut self,
        recogniser: &Recogniser<'_>,
        model: &Path,
        test: &[Cut],
        out: &Path,
        is_one_voice: bool,
        (stop, style): (&AtomicBool, Style),
    ) -> anyhow::Result<()> {
        // What is to be told of it was told at the start.
        let judge = recogniser.load(Style::new(true))?;
        let name = model.display().to_string();
        let synthesizer = load_speaker(&name, &model.into(), recogniser.compute.device())?;
        let first = synthesizer.voices().first().map(Voice::name);
        let voice = |cut: &Cut| {
            let own = cut.speaker.as_deref().and_then(|speaker| voice_of(&synthesizer, speaker));
            let name = own.map(Voice::name).or(first);
            name.map(str::to_owned).ok_or_else(|| "the voice has no recording to speak by".to_owned())
        };
        let n_by_first = n_by_others(test, &synthesizer, is_one_voice);
        if n_by_first > 0 {
            style.note(&format!(
                "{n_by_first} of the {} held-out texts are by nobody who became a voice, and spoken in the first one: how far speech and \
                 recording are apart says nothing there",
                test.len()
            ));
        }
        let language = Some(recogniser.language);
        let (texts, mut failed) = texts_to_speak(test, language, &voice);
        if texts.is_empty() {
            bail!("there is nothing to speak{}", first_of(&failed));
        }
        let is_stopped = || stop.load(Ordering::Relaxed);
        let judged = judge_all(
            &texts,
            &[Setting::default()],
            &mut |setting, text| match is_stopped() {
                true => Err(models::Error::Cancelled),
                false => say(&synthesizer, setting, text),
            },
            &mut |text, waveform| match is_stopped() {
                true => Err(models::Error::Cancelled.into()),
                false => judge.hear(text, waveform),
            },
            Normaliser::of_language(language),
            style,
        );
        go_on(stop)?;
        let (judged, unread) = judged?;
        failed.extend(unread);
        write_speech(&out.join(SPEECH), &name, &judged)?;
        print(&format!("\n{}", describe(&judged, &failed)))?;
        style.note(&format!("some of the speech: {}", out.join(SPEECH).join("analysis.html").display()));
        self.judged = judged.first().map(|one| serde_json::to_value(&one.scores)).transpose()?;
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (step, first) = &self.first;
        let told = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let mut rows = vec![[
            "HELD-OUT".to_owned(),
            format!("AFTER {step} UPDATES"),
            "OF THE VOICE THAT IS KEPT".to_owned(),
        ]];
        rows.extend(
            self.figures.iter().map(|(name, value)| [name.clone(), told(first.get(name)), told(Some(value))]),
        );
        f.write_str(&table(&rows))
    }
}

/// What a recogniser understood of the same voice when this was last written into the run's folder.
fn judged_before(out: &Path, n_steps: u64, model: &BTreeMap<String, String>) -> Option<Value> {
    let kept: Value = serde_json::from_slice(&fs::read(out.join(REPORT)).ok()?).ok()?;
    let is_same = kept["n_steps"] == n_steps && kept["model"] == serde_json::to_value(model).ok()?;
    kept.get("judged").filter(|judged| is_same && !judged.is_null()).cloned()
}

/// How many of these are by nobody who became a voice.
fn n_by_others(cuts: &[Cut], synthesizer: &Synthesizer, is_one_voice: bool) -> usize {
    let is_other = |cut: &&Cut| match cut.speaker.as_deref() {
        Some(speaker) => voice_of(synthesizer, speaker).is_none(),
        // Where nobody is named all are one's.
        None => !is_one_voice,
    };
    cuts.iter().filter(is_other).count()
}

/// What the first evaluation of a run found, and after how many updates.
fn first_figures(scalars: &[Scalar]) -> (u64, Figures) {
    let held_out =
        || scalars.iter().filter_map(|one| Some((one.step, one.name.strip_prefix("dev/")?, one.value)));
    let first = held_out().map(|(step, ..)| step).min().unwrap_or_default();
    let of_first = held_out().filter(|(step, ..)| *step == first);
    (first, of_first.map(|(_, name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_judged_stays_as_long_as_it_is_the_same_voice() {
        let out = tempfile::tempdir().expect("a folder");
        let model = BTreeMap::from([("model.safetensors".to_owned(), "00".to_owned())]);
        assert_eq!(judged_before(out.path(), 7, &model), None);
        let figures = Figures::new();
        let mut report = Report {
            language: "xx",
            base: "",
            n_steps: 7,
            n_parameters: 7,
            hours: 0.1,
            first: (0, Figures::new()),
            figures: &figures,
            model: model.clone(),
            judged: None,
        };
        report.write(out.path()).expect("written");
        assert_eq!(judged_before(out.path(), 7, &model), None, "nobody judged it");
        report.judged = Some(serde_json::json!({ "n_refused": 0 }));
        report.write(out.path()).expect("written");
        assert_eq!(judged_before(out.path(), 7, &model), report.judged);
        assert_eq!(judged_before(out.path(), 8, &model), None);
        assert_eq!(judged_before(out.path(), 7, &BTreeMap::new()), None);
    }

    #[test]
    fn who_became_no_voice_is_counted_and_where_nobody_is_named_all_are_one() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/flow-lm");
        let synthesizer =
            Synthesizer::load(&Path::new(fixture).into(), &models::Device::Cpu).expect("a model");
        let cut = |speaker: Option<&str>| Cut {
            id: "a".into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 1.0,
            channel: None,
            text: "no".into(),
            language: None,
            speaker: speaker.map(Into::into),
            target_text: None,
            target_language: None,
            extra: None,
        };
        let cuts = [Some("anna"), Some("x/ben"), Some("carl"), None, None].map(cut);
        assert_eq!([false, true].map(|is_one| n_by_others(&cuts, &synthesizer, is_one)), [3, 1]);
    }

    #[test]
    fn the_first_evaluation_stands_beside_what_is_kept() {
        let scalar = |step: u64, name: &str, value: f64| Scalar {
            step,
            wall_time_secs: 0.0,
            name: name.to_owned(),
            value,
        };
        let scalars = [
            scalar(1, "train/loss", 9.0),
            scalar(500, "dev/flow", 1.5),
            scalar(500, "dev/end", 0.25),
            scalar(1000, "dev/flow", 0.5),
        ];
        let (step, first) = first_figures(&scalars);
        let figures = Figures::from([("flow".to_owned(), 0.5), ("alignment".to_owned(), 2.0)]);
        let report = Report {
            language: "xx",
            base: "",
            n_steps: 1000,
            n_parameters: 7,
            hours: 0.1,
            first: (step, first),
            figures: &figures,
            model: BTreeMap::new(),
            judged: None,
        };
        let text = report.to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..4], ["HELD-OUT", "AFTER", "500", "UPDATES"]);
        assert_eq!(lines[1..], [vec!["alignment", "-", "2.0000"], vec!["flow", "1.5000", "0.5000"]]);
        assert_eq!(first_figures(&[]), (0, Figures::new()));
    }
}
