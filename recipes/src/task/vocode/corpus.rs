//! Recordings, in batches of random stretches. All of them are equally long, so that there is nothing for buckets to tell apart, and no
//! padding but after recordings that are shorter.

use std::sync::{Arc, OnceLock};

use audio::{DecodeAudio, LogMel, Waveform};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::RunConfig;
use crate::data::shuffle::{Purpose, below, generator};
use crate::data::{
    BucketEstimate, Constraint, Cut, EpochPadding, Length, LengthLimits, Sampler, SamplerConfig, hex,
    read_cut_at, weighted,
};
use crate::loader::{Fault, Loaded, Position, Source};
use crate::task::kept::Kept;
use crate::task::plans::{EpochPlan, Plans};
use crate::task::{Data, Extent};

/// What one forward pass takes.
pub struct Batch {
    /// Features.
    pub mel: Tensor, // (B, T, F)
    /// The sound that they are of, `N = (T - 1) * hop`.
    pub samples: Tensor, // (B, N)
    /// What the vocoder made of them in this update, for discriminators.
    pub(super) made: OnceLock<Tensor>, // (B, N)
    /// What it is made of.
    pub extent: Extent,
}

/// Cuts, heard by a vocoder.
pub(super) struct Recordings {
    pub cuts: Vec<Cut>,
    pub log_mel: LogMel,
    cache: Kept<usize, Arc<Waveform>>,
}

impl Recordings {
    pub fn new(cuts: Vec<Cut>, log_mel: LogMel, cache_bytes: usize) -> Self {
        Self { cuts, log_mel, cache: Kept::new(cache_bytes) }
    }

    /// A cut at the vocoder's rate.
    pub fn waveform(&self, index: usize) -> Result<Arc<Waveform>, Error> {
        if let Some(waveform) = self.cache.get(&index) {
            return Ok(waveform);
        }
        let rate = self.log_mel.spec().sample_rate;
        let waveform = Arc::new(read_cut_at(&self.cuts[index], rate, &DecodeAudio::default())?);
        self.cache.keep(index, waveform.clone(), size_of_val(waveform.samples.as_slice()));
        Ok(waveform)
    }

    /// `n_samples` of a cut from sample `first` on, silence after its end.
    pub fn crop(&self, index: usize, first: usize, n_samples: usize) -> Result<Vec<f32>, Error> {
        let waveform = self.waveform(index)?;
        let rest = waveform.samples.get(first..).unwrap_or_default();
        let mut samples = rest[..rest.len().min(n_samples)].to_vec();
        samples.resize(n_samples, 0.0);
        Ok(samples)
    }

    /// Stretches of whole hops, equally long, side by side, of which `heard_secs` are no silence after an end.
    pub fn batch(&self, rows: &[Vec<f32>], heard_secs: f64, device: &Device) -> Result<Batch, Error> {
        let (spec, n_samples) = (self.log_mel.spec(), rows.first().map_or(0, Vec::len));
        let n_frames = n_samples / spec.hop_samples + 1;
        let mut mel = Vec::with_capacity(rows.len() * n_frames * spec.n_mels);
        for row in rows {
            let features = self.log_mel.compute(row);
            // The last frame is one of those that some specs leave out.
            let last = |t: usize| t.min(features.n_frames.saturating_sub(1));
            let frames = (0..n_frames).flat_map(|t| {
                let features = &features;
                (0..spec.n_mels).map(move |f| features.data[f * features.n_frames + last(t)])
            });
            mel.extend(frames);
        }
        let padded_secs = (rows.len() * n_samples) as f64 / f64::from(spec.sample_rate);
        Ok(Batch {
            mel: Tensor::from_vec(mel, (rows.len(), n_frames, spec.n_mels), device)?,
            samples: Tensor::from_vec(rows.concat(), (rows.len(), n_samples), device)?,
            made: OnceLock::new(),
            extent: Extent { n_cuts: rows.len(), audio_secs: heard_secs, padded_secs, ..Extent::default() },
        })
    }
}

/// Recordings, and which stretches of them are trained on in which order.
pub struct Corpus {
    recordings: Recordings,
    /// How often each is heard in an epoch; empty is once.
    weights: Vec<f32>,
    sampler: SamplerConfig,
    seed: u64,
    n_crop: usize,
    n_parts: usize,
    device: Device,
    digest: String,
    plans: Plans<EpochPlan>,
}

