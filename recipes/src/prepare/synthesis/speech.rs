//! English that a voice is learnt from, and words for a recogniser that judges what it has learnt.

use std::collections::{HashMap, HashSet};

use rand_chacha::rand_core::RngCore;

use super::super::{Split, digits::DIGITS};
use super::{
    held_out::{HeldOut, words},
    phrases::shares,
    script::{Kind, MAX_DIGITS, Utterance, digits, key_of, lines},
    voice::Voice,
};
use crate::data::shuffle::{Purpose, below, generator};

/// What is spoken.
pub(super) const LANGUAGE: &str = "en";
/// Questions and phrases of every day.
const EVERYDAY: &str = include_str!("../../../tts_en/everyday.txt");
/// Clauses of TICO-19, those with the most new words first.
const SENTENCES: &str = include_str!("../../../tts_en/sentences.txt");
/// Words that synthesisers read as others.
const ABBREVIATIONS: [&str; 8] = ["co", "dr", "ltd", "mr", "mrs", "ms", "st", "vs"];

/// Of so many recordings to learn to speak from one is test, ...
const TEST_EVERY: usize = 10;
/// ... and one dev.
const DEV_EVERY: usize = 20;
/// One of so many clauses, and of so many words, is dev; another is test.
const TEXTS_EVERY: u64 = 20;
/// One of so many numbers and strings of digits is dev; another is test.
const DRAWN_EVERY: u64 = 10;
/// Of so many recordings of a split ...
const SHARES: usize = 100;
/// ... so many are each kind in train and dev, the rest clauses, ...
const LEARNT_SHARES: [(Kind, usize); 3] = [(Kind::Word, 15), (Kind::Number, 7), (Kind::Digits, 11)];
/// ... and in test, the rest held-out words.
const TEST_SHARES: [(Kind, usize); 2] = [(Kind::Sentence, 30), (Kind::Digits, 20)];
/// Draws for one number or string of digits at most.
const MAX_DRAWS: usize = 100;

/// Words that a recogniser of words knows by the clauses, the most frequent ones, ...
const N_WORDS: usize = 2400;
/// ... one of so many in test alone.
const UNSEEN_EVERY: u64 = 10;
/// Of so many recordings of words one is a held-out word: they are what it has to judge by.
const HELD_OUT_EVERY: usize = 10;
/// Words of a phrase.
const PHRASE_WORDS: [u64; 2] = [2, 4];

/// Utterances, none twice.
#[derive(Default)]
struct Script {
    utterances: Vec<Utterance>,
    ids: HashSet<String>,
}

impl Script {
    /// Adds an utterance, unless it is there already.
    fn push(&mut self, utterance: Utterance) -> bool {
        let is_new = self.ids.insert(utterance.id());
        if is_new {
            self.utterances.push(utterance);
        }
        is_new
    }
}

/// About `n_clips` utterances by the two voices that synthesis is learnt from, at their own rate and pitch: clauses, single words, numbers
/// and strings of digits. Of the texts of dev and test none is in train, and no text of train or dev has a held-out word in it. A text of
/// train or dev is spoken by one of the voices, which follows from its words, until all have been spoken: as many different texts as
/// there can be in so many hours, and what one voice learns of spelling is of use to the other. Those of test are spoken by both.
pub(super) fn speech_en(seed: u64, n_clips: usize) -> Vec<Utterance> {
    let (n_test, n_dev) = (n_clips / TEST_EVERY, n_clips / DEV_EVERY);
    let texts = Texts::new();
    let mut script = Script::default();
    for (split, n_clips) in
        [(Split::Train, n_clips - n_test - n_dev), (Split::Dev, n_dev), (Split::Test, n_test)]
    {
        let (most, shares): (_, &[_]) = match split {
            Split::Test => (Kind::Word, &TEST_SHARES),
            _ => (Kind::Sentence, &LEARNT_SHARES),
        };
        let shares = shares.iter().map(|(kind, share)| (*kind, n_clips * share / SHARES));
        let n_most = n_clips - shares.clone().map(|(_, n_clips)| n_clips).sum::<usize>();
        for (kind, n_clips) in [(most, n_most)].into_iter().chain(shares) {
            match kind {
                Kind::Digits | Kind::Number => draw(&mut script, split, kind, seed, n_clips),
                kind => texts.speak(&mut script, split, kind, n_clips),
            }
        }
    }
    script.utterances
}

