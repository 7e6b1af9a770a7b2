//! Recordings by speech synthesisers, for what no corpus holds: English digit strings and command words in many voices, other
//! words that a model should not write, phrases with their translations, texts that nobody has read, and what a voice is learnt from and
//! judged by.
//!
//! The programs espeak-ng and flite speak. What is spoken by whom is a function of a seed; the samples are one of the programs'
//! versions, too.

mod grammar;
mod held_out;
mod phrases;
mod program;
mod script;
mod speech;
mod voice;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use audio::{DecodeAudio, decode_file, encode::wav_bytes, resample};
use rayon::prelude::*;
use serde_json::Value;

pub(super) use program::{check_voice, run};
pub use script::Kind;

use self::{program::Programs, script::Utterance, voice::Voice};
use super::Split;
use crate::data::manifest::{Cut, Error, Extra, Interner};

/// Rate of the recordings, Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Folder of the recordings below that of the manifests.
const AUDIO_FOLDER: &str = "audio";

/// A set of recordings that can be synthesised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// English digits, alone and in strings of up to eight, command words, and other words with an empty text.
    DigitsEn,
    /// English sentences of a synthetic grammar with their Pashto; many more of them as texts that nobody speaks.
    PhrasesEnPs,
    /// Short English phrases of TICO-19 with their Pashto, each in many voices; a tenth of them in test alone.
    PhrasesTico,
    /// English clauses, single words, numbers and digits in two voices at their own rate and pitch, to learn to speak from. In test are
    /// 200 words that train and dev never have, nor a form of them, and unseen clauses and digits.
    SpeechEn,
    /// English words, those 200 and some 2,400 more, and phrases of them in all other voices: for a recogniser that judges speech.
    WordsEn,
    /// The lines of a text, read by espeak-ng.
    Text {
        /// Where it lies.
        path: PathBuf,
        /// The language that reads it, as espeak-ng calls it.
        voice: String,
        /// Its language, as models call it.
        language: String,
        /// Words of a recording at most: longer lines become several.
        max_words: usize,
    },
}

