//! Text to text, by an encoder of texts and the decoder of a model that will hear: speech translation begins here, where there are
//! many times more texts than recordings (Le et al., arXiv 2301.11716, section 4).

mod corpus;
#[cfg(test)]
mod tests;

pub use corpus::{Batch, Corpus};

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use models::params::Params;
use models::{Architecture, Description, TextModel, WeightDtype, write_weights};
use sha2::{Digest, Sha256};

use self::corpus::{Pair, batch, pairs};
use super::{Extent, Figures, Learner, Task, Term, Totals, figures};
use crate::Error;
use crate::config::{EvaluateConfig, RunConfig};
use crate::data::{Cut, Phonemes, hex};
use crate::evaluate::{Evaluation, Heard, Unheard};
use crate::loss::LossConfig;

/// Held-out pairs that are computed together.
const TOGETHER: usize = 16;

/// A translator of texts in training.
pub struct TranslateText {
    params: Params,
    description: Description,
    model: TextModel,
    /// The same weights without a graph.
    live: TextModel,
    loss: LossConfig,
    held_out: Vec<Pair>,
    evaluate: EvaluateConfig,
}

/// What a text translator is trained on and judged by, as manifests have it: what is said, and its translation.
pub struct Texts {
    /// To learn.
    pub train: Vec<Cut>,
    /// How often each of them is learnt in an epoch; empty is once.
    pub weights: Vec<f32>,
    /// To judge by.
    pub dev: Vec<Cut>,
}

/// Rows that a text translator does not learn or is not judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Without a text or without a translation.
    pub n_alone: usize,
    /// Longer than the model has positions for, or than `sampler.max_tokens` allows.
    pub n_too_long: usize,
}

impl LeftOut {
    /// What is worth a word, in whole sentences.
    pub fn notes(self) -> Vec<String> {
        let counted = [
            (self.n_alone, "rows have no text or no translation, and are left out"),
            (self.n_too_long, "pairs are longer than the model has positions for, and left out"),
        ];
        let some = counted.into_iter().filter(|(n, _)| *n > 0);
        some.map(|(n, what)| format!("{n} {what}")).collect()
    }
}

impl TranslateText {
    /// A task over `params`, which the model of `description` is built from, its data, and what is left out of these.
    ///
    /// # Errors
    /// Parameters that do not fit the description, a loss that there is nothing for, texts that the model cannot be asked for.
    pub fn new(
        params: Params,
        description: Description,
        config: &RunConfig,
        texts: Texts,
        phonemes: Option<&Phonemes>,
    ) -> Result<(Self, Corpus, LeftOut), Error> {
        check_loss(&config.loss, description.architecture())?;
        let model = TextModel::with_params(&description, &params)?;
        let live = TextModel::with_params(&description, &params.detached())?;
        let language = Some(config.data.language.as_str()).filter(|code| !code.is_empty());
        let Texts { train, weights, dev } = texts;
        let pairs = |cuts: &[Cut], what: &str| {
            let pairs = pairs(cuts, language, &live, phonemes)?;
            match pairs.is_empty() && !cuts.is_empty() {
                true => Err(Error::config(
                    what,
                    "has no row with a text and its translation (answer, target_lang)",
                )),
                false => Ok(pairs),
            }
        };
        let n_cuts = train.len();
        let mut pairs_to_learn = pairs(&train, "data.train")?;
        if !weights.is_empty() && pairs_to_learn.len() != n_cuts {
            let message = "are not for manifests of which some rows have no translation; leave them out";
            return Err(Error::config("data.weights", message));
        }
        let mut held_out = pairs(&dev, "data.dev")?;
        let n_alone = n_cuts - pairs_to_learn.len() + dev.len() - held_out.len();
        let n_pairs = pairs_to_learn.len() + held_out.len();
        let max_tokens = match config.sampler.max_tokens {
            0 => live.decoder().max_positions(),
            most => live.decoder().max_positions().min(most as usize),
        };
        let fits = |pair: &Pair| {
            pair.text.len() <= live.max_positions()
                && pair.prompt.0.len() + pair.translation.len() < max_tokens
        };
        held_out.retain(fits);
        let mut weights = weights;
        if !weights.is_empty() {
            let kept = weights.iter().zip(&pairs_to_learn).filter(|(_, pair)| fits(pair));
            weights = kept.map(|(weight, _)| *weight).collect();
        }
        pairs_to_learn.retain(fits);
        let n_too_long = n_pairs - pairs_to_learn.len() - held_out.len();
        if pairs_to_learn.is_empty() {
            return Err(Error::config(
                "data.train",
                "all its pairs are longer than the model has positions for",
            ));
        }
        let most = config.evaluate.max_utterances;
        if most > 0 && held_out.len() > most {
            let step = held_out.len() as f64 / most as f64;
            held_out = (0..most).map(|i| held_out[(i as f64 * step) as usize].clone()).collect();
        }
        let corpus = Corpus::new(pairs_to_learn, weights, config, &live, params.device())?;
        let (loss, evaluate) = (config.loss.clone(), config.evaluate.clone());
        let task = Self { params, description, model, live, loss, held_out, evaluate };
        Ok((task, corpus, LeftOut { n_alone, n_too_long }))
    }

    /// Pairs that it is judged by.
    pub fn n_held_out(&self) -> usize {
        self.held_out.len()
    }

