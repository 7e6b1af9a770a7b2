//! The training data of a transcription: utterances of each epoch, in batches of equal lengths.

use std::sync::Arc;

use audio::augment::{Augmenter, cut_rng};
use candle_core::Device;
use models::Description;
use sha2::{Digest, Sha256};

use super::batch::Batch;
use super::recordings::{Draw, Recordings};
use crate::Error;
use crate::config::{RunConfig, SamplerSettings, TargetConfig};
use crate::data::{
    BatchSizeSearch, BucketEstimate, BucketTable, Constraint, Cut, Epoch, EpochPadding, JoinConfig, Length,
    LengthLimits, Sampler, SamplerConfig, TrainingMemory, Utterance, hex, weighted,
};
use crate::loader::{Fault, Loaded, Position, Source};
use crate::task::Data;
use crate::task::parts::divide;
use crate::task::plans::Plans;

/// Recordings, and the order in which they are trained on.
pub struct Corpus {
    recordings: Recordings,
    /// How often each cut is heard in an epoch; empty is once.
    weights: Vec<f32>,
    join: JoinConfig,
    augmenter: Augmenter,
    clean_epochs: u64,
    target: TargetConfig,
    sampler: SamplerConfig,
    table: BucketTable,
    seed: u64,
    /// Parts of a batch, at most.
    n_parts: usize,
    pad: u32,
    device: Device,
    digest: String,
    plans: Plans<Plan>,
}

/// What there is room for.
pub struct Capacity {
    /// Utterances that are heard.
    pub limits: LengthLimits,
    /// What decides how large batches are, in the place of their seconds.
    pub memory: Option<TrainingMemory>,
}

/// An epoch: what is heard, in which batches, and what they waste.
struct Plan {
    utterances: Vec<Utterance>,
    epoch: Epoch,
    padding: EpochPadding,
}

impl Corpus {
    /// `weights` say how often each cut is heard in an epoch; none is once. Buckets are estimated from the first epoch that is like
    /// all that follow. Beside it comes what the first epoch of all wastes, and what no batch takes.
    ///
    /// # Errors
    /// Settings that make no sense, data of which nothing is left.
    pub fn new(
        recordings: Recordings,
        weights: Vec<f32>,
        config: &RunConfig,
        augmenter: Augmenter,
        capacity: &Capacity,
        description: &Description,
        device: &Device,
    ) -> Result<(Self, EpochPadding), Error> {
        let Capacity { limits, memory } = *capacity;
        let (_, _, special) = description.vocabulary()?;
        let source = description.source();
        let tokenizer = &*source.read(source.tokenizer_file())?;
        let sampler = SamplerConfig { limits, ..SamplerConfig::new(constraint(&config.sampler)) };
        let mut corpus = Self {
            recordings,
            weights,
            join: config.join.clone(),
            augmenter,
            clean_epochs: config.data.clean_epochs,
            target: config.target.clone(),
            sampler,
            table: BucketTable::of_durations(&[f64::MAX])?,
            seed: config.seed,
            n_parts: config.train.parts,
            pad: special.end,
            device: device.clone(),
            digest: String::new(),
            plans: Plans::default(),
        };
        let typical = corpus.join.grow_epochs.max(corpus.clean_epochs);
        // All that may come, not what one draw of the weights takes.
        let is_heard = |index: &usize| corpus.weights.get(*index).is_none_or(|weight| *weight > 0.0);
        let indices = (0..corpus.recordings.cuts.len()).filter(is_heard).collect();
        let limits = &corpus.sampler.limits;
        let utterances = corpus.recordings.utterances(&corpus.join, indices, limits, corpus.seed, typical)?;
        let lengths = corpus.lengths(&utterances, typical)?;
        let taken: Vec<Length> =
            lengths.into_iter().filter(|length| corpus.sampler.limits.admit(*length).is_ok()).collect();
        corpus.table =
            estimate(&config.sampler, corpus.sampler.limits.max_duration_secs, taken.len()).table(&taken)?;
        if let Some(mut memory) = memory {
            let positions = description.architecture().max_target_positions() as u32;
            // What may stand around a text, as `Recordings::row` draws it.
            let TargetConfig { timestamps, previous, .. } = config.target;
            let context = if previous > 0.0 { positions / 2 } else { 0 };
            let search = BatchSizeSearch {
                extra_tokens: context + u32::from(timestamps > 0.0),
                max_tokens: Some(positions),
                ..BatchSizeSearch::default()
            };
            let (table, mut batch_sizes) = search.fit(&corpus.table, &taken, &mut memory)?;
            let max_items = if config.sampler.max_items > 0 { config.sampler.max_items } else { usize::MAX };
            batch_sizes.iter_mut().for_each(|size| *size = (*size).min(max_items));
            (corpus.table, corpus.sampler.constraint) = (table, Constraint::BatchSizes { batch_sizes });
        }
        let (first, sampler) = corpus.make_plan(0)?;
        corpus.digest = digest(&corpus.recordings, config, tokenizer, &sampler.digest())?;
        let padding = first.padding.clone();
        corpus.plans = Plans::beginning_with(first);
        Ok((corpus, padding))
    }

    fn utterances(&self, epoch: u64) -> Result<Vec<Utterance>, Error> {
        let indices = weighted(&self.weights, self.recordings.cuts.len(), self.seed, epoch);
        self.recordings.utterances(&self.join, indices, &self.sampler.limits, self.seed, epoch)
    }

    /// What is done to the recordings of an epoch, if anything.
    fn augmenter(&self, epoch: u64) -> Option<&Augmenter> {
        (epoch >= self.clean_epochs).then_some(&self.augmenter)
    }

