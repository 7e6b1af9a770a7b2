//! English phrases with their Pashto: sentences of a grammar, and short ones of a corpus.

use std::{collections::HashSet, ops::RangeInclusive, path::Path};

use rand_chacha::rand_core::RngCore;
use sha2::{Digest, Sha256};

use super::super::Split;
use super::{
    grammar::Grammar,
    script::{DEV_EVERY, Kind, Utterance, key_of},
    voice::Voice,
};
use crate::data::{
    hex,
    manifest::{Cut, Error, Interner},
    shuffle::{Purpose, below, generator},
};

/// Sentences by class, with both sides of each rule.
const GRAMMAR: &str = include_str!("../../../phrases_en_ps/grammar.txt");
/// Short phrases of a corpus.
const CORPUS: &str = include_str!("../../../translate_ps/phrases.tsv");
/// One of so many of these is for test alone.
const UNSEEN_EVERY: u64 = 10;
/// What phrases are in.
pub(super) const LANGUAGE: &str = "en";
/// What they are translated into.
pub(super) const TARGET_LANGUAGE: &str = "ps";
/// Sentences that are not spoken, for models that learn to translate what is written.
const N_TEXTS: usize = 20_000;
/// English words of a sentence.
const N_WORDS: RangeInclusive<usize> = 3..=12;
/// Draws for one sentence at most; it takes a dozen where it is to be dev or test.
const MAX_DRAWS: usize = 10_000;

/// A text with its translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phrase {
    pub(super) text: String,
    pub(super) translation: String,
}

impl Phrase {
    /// The split that a sentence belongs to, by its translation alone: whatever is drawn, no translation is in two of them, and no
    /// sentence, as each has one. Two sentences may share a translation.
    fn split(&self) -> Split {
        match key_of(&self.translation) % DEV_EVERY as u64 {
            0 => Split::Dev,
            1 => Split::Test,
            _ => Split::Train,
        }
    }

    /// The phrase as it is spoken, in a voice of the split that nobody else draws for it.
    fn spoken(self, split: Split, kind: Kind, rng: &mut impl RngCore) -> Utterance {
        Utterance {
            split,
            kind,
            spoken: self.text.into(),
            translation: Some(self.translation.into()),
            has_pauses: false,
            voice: Voice::draw(split, rng),
            length_percent: 80 + below(51, rng),
            pitch: Some(15 + below(71, rng)),
        }
    }
}

/// About `n_clips` sentences of the grammar, none of dev or test in train.
pub(super) fn of_grammar(seed: u64, n_clips: usize) -> Result<Vec<Utterance>, Error> {
    let grammar = Grammar::parse(GRAMMAR)?;
    let (mut script, mut seen) = (Vec::new(), HashSet::new());
    for (split, n_clips) in shares(n_clips) {
        for index in 0..n_clips {
            let mut rng = generator(seed, split as u64, Purpose::Phrases, index as u64);
            let utterance = sentence(&grammar, split, &mut rng)?.spoken(split, Kind::Phrase, &mut rng);
            // Two draws may be the same.
            if seen.insert(utterance.id()) {
                script.push(utterance);
            }
        }
    }
    Ok(script)
}

/// Sentences of the grammar that nobody speaks, each once, none of them of dev or test.
pub(super) fn texts_of_grammar(seed: u64) -> Result<Vec<Cut>, Error> {
    let grammar = Grammar::parse(GRAMMAR)?;
    let (mut cuts, mut seen, mut names) = (Vec::new(), HashSet::new(), Interner::default());
    for index in 0.. {
        if cuts.len() == N_TEXTS {
            break;
        }
        let mut rng = generator(seed, Split::Text as u64, Purpose::Phrases, index);
        let phrase = sentence(&grammar, Split::Train, &mut rng)?;
        if !seen.insert(phrase.text.clone()) {
            continue;
        }
        cuts.push(Cut {
            id: format!("text-{}", hex(&Sha256::digest(&phrase.text)[..8])).into(),
            audio: Path::new("").into(),
            start_secs: 0.0,
            duration_secs: 0.0,
            channel: None,
            text: phrase.text.into(),
            language: Some(names.get(LANGUAGE)),
            speaker: None,
            target_text: Some(phrase.translation.into()),
            target_language: Some(names.get(TARGET_LANGUAGE)),
            extra: None,
        });
    }
    Ok(cuts)
}

/// About `n_clips` recordings of the phrases of the corpus, which take turns. Some are for test alone; train and dev have all others.
pub(super) fn of_corpus(seed: u64, n_clips: usize) -> Result<Vec<Utterance>, Error> {
    let all = corpus()?;
    let kind = |phrase: &Phrase| match key_of(&phrase.text) % UNSEEN_EVERY == UNSEEN_EVERY - 1 {
        true => Kind::Unseen,
        false => Kind::Phrase,
    };
    let seen: Vec<_> = all.iter().filter(|phrase| kind(phrase) == Kind::Phrase).cloned().collect();
    let (mut script, mut ids) = (Vec::new(), HashSet::new());
    for (split, n_clips) in shares(n_clips) {
        let phrases = if split == Split::Test { &all } else { &seen };
        for (index, phrase) in phrases.iter().cycle().take(n_clips).enumerate() {
            let mut rng = generator(seed, split as u64, Purpose::CorpusPhrases, index as u64);
            let utterance = phrase.clone().spoken(split, kind(phrase), &mut rng);
            if ids.insert(utterance.id()) {
                script.push(utterance);
            }
        }
    }
    Ok(script)
}

/// The phrases of the corpus.
pub(super) fn corpus() -> Result<Vec<Phrase>, Error> {
    let rows = CORPUS.lines().filter(|line| !line.starts_with('#'));
    let phrase = |line: &str| {
        let (text, translation) = line
            .split_once('\t')
            .ok_or_else(|| Error::Corpus(format!("phrases: `{line}` has no translation")))?;
        Ok(Phrase { text: text.to_owned(), translation: translation.to_owned() })
    };
    rows.map(phrase).collect()
}

/// Recordings of each split: a tenth is dev, a tenth test.
pub(super) fn shares(n_clips: usize) -> [(Split, usize); 3] {
    let n_other = n_clips / DEV_EVERY;
    [(Split::Train, n_clips - 2 * n_other), (Split::Dev, n_other), (Split::Test, n_other)]
}

/// The first sentence drawn that is neither too short nor too long, and of a split.
fn sentence(grammar: &Grammar, split: Split, rng: &mut impl RngCore) -> Result<Phrase, Error> {
    for _ in 0..MAX_DRAWS {
        let phrase = grammar.draw(rng)?;
        if N_WORDS.contains(&phrase.text.split(' ').count()) && phrase.split() == split {
            return Ok(phrase);
        }
    }
    Err(Error::Corpus(format!("grammar: no sentence of {} in {MAX_DRAWS} draws", split.name())))
}
