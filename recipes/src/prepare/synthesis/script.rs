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
const MAX_DIGITS: usize = 8;
/// Unknown lines that are spoken at once, at most.
const MAX_OTHER: usize = 3;
/// Of so many clips, ...
const SHARES: usize = 100;
/// ... so many are commands ...
const COMMAND_SHARES: usize = 24;
/// ... and so many are unknown; the rest are digits.
const UNKNOWN_SHARES: usize = 34;
/// One of so many clips is dev.
const DEV_EVERY: usize = 10;

/// What an utterance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One to eight digits.
    Digits,
    /// A command word.
    Command,
    /// Something else, whose text is empty.
    Unknown,
}

impl Kind {
    /// As manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Command => "command",
            Self::Unknown => "unknown",
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
    /// Whether there is a pause after each word.
    pub(super) has_pauses: bool,
    pub(super) voice: Voice,
    /// Length of sounds, percent of the voice's own.
    pub(super) length_percent: u64,
    /// Pitch, from the lowest to the highest that the program has, 0 to 99.
    pub(super) pitch: u64,
}

impl Utterance {
    /// What a model is to write.
    pub(super) fn text(&self) -> &str {
        if self.kind == Kind::Unknown { "" } else { &self.spoken }
    }

    /// A name that tells utterances apart by all that is heard.
    pub(super) fn id(&self) -> String {
        let Self { split: _, kind, spoken, has_pauses, voice, length_percent, pitch } = self;
        let heard = format!("{spoken}|{has_pauses}|{}|{length_percent}|{pitch}", voice.name());
        format!("{}-{}", kind.name(), hex(&Sha256::digest(heard)[..8]))
    }
}

/// The lines of a list, without comments.
fn lines(list: &'static str) -> Vec<&'static str> {
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
                    Kind::Unknown => other(index, &unknown, &mut rng),
                };
                let utterance = Utterance {
                    split,
                    kind,
                    spoken: spoken.into(),
                    has_pauses: kind == Kind::Digits && below(4, &mut rng) == 0,
                    voice: Voice::draw(split, &mut rng),
                    length_percent: 75 + below(66, &mut rng),
                    pitch: 15 + below(71, &mut rng),
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
fn digits(index: usize, rng: &mut impl RngCore) -> String {
    let n_digits = 1 + index % MAX_DIGITS;
    let words: Vec<_> = match n_digits {
        1 => vec![DIGITS[index / MAX_DIGITS % DIGITS.len()]],
        _ => (0..n_digits).map(|_| DIGITS[below(DIGITS.len() as u64, rng) as usize]).collect(),
    };
    words.join(" ")
}