impl Set {
    /// The set that a recipe calls `name`; texts have none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "digits-en" => Some(Self::DigitsEn),
            "phrases-en-ps" => Some(Self::PhrasesEnPs),
            "phrases-tico" => Some(Self::PhrasesTico),
            "speech-en" => Some(Self::SpeechEn),
            "words-en" => Some(Self::WordsEn),
            _ => None,
        }
    }

    /// Whether it has texts that nobody speaks, too: [`Split::Text`].
    pub fn has_texts(&self) -> bool {
        *self == Self::PhrasesEnPs
    }

    /// The parts that it has: what is spoken, and the texts that nobody speaks.
    pub fn parts(&self) -> impl Iterator<Item = Split> {
        self.splits().iter().copied().chain(self.has_texts().then_some(Split::Text))
    }

    /// Recordings that it has where nobody says how many.
    fn n_clips(&self) -> usize {
        match self {
            Self::DigitsEn | Self::Text { .. } => 4800,
            Self::PhrasesEnPs | Self::PhrasesTico => 4000,
            Self::SpeechEn => 8000,
            Self::WordsEn => 16_000,
        }
    }

    /// What is spoken.
    fn splits(&self) -> &'static [Split] {
        match self {
            Self::DigitsEn | Self::Text { .. } => &[Split::Train, Split::Dev],
            Self::PhrasesEnPs | Self::PhrasesTico | Self::SpeechEn | Self::WordsEn => &Split::ALL,
        }
    }

    /// Those who may be heard in it.
    fn voices(&self) -> Vec<Voice> {
        match self {
            Self::SpeechEn => Voice::learnt().to_vec(),
            Self::Text { voice, .. } => Voice::of_splits(self.splits(), Some(voice)),
            _ => Voice::of_splits(self.splits(), None),
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthesisOptions {
    /// The set.
    pub set: Set,
    /// Decides every text, voice and rate of speech.
    pub seed: u64,
    /// Recordings together; a tenth of them is dev, by voices that train does not hear, and of phrases and words a tenth is test, by others.
    /// Of speech to learn from a twentieth is dev and a tenth test, all by the same voices.
    pub n_clips: usize,
}

impl SynthesisOptions {
    /// Fewer recordings make no set: dev would have one or none. So few do not have all words yet: every command is in dev from
    /// 1500 on.
    pub const MIN_CLIPS: usize = 20;
    /// More are taken for a mistake: weeks of speech, and a file for each.
    pub const MAX_CLIPS: usize = 1_000_000;

    /// A set as recipes have it.
    pub fn new(set: Set) -> Self {
        Self { seed: 0, n_clips: set.n_clips(), set }
    }
}

/// Speaks a set and writes it as WAV below `out`, in parallel; `progress` hears how many clips of how many are done, from several
/// threads. A clip that an earlier run left is not spoken again.
///
/// # Errors
/// Too few or too many recordings; a program or a voice that is not there, naming how to get it; a full disk.
pub fn synthesize(
    options: &SynthesisOptions,
    out: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<BTreeMap<Split, Vec<Cut>>, Error> {
    let (least, most) = (SynthesisOptions::MIN_CLIPS, SynthesisOptions::MAX_CLIPS);
    if !(least..=most).contains(&options.n_clips) {
        let too = if options.n_clips < least { "few" } else { "many" };
        let message = format!("{} recordings are too {too}; from {least} to {most}", options.n_clips);
        return Err(Error::Corpus(message));
    }
    let (seed, n_clips) = (options.seed, options.n_clips);
    let (script, voice, language) = match &options.set {
        Set::DigitsEn => (script::digits_en(seed, n_clips), None, "en"),
        Set::PhrasesEnPs => (phrases::of_grammar(seed, n_clips)?, None, phrases::LANGUAGE),
        Set::PhrasesTico => (phrases::of_corpus(seed, n_clips)?, None, phrases::LANGUAGE),
        Set::SpeechEn => (speech::speech_en(seed, n_clips), None, speech::LANGUAGE),
        Set::WordsEn => (speech::words_en(seed, n_clips), None, speech::LANGUAGE),
        Set::Text { path, voice, language, max_words } => {
            let text = fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
            let script = script::read_aloud(&text, voice, *max_words, seed, n_clips);
            if script.len() < least {
                let n = script.len();
                let message =
                    format!("has {n} pieces to be read, lines with digits left out; {least} make a set");
                return Err(Error::file(path, message));
            }
            (script, Some(voice.as_str()), language.as_str())
        }
    };
    let programs = Programs::find(&options.set.voices(), voice)?;
    let folder = out.join(AUDIO_FOLDER);
    fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
    let (total, done) = (script.len(), AtomicUsize::new(0));
    progress(0, total);
    let durations = script
        .par_iter()
        .map(|utterance| {
            let duration_secs = speak(&programs, utterance, &folder)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(duration_secs)
        })
        .collect::<Result<Vec<f64>, Error>>()?;
    let mut names = Interner::default();
    let mut splits = BTreeMap::<Split, Vec<Cut>>::new();
    for (utterance, duration_secs) in script.iter().zip(durations) {
        let cut = cut(utterance, &folder, duration_secs, language, &mut names);
        splits.entry(utterance.split).or_default().push(cut);
    }
    splits.extend(texts(options)?);
    Ok(splits)
}

/// The texts of a set that nobody speaks, as the part [`Split::Text`]; nothing where it has none. It takes no programs.
///
/// # Errors
/// None, as long as the program's own files are right.
pub fn texts(options: &SynthesisOptions) -> Result<BTreeMap<Split, Vec<Cut>>, Error> {
    match options.set.has_texts() {
        true => Ok(BTreeMap::from([(Split::Text, phrases::texts_of_grammar(options.seed)?)])),
        false => Ok(BTreeMap::new()),
    }
}

fn file(utterance: &Utterance, folder: &Path) -> PathBuf {
    folder.join(format!("{}.wav", utterance.id()))
}

/// Makes a recording, or finds it made; its length in seconds.
fn speak(programs: &Programs, utterance: &Utterance, folder: &Path) -> Result<f64, Error> {
    let path = file(utterance, folder);
    let unusable = |error: audio::Error| Error::file(&path, error.to_string());
    if path.is_file() {
        // A name says what is spoken and how, and only whole files have it.
        return audio::probe_file(&path, &DecodeAudio::default())
            .map(|info| info.duration_secs)
            .map_err(unusable);
    }
    let spoken = Part(path.with_extension(format!("{}.spoken.wav", std::process::id())));
    programs.speak(utterance, &spoken.0)?;
    let decoded = decode_file(&spoken.0, &DecodeAudio::default()).map_err(unusable)?;
    let waveform = resample(&decoded.waveform, SAMPLE_RATE).map_err(unusable)?;
    let part = Part(path.with_extension(format!("{}.part", std::process::id())));
    let failed = |error: std::io::Error| Error::io(&path, &error);
    fs::write(&part.0, wav_bytes(&waveform).map_err(unusable)?).map_err(failed)?;
    fs::rename(&part.0, &path).map_err(failed)?;
    Ok(waveform.duration_secs())
}

fn cut(
    utterance: &Utterance,
    folder: &Path,
    duration_secs: f64,
    language: &str,
    names: &mut Interner,
) -> Cut {
    let mut extra = Extra::new();
    extra.insert("kind".to_owned(), Value::from(utterance.kind.name()));
    if utterance.kind == Kind::Unknown {
        extra.insert("spoken".to_owned(), Value::from(&*utterance.spoken));
    }
    Cut {
        id: utterance.id().into(),
        audio: file(utterance, folder).into(),
        start_secs: 0.0,
        duration_secs,
        channel: None,
        text: utterance.text().into(),
        language: Some(names.get(language)),
        speaker: Some(names.get(&utterance.voice.name())),
        target_text: utterance.translation.clone(),
        target_language: utterance.translation.as_ref().map(|_| names.get(phrases::TARGET_LANGUAGE)),
        extra: Some(Box::new(extra)),
    }
}

/// A file that does not outlive its use.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
