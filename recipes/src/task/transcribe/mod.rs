//! Speech to text with an encoder-decoder: cross-entropy of the next token, and CTC on the encoder if wanted.

mod batch;
mod corpus;
mod encoder_states;
mod kept;
mod recordings;
mod teacher;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use corpus::{Capacity, Corpus};
pub use recordings::Recordings;
pub use teacher::Teacher;

use std::collections::BTreeMap;
use std::path::Path;

use audio::augment::cut_rng;
use candle_core::{Tensor, Var};
use models::nn::{CtcTargets, Linear};
use models::params::Params;
use models::{
    Architecture, CTC_HEAD, CtcHead, DecodeOptions, Decoder, Description, SpeechModel, Tokenizer,
    Transcriber, WeightDtype, add_updates, is_factor, write_adapter, write_weights,
};
use sha2::{Digest, Sha256};

use self::batch::Counted;
use self::recordings::{Draw, cut_ids};
use super::{Extent, Figures, Task, Term, Totals};
use crate::Error;
use crate::config::{EvaluateConfig, TargetConfig};
use crate::data::{Cut, JoinConfig, Length, LengthLimits, Utterance, hex};
use crate::evaluate::{Reference, Unheard, evaluate, evaluate_by};
use crate::loss::{Ctc, CtcVocabulary, LossConfig};
use crate::metrics::ScoreOptions;

/// Epoch in which held-out utterances are joined: none that is trained on.
const HELD_OUT_EPOCH: u64 = u64::MAX;
/// Held-out utterances whose loss is computed together.
const HELD_OUT_BATCH: usize = 8;

/// A transcriber in training.
pub struct Transcribe {
    params: Params,
    description: Description,
    model: SpeechModel,
    ctc_head: Option<Linear>,
    ctc_vocabulary: CtcVocabulary,
    loss: LossConfig,
    /// Of a student, whose encoder does not learn.
    teacher: Option<Teacher>,
    /// The same weights without a graph.
    live: Transcriber,
    live_ctc_head: Option<Linear>,
    held_out: HeldOut,
}

/// What a model is judged by while it is trained.
pub struct HeldOut {
    /// Cuts that are not trained on.
    pub recordings: Recordings,
    /// What is heard of them.
    pub utterances: Vec<Utterance>,
    /// How they are decoded and scored.
    pub config: EvaluateConfig,
    /// What the model has room for: of others there is no loss.
    pub limits: LengthLimits,
    /// Seed of what is drawn.
    pub seed: u64,
}

impl HeldOut {
    /// Joins cuts as training does if `config` says so, at most as many utterances as it says.
    pub fn new(
        recordings: Recordings,
        join: &JoinConfig,
        config: &EvaluateConfig,
        limits: LengthLimits,
        seed: u64,
    ) -> Result<Self, Error> {
        let none = JoinConfig::NONE;
        let join = if config.join { join } else { &none };
        let indices = (0..recordings.cuts.len()).collect();
        let mut utterances = recordings.utterances(join, indices, &limits, seed, HELD_OUT_EPOCH)?;
        if config.max_utterances > 0 && utterances.len() > config.max_utterances {
            // Spread over all of them.
            let step = utterances.len() as f64 / config.max_utterances as f64;
            let kept = (0..config.max_utterances).map(|i| utterances[(i as f64 * step) as usize].clone());
            utterances = kept.collect();
        }
        Ok(Self { recordings, utterances, config: config.clone(), limits, seed })
    }

    fn references(&self) -> impl Iterator<Item = Result<Reference, Unheard>> {
        self.utterances.iter().map(|utterance| {
            let mut rng = cut_rng(self.seed, HELD_OUT_EPOCH, &utterance.id);
            let waveform = self.recordings.hear(utterance, &mut rng);
            Ok(Reference {
                name: utterance.id.clone(),
                waveform: waveform.map_err(|error| Unheard::new(&utterance.id, &error))?,
                text: self.recordings.text(utterance),
                language: self.recordings.language_of(utterance).map(str::to_owned),
                to_language: self.recordings.told(utterance).to_language.map(str::to_owned),
            })
        })
    }
}

