//! Speech to text with an encoder-decoder: cross-entropy of the next token, and CTC on the encoder if wanted.

mod batch;
mod corpus;
mod encoder_states;
mod judge;
mod recordings;
mod speech_text;
mod teacher;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use corpus::{Capacity, Corpus};
pub(in crate::task) use corpus::{constraint, estimate};
pub use judge::HeldOut;
pub use recordings::Recordings;
pub(crate) use speech_text::{COLLAPSED, SPREADS};
pub use teacher::Teacher;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use models::nn::{CtcTargets, Linear};
use models::params::Params;
use models::{
    Architecture, CTC_HEAD, CtcHead, Decoder, Description, SpeechModel, Tokenizer, Transcriber, WeightDtype,
    add_updates, is_factor, write_adapter, write_weights,
};
use sha2::{Digest, Sha256};

use self::batch::Counted;
use self::recordings::cut_ids;
use self::speech_text::TextSide;
use super::{Extent, Figures, Learner, Task, Term};
use crate::Error;
use crate::data::{Cut, hex};
use crate::loss::{Ctc, CtcVocabulary, LossConfig};

/// A transcriber in training.
pub struct Transcribe {
    params: Params,
    description: Description,
    model: SpeechModel,
    heads: Heads,
    ctc_vocabulary: CtcVocabulary,
    loss: LossConfig,
    /// Of a student, whose encoder does not learn.
    teacher: Option<Teacher>,
    /// The same weights without a graph.
    live: Transcriber,
    live_heads: Heads,
    held_out: HeldOut,
}

/// What is beside a model while it is trained.
struct Heads {
    /// CTC's, where the model has none of its own.
    ctc: Option<Linear>,
    /// What the encoder's states are held against.
    text: Option<TextSide>,
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
        let (_, _, special) = description.vocabulary()?;
        let heads = |params: &Params| {
            let text = TextSide::load(params, &description, special.end)?;
            Ok::<_, Error>(Heads { ctc: head(params)?, text })
        };
        let own_heads = heads(&params)?;
        if own_heads.text.is_none() && loss.optimal_transport.weight > 0.0 {
            let message = "the model has no encoder of texts to learn from: set model.text_encoder_layers";
            return Err(Error::config("loss.optimal_transport.weight", message));
        }
        let detached = params.detached();
        let live = Transcriber::with_params(&description, &detached)?;
        let live_heads = heads(&detached)?;
        let (held_out, loss) = (held_out(&live)?, loss.clone());
        Ok(Self {
            params,
            description,
            model,
            heads: own_heads,
            ctc_vocabulary,
            loss,
            teacher,
            live,
            live_heads,
            held_out,
        })
    }

    /// Whether CTC is trained, with a head of the model or with one beside it.
    fn has_ctc(&self) -> bool {
        self.loss.ctc.weight > 0.0
    }

    /// Whether states of speech are moved onto those of text.
    fn has_transport(&self) -> bool {
        self.loss.optimal_transport.weight > 0.0
    }

    /// The bundle's files but its weights.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// A handle to the live weights.
    pub fn live(&self) -> &Transcriber {
        &self.live
    }

    /// Whether a bundle has a tensor: readers of most know no CTC head, and factors are in the weights already.
    fn is_kept(&self, name: &str) -> bool {
        (self.model.ctc_head().is_some() || !name.starts_with(CTC_HEAD)) && !is_factor(name)
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

    /// States of speech of a batch by a model that is trained or by the same one without its graph, (B, T, D).
    fn encode(&self, model: &SpeechModel, batch: &Batch) -> Result<Tensor, Error> {
        let is_padded = self.description.architecture().is_variable_length();
        Ok(match (&self.teacher, is_padded) {
            (Some(teacher), _) => teacher.states.encode(&self.live.model().encoder, batch)?,
            (None, true) => model.encoder.forward_padded(&batch.mel, &batch.n_frames)?,
            (None, false) => model.encoder.forward(&batch.mel, &|| true)?,
        })
    }

    /// The terms' sums, given states of speech (B, T, D).
    fn forward(
        &self,
        model: &SpeechModel,
        heads: &Heads,
        batch: &Batch,
        encoded: &Tensor,
    ) -> Result<Vec<Tensor>, Error> {
        let is_padded = self.description.architecture().is_variable_length();
        let n_positions = batch.n_positions(&self.live.model().encoder);
        let mut sums = Vec::new();
        if self.loss.trains_decoder() {
            let n_positions = is_padded.then_some(n_positions.as_slice());
            // Only positions that count get logits: padding and prompts cost nothing.
            let counted = batch.counted();
            let logits = logits(model.decoder()?, batch, encoded, n_positions, &counted)?; // (N, V)
            if self.loss.cross_entropy.weight > 0.0 {
                let (labels, weights) = (counted.of(&batch.labels), counted.of(&batch.weights));
                sums.push(self.loss.cross_entropy.sum(&logits, labels, weights)?);
            }
            if let Some(teacher) = self.teacher.as_ref().filter(|_| self.loss.distillation.weight > 0.0) {
                let theirs = self::logits(&teacher.decoder, batch, encoded, n_positions, &counted)?;
                sums.push(self.loss.distillation.sum(&logits, theirs, counted.of(&batch.weights))?);
            }
        }
        let own = model.ctc_head().filter(|_| self.has_ctc()).map(CtcHead::linear);
        if let Some(head) = own.or(heads.ctc.as_ref()) {
            sums.push(self.loss.ctc.sum(head, encoded, self.ctc_targets(batch))?);
        }
        if let Some(text) = heads.text.as_ref().filter(|_| self.has_transport()) {
            let rows = text.rows(batch, &batch.n_heard_positions(&self.live.model().encoder));
            let sum = self.loss.optimal_transport.sum(encoded, &text.states(batch)?, &rows);
            sums.push(match sum {
                Ok((sum, _)) => sum,
                // As of any other loss, which skips an update.
                Err(_) if !is_finite(encoded)? => Tensor::new(f32::NAN, encoded.device())?,
                Err(error) => return Err(error),
            });
        }
        Ok(sums)
    }
}

