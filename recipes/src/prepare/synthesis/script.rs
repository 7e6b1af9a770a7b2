//! What is spoken, by whom and how: a function of a seed.

use std::collections::HashSet;

use rand_chacha::rand_core::RngCore;
use sha2::{Digest, Sha256};

use super::super::{Split, digits::DIGITS};
use super::voice::Voice;
use crate::data::{
    hex,
    shuffle::{Purpose, below, generator},
};

/// Words that a model is to know besides the digits.
const COMMANDS: &str = include_str!("../../../digits_en/commands.txt");
/// Words and phrases that it is to say nothing about.
const UNKNOWN: &str = include_str!("../../../digits_en/unknown.txt");

/// Digits of the longest string.
pub(super) const MAX_DIGITS: usize = 8;
/// Unknown lines that are spoken at once, at most.
const MAX_OTHER: usize = 3;
/// Of so many clips, ...
const SHARES: usize = 100;
/// ... so many are commands ...
const COMMAND_SHARES: usize = 24;
/// ... and so many are unknown; the rest are digits.
const UNKNOWN_SHARES: usize = 34;
/// One of so many clips is dev.
pub(super) const DEV_EVERY: usize = 10;

/// What an utterance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One to eight digits.
    Digits,
    /// A command word.
    Command,
    /// Something else, whose text is empty.
    Unknown,
    /// A piece of a text that somebody gave.
    Text,
    /// A phrase, with its translation where the set has some.
    Phrase,
    /// A phrase or a word that train never hears, whoever says it.
    Unseen,
    /// A word alone.
    Word,
    /// A number as it is said.
    Number,
    /// A clause, or a question.
    Sentence,
}

impl Kind {
    /// As manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Command => "command",
            Self::Unknown => "unknown",
            Self::Text => "text",
            Self::Phrase => "phrase",
            Self::Unseen => "unseen",
            Self::Word => "word",
            Self::Number => "number",
            Self::Sentence => "sentence",
        }
    }
}

/// Something to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Utterance {
    pub(super) split: Split,
    pub(super) kind: Kind,
    /// What is said.
    pub(super) spoken: Box<str>,
    /// The same in another language.
    pub(super) translation: Option<Box<str>>,
    /// Whether there is a pause after each word.
    pub(super) has_pauses: bool,
    pub(super) voice: Voice,
    /// Length of sounds, percent of the voice's own.
    pub(super) length_percent: u64,
    /// Pitch, from the lowest to the highest that the program has, 0 to 99; none is the voice's own.
    pub(super) pitch: Option<u64>,
}

impl Utterance {
    /// What a model is to write.
    pub(super) fn text(&self) -> &str {
        if self.kind == Kind::Unknown { "" } else { &self.spoken }
    }

    /// A name that tells utterances apart by all that is heard.
    pub(super) fn id(&self) -> String {
        let Self { split: _, kind, spoken, translation: _, has_pauses, voice, length_percent, pitch } = self;
        let pitch = pitch.map_or_else(|| "own".to_owned(), |pitch| pitch.to_string());
        let heard = format!("{spoken}|{has_pauses}|{}|{length_percent}|{pitch}", voice.name());
        format!("{}-{}", kind.name(), hex(&Sha256::digest(heard)[..8]))
    }
}

/// The lines of a list, without comments.
pub(super) fn lines(list: &'static str) -> Vec<&'static str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The command words.
pub(super) fn commands() -> Vec<&'static str> {
    lines(COMMANDS)
}

/// The words and phrases that are neither digits nor commands.
pub(super) fn unknown() -> Vec<&'static str> {
    lines(UNKNOWN)
}

