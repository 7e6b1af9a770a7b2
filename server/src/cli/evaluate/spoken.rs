//! The speech of a model, judged by what a recogniser hears in it beside what it hears in recordings.

use std::{collections::BTreeMap, fmt::Write as _, iter, path::Path, slice};

use audio::Waveform;
use recipes::{
    SETTING_COLUMNS,
    evaluate::Unheard,
    evaluate_speech::{Example, SpeechEvaluation, SpeechScores, SpokenReference, evaluate_speech},
    score_rows, setting_row, speech_failures, speech_page,
    text::Normaliser,
};
use serde::Serialize;

use super::{
    super::{
        output::{table, write_file},
        progress::{Items, Style},
    },
    report::tell_failed,
    to_speak::{Setting, ToSpeak},
};

/// Texts of a kind whose speech and recordings are kept, to be looked at.
const EXAMPLES_OF_KIND: usize = 2;

/// Says a text by a setting: the samples, or why there are none.
pub(in crate::cli) type Speak<'a> = dyn FnMut(Setting, &ToSpeak<'_>) -> Result<Waveform, models::Error> + 'a;
/// Writes down what is said, of a text that is spoken or recorded.
pub(in crate::cli) type Hear<'a> = dyn FnMut(&ToSpeak<'_>, &Waveform) -> Result<String, recipes::Error> + 'a;

/// A setting with what came of it.
#[derive(Serialize)]
pub(in crate::cli) struct Judged {
    #[serde(flatten)]
    pub(super) setting: Setting,
    pub(in crate::cli) scores: SpeechScores,
    #[serde(flatten)]
    pub(super) evaluation: SpeechEvaluation,
    /// What its examples refer to.
    #[serde(skip)]
    shown: Vec<SpokenReference>,
}

