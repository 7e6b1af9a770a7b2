//! Takes a share of a corpus away: whole speakers where there are enough, else whole recordings.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::Split;
use crate::data::manifest::Cut;

/// Whole speakers are taken when they come to between these shares of what is wanted.
const CLOSE_ENOUGH: std::ops::RangeInclusive<f64> = 0.5..=1.5;

/// Sums of lengths are off by rounding.
const ROUNDING: f64 = 1e-3;

/// What was taken, and how.
pub(super) struct Taken {
    pub(super) cuts: Vec<Cut>,
    is_by_speaker: bool,
    n_speakers: usize,
    /// Cuts of which nobody knows who speaks.
    n_unnamed: usize,
}

impl Taken {
    /// What the user should know about a split that was made so.
    pub(super) fn notes(&self, split: Split) -> Vec<String> {
        let name = split.name();
        if self.cuts.is_empty() {
            return vec![format!("No {name} set: there is too little to take it from.")];
        }
        let n_cuts = self.cuts.len();
        let mut notes = vec![match (self.is_by_speaker, self.n_speakers) {
            (true, _) => {
                format!("No {name} set: {n_cuts} cuts of speakers of their own were taken from train.")
            }
            (false, 0 | 1) => format!("No {name} set: {n_cuts} cuts were taken from train."),
            (false, n) => format!(
                "No {name} set: {n_cuts} cuts were taken from train, of speakers that stay there: {n} are too few to \
                 give some up."
            ),
        }];
        if self.is_by_speaker && self.n_unnamed > 0 {
            notes.push(format!(
                "{} cuts that name no speaker stayed in train: those who speak in {name} may speak in them, too.",
                self.n_unnamed
            ));
        }
        notes
    }
}

/// Cuts that go together, by what they have in common.
struct Group<'a> {
    share: f64,
    /// What its place in the draw comes from: the speaker, or the first cut's name.
    name: &'a str,
}

/// What a cut counts for: its seconds; a text without a recording counts as one.
pub(super) fn share_of(cut: &Cut) -> f64 {
    if cut.has_audio() { cut.duration_secs } else { 1.0 }
}

/// Takes about `wanted` of the shares out of `cuts`, never all of them. Which ones depends on names alone and not on where they lie, so
/// that a corpus that grows or moves keeps most of its splits. Where whole speakers are taken, cuts that name none stay.
pub(super) fn take(cuts: &mut Vec<Cut>, wanted: f64) -> Taken {
    let mut speakers = HashMap::<&str, Group<'_>>::new();
    let mut recordings = HashMap::<&str, Group<'_>>::new();
    let mut n_unnamed = 0;
    for cut in cuts.iter() {
        let recording = recordings.entry(recording(cut)).or_insert(Group { share: 0.0, name: &cut.id });
        recording.share += share_of(cut);
        match cut.speaker.as_deref() {
            Some(name) => {
                speakers.entry(name).or_insert(Group { share: 0.0, name }).share += share_of(cut);
            }
            None => n_unnamed += 1,
        }
    }
    let n_speakers = speakers.len();
    let by_speaker = if n_speakers > 1 { choose(&speakers, wanted, true) } else { None };
    let is_by_speaker = by_speaker.is_some();
    let chosen = by_speaker.or_else(|| choose(&recordings, wanted, false)).unwrap_or_default();
    let is_taken = |cut: &Cut| {
        let key = if is_by_speaker { cut.speaker.as_deref() } else { Some(recording(cut)) };
        key.is_some_and(|key| chosen.contains(key))
    };
    let (taken, kept) = std::mem::take(cuts).into_iter().partition(is_taken);
    *cuts = kept;
    Taken { cuts: taken, is_by_speaker, n_speakers, n_unnamed }
}

/// Cuts of one recording belong together, and without one those of the same text. A path that is no Unicode cannot be written
/// anyway.
fn recording(cut: &Cut) -> &str {
    if cut.has_audio() { cut.audio.to_str().unwrap_or_default() } else { &cut.text }
}

/// Groups in an order drawn from their names, until there is enough; `None` when whole groups do not come close.
fn choose(groups: &HashMap<&str, Group<'_>>, wanted: f64, must_be_close: bool) -> Option<HashSet<String>> {
    let mut order: Vec<_> = groups
        .iter()
        .map(|(key, group)| (Sha256::digest(group.name), group.name, *key, group.share))
        .collect();
    order.sort_unstable_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let (mut chosen, mut taken) = (HashSet::new(), 0.0);
    for (_, _, key, share) in order {
        if taken >= wanted - ROUNDING || chosen.len() + 1 >= groups.len() {
            break;
        }
        if must_be_close && taken + share > wanted * CLOSE_ENOUGH.end() {
            continue;
        }
        chosen.insert(key.to_owned());
        taken += share;
    }
    let is_close = CLOSE_ENOUGH.contains(&(taken / wanted));
    (is_close || !must_be_close).then_some(chosen)
}
