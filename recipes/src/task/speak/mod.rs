//! Text to speech in continuous tokens: a causal Transformer learns where it is in its text and what it says of each patch, and a flow head to
//! carry noise to it (methods, 2).

mod batch;
mod corpus;
mod recordings;
#[cfg(test)]
mod tests;
mod voices;

use std::path::Path;

use audio::{DecodeAudio, Waveform};
use candle_core::{Tensor, Var};
use models::flow_lm::{Aligner, AttachedVocoder, Continuation, FlowLm, FlowLmConfig, Sequence};
use models::nn::{Targets, cross_entropy};
use models::params::Params;
use models::{SpeakOptions, Spoken, Synthesizer, Vocoder, WeightDtype, write_weights};
use sha2::{Digest, Sha256};

pub use self::batch::Batch;
use self::batch::Collation;
pub use self::corpus::Corpus;
use self::recordings::{Draw, Prompting};
pub use self::recordings::{Recordings, spelled};
pub use self::voices::Voices;
use super::{Extent, Figures, Learner, Task, Term, Totals};
use crate::Error;
use crate::config::{EvaluateConfig, RunConfig};
use crate::data::{LengthLimits, hex, read_cut_at};
use crate::loss::Flow;
use crate::metrics::{SpeechComparer, SpeechDistance};
use crate::sound_figure::SoundPair;

/// Held-out texts that are spoken at most, and of them those that a run's card shows.
const N_SPOKEN: usize = 12;
const N_SHOWN: usize = 3;
/// Held-out recordings that are computed together.
const TOGETHER: usize = 8;
/// Decides prompts and noise of held-out recordings, whatever the run's seed is.
const HELD_OUT_SEED: u64 = 0;

/// A voice in training.
pub struct Speak {
    params: Params,
    config: FlowLmConfig,
    model: FlowLm,
    /// The same weights without a graph.
    live: FlowLm,
    loss: Flow,
    held_out: Recordings,
    prompting: Prompting,
    history_noise: f64,
    evaluate: EvaluateConfig,
    voices: Voices,
    /// What its features become sound by, which does not learn.
    vocoder: Option<AttachedVocoder>,
    /// The same weights as they will be served.
    speaker: Synthesizer,
    comparer: SpeechComparer,
}

impl Speak {
    /// A task over `params`, which the model of `config` is built from, with recordings to judge it by and the
    /// voices and the vocoder that it will have.
    ///
    /// # Errors
    /// Parameters that do not fit the configuration.
    pub fn new(
        params: Params,
        config: FlowLmConfig,
        run: &RunConfig,
        held_out: Recordings,
        voices: Voices,
        vocoder: Option<AttachedVocoder>,
    ) -> Result<Self, Error> {
        let model = FlowLm::load(&params, &config, true)?;
        let live = FlowLm::load(&params.detached(), &config, true)?;
        let sound = match &vocoder {
            Some(attached) => attached.vocoder.clone(),
            None => Vocoder::griffin_lim(&config.feature_spec)?,
        };
        let recording = |name: &str| voices.recording(name);
        let speaker = Synthesizer::with_params(&config, &params.detached(), sound, &recording)?;
        let prompting = Prompting { prompt_secs: run.speech.prompt_secs, drop: 0.0 };
        Ok(Self {
            params,
            config,
            model,
            live,
            loss: run.loss.flow.clone(),
            held_out,
            prompting,
            history_noise: run.speech.history_noise,
            evaluate: run.evaluate.clone(),
            voices,
            vocoder,
            speaker,
            comparer: SpeechComparer::new()?,
        })
    }

    /// What it is trained on.
    ///
    /// # Errors
    /// Settings that make no sense, data of which nothing is left.
    pub fn corpus(
        &self,
        recordings: Recordings,
        weights: Vec<f32>,
        run: &RunConfig,
        limits: LengthLimits,
    ) -> Result<Corpus, Error> {
        Corpus::new(recordings, weights, run, &self.config, limits, self.params.device())
    }

