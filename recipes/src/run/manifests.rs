//! From what a recipe names to cuts: manifests, and corpora that become manifests when they are first asked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use audio::DecodeAudio;
use audio::augment::{ImpulseResponse, Sources};
use sha2::{Digest, Sha256};

use super::{DATA, Progress};
use crate::Error;
use crate::config::RunConfig;
use crate::data::manifest::{self, Cut, Needs};
use crate::data::{Translations, hex, read_cut_at};
use crate::prepare::{self, Set, Split, SynthesisOptions};

/// The cuts of manifests, and of parts of corpora that are known by name, as they are learnt or, without `translations`, as they stand
/// there, and how many there are of each.
pub(super) fn read_cuts(
    entries: &[String],
    what: &str,
    needs: Needs,
    translations: Option<Translations>,
    config: &RunConfig,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<(Vec<Cut>, Vec<usize>), Error> {
    let mut sets = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = manifest_of(entry, what, &config.data.language, dir, tell)?;
        let mut read = manifest::read(&path, needs)?;
        read.rejected.iter().for_each(|rejected| tell(Progress::Rejected(rejected)));
        // The glossary asks for the language.
        if config.data.force_language {
            force_language(&mut read.cuts, &config.data.language);
        }
        // What is heard alone has no use for a translation.
        if translations.is_some_and(|translations| translations != Translations::Off) {
            config.data.glossary.apply(&mut read.cuts);
        }
        sets.push(read.cuts);
    }
    let targets = sets.iter().flatten().filter_map(|cut| cut.target_language.clone());
    let targets: Vec<_> = targets.collect::<BTreeSet<_>>().into_iter().collect();
    let (mut cuts, mut counts) = (Vec::new(), Vec::new());
    for set in sets {
        let learnt = match translations {
            None => set,
            Some(translations) => translations.apply(set, &targets),
        };
        counts.push(learnt.len());
        cuts.extend(learnt);
    }
    Ok((cuts, counts))
}

/// How often each cut is used in an epoch, of manifests of so many cuts; none is once.
pub(super) fn weights_of_cuts(config: &RunConfig, counts: &[usize]) -> Vec<f32> {
    let weights = config.data.weights.iter().zip(counts);
    weights.flat_map(|(weight, count)| std::iter::repeat_n(*weight as f32, *count)).collect()
}

/// The recordings that augmentation draws from, at the rate at which the model hears.
pub(super) fn sources(
    config: &RunConfig,
    sample_rate: u32,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Sources, Error> {
    let needs = Needs { text: false, recording: true, ..Needs::default() };
    let mut read = |entries: &[String], what: &str| -> Result<Vec<_>, Error> {
        let (cuts, _) = read_cuts(entries, what, needs, None, config, dir, tell)?;
        let waveform =
            |cut: &Cut| Ok((read_cut_at(cut, sample_rate, &DecodeAudio::default())?, cut.id.clone()));
        cuts.iter().map(waveform).collect()
    };
    // What is switched off is not read.
    let augment = &config.augment;
    let noises: &[_] = if augment.noise.probability > 0.0 { &config.data.noises } else { &[] };
    let rooms: &[_] = if augment.reverb.probability > 0.0 { &config.data.rooms } else { &[] };
    let noises = read(noises, "data.noises")?;
    let rooms = read(rooms, "data.rooms")?.into_iter().map(|(response, id)| {
        let refuse = |error: audio::Error| Error::config("data.rooms", format!("{id}: {error}"));
        ImpulseResponse::recorded(response).map_err(refuse)
    });
    Ok(Sources {
        noises: noises.into_iter().map(|(noise, _)| noise).collect(),
        impulse_responses: rooms.collect::<Result<_, _>>()?,
    })
}

/// Makes a language that of all cuts, whatever their corpus calls it: `ps_af`, `Pashto`, or that of a neighbour.
pub fn force_language(cuts: &mut [Cut], language: &str) {
    let language: Arc<str> = language.into();
    cuts.iter_mut().for_each(|cut| cut.language = Some(language.clone()));
}

/// A corpus without the part that a setting names.
fn lacks(corpus: &str, split: &str, parts: impl Iterator<Item = Split>, what: &str) -> Error {
    let parts: Vec<_> = parts.map(Split::name).collect();
    Error::config(what, format!("`{corpus}` has no part `{split}`; it has {}", parts.join(", ")))
}

/// Where the manifest is that a setting names; a corpus becomes manifests, in the run's folder, when it is first asked for.
/// `language` is that of cuts that state none, and the one to take of a corpus that has several; empty where there is none.
///
/// # Errors
/// What is no manifest and no corpus, and a corpus without this part.
pub fn manifest_of(
    entry: &str,
    what: &str,
    language: &str,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<PathBuf, Error> {
    if Path::new(entry).is_file() {
        return Ok(entry.into());
    }
    let part = Part::named(entry, what, language, dir)?;
    let (corpus, out, path) = (part.corpus, &part.folder, part.manifest());
    if !path.is_file() {
        let tell = Mutex::new(tell);
        let say = |progress: Progress<'_>| {
            if let Ok(mut tell) = tell.lock() {
                tell(progress);
            }
        };
        let progress = |n_done, n_all| say(Progress::Preparing { corpus, n_done, n_all });
        let (splits, rejected) = match Set::named(corpus) {
            Some(set) => {
                let options = SynthesisOptions::new(set);
                // Texts need nobody who speaks.
                let is_text = part.split == Split::Text.name() && options.set.has_texts();
                let splits = match is_text {
                    true => prepare::texts(&options)?,
                    false => prepare::synthesize(&options, out, &progress)?,
                };
                (splits, Vec::new())
            }
            None => {
                let folder = prepare::locate(Path::new(corpus))?;
                let language = Some(language.to_owned()).filter(|language| !language.is_empty());
                let unpack_into = Some(out.join("audio"));
                let options = prepare::Options { language, unpack_into, ..prepare::Options::default() };
                let prepared = prepare::prepare(&folder, &options, &progress)?;
                prepared.notes.iter().for_each(|note| say(Progress::Note(note)));
                prepared.rejected.iter().for_each(|rejected| say(Progress::Rejected(rejected)));
                (prepared.splits, prepared.rejected)
            }
        };
        prepare::write(&splits, &rejected, out, true)?;
        if !path.is_file() {
            return Err(lacks(corpus, part.split, splits.keys().copied(), what));
        }
    }
    Ok(path)
}

/// What there is of what a setting names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A manifest.
    Manifest,
    /// A corpus, whose manifest was made before.
    Imported,
    /// A corpus.
    Corpus,
}