impl Transcribe {
    /// A task over `params`, which the model of `description` is built from. `seed` draws what a base model lacks, CTC tells the tokens
    /// of `ctc_vocabulary` apart, a student learns from its `teacher`, and `held_out` makes what the model is judged by, given a
    /// handle to its live weights.
    ///
    /// # Errors
    /// Parameters that do not fit the description.
    pub fn new(
        params: Params,
        description: Description,
        loss: &LossConfig,
        seed: u64,
        ctc_vocabulary: CtcVocabulary,
        teacher: Option<Teacher>,
        held_out: impl FnOnce(&Transcriber) -> Result<HeldOut, Error>,
    ) -> Result<Self, Error> {
        let architecture = description.architecture();
        // Only some models have one in their bundles; a checkpoint of this project has.
        let params = match architecture {
            Architecture::ParakeetCtc(_) => params,
            _ => params.with_new(CTC_HEAD, seed),
        };
        let model = SpeechModel::load(&params, architecture)?;
        check_loss(architecture, loss)?;
        // A model that has one of its own is trained with it.
        let has_ctc = loss.ctc.weight > 0.0 && model.ctc_head().is_none();
        let head = |params: &Params| {
            let params = params.root().sub(CTC_HEAD);
            let head =
                || Linear::load(&params, architecture.encoder_width(), ctc_vocabulary.n_outputs(), true);
            has_ctc.then(head).transpose()
        };
        let ctc_head = head(&params)?;
        let detached = params.detached();
        let live = Transcriber::with_params(&description, &detached)?;
        let live_ctc_head = head(&detached)?;
        let (held_out, loss) = (held_out(&live)?, loss.clone());
        Ok(Self {
            params,
            description,
            model,
            ctc_head,
            ctc_vocabulary,
            loss,
            teacher,
            live,
            live_ctc_head,
            held_out,
        })
    }

    /// Whether CTC is trained, with a head of the model or with one beside it.
    fn has_ctc(&self) -> bool {
        self.loss.ctc.weight > 0.0
    }

    /// A handle to the live weights.
    pub fn live(&self) -> &Transcriber {
        &self.live
    }

    /// Identifies what the model is judged by, and how.
    pub fn held_out_digest(&self) -> String {
        let HeldOut { recordings, utterances, config, seed, .. } = &self.held_out;
        let mut hash = Sha256::new();
        hash.update(format!("{config:?} {seed}"));
        for utterance in utterances {
            hash.update(format!("\n{} {}", utterance.id, recordings.text(utterance)));
        }
        hex(&hash.finalize())
    }

    /// The bundle's files but its weights.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Values that are trained, and all.
    pub fn n_parameters(&self) -> (u64, u64) {
        let n_trained: usize = self.params.vars().iter().map(|(_, var)| var.elem_count()).sum();
        let n_frozen: usize = self.params.buffers().values().map(Tensor::elem_count).sum();
        (n_trained as u64, (n_trained + n_frozen) as u64)
    }

    /// Values that are trained and that no bundle has: those of a CTC head beside a model that has none of its own.
    pub fn n_left_out(&self) -> u64 {
        let vars = self.params.vars().into_iter().filter(|(name, _)| !self.is_kept(name) && !is_factor(name));
        vars.map(|(_, var)| var.elem_count() as u64).sum()
    }

    /// Whether a bundle has a tensor: readers of most know no CTC head, and factors are in the weights already.
    fn is_kept(&self, name: &str) -> bool {
        (self.model.ctc_head().is_some() || !name.starts_with(CTC_HEAD)) && !is_factor(name)
    }

    /// Writes the model as it is now into `dir`, for use.
    ///
    /// # Errors
    /// What the disk refuses, weights that the type cannot hold.
    pub fn write_bundle(&self, dir: &Path, dtype: WeightDtype) -> Result<(), Error> {
        self.description.source().copy_description(dir)?;
        let mut tensors = self.tensors()?;
        tensors.retain(|name, _| self.is_kept(name));
        Ok(write_weights(dir, &tensors, dtype)?)
    }