    /// Terms and their sums, by a model that is trained or by the same one without its graph.
    fn compute(&self, model: &FlowLm, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        let Some(aligner) = &model.aligner else {
            return Err(Error::config("task", "a model without an aligner cannot learn to speak"));
        };
        let Batch { texts, told, n_frames, n_patches, .. } = batch;
        let scores = aligner.scores(&batch.mels, n_frames, texts)?;
        let weights = vec![1.0; texts.len()];
        let alignment = Aligner::loss(&scores, n_frames, texts, &weights)?;
        let paths = Aligner::paths(&scores, n_frames, texts)?;
        let rows = paths.iter().zip(n_patches).zip(texts.iter().zip(&batch.is_dropped));
        let pointers: Vec<Vec<u32>> = rows
            .map(|((path, n), (text, is_dropped))| match is_dropped {
                true => vec![0; *n],
                false => pointers(path.as_deref(), *n, text.len(), &self.config),
            })
            .collect();
        let sequences: Vec<Sequence<'_>> = told
            .iter()
            .zip(&batch.n_prompts)
            .zip(&pointers)
            .map(|((text, n_prompt), pointers)| Sequence { text, n_prompt: *n_prompt, pointers })
            .collect();
        let states = model.backbone.states(&sequences, batch.prompts.as_ref(), &batch.heard)?; // (N, D)

        let condition = model.head.condition(&states)?;
        let detached = condition.detach();
        let of = |condition: &Tensor, patches: &[u32]| {
            condition.index_select(&Tensor::from_slice(patches, patches.len(), condition.device())?, 0)
        };
        let (flow, map) = self.loss.sums(
            &batch.said,
            &batch.noise,
            &|x, times, patches| model.head.velocity(x, times, &of(&condition, patches)?),
            &|x, times, patches| self.live.head.velocity(x, times, &of(&detached, patches)?),
        )?;
        let Continuation { ends, advances } = model.continuation(&states, &batch.heard)?;
        let end = end_loss(&ends, batch)?;
        let (labels, weights) = steps(&pointers, batch);
        let advance = cross_entropy(&advances, Targets { labels, weights, smoothing: 0.0 })?;
        Ok([Some(flow), map, Some(end), Some(advance), Some(alignment)].into_iter().flatten().collect())
    }

    /// Held-out recordings that it is judged by, so many at most and spread over all; 0 is all.
    fn judged(&self, most: usize) -> Vec<usize> {
        let n = self.held_out.cuts.len();
        let taken = if most == 0 { n } else { n.min(most) };
        (0..taken).map(|i| i * n / taken.max(1)).collect()
    }

