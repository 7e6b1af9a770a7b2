//! Pairs of texts, in batches of equal lengths.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use models::TextModel;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::{RunConfig, SamplerSettings};
use crate::data::{
    BucketEstimate, Constraint, CountedTokens, Cut, EpochPadding, Length, LengthLimits, Phonemes, Sampler,
    SamplerConfig, hex, weighted,
};
use crate::loader::{Loaded, Position, Source};
use crate::task::plans::{EpochPlan, Plans};
use crate::task::{Data, Extent};

/// What one forward pass takes.
pub struct Batch {
    /// What is read, with its end.
    pub texts: Vec<Vec<u32>>,
    /// What the decoder sees.
    pub ids: Tensor, // (B, U)
    /// What comes next at each place, row after row.
    pub labels: Vec<u32>,
    /// What each place counts: 0 for padding and for prompts.
    pub weights: Vec<f32>,
    /// What it is made of.
    pub extent: Extent,
}

/// A text and what it becomes.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub id: Box<str>,
    /// What is read, with its end.
    pub text: Vec<u32>,
    /// What the decoder is given, and where its start is.
    pub prompt: (Vec<u32>, usize),
    /// Its translation, without the end.
    pub translation: Vec<u32>,
    /// The same as it stands in the manifest.
    pub reference: Box<str>,
}

impl Pair {
    /// Tokens that are read, and tokens that the decoder sees.
    fn length(&self) -> Length {
        let n_written = self.prompt.0.len() + self.translation.len() + 1;
        Length::new(self.text.len() as f64, n_written as u32)
    }
}

/// The pairs of cuts whose text is `said` and which are learnt as a translation. `language` is that of cuts that state none.
///
/// # Errors
/// Languages that the model has no token for, texts that it cannot spell, phonemes that are missing.
pub(super) fn pairs(
    cuts: &[Cut],
    language: Option<&str>,
    model: &TextModel,
    phonemes: Option<&Phonemes>,
) -> Result<Vec<Pair>, Error> {
    let pair = |cut: &Cut| {
        let Some(translation) = &cut.target_text else { return Ok(None) };
        if cut.text.trim().is_empty() || translation.trim().is_empty() {
            return Ok(None);
        }
        let spoken = cut.language.as_deref().or(language);
        let to_language = cut.target_language.as_deref();
        let mut text = match phonemes {
            // Of what is said, whatever it is learnt with.
            Some(phonemes) => phonemes.ids(&Cut { target_language: None, ..cut.clone() })?,
            None => super::super::encode(model.tokenizer(), &cut.text, spoken)?,
        };
        text.push(model.end());
        Ok(Some(Pair {
            id: cut.id.clone(),
            text,
            prompt: model.prompt(spoken, to_language)?,
            translation: super::super::encode(model.tokenizer(), translation, to_language)?,
            reference: translation.trim().into(),
        }))
    };
    cuts.iter().filter_map(|cut| pair(cut).transpose()).collect()
}

/// Pairs side by side.
///
/// # Errors
/// When there is no memory for it.
pub(super) fn batch(pairs: &[&Pair], end: u32, device: &Device) -> Result<Batch, Error> {
    let sequence = |pair: &Pair| [pair.prompt.0.as_slice(), &pair.translation, &[end]].concat();
    let sequences: Vec<_> = pairs.iter().map(|pair| sequence(pair)).collect();
    let (b, u) = (pairs.len(), sequences.iter().map(|sequence| sequence.len() - 1).max().unwrap_or(0));
    let (mut ids, mut labels, mut weights) = (vec![end; b * u], vec![end; b * u], vec![0f32; b * u]);
    for (i, (pair, sequence)) in pairs.iter().zip(&sequences).enumerate() {
        let (at, n) = (i * u, sequence.len() - 1);
        ids[at..at + n].copy_from_slice(&sequence[..n]);
        labels[at..at + n].copy_from_slice(&sequence[1..]);
        weights[at + pair.prompt.0.len() - 1..at + n].fill(1.0);
    }
    let longest = pairs.iter().map(|pair| pair.text.len()).max().unwrap_or(0);
    Ok(Batch {
        texts: pairs.iter().map(|pair| pair.text.clone()).collect(),
        ids: Tensor::from_vec(ids, (b, u), device)?,
        labels,
        weights,
        extent: Extent {
            n_cuts: b,
            n_tokens: pairs.iter().map(|pair| pair.text.len()).sum::<usize>()
                + sequences.iter().map(|sequence| sequence.len() - 1).sum::<usize>(),
            padded_tokens: b * (longest + u),
            ..Extent::default()
        },
    })
}

