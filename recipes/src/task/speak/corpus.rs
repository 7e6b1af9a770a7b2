//! The training data of a voice: its recordings in batches of equal lengths.

use std::sync::Arc;

use candle_core::Device;
use models::flow_lm::{FlowLmConfig, Sampling};
use sha2::{Digest, Sha256};

use super::batch::{Batch, Collation};
use super::recordings::{Draw, Prompting, Recordings};
use crate::Error;
use crate::config::RunConfig;
use crate::data::{Cut, EpochPadding, Length, LengthLimits, Sampler, SamplerConfig, hex, weighted};
use crate::loader::{Fault, Loaded, Position, Source};
use crate::task::Data;
use crate::task::parts::divide;
use crate::task::plans::{EpochPlan, Plans};
use crate::task::transcribe::{constraint, estimate};

/// Recordings, and the order in which they are learnt.
pub struct Corpus {
    recordings: Recordings,
    config: FlowLmConfig,
    /// How often each cut is heard in an epoch; empty is once.
    weights: Vec<f32>,
    prompting: Prompting,
    history_noise: f64,
    sampler: Sampler,
    seed: u64,
    n_parts: usize,
    device: Device,
    digest: String,
    plans: Plans<EpochPlan>,
}

impl Corpus {
    /// `weights` say how often each cut is heard in an epoch; none is once.
    ///
    /// # Errors
    /// Settings that make no sense, data of which nothing is left.
    pub(super) fn new(
        recordings: Recordings,
        weights: Vec<f32>,
        run: &RunConfig,
        config: &FlowLmConfig,
        limits: LengthLimits,
        device: &Device,
    ) -> Result<Self, Error> {
        let lengths: Vec<Length> = (0..recordings.cuts.len()).map(|index| recordings.length(index)).collect();
        let taken: Vec<Length> =
            lengths.iter().copied().filter(|length| limits.admit(*length).is_ok()).collect();
        let table = estimate(&run.sampler, limits.max_duration_secs, taken.len()).table(&taken)?;
        let settings = SamplerConfig { limits, ..SamplerConfig::new(constraint(&run.sampler)) };
        let sampler = Sampler::new(lengths, table, settings, run.seed)?;
        let speech = &run.speech;
        let mut hash = Sha256::new();
        let drawn = (&weights, run.seed, speech.prompt_secs, speech.drop, speech.history_noise);
        hash.update(format!("{drawn:?} {}", sampler.digest()));
        // A vocoder changes nothing that is learnt, nor does how it is spoken with.
        let learnt = FlowLmConfig { vocoder: None, sampling: Sampling::default(), ..config.clone() };
        hash.update(learnt.to_json().to_string());
        for (index, cut) in recordings.cuts.iter().enumerate() {
            let Cut { id, start_secs, duration_secs, channel, speaker, .. } = cut;
            let times = (start_secs.to_bits(), duration_secs.to_bits());
            hash.update(format!("\n{id} {times:?} {channel:?} {speaker:?} {:?}", recordings.text(index)));
        }
        Ok(Self {
            recordings,
            config: config.clone(),
            weights,
            prompting: Prompting { prompt_secs: speech.prompt_secs, drop: speech.drop },
            history_noise: speech.history_noise,
            sampler,
            seed: run.seed,
            n_parts: run.train.parts,
            device: device.clone(),
            digest: hex(&hash.finalize()),
            plans: Plans::default(),
        })
    }

    fn plan(&self, number: u64) -> Result<Arc<EpochPlan>, Error> {
        self.plans.of(number, || self.make_plan(number))
    }

    fn make_plan(&self, number: u64) -> Result<EpochPlan, Error> {
        let cuts = weighted(&self.weights, self.recordings.cuts.len(), self.seed, number);
        let lengths = cuts.iter().map(|cut| self.recordings.length(*cut)).collect();
        let (table, config) = (self.sampler.table().clone(), self.sampler.config().clone());
        let sampler = Sampler::new(lengths, table, config, self.seed)?;
        let epoch = sampler.epoch(number)?;
        let language = |item: usize| self.recordings.cuts[cuts[item]].language.as_deref().unwrap_or("-");
        let padding = EpochPadding::new(number, &epoch, &sampler, language);
        Ok(EpochPlan { items: cuts, epoch, padding })
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
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            let index = plan.items[item];
            let draw = Draw { seed: self.seed, epoch: at.epoch, item };
            match self.recordings.row(index, self.prompting, draw) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    let cut = self.recordings.cuts[index].id.to_string();
                    faults.push(Fault { cut, reason: error.to_string() });
                }
            }
        }
        let collation =
            Collation { config: &self.config, history_noise: self.history_noise, device: &self.device };
        let parts = divide(rows, self.n_parts, |row| row.features.n_frames).into_iter();
        let parts = parts.map(|rows| collation.batch(&rows)).collect::<Result<_, _>>()?;
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
        Ok(plan.heaviest(|item| self.recordings.cuts[plan.items[item]].duration_secs))
    }
}