    /// Writes what is trained beside the model `base` as an adapter into `dir`.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn write_adapter(&self, dir: &Path, base: &str, dtype: WeightDtype) -> Result<(), Error> {
        let Some(lora) = self.params.lora() else {
            return Err(Error::config("strategy.kind", "only lora trains an adapter"));
        };
        // What the run changed in what its base says, and what it did not.
        self.description.source().copy_description(dir)?;
        Ok(write_adapter(dir, lora, base, &self.tensors()?, dtype)?)
    }

    /// All tensors, those with something trained beside them as they are with it.
    fn tensors(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let vars = self.params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        let statistics = self.params.statistics().into_iter();
        let statistics = statistics.map(|(name, var)| (name, var.as_detached_tensor()));
        let mut tensors = vars.chain(statistics).chain(self.params.buffers()).collect();
        if let Some(lora) = self.params.lora() {
            add_updates(&mut tensors, lora)?;
        }
        Ok(tensors)
    }

    fn ctc_targets(&self, batch: &Batch) -> CtcTargets {
        let n_positions = batch.n_positions(&self.live.model().encoder);
        let mut targets = self.ctc_vocabulary.targets(&batch.texts, &n_positions);
        // Nobody hears a translation word for word.
        for (weight, is_transcript) in targets.weights.iter_mut().zip(&batch.are_transcripts) {
            *weight = if *is_transcript { 1.0 } else { 0.0 };
        }
        targets
    }

    /// What CTC reads in a recording: in its first window, if it is longer.
    fn read(&self, samples: &[f32]) -> Result<String, models::Error> {
        let encoded = self.live.encode(self.live.window_features(samples))?; // (T, D)
        let ids = match (self.live.ctc(&encoded)?, &self.live_ctc_head) {
            (Some(heard), _) => heard.read(1),
            (None, Some(head)) => {
                let logits = head.forward(&encoded)?.flatten_all()?.to_vec1()?; // (T, V)
                self.ctc_vocabulary.read(&logits)
            }
            (None, None) => Vec::new(),
        };
        self.live.tokenizer().decode(&ids)
    }

    /// The terms' sums by a model that is trained or by the same one without its graph.
    fn forward(
        &self,
        model: &SpeechModel,
        ctc_head: Option<&Linear>,
        batch: &Batch,
    ) -> Result<Vec<Tensor>, Error> {
        let is_padded = self.description.architecture().is_variable_length();
        let encoded = match (&self.teacher, is_padded) {
            (Some(teacher), _) => teacher.states.encode(&self.live.model().encoder, batch)?,
            (None, true) => model.encoder.forward_padded(&batch.mel, &batch.n_frames)?,
            (None, false) => model.encoder.forward(&batch.mel, &|| true)?,
        };
        let n_positions = batch.n_positions(&self.live.model().encoder);
        let mut sums = Vec::new();
        if self.loss.trains_decoder() {
            let n_positions = is_padded.then_some(n_positions.as_slice());
            // Only positions that count get logits: padding and prompts cost nothing.
            let counted = batch.counted();
            let logits = logits(model.decoder()?, batch, &encoded, n_positions, &counted)?; // (N, V)
            if self.loss.cross_entropy.weight > 0.0 {
                let (labels, weights) = (counted.of(&batch.labels), counted.of(&batch.weights));
                sums.push(self.loss.cross_entropy.sum(&logits, labels, weights)?);
            }
            if let Some(teacher) = self.teacher.as_ref().filter(|_| self.loss.distillation.weight > 0.0) {
                let theirs = self::logits(&teacher.decoder, batch, &encoded, n_positions, &counted)?;
                sums.push(self.loss.distillation.sum(&logits, theirs, counted.of(&batch.weights))?);
            }
        }
        let own = model.ctc_head().filter(|_| self.has_ctc()).map(CtcHead::linear);
        if let Some(head) = own.or(ctc_head) {
            sums.push(self.loss.ctc.sum(head, &encoded, self.ctc_targets(batch))?);
        }
        Ok(sums)
    }

    /// The loss of the held-out utterances, its terms as means.
    fn held_out_loss(&self, figures: &mut Figures) -> Result<(), Error> {
        let draw = Draw {
            augmenter: None,
            target: &TargetConfig { timestamps: 0.0, previous: 0.0, unpunctuated: 0.0 },
            seed: self.held_out.seed,
            epoch: HELD_OUT_EPOCH,
        };
        let pad = self.live.special_tokens().end;
        let mut totals = Totals::default();
        for utterances in self.held_out.utterances.chunks(HELD_OUT_BATCH) {
            // What cannot be read is counted by the scoring, which reads it too; what is too long for a window has no one loss.
            let fits = |utterance: &&Utterance| {
                let n_tokens = self.held_out.recordings.n_tokens(utterance).ok();
                n_tokens.is_some_and(|n_tokens| {
                    let length = Length::new(utterance.duration_secs, n_tokens);
                    self.held_out.limits.admit(length).is_ok()
                })
            };
            let rows: Vec<_> = utterances
                .iter()
                .filter(fits)
                .filter_map(|utterance| self.held_out.recordings.row(utterance, &draw).ok())
                .collect();
            if rows.is_empty() {
                continue;
            }
            let batch = Batch::new(rows, pad, self.params.device())?;
            let sums = self.forward(self.live.model(), self.live_ctc_head.as_ref(), &batch)?;
            let terms = self.terms(&batch);
            totals.weigh(&terms);
            for (term, sum) in terms.iter().zip(sums) {
                totals.add(term.name, f64::from(sum.to_scalar::<f32>()?));
            }
        }
        let mut loss = 0.0;
        for (term, sum) in totals.iter().filter(|(term, _)| term.weight > 0.0) {
            figures.insert(term.name.to_owned(), sum / term.weight);
            loss += term.scale * sum / term.weight;
        }
        figures.insert("loss".to_owned(), loss);
        Ok(())
    }
}