/// What there is to be read.
struct Texts(HashMap<(Split, Kind), Vec<&'static str>>);

impl Texts {
    fn new() -> Self {
        let held_out = HeldOut::new();
        let mut texts = HashMap::<_, Vec<_>>::new();
        for clause in clauses() {
            let split = if held_out.are_in(clause) { Split::Test } else { split_of(clause, TEXTS_EVERY) };
            texts.entry((split, Kind::Sentence)).or_default().push(clause);
        }
        for word in by_frequency(texts.get(&(Split::Train, Kind::Sentence)).into_iter().flatten().copied()) {
            // Digits alone are strings of digits, and a word alone may be a clause of test.
            let split = split_of(word, TEXTS_EVERY);
            if word.len() > 1 && !DIGITS.contains(&word) && split != Split::Test {
                texts.entry((split, Kind::Word)).or_default().push(word);
            }
        }
        texts.insert((Split::Test, Kind::Word), held_out.words().to_vec());
        // The most useful clauses come first for those who learn from them; others want all sorts.
        for split in [Split::Dev, Split::Test] {
            let sentences = texts.entry((split, Kind::Sentence)).or_default();
            sentences.sort_by_cached_key(|clause| key_of(clause).rotate_left(32));
        }
        Self(texts)
    }

    /// Texts in turn: of test each by both voices, else each by one until all are through, and then by the other.
    fn speak(&self, script: &mut Script, split: Split, kind: Kind, n_clips: usize) {
        let Some(texts) = self.0.get(&(split, kind)) else { return };
        let voices = Voice::learnt();
        for index in 0..n_clips.min(voices.len() * texts.len()) {
            let (text, voice) = match split {
                Split::Test => (texts[index / voices.len()], index),
                // Other digits of the key than those that the split follows from.
                _ => {
                    let text = texts[index % texts.len()];
                    (text, index / texts.len() + (key_of(text) >> 32) as usize % voices.len())
                }
            };
            script.push(own(split, kind, text, &voices[voice % voices.len()]));
        }
    }
}

/// Numbers or strings of digits, of which none is in two splits, whatever the seed. Digits of test are spoken by both voices.
fn draw(script: &mut Script, split: Split, kind: Kind, seed: u64, n_clips: usize) {
    let voices = Voice::learnt();
    for index in 0..n_clips {
        let voice = &voices[index % voices.len()];
        let index = if split == Split::Test { index / voices.len() } else { index };
        let mut rng = generator(
            seed,
            split as u64,
            Purpose::Speech,
            2 * index as u64 + u64::from(kind == Kind::Digits),
        );
        for attempt in 0..MAX_DRAWS {
            // Of a length there may be no more: of single digits there are ten.
            let shift = if attempt < DIGITS.len() { attempt * MAX_DIGITS } else { attempt };
            let text = match kind {
                Kind::Digits => digits(index + shift, &mut rng),
                _ => number(&mut rng),
            };
            if split_of(&text, DRAWN_EVERY) == split && script.push(own(split, kind, &text, voice)) {
                break;
            }
        }
    }
}

/// A number of two to six digits, as it is said.
fn number(rng: &mut impl RngCore) -> String {
    let least = 10_u64.pow(1 + below(5, rng) as u32);
    let number = least + below(9 * least, rng);
    let (thousands, rest) = (number / 1000, number % 1000);
    // Without a comma, four digits may be a year.
    let written = if thousands > 0 { format!("{thousands},{rest:03}") } else { rest.to_string() };
    models::text::spoken(&written, LANGUAGE)
}

/// An utterance in a voice's own rate and pitch.
fn own(split: Split, kind: Kind, text: &str, voice: &Voice) -> Utterance {
    Utterance {
        split,
        kind,
        spoken: text.into(),
        translation: None,
        has_pauses: false,
        voice: voice.clone(),
        length_percent: 100,
        pitch: None,
    }
}

/// About `n_clips` single words and phrases of two to four by the voices that recognisers hear: the held-out words, the digits and the most
/// frequent words of the clauses, and phrases of them, half of them pieces of clauses. A tenth of the words is in test alone.
pub(super) fn words_en(seed: u64, n_clips: usize) -> Vec<Utterance> {
    let pool = Pool::new();
    let mut script = Script::default();
    for (split, n_clips) in shares(n_clips) {
        let words = if split == Split::Test { &pool.all } else { &pool.known };
        for index in 0..n_clips {
            let mut rng = generator(seed, split as u64, Purpose::Words, index as u64);
            let round = index / HELD_OUT_EVERY;
            let spoken = match index % HELD_OUT_EVERY {
                0 => pool.held_out[round % pool.held_out.len()].to_owned(),
                place if place.is_multiple_of(2) => {
                    words[(round * (HELD_OUT_EVERY / 2 - 1) + place / 2 - 1) % words.len()].to_owned()
                }
                _ => pool.phrase(split, &mut rng),
            };
            let kind = match spoken.contains(' ') {
                _ if pool.has_unseen(&spoken) => Kind::Unseen,
                true => Kind::Phrase,
                false => Kind::Word,
            };
            script.push(Utterance {
                split,
                kind,
                spoken: spoken.into(),
                translation: None,
                has_pauses: false,
                voice: Voice::draw(split, &mut rng),
                length_percent: 80 + below(51, &mut rng),
                pitch: Some(15 + below(71, &mut rng)),
            });
        }
    }
    script.utterances
}

/// The words that a recogniser of words hears.
struct Pool {
    clauses: Vec<&'static str>,
    held_out: Vec<&'static str>,
    /// Those that train hears, too, and ...
    known: Vec<&'static str>,
    /// ... all, each of them in an order that has nothing to do with their frequency.
    all: Vec<&'static str>,
    unseen: HashSet<&'static str>,
}

impl Pool {
    fn new() -> Self {
        let held_out = HeldOut::new().words().to_vec();
        let clauses: Vec<_> = clauses().collect();
        let words = by_frequency(clauses.iter().copied()).into_iter();
        let mut all: Vec<_> = words
            .filter(|word| word.len() > 1 && !held_out.contains(word) && !DIGITS.contains(word))
            .take(N_WORDS)
            .collect();
        let unseen = all.iter().copied().filter(|word| key_of(word) % UNSEEN_EVERY == UNSEEN_EVERY - 1);
        let unseen: HashSet<_> = unseen.collect();
        all.extend(DIGITS);
        all.sort_by_cached_key(|word| key_of(word).rotate_left(32));
        let known = all.iter().copied().filter(|word| !unseen.contains(word)).collect();
        Self { clauses, held_out, known, all, unseen }
    }

    fn has_unseen(&self, text: &str) -> bool {
        words(text).any(|word| self.unseen.contains(word))
    }

    /// Some words: of a clause as they follow each other there, or any.
    fn phrase(&self, split: Split, rng: &mut impl RngCore) -> String {
        let [least, most] = PHRASE_WORDS;
        let n_words = (least + below(most - least + 1, rng)) as usize;
        let words_of_split = if split == Split::Test { &self.all } else { &self.known };
        let is_piece = below(2, rng) == 0;
        for _ in 0..if is_piece { MAX_DRAWS } else { 0 } {
            let clause: Vec<_> =
                words(self.clauses[below(self.clauses.len() as u64, rng) as usize]).collect();
            let n_words = n_words.min(clause.len());
            let first = below((clause.len() - n_words + 1) as u64, rng) as usize;
            let piece = clause[first..first + n_words].join(" ");
            if split == Split::Test || !self.has_unseen(&piece) {
                return piece;
            }
        }
        let mut word = |_| {
            let words = if below(5, rng) == 0 { &self.held_out } else { words_of_split };
            words[below(words.len() as u64, rng) as usize]
        };
        (0..n_words).map(&mut word).collect::<Vec<_>>().join(" ")
    }
}

/// All clauses, the most useful ones first, but those with abbreviations, which are not said as they are spelled.
pub(super) fn clauses() -> impl Iterator<Item = &'static str> {
    let clauses = lines(EVERYDAY).into_iter().chain(lines(SENTENCES));
    clauses.filter(|clause| words(clause).all(|word| !ABBREVIATIONS.contains(&word)))
}

/// The words of clauses, the most frequent ones first.
fn by_frequency(clauses: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut counts = HashMap::<_, usize>::new();
    for word in clauses.flat_map(words) {
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by(|(one, n), (other, m)| m.cmp(n).then(one.cmp(other)));
    counts.into_iter().map(|(word, _)| word).collect()
}

/// The split of a text, by its words alone.
fn split_of(text: &str, every: u64) -> Split {
    match key_of(text) % every {
        0 => Split::Dev,
        1 => Split::Test,
        _ => Split::Train,
    }
}