    /// As the model will hear them: after the change of speed that will be drawn. Times and contexts that are drawn are not
    /// counted: which rows have them is no reason to leave one out, or to batch it otherwise.
    fn lengths(&self, utterances: &[Utterance], epoch: u64) -> Result<Vec<Length>, Error> {
        let sample_rate = self.recordings.sample_rate();
        let length = |utterance: &Utterance| {
            let rng = cut_rng(self.seed, epoch, &utterance.id);
            let secs = match self.augmenter(epoch) {
                Some(augmenter) => augmenter.augmented_secs(utterance.duration_secs, sample_rate, &rng)?,
                None => utterance.duration_secs,
            };
            // Without padding a window is computed whole, whatever is in it; what fits none keeps its own length, to be rejected.
            let window_secs = self.recordings.window_secs();
            let is_heard = (self.sampler.limits.min_duration_secs..=window_secs).contains(&secs);
            let secs = if is_heard && !self.recordings.is_variable_length() { window_secs } else { secs };
            Ok(Length::new(secs, self.recordings.n_tokens(utterance)?))
        };
        utterances.iter().map(length).collect()
    }

    fn plan(&self, epoch: u64) -> Result<Arc<Plan>, Error> {
        self.plans.of(epoch, || Ok(self.make_plan(epoch)?.0))
    }

    fn make_plan(&self, epoch: u64) -> Result<(Plan, Sampler), Error> {
        let utterances = self.utterances(epoch)?;
        let lengths = self.lengths(&utterances, epoch)?;
        let sampler = Sampler::new(lengths, self.table.clone(), self.sampler.clone(), self.seed)?;
        let batches = sampler.epoch(epoch)?;
        let language = |item: usize| {
            let stated = utterances[item].language(&self.recordings.cuts);
            stated.or(self.recordings.language.as_deref()).unwrap_or("-")
        };
        let padding = EpochPadding::new(epoch, &batches, &sampler, language);
        Ok((Plan { epoch: batches, utterances, padding }, sampler))
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
        let items = plan.epoch.step(at.batch).into_iter().flatten().flat_map(|batch| batch.items);
        let draw = Draw {
            augmenter: self.augmenter(at.epoch),
            target: &self.target,
            seed: self.seed,
            epoch: at.epoch,
        };
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            let utterance = &plan.utterances[item];
            match self.recordings.row(utterance, &draw) {
                Ok(row) => rows.push(row),
                Err(error) => faults.push(Fault { cut: utterance.id.clone(), reason: error.to_string() }),
            }
        }
        let parts = divide(rows, self.n_parts, |row| row.features.n_frames).into_iter();
        let parts = parts.map(|rows| Batch::new(rows, self.pad, &self.device)).collect::<Result<_, _>>()?;
        Ok(Loaded { parts, faults })
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
        let padded_secs = |at: &usize| {
            let batches = plan.epoch.step(*at).into_iter().flatten();
            let padded = |items: &mut dyn Iterator<Item = usize>| {
                let secs: Vec<f64> = items.map(|item| plan.utterances[item].duration_secs).collect();
                secs.iter().copied().fold(0.0, f64::max) * secs.len() as f64
            };
            batches.map(|batch| padded(&mut batch.items.into_iter())).fold(0.0, f64::max)
        };
        let steps = 0..plan.epoch.n_steps();
        Ok(steps.max_by(|a, b| padded_secs(a).total_cmp(&padded_secs(b))).unwrap_or(0))
    }
}

pub(in crate::task) fn constraint(settings: &SamplerSettings) -> Constraint {
    Constraint::Duration {
        max_secs: settings.batch_secs,
        quadratic_secs: (settings.quadratic_secs > 0.0).then_some(settings.quadratic_secs),
        max_items: (settings.max_items > 0).then_some(settings.max_items),
    }
}

pub(in crate::task) fn estimate(
    settings: &SamplerSettings,
    max_duration_secs: Option<f64>,
    n_items: usize,
) -> BucketEstimate {
    BucketEstimate {
        // Each bucket ends with a batch that is not full.
        n_duration_buckets: settings.n_duration_buckets.min(n_items).max(1),
        n_token_buckets: (settings.n_token_buckets > 0).then_some(settings.n_token_buckets),
        min_duration_secs: settings.min_duration_secs,
        max_duration_secs,
        fit: settings.fit,
        ..BucketEstimate::default()
    }
}

/// Of all that decides which batch is where and what is in it. Recordings may move; what is in them is taken on trust.
fn digest(
    recordings: &Recordings,
    config: &RunConfig,
    tokenizer: &[u8],
    sampler_digest: &str,
) -> Result<String, Error> {
    let RunConfig { seed, data, join, augment, target, .. } = config;
    let recorded = (&data.noises, &data.rooms);
    let drawn = (seed, &data.language, data.clean_epochs, &data.weights, recorded, join, augment, target);
    let settings = serde_json::to_string(&drawn).map_err(|error| Error::config("data", error.to_string()))?;
    let mut hash = Sha256::new();
    hash.update(settings);
    hash.update(sampler_digest);
    hash.update(tokenizer);
    for cut in &recordings.cuts {
        let Cut { id, start_secs, duration_secs, channel, text, language, speaker, .. } = cut;
        let times = (start_secs.to_bits(), duration_secs.to_bits());
        hash.update(format!("\n{id} {times:?} {channel:?} {language:?} {speaker:?} {text}"));
        if let Some(phonemes) = recordings.phonemes_of(cut)? {
            hash.update(format!(" {phonemes:?}"));
        }
    }
    Ok(hex(&hash.finalize()))
}
