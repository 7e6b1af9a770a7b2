//! What a model hears at once: a cut, several cuts one after the other, or silence.
//!
//! Corpora of short cuts make models that know nothing else. Joined cuts (lhotse, `CutConcatenate`) and silence teach longer
//! texts, pauses, and to write nothing where nothing is said.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::manifest::Cut;
use super::shuffle::{Purpose, between, generator, shuffle, uniform};
use crate::Error;

/// How far a cut with the same text is looked for: where most texts are different there is none.
const REPEAT_SEARCH: usize = 200;

/// How utterances are made of cuts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// Cuts in an utterance at most; how many it has is drawn. 1 joins none.
    pub max_cuts: usize,
    /// Epochs until it is so many: the first has single cuts, and each one after it some more at most.
    pub grow_epochs: u64,
    /// Seconds that joined cuts last at most, pauses included. A run makes of 0 what its windows hold; here 0 joins nothing.
    pub max_secs: f64,
    /// Share of the cuts that are joined with others of the same speaker only.
    pub same_speaker: f64,
    /// Share of the cuts that are followed by another with the same text, as far as there is one: words that come twice are
    /// rare, and easily dropped or written once too often.
    pub repeats: f64,
    /// Seconds of silence between joined cuts.
    pub pause_secs: [f64; 2],
    /// Seconds of silence before the first cut and after the last.
    pub edge_secs: [f64; 2],
    /// Share of the utterances that have such silence; the others begin and end with speech.
    pub edges: f64,
    /// Utterances of silence, as a share of all others.
    pub silence: f64,
    /// Seconds that they last.
    pub silence_secs: [f64; 2],
}

/// What a model hears at once, by metadata alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// Its name, which no other of its epoch has: that of its first cut, and how many there are beside it.
    pub id: String,
    /// What is said, in order: index of the cut and the silence before it, seconds.
    pub parts: Vec<(usize, f64)>,
    /// Silence after the last cut, seconds.
    pub rest_secs: f64,
    /// How long it lasts.
    pub duration_secs: f64,
    /// Of silence: the cut whose languages it is asked for in, so that each task of the data has its share of silence.
    pub silent_like: Option<usize>,
}

/// What a decoder has room for.
#[derive(Debug, Clone, Copy)]
pub struct TokenRoom<'a> {
    /// Tokens of each cut's text.
    pub n_tokens: &'a [u32],
    /// Tokens of joined texts at most.
    pub max: u32,
}

/// Language, language of the text where that is another, and speaker that the cuts before and after it must have, if any, and the cut's index.
type Candidate<'a> = ((Option<&'a str>, Option<&'a str>, Option<&'a str>), usize);