/// Hears the recordings once, and then the speech of every setting. Texts whose recordings cannot be read come with them, and count nowhere.
///
/// # Errors
/// Recordings of which none can be read, and a setting in which nothing could be spoken.
pub(in crate::cli) fn judge_all(
    texts: &[ToSpeak<'_>],
    settings: &[Setting],
    speak: &mut Speak<'_>,
    hear: &mut Hear<'_>,
    normalisers: &[Normaliser],
    style: Style,
) -> anyhow::Result<(Vec<Judged>, Vec<Unheard>)> {
    let (mut recorded, mut unread) = (Vec::with_capacity(texts.len()), Vec::new());
    let mut progress = Items::start(style, "listening to recordings", Some(texts.len()));
    for (index, text) in texts.iter().enumerate() {
        match text.read() {
            Ok(SpokenReference { name, waveform, .. }) => {
                let heard = hear(text, &waveform).map_err(|error| Unheard::new(&name, &error));
                recorded.push((text, heard));
            }
            Err(unheard) => unread.push(unheard),
        }
        progress.update(index + 1);
    }
    progress.clear();
    if recorded.is_empty() {
        anyhow::bail!("none of the recordings can be read{}", first_of(&unread));
    }
    let mut judged = Vec::with_capacity(settings.len());
    for setting in settings {
        let mut progress =
            Items::start(style, &format!("speaking, {}", setting.name()), Some(recorded.len()));
        let mut sum = Sum::default();
        for (index, (text, heard)) in recorded.iter().enumerate() {
            match text.read() {
                Ok(reference) => {
                    let one = evaluate_speech(
                        slice::from_ref(&reference),
                        slice::from_ref(heard),
                        &mut |_, _| speak(*setting, text),
                        &mut |waveform| hear(text, waveform),
                        &mut |_| {},
                    )?;
                    sum.add(reference, one);
                }
                Err(unheard) => sum.evaluation.failed.push(unheard),
            }
            progress.update(index + 1);
        }
        progress.clear();
        let Sum { evaluation, shown, .. } = sum;
        if evaluation.spoken.iter().all(|spoken| spoken.is_refused) {
            anyhow::bail!("nothing could be spoken and heard{}", first_of(&evaluation.failed));
        }
        let scores = evaluation.scores(normalisers)?;
        judged.push(Judged { setting: *setting, scores, evaluation, shown });
    }
    Ok((judged, unread))
}

/// Why the first of them failed, to be said after what that led to.
pub(in crate::cli) fn first_of(failed: &[Unheard]) -> String {
    failed.first().map(|unheard| format!(": {}: {}", unheard.name, unheard.reason)).unwrap_or_default()
}

/// What is known of a setting, text after text.
#[derive(Default)]
struct Sum {
    evaluation: SpeechEvaluation,
    shown: Vec<SpokenReference>,
    /// By their kinds.
    n_shown: BTreeMap<String, usize>,
}

impl Sum {
    /// Adds what was found of one text.
    fn add(&mut self, reference: SpokenReference, found: SpeechEvaluation) {
        let SpeechEvaluation { spoken, failed, busy_secs, audio_secs, examples } = found;
        let all = &mut self.evaluation;
        let n_before = all.spoken.len();
        all.spoken.extend(spoken);
        all.failed.extend(failed);
        all.busy_secs += busy_secs;
        all.audio_secs += audio_secs;
        let n_shown = self.n_shown.entry(reference.kind.clone()).or_default();
        if let Some(example) = examples.into_iter().next().filter(|_| *n_shown < EXAMPLES_OF_KIND) {
            *n_shown += 1;
            let (reference_place, spoken) = (self.shown.len(), n_before + example.spoken);
            all.examples.push(Example { reference: reference_place, spoken, ..example });
            self.shown.push(reference);
        }
    }
}

/// Tables: of the settings, and of the kinds of texts in each.
pub(in crate::cli) fn describe(judged: &[Judged], failed: &[Unheard]) -> String {
    let columns = SETTING_COLUMNS.map(str::to_owned);
    let rows = judged.iter().map(|one| setting_row(&one.setting.name(), &one.scores));
    let mut text = table(&iter::once(columns).chain(rows).collect::<Vec<_>>());
    for Judged { setting, scores, evaluation, .. } in judged {
        for report in &scores.reports {
            let _ = writeln!(text, "\n{}; normaliser: {}", setting.name(), report.normaliser);
            text += &table(&score_rows(report));
        }
        if let Some(told) = speech_failures(scores) {
            let _ = writeln!(text, "{told}");
        }
        tell_failed(&evaluation.failed, &mut text);
    }
    tell_failed(failed, &mut text);
    text
}

/// Writes `analysis.json` and `analysis.html`, with some of the speech to listen to.
///
/// # Errors
/// What the disk refuses.
pub(in crate::cli) fn write_speech(dir: &Path, model: &str, judged: &[Judged]) -> anyhow::Result<()> {
    write_file(&dir.join("analysis.json"), &(serde_json::to_string_pretty(judged)? + "\n"))?;
    let scores: Vec<_> = judged.iter().map(|one| (one.setting.name(), one.scores.clone())).collect();
    let page = match judged.first() {
        Some(first) => speech_page(&format!("Speech of {model}"), &scores, &first.evaluation, &first.shown)?,
        None => String::new(),
    };
    write_file(&dir.join("analysis.html"), &page)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        super::to_speak::fixtures::{cut, recording, to_speak, waveform},
        *,
    };

    #[test]
    fn every_setting_is_a_row_and_recordings_are_heard_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = recording(folder.path());
        let cuts = [
            cut("a", &path, Some("word"), "tent"),
            cut("x", &folder.path().join("nowhere.wav"), None, "tent"),
            cut("b", &path, Some("digits"), "one two"),
        ];
        let texts = cuts.each_ref().map(|cut| to_speak(cut, "v", None));
        let settings = [1, 4].map(|steps| Setting { steps: Some(steps), ..Setting::default() });
        let mut n_recorded = 0;
        // What has taken one step is half as long, and not understood.
        let mut hear = |_: &ToSpeak<'_>, waveform: &Waveform| {
            n_recorded += usize::from(waveform.samples.len() == 8_000);
            Ok(if waveform.samples.len() < 8_000 { "what".to_owned() } else { "tent".to_owned() })
        };
        let mut speak = |setting: Setting, _: &ToSpeak<'_>| {
            Ok(waveform(if setting.steps == Some(1) { 0.25 } else { 0.75 }))
        };
        let normalisers = [Normaliser::Basic, Normaliser::None];
        let (judged, unread) =
            judge_all(&texts, &settings, &mut speak, &mut hear, &normalisers, Style::new(true))
                .expect("judged");
        assert_eq!(n_recorded, 2);
        // What cannot be read is told, and counts nowhere.
        assert!(unread.len() == 1 && unread[0].name == "x" && unread[0].reason.contains("nowhere.wav"));
        assert_eq!((judged[0].evaluation.failed.len(), judged[0].scores.n_unheard), (0, 0));
        // The examples are known by what was recorded of them.
        let shown = |one: &Judged| {
            let places = one.evaluation.examples.iter().map(|example| (example.reference, example.spoken));
            let names: Vec<_> = one.shown.iter().map(|reference| reference.name.clone()).collect();
            (places.collect::<Vec<_>>(), names)
        };
        assert_eq!(shown(&judged[1]), (vec![(0, 0), (1, 1)], vec!["a".to_owned(), "b".to_owned()]));
        write_speech(folder.path(), "m", &judged).expect("written");
        let page = std::fs::read_to_string(folder.path().join("analysis.html")).expect("a page");
        assert_eq!(page.matches("<audio").count(), 4, "two spoken, two recorded");
        let rows = describe(&judged, &[Unheard { name: "c".to_owned(), reason: "is not there".to_owned() }]);
        let lines: Vec<_> = rows.lines().collect();
        assert!(lines[0].contains("x real time") && lines[0].contains("cepstral distortion"), "{rows}");
        assert!(lines[1].starts_with("1 step ") && lines[1].contains("100.00 %"), "{rows}");
        assert!(lines[2].starts_with("4 steps ") && lines[2].contains("66.67 %"), "{rows}");
        for told in ["1 step; normaliser: basic", "1 step; normaliser: none", "WER recorded"] {
            assert!(rows.contains(told), "{told}: {rows}");
        }
        assert!(rows.ends_with("Not decoded: c: is not there\n"), "{rows}");
        let json: Value = serde_json::to_value(&judged).expect("JSON");
        let report = &json[1]["scores"]["reports"][0];
        assert_eq!(
            (&json[1]["steps"], &report["normaliser"], &report["kinds"][1]["kind"]),
            (&4.into(), &"basic".into(), &"word".into())
        );
        assert_eq!(
            (&json[1]["spoken"][0]["heard"], &json[1]["failed"]),
            (&"tent".into(), &Value::Array(Vec::new()))
        );

        let mut unmoved = |_: &ToSpeak<'_>, _: &Waveform| Ok(String::new());
        let mut mute = |_: Setting, _: &ToSpeak<'_>| Err(models::Error::Cancelled);
        let refused = judge_all(&texts, &settings, &mut mute, &mut unmoved, &normalisers, Style::new(true));
        assert!(
            refused
                .err()
                .is_some_and(|error| error.to_string().contains("nothing could be spoken and heard: a: "))
        );
        // One that is refused is counted, and told.
        let mut half = |_: Setting, text: &ToSpeak<'_>| match &*text.cut.text {
            "tent" => Ok(waveform(0.75)),
            _ => Err(models::Error::Cancelled),
        };
        let mut tent = |_: &ToSpeak<'_>, _: &Waveform| Ok("tent".to_owned());
        let (judged, _) =
            judge_all(&texts, &settings[..1], &mut half, &mut tent, &normalisers, Style::new(true))
                .expect("judged");
        let rows = describe(&judged, &[]);
        assert!(rows.contains("1 text could not be spoken") && rows.contains("Not decoded: b: "), "{rows}");
        assert_eq!(judged[0].scores.n_refused, 1);
        let refused =
            judge_all(&texts[1..2], &settings, &mut half, &mut tent, &normalisers, Style::new(true));
        let message = refused.err().expect("nothing can be read").to_string();
        assert!(message.starts_with("none of the recordings can be read: x: "), "{message}");
    }
}