    /// Cross-entropy of what comes next, summed, by a model that is trained or by the same one without its graph.
    fn sum(&self, model: &TextModel, batch: &Batch) -> Result<Tensor, Error> {
        let encoded = model.encoder().forward(&batch.texts)?; // (B, T, D)
        let lengths: Vec<usize> = batch.texts.iter().map(Vec::len).collect();
        let hidden = model.decoder().forward_padded(&batch.ids, &encoded, &lengths)?; // (B, U, D)
        let counted: Vec<u32> =
            (0u32..).zip(&batch.weights).filter(|(_, weight)| **weight != 0.0).map(|(row, _)| row).collect();
        let of = |values: &[u32]| counted.iter().map(|row| values[*row as usize]).collect();
        let weights = counted.iter().map(|row| batch.weights[*row as usize]).collect();
        let rows = Tensor::from_slice(&counted, counted.len(), hidden.device())?;
        let logits = model.decoder().logits(&hidden.flatten(0, 1)?.index_select(&rows, 0)?)?; // (N, V)
        self.loss.cross_entropy.sum(&logits, of(&batch.labels), weights)
    }

    /// What comes of the held-out pairs.
    fn translate(&self) -> Result<Evaluation, Error> {
        let mut evaluation = Evaluation::default();
        for pairs in self.held_out.chunks(TOGETHER) {
            let texts: Vec<_> = pairs.iter().map(|pair| pair.text.clone()).collect();
            let prompts: Vec<_> = pairs.iter().map(|pair| pair.prompt.clone()).collect();
            let written = self.live.write(&texts, &prompts, Some(self.evaluate.beam_size), &|| true)?;
            for (pair, written) in pairs.iter().zip(written) {
                let text = written.and_then(|ids| self.live.tokenizer().decode(&ids));
                match text {
                    Ok(hypothesis) => evaluation.heard.push(Heard {
                        name: pair.id.to_string(),
                        reference: pair.reference.to_string(),
                        hypothesis,
                        duration_secs: 0.0,
                    }),
                    Err(error) => evaluation.failed.push(Unheard::new(&pair.id, &error.into())),
                }
            }
        }
        Ok(evaluation)
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let vars = self.params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        vars.chain(self.params.buffers()).collect()
    }
}

/// Refuses what a model that reads texts has nothing for.
fn check_loss(loss: &LossConfig, architecture: &Architecture) -> Result<(), Error> {
    if let Architecture::ParakeetCtc(_) = architecture {
        let message = "parakeet_ctc has no decoder to write a translation with; take whisper or canary";
        return Err(Error::config("model.architecture", message));
    }
    for (name, weight) in loss.weights() {
        let is_right = (name == "cross_entropy") == (weight > 0.0);
        if !is_right {
            let message = format!("{weight}: translate_text learns by cross_entropy, and by nothing else");
            return Err(Error::config(format!("loss.{name}.weight"), message));
        }
    }
    Ok(())
}

impl Task for TranslateText {
    type Batch = Batch;

    fn vars(&self) -> Vec<(String, Var)> {
        self.params.vars()
    }

    fn extent(&self, batch: &Batch) -> Extent {
        batch.extent
    }

    fn terms(&self, batch: &Batch) -> Vec<Term> {
        let weight = batch.weights.iter().map(|weight| f64::from(*weight)).sum();
        vec![Term { name: "cross_entropy", scale: self.loss.cross_entropy.weight, weight }]
    }

    fn sums(&self, batch: &Batch) -> Result<Vec<Tensor>, Error> {
        Ok(vec![self.sum(&self.model, batch)?])
    }

    fn evaluate(&self) -> Result<Figures, Error> {
        if self.held_out.is_empty() {
            return Ok(Figures::new());
        }
        let mut totals = Totals::default();
        for pairs in self.held_out.chunks(TOGETHER) {
            let pairs: Vec<&Pair> = pairs.iter().collect();
            let batch = batch(&pairs, self.live.special_tokens().end, self.params.device())?;
            totals.weigh(&self.terms(&batch));
            totals.add("cross_entropy", f64::from(self.sum(&self.live, &batch)?.to_scalar::<f32>()?));
        }
        let evaluation = self.translate()?;
        let mut figures = figures::of_texts(&evaluation, &|_| true, self.evaluate.normaliser)?;
        for (term, sum) in totals.iter().filter(|(term, _)| term.weight > 0.0) {
            figures.insert(term.name.to_owned(), sum / term.weight);
            figures.insert("loss".to_owned(), term.scale * sum / term.weight);
        }
        if !evaluation.failed.is_empty() {
            figures.insert("n_failed".to_owned(), evaluation.failed.len() as f64);
        }
        Ok(figures)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        self.write_bundle(dir, WeightDtype::F32)
    }
}

impl Learner for TranslateText {
    fn params(&self) -> &Params {
        &self.params
    }

    fn n_left_out(&self) -> u64 {
        0
    }

    fn held_out_digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", self.evaluate));
        for pair in &self.held_out {
            hash.update(format!("\n{} {:?} {}", pair.id, pair.text, pair.reference));
        }
        hex(&hash.finalize())
    }

    fn write_bundle(&self, dir: &Path, dtype: WeightDtype) -> Result<(), Error> {
        self.description.source().copy_description(dir)?;
        Ok(write_weights(dir, &self.tensors(), dtype)?)
    }

    fn write_adapter(&self, _dir: &Path, _base: &str, _dtype: WeightDtype) -> Result<(), Error> {
        Err(Error::config("strategy.kind", "lora is not for translate_text; use full"))
    }
}
