//! What a teacher writes of recordings, in the place of their texts, where it is near enough to them (Distil-Whisper, arXiv
//! 2311.00430, section 4). Written down as it comes, so that a run that was stopped goes on with it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use audio::DecodeAudio;
use models::{DecodeOptions, Transcriber};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::folder::write_whole;
use super::model::longest_secs;
use super::{DATA, Progress};
use crate::Error;
use crate::config::RunConfig;
use crate::data::{Cut, hex, read_cut_at};
use crate::evaluate::{Evaluation, Reference, Unheard, evaluate};
use crate::metrics::word_errors;
use crate::text::TextNormaliser;

const NAME: &str = "pseudo-labels.jsonl";
/// Recordings that are heard before what was heard is written down.
const TOGETHER: usize = 8;
/// Shares at which it is told how much would be kept.
const TOLD: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];

/// A line of the file: of which recording, and what the teacher wrote.
#[derive(Serialize, Deserialize)]
struct Label {
    cut: String,
    text: String,
}

/// The first line: whose labels these are, and by which settings.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    teacher: String,
    /// Lengths of its files and when they were written; empty where it has none of its own.
    files: Vec<(u64, u64)>,
    /// What is made of it before it writes.
    settings: String,
}

/// What the teacher wrote of the cuts, by their place, and the recordings that it could not hear.
#[derive(Default)]
struct Labels {
    texts: BTreeMap<usize, String>,
    unheard: Vec<Unheard>,
}