impl JoinConfig {
    /// Cuts as they are.
    pub const NONE: Self = Self {
        max_cuts: 1,
        grow_epochs: 0,
        max_secs: 0.0,
        same_speaker: 0.0,
        repeats: 0.0,
        pause_secs: [0.0; 2],
        edge_secs: [0.0; 2],
        edges: 0.0,
        silence: 0.0,
        silence_secs: [0.0; 2],
    };

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("join.{key}"), message));
        if self.max_cuts == 0 {
            return refuse("max_cuts", "0 leaves nothing; 1 joins no cuts".to_owned());
        }
        for (key, [least, most]) in [
            ("pause_secs", self.pause_secs),
            ("edge_secs", self.edge_secs),
            ("silence_secs", self.silence_secs),
        ] {
            if !(least >= 0.0 && least <= most && most.is_finite()) {
                return refuse(key, format!("[{least}, {most}] is not a range of seconds from 0 on"));
            }
        }
        if !(self.max_secs.is_finite() && self.max_secs >= 0.0) {
            return refuse("max_secs", format!("{} is not a number of seconds from 0 on", self.max_secs));
        }
        for (key, share) in [
            ("same_speaker", self.same_speaker),
            ("repeats", self.repeats),
            ("edges", self.edges),
            ("silence", self.silence),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return refuse(key, format!("{share} is not between 0 and 1"));
            }
        }
        if self.silence > 0.0 && self.silence_secs[1] <= 0.0 {
            return refuse("silence_secs", "silence of no length cannot be heard".to_owned());
        }
        Ok(())
    }

    /// Cuts in an utterance of an epoch, at most.
    fn max_cuts_in(&self, epoch: u64) -> f64 {
        let grown = if epoch >= self.grow_epochs { 1.0 } else { epoch as f64 / self.grow_epochs as f64 };
        1.0 + (self.max_cuts - 1) as f64 * grown
    }

    /// The utterances of an epoch: each of the `indices` of cuts, which may come several times, is in one of them, and joined ones
    /// do not become longer than there is `room` for. A pure function of its arguments.
    pub fn utterances(
        &self,
        cuts: &[Cut],
        indices: Vec<usize>,
        room: Option<TokenRoom<'_>>,
        seed: u64,
        epoch: u64,
    ) -> Vec<Utterance> {
        let mut rng = generator(seed, epoch, Purpose::Join, 0);
        let mut utterances = self.drawn(cuts, indices, room, self.max_cuts_in(epoch), &mut rng);
        // What is drawn for an utterance is drawn by its name: heard twice it is another.
        let mut n_seen: HashMap<String, usize> = HashMap::new();
        for utterance in &mut utterances {
            let n_before = n_seen.entry(utterance.id.clone()).or_default();
            if *n_before > 0 {
                utterance.id = format!("{} #{}", utterance.id, *n_before + 1);
            }
            *n_before += 1;
        }
        utterances
    }

    fn drawn(
        &self,
        cuts: &[Cut],
        indices: Vec<usize>,
        room: Option<TokenRoom<'_>>,
        max_cuts: f64,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Utterance> {
        if self == &Self::NONE {
            return indices.into_iter().map(|index| Utterance::of(index, &cuts[index])).collect();
        }
        let mut order = indices;
        shuffle(&mut order, rng);
        // Those that may follow each other stand together: language, then for some the speaker.
        let mut keyed: Vec<_> = order
            .into_iter()
            .map(|index| {
                let speaker = cuts[index].speaker.as_deref().filter(|_| uniform(rng) < self.same_speaker);
                ((cuts[index].language.as_deref(), cuts[index].target_language.as_deref(), speaker), index)
            })
            .collect();
        // Stable: within a group the order stays drawn.
        keyed.sort_by_key(|(key, _)| *key);
        if self.repeats > 0.0 {
            keyed.chunk_by_mut(|a, b| a.0 == b.0).for_each(|group| self.repeat(cuts, group, rng));
        }
        let mut utterances = Vec::new();
        for group in keyed.chunk_by(|a, b| a.0 == b.0) {
            let mut rest = group;
            while !rest.is_empty() {
                let n_most = 1 + (uniform(rng) * max_cuts) as usize;
                let (utterance, n_taken) = self.join(cuts, rest, n_most, room, rng);
                utterances.push(utterance);
                rest = &rest[n_taken..];
            }
        }
        let n_silent = (self.silence * utterances.len() as f64).round() as usize;
        let n_spoken = utterances.len();
        for index in 0..n_silent {
            let duration_secs = between(self.silence_secs, rng);
            let id = format!("silence {index}");
            let parts = Vec::new();
            utterances.push(Utterance {
                id,
                parts,
                rest_secs: duration_secs,
                duration_secs,
                silent_like: None,
            });
        }
        // Cuts of one language stand together: evenly spread, each has its share, the few by turns of epochs.
        let offset = uniform(rng);
        for (index, silence) in utterances[n_spoken..].iter_mut().enumerate() {
            let place = (index as f64 + offset) / n_silent as f64;
            silence.silent_like = keyed.get((place * keyed.len() as f64) as usize).map(|(_, index)| *index);
        }
        utterances
    }

    /// Moves cuts with the text of the one before them forward, as often as `repeats` says.
    fn repeat(&self, cuts: &[Cut], group: &mut [Candidate<'_>], rng: &mut ChaCha8Rng) {
        for at in 1..group.len() {
            let text = cuts[group[at - 1].1].text.trim();
            if uniform(rng) >= self.repeats || text.is_empty() {
                continue;
            }
            let end = group.len().min(at + REPEAT_SEARCH);
            let same = (at..end).find(|other| cuts[group[*other].1].text.trim() == text);
            if let Some(same) = same {
                group.swap(at, same);
            }
        }
    }

    /// One utterance of the first cuts of `rest`, at most `n_most`, and how many it took.
    fn join(
        &self,
        cuts: &[Cut],
        rest: &[Candidate<'_>],
        n_most: usize,
        room: Option<TokenRoom<'_>>,
        rng: &mut ChaCha8Rng,
    ) -> (Utterance, usize) {
        let mut parts: Vec<(usize, f64)> = Vec::new();
        let (mut duration_secs, mut n_tokens) = (0.0, 0);
        let edge_secs = if uniform(rng) < self.edges { self.edge_secs } else { [0.0; 2] };
        for (_, index) in rest.iter().take(n_most) {
            let range = if parts.is_empty() { edge_secs } else { self.pause_secs };
            let room_secs = (self.max_secs - duration_secs - cuts[*index].duration_secs).max(0.0);
            let pause_secs = match parts.is_empty() {
                true => between(range, rng).min(room_secs),
                false => between(range, rng),
            };
            let longer_secs = duration_secs + pause_secs + cuts[*index].duration_secs;
            let n_added = room.and_then(|room| room.n_tokens.get(*index)).copied().unwrap_or(0);
            let is_full = longer_secs + edge_secs[1] > self.max_secs
                || room.is_some_and(|room| n_tokens + n_added > room.max);
            if !parts.is_empty() && is_full {
                break;
            }
            n_tokens += n_added;
            parts.push((*index, pause_secs));
            duration_secs = longer_secs;
        }
        // Silence never makes a cut too long that fits.
        let room_secs = (self.max_secs - duration_secs).max(0.0);
        let rest_secs = between(edge_secs, rng).min(room_secs);
        let first = parts.first().map_or("", |(index, _)| &*cuts[*index].id);
        let n_taken = parts.len();
        let id = if n_taken == 1 { first.to_owned() } else { format!("{first} and {} more", n_taken - 1) };
        let duration_secs = duration_secs + rest_secs;
        (Utterance { id, parts, rest_secs, duration_secs, silent_like: None }, n_taken)
    }
}

/// The cuts of an epoch, of `n`, when each is heard as often as its weight says: as many times as the weight is whole, and with the
/// rest as a chance once more. Without weights each is heard once.
pub fn weighted(weights: &[f32], n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    if weights.is_empty() {
        return (0..n).collect();
    }
    let mut rng = generator(seed, epoch, Purpose::Weights, 0);
    let mut indices = Vec::new();
    for (index, weight) in weights.iter().enumerate() {
        let weight = f64::from(*weight);
        let n_times = weight.floor() as usize + usize::from(uniform(&mut rng) < weight.fract());
        indices.extend(std::iter::repeat_n(index, n_times));
    }
    // An epoch without a cut would be none.
    if indices.is_empty() {
        indices.extend((0..weights.len()).filter(|index| weights[*index] > 0.0));
    }
    indices
}

impl Utterance {
    /// A cut as it is.
    pub fn of(index: usize, cut: &Cut) -> Self {
        let (parts, duration_secs) = (vec![(index, 0.0)], cut.duration_secs);
        Self { id: cut.id.to_string(), parts, rest_secs: 0.0, duration_secs, silent_like: None }
    }

    /// The cut whose languages are those of the utterance.
    pub fn asked_like<'a>(&self, cuts: &'a [Cut]) -> Option<&'a Cut> {
        let index = self.parts.first().map(|(index, _)| *index).or(self.silent_like)?;
        cuts.get(index)
    }

    /// What is said: the cuts' texts, those without one left out, with what the language has between sentences.
    pub fn text(&self, cuts: &[Cut], separator: &str) -> String {
        let texts = self.parts.iter().map(|(index, _)| cuts[*index].text.trim());
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(separator)
    }

    /// The language that is spoken, where the cuts state one.
    pub fn language<'a>(&self, cuts: &'a [Cut]) -> Option<&'a str> {
        self.asked_like(cuts)?.language.as_deref()
    }

    /// The language that it is translated into, where it is.
    pub fn target_language<'a>(&self, cuts: &'a [Cut]) -> Option<&'a str> {
        self.asked_like(cuts)?.target_language.as_deref()
    }

    /// Where speech begins and ends, seconds: the edges of the first and the last cut that have a text.
    pub fn speech_secs(&self, cuts: &[Cut]) -> Option<(f64, f64)> {
        let (mut at, mut speech) = (0.0, None);
        for (index, pause_secs) in &self.parts {
            let cut = &cuts[*index];
            let start = at + pause_secs;
            at = start + cut.duration_secs;
            if !cut.text.trim().is_empty() {
                speech = Some((speech.map_or(start, |(first, _)| first), at));
            }
        }
        speech
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn cut(index: usize) -> Cut {
        let speaker = ["ann", "bo", "cy"][index % 3];
        let text = if index % 10 == 9 { String::new() } else { format!("w{index}") };
        Cut {
            id: format!("{index}").into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs: 0.5,
            channel: None,
            text: text.into(),
            language: Some("en".into()),
            speaker: Some(speaker.into()),
            target_text: None,
            target_language: None,
            extra: None,
        }
    }

    fn config() -> JoinConfig {
        JoinConfig {
            max_cuts: 8,
            grow_epochs: 0,
            max_secs: 4.0,
            same_speaker: 1.0,
            repeats: 0.0,
            pause_secs: [0.05, 0.3],
            edge_secs: [0.0, 0.4],
            edges: 0.5,
            silence: 0.1,
            silence_secs: [1.0, 2.0],
        }
    }

    fn of_all(config: &JoinConfig, cuts: &[Cut], seed: u64, epoch: u64) -> Vec<Utterance> {
        config.utterances(cuts, (0..cuts.len()).collect(), None, seed, epoch)
    }

    #[test]
    fn every_cut_is_in_one_utterance_of_one_speaker_within_the_length() {
        let cuts: Vec<Cut> = (0..200).map(cut).collect();
        let utterances = of_all(&config(), &cuts, 1, 0);
        let mut seen: Vec<usize> =
            utterances.iter().flat_map(|u| u.parts.iter().map(|part| part.0)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        let ids: BTreeSet<_> = utterances.iter().map(|u| &u.id).collect();
        assert_eq!(ids.len(), utterances.len());
        for utterance in &utterances {
            let speakers: BTreeSet<_> = utterance.parts.iter().map(|part| &cuts[part.0].speaker).collect();
            assert!(speakers.len() <= 1 && utterance.parts.len() <= 8, "{utterance:?}");
            assert!(utterance.duration_secs <= 4.0, "{utterance:?}");
            let secs: f64 = utterance.parts.iter().map(|part| part.1 + 0.5).sum();
            assert!((secs + utterance.rest_secs - utterance.duration_secs).abs() < 1e-9);
        }
        let n_silent = utterances.iter().filter(|u| u.parts.is_empty()).count();
        assert_eq!(n_silent, ((utterances.len() - n_silent) as f64 * 0.1).round() as usize);
        assert!(utterances.iter().map(|u| u.parts.len()).max() > Some(4));
        let spoken = || utterances.iter().filter(|u| !u.parts.is_empty());
        let n_bare = spoken().filter(|u| u.rest_secs == 0.0 && u.parts[0].1 == 0.0).count();
        assert!((spoken().count() / 4..3 * spoken().count() / 4).contains(&n_bare), "{n_bare}");
    }

    #[test]
    fn silence_is_asked_for_as_often_in_each_language_as_speech() {
        let mut cuts: Vec<Cut> = (0..200).map(cut).collect();
        cuts.iter_mut().step_by(4).for_each(|cut| cut.target_language = Some("ps".into()));
        let utterances = of_all(&JoinConfig { max_cuts: 1, silence: 0.2, ..config() }, &cuts, 1, 0);
        let silent: Vec<_> = utterances.iter().filter(|u| u.parts.is_empty()).collect();
        let n_translated = silent.iter().filter(|u| u.target_language(&cuts) == Some("ps")).count();
        assert_eq!((silent.len(), n_translated), (40, 10));
        assert!(silent.iter().all(|u| u.language(&cuts) == Some("en") && u.text(&cuts, " ").is_empty()));
        // Of two among two hundred now and then.
        cuts.iter_mut().skip(2).for_each(|cut| cut.target_language = None);
        cuts[1].target_language = Some("ps".into());
        let config = JoinConfig { max_cuts: 1, silence: 0.2, ..config() };
        let of_epoch = |epoch| {
            let utterances = of_all(&config, &cuts, 1, epoch);
            let silent = utterances.iter().filter(|u| u.parts.is_empty());
            silent.filter(|u| u.target_language(&cuts).is_some()).count()
        };
        let n: usize = (0..50).map(of_epoch).sum();
        assert!((8..=32).contains(&n), "{n} of 2,000, where twenty are due");
    }

    #[test]
    fn words_come_twice_as_often_as_is_wanted() {
        let mut cuts: Vec<Cut> = (0..600).map(cut).collect();
        cuts.iter_mut().enumerate().for_each(|(index, cut)| cut.text = format!("w{}", index / 3 % 10).into());
        let share = |repeats: f64| {
            let config = JoinConfig { repeats, max_secs: 20.0, ..config() };
            let utterances = of_all(&config, &cuts, 1, 0);
            let mut seen: Vec<usize> =
                utterances.iter().flat_map(|u| u.parts.iter().map(|part| part.0)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..600).collect::<Vec<_>>());
            let pairs = || utterances.iter().flat_map(|u| u.parts.windows(2));
            let n_same = pairs().filter(|pair| cuts[pair[0].0].text == cuts[pair[1].0].text).count();
            n_same as f64 / pairs().count() as f64
        };
        let shares = [share(0.0), share(0.5), share(1.0)];
        assert!(shares[0] < 0.15 && (0.4..0.7).contains(&shares[1]) && shares[2] > 0.9, "{shares:?}");
    }

    #[test]
    fn utterances_grow_with_the_epochs() {
        let cuts: Vec<Cut> = (0..300).map(cut).collect();
        let config = JoinConfig { grow_epochs: 4, max_secs: 20.0, ..config() };
        let longest = |epoch| {
            let utterances = of_all(&config, &cuts, 1, epoch);
            utterances.iter().map(|u| u.parts.len()).max().unwrap_or(0)
        };
        assert_eq!([longest(0), longest(1), longest(2)], [1, 3, 5]);
        assert!(longest(4) > 5 && longest(9) > 5);
    }

    #[test]
    fn epochs_differ_and_repeat_themselves() {
        let cuts: Vec<Cut> = (0..50).map(cut).collect();
        assert_eq!(of_all(&config(), &cuts, 1, 3), of_all(&config(), &cuts, 1, 3));
        assert_ne!(of_all(&config(), &cuts, 1, 3), of_all(&config(), &cuts, 1, 4));
        assert_ne!(of_all(&config(), &cuts, 1, 3), of_all(&config(), &cuts, 2, 3));
    }

    #[test]
    fn texts_are_joined_as_far_as_there_is_room() {
        let cuts: Vec<Cut> = (0..200).map(cut).collect();
        let n_tokens: Vec<u32> = (0..200).map(|index| if index == 7 { 30 } else { 1 + index % 5 }).collect();
        let config = JoinConfig { max_secs: 20.0, ..config() };
        let sums = |max: u32| {
            let room = Some(TokenRoom { n_tokens: &n_tokens, max });
            let utterances = config.utterances(&cuts, (0..200).collect(), room, 1, 0);
            let spoken = utterances.iter().filter(|utterance| !utterance.parts.is_empty());
            let sum =
                |utterance: &Utterance| utterance.parts.iter().map(|part| n_tokens[part.0]).sum::<u32>();
            spoken.map(|utterance| (utterance.parts.len(), sum(utterance))).collect::<Vec<_>>()
        };
        assert_eq!(sums(12).iter().map(|(n_cuts, _)| n_cuts).sum::<usize>(), 200);
        // What has no room alone stays alone.
        assert!(sums(12).iter().all(|(n_cuts, sum)| *sum <= 12 || (*n_cuts, *sum) == (1, 30)));
        assert!(sums(12).iter().any(|(_, sum)| *sum == 12) && sums(99).iter().any(|(_, sum)| *sum > 12));
    }

    #[test]
    fn nothing_joined_is_the_cuts_as_they_are() {
        let cuts: Vec<Cut> = (0..3).map(cut).collect();
        let utterances = of_all(&JoinConfig::NONE, &cuts, 1, 0);
        assert_eq!(utterances.iter().map(|u| u.id.as_str()).collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_eq!((utterances[1].text(&cuts, " "), utterances[1].duration_secs), ("w1".to_owned(), 0.5));
    }

    #[test]
    fn weights_say_how_often_a_cut_is_heard() {
        let cuts: Vec<Cut> = (0..300).map(cut).collect();
        let weights: Vec<f32> = (0..300).map(|index| [0.0, 1.0, 2.5][index / 100]).collect();
        let indices = weighted(&weights, weights.len(), 1, 0);
        let count = |range: std::ops::Range<usize>| indices.iter().filter(|i| range.contains(i)).count();
        assert_eq!((count(0..100), count(100..200)), (0, 100));
        assert!((235..265).contains(&count(200..300)), "{}", count(200..300));
        assert_ne!(indices, weighted(&weights, weights.len(), 1, 1));
        for config in [config(), JoinConfig::NONE] {
            let utterances = config.utterances(&cuts, indices.clone(), None, 1, 0);
            let ids: BTreeSet<_> = utterances.iter().map(|u| &u.id).collect();
            assert_eq!(ids.len(), utterances.len());
        }
    }

    #[test]
    fn texts_and_times_leave_out_what_has_no_text() {
        let cuts: Vec<Cut> = (0..12).map(cut).collect();
        let utterance = Utterance {
            id: "u".to_owned(),
            parts: vec![(9, 0.5), (1, 0.25), (2, 0.25), (9, 0.0)],
            rest_secs: 1.0,
            duration_secs: 4.0,
            silent_like: None,
        };
        assert_eq!(utterance.text(&cuts, " "), "w1 w2");
        assert_eq!(utterance.speech_secs(&cuts), Some((1.25, 2.5)));
        assert_eq!(utterance.language(&cuts), Some("en"));
        let silence = Utterance { parts: Vec::new(), ..utterance };
        assert_eq!((silence.text(&cuts, " ").as_str(), silence.speech_secs(&cuts)), ("", None));
    }

    #[test]
    fn settings_without_sense_are_named() {
        for (key, config) in [
            ("join.max_cuts", JoinConfig { max_cuts: 0, ..config() }),
            ("join.max_secs", JoinConfig { max_secs: f64::NAN, ..config() }),
            ("join.pause_secs", JoinConfig { pause_secs: [2.0, 1.0], ..config() }),
            ("join.repeats", JoinConfig { repeats: -0.1, ..config() }),
            ("join.silence", JoinConfig { silence: 2.0, ..config() }),
            ("join.silence_secs", JoinConfig { silence_secs: [0.0, 0.0], ..config() }),
        ] {
            let message = config.check().map_err(|error| error.to_string());
            assert!(message.is_err_and(|message| message.starts_with(key)), "{key}");
        }
    }
}