/// A decoder's logits at the positions that count, (N, V), given hidden states (B, T, D) of which `n_positions` of each row mean
/// something, or all.
fn logits(
    decoder: &Decoder,
    batch: &Batch,
    encoded: &Tensor,
    n_positions: Option<&[usize]>,
    counted: &Counted,
) -> Result<Tensor, Error> {
    let hidden = match n_positions {
        Some(n_positions) => decoder.forward_padded(&batch.ids, encoded, n_positions)?,
        None => decoder.forward(&batch.ids, encoded)?,
    };
    let rows = Tensor::from_slice(counted.rows(), counted.rows().len(), hidden.device())?;
    Ok(decoder.logits(&hidden.flatten(0, 1)?.index_select(&rows, 0)?)?)
}

/// The tokens that CTC tells apart when it is trained on `cuts`; those that state no language are in `language`. A head that there is
/// keeps what it knows, and gets to know the others.
///
/// # Errors
/// A tokenizer that cannot be read.
pub fn ctc_vocabulary(
    description: &Description,
    cuts: &[Cut],
    language: Option<&str>,
) -> Result<CtcVocabulary, Error> {
    let architecture = description.architecture();
    if let Architecture::ParakeetCtc(config) = architecture {
        return CtcVocabulary::whole(config.vocab_size, config.pad_token_id);
    }
    let tokenizer = Tokenizer::from_source(description.source())?;
    let heard = cuts.iter().filter(|cut| cut.target_language.is_none());
    let texts = heard.map(|cut| cut_ids(&tokenizer, cut, language)).collect::<Result<Vec<_>, _>>()?;
    let of_texts = CtcVocabulary::of(texts.iter().flatten().copied());
    Ok(of_texts.and(&CtcVocabulary::of_tokens(architecture.ctc_tokens())))
}

