//! Features to sound: a vocoder learns by how far the spectra of what it makes are from those of what was recorded, and later against
//! discriminators, which learn to tell one from the other (methods, 2.6).

mod corpus;
mod discriminators;
#[cfg(test)]
mod tests;

pub use corpus::{Batch, Corpus};

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use audio::features::Stft;
use audio::{Features, LogMel};
use candle_core::{Tensor, Var};
use models::WeightDtype;
use models::params::Params;
use models::vocos::{Vocos, VocosConfig};
use models::write_weights;
use sha2::{Digest, Sha256};

use self::corpus::{Recordings, n_crop};
use self::discriminators::Adversary;
use super::{Extent, Figures, Learner, Phase, Task, Term, Totals};
use crate::Error;
use crate::config::RunConfig;
use crate::data::{Cut, hex};
use crate::loss::{LossConfig, MelDistance, SpectralDistances};
use crate::sound_figure::SoundPair;

/// Held-out recordings that a run's card shows.
const N_SHOWN: usize = 3;
/// Held-out recordings whose losses are computed together.
const TOGETHER: usize = 8;

/// A vocoder in training.
pub struct Vocode {
    params: Params,
    config: VocosConfig,
    model: Vocos,
    /// The same weights without a graph.
    live: Arc<Vocos>,
    loss: LossConfig,
    spectral: SpectralDistances,
    mel: MelDistance,
    adversary: Option<Adversary>,
    held_out: Recordings,
    n_crop: usize,
    transform: Stft,
}

/// What a vocoder is trained on and judged by, as manifests have it.
pub struct Sounds {
    /// To learn.
    pub train: Vec<Cut>,
    /// How often each of them is heard in an epoch; empty is once.
    pub weights: Vec<f32>,
    /// To judge by.
    pub dev: Vec<Cut>,
}

impl Vocode {
    /// A task over `params`, which the vocoder of `vocos` is built from, and its data.
    ///
    /// # Errors
    /// Parameters that do not fit the configuration, features that there is no way back from, data of which nothing is left.
    pub fn new(
        params: Params,
        vocos: &VocosConfig,
        config: &RunConfig,
        sounds: Sounds,
    ) -> Result<(Self, Corpus), Error> {
        let (spec, device, loss) = (&vocos.feature_spec, params.device().clone(), config.loss.clone());
        let model = Vocos::load(&params.root(), vocos)?;
        let live = Arc::new(Vocos::load(&params.detached().root(), vocos)?);
        let Sounds { train, weights, mut dev } = sounds;
        let most = config.evaluate.max_utterances;
        if most > 0 && dev.len() > most {
            let step = dev.len() as f64 / most as f64;
            dev = (0..most).map(|i| dev[(i as f64 * step) as usize].clone()).collect();
        }
        // For both sets of recordings, which are about as likely to be heard again.
        let cache_bytes = config.data.cache_mb.saturating_mul(1 << 19);
        let recordings = Recordings::new(train, LogMel::new(spec)?, cache_bytes);
        let corpus = Corpus::new(recordings, weights, config, &device)?;
        let held_out = Recordings::new(dev, LogMel::new(spec)?, cache_bytes);
        let is_adversarial = loss.adversarial.weight > 0.0;
        let adversary = || Adversary::new(&loss.adversarial, live.clone(), config.seed, &device);
        let task = Self {
            config: vocos.clone(),
            spectral: loss.spectral.distances(spec)?,
            mel: loss.mel.distance(spec, &device)?,
            adversary: is_adversarial.then(adversary).transpose()?,
            n_crop: n_crop(config, &held_out.log_mel),
            transform: Stft::new(spec)?,
            params,
            model,
            live,
            loss,
            held_out,
        };
        Ok((task, corpus))
    }

    /// Recordings that it is judged by.
    pub fn n_held_out(&self) -> usize {
        self.held_out.cuts.len()
    }

    /// The discriminators, where their time has come.
    fn adversary(&self) -> Option<&Adversary> {
        self.adversary.as_ref().filter(|adversary| adversary.is_on())
    }

    /// What sound is held against recordings by.
    fn terms_of_sound(&self, weight: f64) -> Vec<Term> {
        let terms = [("spectral", self.loss.spectral.weight), ("mel", self.loss.mel.weight)];
        let some = terms.into_iter().filter(|(_, scale)| *scale > 0.0);
        some.map(|(name, scale)| Term { name, scale, weight }).collect()
    }

    /// The sums of these terms.
    fn sums_of_sound(&self, samples: &Tensor, recorded: &Tensor) -> Result<Vec<Tensor>, Error> {
        let mut sums = Vec::new();
        if self.loss.spectral.weight > 0.0 {
            sums.push(self.spectral.sum(samples, recorded)?);
        }
        if self.loss.mel.weight > 0.0 {
            sums.push(self.mel.sum(samples, recorded)?);
        }
        Ok(sums)
    }