/// Pairs, and the order in which they are trained on.
pub struct Corpus {
    pairs: Vec<Pair>,
    /// How often each is learnt in an epoch; empty is once.
    weights: Vec<f32>,
    sampler: Sampler,
    seed: u64,
    n_parts: usize,
    end: u32,
    device: Device,
    digest: String,
    plans: Plans<EpochPlan>,
}

impl Corpus {
    /// `weights` say how often each pair is learnt in an epoch; none is once.
    ///
    /// # Errors
    /// Settings that make no sense, data of which nothing is left.
    pub(super) fn new(
        pairs: Vec<Pair>,
        weights: Vec<f32>,
        config: &RunConfig,
        model: &TextModel,
        device: &Device,
    ) -> Result<Self, Error> {
        let (settings, limits) = (&config.sampler, LengthLimits::default());
        let constraint = Constraint::Tokens {
            max_tokens: settings.batch_tokens,
            counted: CountedTokens::Total { token_secs: 1.0 },
            quadratic_tokens: None,
            max_items: (settings.max_items > 0).then_some(settings.max_items),
        };
        let lengths: Vec<Length> = pairs.iter().map(Pair::length).collect();
        let table = estimate(settings, lengths.len()).table(&lengths)?;
        let sampler = Sampler::new(
            lengths,
            table,
            SamplerConfig { limits, ..SamplerConfig::new(constraint) },
            config.seed,
        )?;
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {} {}", weights, config.seed, sampler.digest()));
        for pair in &pairs {
            hash.update(format!("\n{} {:?} {:?} {:?}", pair.id, pair.text, pair.prompt, pair.translation));
        }
        Ok(Self {
            pairs,
            weights,
            sampler,
            seed: config.seed,
            n_parts: config.train.parts,
            end: model.special_tokens().end,
            device: device.clone(),
            digest: hex(&hash.finalize()),
            plans: Plans::default(),
        })
    }

    /// Pairs that are learnt.
    pub fn n_pairs(&self) -> usize {
        self.pairs.len()
    }

    fn plan(&self, number: u64) -> Result<Arc<EpochPlan>, Error> {
        self.plans.of(number, || self.make_plan(number))
    }

    fn make_plan(&self, number: u64) -> Result<EpochPlan, Error> {
        let pairs = weighted(&self.weights, self.pairs.len(), self.seed, number);
        let lengths = pairs.iter().map(|pair| self.pairs[*pair].length()).collect();
        let (table, config) = (self.sampler.table().clone(), self.sampler.config().clone());
        let sampler = Sampler::new(lengths, table, config, self.seed)?;
        let epoch = sampler.epoch(number)?;
        let padding = EpochPadding::new(number, &epoch, &sampler, |_| "-").of_texts();
        Ok(EpochPlan { items: pairs, epoch, padding })
    }
}

/// By tokens that are read in the place of seconds.
fn estimate(settings: &SamplerSettings, n_items: usize) -> BucketEstimate {
    BucketEstimate {
        n_duration_buckets: settings.n_duration_buckets.min(n_items).max(1),
        n_token_buckets: (settings.n_token_buckets > 0).then_some(settings.n_token_buckets),
        fit: settings.fit,
        ..BucketEstimate::default()
    }
}

impl Source for Corpus {
    type Batch = Batch;

    fn n_batches(&self, epoch: u64) -> usize {
        // An epoch without batches is an error of `load`.
        self.plan(epoch).map_or(1, |plan| plan.epoch.n_steps())
    }

    fn load(&self, at: Position) -> Result<Loaded<Batch>, Error> {
        let plan = self.plan(at.epoch)?;
        let items = plan.batch(at.batch);
        let mut pairs: Vec<&Pair> = items.map(|item| &self.pairs[plan.items[item]]).collect();
        pairs.sort_by_key(|pair| pair.text.len() + pair.translation.len());
        let size = pairs.len().div_ceil(self.n_parts.max(1)).max(1);
        let parts = pairs.chunks(size).map(|pairs| batch(pairs, self.end, &self.device));
        Ok(Loaded { parts: parts.collect::<Result<_, _>>()?, faults: Vec::new() })
    }
}

impl Data for Corpus {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn padding(&self, epoch: u64) -> Result<EpochPadding, Error> {
        Ok(self.plan(epoch)?.padding.clone())
    }

    fn heaviest(&self, epoch: u64) -> Result<usize, Error> {
        let plan = self.plan(epoch)?;
        Ok(plan.heaviest(|item| self.pairs[plan.items[item]].text.len() as f64))
    }
}