/// Samples of a stretch: whole hops of `secs`, at least one.
pub(super) fn n_crop(config: &RunConfig, log_mel: &LogMel) -> usize {
    let spec = log_mel.spec();
    let n_hops = (config.vocoder.crop_secs * spec.frame_rate()).round() as usize;
    n_hops.max(1) * spec.hop_samples
}

impl Corpus {
    /// `weights` say how often each cut is heard in an epoch; none is once.
    ///
    /// # Errors
    /// Settings that make no sense, data of which nothing is left.
    pub(super) fn new(
        recordings: Recordings,
        weights: Vec<f32>,
        config: &RunConfig,
        device: &Device,
    ) -> Result<Self, Error> {
        let (settings, n_crop) = (&config.sampler, n_crop(config, &recordings.log_mel));
        let constraint = Constraint::Duration {
            max_secs: settings.batch_secs,
            quadratic_secs: None,
            max_items: (settings.max_items > 0).then_some(settings.max_items),
        };
        let sampler = SamplerConfig { limits: LengthLimits::default(), ..SamplerConfig::new(constraint) };
        let mut hash = Sha256::new();
        let spec = recordings.log_mel.spec().digest();
        hash.update(format!("vocode {weights:?} {} {n_crop} {} {sampler:?}", config.seed, spec));
        for cut in &recordings.cuts {
            hash.update(format!("\n{} {} {} {:?}", cut.id, cut.start_secs, cut.duration_secs, cut.channel));
        }
        let corpus = Self {
            recordings,
            weights,
            sampler,
            seed: config.seed,
            n_crop,
            n_parts: config.train.parts,
            device: device.clone(),
            digest: hex(&hash.finalize()),
            plans: Plans::default(),
        };
        corpus.plan(0)?;
        Ok(corpus)
    }

    fn rate(&self) -> f64 {
        f64::from(self.recordings.log_mel.spec().sample_rate)
    }

    fn plan(&self, number: u64) -> Result<Arc<EpochPlan>, Error> {
        self.plans.of(number, || self.make_plan(number))
    }

    fn make_plan(&self, number: u64) -> Result<EpochPlan, Error> {
        let cuts = weighted(&self.weights, self.recordings.cuts.len(), self.seed, number);
        let crop_secs = self.n_crop as f64 / self.rate();
        // As many stretches of each as it is long.
        let cuts: Vec<usize> = cuts
            .into_iter()
            .flat_map(|cut| {
                let n_crops = (self.recordings.cuts[cut].duration_secs / crop_secs).round().max(1.0);
                std::iter::repeat_n(cut, n_crops as usize)
            })
            .collect();
        let lengths = vec![Length::new(crop_secs, 0); cuts.len()];
        let one =
            BucketEstimate { n_duration_buckets: 1, n_token_buckets: None, ..BucketEstimate::default() };
        let sampler = Sampler::new(lengths.clone(), one.table(&lengths)?, self.sampler.clone(), self.seed)?;
        let epoch = sampler.epoch(number)?;
        let padding = EpochPadding::new(number, &epoch, &sampler, |_| "-");
        Ok(EpochPlan { items: cuts, epoch, padding })
    }

    /// The stretch that item `item` of an epoch is, and how long it is without silence after its end. It depends on the seed, the epoch and
    /// the item alone.
    fn stretch(&self, cut: usize, epoch: u64, item: usize) -> Result<(Vec<f32>, f64), Error> {
        let n_samples = self.recordings.waveform(cut)?.samples.len();
        let mut rng = generator(self.seed, epoch, Purpose::Crops, item as u64);
        let first = below(n_samples.saturating_sub(self.n_crop) as u64 + 1, &mut rng) as usize;
        let samples = self.recordings.crop(cut, first, self.n_crop)?;
        Ok((samples, n_samples.min(self.n_crop) as f64 / self.rate()))
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
        let (mut stretches, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            let cut = plan.items[item];
            match self.stretch(cut, at.epoch, item) {
                Ok(stretch) => stretches.push(stretch),
                Err(error) => faults
                    .push(Fault { cut: self.recordings.cuts[cut].id.to_string(), reason: error.to_string() }),
            }
        }
        let size = stretches.len().div_ceil(self.n_parts.max(1)).max(1);
        let parts = stretches.chunks(size).map(|stretches| {
            let (rows, secs): (Vec<_>, Vec<f64>) = stretches.iter().cloned().unzip();
            self.recordings.batch(&rows, secs.iter().sum(), &self.device)
        });
        Ok(Loaded { parts: parts.collect::<Result<_, _>>()?, faults })
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
        Ok(plan.heaviest(|_| 1.0))
    }
}