    /// Says a held-out text, as it will be asked to, beside its recording; `None` where that cannot be read or nobody can say it.
    fn say(&self, index: usize) -> Result<Option<(Spoken, SoundPair)>, Error> {
        let (cut, sample_rate) = (&self.held_out.cuts[index], self.speaker.sample_rate());
        let voice = self.speaker.voices().get(self.voices.place(cut.speaker.as_deref()));
        let recorded = read_cut_at(cut, sample_rate, &DecodeAudio::default());
        let (Some(voice), Ok(recorded)) = (voice, recorded) else { return Ok(None) };
        let options = SpeakOptions { seed: index as u64, ..SpeakOptions::default() };
        let speech = self.speaker.read(self.held_out.text(index), voice, &options)?;
        let mut samples = Vec::new();
        let spoken = self.speaker.say(speech, &mut |part| {
            samples.extend(part);
            Ok::<_, models::Error>(())
        });
        let title = cut.text.to_string();
        let pair = |samples| SoundPair { title, made: Waveform { samples, sample_rate }, recorded };
        match spoken {
            Ok(spoken) => Ok(Some((spoken, pair(samples)))),
            // What says no numbers at its beginning may learn to.
            Err(models::Error::NotFinite { .. }) => {
                let nothing = Spoken { n_symbols: 0, n_patches: 0, duration_secs: 0.0, n_stopped: 1 };
                Ok(Some((nothing, pair(Vec::new()))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How some held-out texts are said: how long that is beside their recordings, how far it sounds from them, and the share of which no
    /// end was found. Who is told at every step what was said, as in training, never loses his place.
    fn speak(&self) -> Result<Figures, Error> {
        let (mut spoken_secs, mut recorded_secs, mut n_stopped, mut n_spoken) = (0.0, 0.0, 0usize, 0usize);
        let mut distance = SpeechDistance::default();
        for index in self.judged(N_SPOKEN) {
            let Some((spoken, SoundPair { made, recorded, .. })) = self.say(index)? else { continue };
            n_spoken += 1;
            n_stopped += spoken.n_stopped;
            spoken_secs += spoken.duration_secs;
            recorded_secs += recorded.duration_secs();
            distance = distance + self.comparer.compare(&recorded, &made)?;
        }
        let mut figures = Figures::new();
        if n_spoken > 0 {
            figures.insert("stopped".to_owned(), n_stopped as f64 / n_spoken as f64);
            figures.insert("duration_ratio".to_owned(), spoken_secs / recorded_secs);
            // Of nothing that could be compared a run may make something.
            let distortion_db = distance.distortion_db().unwrap_or(f64::INFINITY);
            figures.insert("distortion_db".to_owned(), distortion_db);
        }
        Ok(figures)
    }
}

/// Which symbol of its text each patch is told: the one that its middle frame says, never further at once than the model can tell; the first and the
/// last are those of the text. Without a path it goes on steadily.
fn pointers(path: Option<&[u32]>, n_patches: usize, n_symbols: usize, config: &FlowLmConfig) -> Vec<u32> {
    let mut at = 0;
    let place = |patch: usize| match path {
        Some(path) => {
            let frame = patch * config.patch_frames + config.patch_frames / 2;
            path.get(frame.min(path.len().saturating_sub(1))).copied().unwrap_or(0)
        }
        None => (patch * n_symbols / n_patches.max(1)) as u32,
    };
    (0..n_patches)
        .map(|patch| {
            // The first one begins with the text, and the last one ends it.
            let step = match patch {
                0 => 0,
                patch if patch + 1 == n_patches => (n_symbols.saturating_sub(1) as u32).saturating_sub(at),
                patch => place(patch).saturating_sub(at),
            };
            at += step.min(config.max_advance as u32);
            at
        })
        .collect()
}

/// How many symbols each patch passes over, and which of them count: all but the last of what is told.
fn steps(pointers: &[Vec<u32>], batch: &Batch) -> (Vec<u32>, Vec<f32>) {
    let (mut labels, mut weights) = (Vec::new(), Vec::new());
    for (pointers, is_dropped) in pointers.iter().zip(&batch.is_dropped) {
        for (i, pointer) in pointers.iter().enumerate() {
            let next = pointers.get(i + 1);
            labels.push(next.map_or(0, |next| next - pointer));
            weights.push(if next.is_some() && !is_dropped { 1.0 } else { 0.0 });
        }
    }
    (labels, weights)
}

/// The sum of what is not known about which patch is the last one, of what is told.
fn end_loss(logits: &Tensor, batch: &Batch) -> candle_core::Result<Tensor> {
    let (mut is_last, mut weights) = (Vec::new(), Vec::new());
    for (n, is_dropped) in batch.n_patches.iter().zip(&batch.is_dropped) {
        is_last.extend((0..*n).map(|i| if i + 1 == *n { 1f32 } else { 0.0 }));
        weights.extend(vec![if *is_dropped { 0f32 } else { 1.0 }; *n]);
    }
    let n = weights.len();
    let (is_last, weights) =
        (Tensor::from_vec(is_last, n, logits.device())?, Tensor::from_vec(weights, n, logits.device())?);
    // ln(1 + e^x) - x y, without large powers.
    let spared = ((logits.abs()?.neg()?.exp()? + 1.0)?.log()? + logits.relu()?)?;
    ((spared - (logits * is_last)?)? * weights)?.sum_all()
}

impl Task for Speak {
    type Batch = Batch;

    fn vars(&self) -> Vec<(String, Var)> {
        self.params.vars()
    }

    fn extent(&self, batch: &Batch) -> Extent {
        batch.extent
    }

    fn terms(&self, batch: &Batch) -> Vec<Term> {
        let Flow { weight, end_weight, advance_weight, alignment_weight, map_draws, .. } = self.loss;
        let told = || batch.n_patches.iter().zip(&batch.is_dropped).filter(|(_, is_dropped)| !**is_dropped);
        let n: usize = batch.n_patches.iter().sum();
        let n_told: usize = told().map(|(n, _)| *n).sum();
        let n_advances: usize = told().map(|(n, _)| n.saturating_sub(1)).sum();
        // A mean over numbers, as that of the flow.
        let n_aligned = batch.n_frames.iter().sum::<usize>() * self.config.feature_spec.n_mels;
        let term = |name, scale, n: usize| Term { name, scale: weight * scale, weight: n as f64 };
        let map = (map_draws > 0).then(|| term("flow_map", 1.0, n));
        let rest = [
            term("end", end_weight, n_told),
            term("advance", advance_weight, n_advances),
            term("alignment", alignment_weight, n_aligned),
        ];
        [term("flow", 1.0, n)].into_iter().chain(map).chain(rest).collect()
    }

    fn sums(&self, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        self.compute(&self.model, batch)
    }

    fn evaluate(&self) -> Result<Figures, Error> {
        let mut totals = Totals::default();
        let mut n_failed = 0;
        let collation = Collation {
            config: &self.config,
            history_noise: self.history_noise,
            device: self.params.device(),
        };
        for indices in self.judged(self.evaluate.max_utterances).chunks(TOGETHER) {
            let mut rows = Vec::new();
            for index in indices {
                let draw = Draw { seed: HELD_OUT_SEED, epoch: 0, item: *index };
                match self.held_out.row(*index, self.prompting, draw) {
                    Ok(row) => rows.push(row),
                    Err(_) => n_failed += 1,
                }
            }
            if rows.is_empty() {
                continue;
            }
            let batch = collation.batch(&rows)?;
            let terms = self.terms(&batch);
            totals.weigh(&terms);
            for (term, sum) in terms.iter().zip(self.compute(&self.live, &batch)?) {
                totals.add(term.name, f64::from(sum.to_scalar::<f32>()?));
            }
        }
        let mut figures = Figures::new();
        for (term, sum) in totals.iter().filter(|(term, _)| term.weight > 0.0) {
            figures.insert(term.name.to_owned(), sum / term.weight);
            *figures.entry("loss".to_owned()).or_default() += term.scale * sum / term.weight;
        }
        if n_failed > 0 {
            figures.insert("n_failed".to_owned(), f64::from(n_failed));
        }
        figures.extend(self.speak()?);
        Ok(figures)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        // A checkpoint has what learns.
        self.voices.describe(dir, &FlowLmConfig { vocoder: None, ..self.config.clone() })?;
        let tensors = self.params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        Ok(write_weights(dir, &tensors.collect(), WeightDtype::F32)?)
    }
}

impl Learner for Speak {
    fn params(&self) -> &Params {
        &self.params
    }

    fn n_left_out(&self) -> u64 {
        0
    }

    fn sounds(&self) -> Result<Vec<SoundPair>, Error> {
        let said = self.judged(N_SHOWN).into_iter().map(|index| self.say(index));
        let pairs = said.filter_map(|said| said.map(|said| said.map(|(_, pair)| pair)).transpose());
        pairs.collect()
    }

    fn held_out_digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?} {}", self.evaluate, self.prompting, self.history_noise));
        // What is said is another thing with another vocoder or other steps.
        hash.update(format!("{:?} {}", self.config.sampling, self.vocoder.is_some()));
        for index in self.judged(self.evaluate.max_utterances) {
            hash.update(format!("\n{} {:?}", self.held_out.cuts[index].id, self.held_out.text(index)));
        }
        hex(&hash.finalize())
    }

    fn write_bundle(&self, dir: &Path, dtype: WeightDtype) -> Result<(), Error> {
        self.voices.describe(dir, &self.config)?;
        // The aligner, too, small as it is: who teaches this voice more begins with what it knows.
        let tensors = self.params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        let vocoder = self.vocoder.iter().flat_map(|vocoder| vocoder.tensors.clone());
        Ok(write_weights(dir, &tensors.chain(vocoder).collect(), dtype)?)
    }

    fn write_adapter(&self, _dir: &Path, _base: &str, _dtype: WeightDtype) -> Result<(), Error> {
        Err(Error::config("strategy.kind", "lora is not for speak; use full"))
    }
}