/// Whether all numbers are finite.
fn is_finite(x: &Tensor) -> Result<bool, Error> {
    Ok((x * 0.0)?.sum_all()?.to_scalar::<f32>()?.is_finite())
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
        if let Some(text) = self.heads.text.as_ref().filter(|_| self.has_transport()) {
            let (scale, weight) = (self.loss.optimal_transport.weight, text.weight(batch));
            terms.push(Term { name: "optimal_transport", scale, weight });
        }
        terms
    }

    fn sums(&self, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        self.forward(&self.model, &self.heads, batch, &self.encode(&self.model, batch)?)
    }

    fn evaluate(&self) -> Result<Figures, Error> {
        self.judge()
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        self.description.source().copy_description(dir)?;
        Ok(write_weights(dir, &self.tensors()?, WeightDtype::F32)?)
    }
}

impl Learner for Transcribe {
    fn params(&self) -> &Params {
        &self.params
    }

    fn n_left_out(&self) -> u64 {
        let vars = self.params.vars().into_iter().filter(|(name, _)| !self.is_kept(name) && !is_factor(name));
        vars.map(|(_, var)| var.elem_count() as u64).sum()
    }

    fn held_out_digest(&self) -> String {
        let HeldOut { recordings, utterances, config, seed, .. } = &self.held_out;
        let mut hash = Sha256::new();
        hash.update(format!("{config:?} {seed}"));
        for utterance in utterances {
            hash.update(format!("\n{} {}", utterance.id, recordings.text(utterance)));
            if recordings.reads_phonemes() {
                hash.update(format!(" {:?}", recordings.read_text(utterance).ok()));
            }
        }
        hex(&hash.finalize())
    }

    fn write_bundle(&self, dir: &Path, dtype: WeightDtype) -> Result<(), Error> {
        self.description.source().copy_description(dir)?;
        let mut tensors = self.tensors()?;
        tensors.retain(|name, _| self.is_kept(name));
        Ok(write_weights(dir, &tensors, dtype)?)
    }

    fn write_adapter(&self, dir: &Path, base: &str, dtype: WeightDtype) -> Result<(), Error> {
        let Some(lora) = self.params.lora() else {
            return Err(Error::config("strategy.kind", "only lora trains an adapter"));
        };
        // What the run changed in what its base says, and what it did not.
        self.description.source().copy_description(dir)?;
        Ok(write_adapter(dir, lora, base, &self.tensors()?, dtype)?)
    }
}