/// Refuses a loss that a model has nothing for.
pub(crate) fn check_loss(architecture: &Architecture, loss: &LossConfig) -> Result<(), Error> {
    if let Architecture::ParakeetCtc(_) = architecture {
        for (key, weight, is_right) in [
            ("loss.cross_entropy.weight", loss.cross_entropy.weight, loss.cross_entropy.weight == 0.0),
            ("loss.ctc.weight", loss.ctc.weight, loss.ctc.weight > 0.0),
        ] {
            if !is_right {
                let message = format!(
                    "{weight}: a parakeet_ctc reads by CTC alone; set loss.cross_entropy.weight = 0 and loss.ctc.weight = 1"
                );
                return Err(Error::config(key, message));
            }
        }
    }
    Ok(())
}

impl Task for Transcribe {
    type Batch = Batch;

    fn statistics(&self) -> Vec<(String, Var)> {
        self.params.statistics()
    }

    fn follow(&self, is_kept: bool) -> Result<(), Error> {
        Ok(self.model.encoder.follow(is_kept)?)
    }

    fn vars(&self) -> Vec<(String, Var)> {
        self.params.vars()
    }

    fn extent(&self, batch: &Batch) -> Extent {
        let n_too_short = if self.has_ctc() { self.ctc_targets(batch).n_infeasible() } else { 0 };
        Extent { n_too_short, ..batch.extent }
    }

    fn terms(&self, batch: &Batch) -> Vec<Term> {
        let mut terms = Vec::new();
        let weight = batch.weights.iter().map(|weight| f64::from(*weight)).sum();
        if self.loss.cross_entropy.weight > 0.0 {
            terms.push(Term { name: "cross_entropy", scale: self.loss.cross_entropy.weight, weight });
        }
        if self.loss.distillation.weight > 0.0 {
            terms.push(Term { name: "distillation", scale: self.loss.distillation.weight, weight });
        }
        if self.has_ctc() {
            // By tokens, as the other term.
            let weight = Ctc::weight(&self.ctc_targets(batch));
            terms.push(Term { name: "ctc", scale: self.loss.ctc.weight, weight });
        }
        terms
    }

    fn sums(&self, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        self.forward(&self.model, self.ctc_head.as_ref(), batch)
    }

    fn evaluate(&self) -> Result<Figures, Error> {
        let mut figures = Figures::new();
        if self.held_out.utterances.is_empty() {
            return Ok(figures);
        }
        self.held_out_loss(&mut figures)?;
        let config = &self.held_out.config;
        let options =
            DecodeOptions { beam_size: Some(config.beam_size), fallback: false, ..DecodeOptions::default() };
        let score = ScoreOptions { normaliser: config.normaliser, ..ScoreOptions::default() };
        let references = self.held_out.references();
        // A decoder that learns nothing says nothing: what the encoder has learnt is read from the head.
        let evaluation = if !self.loss.trains_decoder() && self.live.model().decoder().is_ok() {
            let mut hear = |batch: &[Reference]| {
                batch.iter().map(|reference| self.read(&reference.waveform.samples)).collect()
            };
            evaluate_by(&mut hear, references, &mut |_| {})
        } else {
            evaluate(&self.live, references, &options, &mut |_| {})
        };
        if let Some(score) = evaluation.score(&score)? {
            let report = score.report()?;
            let rates = [("wer", report.words.rate), ("cer", report.characters.rate)];
            figures.extend(rates.into_iter().filter_map(|(name, rate)| Some((name.to_owned(), rate?))));
        }
        if let Some(rate) = evaluation.false_text_rate() {
            figures.insert("false_text_rate".to_owned(), rate);
        }
        if let Some(first) = evaluation.failed.first() {
            if evaluation.heard.is_empty() {
                let message = format!("none of it can be heard; the first: {}: {}", first.name, first.reason);
                return Err(Error::config("data.dev", message));
            }
            figures.insert("n_failed".to_owned(), evaluation.failed.len() as f64);
        }
        figures.insert("speed".to_owned(), evaluation.speed());
        Ok(figures)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        self.description.source().copy_description(dir)?;
        Ok(write_weights(dir, &self.tensors()?, WeightDtype::F32)?)
    }
}
