//! What a split must not know of another: speakers, texts; and names, which should be one cut's.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use super::{Corpus, Finding, Kind, Placed};
use crate::data::manifest::short;

pub(super) fn check(corpus: &Corpus, findings: &mut Vec<Finding>) {
    let mut first_of_id = HashMap::<&str, &Placed>::new();
    for placed in &corpus.cuts {
        match first_of_id.get(&*placed.cut.id) {
            Some(first) => {
                let detail = format!("as {}", corpus.place(first));
                findings.push(corpus.finding(Kind::DuplicateId, placed, detail));
            }
            None => {
                first_of_id.insert(&placed.cut.id, placed);
            }
        }
    }
    across(corpus, Kind::SpeakerInSplits, |placed| placed.cut.speaker.as_deref(), findings);
    let text = |placed: &Placed| Some(placed.cut.text.split_whitespace().collect::<Vec<_>>().join(" "));
    across(corpus, Kind::TextInSplits, |placed| text(placed).filter(|text| !text.is_empty()), findings);
}

/// One finding for each thing that several splits have, at its first cut.
fn across<'a, K: Hash + Eq + AsRef<str>>(
    corpus: &'a Corpus,
    kind: Kind,
    key: impl Fn(&'a Placed) -> Option<K>,
    findings: &mut Vec<Finding>,
) {
    let mut seen = HashMap::<K, (usize, BTreeSet<usize>)>::new();
    for (at, placed) in corpus.cuts.iter().enumerate() {
        if let Some(key) = key(placed) {
            seen.entry(key).or_insert((at, BTreeSet::new())).1.insert(placed.manifest);
        }
    }
    let mut shared: Vec<_> = seen.into_iter().filter(|(_, (_, splits))| splits.len() > 1).collect();
    shared.sort_unstable_by_key(|(_, (at, _))| *at);
    for (key, (at, splits)) in shared {
        let name = |split: &usize| corpus.manifests[*split].display().to_string();
        let splits: Vec<_> = splits.iter().map(name).collect();
        let detail = format!("\"{}\" in {}", short(key.as_ref()), splits.join(", "));
        findings.push(corpus.finding(kind, &corpus.cuts[at], detail));
    }
}