/// Looks for what a setting names, and reads nothing.
///
/// # Errors
/// A corpus that is nowhere, and a part that a synthesised set does not have.
pub fn find(entry: &str, what: &str, language: &str, dir: &Path) -> Result<Place, Error> {
    if Path::new(entry).is_file() {
        return Ok(Place::Manifest);
    }
    let part = Part::named(entry, what, language, dir)?;
    if part.manifest().is_file() {
        return Ok(Place::Imported);
    }
    if Set::named(part.corpus).is_none() {
        prepare::locate(Path::new(part.corpus))?;
    }
    Ok(Place::Corpus)
}

/// A part of a corpus, `fsdd:train`, and where the corpus's manifests are in a run's folder.
struct Part<'a> {
    corpus: &'a str,
    split: &'a str,
    folder: PathBuf,
}

impl<'a> Part<'a> {
    fn named(entry: &'a str, what: &str, language: &str, dir: &Path) -> Result<Self, Error> {
        let (corpus, split) = entry.rsplit_once(':').ok_or_else(|| {
            let message = format!(
                "`{entry}` is no manifest; name a .jsonl file, or a corpus and its part such as fsdd:train"
            );
            Error::config(what, message)
        })?;
        // What is synthesised takes a while, and says before it what it will be.
        if let Some(set) = Set::named(corpus)
            && !set.parts().any(|part| part.name() == split)
        {
            return Err(lacks(corpus, split, set.parts(), what));
        }
        Ok(Self { corpus, split, folder: dir.join(DATA).join(folder_name(corpus, language)) })
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join(format!("{}.jsonl", self.split))
    }
}

/// The folder of a corpus's manifests: in the run's own, whatever the corpus is called, so that they may be written over. Several
/// folders may end in the same name, and one corpus is another in each of its languages.
fn folder_name(corpus: &str, language: &str) -> String {
    let name = Path::new(corpus).file_name().unwrap_or_default();
    let is_plain = name == corpus;
    let mut folder = name.to_string_lossy().into_owned();
    // What is synthesised says itself in which language.
    if !language.is_empty() && Set::named(corpus).is_none() {
        folder += "-";
        folder += &language.replace(|c: char| !c.is_alphanumeric(), "_");
    }
    if !is_plain {
        folder += "-";
        folder += &hex(&Sha256::digest(corpus)[..4]);
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_nobody_speaks_are_made_without_those_who_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let path =
            manifest_of("phrases-en-ps:text", "data.train", "en", dir.path(), &mut |_| {}).expect("made");
        assert_eq!(path, dir.path().join("data/phrases-en-ps/text.jsonl"));
        let needs = Needs { audio: false, ..Needs::default() };
        assert_eq!(manifest::read(&path, needs).expect("read").cuts.len(), 20_000);
        assert!(!dir.path().join("data/phrases-en-ps/audio").exists());
        assert_eq!(
            find("phrases-en-ps:text", "data.train", "en", dir.path()).expect("there"),
            Place::Imported
        );
    }

    #[test]
    fn parts_that_a_set_does_not_have_are_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().expect("a folder");
        for (entry, words) in [
            ("digits-en:text", "`digits-en` has no part `text`; it has train, dev"),
            ("digits-en:test", "it has train, dev"),
            ("phrases-en-ps:tset", "`phrases-en-ps` has no part `tset`; it has train, dev, test, text"),
            ("phrases-tico:text", "it has train, dev, test"),
        ] {
            let made = manifest_of(entry, "data.train", "en", dir.path(), &mut |_| {});
            for message in [
                made.expect_err(entry).to_string(),
                find(entry, "data.train", "en", dir.path()).expect_err(entry).to_string(),
            ] {
                assert!(message.contains("data.train") && message.ends_with(words), "{message}");
            }
        }
        assert!(!dir.path().join(DATA).exists());
    }

    #[test]
    fn a_corpus_has_a_folder_for_each_of_its_languages() {
        assert_eq!(folder_name("common_voice", "ps"), "common_voice-ps");
        assert_eq!(folder_name("common_voice", ""), "common_voice");
        assert_eq!(folder_name("common_voice", "../ps"), "common_voice-___ps");
        let (one, other) = (folder_name("/a/cv", "ps"), folder_name("/b/cv", "ps"));
        assert!(one.starts_with("cv-ps-") && other.starts_with("cv-ps-") && one != other, "{one} {other}");
        assert_ne!(one, folder_name("/a/cv", "ur"));
        assert_eq!(folder_name("digits-en", "en"), "digits-en");
    }
}
