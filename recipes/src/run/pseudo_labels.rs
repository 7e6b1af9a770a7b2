//! What a teacher writes of recordings, in the place of their texts, where it is near enough to them (Distil-Whisper, arXiv
//! 2311.00430, section 4). Written down as it comes, so that a run that was stopped goes on with it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use audio::DecodeAudio;
use models::{DecodeOptions, Transcriber};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DATA, Progress};
use crate::Error;
use crate::config::RunConfig;
use crate::data::{Cut, hex, read_cut_at};
use crate::evaluate::{Reference, Unheard, evaluate};
use crate::metrics::word_errors;
use crate::text::TextNormaliser;

const NAME: &str = "pseudo-labels.jsonl";
/// Recordings that are heard before what was heard is written down.
const TOGETHER: usize = 64;
/// Shares at which it is told how much would be kept.
const TOLD: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];

/// A line of the file: which cut, by its place, and what the teacher wrote; nothing where it could not be heard.
#[derive(Serialize, Deserialize)]
struct Label {
    cut: usize,
    text: Option<String>,
}

/// The first line: whose labels of which cuts these are.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    teacher: String,
    cuts: String,
}

/// The cuts of which `teacher` writes what is there to be learnt, with that in the place of their texts. Those whose text it misses
/// by a word error rate of `strategy.distil.max_wer` and more are left out, and so are those in which it shouts: capitals alone
/// are what large models write when they have lost the thread.
///
/// # Errors
/// What the disk refuses; `stop` said so.
pub(super) fn pseudo_labels(
    cuts: Vec<Cut>,
    teacher: &Transcriber,
    config: &RunConfig,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Vec<Cut>, Error> {
    let texts = labels(&cuts, teacher, config, dir, stop, tell)?;
    let (max_wer, n_all) = (config.strategy.distil.max_wer, cuts.len());
    let normaliser = TextNormaliser::new(config.evaluate.normaliser).map_err(crate::metrics::Error::from)?;
    let hours = |cuts: &mut dyn Iterator<Item = f64>| cuts.sum::<f64>() / 3600.0;
    let all_hours = hours(&mut cuts.iter().map(|cut| cut.duration_secs));
    let (mut kept, mut rates) = (Vec::new(), Vec::new());
    let (mut n_errors, mut n_words) = (0, 0);
    for (index, cut) in cuts.into_iter().enumerate() {
        let Some(text) = texts.get(&index) else { continue };
        let text = text.trim();
        let errors = word_errors(normaliser.apply(&cut.text).trim(), normaliser.apply(text).trim());
        (n_errors, n_words) = (n_errors + errors.errors(), n_words + errors.n_reference);
        if cut.text.trim().is_empty() || is_shouted(text) {
            continue;
        }
        rates.push((errors.rate(), cut.duration_secs));
        if errors.rate() < max_wer {
            kept.push(Cut { text: text.into(), ..cut });
        }
    }
    let share = |limit: f64| {
        let kept = hours(&mut rates.iter().filter(|(rate, _)| *rate < limit).map(|(_, secs)| *secs));
        format!("{kept:.2} h below {:.0} %", 100.0 * limit)
    };
    tell(Progress::Note(&format!(
        "the teacher writes {n_all} recordings, {all_hours:.2} h, with a word error rate of {:.1} % against their texts ({}); \
         {} of them, {:.2} h, are below strategy.distil.max_wer = {max_wer} ({})",
        100.0 * n_errors as f64 / f64::max(n_words as f64, 1.0),
        config.evaluate.normaliser.name(),
        kept.len(),
        hours(&mut kept.iter().map(|cut| cut.duration_secs)),
        TOLD.map(share).join(", "),
    )));
    if kept.is_empty() {
        let message =
            format!("{max_wer} leaves nothing to learn: raise it, or 0 to learn the texts as they are");
        return Err(Error::config("strategy.distil.max_wer", message));
    }
    Ok(kept)
}

fn is_shouted(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// What the teacher wrote of the cuts that it could hear.
fn labels(
    cuts: &[Cut],
    teacher: &Transcriber,
    config: &RunConfig,
    dir: &Path,
    stop: &AtomicBool,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<BTreeMap<usize, String>, Error> {
    let folder = dir.join(DATA);
    fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
    let path = folder.join(NAME);
    let header = Header { teacher: config.model.base.clone(), cuts: digest(cuts) };
    let mut known = read(&path, &header).unwrap_or_default();
    let refuse = |error: std::io::Error| Error::file(&path, error);
    let mut file = if known.is_empty() {
        let mut file = File::create(&path).map_err(refuse)?;
        writeln!(file, "{}", json(&header)?).map_err(refuse)?;
        file
    } else {
        OpenOptions::new().append(true).open(&path).map_err(refuse)?
    };
    let missing: Vec<usize> = (0..cuts.len()).filter(|index| !known.contains_key(index)).collect();
    let mut n_done = cuts.len() - missing.len();
    for some in missing.chunks(TOGETHER) {
        tell(Progress::Labelling { n_done, n_all: cuts.len() });
        if stop.load(Ordering::Relaxed) {
            let message = format!(
                "stopped when the teacher had written {n_done} of {} recordings; the same command goes on",
                cuts.len()
            );
            return Err(Error::config("strategy.distil", message));
        }
        let heard = hear(cuts, some, teacher, config);
        for (index, text) in heard {
            writeln!(file, "{}", json(&Label { cut: index, text: text.clone() })?).map_err(refuse)?;
            known.insert(index, text);
        }
        file.sync_data().map_err(refuse)?;
        n_done += some.len();
    }
    Ok(known.into_iter().filter_map(|(index, text)| Some((index, text?))).collect())
}

fn hear(
    cuts: &[Cut],
    some: &[usize],
    teacher: &Transcriber,
    config: &RunConfig,
) -> Vec<(usize, Option<String>)> {
    let (sample_rate, is_told) =
        (teacher.feature_spec().sample_rate, teacher.special_tokens().is_multilingual);
    let language = |cut: &Cut| {
        let stated = cut.language.as_deref().or(Some(config.data.language.as_str()));
        stated.filter(|code| is_told && !code.is_empty()).map(str::to_owned)
    };
    let references = some.iter().map(|index| {
        let (cut, name) = (&cuts[*index], index.to_string());
        let waveform = read_cut_at(cut, sample_rate, &DecodeAudio::default())
            .map_err(|error| Unheard::new(&name, &error))?;
        Ok(Reference { name, waveform, text: cut.text.to_string(), language: language(cut) })
    });
    // Greedy is as good as a beam here (Distil-Whisper, section 4), and nothing is drawn.
    let options = DecodeOptions { beam_size: Some(1), fallback: false, ..DecodeOptions::default() };
    let evaluation = evaluate(teacher, references, &options, &mut |_| {});
    let texts: BTreeMap<String, String> =
        evaluation.heard.into_iter().map(|heard| (heard.name, heard.hypothesis)).collect();
    some.iter().map(|index| (*index, texts.get(&index.to_string()).cloned())).collect()
}

/// What a file holds of these cuts by this teacher; a last line that was cut off counts for nothing.
fn read(path: &Path, header: &Header) -> Option<BTreeMap<usize, Option<String>>> {
    let mut lines = BufReader::new(File::open(path).ok()?).lines();
    let first: Header = serde_json::from_str(&lines.next()?.ok()?).ok()?;
    if first != *header {
        return None;
    }
    let labels = lines.map_while(Result::ok).map_while(|line| serde_json::from_str::<Label>(&line).ok());
    Some(labels.map(|label| (label.cut, label.text)).collect())
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::config("strategy.distil", error.to_string()))
}

fn digest(cuts: &[Cut]) -> String {
    let mut hash = Sha256::new();
    for cut in cuts {
        hash.update(format!("{} {} {} {}\n", cut.id, cut.audio.display(), cut.start_secs, cut.duration_secs));
    }
    hex(&hash.finalize())
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
    fn labels_of_other_cuts_or_another_teacher_are_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let header =
            |teacher: &str, cuts: &str| Header { teacher: teacher.to_owned(), cuts: cuts.to_owned() };
        let own = header("a", "b");
        let lines = [
            json(&own).expect("JSON"),
            r#"{"cut":3,"text":"one"}"#.to_owned(),
            r#"{"cut":5,"text":null}"#.to_owned(),
            r#"{"cut":7,"te"#.to_owned(),
        ];
        fs::write(&path, lines.join("\n")).expect("written");
        let known = read(&path, &own).expect("labels");
        assert_eq!(known, BTreeMap::from([(3, Some("one".to_owned())), (5, None)]));
        assert!(read(&path, &header("c", "b")).is_none() && read(&path, &header("a", "c")).is_none());
        assert!(read(&folder.path().join("none"), &own).is_none());
    }
}