    /// The losses of the middles of held-out recordings.
    fn held_out_losses(&self) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        let indices: Vec<usize> = (0..self.n_held_out()).collect();
        for indices in indices.chunks(TOGETHER) {
            let mut rows = Vec::new();
            for index in indices {
                let n_samples = self.held_out.waveform(*index)?.samples.len();
                let first = n_samples.saturating_sub(self.n_crop) / 2;
                rows.push(self.held_out.crop(*index, first, self.n_crop)?);
            }
            let batch = self.held_out.batch(&rows, 0.0, self.params.device())?;
            let terms = self.terms_of_sound(rows.len() as f64);
            totals.weigh(&terms);
            let made = self.live.forward(&batch.mel)?;
            for (term, sum) in terms.iter().zip(self.sums_of_sound(&made, &batch.samples)?) {
                totals.add(term.name, f64::from(sum.to_scalar::<f32>()?));
            }
        }
        Ok(totals)
    }

    /// How far held-out recordings are from what the vocoder makes of their features, as it is served: the mean absolute difference of
    /// features over all frames, and the spectral convergence, `|m - s| / |s|` over all magnitudes.
    fn resynthesis(&self) -> Result<(f64, f64), Error> {
        let (mut difference, mut n_values, mut off, mut whole) = (0f64, 0usize, 0f64, 0f64);
        for index in 0..self.n_held_out() {
            let waveform = self.held_out.waveform(index)?;
            let features = self.held_out.log_mel.compute(&waveform.samples);
            let made = self.live.waveform(&features)?.samples;
            // Samples after the last whole hop are in no frame's middle.
            let recorded = &waveform.samples[..made.len().min(waveform.samples.len())];
            let [theirs, ours] = [recorded, &made].map(|samples| self.held_out.log_mel.compute(samples));
            difference += total_difference(&theirs, &ours);
            n_values += theirs.data.len().min(ours.data.len());
            let [theirs, ours] = [recorded, &made].map(|samples| self.transform.spectrogram(samples));
            for (theirs, ours) in theirs.bins.iter().zip(&ours.bins) {
                let (theirs, ours) = (theirs.norm(), ours.norm());
                off += (ours - theirs).powi(2);
                whole += theirs.powi(2);
            }
        }
        Ok((difference / n_values.max(1) as f64, (off / whole.max(f64::MIN_POSITIVE)).sqrt()))
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect()
    }
}

/// Sum of absolute differences over the frames that both have.
fn total_difference(a: &Features, b: &Features) -> f64 {
    let n_frames = a.n_frames.min(b.n_frames);
    let rows = (0..a.n_mels).flat_map(|mel| a.row(mel)[..n_frames].iter().zip(&b.row(mel)[..n_frames]));
    rows.map(|(a, b)| f64::from((a - b).abs())).sum()
}

impl Task for Vocode {
    type Batch = Batch;

    fn vars(&self) -> Vec<(String, Var)> {
        self.params.vars()
    }

    fn further_phases(&self) -> Vec<&dyn Phase<Batch>> {
        self.adversary.iter().map(|adversary| adversary as &dyn Phase<Batch>).collect()
    }

    fn begin(&self, step: u64, n_steps: u64) {
        if let Some(adversary) = &self.adversary {
            adversary.begin(step, n_steps);
        }
    }

    fn extent(&self, batch: &Batch) -> Extent {
        batch.extent
    }

    fn terms(&self, batch: &Batch) -> Vec<Term> {
        let weight = batch.extent.n_cuts as f64;
        let mut terms = self.terms_of_sound(weight);
        if self.adversary().is_some() {
            let scale = self.loss.adversarial.weight;
            terms.push(Term { name: "adversarial", scale, weight });
            let scale = scale * self.loss.adversarial.feature_scale;
            terms.push(Term { name: "feature_matching", scale, weight });
        }
        terms
    }

    fn sums(&self, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        let samples = self.model.forward(&batch.mel)?; // (B, N)
        let mut sums = self.sums_of_sound(&samples, &batch.samples)?;
        if let Some(adversary) = self.adversary() {
            sums.extend(adversary.sums(&samples, &batch.samples)?);
            // Asked for again, it would be the same.
            let _ = batch.made.set(samples.detach());
        }
        Ok(sums)
    }

    fn evaluate(&self) -> Result<Figures, Error> {
        if self.held_out.cuts.is_empty() {
            return Ok(Figures::new());
        }
        let (mel_l1, spectral_convergence) = self.resynthesis()?;
        let mut figures = Figures::from([
            ("mel_l1".to_owned(), mel_l1),
            ("spectral_convergence".to_owned(), spectral_convergence),
        ]);
        let mut loss = 0.0;
        for (term, sum) in self.held_out_losses()?.iter().filter(|(term, _)| term.weight > 0.0) {
            figures.insert(term.name.to_owned(), sum / term.weight);
            loss += term.scale * sum / term.weight;
        }
        figures.insert("loss".to_owned(), loss);
        Ok(figures)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        self.write_bundle(dir, WeightDtype::F32)
    }
}

impl Learner for Vocode {
    fn params(&self) -> &Params {
        &self.params
    }

    fn n_left_out(&self) -> u64 {
        0
    }

    fn held_out_digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("vocode {} {}", self.config.feature_spec.digest(), self.n_crop));
        for cut in &self.held_out.cuts {
            hash.update(format!("\n{} {} {}", cut.id, cut.start_secs, cut.duration_secs));
        }
        hex(&hash.finalize())
    }

    fn sounds(&self) -> Result<Vec<SoundPair>, Error> {
        let n_shown = self.n_held_out().min(N_SHOWN);
        let pair = |at: usize| {
            let index = at * self.n_held_out() / n_shown;
            let recorded = self.held_out.waveform(index)?;
            let made = self.live.waveform(&self.held_out.log_mel.compute(&recorded.samples))?;
            let title = self.held_out.cuts[index].id.to_string();
            Ok(SoundPair { title, made, recorded: (*recorded).clone() })
        };
        (0..n_shown).map(pair).collect()
    }

    fn write_bundle(&self, dir: &Path, dtype: WeightDtype) -> Result<(), Error> {
        self.config.write(dir)?;
        Ok(write_weights(dir, &self.tensors(), dtype)?)
    }

    fn write_adapter(&self, _dir: &Path, _base: &str, _dtype: WeightDtype) -> Result<(), Error> {
        Err(Error::config("strategy.kind", "lora is not for vocode; use full"))
    }
}
