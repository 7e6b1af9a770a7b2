//! Who speaks: the voices of espeak-ng and flite, and which of them train must not hear.

use rand_chacha::rand_core::RngCore;

use super::super::Split;
use crate::data::shuffle::below;

/// Accents of espeak-ng that train hears, each as often as it stands here.
const TRAIN_ACCENTS: [&str; 10] = [
    "en-us",
    "en-us",
    "en-us",
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-us-nyc",
    "en-029",
];
/// Accents of espeak-ng by which dev is spoken.
const DEV_ACCENTS: [&str; 2] = ["en-us", "en-gb-x-gbcwmd"];

/// Variants of espeak-ng that train hears. Neither here nor below is `f3`: synthesis is learnt from it and judged by it.
const TRAIN_VARIANTS: [&str; 44] = [
    "m1", "m2", "m3", "m4", "m5", "m7", "m8", "f1", "f2", "f4", "croak", "whisper", "klatt", "klatt2",
    "klatt4", "Alex", "Andy", "Annie", "Denis", "Diogo", "Gene", "Jacky", "Lee", "Michael", "Mike", "adam",
    "aunty", "belinda", "benjamin", "boris", "caleb", "ed", "edward", "grandma", "grandpa", "gustave",
    "iven", "john", "linda", "max", "paul", "quincy", "robert", "zac",
];
/// Variants of espeak-ng that only dev hears.
const DEV_VARIANTS: [&str; 5] = ["m6", "f5", "david", "shelby", "anika"];

/// Accents of espeak-ng by which test is spoken, where a set has one.
const TEST_ACCENTS: [&str; 2] = ["en-us", "en-gb"];
/// Variants of espeak-ng that only test hears.
const TEST_VARIANTS: [&str; 5] = ["Alicia", "Marco", "rob", "steph", "victor"];

/// Voices of flite, all in train. `slt` is not among them: synthesis is learnt from it and judged by it.
const FLITE_VOICES: [&str; 4] = ["awb", "kal", "kal16", "rms"];
/// Of so many utterances in train flite speaks one: its few voices are closest to people's.
const FLITE_EVERY: u64 = 5;

/// Of flite, the voice that synthesis is learnt from.
const LEARNT_FLITE: &str = "slt";
/// Of espeak-ng, accent and variant that synthesis is learnt from.
const LEARNT_ESPEAK: (&str, &str) = ("en-us", "f3");

/// A synthesiser with its voice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Voice {
    /// espeak-ng's language or accent, and variant.
    Espeak { accent: Box<str>, variant: &'static str },
    /// flite's voice.
    Flite { voice: &'static str },
}

impl Voice {
    /// As the manifest names the speaker.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Espeak { accent, variant } => format!("espeak-ng/{accent}+{variant}"),
            Self::Flite { voice } => format!("flite/{voice}"),
        }
    }

    /// All voices of a split: of English, or of another language as espeak-ng calls it.
    pub(super) fn all(split: Split, language: Option<&str>) -> Vec<Self> {
        let (accents, variants, flite): (&[_], &[_], &[_]) = match split {
            Split::Train => (&TRAIN_ACCENTS, &TRAIN_VARIANTS, &FLITE_VOICES),
            Split::Dev => (&DEV_ACCENTS, &DEV_VARIANTS, &[]),
            Split::Test => (&TEST_ACCENTS, &TEST_VARIANTS, &[]),
            // Nobody speaks.
            Split::Text => (&[], &[], &[]),
        };
        let own = language.as_slice();
        let (accents, flite) = if own.is_empty() { (accents, flite) } else { (own, &[][..]) };
        let espeak = accents.iter().flat_map(|accent| {
            variants.iter().map(|variant| Self::Espeak { accent: (*accent).into(), variant })
        });
        let mut voices: Vec<_> = espeak.chain(flite.iter().map(|voice| Self::Flite { voice })).collect();
        voices.sort_unstable();
        voices.dedup();
        voices
    }

    /// All voices of some splits, of English or of another language.
    pub(super) fn of_splits(splits: &[Split], language: Option<&str>) -> Vec<Self> {
        splits.iter().flat_map(|split| Self::all(*split, language)).collect()
    }

    /// The voices that synthesis is learnt from. No recogniser of ours hears them: what it makes of a learnt voice is no memory of the
    /// one that this was learnt from.
    pub(super) fn learnt() -> [Self; 2] {
        let (accent, variant) = LEARNT_ESPEAK;
        [Self::Flite { voice: LEARNT_FLITE }, Self::Espeak { accent: accent.into(), variant }]
    }

    /// Draws a voice of a language for dev or test, or else for train.
    pub(super) fn draw_of(language: &str, split: Split, rng: &mut impl RngCore) -> Self {
        let variants: &[_] = match split {
            Split::Train | Split::Text => &TRAIN_VARIANTS,
            Split::Dev => &DEV_VARIANTS,
            Split::Test => &TEST_VARIANTS,
        };
        Self::Espeak { accent: language.into(), variant: one_of(variants, rng) }
    }

    /// Draws a voice of English for dev or test, or else for train.
    pub(super) fn draw(split: Split, rng: &mut impl RngCore) -> Self {
        let is_flite = split == Split::Train && below(FLITE_EVERY, rng) == 0;
        if is_flite {
            return Self::Flite { voice: one_of(&FLITE_VOICES, rng) };
        }
        let accents: &[_] = match split {
            Split::Train | Split::Text => &TRAIN_ACCENTS,
            Split::Dev => &DEV_ACCENTS,
            Split::Test => &TEST_ACCENTS,
        };
        Self::draw_of(one_of(accents, rng), split, rng)
    }
}

fn one_of(choices: &[&'static str], rng: &mut impl RngCore) -> &'static str {
    choices[below(choices.len() as u64, rng) as usize]
}