/// The cuts of which `teacher` writes what is there to be learnt, with that in the place of their texts. Those whose text it misses
/// by a word error rate of `strategy.distil.max_wer` and more are left out, and so are those in which it shouts where the text does
/// not: capitals alone are what large models write when they have lost the thread. Cuts longer than `max_secs` are not heard:
/// no batch would take them.
///
/// # Errors
/// What the disk refuses; [`Error::Stopped`] when `stop` said so; nothing that could be heard, nothing that is left.
pub(super) fn pseudo_labels(
    cuts: Vec<Cut>,
    teacher: &Transcriber,
    config: &RunConfig,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Vec<Cut>, Error> {
    let max_secs = longest_secs(&config.sampler, teacher.window_secs());
    let n_before = cuts.len();
    let cuts: Vec<Cut> = cuts.into_iter().filter(|cut| cut.duration_secs <= max_secs).collect();
    if cuts.len() < n_before {
        let n_long = n_before - cuts.len();
        tell(Progress::Note(&format!(
            "the teacher does not hear {n_long} recordings of more than {max_secs} s"
        )));
    }
    let Labels { texts, unheard } = labels(&cuts, teacher, config, dir, stop, tell)?;
    if let Some(Unheard { name, reason }) = unheard.first() {
        let (n, n_all) = (unheard.len(), cuts.len());
        if texts.is_empty() {
            let message =
                format!("the teacher can hear none of {n_all} recordings; the first: {name}: {reason}");
            return Err(Error::config("data.train", message));
        }
        tell(Progress::Note(&format!(
            "left out: {n} recordings that the teacher could not hear, and is asked about again the next time; the first: {name}: {reason}"
        )));
    }
    let distil = &config.strategy.distil;
    let normaliser = TextNormaliser::new(distil.normaliser).map_err(crate::metrics::Error::from)?;
    let hours = |secs: f64| secs / 3600.0;
    let all_secs: f64 = texts.keys().map(|index| cuts[*index].duration_secs).sum();
    let (mut kept, mut rates) = (Vec::new(), Vec::new());
    let (mut n_errors, mut n_words, mut n_shouted) = (0, 0, 0);
    for (index, text) in &texts {
        let (cut, text) = (&cuts[*index], text.trim());
        let reference = normaliser.apply(&cut.text);
        let errors = word_errors(reference.trim(), normaliser.apply(text).trim());
        (n_errors, n_words) = (n_errors + errors.errors(), n_words + errors.n_reference);
        if is_shouted(text) && !is_shouted(&cut.text) {
            n_shouted += 1;
            continue;
        }
        // Where one of them is empty the other is all error; where both are, there is silence to learn from, if it was kept.
        let rate = match (reference.trim().is_empty(), text.is_empty()) {
            (true, true) => 0.0,
            (true, false) | (false, true) => f64::INFINITY,
            (false, false) => errors.rate(),
        };
        rates.push((rate, cut.duration_secs));
        if rate < distil.max_wer {
            kept.push(Cut { text: text.into(), ..cut.clone() });
        }
    }
    // From 0, which an empty sum of floats is not: it is -0.
    let total = |secs: &mut dyn Iterator<Item = f64>| secs.fold(0.0, |sum, secs| sum + secs);
    let below =
        |limit: f64| total(&mut rates.iter().filter(|(rate, _)| *rate < limit).map(|(_, secs)| *secs));
    let share = |limit: f64| format!("{:.2} h below {:.0} %", hours(below(limit)), 100.0 * limit);
    let shouted = match n_shouted {
        0 => String::new(),
        n => format!("; {n} in capitals alone count as none"),
    };
    tell(Progress::Note(&format!(
        "the teacher wrote {} recordings, {:.2} h, with a word error rate of {:.1} % against their texts ({}): {}{shouted}. {} of \
         them, {:.2} h, are below strategy.distil.max_wer = {}",
        texts.len(),
        hours(all_secs),
        100.0 * n_errors as f64 / f64::max(n_words as f64, 1.0),
        distil.normaliser.name(),
        TOLD.map(share).join(", "),
        kept.len(),
        hours(total(&mut kept.iter().map(|cut| cut.duration_secs))),
        distil.max_wer,
    )));
    if kept.is_empty() {
        let message = format!(
            "{} leaves nothing to learn: raise it, or 0 to learn the texts as they are",
            distil.max_wer
        );
        return Err(Error::config("strategy.distil.max_wer", message));
    }
    Ok(kept)
}

fn is_shouted(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// What the teacher wrote, or writes now.
fn labels(
    cuts: &[Cut],
    teacher: &Transcriber,
    config: &RunConfig,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Labels, Error> {
    let folder = dir.join(DATA);
    fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
    let path = folder.join(NAME);
    let refuse = |error: std::io::Error| Error::file(&path, error);
    let header = Header::of(config)?;
    let known = match read(&path, &header) {
        Some(known) => known,
        None => {
            if path.exists() {
                tell(Progress::Note(
                    "what was labelled here before is of another teacher or by other settings: all is labelled anew",
                ));
            }
            BTreeMap::new()
        }
    };
    // Written anew, so that a last line that was cut off is gone.
    let lines = known.iter().map(|(cut, text)| json(&Label { cut: cut.clone(), text: text.clone() }));
    let lines = [json(&header)].into_iter().chain(lines).collect::<Result<Vec<_>, _>>()?;
    write_whole(&path, &lines.concat())?;
    let mut file = OpenOptions::new().append(true).open(&path).map_err(refuse)?;
    let mut labels = Labels::default();
    let mut missing = Vec::new();
    for (index, cut) in cuts.iter().enumerate() {
        match known.get(&key(cut, config)) {
            Some(text) => drop(labels.texts.insert(index, text.clone())),
            None => missing.push(index),
        }
    }
    for some in missing.chunks(TOGETHER) {
        let n_done = labels.texts.len() + labels.unheard.len();
        tell(Progress::Labelling { n_done, n_all: cuts.len() });
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped(format!(
                "the teacher has written {n_done} of {} recordings; the same command goes on",
                cuts.len()
            )));
        }
        let evaluation = hear(cuts, some, teacher, config);
        for heard in evaluation.heard {
            // Names are places.
            let Ok(index) = heard.name.parse::<usize>() else { continue };
            let label = Label { cut: key(&cuts[index], config), text: heard.hypothesis };
            file.write_all(json(&label)?.as_bytes()).map_err(refuse)?;
            labels.texts.insert(index, label.text);
        }
        file.sync_data().map_err(refuse)?;
        labels.unheard.extend(evaluation.failed.into_iter().map(|unheard| Unheard {
            name: unheard.name.parse::<usize>().map_or(unheard.name, |index| cuts[index].id.to_string()),
            reason: unheard.reason,
        }));
    }
    Ok(labels)
}

fn hear(cuts: &[Cut], some: &[usize], teacher: &Transcriber, config: &RunConfig) -> Evaluation {
    let (sample_rate, is_told) =
        (teacher.feature_spec().sample_rate, teacher.special_tokens().is_multilingual);
    let references = some.iter().map(|index| {
        let (cut, name) = (&cuts[*index], index.to_string());
        let waveform = read_cut_at(cut, sample_rate, &DecodeAudio::default())
            .map_err(|error| Unheard::new(&name, &error))?;
        let language = language_of(cut, config).filter(|_| is_told).map(str::to_owned);
        Ok(Reference { name, waveform, text: cut.text.to_string(), language, to_language: None })
    });
    // Greedy is as good as a beam here (Distil-Whisper, section 4), and nothing is drawn.
    let options = DecodeOptions { beam_size: Some(1), fallback: false, ..DecodeOptions::default() };
    evaluate(teacher, references, &options, &mut |_| {})
}

fn language_of<'a>(cut: &'a Cut, config: &'a RunConfig) -> Option<&'a str> {
    cut.language.as_deref().or(Some(config.data.language.as_str())).filter(|code| !code.is_empty())
}

/// What decides what a teacher hears of a cut. Recordings may move.
fn key(cut: &Cut, config: &RunConfig) -> String {
    let language = language_of(cut, config).unwrap_or_default();
    let Cut { id, start_secs, duration_secs, channel, .. } = cut;
    hex(&Sha256::digest(format!("{id} {start_secs} {duration_secs} {channel:?} {language}")))
}

impl Header {
    fn of(config: &RunConfig) -> Result<Self, Error> {
        let model = &config.model;
        let base = Path::new(&model.base);
        let mut files = Vec::new();
        for entry in fs::read_dir(base).into_iter().flatten() {
            let metadata =
                entry.and_then(|entry| entry.metadata()).map_err(|error| Error::file(base, error))?;
            let written = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            files.push((metadata.len(), written.unwrap_or_default().as_secs()));
        }
        files.sort_unstable();
        Ok(Self {
            teacher: model.base.clone(),
            files,
            settings: format!("{:?} {} {:?}", model.variable_length, model.like, config.data.language),
        })
    }
}

/// What a file holds by this teacher, by what it is of; lines that are none are passed over.
fn read(path: &Path, header: &Header) -> Option<BTreeMap<String, String>> {
    let mut lines = BufReader::new(File::open(path).ok()?).lines();
    let first: Header = serde_json::from_str(&lines.next()?.ok()?).ok()?;
    if first != *header {
        return None;
    }
    let labels = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str::<Label>(&line).ok());
    Some(labels.map(|label| (label.cut, label.text)).collect())
}

/// A line.
fn json(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string(value);
    Ok(text.map_err(|error| Error::config("strategy.distil", error.to_string()))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_alone_are_shouted() {
        for (text, is) in
            [("ABC", true), ("ABC 12!", true), ("Abc", false), ("12", false), ("", false), ("یو", false)]
        {
            assert_eq!(is_shouted(text), is, "{text}");
        }
    }

    #[test]
    fn labels_of_another_teacher_are_not_taken_and_broken_lines_cost_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let header = |teacher: &str| Header {
            teacher: teacher.to_owned(),
            files: vec![(3, 4)],
            settings: "x".to_owned(),
        };
        let own = header("a");
        let line = |cut: &str| json(&Label { cut: cut.to_owned(), text: "one".to_owned() }).expect("JSON");
        let lines = [json(&own).expect("JSON"), line("c"), "{\"cut\":\"d\",\"te\n".to_owned(), line("e")];
        fs::write(&path, lines.concat()).expect("written");
        let known = read(&path, &own).expect("labels");
        assert_eq!(known.keys().collect::<Vec<_>>(), ["c", "e"]);
        assert!(read(&path, &header("b")).is_none() && read(&folder.path().join("none"), &own).is_none());
    }
}