/// About `n_clips` utterances of the set, none twice. Each kind takes its words in turn, so that all come equally often.
pub(super) fn digits_en(seed: u64, n_clips: usize) -> Vec<Utterance> {
    let n_dev = n_clips / DEV_EVERY;
    let (commands, unknown) = (commands(), unknown());
    let (mut script, mut seen) = (Vec::new(), HashSet::new());
    for (split, n_clips) in [(Split::Train, n_clips - n_dev), (Split::Dev, n_dev)] {
        let (n_commands, n_unknown) = (n_clips * COMMAND_SHARES / SHARES, n_clips * UNKNOWN_SHARES / SHARES);
        let kinds = [
            (Kind::Digits, n_clips - n_commands - n_unknown),
            (Kind::Command, n_commands),
            (Kind::Unknown, n_unknown),
        ];
        for (kind, n_clips) in kinds {
            for index in 0..n_clips {
                let mut rng = generator(seed, split as u64, Purpose::Synthesis, stream(kind, index));
                let spoken = match kind {
                    Kind::Digits => digits(index, &mut rng),
                    Kind::Command => commands[index % commands.len()].to_owned(),
                    // No other is among the kinds above.
                    _ => other(index, &unknown, &mut rng),
                };
                let utterance = Utterance {
                    split,
                    kind,
                    spoken: spoken.into(),
                    translation: None,
                    has_pauses: kind == Kind::Digits && below(4, &mut rng) == 0,
                    voice: Voice::draw(split, &mut rng),
                    length_percent: 75 + below(66, &mut rng),
                    pitch: Some(15 + below(71, &mut rng)),
                };
                // Two draws may be the same.
                if seen.insert(utterance.id()) {
                    script.push(utterance);
                }
            }
        }
    }
    script
}

/// Pieces of a text, each spoken once: about `n_clips` of them, or all that there are. Lines are cut into pieces of equal length, at
/// most `max_words` words. Those with digits are left out: nobody knows how a voice reads them.
pub(super) fn read_aloud(
    text: &str,
    voice: &str,
    max_words: usize,
    seed: u64,
    n_clips: usize,
) -> Vec<Utterance> {
    // What espeak-ng takes for phonemes is none here.
    let text = text.trim_start_matches('\u{feff}').replace(['[', ']'], "");
    let mut pieces = Vec::new();
    for line in text.lines().filter(|line| !line.chars().any(char::is_numeric)) {
        let words: Vec<_> = line.split_whitespace().collect();
        let n_pieces = words.len().div_ceil(max_words.max(1));
        let cut = |piece: usize| piece * words.len() / n_pieces;
        pieces.extend((0..n_pieces).map(|piece| words[cut(piece)..cut(piece + 1)].join(" ")));
    }
    let mut seen = HashSet::new();
    pieces.retain(|piece| piece.chars().any(char::is_alphabetic) && seen.insert(piece.clone()));
    // Spread over the whole text.
    let n_clips = n_clips.min(pieces.len());
    let spread = (0..n_clips).map(|index| &pieces[index * pieces.len() / n_clips]);
    // Who reads a piece, and for which split, follows from its words: with more of them it is read as before.
    let read = |piece: &String| {
        let key = key_of(piece);
        let split = if key.is_multiple_of(DEV_EVERY as u64) { Split::Dev } else { Split::Train };
        let mut rng = generator(seed, 0, Purpose::Reading, key);
        Utterance {
            split,
            kind: Kind::Text,
            spoken: piece.as_str().into(),
            translation: None,
            has_pauses: false,
            voice: Voice::draw_of(voice, split, &mut rng),
            length_percent: 85 + below(41, &mut rng),
            pitch: Some(15 + below(71, &mut rng)),
        }
    };
    spread.map(read).collect()
}

/// A number that follows from a text, and from nothing else.
pub(super) fn key_of(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// The generator of each utterance is its own: another number of clips keeps those that there are.
fn stream(kind: Kind, index: usize) -> u64 {
    index as u64 * 3 + kind as u64
}

/// Each line in turn, and between them several that were drawn: what is said at length is no string of digits either.
fn other(index: usize, unknown: &[&str], rng: &mut impl RngCore) -> String {
    let mut draw = |n: usize| below(n as u64, rng) as usize;
    if index.is_multiple_of(2) {
        return unknown[index / 2 % unknown.len()].to_owned();
    }
    let n_lines = 2 + draw(MAX_OTHER - 1);
    (0..n_lines).map(|_| unknown[draw(unknown.len())]).collect::<Vec<_>>().join(" ")
}

/// A string of digits: lengths in turn, and single digits, too.
pub(super) fn digits(index: usize, rng: &mut impl RngCore) -> String {
    let n_digits = 1 + index % MAX_DIGITS;
    let words: Vec<_> = match n_digits {
        1 => vec![DIGITS[index / MAX_DIGITS % DIGITS.len()]],
        _ => (0..n_digits).map(|_| DIGITS[below(DIGITS.len() as u64, rng) as usize]).collect(),
    };
    words.join(" ")
}
