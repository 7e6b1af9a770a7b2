//! How good a transcriber in training is, on recordings that are not trained on.

use std::collections::BTreeSet;

use audio::augment::cut_rng;
use models::DecodeOptions;

use super::batch::Batch;
use super::recordings::{Draw, Recordings};
use super::speech_text::Distances;
use super::{Figures, Transcribe};
use crate::Error;
use crate::config::{EvaluateConfig, TargetConfig};
use crate::data::{JoinConfig, Length, LengthLimits, Utterance};
use crate::evaluate::{Heard, Reference, Unheard, evaluate, evaluate_by};
use crate::task::{Task as _, Totals, figures};
use crate::text::Normaliser;

/// Epoch in which held-out utterances are joined: none that is trained on.
const HELD_OUT_EPOCH: u64 = u64::MAX;
/// Held-out utterances whose loss is computed together.
const HELD_OUT_BATCH: usize = 8;

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

    /// What a model should write of each.
    pub(super) fn references(&self) -> impl Iterator<Item = Result<Reference, Unheard>> {
        self.utterances
            .iter()
            .map(|utterance| self.reference(utterance, |recordings| Ok(recordings.text(utterance))))
    }

    /// What an encoder should read in each that it is to read.
    fn read_references(&self) -> impl Iterator<Item = Result<Reference, Unheard>> {
        let said = self.utterances.iter().filter(|utterance| !self.is_translation(utterance));
        said.map(|utterance| self.reference(utterance, |recordings| recordings.read_text(utterance)))
    }

    fn reference(
        &self,
        utterance: &Utterance,
        text: impl FnOnce(&Recordings) -> Result<String, Error>,
    ) -> Result<Reference, Unheard> {
        let mut rng = cut_rng(self.seed, HELD_OUT_EPOCH, &utterance.id);
        let unheard = |error: Error| Unheard::new(&utterance.id, &error);
        Ok(Reference {
            name: utterance.id.clone(),
            waveform: self.recordings.hear(utterance, &mut rng).map_err(unheard)?,
            text: text(&self.recordings).map_err(unheard)?,
            language: self.recordings.language_of(utterance).map(str::to_owned),
            to_language: self.recordings.told(utterance).to_language.map(str::to_owned),
        })
    }

    fn is_translation(&self, utterance: &Utterance) -> bool {
        self.recordings.told(utterance).to_language.is_some()
    }

    /// Names of those whose text is a translation.
    fn translations(&self) -> BTreeSet<&str> {
        let translated = self.utterances.iter().filter(|utterance| self.is_translation(utterance));
        translated.map(|utterance| utterance.id.as_str()).collect()
    }
}

impl Transcribe {
    /// What CTC reads in a recording: in its first window, if it is longer.
    fn read(&self, samples: &[f32]) -> Result<String, models::Error> {
        let encoded = self.live.encode(self.live.window_features(samples))?; // (T, D)
        let ids = match (self.live.ctc(&encoded)?, &self.live_heads.ctc) {
            (Some(heard), _) => heard.read(1),
            (None, Some(head)) => {
                let logits = head.forward(&encoded)?.flatten_all()?.to_vec1()?; // (T, V)
                self.ctc_vocabulary.read(&logits)
            }
            (None, None) => Vec::new(),
        };
        self.held_out.recordings.spell(&ids)
    }

    /// The loss of the held-out utterances, its terms as means.
    fn held_out_loss(&self, figures: &mut Figures) -> Result<(), Error> {
        let draw = Draw {
            augmenter: None,
            target: &TargetConfig::default(),
            seed: self.held_out.seed,
            epoch: HELD_OUT_EPOCH,
        };
        let pad = self.live.special_tokens().end;
        let (mut totals, mut distances) = (Totals::default(), Distances::default());
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
            let encoded = self.encode(self.live.model(), &batch)?;
            let sums = self.forward(self.live.model(), &self.live_heads, &batch, &encoded)?;
            if let Some(text) = &self.live_heads.text {
                let rows = text.rows(&batch, &batch.n_heard_positions(&self.live.model().encoder));
                distances.add(&self.loss.optimal_transport, &encoded, &text.states(&batch)?, &rows)?;
            }
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
        distances.tell(figures);
        Ok(())
    }

    /// Losses and distances, and how good the texts are that come out.
    pub(super) fn judge(&self) -> Result<Figures, Error> {
        let mut figures = Figures::new();
        if self.held_out.utterances.is_empty() {
            return Ok(figures);
        }
        self.held_out_loss(&mut figures)?;
        // A decoder that learns nothing says nothing: what the encoder has learnt is read from the head.
        let is_read = !self.loss.trains_decoder() && self.live.model().decoder().is_ok();
        if is_read && !self.has_ctc() {
            return Ok(figures);
        }
        let config = &self.held_out.config;
        let evaluation = if is_read {
            let mut hear = |batch: &[Reference]| {
                batch.iter().map(|reference| self.read(&reference.waveform.samples)).collect()
            };
            evaluate_by(&mut hear, self.held_out.read_references(), &mut |_| {})
        } else {
            let options = DecodeOptions {
                beam_size: Some(config.beam_size),
                fallback: false,
                ..DecodeOptions::default()
            };
            evaluate(&self.live, self.held_out.references(), &options, &mut |_| {})
        };
        figures.extend(if is_read && self.held_out.recordings.reads_phonemes() {
            let of_phonemes = figures::of_texts(&evaluation, &|_| false, Normaliser::None)?;
            of_phonemes
                .into_iter()
                .filter(|(name, _)| name == "wer")
                .map(|(_, rate)| ("per".to_owned(), rate))
                .collect()
        } else {
            let translations = self.held_out.translations();
            let is_translation = |heard: &Heard| translations.contains(heard.name.as_str());
            figures::of_texts(&evaluation, &is_translation, config.normaliser)?
        });
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
}
