//! What is in manifests: hours, lengths and tokens, by language and speaker.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{
    count::Counter,
    manifest::{Cut, Error, Rejected},
    tokens::Tokens,
};

/// The sum of some cuts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Sum {
    /// How many.
    pub n_cuts: u64,
    /// How long together, seconds.
    pub total_secs: f64,
    /// Tokens of the texts that a model is to write.
    pub n_tokens: u64,
    /// How many of the cuts are texts without a recording. They have no length.
    pub n_texts: u64,
    /// How many of the tokens are theirs, and said in no time.
    pub n_text_tokens: u64,
}

impl Sum {
    fn add(&mut self, cut: &Cut, n_tokens: usize) {
        self.n_cuts += 1;
        self.total_secs += cut.duration_secs;
        self.n_tokens += n_tokens as u64;
        if !cut.has_audio() {
            self.n_texts += 1;
            self.n_text_tokens += n_tokens as u64;
        }
    }
}

/// What some manifests hold. Three numbers are kept of each cut, so ten million take a few hundred megabytes.
#[derive(Debug, Default)]
pub struct Stats {
    /// All of it.
    pub total: Sum,
    /// By manifest, in the order given.
    pub by_manifest: Vec<(PathBuf, Sum)>,
    /// By the language that is spoken; `None` where it is not stated.
    pub by_language: BTreeMap<Option<Arc<str>>, Sum>,
    /// By speaker; `None` where it is not stated.
    pub by_speaker: BTreeMap<Option<Arc<str>>, Sum>,
    /// Length of each cut that has a recording, seconds.
    pub durations_secs: Vec<f32>,
    /// Tokens of each cut's text.
    pub tokens: Vec<f32>,
    /// Tokens per second of each cut that has a recording.
    pub tokens_per_sec: Vec<f32>,
    /// Rows that were skipped.
    pub rejected: Vec<Rejected>,
    /// Cuts whose text the vocabulary cannot spell, counted with no tokens, and what it said of the first.
    pub unspelled: Option<(u64, String)>,
}

/// Values that some shares of all do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub min: f64,
    pub p5: f64,
    pub p25: f64,
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
    pub mean: f64,
}

impl Quantiles {
    /// By the nearest rank: each is one of the values. `None` when there are none.
    pub fn of(values: &[f32]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            f64::from(sorted[rank.clamp(1, sorted.len()) - 1])
        };
        let mean = sorted.iter().map(|value| f64::from(*value)).sum::<f64>() / sorted.len() as f64;
        Some(Self {
            min: min.into(),
            p5: at(0.05),
            p25: at(0.25),
            p50: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            p99: at(0.99),
            max: max.into(),
            mean,
        })
    }
}

/// Reads manifests and counts. Texts are split into tokens in parallel; `progress` hears how many cuts were counted.
///
/// # Errors
/// A manifest that cannot be opened, or one of whose rows none can be used.
pub fn stats(manifests: &[PathBuf], tokens: &Tokens, progress: &mut dyn FnMut(u64)) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    let mut counter = Counter::new(tokens, true, progress);
    for path in manifests {
        let mut sum = Sum::default();
        counter.read(path, &mut |cut, n_tokens| stats.add(cut, n_tokens, &mut sum))?;
        stats.by_manifest.push((path.clone(), sum));
    }
    (stats.rejected, stats.unspelled) = (counter.rejected, counter.unspelled);
    Ok(stats)
}

impl Stats {
    fn add(&mut self, cut: &Cut, n_tokens: usize, sum: &mut Sum) {
        for sum in [
            &mut self.total,
            sum,
            self.by_language.entry(cut.language.clone()).or_default(),
            self.by_speaker.entry(cut.speaker.clone()).or_default(),
        ] {
            sum.add(cut, n_tokens);
        }
        self.tokens.push(n_tokens as f32);
        if cut.has_audio() {
            self.durations_secs.push(cut.duration_secs as f32);
            self.tokens_per_sec.push((n_tokens as f64 / cut.duration_secs) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::count::CHUNK;

    #[test]
    fn quantiles_are_values_at_their_rank() {
        let values: Vec<f32> = (1..=100).rev().map(|value| value as f32).collect();
        let quantiles = Quantiles::of(&values).expect("values");
        let ranks = [quantiles.min, quantiles.p5, quantiles.p25, quantiles.p50, quantiles.p99, quantiles.max];
        assert_eq!((ranks, quantiles.mean), ([1.0, 5.0, 25.0, 50.0, 99.0, 100.0], 50.5));
        assert_eq!(Quantiles::of(&[3.0]).expect("one").p5, 3.0);
        assert_eq!(Quantiles::of(&[]), None);
    }

    #[test]
    fn cuts_are_summed_by_what_they_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("train.jsonl");
        let row = |text: &str, secs: f64, rest: &str| {
            format!("{{\"audio_filepath\": \"a.wav\", \"duration\": {secs}, \"text\": \"{text}\"{rest}}}\n")
        };
        let good = [
            row("سلام", 2.0, ", \"lang\": \"ps\", \"speaker\": \"a\""),
            row("hi", 1.0, ", \"lang\": \"en\", \"speaker\": \"b\""),
            row("", 1.0, ", \"speaker\": \"b\""),
        ];
        // More bad rows than a chunk, before good ones.
        fs::write(&path, "{\n".repeat(CHUNK + 1) + &good.concat()).expect("written");
        let mut heard = 0;
        let of = |tokens: &Tokens, heard: &mut u64| {
            stats(std::slice::from_ref(&path), tokens, &mut |n| *heard = n).expect("counted")
        };
        let chars = of(&Tokens::Chars, &mut heard);
        let sum = |n_cuts, total_secs, n_tokens| Sum { n_cuts, total_secs, n_tokens, ..Sum::default() };
        assert_eq!((chars.total, heard), (sum(3, 4.0, 6), 3));
        assert_eq!(chars.rejected.len(), CHUNK + 1);
        assert_eq!(chars.by_language[&Some("ps".into())], sum(1, 2.0, 4));
        assert_eq!(chars.by_language[&None].n_cuts, 1);
        assert_eq!(chars.by_speaker[&Some("b".into())], sum(2, 2.0, 2));
        assert_eq!(chars.tokens_per_sec, [2.0, 2.0, 0.0]);
        assert_eq!(of(&Tokens::Bytes, &mut heard).tokens, [8.0, 2.0, 0.0]);
        // Texts without recordings take no time.
        let pair = "{\"id\": \"p\", \"text\": \"hi\", \"answer\": \"سلام\", \"source_lang\": \"en\", \"target_lang\": \"ps\"}\n";
        fs::write(&path, pair.to_owned() + &good[0]).expect("written");
        let texts = of(&Tokens::Chars, &mut heard);
        assert_eq!(texts.total, Sum { n_texts: 1, n_text_tokens: 4, ..sum(2, 2.0, 8) });
        assert_eq!((&*texts.durations_secs, &*texts.tokens_per_sec), (&[2.0][..], &[2.0][..]));
        assert_eq!(texts.tokens, [4.0, 4.0]);
        fs::write(&path, "{\n").expect("written");
        let message = stats(std::slice::from_ref(&path), &Tokens::Chars, &mut |_| {})
            .expect_err("no good row")
            .to_string();
        assert!(message.contains("none of its 1 rows"), "{message}");
    }
}
